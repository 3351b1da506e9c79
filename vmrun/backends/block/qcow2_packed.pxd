from accel.api cimport u8, u64

cdef u64 pack_cluster(bint zstd, const u8 *data, u64 size, u8 *packed) noexcept nogil
cdef int unpack_cluster(bint zstd, const u8 *packed, u64 length, u8 *into, u64 size) noexcept nogil
