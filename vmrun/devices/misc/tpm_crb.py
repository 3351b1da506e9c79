"""tpm-crb: a TPM 2 behind the command response buffer, 4 KiB at 0xfed40000 for one locality.

The command lies in the buffer, a register starts it, and the response comes to where the command was.
Ref: TCG PC Client Platform TPM Profile 1.05, 6.5.3.
"""

from __future__ import annotations

from accel.api import PyIoRegion

from vmrun.core.registry import register
from vmrun.core.state import Bytes, Flag, Table
from vmrun.devices.misc.tpm import BASE, TPM_FIELDS, Tpm
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

SIZE, BUFFER = 0x1000, 0x80
ROOM = SIZE - BUFFER
LOC_STATE, LOC_CONTROL, LOC_STATUS, INTERFACE, REQUEST, STATUS = 0x00, 0x08, 0x0C, 0x30, 0x40, 0x44
CANCEL, START, COMMAND_SIZE, COMMAND, RESPONSE_SIZE, RESPONSE = 0x48, 0x4C, 0x58, 0x5C, 0x64, 0x68
ESTABLISHED, ASSIGNED, VALID = 0x01, 0x02, 0x80  # of the locality's state; the first is 1 for "not"
ASK, GIVE_UP, RESET_ESTABLISHED = 1, 2, 8  # locality control
GRANTED = 1
FATAL, IDLE = 1, 2  # status
GO_READY, GO_IDLE = 1, 2  # requests
# CRB, version 1, up to 64 bytes at a time, CRB is there and chosen; vendor 1014h
INTERFACE_ID = 1 | 1 << 4 | 3 << 11 | 1 << 14 | 1 << 17 | 0x1014 << 32


@register("tpm-crb", description="TPM 2 with the command response buffer (CRB)")
class TpmCrb(Tpm):
    state = Table(
        "tpm-crb",
        2,
        Flag("granted"),
        Flag("fatal"),
        Flag("idle", True),
        Flag("established"),
        Bytes("buffer", ROOM),
        *TPM_FIELDS,
    )

    def under_way(self) -> bool:
        return self.running

    def settle(self) -> None:
        self.running = False

    def realize(self, platform: Platform) -> None:
        self.platform = platform
        self.backend: Any = self.take(platform)
        if self.version != 2:
            self.backend.users.remove(self.path)
            raise BuildError("tpm-crb is no interface of a TPM 1.2", remedy="use tpm-tis")
        self._clear()
        io = PyIoRegion("tpm-crb", self._read, self._write, 1, 8)
        self.map(platform.system_memory, io, BASE, SIZE, name="tpm-crb")

    def _clear(self) -> None:
        self.granted = self.running = self.fatal = False
        self.idle = True
        self.established = False
        self.buffer = bytearray(ROOM)

    def reset(self) -> None:
        self._clear()
        self.backend.startup(ROOM)
        self.established = self.backend.established()

    def _registers(self) -> bytes:
        """What stands before the buffer."""
        found = bytearray(BUFFER)

        def put(offset: int, value: int, size: int = 4) -> None:
            found[offset : offset + size] = value.to_bytes(size, "little")

        state = VALID | (ASSIGNED if self.granted else 0) | (0 if self.established else ESTABLISHED)
        put(LOC_STATE, state)
        put(LOC_STATUS, GRANTED if self.granted else 0)
        put(INTERFACE, INTERFACE_ID, 8)
        put(STATUS, (FATAL if self.fatal else 0) | (IDLE if self.idle else 0))
        put(START, int(self.running))
        for size, where in ((COMMAND_SIZE, COMMAND), (RESPONSE_SIZE, RESPONSE)):
            put(size, ROOM)
            put(where, BASE + BUFFER, 8)
        return bytes(found)

    def _read(self, offset: int, size: int) -> int:
        data = self._registers() + self.buffer
        return int.from_bytes(data[offset : offset + size], "little")

    def _write(self, offset: int, size: int, value: int) -> None:
        if offset >= BUFFER:
            if not self.running:
                at = offset - BUFFER
                size = min(size, ROOM - at)
                self.buffer[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        elif offset == LOC_CONTROL:
            self._locality(value)
        elif offset == REQUEST:
            if value in (GO_READY, GO_IDLE):
                self.idle = value == GO_IDLE
        elif offset == CANCEL:
            if value == 1 and self.running:
                self.backend.cancel()
        elif offset == START and value == 1 and not self.running and self.granted:
            self._start()

    def _locality(self, value: int) -> None:
        if value == ASK:
            self.granted = True
        elif value == GIVE_UP:
            self.granted = False
        elif value == RESET_ESTABLISHED:
            self.backend.reset_established(0)
            self.established = False

    def _start(self) -> None:
        size = int.from_bytes(self.buffer[2:6], "big")
        self.running = True
        self.backend.send(0, bytes(self.buffer[: max(10, min(size, ROOM))]), self._answered)

    def _answered(self, response: bytes) -> None:
        """On the main thread, with the device lock held."""
        self.running = False
        self.fatal = self.backend.failed
        self.buffer[: len(response)] = response
