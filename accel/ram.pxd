from accel.api cimport u8, u64


cdef class RamBlock:
    cdef readonly str name
    cdef readonly u64 size
    cdef u8 *host
    cdef u8 *dirty                   # a byte a 4 KiB page, or NULL while nobody logs
    cdef u8 *code                    # a byte a page: 1 where a processor keeps decoded instructions; 2 written since
    cdef u64 code_writes             # how often a page became 2
    cdef readonly object views
    cdef void mark_dirty(self, u64 offset, u64 size) noexcept nogil
    cdef int watch_code(self) noexcept nogil
