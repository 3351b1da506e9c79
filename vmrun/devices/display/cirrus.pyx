"""Cirrus Logic's CL-GD5446 (PCI) and CL-GD5430 (ISA), the chips alone: a VGA with more registers, packed pixels, a
pointer drawn by the chip and a blitter. cirrus_pci.py and isa_cirrus.py put them on a bus.

Ref: Cirrus Logic, CL-GD5446 Technical Reference Manual (1996); where it leaves a choice, and where drivers have come to rely
on it, qemu-kvm's adapter decides (tests/peers/test_cirrus_qemu.py holds both together).
Register names as there: SR sequencer, GR graphics controller with the blitter, CR CRT controller.
Not modelled: video windows, blits from the screen to the processor, DDC, the signature generator, power management.
Departures, all QEMU's: raster operation 90h is ~S|~D and DAh ~S&~D; a blit is over when its last byte has come; a
transparent copy compares what the operation gives with the key.

Blits are bounded by the sizes that the registers can say, and by video memory: what would lead outside is not done.
"""

from libc.string cimport memcpy, memmove, memset

from vmrun.core.cells cimport cells
from vmrun.devices.display.vga cimport *

from accel.api import _report
from vmrun.core.state import Bytes, Flag, Signed, Table, U8, U16, U32
from vmrun.devices.display import vga_state
from vmrun.errors import StateError

cdef extern from *:
    """
    #include <stdint.h>
    #include <stddef.h>
    /* the sixteen operations of source and destination, GR32's code first */
    #define CIRRUS_OPERATIONS(X) \\
        X(0x00, 0) X(0x05, s & d) X(0x06, d) X(0x09, s & ~d) X(0x0b, ~d) X(0x0d, s) X(0x0e, ~0u) X(0x50, ~s & d) \\
        X(0x59, s ^ d) X(0x6d, s | d) X(0x90, ~s | ~d) X(0x95, ~(s ^ d)) X(0xad, s | ~d) X(0xd0, ~s) X(0xd6, ~s | d) \\
        X(0xda, ~s & ~d)
    static inline uint32_t cirrus_mix(uint8_t code, uint32_t s, uint32_t d) {
        switch (code) {
    #define X(value, expression) case value: return (expression);
        CIRRUS_OPERATIONS(X)
    #undef X
        }
        return d;
    }
    static void cirrus_mix_forward(uint8_t code, uint8_t *to, const uint8_t *from, size_t count) {
        switch (code) {
    #define X(value, expression) \\
        case value: \\
            for (size_t i = 0; i < count; i++) { \\
                uint32_t s = from[i], d = to[i]; (void)s; (void)d; \\
                to[i] = (uint8_t)(expression); \\
            } \\
            break;
        CIRRUS_OPERATIONS(X)
    #undef X
        }
    }
    static void cirrus_mix_backward(uint8_t code, uint8_t *to, const uint8_t *from, size_t count) {
        switch (code) {
    #define X(value, expression) \\
        case value: \\
            while (count--) { \\
                uint32_t s = *from--, d = *to; (void)s; (void)d; \\
                *to-- = (uint8_t)(expression); \\
            } \\
            break;
        CIRRUS_OPERATIONS(X)
    #undef X
        }
    }
    """
    u32 cirrus_mix(u8 code, u32 s, u32 d) noexcept nogil
    void cirrus_mix_forward(u8 code, u8 *to, const u8 *start, size_t count) noexcept nogil
    void cirrus_mix_backward(u8 code, u8 *to, const u8 *start, size_t count) noexcept nogil

cdef u8[8] SR_MASK = vga_state.SR_MASK
cdef u8[16] GR_MASK = vga_state.GR_MASK

cdef enum:
    AR_COUNT = 21
    SR_COUNT = 0x20
    GR_COUNT = 0x3A

    SR_UNLOCK = 0x06
    SR_MODE = 0x07
    SR_DRAM = 0x0F
    SR_POINTER_X = 0x10
    SR_POINTER_Y = 0x11
    SR_POINTER = 0x12
    SR_POINTER_PATTERN = 0x13
    SR_MEMORY = 0x15
    SR_CONFIGURATION = 0x17
    SR_MCLK = 0x1F

    GR_BANK = 0x09
    GR_EXTENSIONS = 0x0B
    GR_MIXED_DRAM = 0x18
    GR_SKIP = 0x2F
    GR_BLT_START = 0x31
    GR_KEY = 0x34

    CR_EXTENDED = 0x1B
    CR_OVERLAY = 0x1D
    CR_ID = 0x27

    # GR30
    BACKWARDS = 0x01
    TO_PROCESSOR = 0x02
    FROM_PROCESSOR = 0x04
    TRANSPARENT = 0x08
    PIXEL = 0x30
    PATTERN = 0x40
    EXPAND = 0x80
    # GR31
    BUSY = 0x01
    START = 0x02
    RESET = 0x04
    FIFO = 0x10
    AUTOSTART = 0x80
    # GR33
    DWORDS = 0x01
    INVERTED = 0x02
    SOLID = 0x04

    LONGEST = 8192              # bytes of a line that the blitter can take
    COPY = 0x0D                 # GR32: the source alone

# GR's number for a byte of the blitter's registers in memory; 0xff for none
cdef u8[65] MAPPED
memset(MAPPED, 0xFF, sizeof(MAPPED))
for _at, _indices in (
    (0x00, (0x00, 0x10, 0x12, 0x14, 0x01, 0x11, 0x13, 0x15)), (0x08, (*range(0x20, 0x2B),)),
    (0x14, (0x2C, 0x2D, 0x2E, 0x2F, 0x30)), (0x1A, (0x32, 0x33, 0x34, 0x35)), (0x20, (0x38, 0x39)), (0x40, (0x31,)),
):
    for _n, _index in enumerate(_indices):
        MAPPED[_at + _n] = _index


cdef class Cirrus(Vga):
    """`vram`: what BAR 0 shows. `pci`: the 5446, which addresses 4 MiB of it; else the 5430, 2 MiB."""

    state = Table(
        "cirrus", 1,
        U8("misc"), U8("feature", most=0x10), U8("seq_index"), Bytes("sr", SR_COUNT, lambda chip: chip.first_sr),
        U8("gfx_index"), Bytes("gr", GR_COUNT, lambda chip: chip.first_gr), U8("attr_index", most=0x3F), Flag("attr_data"),
        Bytes("ar", AR_COUNT), U8("crtc_index"), Bytes("cr", 256, lambda chip: chip.first_cr), U32("latch"),
        U8("dac_state", most=3), U8("dac_read"), U8("dac_write"), U8("dac_part", most=2), Bytes("colour", 3),
        Bytes("palette", 768), U8("dac_lock", 5, most=5), U8("hidden_dac"), Bytes("hidden_palette", 48), U8("shadow0"),
        U8("shadow1"), U16("pointer_x"), U16("pointer_y"), U32("width", most=LONGEST), U32("height", most=LONGEST),
        U32("destination"), U32("source"), U32("foreground"), U32("background"),
        Signed("destination_pitch", -LONGEST, LONGEST), Signed("source_pitch", -LONGEST, LONGEST), U8("mode"), U8("extension"), U8("operation"), U8("pixel", most=4), U32("expected"),
        U32("filled", most=LONGEST), U32("wanted", most=LONGEST), Bytes("blit_buffer", LONGEST),
    )
    reset, save, load_state = state.methods()

    def __init__(self, RamBlock vram, Clock clock, bint pci=True, bint blitter=True):
        self.pci, self.blitter = pci, blitter
        self.memory = (4 if pci else 2) << 20
        if vram.size < self.memory:
            raise ValueError(f"video memory of {vram.size} bytes is less than the chip's {self.memory}")
        self.mask = <u32>(self.memory - 1)
        Vga.__init__(self, vram, clock)

    # --- reset values ---------------------------------------------------------------------------------------

    @property
    def first_sr(self):
        found = bytearray(SR_COUNT)
        found[SR_UNLOCK] = 0x0F
        if self.pci:
            found[SR_MCLK], found[SR_DRAM], found[SR_CONFIGURATION], found[SR_MEMORY] = 0x2D, 0x98, 0x20, 0x04
        else:
            found[SR_MCLK], found[SR_DRAM], found[SR_CONFIGURATION], found[SR_MEMORY] = 0x22, 0x10, 0x38, 0x03
        return bytes(found)

    @property
    def first_gr(self):
        found = bytearray(GR_COUNT)
        found[GR_MIXED_DRAM] = 0x0F if self.pci else 0
        return bytes(found)

    @property
    def first_cr(self):
        found = bytearray(256)
        found[CR_ID] = 0xB8 if self.pci else 0xA0
        return bytes(found)

    # --- ports ----------------------------------------------------------------------------------------------

    cdef u8 port_read(self, u32 port) noexcept nogil:
        cdef u8 value
        if (port >= 0x3D0) != (self.misc & 1) and (port < 0x3C0 or port >= 0x3D0):
            return 0xFF
        if port == SEQ_DATA:
            return self.sequencer_read()
        if port == DAC_MASK:                    # the fourth read in a row opens the hidden register behind it
            self.dac_lock += 1
            if self.dac_lock == 5:
                self.dac_lock = 0
                return self.hidden_dac
            return 0xFF
        if port == DAC_WRITE:
            self.dac_lock = 0
            return self.dac_write
        if port == DAC_DATA:
            return self.palette_read()
        if port == GFX_DATA:
            return self.graphics_read(self.gfx_index)
        if port == CRTC_DATA_MONO or port == CRTC_DATA:
            return self.crtc_read()
        return Vga.port_read(self, port)

    cdef void port_write(self, u32 port, u8 value) noexcept nogil:
        if (port >= 0x3D0) != (self.misc & 1) and (port < 0x3C0 or port >= 0x3D0):
            return
        if port == SEQ_INDEX:
            self.seq_index = value
        elif port == SEQ_DATA:
            self.sequencer_write(value)
        elif port == DAC_MASK:
            if self.dac_lock == 4:
                self.hidden_dac = value
            self.dac_lock = 0
        elif port == DAC_DATA:
            self.palette_write(value)
        elif port == GFX_INDEX:
            self.gfx_index = value
        elif port == GFX_DATA:
            self.graphics_write(self.gfx_index, value)
        else:
            Vga.port_write(self, port, value)

    cdef u8 sequencer_read(self) noexcept nogil:
        cdef u32 index = self.seq_index
        if index & 0x1F == SR_POINTER_X or index & 0x1F == SR_POINTER_Y:
            return self.seq[index & 0x1F]
        return self.seq[index] if index < SR_COUNT else 0xFF

    cdef void sequencer_write(self, u8 value) noexcept nogil:
        cdef u32 index = self.seq_index
        if index <= SR_MEMORY_MODE:
            self.seq[index] = value & SR_MASK[index]
        elif index == SR_UNLOCK:
            self.seq[index] = 0x12 if value & 0x17 == 0x12 else 0x0F
        elif index & 0x1F == SR_POINTER_X:      # the lowest three bits come in the index
            self.seq[SR_POINTER_X] = value
            self.pointer_x = <u16>(value << 3 | index >> 5)
        elif index & 0x1F == SR_POINTER_Y:
            self.seq[SR_POINTER_Y] = value
            self.pointer_y = <u16>(value << 3 | index >> 5)
        elif index == SR_CONFIGURATION:
            self.seq[index] = (self.seq[index] & 0x38) | (value & 0xC7)
            self.access()
        elif SR_MODE <= index < SR_COUNT:
            self.seq[index] = value
            self.access()

    cdef u8 graphics_read(self, u32 index) noexcept nogil:
        if index == 0:
            return self.shadow0
        if index == 1:
            return self.shadow1
        return self.gfx[index] if index < GR_COUNT else 0xFF

    cdef void graphics_write(self, u32 index, u8 value) noexcept nogil:
        if index == GR_SET_RESET:
            self.shadow0 = value
            self.gfx[index] = value & GR_MASK[index]
        elif index == GR_ENABLE_SET_RESET:
            self.shadow1 = value
            self.gfx[index] = value & GR_MASK[index]
        elif index == GR_MODE:
            self.gfx[index] = value & 0x7F
            self.access()
        elif index <= GR_BIT_MASK:
            self.gfx[index] = value & GR_MASK[index]
        elif index <= GR_EXTENSIONS:
            self.gfx[index] = value
            self.banks()
            self.access()
        elif index == GR_BLT_START:
            self.blit_control(value)
        elif index == 0x21 or index == 0x23 or index == 0x25 or index == 0x27:
            self.gfx[index] = value & 0x1F
        elif index == 0x2A:
            self.gfx[index] = value & 0x3F
            if self.gfx[GR_BLT_START] & AUTOSTART:
                self.blit_start()
        elif index == 0x2E:
            self.gfx[index] = value & 0x3F
        elif (
            0x10 <= index <= 0x15 or 0x20 <= index <= 0x29 or 0x2C <= index <= 0x35 or index == 0x38
            or index == 0x39
        ):
            self.gfx[index] = value

    cdef u8 crtc_read(self) noexcept nogil:
        cdef u8 index = self.crtc_index
        if index == 0x24:
            return <u8>(self.attr_data << 7)
        if index == 0x26:
            return self.attr_index & 0x3F
        if index <= 0x1D or index == 0x22 or index == 0x25 or index == CR_ID:
            return self.crtc[index]
        return 0xFF

    cdef void crtc_write(self, u8 value) noexcept nogil:
        if self.crtc_index <= 0x1D:
            Vga.crtc_write(self, value)

    cdef u8 palette_read(self) noexcept nogil:
        cdef u8 value
        if self.seq[SR_POINTER] & 2:
            value = self.hidden[(self.dac_read & 15) * 3 + self.dac_part]
        else:
            value = self.dac[self.dac_read * 3 + self.dac_part]
        self.dac_part += 1
        if self.dac_part == 3:
            self.dac_part = 0
            self.dac_read += 1
        return value

    cdef void palette_write(self, u8 value) noexcept nogil:
        self.dac_cache[self.dac_part] = value
        self.dac_part += 1
        if self.dac_part == 3:
            if self.seq[SR_POINTER] & 2:
                memcpy(&self.hidden[(self.dac_write & 15) * 3], self.dac_cache, 3)
            else:
                memcpy(&self.dac[self.dac_write * 3], self.dac_cache, 3)
            self.dac_part = 0
            self.dac_write += 1

    cdef u8 registers_read(self, u32 offset) noexcept nogil:
        """The blitter's registers in memory: a byte from `offset` of them."""
        if offset <= 0x40 and MAPPED[offset] != 0xFF:
            return self.graphics_read(MAPPED[offset])
        return 0xFF

    cdef void registers_write(self, u32 offset, u8 value) noexcept nogil:
        if offset <= 0x40 and MAPPED[offset] != 0xFF:
            self.graphics_write(MAPPED[offset], value)

    # --- memory ---------------------------------------------------------------------------------------------

    cdef void derive(self) noexcept nogil:
        """Nothing of VBE's: the window is never plain memory."""

    cdef bint fed(self) noexcept nogil:
        """A blit waits for the processor's bytes."""
        return self.wanted != 0

    cdef void banks(self) noexcept nogil:
        """Where the window's two halves begin, and how much of them there is."""
        cdef u32 n, offset, limit
        for n in range(2):
            offset = self.gfx[GR_BANK + (n if self.gfx[GR_EXTENSIONS] & 1 else 0)]
            offset <<= 14 if self.gfx[GR_EXTENSIONS] & 0x20 else 12
            limit = 0 if self.memory <= offset else <u32>self.memory - offset
            if n and not self.gfx[GR_EXTENSIONS] & 1:
                offset += 0x8000
                limit = limit - 0x8000 if limit > 0x8000 else 0
            self.bank_base[n] = offset if limit else 0
            self.bank_limit[n] = limit

    cdef void access(self) noexcept nogil:
        """Whether BAR 0 is memory and nothing else, for now."""
        cdef bint direct = True
        cdef u8 mode = self.gfx[GR_MODE] & 7, extensions = self.gfx[GR_EXTENSIONS]
        if self.seq[SR_CONFIGURATION] & 0x44 == 0x44 or self.fed():
            direct = False
        elif extensions & 0x14 == 0x14 or extensions & 0x02:
            direct = False
        elif 4 <= mode <= 5 and extensions & 4:
            direct = False
        if direct != self.direct:
            self.direct = direct
            if self.on_linear is not None:
                self.call_direct()

    cdef void call_direct(self) noexcept with gil:
        try:
            self.on_linear()
        except Exception as exc:
            _report("cirrus", exc)

    cdef u64 spaced(self, u64 offset) noexcept nogil:
        """GR0B's spreading of addresses over 8 or 16 bytes each."""
        if self.gfx[GR_EXTENSIONS] & 0x14 == 0x14:
            offset <<= 4
        elif self.gfx[GR_EXTENSIONS] & 0x02:
            offset <<= 3
        return offset & self.mask

    cdef void store(self, u64 offset, u8 value) noexcept nogil:
        """A byte from the processor; in write modes 4 and 5 its bits are eight pixels."""
        cdef u8 mode = self.gfx[GR_MODE] & 7
        cdef u32 i, at
        offset = self.spaced(offset)
        if mode < 4 or mode > 5 or not self.gfx[GR_EXTENSIONS] & 4:
            self.vram.host[offset] = value
            self.vram.mark_dirty(offset, 1)
            return
        for i in range(8):
            if self.gfx[GR_EXTENSIONS] & 0x14 == 0x14:
                at = (<u32>offset + 2 * i) & self.mask & ~<u32>1
                if value & 0x80:
                    self.vram.host[at], self.vram.host[at + 1] = self.shadow1, self.gfx[0x11]
                elif mode == 5:
                    self.vram.host[at], self.vram.host[at + 1] = self.shadow0, self.gfx[0x10]
                self.vram.mark_dirty(at, 2)
            else:
                at = (<u32>offset + i) & self.mask
                if value & 0x80:
                    self.vram.host[at] = self.shadow1
                elif mode == 5:
                    self.vram.host[at] = self.shadow0
                self.vram.mark_dirty(at, 1)
            value <<= 1

    cdef u8 linear_read(self, u64 offset) noexcept nogil:
        offset &= self.mask
        if self.seq[SR_CONFIGURATION] & 0x44 == 0x44 and offset >= self.memory - 256:
            return self.registers_read(<u32>offset & 0xFF)
        return self.vram.host[self.spaced(offset)]

    cdef void linear_write(self, u64 offset, u8 value) noexcept nogil:
        offset &= self.mask
        if self.seq[SR_CONFIGURATION] & 0x44 == 0x44 and offset >= self.memory - 256:
            self.registers_write(<u32>offset & 0xFF, value)
        elif self.fed():
            self.feed(value)
        else:
            self.store(offset, value)

    cdef u8 mem_read(self, u32 addr) noexcept nogil:
        cdef u32 bank
        addr &= 0x1FFFF
        if not self.seq[SR_MODE] & 1:
            return Vga.mem_read(self, addr)
        if addr < 0x10000:
            bank = addr >> 15
            addr &= 0x7FFF
            if addr < self.bank_limit[bank]:
                return self.vram.host[self.spaced(addr + self.bank_base[bank])]
        elif 0x18000 <= addr < 0x18100 and self.seq[SR_CONFIGURATION] & 0x44 == 0x04:
            return self.registers_read(addr & 0xFF)
        return 0xFF

    cdef void mem_write(self, u32 addr, u8 value) noexcept nogil:
        cdef u32 bank
        addr &= 0x1FFFF
        if not self.seq[SR_MODE] & 1:
            Vga.mem_write(self, addr, value)
        elif addr < 0x10000:
            if self.fed():
                self.feed(value)
                return
            bank = addr >> 15
            addr &= 0x7FFF
            if addr < self.bank_limit[bank]:
                self.store(addr + self.bank_base[bank], value)
        elif 0x18000 <= addr < 0x18100 and self.seq[SR_CONFIGURATION] & 0x44 == 0x04:
            self.registers_write(addr & 0xFF, value)

    cdef void window_write(self, u32 addr, u64 value, u32 size) noexcept nogil:
        cdef u32 i
        if not self.seq[SR_MODE] & 1:
            Vga.window_write(self, addr, value, size)
            return
        for i in range(size):
            self.mem_write(addr + i, <u8>(value >> (8 * i)))

    # --- the blitter ----------------------------------------------------------------------------------------

    cdef void blit_control(self, u8 value) noexcept nogil:
        """GR31: a falling reset bit ends a blit, a rising start bit begins one."""
        cdef u8 before = self.gfx[GR_BLT_START]
        self.gfx[GR_BLT_START] = value
        if before & RESET and not value & RESET:
            self.blit_end()
        elif value & START and not before & START:
            self.blit_start()

    cdef void blit_end(self) noexcept nogil:
        self.gfx[GR_BLT_START] &= <u8>~(START | BUSY | FIFO)
        self.filled = self.wanted = self.expected = 0
        self.access()

    cdef u32 colour(self, bint front) noexcept nogil:
        """A colour of colour expansion, as wide as a pixel."""
        cdef u32 found, first = 0x11 if front else 0x10
        found = (self.shadow1 if front else self.shadow0) | <u32>self.gfx[first] << 8
        found |= <u32>self.gfx[first + 2] << 16 | <u32>self.gfx[first + 4] << 24
        return found if self.pixel == 4 else found & ((<u32>1 << 8 * self.pixel) - 1)

    cdef void blit_start(self) noexcept nogil:
        cdef u8 *gr = self.gfx
        gr[GR_BLT_START] |= BUSY
        self.width = (gr[0x20] | <u32>gr[0x21] << 8) + 1
        self.height = (gr[0x22] | <u32>gr[0x23] << 8) + 1
        self.destination_pitch = gr[0x24] | <i32>gr[0x25] << 8
        self.source_pitch = gr[0x26] | <i32>gr[0x27] << 8
        self.destination = (gr[0x28] | <u32>gr[0x29] << 8 | <u32>gr[0x2A] << 16) & self.mask
        self.source = (gr[0x2C] | <u32>gr[0x2D] << 8 | <u32>gr[0x2E] << 16) & self.mask
        self.pixel = (gr[0x30] >> 4 & 3) + 1
        self.mode = gr[0x30] & <u8>~PIXEL
        self.operation = gr[0x32]
        self.extension = gr[0x33]
        self.foreground, self.background = self.colour(True), self.colour(False)
        self.filled = self.wanted = self.expected = 0
        if self.blit_run():
            self.blit_end()

    cdef bint blit_run(self) noexcept nogil:
        """Do it. True when it is over, done or refused; False when the processor's bytes are waited for, or QEMU would
        leave it marked as busy.
        """
        if not self.blitter or self.mode & FROM_PROCESSOR and self.mode & TO_PROCESSOR:
            return True
        if self.extension & SOLID and self.mode & (TO_PROCESSOR | TRANSPARENT | PATTERN | EXPAND) == PATTERN | EXPAND:
            if self.width > LONGEST or self.outside(self.destination_pitch, self.destination):
                return False
            self.operate(self.destination, self.destination_pitch, 0, 0, self.height)
            return True
        if not self.mode & (EXPAND | PATTERN):
            if self.mode & TRANSPARENT and self.pixel > 2:
                return True
            if self.mode & BACKWARDS:
                self.destination_pitch, self.source_pitch = -self.destination_pitch, -self.source_pitch
        if self.mode & TO_PROCESSOR or self.width > LONGEST:
            return True
        if self.outside(self.destination_pitch, self.destination):
            return True
        if self.mode & FROM_PROCESSOR:
            return not self.blit_from_processor()
        if self.mode & PATTERN:
            self.source &= ~(self.pattern_size() - 1)
        elif self.outside(self.source_pitch, self.source):
            return True
        self.operate(self.destination, self.destination_pitch, self.source, self.source_pitch, self.height)
        return True

    cdef u32 bits_a_pixel(self) noexcept nogil:
        """What is shown, by SR07: 8, 15, 16, 24, 32; 0 in the VGA's own modes."""
        cdef u32 depth = self.seq[SR_MODE] & 0x0E
        if not self.seq[SR_MODE] & 1:
            return 0
        if depth == 0x02 or depth == 0x06:
            return 16 if self.hidden_dac & 15 == 1 else 15
        if depth == 0x04:
            return 24
        return 32 if depth == 0x08 else 8

    cdef u32 pattern_size(self) noexcept nogil:
        """Bytes, by what is shown rather than by the pixels of the blit (QEMU's rule)."""
        cdef u32 bits = self.bits_a_pixel()
        return 64 if bits == 8 else 128 if bits == 15 or bits == 16 else 256

    cdef bint outside(self, i32 pitch, u32 address) noexcept nogil:
        """Whether lines of this pitch from there leave video memory."""
        cdef i64 last
        if pitch == 0:
            return True
        last = <i64>address + (<i64>self.height - 1) * pitch
        if pitch < 0:
            return last - <i64>self.width < -1 or address >= self.vram.size
        return last + <i64>self.width > <i64>self.vram.size

    cdef bint blit_from_processor(self) noexcept nogil:
        """Wait for its bytes; they come by any address of the window or of BAR 0."""
        cdef u32 pixels
        self.mode &= <u8>~FROM_PROCESSOR
        if self.mode & PATTERN:
            self.wanted = 8 if self.mode & EXPAND else 64 * self.pixel
            self.expected = self.wanted
        else:
            if self.mode & EXPAND:
                pixels = self.width // self.pixel
                self.wanted = (pixels + 31) >> 5 if self.extension & DWORDS else (pixels + 7) >> 3
            else:
                self.wanted = (self.width + 3) & ~<u32>3
            self.expected = self.wanted * self.height
        self.source_pitch = <i32>self.wanted
        if not self.wanted or self.wanted > LONGEST:
            return False
        self.filled = 0
        self.access()
        return True

    cdef void feed(self, u8 value) noexcept nogil:
        self.buffer[self.filled & (LONGEST - 1)] = value
        self.filled += 1
        if self.filled >= self.wanted:
            self.blit_line()

    cdef void blit_line(self) noexcept nogil:
        """A line has come, or a whole pattern."""
        self.filled = 0
        if self.mode & PATTERN:
            self.operate(self.destination, self.destination_pitch, 0, 0, self.height)
            self.blit_end()
            return
        self.operate(self.destination, self.destination_pitch, 0, 0, 1)
        self.destination = self.destination + <u32>self.destination_pitch
        self.expected -= min(self.expected, self.wanted)
        if not self.expected:
            self.blit_end()

    cdef u8 fetch(self, u32 address) noexcept nogil:
        """A byte of the source: what the processor sent, or video memory."""
        return self.buffer[address & (LONGEST - 1)] if self.expected else self.vram.host[address & self.mask]

    cdef void operate(self, u32 address, i32 pitch, u32 source, i32 source_pitch, u32 height) noexcept nogil:
        cdef u32 x, n, line
        if self.extension & SOLID and self.mode & (TO_PROCESSOR | TRANSPARENT | PATTERN | EXPAND) == PATTERN | EXPAND:
            n = (self.width + self.pixel - 1) // self.pixel * self.pixel
            for x in range(n):
                self.line[x] = <u8>(self.foreground >> 8 * (x % self.pixel))
            for line in range(height):
                self.put_line(address + line * <u32>pitch, n)
        elif self.mode & EXPAND:
            self.expand(address, pitch, source, height)
        elif self.mode & PATTERN:
            self.pattern(address, pitch, source, height)
        elif self.mode & TRANSPARENT:
            self.copy_seen_through(address, pitch, source, source_pitch, height)
        else:
            self.copy(address, pitch, source, source_pitch, height)

    cdef void put_line(self, u32 to, u32 count) noexcept nogil:
        """self.line over `count` bytes of memory, by the operation."""
        cdef u32 i, at
        to &= self.mask
        if self.pixel == 2 or self.pixel == 4:          # pixels are where memory has them
            to &= ~<u32>(self.pixel - 1)
        if to + count <= self.memory:
            cirrus_mix_forward(self.operation, self.vram.host + to, self.line, count)
            self.vram.mark_dirty(to, count)
            return
        for i in range(count):
            at = (to + i) & self.mask
            self.vram.host[at] = <u8>cirrus_mix(self.operation, self.line[i], self.vram.host[at])
        self.vram.mark_dirty(to, self.memory - to)
        self.vram.mark_dirty(0, count)

    cdef void copy(self, u32 to, i32 pitch, u32 start, i32 source_pitch, u32 height) noexcept nogil:
        """Byte by byte in the direction that the mode says: lines may overlap."""
        cdef u32 line, i, a, b, width = self.width
        cdef bint back = self.mode & BACKWARDS
        cdef u8 *memory = self.vram.host
        if height > 1 and not self.mode & BACKWARDS and (pitch < <i32>width or source_pitch < <i32>width):
            return
        for line in range(height):
            a, b = to & self.mask, start & self.mask
            if self.expected:
                if back:
                    for i in range(width):
                        a = (to - i) & self.mask
                        memory[a] = <u8>cirrus_mix(self.operation, self.fetch(start - i), memory[a])
                    self.vram.mark_dirty(0, self.memory)
                else:
                    for i in range(width):
                        b = (a + i) & self.mask
                        memory[b] = <u8>cirrus_mix(self.operation, self.buffer[i], memory[b])
                    self.vram.mark_dirty(a, width)
                    if a + width > self.memory:
                        self.vram.mark_dirty(0, width)
            elif not back and a + width <= self.memory and b + width <= self.memory:
                if self.operation == COPY and (a + width <= b or b + width <= a):
                    memcpy(memory + a, memory + b, width)
                else:
                    cirrus_mix_forward(self.operation, memory + a, memory + b, width)
                self.vram.mark_dirty(a, width)
            elif back and a + 1 >= width and b + 1 >= width:
                cirrus_mix_backward(self.operation, memory + a, memory + b, width)
                self.vram.mark_dirty(a + 1 - width, width)
            else:
                for i in range(width):
                    a = (to - i if back else to + i) & self.mask
                    b = (start - i if back else start + i) & self.mask
                    memory[a] = <u8>cirrus_mix(self.operation, memory[b], memory[a])
                self.vram.mark_dirty(0, self.memory)
            to += <u32>pitch
            start += <u32>source_pitch

    cdef void copy_seen_through(self, u32 to, i32 pitch, u32 start, i32 source_pitch, u32 height) noexcept nogil:
        """What the operation makes of a pixel stays away where it is the key."""
        cdef u32 line, x, a, b, value, old, key = self.gfx[GR_KEY], width = self.width
        cdef i32 step = -1 if self.mode & BACKWARDS else 1
        cdef u8 *memory = self.vram.host
        if height > 1 and not self.mode & BACKWARDS and (pitch < <i32>width or source_pitch < <i32>width):
            return
        if self.pixel == 2:
            key |= <u32>self.gfx[GR_KEY + 1] << 8
        for line in range(height):
            a, b = to, start
            if self.pixel == 1:
                for x in range(width):
                    value = cirrus_mix(self.operation, self.fetch(b), memory[a & self.mask]) & 0xFF
                    if value != key:
                        memory[a & self.mask] = <u8>value
                        self.vram.mark_dirty(a & self.mask, 1)
                    a += <u32>step
                    b += <u32>step
            else:
                if step < 0:
                    a -= 1
                    b -= 1
                for x in range(0, width, 2):
                    old = a & self.mask & ~<u32>1
                    value = self.fetch(b & ~<u32>1) | <u32>self.fetch((b & ~<u32>1) + 1) << 8
                    value = cirrus_mix(self.operation, value, memory[old] | <u32>memory[old + 1] << 8) & 0xFFFF
                    if value != key:
                        memory[old], memory[old + 1] = <u8>value, <u8>(value >> 8)
                        self.vram.mark_dirty(old, 2)
                    a += <u32>(2 * step)
                    b += <u32>(2 * step)
            to += <u32>pitch
            start += <u32>source_pitch

    cdef void expand(self, u32 to, i32 pitch, u32 start, u32 height) noexcept nogil:
        """Bits become pixels of the foreground and background colour; transparent, those of one kind stay away."""
        cdef u32 line, x, n, bits, bit, skip, first, colour, at, row = 0, i, step = self.pixel
        cdef u8 flip = 0
        cdef bint through = self.mode & TRANSPARENT, pattern = self.mode & PATTERN
        cdef u8 *memory = self.vram.host
        if through and step == 3:               # there GR2F counts bytes
            first = self.gfx[GR_SKIP] & 0x1F
            skip = first // 3
        else:
            skip = self.gfx[GR_SKIP] & 7
            first = skip * step
        colour = self.foreground
        if through and self.extension & INVERTED:
            flip = 0xFF
            colour = self.background
        row = self.source & 7
        for line in range(height):
            bits = self.fetch(start + row) if pattern else self.fetch(start)
            bits ^= flip
            if not pattern:
                start += 1
            bit = 7 - skip                      # beyond a byte when GR2F counts that far
            at = to + first
            n = 0
            x = first
            while x < self.width:
                if bit > 7 and not pattern:
                    bit = 7
                    bits = self.fetch(start) ^ flip
                    start += 1
                if through:
                    if bit <= 7 and bits >> bit & 1:
                        for i in range(step):
                            self.line[i] = <u8>(colour >> 8 * i)
                        self.put_line(at + n, step)
                else:
                    for i in range(step):
                        self.line[n + i] = <u8>((self.foreground if bits >> bit & 1 else self.background) >> 8 * i)
                n += step
                x += step
                bit = (bit - 1) & 7 if pattern else bit - 1
            if not through and n:
                self.put_line(at, n)
            row = (row + 1) & 7
            to += <u32>pitch

    cdef void pattern(self, u32 to, i32 pitch, u32 start, u32 height) noexcept nogil:
        """Eight lines of eight pixels, over and over."""
        cdef u32 line, x, n, i, column, row = self.source & 7, step = self.pixel, span, first, base
        span = 8 if step == 1 else 16 if step == 2 else 32
        first = self.gfx[GR_SKIP] & 0x1F if step == 3 else (self.gfx[GR_SKIP] & 7) * step
        for line in range(height):
            base = start + row * span
            column = first
            n = 0
            x = first
            while x < self.width:
                for i in range(step):
                    if step == 3:
                        self.line[n + i] = self.fetch(base + column * 3 + i)
                    else:
                        self.line[n + i] = self.fetch(((base + column) & ~(step - 1)) + i)
                column = (column + 1) & 7 if step == 3 else (column + step) & (span - 1)
                n += step
                x += step
            if n:
                self.put_line(to + first, n)
            row = (row + 1) & 7
            to += <u32>pitch

    # --- from Python ------------------------------------------------------------------------------------------

    @property
    def linear(self):
        """True while BAR 0 is video memory and nothing else."""
        return bool(self.direct)

    @property
    def sr(self):
        return cells(self, self.seq, SR_COUNT)

    @property
    def gr(self):
        return cells(self, self.gfx, GR_COUNT)

    @property
    def hidden_palette(self):
        """The sixteen colours behind the palette, three bytes each."""
        return cells(self, self.hidden, 48)

    @property
    def blit_buffer(self):
        return cells(self, self.buffer, LONGEST)

    def check_state(self, values):
        if values["wanted"] and not values["expected"] or values["filled"] > values["wanted"]:
            raise StateError("cirrus: a blit that waits for nothing")
        if values["wanted"] and not 1 <= values["pixel"] <= 4:
            raise StateError("cirrus: a blit of pixels without a size")

    def settle(self):
        self.pel_mask = 0xFF                    # at its port is the hidden register
        self.banks()
        self.access()
