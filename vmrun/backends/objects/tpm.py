"""tpm-emulator: a TPM in another program (swtpm), which a chardev names: what QEMU's -tpmdev emulator makes.

One socket takes orders, each a number and its argument, big-endian; the first hands the program a second one, on which
TPM commands and responses travel. Ref: swtpm's tpm_ioctl.h (man 3 swtpm_ioctls); TPM 2.0 part 1, command and response
headers. What the program says is bounded and timed; one that fails answers every command with a failure.
"""

from __future__ import annotations

import os
import socket
import struct

from vmrun.core.props import Prop
from vmrun.core.userobject import UserObject
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmrun.core.platform import Platform

GET_STATE, SET_STATE, DECRYPTED = 12, 13, 1
STATES = {"permanent": 1, "volatile": 2, "savestate": 3}  # of the TPM, as the program gives and takes them
LARGEST_STATE, NO_SUCH_STATE = 1 << 20, 0x800
GET_CAPABILITY, INIT, SHUTDOWN, ESTABLISHED, SET_LOCALITY = 1, 2, 3, 4, 5
CANCEL, RESET_ESTABLISHED, STOP, SET_DATA_FD, SET_BUFFER_SIZE = 9, 11, 14, 16, 17
NEEDED = 1 | 4 | 1 << 11 | 1 << 12  # init, established, stop, data socket
HEADER = struct.Struct(">HII")
LARGEST = 4096
PATIENCE = 10.0  # seconds for an order
# what a TPM that fails itself answers: tag, size, code
FAILURE = {1: HEADER.pack(0xC4, 10, 9), 2: HEADER.pack(0x8001, 10, 0x101)}
PROBE = {2: HEADER.pack(0x8001, 12, 0x144) + b"\0\0", 1: HEADER.pack(0xC1, 12, 0x99) + b"\0\1"}  # Startup


class TpmEmulator(UserObject):
    """`version` is 1 or 2, `buffer_size` the most that a command or response has; `model` of the device it is for."""

    driver = "tpm-emulator"

    chardev = Prop("chardev", doc="the socket of the program's orders")

    def complete(self, platform: Platform) -> None:
        if not self.chardev:
            raise BuildError("tpm-emulator: parameter 'chardev' is missing")
        spec = platform.chardev_spec(self.chardev)
        if spec is None:
            raise BuildError(f"tpm-emulator: tpm chardev '{self.chardev}' not found")
        if spec.get("type") != "socket" or spec.get("server"):
            raise BuildError("tpm-emulator: Failed to send CMD_SET_DATAFD: the chardev is no socket that connects")
        self.platform = platform
        self.model = ""
        self.locality = -1
        self.failed = False
        self.pending = b""
        self.done: Callable[[bytes], None] | None = None
        self.orders = _connected(spec)
        own, given = socket.socketpair()
        self.data = own
        try:
            socket.send_fds(self.orders, [SET_DATA_FD.to_bytes(4, "big")], [given.fileno()])
            given.close()
            self._result(self._exact(4), "CMD_SET_DATAFD")
            (able,) = struct.unpack(">Q", self._order(GET_CAPABILITY, b"", 8))
            if able & NEEDED != NEEDED:
                raise BuildError("tpm-emulator: TPM emulator does not implement minimum set of required capabilities")
            self._find_version()
        except OSError as error:
            self.release()
            raise BuildError(f"tpm-emulator: the TPM's program does not answer: {error}") from None
        except BaseException:
            self.release()
            raise
        own.setblocking(False)
        platform.watch_descriptor(own.fileno(), self._arrived)

    def release(self) -> None:
        if self.data.fileno() >= 0:
            self.platform.watch_descriptor(self.data.fileno(), None)
        try:
            self._order(SHUTDOWN, b"", 4)
        except (OSError, BuildError):
            pass
        self.data.close()
        self.orders.close()

    # --- orders -------------------------------------------------------------------------------------------

    def _order(self, number: int, argument: bytes, size: int) -> bytes:
        self.orders.sendall(number.to_bytes(4, "big") + argument)
        return self._exact(size)

    def _exact(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            part = self.orders.recv(size - len(found))
            if not part:
                raise OSError("it has closed the connection")
            found += part
        return found

    def _result(self, answer: bytes, name: str) -> None:
        code = int.from_bytes(answer[:4], "big")
        if code:
            raise BuildError(f"tpm-emulator: TPM result for {name}: {code:#x}")

    def _find_version(self) -> None:
        """Ask it something that only a TPM 2 understands."""
        self._start(0)
        self.data.settimeout(PATIENCE)
        self.data.sendall(PROBE[2])
        answer = b""
        while len(answer) < HEADER.size:
            part = self.data.recv(LARGEST)
            if not part:
                raise OSError("it has closed the connection")
            answer += part
        self.version = 2 if HEADER.unpack_from(answer)[0] == 0x8001 else 1

    def _start(self, wanted: int) -> None:
        self._result(self._order(STOP, b"", 4), "CMD_STOP")
        answer = self._order(SET_BUFFER_SIZE, wanted.to_bytes(4, "big"), 16)
        self._result(answer, "CMD_SET_BUFFERSIZE")
        self.buffer_size = min(max(int.from_bytes(answer[4:8], "big"), HEADER.size), LARGEST)
        self._result(self._order(INIT, bytes(4), 4), "CMD_INIT")
        self.locality = -1

    # --- the TPM's own state, for a saved machine ---------------------------------------------------------

    def states(self) -> dict[str, bytes]:
        """By the names of STATES. BuildError: the program does not give them."""
        try:
            return {name: self._get_state(kind) for name, kind in STATES.items()}
        except OSError as error:
            raise BuildError(f"tpm-emulator: the TPM's program does not give its state: {error}") from None

    def _get_state(self, kind: int) -> bytes:
        found = b""
        while True:
            answer = self._order(GET_STATE, struct.pack(">III", DECRYPTED, kind, len(found)), 16)
            if int.from_bytes(answer[:4], "big") == NO_SUCH_STATE:
                return b""
            self._result(answer, "CMD_GET_STATEBLOB")
            _, _, total, count = struct.unpack(">IIII", answer)
            if total > LARGEST_STATE or count > total - len(found):
                raise OSError(f"a state of {total} bytes")
            found += self._exact(count)
            if len(found) >= total or not count:
                return found

    def set_states(self, states: dict[str, bytes]) -> None:
        """Put back what states() gave, and power on with it. BuildError."""
        try:
            self._result(self._order(STOP, b"", 4), "CMD_STOP")
            for name, kind in STATES.items():
                data = states[name]
                if data:
                    head = struct.pack(">III", DECRYPTED, kind, len(data))
                    self._result(self._order(SET_STATE, head + data, 4), "CMD_SET_STATEBLOB")
            self._result(self._order(INIT, bytes(4), 4), "CMD_INIT")
        except OSError as error:
            raise BuildError(f"tpm-emulator: the TPM's program does not take its state: {error}") from None
        self.locality = -1
        self.failed = False

    # --- for the device -----------------------------------------------------------------------------------

    def startup(self, most: int = LARGEST) -> None:
        """Power-on, with buffers of `most` bytes. The device lock is held; the program's silence has a limit."""
        self.done, self.pending = None, b""
        try:
            self._start(min(most, self.buffer_size))
            while self.data.recv(LARGEST):
                pass  # what a command that was given up brought
            self.failed = True
        except BlockingIOError:
            self.failed = False
        except (OSError, BuildError):
            self.failed = True

    def established(self) -> bool:
        try:
            return not self.failed and bool(self._order(ESTABLISHED, b"", 8)[4])
        except (OSError, BuildError):
            return False

    def reset_established(self, locality: int) -> None:
        def tell() -> None:
            try:
                self._order(RESET_ESTABLISHED, bytes([locality]) + bytes(3), 4)
            except (OSError, BuildError):
                self.failed = True

        self.platform.call_soon(tell)

    def send(self, locality: int, request: bytes, done: Callable[[bytes], None]) -> None:
        """A command; done(response) comes on the main thread with the device lock held, unless `startup` is first."""
        self.done = done

        def start() -> None:
            if self.done is not done:
                return
            try:
                if self.failed:
                    raise OSError("it has failed")
                if locality != self.locality:
                    self._result(self._order(SET_LOCALITY, bytes([locality]) + bytes(3), 4), "CMD_SET_LOCALITY")
                    self.locality = locality
                self.data.sendall(request)
            except (OSError, BuildError):
                self._fail()

        self.platform.call_soon(start)

    def cancel(self) -> None:
        """Give up the command that is under way; its response comes all the same."""

        def tell() -> None:
            try:
                if self.done is not None and not self.failed:
                    self._order(CANCEL, b"", 4)
            except (OSError, BuildError):
                self._fail()

        self.platform.call_soon(tell)

    def _arrived(self) -> None:
        try:
            part = self.data.recv(LARGEST)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self.platform.watch_descriptor(self.data.fileno(), None)
            self._fail()
            return
        self.pending += part
        if len(self.pending) < HEADER.size:
            return
        size = HEADER.unpack_from(self.pending)[1]
        if not HEADER.size <= size <= self.buffer_size:
            self._fail()
        elif len(self.pending) >= size:
            answer, self.pending = self.pending[:size], b""
            self._finish(answer)

    def _fail(self) -> None:
        self.failed, self.pending = True, b""
        self._finish(FAILURE[self.version])

    def _finish(self, answer: bytes) -> None:
        done, self.done = self.done, None
        if done is not None:
            with self.platform.lock:
                done(answer)


def _connected(spec: dict[str, object]) -> socket.socket:
    """To where a chardev's socket connects."""
    fd = spec.get("fd")
    try:
        if fd is not None:
            made = socket.socket(fileno=os.dup(int(str(fd))))
        elif spec.get("path"):
            made = socket.socket(socket.AF_UNIX)
            made.settimeout(PATIENCE)
            path = str(spec["path"])
            made.connect("\0" + path if spec.get("abstract") else path)
        else:
            made = socket.create_connection((str(spec.get("host") or "localhost"), int(str(spec["port"]))), PATIENCE)
    except (OSError, ValueError, KeyError) as error:
        raise BuildError(f"tpm-emulator: cannot connect to the TPM's program: {error}") from None
    made.settimeout(PATIENCE)
    return made
