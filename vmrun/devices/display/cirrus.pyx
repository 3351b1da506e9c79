"""Cirrus Logic's CL-GD5446 (PCI) and CL-GD5430 (ISA), the chips alone: a VGA with more registers, packed pixels, a
pointer drawn by the chip and a blitter (cirrus_blit.pyx). cirrus_vga.py puts them on a bus.

Ref: Cirrus Logic, CL-GD5446 Technical Reference Manual (1996); where it leaves a choice, and where drivers have come to rely
on it, qemu-kvm's adapter decides (tests/peers/test_cirrus_qemu.py holds both together).
Register names as there: SR sequencer, GR graphics controller with the blitter, CR CRT controller.
Not modelled: video windows, the signature generator, power management.
"""

from libc.string cimport memset

from vmrun.core.cells cimport cells
from vmrun.devices.display.cirrus_blit cimport AUTOSTART, GR_BLT_START, LONGEST, SR_MODE
from vmrun.devices.display.vga cimport *

from vmrun.core.state import Bytes, Flag, Signed, Table, U8, U16, U32
from vmrun.devices.display import vga_state
from vmrun.errors import StateError

cdef u8[8] SR_MASK = vga_state.SR_MASK
cdef u8[16] GR_MASK = vga_state.GR_MASK

cdef enum:
    AR_COUNT = 21
    SR_COUNT = 0x20
    GR_COUNT = 0x3A

    SR_UNLOCK = 0x06
    SR_WIRES = 0x08
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

    CR_ID = 0x27

    BANK = 0x8000               # bytes of half a window

    # SR08: what the chip makes of the wires to the monitor, and how they are
    CLOCK_OUT = 0x01
    DATA_OUT = 0x02
    CLOCK_IN = 0x04
    DATA_IN = 0x80


# GR's number for a byte of the blitter's registers in memory; 0xff for none
cdef u8[65] MAPPED
memset(MAPPED, 0xFF, sizeof(MAPPED))
for _at, _indices in (
    (0x00, (0x00, 0x10, 0x12, 0x14, 0x01, 0x11, 0x13, 0x15)), (0x08, (*range(0x20, 0x2B),)),
    (0x14, (0x2C, 0x2D, 0x2E, 0x2F, 0x30)), (0x1A, (0x32, 0x33, 0x34, 0x35)), (0x20, (0x38, 0x39)), (0x40, (0x31,)),
):
    for _n, _index in enumerate(_indices):
        MAPPED[_at + _n] = _index


cdef class Cirrus(CirrusBlitter):
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

    def __init__(self, RamBlock vram, Clock clock, bint pci=True, bint blitter=True, lock=None, ddc=None):
        self.pci, self.blitter, self.ddc = pci, blitter, ddc
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
        if self.elsewhere(port):
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
        if port == GFX_DATA:
            return self.graphics_read(self.gfx_index)
        if port == CRTC_DATA_MONO or port == CRTC_DATA:
            return self.crtc_read()
        return Vga.port_read(self, port)

    cdef void port_write(self, u32 port, u8 value) noexcept nogil:
        if self.elsewhere(port):
            return
        if port == SEQ_INDEX:
            self.seq_index = value
        elif port == SEQ_DATA:
            self.sequencer_write(value)
        elif port == DAC_MASK:
            if self.dac_lock == 4:
                self.hidden_dac = value
            self.dac_lock = 0
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
        if index == SR_WIRES and self.ddc is not None:
            return self.wires()
        return self.seq[index] if index < SR_COUNT else 0xFF

    cdef void sequencer_write(self, u8 value) noexcept nogil:
        cdef u32 index = self.seq_index
        if index <= SR_MEMORY_MODE:
            self.seq[index] = value & SR_MASK[index]
            self.derive()
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
            if index == SR_WIRES and self.ddc is not None:
                self.wires_move()

    cdef void wires_move(self) noexcept with gil:
        self.ddc.move(bool(self.seq[SR_WIRES] & CLOCK_OUT), bool(self.seq[SR_WIRES] & DATA_OUT))

    cdef u8 wires(self) noexcept with gil:
        """SR08 with the wires as they are: low where either side holds them so."""
        cdef u8 value = self.seq[SR_WIRES] & <u8>~(CLOCK_IN | DATA_IN)
        if value & CLOCK_OUT:
            value |= CLOCK_IN
        if value & DATA_OUT and self.ddc.sda:
            value |= DATA_IN
        return value

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
            self.derive()
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

    cdef u8 *colour_at(self, u8 index) noexcept nogil:
        return &self.hidden[(index & 15) * 3] if self.seq[SR_POINTER] & 2 else Vga.colour_at(self, index)

    cdef u8 registers_read(self, u32 offset) noexcept nogil:
        """The blitter's registers in memory: a byte from `offset` of them."""
        if offset <= 0x40 and MAPPED[offset] != 0xFF:
            return self.graphics_read(MAPPED[offset])
        return 0xFF

    cdef void registers_write(self, u32 offset, u8 value) noexcept nogil:
        if offset <= 0x40 and MAPPED[offset] != 0xFF:
            self.graphics_write(MAPPED[offset], value)

    # --- memory ---------------------------------------------------------------------------------------------

    cdef u64 window_shows(self) noexcept nogil:
        """The VGA's window as it is; in extended modes two banks, each of which is all there."""
        if not self.seq[SR_MODE] & 1:
            return Vga.window_shows(self)
        if not self.direct or self.bank_limit[0] < BANK or self.bank_limit[1] < BANK:
            return 0
        return SHOWS_BANKS | self.bank_base[0] | <u64>self.bank_base[1] << 32

    cdef void banks(self) noexcept nogil:
        """Where the window's two halves begin, and how much of them there is."""
        cdef u32 n, offset, limit
        for n in range(2):
            offset = self.gfx[GR_BANK + (n if self.gfx[GR_EXTENSIONS] & 1 else 0)]
            offset <<= 14 if self.gfx[GR_EXTENSIONS] & 0x20 else 12
            limit = 0 if self.memory <= offset else <u32>self.memory - offset
            if n and not self.gfx[GR_EXTENSIONS] & 1:
                offset += BANK
                limit = limit - BANK if limit > BANK else 0
            self.bank_base[n] = offset if limit else 0
            self.bank_limit[n] = limit

    cdef void access(self) noexcept nogil:
        """Whether BAR 0 is memory and nothing else, for now, and the window with it."""
        cdef bint direct = True, before = self.direct
        cdef u8 mode = self.gfx[GR_MODE] & 7, extensions = self.gfx[GR_EXTENSIONS]
        if self.seq[SR_CONFIGURATION] & 0x44 == 0x44 or self.fed():
            direct = False
        elif extensions & 0x14 == 0x14 or extensions & 0x02:
            direct = False
        elif 4 <= mode <= 5 and extensions & 4:
            direct = False
        self.direct = direct
        self.derive()
        if direct != before and self.on_linear is not None:
            self.call_linear()

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

    # --- from Python ------------------------------------------------------------------------------------------

    @property
    def windows(self):
        if not self.mapped or not self.linear & SHOWS_BANKS:
            return Vga.windows.__get__(self)
        return {4: self.bank_base[0], 5: self.bank_base[1]}

    @property
    def is_memory(self):
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
