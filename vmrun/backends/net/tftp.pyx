"""What a TFTP server must remember, and libslirp's does not: which block was acknowledged last, and the one that followed.

To libslirp each acknowledgement means "the next block". A client that is told nothing for a while (a host with much to do) says the
last one again, gets two blocks for it, and is out of step for ever. So a repetition is not passed on: soon after the first
one the answer is on its way, later it is sent again (RFC 1350 2; RFC 1123 4.2.3.1).
"""

from libc.string cimport memcpy

cdef enum:
    PORT = 69
    FROM = 34                   # in a frame of IPv4 without options
    TO = 36
    CODE = 42
    BLOCK = 44
    SHORTEST = 46
    REQUEST = 1
    DATA = 3
    ACKNOWLEDGED = 4
    SOON = 500                  # ms; sooner the answer is on its way


cdef inline u32 be16(const u8 *data) noexcept nogil:
    return <u32>data[0] << 8 | data[1]


cdef bint is_datagram(const u8 *frame, u32 length) noexcept nogil:
    return length >= SHORTEST and frame[12] == 8 and frame[13] == 0 and frame[14] == 0x45 and frame[23] == 17


cdef class TftpMemory:
    """Of the last few clients."""

    cdef Session *session(self, u16 port, bint wanted) noexcept nogil:
        cdef u32 n
        for n in range(TFTP_SESSIONS):
            if self.sessions[n].port == port:
                return &self.sessions[n]
        if not wanted:
            return NULL
        n = self.oldest
        self.oldest = (n + 1) % TFTP_SESSIONS
        self.sessions[n].port = port
        return &self.sessions[n]

    cdef bint repeats(self, const u8 *frame, u32 length, i64 now, const u8 **again, u32 *size) noexcept nogil:
        """Whether a frame to the server acknowledges what the one before did; `again`: what is to be sent for it, or NULL."""
        cdef Session *one
        cdef u32 code
        again[0] = NULL
        if not is_datagram(frame, length) or be16(frame + TO) != PORT:
            return False
        code = be16(frame + CODE)
        one = self.session(<u16>be16(frame + FROM), code == REQUEST)
        if one == NULL:
            return False
        if code != ACKNOWLEDGED or not one.began or one.acknowledged != be16(frame + BLOCK):
            one.began, one.acknowledged, one.when = code == ACKNOWLEDGED, <u16>be16(frame + BLOCK), now
            one.length = 0
            return False
        if now - one.when >= SOON and one.length:
            one.when = now
            again[0], size[0] = one.frame, one.length
        return True

    cdef void sent(self, const u8 *frame, u32 length) noexcept nogil:
        """A frame from the server."""
        cdef Session *one
        if not is_datagram(frame, length) or be16(frame + FROM) != PORT or be16(frame + CODE) != DATA:
            return
        one = self.session(<u16>be16(frame + TO), False)
        if one != NULL and length <= sizeof(one.frame) and frame != one.frame:
            one.length = length
            memcpy(one.frame, frame, length)
