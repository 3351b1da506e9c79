from accel.api cimport i64, u8, u16, u32

cdef enum:
    TFTP_SESSIONS = 4

ctypedef struct Session:
    u16 port                    # the client's; 0: none
    u16 acknowledged            # the last block
    bint began                  # … if there was one
    i64 when                    # ms when that was answered
    u32 length
    u8 frame[1518]              # the block behind it, as it was sent


cdef class TftpMemory:
    cdef Session sessions[TFTP_SESSIONS]
    cdef u32 oldest
    cdef Session *session(self, u16 port, bint wanted) noexcept nogil
    cdef bint repeats(self, const u8 *frame, u32 length, i64 now, const u8 **again, u32 *size) noexcept nogil
    cdef void sent(self, const u8 *frame, u32 length) noexcept nogil
