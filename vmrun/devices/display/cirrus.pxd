from accel.api cimport i32, i64, u8, u16, u32, u64
from vmrun.devices.display.vga cimport Vga


cdef class Cirrus(Vga):
    cdef readonly u64 memory            # bytes that the chip addresses: 4 MiB, 2 MiB of the ISA chip
    cdef u32 mask
    cdef bint pci
    cdef readonly bint blitter
    cdef public u8 dac_lock, hidden_dac
    cdef u8 hidden[48]                  # sixteen colours, the first and last of which are the pointer's
    cdef public u8 shadow0, shadow1     # GR00 and GR01 with all their bits
    cdef public u16 pointer_x, pointer_y
    cdef u32 bank_base[2]
    cdef u32 bank_limit[2]
    # the blitter, as GR20 to GR33 said when it started
    cdef public u32 width, height, destination, source, foreground, background
    cdef public i32 destination_pitch, source_pitch
    cdef public u8 mode, extension, operation, pixel
    cdef public u32 expected            # bytes still to come from the processor
    cdef public u32 filled, wanted      # of the line that is coming: bytes here, bytes needed
    cdef u8 buffer[8192]
    cdef u8 line[8192 + 8]
    cdef bint direct
    cdef bint fed(self) noexcept nogil
    cdef void feed(self, u8 value) noexcept nogil
    cdef u8 registers_read(self, u32 offset) noexcept nogil
    cdef void registers_write(self, u32 offset, u8 value) noexcept nogil
    cdef u8 linear_read(self, u64 offset) noexcept nogil
    cdef void linear_write(self, u64 offset, u8 value) noexcept nogil
    cdef u8 sequencer_read(self) noexcept nogil
    cdef void sequencer_write(self, u8 value) noexcept nogil
    cdef u8 graphics_read(self, u32 index) noexcept nogil
    cdef void graphics_write(self, u32 index, u8 value) noexcept nogil
    cdef u8 crtc_read(self) noexcept nogil
    cdef u8 palette_read(self) noexcept nogil
    cdef void palette_write(self, u8 value) noexcept nogil
    cdef void window_write(self, u32 addr, u64 value, u32 size) noexcept nogil
    cdef void store(self, u64 offset, u8 value) noexcept nogil
    cdef u64 spaced(self, u64 offset) noexcept nogil
    cdef void banks(self) noexcept nogil
    cdef void access(self) noexcept nogil
    cdef void call_direct(self) noexcept with gil
    cdef void blit_control(self, u8 value) noexcept nogil
    cdef void blit_start(self) noexcept nogil
    cdef bint blit_run(self) noexcept nogil
    cdef void blit_end(self) noexcept nogil
    cdef bint blit_from_processor(self) noexcept nogil
    cdef void blit_line(self) noexcept nogil
    cdef u32 pattern_size(self) noexcept nogil
    cdef bint outside(self, i32 pitch, u32 address) noexcept nogil
    cdef void operate(self, u32 address, i32 pitch, u32 source, i32 source_pitch, u32 height) noexcept nogil
    cdef void copy(self, u32 to, i32 pitch, u32 start, i32 source_pitch, u32 height) noexcept nogil
    cdef void copy_seen_through(self, u32 to, i32 pitch, u32 start, i32 source_pitch, u32 height) noexcept nogil
    cdef void expand(self, u32 to, i32 pitch, u32 start, u32 height) noexcept nogil
    cdef void pattern(self, u32 to, i32 pitch, u32 start, u32 height) noexcept nogil
    cdef void put_line(self, u32 to, u32 count) noexcept nogil
    cdef u8 fetch(self, u32 address) noexcept nogil
    cdef u32 colour(self, bint front) noexcept nogil
    cdef u32 bits_a_pixel(self) noexcept nogil
