"""The VGA chip alone with Bochs' VBE registers: ports, the window at 0xa0000, video memory. vga_pci.py puts it on a bus.

Ref: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (1992); Intel OpenSource HD Graphics PRM
vol. 3 part 1, VGA registers, for the reserved bits; the VBE registers are described in QEMU's docs/specs/standard-vga.txt.
Register names: sequencer SR, graphics controller GR, attribute controller AR, CRT controller CR.

Video memory is one array of dwords; byte p of dword n is address n of plane p, so the linear frame buffer, chain-4
and the planes all see the same bytes (a real VGA spreads chain-4 over every fourth address).

Drawn by vga_scanout.pyx, read as text by textscreen.py. Not modelled: the switch-sense comparator (input status 0 is always 0),
CRT interrupt, light pen, asynchronous and synchronous reset of the sequencer.
Video memory is a RAM block and saved as one; save() has the registers.
"""

from libc.string cimport memcpy, memset

from vmrun.core.cells cimport cells

from accel.api import _report
from vmrun.core.state import Bytes, Flag, Table, U8, U16, U32, Words
from vmrun.devices.display import vga_state
from vmrun.errors import StateError

cdef u8[8] SR_MASK = vga_state.SR_MASK
cdef u8[16] GR_MASK = vga_state.GR_MASK

cdef enum:
    AR_COUNT = 21

    MAX_XRES = 16000
    MAX_YRES = 12000
    MAX_BPP = 32

    ID_FIRST = 0xB0C0
    ID_LAST = 0xB0C5

    OFTEN = 256


cdef u32 planes(u8 bits) noexcept nogil:
    """Plane bits 3..0 to a dword with 0xff in each named plane's byte."""
    return ((bits & 1) * <u32>0xFF) | ((bits >> 1 & 1) * <u32>0xFF00) \
        | ((bits >> 2 & 1) * <u32>0xFF0000) | ((bits >> 3 & 1) * <u32>0xFF000000)


cdef u32 spread(u8 value) noexcept nogil:
    return value * <u32>0x01010101


cdef class Vga:
    """`vram` holds at least 256 KiB, a power of two. `clock` gives the retrace its time."""

    state = Table(
        "vga", 1,
        U8("misc"), U8("feature", most=0x10), U8("seq_index", most=7), Bytes("sr", 8), U8("gfx_index", most=15),
        Bytes("gr", 16), U8("attr_index", most=0x3F), Flag("attr_data"), Bytes("ar", AR_COUNT), U8("crtc_index"),
        Bytes("cr", 256), U32("latch"), U8("dac_state", most=3), U8("dac_read"), U8("dac_write"), U8("dac_part", most=2),
        Bytes("colour", 3), Bytes("palette", 768), U8("pel_mask", 0xFF), U16("vbe_index"),
        Words("vbe", VBE_COUNT, 0xFFFF, [ID_LAST] + [0] * (VBE_COUNT - 1)), U32("bank_offset"),
        Flag("big_endian", lambda vga: vga.starts_big_endian),
    )
    reset, save, load_state = state.methods()

    def __init__(self, RamBlock vram, Clock clock):
        if vram.size < 0x40000 or vram.size & (vram.size - 1):
            raise ValueError(f"video memory of {vram.size} bytes is no power of two above 256 KiB")
        self.vram = vram
        self.clock = clock
        self.vram_mask = <u32>(vram.size - 1)
        self.vram_dwords = <u32>(vram.size >> 2)
        self.reset()

    # --- ports 0x3b0..0x3df ---------------------------------------------------------------------------------

    cdef bint elsewhere(self, u32 port) noexcept nogil:
        """One of the monochrome addresses while those for colours are decoded, or the other way."""
        return (port >= 0x3D0) != (self.misc & 1) and (port < 0x3C0 or port >= 0x3D0)

    cdef u8 *colour_at(self, u8 index) noexcept nogil:
        """The three bytes of the palette that a DAC index means."""
        return &self.dac[index * 3]

    cdef u8 port_read(self, u32 port) noexcept nogil:
        cdef u8 value
        if self.elsewhere(port):
            return 0xFF
        if port == ATTR_INDEX:
            return self.attr_index if not self.attr_data else 0
        if port == ATTR_DATA:
            value = self.attr_index & 0x1F
            return self.attr[value] if value < AR_COUNT else 0
        if port == SEQ_INDEX:
            return self.seq_index
        if port == SEQ_DATA:
            return self.seq[self.seq_index]
        if port == DAC_MASK:
            return self.pel_mask
        if port == DAC_READ:
            return self.dac_state
        if port == DAC_WRITE:
            return self.dac_write
        if port == DAC_DATA:
            value = self.colour_at(self.dac_read)[self.dac_part]
            self.dac_part += 1
            if self.dac_part == 3:
                self.dac_part = 0
                self.dac_read += 1
            return value
        if port == FEATURE_READ:
            return self.feature
        if port == MISC_READ:
            return self.misc
        if port == GFX_INDEX:
            return self.gfx_index
        if port == GFX_DATA:
            return self.gfx[self.gfx_index]
        if port == CRTC_INDEX_MONO or port == CRTC_INDEX:
            return self.crtc_index
        if port == CRTC_DATA_MONO or port == CRTC_DATA:
            return self.crtc[self.crtc_index]
        if port == STATUS_MONO or port == STATUS:
            self.attr_data = False
            return self.input_status()
        return 0

    cdef void port_write(self, u32 port, u8 value) noexcept nogil:
        if self.elsewhere(port):
            return
        if port == ATTR_INDEX:
            if not self.attr_data:
                self.attr_index = value & 0x3F
            else:
                self.attr_write(value)
            self.attr_data = not self.attr_data
        elif port == MISC_WRITE:
            self.misc = value & 0xEF
        elif port == SEQ_INDEX:
            self.seq_index = value & 7
        elif port == SEQ_DATA:
            self.seq_write(value)
        elif port == DAC_MASK:
            self.pel_mask = value
        elif port == DAC_READ:
            self.dac_read = value
            self.dac_part = 0
            self.dac_state = 3
        elif port == DAC_WRITE:
            self.dac_write = value
            self.dac_part = 0
            self.dac_state = 0
        elif port == DAC_DATA:
            self.dac_put(value)
        elif port == GFX_INDEX:
            self.gfx_index = value & 0x0F
        elif port == GFX_DATA:
            self.gfx[self.gfx_index] = value & GR_MASK[self.gfx_index]
            self.vbe_to_vga()
            self.derive()
        elif port == CRTC_INDEX_MONO or port == CRTC_INDEX:
            self.crtc_index = value
        elif port == CRTC_DATA_MONO or port == CRTC_DATA:
            self.crtc_write(value)
        elif port == STATUS_MONO or port == STATUS:
            self.feature = value & 0x10

    cdef void seq_write(self, u8 value) noexcept nogil:
        self.seq[self.seq_index] = value & SR_MASK[self.seq_index]
        self.vbe_to_vga()
        self.derive()

    cdef void attr_write(self, u8 value) noexcept nogil:
        cdef u8 index = self.attr_index & 0x1F
        if index < 16:
            self.attr[index] = value & 0x3F
        elif index == AR_MODE:
            self.attr[index] = value & 0xEF
        elif index == AR_OVERSCAN:
            self.attr[index] = value
        elif index == AR_PLANE_ENABLE:
            self.attr[index] = value & 0x3F
        elif index == AR_PANNING or index == AR_COLOUR_SELECT:
            self.attr[index] = value & 0x0F

    cdef void crtc_write(self, u8 value) noexcept nogil:
        cdef u8 index = self.crtc_index
        if self.crtc[CR_V_SYNC_END] & 0x80 and index <= CR_OVERFLOW:
            if index == CR_OVERFLOW:        # bit 4, line compare, stays writable
                self.crtc[CR_OVERFLOW] = (self.crtc[CR_OVERFLOW] & 0xEF) | (value & 0x10)
                self.vbe_to_vga()
            return
        self.crtc[index] = value
        self.vbe_to_vga()

    cdef void dac_put(self, u8 value) noexcept nogil:
        self.dac_cache[self.dac_part] = value
        self.dac_part += 1
        if self.dac_part == 3:
            memcpy(self.colour_at(self.dac_write), self.dac_cache, 3)
            self.dac_part = 0
            self.dac_write += 1

    cdef u8 input_status(self) noexcept nogil:
        """Input status 1, from where the beam is now: bit 0 display disabled, bit 3 vertical retrace."""
        cdef u8 *cr = self.crtc
        cdef i64 dot = 39722, chars, total, line_ns, frame_ns, now, line, column       # dot in ps: 25.175 MHz
        cdef i64 shown, sync, sync_lines
        if (self.misc >> 2 & 3) == 1:
            dot = 35310                     # 28.322 MHz
        if self.seq[SR_CLOCKING] & 8:
            dot *= 2
        chars = cr[CR_H_TOTAL] + 5
        total = (cr[CR_V_TOTAL] | (cr[CR_OVERFLOW] & 1) << 8 | (cr[CR_OVERFLOW] & 0x20) << 4) + 2
        shown = (cr[CR_V_END] | (cr[CR_OVERFLOW] & 2) << 7 | (cr[CR_OVERFLOW] & 0x40) << 3) + 1
        sync = cr[CR_V_SYNC_START] | (cr[CR_OVERFLOW] & 4) << 6 | (cr[CR_OVERFLOW] & 0x80) << 2
        sync_lines = (cr[CR_V_SYNC_END] - sync) & 0x0F
        if chars < 40 or total < 100 or sync >= total:
            chars, total, shown, sync = 100, 449, 400, 412     # not programmed: the timing of 720x400
        if sync_lines == 0:
            sync_lines = 2
        line_ns = chars * (8 if self.seq[SR_CLOCKING] & 1 else 9) * dot // 1000
        frame_ns = line_ns * total
        now = self.clock.now() % frame_ns
        line = now // line_ns
        column = (now % line_ns) * chars // line_ns
        if sync <= line < sync + sync_lines:
            return 0x09
        return 0x01 if line >= shown or column > cr[CR_H_END] else 0x00

    # --- VBE ------------------------------------------------------------------------------------------------

    cdef u16 vbe_read(self, u32 index) noexcept nogil:
        if index >= VBE_COUNT:
            return 0
        if index == VBE_MEMORY_64K:
            return <u16>(self.vram.size >> 16)
        if self.vbe[VBE_ENABLE] & VBE_GETCAPS:
            if index == VBE_XRES:
                return MAX_XRES
            if index == VBE_YRES:
                return MAX_YRES
            if index == VBE_BPP:
                return MAX_BPP
        return self.vbe[index]

    cdef void vbe_write(self, u32 index, u16 value) noexcept nogil:
        cdef u64 size
        if index == VBE_ID:
            if ID_FIRST <= value <= ID_LAST:
                self.vbe[VBE_ID] = value
        elif index == VBE_ENABLE:
            if value & VBE_ENABLED and not self.vbe[VBE_ENABLE] & VBE_ENABLED:
                self.vbe[VBE_VIRT_WIDTH] = self.vbe[VBE_X_OFFSET] = self.vbe[VBE_Y_OFFSET] = 0
                self.vbe[VBE_ENABLE] |= VBE_ENABLED
                self.vbe_limit()
                self.vbe_to_vga()
                if not value & VBE_NOCLEARMEM:
                    size = <u64>self.vbe[VBE_YRES] * self.vbe_line_bytes
                    memset(self.vram.host, 0, min(size, self.vram.size))
                    self.vram.mark_dirty(0, min(size, self.vram.size))
            else:
                self.bank_offset = 0
            self.vbe[VBE_ENABLE] = value
        elif index == VBE_BANK:
            self.vbe[VBE_BANK] = value & <u16>((self.vram.size >> 16) - 1)
            self.bank_offset = <u32>self.vbe[VBE_BANK] << 16
        elif index < VBE_COUNT and index != VBE_VIRT_HEIGHT and index != VBE_MEMORY_64K:
            self.vbe[index] = value
            self.vbe_limit()
            self.vbe_to_vga()
        self.derive()

    cdef void vbe_limit(self) noexcept nogil:
        """Bring an enabled mode's registers to what the memory can show, and compute its line length and start."""
        cdef u16 *r = self.vbe
        cdef u32 bits, lines, offset
        cdef u64 shown
        if not r[VBE_ENABLE] & VBE_ENABLED:
            return
        if r[VBE_BPP] not in (4, 8, 15, 16, 24, 32):
            r[VBE_BPP] = 8
        bits = 16 if r[VBE_BPP] == 15 else r[VBE_BPP]
        r[VBE_XRES] &= 0xFFF8
        r[VBE_XRES] = min(max(r[VBE_XRES], <u16>8), <u16>MAX_XRES)
        r[VBE_VIRT_WIDTH] = min(r[VBE_VIRT_WIDTH] & <u16>0xFFF8, <u16>MAX_XRES)
        r[VBE_VIRT_WIDTH] = max(r[VBE_VIRT_WIDTH], r[VBE_XRES])
        self.vbe_line_bytes = r[VBE_VIRT_WIDTH] * bits // 8
        lines = <u32>self.vram.size // self.vbe_line_bytes
        r[VBE_YRES] = <u16>min(min(max(<u32>r[VBE_YRES], <u32>1), <u32>MAX_YRES), lines)
        r[VBE_X_OFFSET] = min(r[VBE_X_OFFSET], <u16>MAX_XRES)
        r[VBE_Y_OFFSET] = min(r[VBE_Y_OFFSET], <u16>MAX_YRES)
        shown = <u64>r[VBE_YRES] * self.vbe_line_bytes
        offset = r[VBE_X_OFFSET] * bits // 8
        if offset + <u64>r[VBE_Y_OFFSET] * self.vbe_line_bytes + shown > self.vram.size:
            r[VBE_Y_OFFSET] = 0
        if offset + shown > self.vram.size:
            r[VBE_X_OFFSET] = 0
            offset = 0
        offset += <u32>r[VBE_Y_OFFSET] * self.vbe_line_bytes
        r[VBE_VIRT_HEIGHT] = <u16>lines
        self.vbe_start = offset // 4

    cdef void vbe_to_vga(self) noexcept nogil:
        """While a VBE mode is on, the VGA registers that software may look at say the same as it does."""
        cdef u8 *cr = self.crtc
        cdef u32 height
        cdef u8 shift
        if not self.vbe[VBE_ENABLE] & VBE_ENABLED:
            return
        self.gfx[GR_MISC] = (self.gfx[GR_MISC] & 0xF3) | 0x05          # graphics, 64 KiB at 0xa0000
        cr[CR_MODE] |= 0x03                                    # no CGA interleave
        cr[CR_OFFSET] = <u8>(self.vbe_line_bytes >> 3)
        cr[CR_H_END] = <u8>((self.vbe[VBE_XRES] >> 3) - 1)
        height = self.vbe[VBE_YRES] - 1
        cr[CR_V_END] = <u8>height
        cr[CR_OVERFLOW] = (cr[CR_OVERFLOW] & 0xBD) | (height >> 7 & 0x02) | (height >> 3 & 0x40)
        cr[CR_LINE_COMPARE] = 0xFF                                     # line compare at the far end
        cr[CR_OVERFLOW] |= 0x10
        cr[CR_MAX_SCAN] |= 0x40
        if self.vbe[VBE_BPP] == 4:
            shift = 0
            self.seq[SR_CLOCKING] &= 0xF7
        else:
            shift = 2
            self.seq[SR_MEMORY_MODE] |= 0x08                             # chain-4
            self.seq[SR_MAP_MASK] |= 0x0F
        self.gfx[GR_MODE] = (self.gfx[GR_MODE] & 0x9F) | shift << 5
        cr[CR_MAX_SCAN] &= 0x60                                    # no doubled or repeated lines

    cdef u64 window_shows(self) noexcept nogil:
        """What of the memory the window shows byte for byte, as one number; 0: it does not."""
        if not self.seq[SR_MEMORY_MODE] & 0x08 or self.seq[SR_MAP_MASK] != 0x0F:   # chain-4, all planes
            return 0
        if self.gfx[GR_MISC] & 0x0C == 4:
            return SHOWS_MEMORY | 4 | self.bank_offset
        return SHOWS_MEMORY | (self.gfx[GR_MISC] & 0x0C)

    cdef void derive(self) noexcept nogil:
        cdef u64 linear = self.window_shows()
        self.dac_8bit = (self.vbe[VBE_ENABLE] & VBE_8BIT_DAC) != 0
        if linear != self.linear:
            self.linear = linear
            self.used = 0
            if self.mapped:
                self.mapped = False
                self.call_linear()

    cdef void count(self) noexcept nogil:
        """An access to the window. One that is used OFTEN while it is linear is worth a change of the memory map."""
        if self.linear and not self.mapped and self.on_linear is not None:
            self.used += 1
            if self.used >= OFTEN:
                self.used = 0
                self.mapped = True
                self.call_linear()

    cdef void call_linear(self) noexcept with gil:
        try:
            self.on_linear()
        except Exception as exc:
            _report("vga window", exc)

    # --- the window at 0xa0000 --------------------------------------------------------------------------------

    cdef i64 window_offset(self, u32 addr) noexcept nogil:
        """Offset in the 128 KiB window to address in video memory's terms; -1 where GR06 maps nothing."""
        cdef u8 mapping = self.gfx[GR_MISC] >> 2 & 3
        if mapping == 0:
            return addr
        if mapping == 1:
            return <i64>addr + self.bank_offset if addr < 0x10000 else -1
        if mapping == 2:
            return addr - 0x10000 if 0x10000 <= addr < 0x18000 else -1
        return addr - 0x18000 if addr >= 0x18000 else -1

    cdef u8 mem_read(self, u32 addr) noexcept nogil:
        cdef i64 at = self.window_offset(addr & 0x1FFFF)
        cdef u32 offset, differ, value
        if at < 0:
            return 0xFF
        offset = <u32>at
        if self.seq[SR_MEMORY_MODE] & 0x08:                              # chain-4: linear
            return self.vram.host[offset] if offset <= self.vram_mask else 0xFF
        if self.gfx[GR_MODE] & 0x10:                              # odd/even: text
            offset = (offset & ~<u32>1) << 1 | (self.gfx[GR_READ_MAP] & 2) | (offset & 1)
            return self.vram.host[offset] if offset <= self.vram_mask else 0xFF
        if offset >= self.vram_dwords:
            return 0xFF
        self.latch = (<u32 *>self.vram.host)[offset]
        if not self.gfx[GR_MODE] & 0x08:
            return <u8>(self.latch >> (8 * self.gfx[GR_READ_MAP]))
        differ = (self.latch ^ planes(self.gfx[GR_COLOUR_COMPARE])) & planes(self.gfx[GR_DONT_CARE])
        value = differ | differ >> 16
        value |= value >> 8
        return <u8>~value

    cdef void mem_write(self, u32 addr, u8 value) noexcept nogil:
        cdef i64 at = self.window_offset(addr & 0x1FFFF)
        cdef u32 offset
        if at < 0:
            return
        offset = <u32>at
        if not self.seq[SR_MEMORY_MODE] & 0x08:
            if not self.gfx[GR_MODE] & 0x10:
                if offset < self.vram_dwords:
                    self.planar_write(offset, value, 1)
                return
            offset = (offset & ~<u32>1) << 1 | (self.gfx[GR_READ_MAP] & 2) | (offset & 1)
        if offset <= self.vram_mask and self.seq[SR_MAP_MASK] & 1 << (offset & 3):
            self.vram.host[offset] = value
            self.vram.mark_dirty(offset, 1)

    cdef void window_write(self, u32 addr, u64 value, u32 size) noexcept nogil:
        """A store of `size` bytes: as many of one each, but where they go is worked out once."""
        cdef i64 at = self.window_offset(addr & 0x1FFFF)
        cdef u32 offset, i, first
        cdef u8 mask = self.seq[SR_MAP_MASK]
        if at < 0 or self.window_offset((addr + size - 1) & 0x1FFFF) != at + size - 1 or self.seq[SR_MEMORY_MODE] & 0x08:
            for i in range(size):
                self.mem_write(addr + i, <u8>(value >> (8 * i)))
            return
        offset = <u32>at
        if not self.gfx[GR_MODE] & 0x10:
            if offset + size <= self.vram_dwords:
                self.planar_write(offset, value, size)
            return
        for i in range(size):
            first = (offset & ~<u32>1) << 1 | (self.gfx[GR_READ_MAP] & 2) | (offset & 1)
            if first <= self.vram_mask and mask & 1 << (first & 3):
                self.vram.host[first] = <u8>value
            value >>= 8
            offset += 1
        first = (<u32>at & ~<u32>1) << 1
        if first <= self.vram_mask:
            self.vram.mark_dirty(first, min(<u32>(2 * size + 4), self.vram_mask + 1 - first))

    cdef void planar_write(self, u32 dword, u64 values, u32 count) noexcept nogil:
        """`count` bytes from the processor, the lowest of `values` first, each into one dword of the planes."""
        cdef u8 mode = self.gfx[GR_MODE] & 3, function = self.gfx[GR_ROTATE] >> 3 & 3, turn = self.gfx[GR_ROTATE] & 7, value
        cdef u32 latch = self.latch, colour, n, fixed = planes(self.gfx[GR_SET_RESET])
        cdef u32 set_reset = planes(self.gfx[GR_ENABLE_SET_RESET]), mask = spread(self.gfx[GR_BIT_MASK]), bits
        cdef u32 enabled = planes(self.seq[SR_MAP_MASK])
        cdef u32 *cell = &(<u32 *>self.vram.host)[dword]
        for n in range(count):
            value = <u8>values
            values >>= 8
            if mode == 1:
                colour = latch
            else:
                bits = mask
                if mode == 2:
                    colour = planes(value & 0x0F)
                else:
                    value = value >> turn | <u8>(value << (8 - turn))
                    if mode == 3:
                        bits &= spread(value)
                        colour = fixed
                    else:
                        colour = (spread(value) & ~set_reset) | (fixed & set_reset)
                if function == 1:
                    colour &= latch
                elif function == 2:
                    colour |= latch
                elif function == 3:
                    colour ^= latch
                colour = (colour & bits) | (latch & ~bits)
            cell[n] = (cell[n] & ~enabled) | (colour & enabled)
        self.vram.mark_dirty(<u64>dword * 4, <u64>count * 4)

    # --- from Python ------------------------------------------------------------------------------------------

    def registers(self):
        """{'misc': int, 'sr': bytes(8), 'gr': bytes(16), 'ar': bytes(21), 'cr': bytes(256)}, for whoever draws."""
        return {
            "misc": self.misc,
            "sr": (<char *>self.seq)[:8],
            "gr": (<char *>self.gfx)[:16],
            "ar": (<char *>self.attr)[:AR_COUNT],
            "cr": (<char *>self.crtc)[:256],
        }

    def watch_window(self, callback):
        """Call back, with the device lock held, whenever `windows` has changed; who cannot follow then sets `mapped`
        to False and is called again later."""
        self.on_linear = callback

    @property
    def windows(self):
        """Which parts of the window show memory byte for byte and are used a lot: {mapping 0..3 of GR06: first byte}; of a
        Cirrus's banks 4 and 5.
        """
        return {self.linear >> 2 & 3: self.linear & 0xFFFF0000} if self.mapped else {}

    @property
    def blank(self):
        """The attribute controller has its palette open for the processor: nothing is shown."""
        return not self.attr_index & 0x20

    @property
    def vbe_enabled(self):
        return bool(self.vbe[VBE_ENABLE] & VBE_ENABLED)

    @property
    def vbe_mode(self):
        """(width, height, bits per pixel, bytes per line, first byte) of the VBE mode; None when it is off."""
        if not self.vbe[VBE_ENABLE] & VBE_ENABLED:
            return None
        return self.vbe[VBE_XRES], self.vbe[VBE_YRES], self.vbe[VBE_BPP], self.vbe_line_bytes, self.vbe_start * 4

    @property
    def palette(self):
        """256 colours of three bytes, 6 bits each unless `palette_8bit`."""
        return (<char *>self.dac)[:768]

    @property
    def palette_8bit(self):
        return bool(self.dac_8bit)

    @property
    def sr(self):
        return cells(self, self.seq, 8)

    @property
    def gr(self):
        return cells(self, self.gfx, 16)

    @property
    def ar(self):
        return cells(self, self.attr, AR_COUNT)

    @property
    def cr(self):
        return cells(self, self.crtc, 256)

    @property
    def palette(self):
        return cells(self, self.dac, 768)

    @property
    def colour(self):
        """What of a colour has been written to the DAC."""
        return cells(self, self.dac_cache, 3)

    def check_state(self, values):
        for name, masks in (("sr", vga_state.SR_MASK), ("gr", vga_state.GR_MASK)):
            for index, (byte, mask) in enumerate(zip(values[name], masks, strict=True)):
                if byte & ~mask:
                    raise StateError(f"vga: {name}[{index}] = {byte:#x} has reserved bits set")
        if not ID_FIRST <= values["vbe"][0] <= ID_LAST:
            raise StateError(f"vga: {values['vbe'][0]:#x} is no version of VBE's registers")
        if values["bank_offset"] & 0xFFFF or values["bank_offset"] >= self.vram.size:
            raise StateError(f"vga: {values['bank_offset']:#x} is no bank of {self.vram.size} bytes")

    def settle(self):
        self.vbe_line_bytes = self.vbe_start = 0
        self.vbe_limit()
        self.vbe_to_vga()
        self.derive()
