from accel.aio cimport IoHandler, IoThread
from accel.api cimport i64, u8, u32, u64
from accel.dma cimport IoVec
from vmrun.backends.net.base cimport HostNet
from vmrun.backends.net.batch cimport WriteBatch
from vmrun.backends.protocols cimport NetHeader

cdef enum:
    ADDRESS = 128               # bytes of a socket address
    STREAM_OUT = 1 << 20        # bytes that wait for a slow peer; more blocks a card that can wait
    STREAM_MOST = 1 << 23       # of one that cannot; more is lost


cdef class FdHandler(IoHandler):
    cdef void *owner            # borrowed: a FdNet, which removes it before it goes


cdef class FdNet(HostNet):
    cdef readonly int fd
    cdef FdHandler handler
    cdef IoThread thread
    cdef u8 *incoming
    cdef readonly bint connected
    cdef bint paused
    cdef public object on_gone, on_close
    cdef public str info
    cdef public int port        # that a listener has; 0: none
    cdef readonly bint closed
    cdef i64 came               # ns when the last frames came
    cdef u32 patience(self) noexcept nogil
    cdef void wants(self) noexcept nogil
    cdef void ready(self, int fd, u32 events) noexcept nogil


cdef class PacketNet(FdNet):
    cdef u32 header_size        # of tap's vnet header; 0: none
    cdef u8 peer[ADDRESS]
    cdef u32 peer_size          # 0: the socket is connected, or a tap
    cdef u8 own[ADDRESS]        # a multicast member does not hear itself
    cdef u32 own_size
    cdef list more              # handlers of further queues
    cdef bint is_socket
    cdef readonly u32 queue_fds
    cdef WriteBatch batch       # of a tap's short frames within a burst; None: each is written by itself
    cdef bint collecting
    cdef void write_out(self) noexcept nogil


cdef class StreamNet(FdNet):
    cdef u8 *out
    cdef u64 out_filled, out_sent
    cdef u32 in_start, in_end   # of `incoming`: what has come and is not delivered
    cdef bint draining
    cdef bint collecting        # a burst: frames go out together
    cdef void flush(self) noexcept nogil
    cdef void gone(self) noexcept nogil
    cdef int drain(self) noexcept nogil
