"""tpm-tis: a TPM behind the FIFO interface, five localities of 4 KiB from 0xfed40000.

Ref: TCG PC Client Platform TPM Profile 1.05, 6.5 (registers), 6.5.2.12 (states). A command goes in byte by byte and is
given off with tpmGo; the response comes out the same way.
Not modelled: hashing from locality 4; sealing off legacy ports.
"""

from __future__ import annotations

from accel.api import PyIoRegion

from vmrun.bus.isa import IsaDevice
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import U8, U16, Bytes, Flag, Signed, Table, Words
from vmrun.devices.misc.tpm import BASE, NOT_THERE, TPM_FIELDS, Tpm
from vmrun.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

LOCALITIES, STEP = 5, 0x1000
ACCESS, INT_ENABLE, INT_VECTOR, INT_STATUS, CAPABILITY = 0x00, 0x08, 0x0C, 0x10, 0x14
STATUS, FIFO, INTERFACE, XFIFO, XFIFO_END, DID_VID, RID = 0x18, 0x24, 0x30, 0x80, 0xC0, 0xF00, 0xF04
# access
VALID, ACTIVE, SEIZED, SEIZE, PENDING, REQUEST, NOT_ESTABLISHED = 0x80, 0x20, 0x10, 0x08, 0x04, 0x02, 0x01
# status
FAMILY_2, RESET_ESTABLISHED, CANCEL = 1 << 26, 1 << 25, 1 << 24
READY, GO, AVAILABLE, EXPECT, SELF_TEST, RETRY = 0x40, 0x20, 0x10, 0x08, 0x04, 0x02
# interrupts: enable and status
DATA_CAME, STATUS_VALID, LOCALITY_CHANGED, COMMAND_READY, ENABLED, LEVEL_LOW = 1, 2, 4, 0x80, 1 << 31, 0x08
CAUSES = DATA_CAME | STATUS_VALID | LOCALITY_CHANGED | COMMAND_READY
# version 1.3 of the interface, transfers of up to 64 bytes, low level, the causes
CAPABILITIES = {1: 2 << 28 | 3 << 9 | 1 << 4 | CAUSES, 2: 3 << 28 | 3 << 9 | 1 << 4 | CAUSES}
# FIFO, version 0 (1.2: none), five localities, FIFO is there; a guest can lock the choice, which is none
INTERFACE_ID, LOCKED = {1: 0xF, 2: 1 << 8 | 1 << 13}, 1 << 19
VENDOR_DEVICE, REVISION = 0x0001_1014, 1
PHASES = IDLE, TAKING, RUNNING, GIVING = "idle", "taking", "running", "giving"
LARGEST = 4096  # bytes of a command or a response


@register("tpm-tis", description="TPM with the FIFO interface (TIS)")
class TpmTis(Tpm, IsaDevice):
    """`active`: the locality that has the TPM, -1 for none; `phase` and `status` are its. A command is under way while
    `phase` is RUNNING.
    """

    irq = Prop("uint32", 5, "interrupt; 16 and up: none", max=0xFFFFFFFF)

    state = Table(
        "tpm-tis",
        2,
        Signed("active", -1, LOCALITIES - 1, -1),
        Words("requests", LOCALITIES, 1),
        Words("seized", LOCALITIES, 1),
        Words("enable", LOCALITIES, NOT_THERE),
        Words("pending", LOCALITIES, CAUSES),
        U8("phase_number", most=3),
        Flag("valid"),
        Flag("ready"),
        Bytes("buffer", most=LARGEST),
        U16("at", most=LARGEST),
        Flag("established"),
        Flag("locked"),
        *TPM_FIELDS,
    )

    @property
    def phase_number(self) -> int:
        return PHASES.index(self.phase)

    @phase_number.setter
    def phase_number(self, number: int) -> None:
        self.phase = PHASES[number]

    def under_way(self) -> bool:
        return self.phase == RUNNING

    def check_state(self, values: dict[str, Any]) -> None:
        if PHASES[values["phase_number"]] == RUNNING:
            raise StateError("tpm-tis: a command under way, which no program knows of")

    def settle(self) -> None:
        self.buffer = bytearray(self.buffer)
        self.next_active = None
        self._settle_line()

    buffer: bytearray
    next_active: int | None  # who gets the TPM when the command that is given up has ended

    def realize(self, platform: Platform) -> None:
        self.platform = platform
        self.line = self.isa_irq(self.irq) if self.irq < 16 else None
        self.backend: Any = self.take(platform)
        self._clear()
        io = PyIoRegion("tpm-tis-mmio", self._read, self._write, 1, 4)
        self.map(platform.system_memory, io, BASE, LOCALITIES * STEP, name="tpm-tis-mmio")

    def _clear(self) -> None:
        self.active = -1
        self.requests, self.seized = [0] * LOCALITIES, [0] * LOCALITIES
        self.enable, self.pending = [LEVEL_LOW] * LOCALITIES, [0] * LOCALITIES
        self.vector = [self.irq if self.irq < 16 else 0] * LOCALITIES
        self.next_active = None
        self.phase, self.valid, self.ready = IDLE, False, False
        self.buffer, self.at = bytearray(), 0
        self.established = self.locked = False

    def reset(self) -> None:
        self._clear()
        self.backend.startup()
        self.established = self.backend.established()
        self._settle_line()

    # --- registers ----------------------------------------------------------------------------------------

    def _read(self, offset: int, size: int) -> int:
        who, register = divmod(offset, STEP)
        if register == FIFO or FIFO < register < FIFO + 4 or XFIFO <= register < XFIFO_END:
            if who != self.active:
                return NOT_THERE
            return sum(self._give() << 8 * n for n in range(size))
        value = self._register(who, register & ~3)
        return value >> 8 * (register & 3) & ((1 << 8 * size) - 1)

    def _register(self, who: int, register: int) -> int:
        if register == ACCESS:
            value = VALID | (0 if self.established else NOT_ESTABLISHED)
            value |= (ACTIVE if self.active == who else 0) | (REQUEST if self.requests[who] else 0)
            others = any(asked for n, asked in enumerate(self.requests) if n != who)
            return value | (SEIZED if self.seized[who] else 0) | (PENDING if others else 0)
        if register == INT_ENABLE:
            return self.enable[who]
        if register == INT_VECTOR:
            return self.vector[who]
        if register == INT_STATUS:
            return self.pending[who]
        if register == CAPABILITY:
            return CAPABILITIES[self.version]
        if register == STATUS:
            return self._status() if who == self.active else NOT_THERE
        if register == INTERFACE:
            return INTERFACE_ID[self.version] | (LOCKED if self.locked else 0)
        if register == DID_VID:
            return VENDOR_DEVICE
        return REVISION if register == RID else NOT_THERE

    def _status(self) -> int:
        room = len(self.buffer) - self.at if self.phase == GIVING else self.backend.buffer_size - len(self.buffer)
        value = (room & 0xFFFF) << 8 | (FAMILY_2 if self.version == 2 else 0)
        if self.phase == RUNNING:
            value &= ~0xFFFF00
        if self.ready:
            value |= READY
        if self.phase == GIVING and self.at < len(self.buffer):
            value |= AVAILABLE
        if self.phase == TAKING and not self.ready and len(self.buffer) < self._wanted():
            value |= EXPECT
        return value | (VALID if self.valid else 0)

    def _write(self, offset: int, size: int, value: int) -> None:
        who, register = divmod(offset, STEP)
        if FIFO <= register < FIFO + 4 or XFIFO <= register < XFIFO_END:
            if who == self.active:
                for n in range(size):
                    self._take(value >> 8 * n & 0xFF)
            return
        shift = 8 * (register & 3)
        mask = ((1 << 8 * size) - 1) << shift & NOT_THERE
        value = value << shift & mask
        register &= ~3
        if register == ACCESS:
            self._access(who, value)
        elif who != self.active:
            return
        elif register == INT_ENABLE:
            wanted = self.enable[who] & ~mask | value
            self.enable[who] = wanted & (ENABLED | 0x18 | CAUSES)
            self._settle_line()
        elif register == INT_STATUS:
            self.pending[who] &= ~(value & CAUSES)
            self._settle_line()
        elif register == INTERFACE:
            self.locked |= bool(value & LOCKED) and self.version == 2
        elif register == STATUS:
            self._order(who, value)

    # --- who has it ---------------------------------------------------------------------------------------

    def _access(self, who: int, value: int) -> None:
        if who == 4 and value & (REQUEST | SEIZE):
            return  # only hardware asks for that
        if value & ACTIVE:
            if self.active == who:
                waiting = [n for n in range(LOCALITIES) if self.requests[n]]
                self._hand_to(max(waiting) if waiting else -1)
            else:
                self.requests[who] = 0
        if value & SEIZED:
            self.seized[who] = 0
        if value & SEIZE and who > self.active and self.active >= 0:
            self.seized[self.active] = 1
            self._hand_to(who)
        if value & REQUEST and self.active != who:
            if self.active < 0:
                self._hand_to(who)
            else:
                self.requests[who] = 1

    def _hand_to(self, who: int) -> None:
        """The TPM is this locality's now, or as soon as the command under way has ended."""
        if self.phase == RUNNING:
            self.next_active = who
            self.backend.cancel()
            return
        self.active = who
        self.phase, self.valid, self.ready = IDLE, False, False
        self.buffer, self.at = bytearray(), 0
        if who >= 0:
            self.requests[who] = 0
            self._tell(LOCALITY_CHANGED)

    # --- a command and its response -----------------------------------------------------------------------

    def _order(self, who: int, value: int) -> None:
        if self.version == 2 and value & CANCEL and self.phase == RUNNING:
            self.backend.cancel()
        if self.version == 2 and value & RESET_ESTABLISHED and who in (3, 4):
            self.backend.reset_established(who)
            self.established = False
        orders = value & (READY | GO | RETRY)
        if orders == READY:
            if self.phase == RUNNING:
                self.next_active = who
                self.backend.cancel()
            else:
                self._make_ready()
        elif orders == GO:
            if self.phase == TAKING and len(self.buffer) >= max(self._wanted(), 10):
                self.phase, self.valid, self.ready = RUNNING, False, False
                self.backend.send(who, bytes(self.buffer), self._answered)
        elif orders == RETRY and self.phase == GIVING:
            self.at, self.valid = 0, True

    def _make_ready(self) -> None:
        self.phase, self.valid, self.ready = TAKING, False, True
        self.buffer, self.at = bytearray(), 0
        self._tell(COMMAND_READY)

    def _wanted(self) -> int:
        """How many bytes the command has, as far as it says."""
        if len(self.buffer) < 6:
            return len(self.buffer) + 1
        return min(int.from_bytes(self.buffer[2:6], "big"), int(self.backend.buffer_size))

    def _take(self, byte: int) -> None:
        if self.phase != TAKING or len(self.buffer) >= self.backend.buffer_size:
            return
        self.ready, self.valid = False, True
        if len(self.buffer) < self._wanted():
            self.buffer.append(byte)
            if len(self.buffer) >= 6 and len(self.buffer) == self._wanted():
                self._tell(STATUS_VALID)

    def _answered(self, response: bytes) -> None:
        """On the main thread, with the device lock held."""
        if self.next_active is not None:  # it was given up
            who, self.next_active = self.next_active, None
            again = who == self.active
            self.phase = IDLE
            self._make_ready() if again else self._hand_to(who)
            return
        self.phase, self.valid = GIVING, True
        self.buffer, self.at = bytearray(response), 0
        self._tell(DATA_CAME | STATUS_VALID)

    def _give(self) -> int:
        if self.phase != GIVING or self.at >= len(self.buffer):
            return 0xFF
        byte: int = self.buffer[self.at]
        self.at += 1
        if self.at == len(self.buffer):
            self._tell(STATUS_VALID)
        return byte

    # --- interrupts ---------------------------------------------------------------------------------------

    def _tell(self, causes: int) -> None:
        who = self.active
        if who >= 0 and self.enable[who] & ENABLED and self.enable[who] & causes:
            self.pending[who] |= causes & self.enable[who]
            self._settle_line()

    def _settle_line(self) -> None:
        if self.line is not None:
            self.line.drive(1 if any(self.pending) else 0)
