from accel.api cimport pthread_mutex_t, u8, u32, u64
from accel.dma cimport IoVec
from accel.turns cimport Turn
from vmrun.backends.net.offload cimport Cut
from vmrun.backends.protocols cimport NetBackend, NetFrontend, NetHeader

ctypedef struct Held:           # a frame that waits for the card; its bytes follow
    Held *next
    u32 length
    bint has_header
    NetHeader header

cdef enum:
    MOST_HELD = 1024            # frames that wait for a card
    MOST_HELD_BYTES = 1 << 21
    TURN = 128                  # segments of a large frame that are cut at one go


cdef u64 gather(IoVec *pieces, u32 count, u8 *out, u64 most) noexcept nogil     # the first bytes; how many


cdef class HostNet(NetBackend):
    cdef Held *first
    cdef Held *last
    cdef readonly u32 held_count
    cdef readonly u64 held_bytes
    cdef bint flushing, blocked, refused
    cdef u8 *scratch            # a whole frame, and one segment of it; made when they are needed
    cdef int capture_fd
    cdef u32 capture_most
    cdef readonly int capture_error
    cdef list taps              # filters, in order
    cdef bint filtered
    cdef Cut cut                # `cutting`: what is left of a frame, which lies in `large`
    cdef u8 *large
    cdef Cut incoming_cut       # `uncutting`: what is left of the frame that waits first for a card that does not take it whole
    cdef bint uncutting
    cdef u8 *segment            # of it, or a frame whose checksum is filled in
    cdef Turn rest
    cdef object thread
    # what a kind of back end overrides
    cdef void put(self, IoVec *pieces, u32 count, u64 total, const NetHeader *header) noexcept nogil
    cdef void resume_input(self) noexcept nogil
    # what it calls, with the device lock held
    cdef int deliver(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil
    cdef bint accepts(self) noexcept nogil
    cdef void unblock(self) noexcept nogil
    # within
    cdef int hand(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil
    cdef int offer(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil
    cdef int hold(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil
    cdef void forget(self) noexcept nogil
    cdef bint memory(self) noexcept nogil
    cdef bint segment_memory(self) noexcept nogil
    cdef bint uncut(self) noexcept nogil
    cdef void drop_first(self) noexcept nogil
    cdef void wait_first(self, const u8 *frame, u32 length) noexcept nogil
    cdef void finish_and_put(self, IoVec *pieces, u32 count, u64 total, const NetHeader *header) noexcept nogil
    cdef void go_on(self, u32 most) noexcept nogil
    cdef bint can_rest(self) noexcept with gil
    cdef void put_piece(self, u8 *frame, u32 length) noexcept nogil
    cdef void pass_on(self, IoVec *pieces, u32 count, u64 total, const NetHeader *header) noexcept nogil
    cdef void record(self, IoVec *pieces, u32 count, u64 total) noexcept nogil
    cdef bint filter(self, bint outgoing, IoVec *pieces, u32 count, u64 total) noexcept nogil


cdef class Wire(HostNet):
    cdef public Wire other


cdef class PyNet(HostNet):
    cdef object on_frame
    cdef void call(self, IoVec *pieces, u32 count, const NetHeader *header) noexcept with gil


cdef class PyCard(NetFrontend):
    cdef object on_receive, on_room, on_link, on_sent
    cdef int call_receive(self, const u8 *frame, u32 length, const NetHeader *header) noexcept with gil
    cdef bint call_room(self) noexcept with gil
    cdef void call_link(self, bint up) noexcept with gil
    cdef void call_sent(self) noexcept with gil
