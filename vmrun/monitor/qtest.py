"""The qtest protocol: another program drives ports, memory, interrupt pins and, under the accelerator qtest, time.

The commands of every access are in accel.qtest_lines; those here come seldom. What cannot be done is answered by a line
that begins with FAIL, and nothing else happens.
"""

from __future__ import annotations

from time import monotonic

from accel.qtest_lines import QtestLines

from vmrun.core.object import Device
from vmrun.monitor.errors import QmpError
from vmrun.monitor.qom import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LARGEST = 1 << 20  # bytes of one read, write or memset


class Refused(Exception):
    """The text after FAIL."""


class QtestSession:
    """One client. `log(line)` is told every line in both directions, as QEMU's -qtest-log has them."""

    def __init__(
        self, machine: Any, send: Callable[[bytes], object], log: Callable[[str], object] | None = None
    ) -> None:
        self.machine, self._send, self._log = machine, send, log
        board = machine.board
        stepped = machine.accelerator.clock if machine.accelerator.name == "qtest" else None
        self.lines = QtestLines(
            board.memory, board.io, board.lock, board.timers, stepped, self._rare, board.control.ask
        )
        self.stepped = stepped is not None
        self.listening: Device | None = None
        self.began = monotonic()
        if log is not None:
            log("[I 0.000000] OPENED\n")
        machine.loop.add_fd(self.lines.notifier.fileno(), self._told)

    def feed(self, data: bytes) -> None:
        if self._log is None:
            answer = self.lines.feed(data)
        else:
            answer = b"".join(self._logged(line) for line in data.splitlines(keepends=True))
        if answer:
            self._send(answer)

    def _logged(self, line: bytes) -> bytes:
        assert self._log is not None
        answer: bytes = self.lines.feed(line)
        for mark, text in (("R", line), ("S", answer)):
            for part in text.decode("ascii", "backslashreplace").splitlines():
                self._log(f"[{mark} +{monotonic() - self.began:.6f}] {part}\n")
        return answer

    def _told(self) -> None:
        """A pin changed while nobody asked for anything."""
        self.lines.notifier.drain()
        text = self.lines.take()
        if text:
            self._send(text)

    def close(self) -> None:
        self.machine.loop.remove_fd(self.lines.notifier.fileno())

    # --- commands -------------------------------------------------------------------------------------------

    def _rare(self, line: bytes) -> bytes:
        words = line.decode("ascii", "backslashreplace").split()
        if not words:
            return b"FAIL Unknown command ''"
        handler = COMMANDS.get(words[0])
        if handler is None or words[0] in TIME and not self.stepped:
            return b"FAIL Unknown command '%s'" % words[0][:80].encode()
        try:
            answer = handler(self, words[1:])
        except Refused as refused:
            return f"FAIL {refused}".encode()
        return f"OK {answer}".encode() if answer else b"OK"

    def _access(self, words: list[str]) -> str:
        raise Refused("the command takes an address and, to write, a value, and both in their range")

    def _endianness(self, words: list[str]) -> str:
        _exactly(words, 0)
        return "little"

    def _read(self, words: list[str]) -> str:
        return "0x" + self._bytes(words).hex()

    def _b64read(self, words: list[str]) -> str:
        import base64

        return base64.b64encode(self._bytes(words)).decode()

    def _bytes(self, words: list[str]) -> bytes:
        _exactly(words, 2)
        addr, count = _range(words)
        if not count:
            raise Refused("nothing to read")
        with self.machine.board.lock:
            memory = self.machine.board.memory
            if count in (1, 2, 4, 8):  # one access, which a register may tell from several
                data: bytes = int(memory.read(addr, count)).to_bytes(count, "little")
            else:
                data = bytes(memory.read_bytes(addr, count))
        self.lines.settle()
        return data

    def _write(self, words: list[str]) -> str:
        _exactly(words, 3)
        addr, count = _range(words)
        text = words[2]
        try:
            if not text.startswith("0x"):
                raise ValueError
            data = bytes.fromhex(text[2:])
        except ValueError:
            raise Refused("the data must be 0x and pairs of hexadecimal digits") from None
        self._put(addr, data[:count].ljust(count, b"\0"))
        return ""

    def _b64write(self, words: list[str]) -> str:
        import base64
        import binascii

        _exactly(words, 3)
        addr, count = _range(words)
        try:
            data = base64.b64decode(words[2], validate=True)
        except (ValueError, binascii.Error):
            raise Refused("the data is not base64") from None
        self._put(addr, data[:count].ljust(count, b"\0"))
        return ""

    def _memset(self, words: list[str]) -> str:
        _exactly(words, 3)
        addr, count = _range(words, 1 << 40)
        value = _number(words[2])
        if not 0 <= value <= 0xFF:
            raise Refused("the value must be a byte")
        part = bytes([value]) * min(count, LARGEST)
        while count > 0:
            self._put(addr, part[:count])
            addr, count = addr + len(part), count - len(part)
        return ""

    def _put(self, addr: int, data: bytes) -> None:
        action = 0
        with self.machine.board.lock:
            memory = self.machine.board.memory
            if len(data) in (1, 2, 4, 8):
                action = memory.write(addr, len(data), int.from_bytes(data, "little"))
            else:
                memory.write_bytes(addr, data)
        self.lines.settle()
        if action:
            self.machine.board.control.ask(action)

    def _clock_step(self, words: list[str]) -> str:
        if words:
            _exactly(words, 1)
        try:
            return str(self.lines.step(_number(words[0]) if words else None))
        except (ValueError, OverflowError) as error:
            raise Refused(str(error)) from None

    def _clock_set(self, words: list[str]) -> str:
        _exactly(words, 1)
        ahead = _number(words[0]) - int(self.lines.now())
        return self._clock_step([str(max(0, ahead))])  # time does not go back

    # --- interrupts -------------------------------------------------------------------------------------------

    def _intercept(self, words: list[str], out: bool) -> str:
        _exactly(words, 1)
        device = self._device(words[0])
        if self.listening is device:
            return ""
        if self.listening is not None:
            raise Refused("IRQ intercept already enabled")
        if out:
            lines = [line for group in device.outputs.values() for line in group]
            numbers = list(range(len(lines)))
        else:
            pairs = [pair for sink in device.inputs.values() for pair in QtestLines.lines_to(self._roots(), sink)]
            lines, numbers = [pair[0] for pair in pairs], [self._pin(device, pair[1]) for pair in pairs]
        self.lines.listen(lines, numbers)
        self.listening = device
        return ""

    def _intercept_in(self, words: list[str]) -> str:
        return self._intercept(words, False)

    def _intercept_out(self, words: list[str]) -> str:
        return self._intercept(words, True)

    def _roots(self) -> list[Any]:
        """Where wires begin: outputs of devices, lines of buses."""
        found: list[Any] = []
        for device in self.machine.devices.values():
            found += [line for group in device.outputs.values() for line in group]
            for bus in device.buses.values():
                found += [bus.irqs] if bus.kind == "ISA" else list(getattr(bus, "pirq", ()))
        return found

    def _pin(self, device: Device, n: int) -> int:
        """The timer is wired to pin 2 of the I/O APIC but is told as what it is: ISA interrupt 0."""
        return 0 if device.driver == "ioapic" and n == 2 else n

    def _set_irq_in(self, words: list[str]) -> str:
        _exactly(words, 4)
        device = self._device(words[0])
        name = words[1]
        if name == "unnamed-gpio-in" and device.inputs:
            name = next(iter(device.inputs))
        sink = device.inputs.get(name)
        number, level = _number(words[2]), _number(words[3])
        if sink is None:
            raise Refused(f"{device.driver} has no input '{name[:80]}'; it has: {', '.join(device.inputs) or 'none'}")
        if not 0 <= number < 1 << 16 or not -(1 << 31) <= level < 1 << 31:
            raise Refused("the number or the level is out of range")
        with self.machine.board.lock:
            sink.drive(number, level != 0)
        self.lines.settle()
        return ""

    def _device(self, path: str) -> Device:
        try:
            found = Tree(self.machine).resolve(path)
        except QmpError:
            found = None
        if not isinstance(found, Device):
            raise Refused("Unknown device")
        return found

    def _module_load(self, words: list[str]) -> str:
        _exactly(words, 2)  # all that vmrun has is there from the beginning
        return ""


def _exactly(words: list[str], count: int) -> None:
    if len(words) != count:
        raise Refused(f"the command takes {count} argument{'s' if count != 1 else ''}, not {len(words)}")


def _number(word: str) -> int:
    """Decimal, 0x hexadecimal, or octal with a leading 0."""
    try:
        if "_" in word:
            raise ValueError
        if word[:1] == "0" and word[1:].isdigit():
            return int(word, 8)
        return int(word, 0)
    except ValueError:
        raise Refused(f"'{word[:80]}' is not a number") from None


def _range(words: list[str], most: int = LARGEST) -> tuple[int, int]:
    addr, count = _number(words[0]), _number(words[1])
    if not 0 <= count <= most:
        raise Refused(f"the size must be at most {most}")
    if not 0 <= addr <= (1 << 64) - max(count, 1):
        raise Refused("the address is out of range")
    return addr, count


COMMANDS: dict[str, Callable[[QtestSession, list[str]], str]] = {
    "endianness": QtestSession._endianness,
    "read": QtestSession._read,
    "write": QtestSession._write,
    "b64read": QtestSession._b64read,
    "b64write": QtestSession._b64write,
    "memset": QtestSession._memset,
    "clock_step": QtestSession._clock_step,
    "clock_set": QtestSession._clock_set,
    "irq_intercept_in": QtestSession._intercept_in,
    "irq_intercept_out": QtestSession._intercept_out,
    "set_irq_in": QtestSession._set_irq_in,
    "module_load": QtestSession._module_load,
}
# those of accel.qtest_lines come here when something is wrong with them
COMMANDS |= dict.fromkeys(("inb", "inw", "inl", "outb", "outw", "outl"), QtestSession._access)
COMMANDS |= {f"{way}{size}": QtestSession._access for way in ("read", "write") for size in "bwlq"}
TIME = ("clock_step", "clock_set")
