from accel.api cimport u8, u32, u64
from vmrun.devices.storage.mmc cimport Mmc

cpdef enum:
    CD_ANSWER = 65536           # bytes of the longest answer

# what becomes of a packet
cpdef enum:
    PACKET_DONE = 0             # over, without data
    PACKET_ANSWER = 1           # `length` bytes of `answer` go to the host
    PACKET_READ = 2             # `blocks` of the medium from `lba` on, each `raw` (CD_RAW) or CD_BLOCK bytes
    PACKET_LIST = 3             # the host gives `length` bytes, which change nothing
    PACKET_ERROR = 4            # the sense data says why


cdef class PacketUnit(Mmc):
    cdef u8 text[28]            # INQUIRY's vendor, product and revision
    cdef u8 names[128]          # page 83h of INQUIRY, `named` bytes
    cdef u32 named
    cdef u8 answer[CD_ANSWER]
    cdef readonly u32 length, blocks
    cdef readonly u64 lba
    cdef readonly bint raw
    cdef public u8 sense, asc, ascq
    cdef int packet(self, const u8 *cdb) noexcept nogil
    cdef int fail(self, u8 sense, u8 asc, u8 ascq) noexcept nogil
    cdef int give(self, u32 length, u32 room) noexcept nogil
    cdef int tell(self, int length, u32 room) noexcept nogil
    cdef int read(self, u64 lba, u64 blocks, bint raw) noexcept nogil
    cdef int inquiry(self, const u8 *cdb) noexcept nogil
    cdef int request_sense(self, const u8 *cdb) noexcept nogil
    cdef int mode_sense(self, const u8 *cdb) noexcept nogil
    cdef int mode_select(self, const u8 *cdb) noexcept nogil
    cdef int read_cd(self, const u8 *cdb) noexcept nogil


# What the channel calls; `unit` is a borrowed PacketUnit.
cdef int packet_run(void *unit, const u8 *cdb) noexcept nogil
cdef u32 packet_length(void *unit) noexcept nogil
cdef u8 *packet_answer(void *unit) noexcept nogil
cdef u64 packet_lba(void *unit) noexcept nogil
cdef u32 packet_blocks(void *unit) noexcept nogil
cdef bint packet_raw(void *unit) noexcept nogil
cdef u8 packet_sense(void *unit) noexcept nogil
cdef void packet_failed(void *unit, int error) noexcept nogil
cdef void packet_reset(void *unit) noexcept nogil
