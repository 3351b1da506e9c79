from accel.api cimport u8, u32, u64

cdef enum:
    PAGE_BITS = 12
    PAGE_SIZE = 4096
    MOST_LOGS = 8
    # what `code` says of a page
    CODE_NONE = 0
    CODE_CACHED = 1                  # a processor keeps decoded instructions of it
    CODE_WRITTEN = 2                 # ... and somebody else has written there since


cdef class RamBlock:
    cdef readonly str name
    cdef readonly u64 size
    cdef u8 *host
    cdef u8 *code                    # a byte a page, CODE_…; NULL while no processor decodes
    cdef u64 code_writes             # how often a page became CODE_WRITTEN
    cdef u8 *logs[MOST_LOGS]         # a byte a page: 1 where written; memory of a slot once used stays
    cdef u32 logging                 # the slots in use, a bit each
    cdef int pin_count
    cdef void mark_dirty(self, u64 offset, u64 size) noexcept nogil
    cdef int watch_code(self) noexcept nogil
    cdef void pin(self) noexcept nogil
    cdef void unpin(self) noexcept nogil


cdef class DirtyLog:
    cdef readonly RamBlock block
    cdef object accelerator
    cdef u8 *pages
    cdef int slot
    cdef u64 next_run(self, u64 *offset, u64 end) noexcept nogil
    cdef bint any(self, u64 offset, u64 size) noexcept nogil
