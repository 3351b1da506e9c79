"""How a VGA's registers and memory are reached: fixed ports, the window at 0xa0000, VBE's ports, registers in a BAR.

Ref: as vga.pyx. Everything here only decodes; the chip is vmrun.devices.display.vga.Vga.
"""

from accel.api cimport ACTION_NONE, IoRegion, u8, u16, u32, u64

from cpython.bytes cimport PyBytes_AS_STRING

from vmrun.devices.display.vga cimport Vga

cdef u64 LITTLE = 0x1E1E1E1E, BIG = 0xBEBEBEBE      # byte orders of the frame buffer


cdef class VgaPorts(IoRegion):
    """Ports from `base` on: 0x3b0 for the bus, 0x3c0 for the copy in BAR 2. Byte registers; wider accesses are split."""

    cdef Vga vga
    cdef u32 base

    def __init__(self, Vga vga, u32 base=0x3B0):
        self.vga = vga
        self.base = base
        self.name = "vga ports"
        self.max_access, self.widest = 1, 2

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.vga.port_read(self.base + <u32>offset)

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        self.vga.port_write(self.base + <u32>offset, <u8>value)
        return ACTION_NONE


cdef class VgaWindow(IoRegion):
    """128 KiB at 0xa0000."""

    cdef Vga vga

    def __init__(self, Vga vga):
        self.vga = vga
        self.name = "vga window"
        self.max_access = 8

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u64 value = 0
        cdef u32 i
        for i in range(size):
            value |= <u64>self.vga.mem_read(<u32>offset + i) << (8 * i)
        self.vga.count()
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        self.vga.window_write(<u32>offset, value, size)
        self.vga.count()
        return ACTION_NONE


cdef class VbePorts(IoRegion):
    """Words: index at 0x1ce, data at 0x1cf and 0x1d0. Bytes are not decoded."""

    cdef Vga vga

    def __init__(self, Vga vga):
        self.vga = vga
        self.name = "vbe ports"
        self.max_access = self.widest = 2

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        if size != 2 or offset > 2:
            return <u64>-1
        return self.vga.vbe_index if offset == 0 else self.vga.vbe_read(self.vga.vbe_index)

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        if size == 2 and offset <= 2:
            if offset == 0:
                self.vga.vbe_index = <u16>value
            else:
                self.vga.vbe_write(self.vga.vbe_index, <u16>value)
        return ACTION_NONE


cdef class VbeMmio(IoRegion):
    """BAR 2 from 0x500: the VBE registers as an array of words. An access leaves its number in the index register."""

    cdef Vga vga

    def __init__(self, Vga vga):
        self.vga = vga
        self.name = "vbe registers"
        self.min_access = self.max_access = 2

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        self.vga.vbe_index = <u16>(offset >> 1)
        return self.vga.vbe_read(self.vga.vbe_index)

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        self.vga.vbe_index = <u16>(offset >> 1)
        self.vga.vbe_write(self.vga.vbe_index, <u16>value)
        return ACTION_NONE


cdef class ExtendedRegs(IoRegion):
    """BAR 2 from 0x600: the size of this block, and the byte order of the frame buffer. Narrow accesses find nothing."""

    cdef Vga vga

    def __init__(self, Vga vga):
        self.vga = vga
        self.name = "vga extended registers"

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u64 block = 8 | ((BIG if self.vga.big_endian else LITTLE)) << 32
        return block >> (8 * (offset & 7)) if size >= 4 else 0

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        if offset == 4 and size == 4:
            if value == LITTLE:
                self.vga.big_endian = False
            elif value == BIG:
                self.vga.big_endian = True
        return ACTION_NONE


cdef class Contents(IoRegion):
    """Bytes that never change; beyond them everything is 0xff."""

    cdef bytes data
    cdef const u8 *start
    cdef u64 length

    def __init__(self, bytes data):
        self.data = data
        self.start = <const u8 *>PyBytes_AS_STRING(data)
        self.length = len(data)
        self.name = "contents"
        self.max_access = 4

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u64 value = 0
        cdef u32 i
        for i in range(size):
            value |= <u64>(self.start[offset + i] if offset + i < self.length else 0xFF) << (8 * i)
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        return ACTION_NONE
