from accel.api cimport IoRegion, i64, u8, u16, u32, u64
from accel.clock cimport Clock
from accel.ram cimport RamBlock


cdef class Vga:
    cdef readonly RamBlock vram
    cdef readonly Clock clock
    cdef u32 vram_mask
    cdef u32 vram_dwords
    cdef public u8 misc
    cdef public u8 feature
    cdef public u8 seq_index
    cdef u8 seq[8]
    cdef public u8 gfx_index
    cdef u8 gfx[16]
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
    cdef u32 linear                     # what `linear_window` says, as one number
    cdef object on_linear
    cdef u8 port_read(self, u32 port) noexcept nogil
    cdef void port_write(self, u32 port, u8 value) noexcept nogil
    cdef u16 vbe_read(self, u32 index) noexcept nogil
    cdef void vbe_write(self, u32 index, u16 value) noexcept nogil
    cdef u8 mem_read(self, u32 addr) noexcept nogil
    cdef void mem_write(self, u32 addr, u8 value) noexcept nogil
    cdef i64 window_offset(self, u32 addr) noexcept nogil
    cdef u8 input_status(self) noexcept nogil
    cdef void seq_write(self, u8 value) noexcept nogil
    cdef void crtc_write(self, u8 value) noexcept nogil
    cdef void attr_write(self, u8 value) noexcept nogil
    cdef void dac_put(self, u8 value) noexcept nogil
    cdef void vbe_limit(self) noexcept nogil
    cdef void vbe_to_vga(self) noexcept nogil
    cdef void planar_write(self, u32 dword, u8 value) noexcept nogil
    cdef void derive(self) noexcept nogil
    cdef void call_linear(self) noexcept with gil


cdef class VgaPorts(IoRegion):
    cdef Vga vga
    cdef u32 base


cdef class VgaWindow(IoRegion):
    cdef Vga vga


cdef class VbePorts(IoRegion):
    cdef Vga vga


cdef class VbeMmio(IoRegion):
    cdef Vga vga


cdef class ExtendedRegs(IoRegion):
    cdef Vga vga
