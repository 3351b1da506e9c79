"""A 93C46 (64 words) or 93C66 (256 words) in its 16-bit organisation, on the three wires that network chips lead out.

Ref: Microchip 93AA46/93LC46/93C46, DS21749; 93C66, DS21795: instruction set, READ with its dummy zero and sequential
reads, EWEN/EWDS. Not modelled: the time that a write takes; it is over at once and DO says ready.

DO changes with the rising clock; while nothing is read it is high.
"""

from vmrun.core.state import KEEP, Flag, Table, U8, U32, Words
from vmrun.errors import StateError

cdef enum:                      # Eeprom93.phase
    START = 0                   # waiting for the start bit
    COMMAND = 1
    READ = 2
    DATA = 3                    # of WRITE and WRAL
    DONE = 4                    # until it is selected anew
    ALL = 0x100                 # an address: every word


cdef class Eeprom93:
    """`words` are its contents, which survive a reset. `drive` sets the wires, `out` is DO."""

    state = Table(
        "eeprom93", 1,
        Words("words", 256, 0xFFFF, KEEP), Flag("selected"), Flag("clock"), Flag("out", True), Flag("writable"),
        U8("phase", most=DONE), U8("bits", most=31), U32("shift"), U32("address", most=ALL),
    )
    reset, save, load_state = state.methods()

    def __init__(self, u32 count=64):
        if count not in (64, 256):
            raise ValueError(f"an EEPROM of {count} words")
        self.count = count
        self.address_bits = 6 if count == 64 else 8
        self.reset()

    cdef void drive(self, bint select, bint clock, bint data) noexcept nogil:
        cdef bint rising = clock and not self.clock
        self.clock = clock
        if select != self.selected:
            self.selected = select
            self.phase, self.bits, self.shift, self.out = START, 0, 0, True
        elif select and rising:
            self.rise(data)

    cdef void rise(self, bint data) noexcept nogil:
        if self.phase == START:
            if data:
                self.phase, self.bits, self.shift = COMMAND, 0, 0
        elif self.phase == COMMAND:
            self.shift = self.shift << 1 | data
            self.bits += 1
            if self.bits == 2 + self.address_bits:
                self.perform()
        elif self.phase == READ:
            self.out = self.shift >> 15 & 1
            self.shift = self.shift << 1 & 0xFFFF
            self.bits += 1
            if self.bits == 16:
                self.address = (self.address + 1) & (self.count - 1)
                self.bits, self.shift = 0, self.cells[self.address]
        elif self.phase == DATA:
            self.shift = self.shift << 1 | data
            self.bits += 1
            if self.bits == 16:
                if self.writable:
                    self.store(self.address, self.shift & 0xFFFF)
                self.phase = DONE

    cdef void perform(self) noexcept nogil:
        """A whole instruction: two bits of it and the address are in `shift`."""
        cdef u32 code = self.shift >> self.address_bits & 3, which
        self.address = self.shift & (self.count - 1)
        self.bits, self.shift = 0, 0
        if code == 2:
            self.phase, self.out, self.shift = READ, False, self.cells[self.address]
            return
        if code == 1:
            self.phase = DATA
            return
        self.phase = DONE
        if code == 3:
            if self.writable:
                self.cells[self.address] = 0xFFFF
            return
        which = self.address >> (self.address_bits - 2)
        if which == 3:
            self.writable = True
        elif which == 0:
            self.writable = False
        elif which == 2:
            if self.writable:
                self.store(ALL, 0xFFFF)
        else:
            self.phase, self.address = DATA, ALL

    cdef void store(self, u32 address, u32 value) noexcept nogil:
        cdef u32 n
        if address == ALL:
            for n in range(self.count):
                self.cells[n] = <u16>value
        else:
            self.cells[address & 0xFF] = <u16>value

    @property
    def words(self):
        return self.cells

    @words.setter
    def words(self, values):
        cdef u32 n
        for n in range(min(<u32>len(values), <u32>256)):
            self.cells[n] = values[n]

    def check_state(self, values):
        if values["address"] >= self.count and values["address"] != ALL:
            raise StateError(f"EEPROM: there is no word {values['address']}")

    def wires(self, bint select, bint clock, bint data):
        """From Python; DO afterwards."""
        self.drive(select, clock, data)
        return bool(self.out)
