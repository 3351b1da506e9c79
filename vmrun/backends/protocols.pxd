# All that a device may see of the host, at C level. The documentation is in protocols.pyx.
from accel.api cimport ByteRing, i64, pthread_mutex_t, u8, u16, u32, u64
from accel.dma cimport IoVec, Scatter

cpdef enum:
    BLOCK_READ = 0
    BLOCK_WRITE = 1
    BLOCK_FLUSH = 2
    BLOCK_DISCARD = 3
    BLOCK_ZERO = 4              # write zeroes: `length` bytes, no vectors

# BlockRequest.flags
cpdef enum:
    BLOCK_FUA = 1               # on stable storage when it is done
    BLOCK_UNMAP = 2             # BLOCK_ZERO may give the space back

cpdef enum:
    BLOCK_CANCELLED = 125       # ECANCELED, as BlockRequest.error
    BLOCK_NO_MEDIUM = 123       # ENOMEDIUM

cdef struct BlockRequest

ctypedef void (*block_done)(BlockRequest *request) noexcept nogil

cdef struct BlockRequest:
    int op                      # the device's to fill in: BLOCK_…
    u32 flags
    u64 offset                  # bytes
    u64 length                  # bytes; block_add() and block_buffer() sum it up for reads and writes
    IoVec *vectors              # filled by block_take(), block_add() or block_buffer()
    void **blocks               # the RamBlock that each pins, or NULL
    bint to_memory              # of pinned memory: it is written
    u32 count
    int error                   # the answer: 0 or an errno
    bint in_flight
    void *owner                 # the device's own
    u64 tag
    void *lock                  # the DeviceLock that done() is called with; the drive's when NULL
    block_done done
    # the back end's own
    u32 room
    u8 *own                     # memory of the request's, for block_buffer()
    u64 own_size
    bint abandoned
    BlockRequest *next

cpdef enum:
    CHAR_EVENT_CLOSED = 0       # the other side went away
    CHAR_EVENT_OPENED = 1
    CHAR_EVENT_BREAK = 2        # the line was held low
    CHAR_EVENT_DRAINED = 3      # `output` has room again


cdef class BlockBackend:
    cdef public str name
    cdef readonly u64 size
    cdef readonly bint readonly
    cdef public object serial
    cdef public bint cdrom      # `media: cdrom`: what goes in and out is a disc
    cdef u32 settling           # requests given up by their device that are not over yet
    cdef u64 request_size
    cdef BlockRequest *spare
    cdef u32 spares
    cdef pthread_mutex_t spare_mutex
    cdef BlockRequest *request(self, void *owner, block_done done) noexcept nogil
    cdef void release(self, BlockRequest *request) noexcept nogil
    cdef void recycle(self, BlockRequest *request) noexcept nogil
    cdef int submit(self, BlockRequest *request) noexcept nogil
    cdef void abandon(self, BlockRequest *request) noexcept nogil


# What a device calls; `backend` is a borrowed BlockBackend, NULL: there is none. The documentation is in protocols.pyx.
cdef BlockRequest *block_request(void *backend, void *owner, block_done done) noexcept nogil
cdef int block_take(BlockRequest *request, Scatter scatter) noexcept nogil
cdef int block_add(BlockRequest *request, void *base, u64 length) noexcept nogil
cdef u8 *block_buffer(BlockRequest *request, u64 length) noexcept nogil
cdef int block_submit(void *backend, BlockRequest *request) noexcept nogil
cdef void block_release(void *backend, BlockRequest *request) noexcept nogil
cdef bint block_settling(void *backend) noexcept nogil


cdef class CharFrontend:
    cdef u32 can_receive(self) noexcept nogil
    cdef void receive(self, const u8 *data, u32 count) noexcept nogil
    cdef void event(self, int what) noexcept nogil


cdef class CharBackend:
    cdef public str name
    cdef readonly ByteRing output
    cdef public CharFrontend frontend
    cdef int put(self, u8 byte) noexcept nogil
    cdef void input_room(self) noexcept nogil


# What of a frame is left to do for whoever takes it: virtio's header, in the host's byte order.
cdef struct NetHeader:
    u8 flags                    # NET_NEEDS_CSUM, NET_DATA_VALID
    u8 gso                      # NET_GSO_…
    u16 header_length           # bytes before the payload that is cut into segments; a hint
    u16 segment_size            # bytes of payload in each
    u16 csum_start              # checksum everything from here on …
    u16 csum_offset             # … into two bytes at csum_start + csum_offset

cpdef enum:
    NET_NEEDS_CSUM = 1
    NET_DATA_VALID = 2
    NET_GSO_NONE = 0
    NET_GSO_TCP4 = 1
    NET_GSO_UDP = 3
    NET_GSO_TCP6 = 4
    NET_GSO_ECN = 0x80          # with one of TCP's

# What headers may ask of somebody.
cpdef enum:
    NET_CAN_CSUM = 1
    NET_CAN_TSO4 = 2
    NET_CAN_TSO6 = 4
    NET_CAN_ECN = 8
    NET_CAN_UFO = 16

cpdef enum:
    NET_MOST_FRAME = 65536 + 14 + 8     # bytes of the longest frame, segmentation left to do included


cdef class NetFrontend:
    cdef public u32 takes       # NET_CAN_…: 0 when it takes finished frames only
    cdef public bint waits      # it keeps a frame that net_send() refuses until `sent`; else such a frame would be lost
    cdef bint can_receive(self) noexcept nogil
    cdef int receive(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil
    cdef void link_changed(self, bint up) noexcept nogil
    cdef void sent(self) noexcept nogil


cdef class NetBackend:
    cdef public str name, kind
    cdef readonly NetFrontend frontend
    cdef readonly bint link, running
    cdef readonly bint cutting  # a frame of very many segments is still on its way: the next one has to wait
    cdef readonly u32 can       # NET_CAN_…: what it does itself, without work of vmrun's
    cdef readonly u64 frames_sent, bytes_sent, frames_received, bytes_received, dropped
    cdef int send(self, IoVec *pieces, u32 count, const NetHeader *header) noexcept nogil
    cdef void room(self) noexcept nogil
    cdef void burst(self, bint begins) noexcept nogil


# What a device calls; `backend` is a borrowed NetBackend, NULL: the cable leads nowhere.
cdef int net_send(void *backend, IoVec *pieces, u32 count, const NetHeader *header) noexcept nogil
cdef int net_send_frame(void *backend, const u8 *frame, u32 length) noexcept nogil
cdef void net_room(void *backend) noexcept nogil
cdef void net_burst(void *backend, bint begins) noexcept nogil
cdef u64 net_sent(void *backend) noexcept nogil
cdef bint net_cutting(void *backend) noexcept nogil
