"""How a Cirrus chip's memory and registers are reached beside the VGA's ports and window: BAR 0 and BAR 1.

Ref: as cirrus.pyx. Everything here only decodes; the chip is vmrun.devices.display.cirrus.Cirrus.
"""

from accel.api cimport ACTION_NONE, IoRegion, u8, u32, u64

from vmrun.devices.display.cirrus cimport Cirrus


cdef class CirrusLinear(IoRegion):
    """Video memory while its bytes are not just memory: blits wait for them, or they are pixels."""

    cdef Cirrus chip

    def __init__(self, Cirrus chip):
        self.chip = chip
        self.name = "cirrus memory"
        self.max_access = 8

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u64 value = 0
        cdef u32 i
        for i in range(size):
            value |= <u64>self.chip.linear_read(offset + i) << (8 * i)
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 i
        for i in range(size):
            self.chip.linear_write(offset + i, <u8>(value >> (8 * i)))
        return ACTION_NONE


cdef class CirrusFeed(IoRegion):
    """From 16 MiB of BAR 0: bytes for a blit that waits for them, whatever the address."""

    cdef Cirrus chip

    def __init__(self, Cirrus chip):
        self.chip = chip
        self.name = "cirrus blits"
        self.max_access = 8

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return <u64>-1

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 i
        for i in range(size):
            if self.chip.fed():
                self.chip.feed(<u8>(value >> (8 * i)))
        return ACTION_NONE


cdef class CirrusRegisters(IoRegion):
    """BAR 1: the VGA's ports from 3c0, and from 0x100 the blitter's registers."""

    cdef Cirrus chip

    def __init__(self, Cirrus chip):
        self.chip = chip
        self.name = "cirrus registers"
        self.max_access = 1

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        if offset >= 0x100:
            return self.chip.registers_read(<u32>offset - 0x100)
        return self.chip.port_read(0x3C0 + <u32>offset)

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        if offset >= 0x100:
            self.chip.registers_write(<u32>offset - 0x100, <u8>value)
        else:
            self.chip.port_write(0x3C0 + <u32>offset, <u8>value)
        return ACTION_NONE
