"""What a Cirrus chip sends to its monitor: a VGA's picture, packed pixels, and the pointer that the chip draws.

Ref: as cirrus.pyx: SR07, SR12, SR13, CR1A, CR1B, CR1D. The pointer is part of the picture, as QEMU has it.
"""

from libc.string cimport memcpy

from accel.api cimport u8, u32
from vmrun.devices.display.cirrus cimport Cirrus
from vmrun.devices.display.vga cimport *
from vmrun.devices.display.vga_scanout cimport Mode, VgaScanout

cdef enum:
    SR_POINTER = 0x12
    SR_POINTER_PATTERN = 0x13
    PATTERNS = 16384            # bytes at the end of video memory


cdef u32 _six(u8 value) noexcept nogil:
    value &= 0x3F
    return (value << 2) | ((value & 1) << 1) | (value & 1)


cdef class CirrusScanout(VgaScanout):
    """`vga` is the Cirrus chip."""

    cdef Cirrus chip
    cdef u32 size               # of the pointer in pixels, both ways; 0: hidden
    cdef u32 x, y
    cdef u32 front, back
    cdef u8 pattern[1024]
    cdef u32 before, behind     # lines that the pointer covered at the last look: from, and behind
    cdef u32 again_from, again_to       # ... and covers now

    def __init__(self, Cirrus vga, *args):
        self.chip = vga

    cdef void _extended(self, Mode *mode) noexcept nogil:
        cdef u8 *cr = self.chip.crtc
        cdef u8 *hidden = self.chip.hidden
        cdef u32 at
        mode.bits = self.chip.bits_a_pixel()
        mode.pitch = (cr[CR_OFFSET] | <u32>(cr[0x1B] & 0x10) << 4) << 3
        mode.start = cr[CR_START_LOW] | <u32>cr[CR_START_HIGH] << 8 | <u32>(cr[0x1B] & 0x01) << 16
        mode.start = (mode.start | <u32>(cr[0x1B] & 0x0C) << 15 | <u32>(cr[0x1D] & 0x80) << 12) * 4
        if cr[0x1A] & 1:                        # interlaced
            mode.height *= 2
        self.size = 0
        if self.chip.seq[SR_POINTER] & 1:
            self.size = 64 if self.chip.seq[SR_POINTER] & 4 else 32
            self.x, self.y = self.chip.pointer_x, self.chip.pointer_y
            self.back = _six(hidden[0]) << 16 | _six(hidden[1]) << 8 | _six(hidden[2])
            self.front = _six(hidden[45]) << 16 | _six(hidden[46]) << 8 | _six(hidden[47])
            at = self.chip.seq[SR_POINTER_PATTERN] & (0x3C if self.size == 64 else 0x3F)
            at = <u32>self.chip.memory - PATTERNS + at * 256
            memcpy(self.pattern, self.chip.vram.host + at, 1024 if self.size == 64 else 256)

    cdef bint _covered(self, u32 y) noexcept nogil:
        if y == 0:                              # a look begins
            self.before, self.behind = self.again_from, self.again_to
            self.again_from, self.again_to = self.y, self.y + self.size
        return self.before <= y < self.behind or self.again_from <= y < self.again_to

    cdef bint _overlay(self, u32 y) noexcept nogil:
        cdef u32 i, kind, width = self.mode.width
        cdef u8 *row
        cdef u32 second
        if y < self.y or y >= self.y + self.size:
            return False
        if self.size == 64:
            row = self.pattern + (y - self.y) * 16
            second = 8
        else:
            row = self.pattern + (y - self.y) * 4
            second = 128
        for i in range(self.size):
            if self.x + i >= width:
                break
            kind = (row[i >> 3] >> (7 - (i & 7)) & 1) | (row[second + (i >> 3)] >> (7 - (i & 7)) & 1) << 1
            if kind == 1:
                self.line[self.x + i] ^= 0xFFFFFF
            elif kind == 2:
                self.line[self.x + i] = self.back
            elif kind == 3:
                self.line[self.x + i] = self.front
        return True
