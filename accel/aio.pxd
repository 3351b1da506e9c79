# The I/O thread. The documentation is in aio.pyx.
from accel.api cimport DeviceLock, Notifier, i64, pthread_mutex_t, u32, u64
from accel.clock cimport TimerQueue
from accel.threads cimport pthread_cond_t

cpdef enum:
    IO_READ = 0x001             # poll's bits
    IO_WRITE = 0x004
    IO_ERROR = 0x008
    IO_HANGUP = 0x010
    IO_PEER_CLOSED = 0x2000

cdef enum:
    MOST_QUEUES = 8


cdef class IoHandler:
    cdef readonly int fd
    cdef readonly u32 events
    cdef readonly bint locked
    cdef readonly bint active
    cdef readonly IoThread thread
    cdef u32 slot
    cdef void ready(self, u32 events) noexcept nogil
    cdef void want(self, u32 events) noexcept nogil


cdef class PyIoHandler(IoHandler):
    cdef object callback
    cdef void call(self, u32 events) noexcept with gil


cdef class EventHandler(IoHandler):
    cdef readonly Notifier notifier
    cdef void kicked(self) noexcept nogil


cdef class Completion:
    cdef void *following
    cdef readonly bint posted
    cdef void complete(self) noexcept nogil


cdef class PyCompletion(Completion):
    cdef object callback
    cdef void call(self) noexcept with gil


ctypedef struct Slot:
    void *handler               # IoHandler, borrowed from IoThread.handlers; NULL: free
    u32 generation              # an event of an older one is stale
    u32 mask                    # as epoll has it; 0: not there


cdef class IoThread:
    cdef readonly DeviceLock lock
    cdef readonly str name
    cdef readonly u64 wakeups, errors
    cdef readonly bint running
    cdef readonly int tid                   # the host's number of the thread; 0 before it has begun
    cdef Notifier notifier
    cdef int watched, control               # epoll: everything; all but the handlers, while they are held
    cdef int steady, wall                   # timerfds: of clocks that run evenly, of the host's wall clock
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t changed
    cdef int held, parked, closing
    cdef unsigned long own
    cdef Slot *slots
    cdef u32 slot_count
    cdef list handlers
    cdef list retired                       # handlers that were removed from within a call
    cdef u64 retired_at
    cdef void *current                      # the unlocked handler being called
    cdef void *queues[MOST_QUEUES]
    cdef u32 queue_count
    cdef list queue_objects
    cdef i64 steady_armed, wall_armed
    cdef void *first
    cdef void *last
    cdef _watch(self, int fd, u64 tag)
    cdef _drop(self, IoHandler handler)
    cdef void main(self) noexcept nogil
    cdef void settle(self) noexcept nogil
    cdef void run_queues(self) noexcept nogil
    cdef void run_completions(self) noexcept nogil
    cdef void dispatch(self, u64 tag, u32 events) noexcept nogil
    cdef int update(self, void *handler) noexcept nogil
    cdef int take_slot(self, u32 n, void *handler) noexcept nogil
    cdef void post(self, Completion completion) noexcept nogil
    cdef void forget(self, Completion completion) noexcept nogil
