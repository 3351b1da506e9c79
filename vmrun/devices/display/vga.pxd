from accel.api cimport IoRegion, i64, u8, u16, u32, u64
from accel.clock cimport Clock
from accel.ram cimport RamBlock


cdef enum:
    # ports
    CRTC_INDEX_MONO = 0x3b4
    CRTC_DATA_MONO = 0x3b5
    STATUS_MONO = 0x3ba
    ATTR_INDEX = 0x3c0
    ATTR_DATA = 0x3c1
    MISC_WRITE = 0x3c2
    SEQ_INDEX = 0x3c4
    SEQ_DATA = 0x3c5
    DAC_MASK = 0x3c6
    DAC_READ = 0x3c7
    DAC_WRITE = 0x3c8
    DAC_DATA = 0x3c9
    FEATURE_READ = 0x3ca
    MISC_READ = 0x3cc
    GFX_INDEX = 0x3ce
    GFX_DATA = 0x3cf
    CRTC_INDEX = 0x3d4
    CRTC_DATA = 0x3d5
    STATUS = 0x3da

    # sequencer
    SR_CLOCKING = 1
    SR_MAP_MASK = 2
    SR_CHARACTER_MAP = 3
    SR_MEMORY_MODE = 4

    # graphics controller
    GR_SET_RESET = 0
    GR_ENABLE_SET_RESET = 1
    GR_COLOUR_COMPARE = 2
    GR_ROTATE = 3
    GR_READ_MAP = 4
    GR_MODE = 5
    GR_MISC = 6
    GR_DONT_CARE = 7
    GR_BIT_MASK = 8

    # attribute controller
    AR_MODE = 0x10
    AR_OVERSCAN = 0x11
    AR_PLANE_ENABLE = 0x12
    AR_PANNING = 0x13
    AR_COLOUR_SELECT = 0x14

    # CRT controller
    CR_H_TOTAL = 0
    CR_H_END = 1
    CR_V_TOTAL = 6
    CR_OVERFLOW = 7
    CR_MAX_SCAN = 9
    CR_CURSOR_START = 0xa
    CR_CURSOR_END = 0xb
    CR_START_HIGH = 0xc
    CR_START_LOW = 0xd
    CR_CURSOR_HIGH = 0xe
    CR_CURSOR_LOW = 0xf
    CR_V_SYNC_START = 0x10
    CR_V_SYNC_END = 0x11
    CR_V_END = 0x12
    CR_OFFSET = 0x13
    CR_MODE = 0x17
    CR_LINE_COMPARE = 0x18

    # VBE, by the index at 0x1ce
    VBE_ID = 0
    VBE_XRES = 1
    VBE_YRES = 2
    VBE_BPP = 3
    VBE_ENABLE = 4
    VBE_BANK = 5
    VBE_VIRT_WIDTH = 6
    VBE_VIRT_HEIGHT = 7
    VBE_X_OFFSET = 8
    VBE_Y_OFFSET = 9
    VBE_MEMORY_64K = 10
    VBE_COUNT = 11

    VBE_ENABLED = 0x01
    VBE_GETCAPS = 0x02
    VBE_8BIT_DAC = 0x20
    VBE_NOCLEARMEM = 0x80

    # what a window shows
    SHOWS_MEMORY = 1
    SHOWS_BANKS = 2


cdef class Vga:
    cdef readonly RamBlock vram
    cdef readonly Clock clock
    cdef u32 vram_mask
    cdef u32 vram_dwords
    cdef public u8 misc
    cdef public u8 feature
    cdef public u8 seq_index
    cdef u8 seq[32]                     # eight of them the VGA's own, and so on
    cdef public u8 gfx_index
    cdef u8 gfx[64]
    cdef public u8 attr_index
    cdef u8 attr[32]
    cdef public bint attr_data                 # the flip-flop: the next write to 0x3c0 is data
    cdef public u8 crtc_index
    cdef u8 crtc[256]
    cdef public u32 latch
    cdef public u8 dac_state
    cdef public u8 dac_read
    cdef public u8 dac_write
    cdef public u8 dac_part
    cdef u8 dac_cache[3]
    cdef u8 dac[768]
    cdef public u8 pel_mask
    cdef bint dac_8bit
    cdef public u16 vbe_index
    cdef public u16 vbe[11]
    cdef public u32 bank_offset
    cdef readonly u32 vbe_line_bytes
    cdef readonly u32 vbe_start
    cdef public bint big_endian
    cdef public bint starts_big_endian  # what reset makes of it
    cdef u64 linear                     # what of the memory the window shows, as one number
    cdef u32 used                       # accesses to the window since it became linear
    cdef public bint mapped             # it is shown as memory
    cdef object on_linear
    cdef bint elsewhere(self, u32 port) noexcept nogil
    cdef u8 *colour_at(self, u8 index) noexcept nogil
    cdef u8 port_read(self, u32 port) noexcept nogil
    cdef void port_write(self, u32 port, u8 value) noexcept nogil
    cdef u16 vbe_read(self, u32 index) noexcept nogil
    cdef void vbe_write(self, u32 index, u16 value) noexcept nogil
    cdef u8 mem_read(self, u32 addr) noexcept nogil
    cdef void mem_write(self, u32 addr, u8 value) noexcept nogil
    cdef void window_write(self, u32 addr, u64 value, u32 size) noexcept nogil
    cdef i64 window_offset(self, u32 addr) noexcept nogil
    cdef u8 input_status(self) noexcept nogil
    cdef void seq_write(self, u8 value) noexcept nogil
    cdef void crtc_write(self, u8 value) noexcept nogil
    cdef void attr_write(self, u8 value) noexcept nogil
    cdef void dac_put(self, u8 value) noexcept nogil
    cdef void vbe_limit(self) noexcept nogil
    cdef void vbe_to_vga(self) noexcept nogil
    cdef void planar_write(self, u32 dword, u64 values, u32 count) noexcept nogil
    cdef u64 window_shows(self) noexcept nogil
    cdef void derive(self) noexcept nogil
    cdef void call_linear(self) noexcept with gil
    cdef void count(self) noexcept nogil
