"""The block transfer interface: whole messages in a buffer, with flags for whose turn it is.

Ref: IPMI v2.0 rev. 1.1, 11. A message has its length first, which counts what follows, and a sequence number that the
answer repeats. Not modelled: several requests under way.
"""

from __future__ import annotations

from vmrun.core.state import U16, Bytes, Flag, Stateful, Table
from vmrun.devices.ipmi.bmc import APP, LONGEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from accel.api import IrqLine

    from vmrun.devices.ipmi.bmc import IpmiBmcSim

PORTS = 3
CONTROL, BUFFER, MASK = range(3)
CLEAR_WRITE, CLEAR_READ, REQUEST_THERE, ANSWER_THERE, ATTENTION, HOST_BUSY, BUSY = 1, 2, 4, 8, 0x10, 0x40, 0x80
INTERRUPTS, INTERRUPT = 1, 2  # of the mask register
CAPABILITIES = 0x36
TRUNCATED = 0xC8


class Bt(Stateful):
    """`line` is None without an interrupt."""

    kind = 3  # of interface, in tables

    state = Table(
        "ipmi-bt",
        1,
        Flag("answered"),
        Flag("attentive"),
        Flag("host_busy"),
        Flag("busy"),
        Flag("interrupts"),
        Flag("interrupt"),
        Bytes("request", most=LONGEST + 1),
        Bytes("answer", most=LONGEST + 2),
        U16("at", most=LONGEST + 2),
    )
    answered: bool
    attentive: bool
    host_busy: bool
    busy: bool
    interrupts: bool
    interrupt: bool
    request: bytes
    answer: bytes
    at: int

    def __init__(self, bmc: IpmiBmcSim, line: IrqLine | None) -> None:
        self.bmc, self.line = bmc, line
        self.reset()

    def settle(self) -> None:
        if self.line is not None:
            self.line.drive(1 if self.interrupt and self.bmc.interrupts_on else 0)

    def read(self, offset: int, size: int) -> int:
        if offset == CONTROL:
            found = (ANSWER_THERE if self.answered else 0) | (ATTENTION if self.attentive else 0)
            return found | (HOST_BUSY if self.host_busy else 0) | (BUSY if self.busy else 0)
        if offset == MASK:
            return (INTERRUPTS if self.interrupts else 0) | (INTERRUPT if self.interrupt else 0)
        if self.at >= len(self.answer):
            return 0xFF
        byte = self.answer[self.at]
        self.at += 1
        if self.at == len(self.answer):  # all of it: it cannot be read again
            self.answer, self.at = b"", 0
        return byte

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == CONTROL:
            self._control(value)
        elif offset == BUFFER:
            self.request = (self.request + bytes([value]))[: LONGEST + 1]
        else:
            self._mask(value)

    def _mask(self, value: int) -> None:
        """Interrupts that are switched on tell of what is there already, before one is acknowledged."""
        wanted = bool(value & INTERRUPTS)
        if wanted != self.interrupts:
            self.interrupt = wanted and (self.answered or self.attentive)
            self.settle()
        self.interrupts = wanted
        if value & INTERRUPT:
            self.interrupt = False
        self.settle()

    def _control(self, value: int) -> None:
        if value & CLEAR_WRITE:
            self.request = b""
        if value & CLEAR_READ:
            self.at = 0
        if value & ANSWER_THERE:
            self.answered = False
        if value & ATTENTION:
            self.attentive = False
        if value & HOST_BUSY:
            self.host_busy = not self.host_busy
        if value & REQUEST_THERE:
            self._answer()

    def _answer(self) -> None:
        request, self.request = self.request, b""
        self.busy = True
        if len(request) < 4 or request[0] + 1 != len(request):
            return  # to nothing, as with QEMU's
        self.busy = False
        function, sequence, number = request[1:4]
        if (function, number) == (APP << 2, CAPABILITIES):
            # one request at a time, of as many bytes each way, answered within ten seconds, no repetitions
            answer = bytes([function | 4, number, 0, 1, 0xFF, 0xFF, 10, 0])
        else:
            answer = self.bmc.ask(bytes([function, number]) + request[4:])
        self.answer = bytes([len(answer) + 1, answer[0], sequence]) + answer[1:]
        self.at = 0
        self.answered = True
        self._interrupt()

    def _interrupt(self) -> None:
        if self.interrupts and self.bmc.interrupts_on:
            self.interrupt = True
        self.settle()

    def attention(self, wanted: bool, interrupt: bool) -> None:
        """From the controller: it has something to tell."""
        if wanted == self.attentive:
            return
        self.attentive = wanted
        if wanted and interrupt:
            self._interrupt()
