from accel.api cimport u8, u16, u32, u64
from vmrun.backends.protocols cimport BlockBackend

cpdef enum:
    CD_BLOCK = 2048             # bytes of a data block
    CD_RAW = 2352               # and of the whole sector

# what an answer is instead of its length
cpdef enum:
    MMC_FIELD = -1              # invalid field in the CDB
    MMC_NO_MEDIUM = -2
    MMC_FORMAT = -3             # not with this medium
    MMC_PREVENTED = -4          # the door is held

cdef enum:
    MMC_SPAN_NOTHING = 0        # of READ CD: no field is wanted
    MMC_SPAN_DATA = 1
    MMC_SPAN_RAW = 2


cdef inline u32 be16(const u8 *p) noexcept nogil:
    return <u32>p[0] << 8 | p[1]


cdef inline u32 be32(const u8 *p) noexcept nogil:
    return <u32>p[0] << 24 | <u32>p[1] << 16 | <u32>p[2] << 8 | p[3]


cdef inline u64 be64(const u8 *p) noexcept nogil:
    return <u64>be32(p) << 32 | be32(p + 4)


cdef inline void put16(u8 *p, u32 value) noexcept nogil:
    p[0], p[1] = <u8>(value >> 8), <u8>value


cdef inline void put32(u8 *p, u32 value) noexcept nogil:
    p[0], p[1], p[2], p[3] = <u8>(value >> 24), <u8>(value >> 16), <u8>(value >> 8), <u8>value


cdef inline void put64(u8 *p, u64 value) noexcept nogil:
    put32(p, <u32>(value >> 32))
    put32(p + 4, <u32>value)


cdef void sector_of(u8 *sector, const u8 *data, u64 lba) noexcept nogil


cdef class Mmc:
    cdef readonly BlockBackend backend
    cdef public bint locked, tray_open, changed, event_new, event_eject
    cdef public object on_tray  # called with whether it is open, when the guest has moved it; the device lock is held
    cdef u64 total(self) noexcept nogil
    cdef int toc(self, u32 form, bint msf, u32 start, u8 *out) noexcept nogil
    cdef int configuration(self, const u8 *cdb, bint all, u8 *out) noexcept nogil
    cdef int event_status(self, const u8 *cdb, u8 *out) noexcept nogil
    cdef int mechanism_status(self, u8 *out) noexcept nogil
    cdef int disc_information(self, const u8 *cdb, u8 *out) noexcept nogil
    cdef int track_information(self, const u8 *cdb, u8 *out) noexcept nogil
    cdef int dvd_structure(self, const u8 *cdb, u8 *out) noexcept nogil
    cdef int subchannel(self, u8 *out) noexcept nogil
    cdef int start_stop(self, const u8 *cdb) noexcept nogil
    cdef int span(self, const u8 *cdb, u64 *lba, u64 *blocks) noexcept nogil
