"""A monitor's two wires to its adapter (DDC2B): an I2C target that tells its EDID, bit by bit.

Ref: VESA DDC Standard 3.0, DDC2B; NXP UM10204 (I2C). Adapters whose drivers move the wires themselves have one. The
target answers at 50h alone: a byte written sets the offset, reads go on from there and begin again behind the last.
"""

from __future__ import annotations

from vmrun.core.state import U8, Flag, Stateful, Table

IDLE, ADDRESS, OFFSET, SENDING = range(4)
TARGET = 0x50
ACKNOWLEDGE = 8  # bits before it


class Ddc(Stateful):
    """`data` is the EDID. `move` takes what the adapter makes of the wires; `sda` is what the target does."""

    state = Table(
        "ddc", 1, Flag("scl", True), Flag("sda_in", True), Flag("sda", True), U8("phase", most=SENDING),
        U8("bits", most=ACKNOWLEDGE + 1), U8("byte"), U8("offset"),
    )  # fmt: skip

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.scl = self.sda_in = self.sda = True
        self.phase, self.bits, self.byte, self.offset = IDLE, 0, 0, 0

    def move(self, scl: bool, sda: bool) -> None:
        """Levels that the adapter lets the wires have: True for high."""
        before, self.scl = self.scl, scl
        moved, self.sda_in = sda != self.sda_in, sda
        if before and scl:
            if moved:  # start and stop: data moves while the clock is high
                self._listen(IDLE if sda else ADDRESS)
        elif scl and not before:
            self._rise(sda)
        elif before:
            self._fall()

    def _listen(self, phase: int) -> None:
        self.phase, self.bits, self.byte, self.sda = phase, 0, 0, True

    def _rise(self, sda: bool) -> None:
        """The bit is there: it is read by whom it is for."""
        if self.phase == SENDING:
            if self.bits == ACKNOWLEDGE and sda:  # the adapter has had enough
                self._listen(IDLE)
        elif self.phase != IDLE and self.bits < ACKNOWLEDGE:
            self.byte = (self.byte << 1 | sda) & 0xFF
            self.bits += 1

    def _fall(self) -> None:
        """Time for the next bit."""
        if self.phase == SENDING:
            self.bits += 1
            if self.bits > ACKNOWLEDGE:
                self._fetch()
            else:
                self.sda = self.bits == ACKNOWLEDGE or bool(self.byte << self.bits & 0x80)
        elif self.phase != IDLE and self.bits == ACKNOWLEDGE:
            if self.phase == ADDRESS and self.byte >> 1 != TARGET:
                self._listen(IDLE)
                return
            self.bits, self.sda = ACKNOWLEDGE + 1, False
        elif self.phase != IDLE and self.bits > ACKNOWLEDGE:
            if self.phase == ADDRESS and self.byte & 1:
                self._fetch()
                return
            if self.phase == OFFSET:
                self.offset = self.byte
            self._listen(OFFSET)

    def _fetch(self) -> None:
        self._listen(SENDING)
        self.byte = self.data[self.offset % len(self.data)]
        self.offset = (self.offset + 1) & 0xFF
        self.sda = bool(self.byte & 0x80)
