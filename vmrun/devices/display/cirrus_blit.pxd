from accel.api cimport i32, u8, u32, u64
from accel.errands cimport Errand
from vmrun.devices.display.vga cimport Vga


cdef enum:
    SR_MODE = 0x07

    GR_SKIP = 0x2F
    GR_BLT_START = 0x31
    GR_KEY = 0x34

    AUTOSTART = 0x80            # GR31
    LONGEST = 8192              # bytes of a line that the blitter can take


cdef class CirrusBlitter(Vga):
    cdef readonly u64 memory            # bytes that the chip addresses: 4 MiB, 2 MiB of the ISA chip
    cdef u32 mask
    cdef readonly bint blitter
    cdef public u8 hidden_dac
    cdef public u8 shadow0, shadow1     # GR00 and GR01 with all their bits
    # as GR20 to GR33 said when it started
    cdef public u32 width, height, destination, source, foreground, background
    cdef public i32 destination_pitch, source_pitch
    cdef public u8 mode, extension, operation, pixel
    cdef public u32 expected            # bytes still to come from the processor
    cdef public u32 filled, wanted      # of the line that is coming: bytes here, bytes needed
    cdef u8 buffer[8192]
    cdef u8 line[8192 + 8]
    cdef u32 to, start, row             # of the next line; row: of a pattern
    cdef readonly u32 left              # lines that its processor still has to draw, without the device lock in between
    cdef Errand errand
    cdef bint away                      # a thread has the errand
    cdef void *lock                     # borrowed: an ErrandLock, or NULL
    cdef void access(self) noexcept nogil
    cdef bint fed(self) noexcept nogil
    cdef void feed(self, u8 value) noexcept nogil
    cdef void blit_control(self, u8 value) noexcept nogil
    cdef void blit_start(self) noexcept nogil
    cdef bint blit_run(self) noexcept nogil
    cdef void blit_end(self) noexcept nogil
    cdef bint blit_from_processor(self) noexcept nogil
    cdef void blit_line(self) noexcept nogil
    cdef bint lines(self) noexcept nogil
    cdef bint turn(self) noexcept nogil
    cdef bint another_turn(self) noexcept nogil
    cdef u32 pattern_size(self) noexcept nogil
    cdef bint outside(self, i32 pitch, u32 address) noexcept nogil
    cdef void operate(self, u32 height) noexcept nogil
    cdef void copy(self, u32 height) noexcept nogil
    cdef void copy_seen_through(self, u32 height) noexcept nogil
    cdef void expand(self, u32 height) noexcept nogil
    cdef void pattern(self, u32 height) noexcept nogil
    cdef void put_line(self, u32 to, u32 count) noexcept nogil
    cdef u8 fetch(self, u32 address) noexcept nogil
    cdef u32 colour(self, bint front) noexcept nogil
    cdef u32 bits_a_pixel(self) noexcept nogil
