"""The keyboard controller style interface: a data port, and one for commands and status; a byte at a time each way.

Ref: IPMI v2.0 rev. 1.1, 9. Whoever writes WRITE_END before the last byte gets the answer, reading byte after byte with
READ in between. Not modelled: controllers that take their time, so that "input buffer full" is never seen.
"""

from __future__ import annotations

from vmrun.core.state import U8, Bytes, Flag, Stateful, Table
from vmrun.devices.ipmi.bmc import LONGEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from accel.api import IrqLine

    from vmrun.devices.ipmi.bmc import IpmiBmcSim

PORTS = 2
DATA, COMMAND = 0, 1
OUTPUT_FULL, ATTENTION = 0x01, 0x04  # status; the state is in bits 7 and 6
IDLE, READ, WRITE, ERROR = range(4)
ABORT, WRITE_START, WRITE_END, READ_NEXT = 0x60, 0x61, 0x62, 0x68
ABORTED, BAD_CONTROL = 0x01, 0x02  # what an error was
TRUNCATED = 0xC8


class Kcs(Stateful):
    """`line` is None without an interrupt."""

    kind = 1  # of interface, in tables

    state = Table(
        "ipmi-kcs",
        1,
        U8("phase", most=ERROR),
        U8("out"),
        Flag("full"),
        Flag("attentive"),
        Flag("ending"),
        Flag("told_full"),
        Flag("told_attention"),
        Bytes("request", most=LONGEST + 1),
        Bytes("answer", most=LONGEST),
    )
    phase: int
    out: int
    full: bool
    attentive: bool
    ending: bool
    told_full: bool
    told_attention: bool
    request: bytes
    answer: bytes

    def __init__(self, bmc: IpmiBmcSim, line: IrqLine | None) -> None:
        self.bmc, self.line = bmc, line
        self.reset()

    def settle(self) -> None:
        if self.line is not None:
            self.line.drive(1 if self.told_full or self.told_attention else 0)

    def read(self, offset: int, size: int) -> int:
        if offset == COMMAND:
            self.told_attention = False
            self.settle()
            return self.phase << 6 | (ATTENTION if self.attentive else 0) | (OUTPUT_FULL if self.full else 0)
        self.full = self.told_full = False
        self.settle()
        return self.out

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == COMMAND:
            self._order(value)
        elif self.phase == WRITE:
            self._take(value)
        elif self.phase == ERROR or self.phase == READ and (value == READ_NEXT or not self.answer):
            self.phase = READ  # after an error: what it was
            self._give()
        elif self.phase == READ:
            self._fail(BAD_CONTROL)
            self._put(self.out)

    def _order(self, value: int) -> None:
        if value == ABORT:
            if self.phase != ERROR:
                self._fail(ABORTED)
                self._put(self.out)
        elif value == WRITE_START and self.phase == IDLE:
            self.phase, self.ending, self.request = WRITE, False, b""
            self._put(self.out)
        elif self.phase == WRITE:
            if value == WRITE_END:
                self.ending = True
            else:
                self._fail(BAD_CONTROL)
            self._put(self.out)
        else:
            if self.phase == READ:
                self._put(self.out)
            self._fail(BAD_CONTROL)

    def _fail(self, code: int) -> None:
        self.phase, self.answer = ERROR, bytes([code])

    def _take(self, value: int) -> None:
        self.request = (self.request + bytes([value]))[: LONGEST + 1]
        if not self.ending:
            self._put(self.out)
            return
        self.ending = False
        request, self.request = self.request, b""
        self.answer = self.bmc.ask(request) if len(request) <= LONGEST else _head(request) + bytes([TRUNCATED])
        self.phase = READ
        self._give()

    def _give(self) -> None:
        if self.answer:
            byte, self.answer = self.answer[0], self.answer[1:]
            self._put(byte)
        else:
            self.phase = IDLE
            self._put(self.out)

    def _put(self, byte: int) -> None:
        self.out, self.full = byte, True
        if self.bmc.interrupts_on:
            self.told_full = True
        self.settle()

    def attention(self, wanted: bool, interrupt: bool) -> None:
        """From the controller: it has something to tell."""
        if wanted == self.attentive:
            return
        self.attentive = wanted
        self.told_attention = wanted and interrupt
        self.settle()


def _head(request: bytes) -> bytes:
    return bytes([request[0] | 4, request[1]])
