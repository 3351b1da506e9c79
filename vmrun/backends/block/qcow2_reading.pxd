from accel.api cimport u8, u32, u64
from vmrun.backends.block.node cimport Cursor
from vmrun.backends.block.qcow2_tables cimport Qcow2Tables


cdef class Qcow2Reader(Qcow2Tables):
    cdef int inner_read(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil
    cdef int read_backing(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil
    cdef int read_compressed(self, u64 entry, u64 within, u64 bytes, Cursor *to, u32 flags) noexcept nogil
    cdef int inflate(self, u64 entry, u8 *into) noexcept nogil
