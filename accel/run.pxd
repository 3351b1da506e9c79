from accel.api cimport (ACTION_EXIT, ACTION_INIT, ACTION_PANIC, ACTION_RESET, ACTION_SHUTDOWN, ACTION_SUSPEND,
                        Notifier, pthread_mutex_t, u32, u64)
from accel.threads cimport pthread_cond_t

cpdef enum:
    REQUEST_FAILED = 1 << 30        # a processor gave up; RunControl.take_reports() says why
    REQUEST_DEBUG = 1 << 29         # one stopped for a debugger; Accelerator.debug_stops() says where

# After one of these the processor that asked stays out until it is answered.
cdef enum:
    STOPPING = (ACTION_RESET | ACTION_SHUTDOWN | ACTION_SUSPEND | ACTION_PANIC | ACTION_EXIT | ACTION_INIT
                | REQUEST_FAILED | REQUEST_DEBUG)
    QUEUE = 1024                    # requests; the same one twice is in it once


cdef struct Request:
    u32 actions
    int cpu                         # who asked; -1: no processor
    u32 cause                       # a number of whoever asked; 0 for processors


cdef class IntAck:
    cdef int acknowledge(self) noexcept nogil


cdef class PyIntAck(IntAck):
    cdef object callback
    cdef int call(self) noexcept with gil


cdef class MsiSink:
    cdef readonly bint anywhere     # send() needs no device lock
    cdef int send(self, u64 addr, u32 data) noexcept nogil


cdef class RunControl:
    cdef readonly Notifier notifier
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t resumed, outside
    cdef Request queue[QUEUE]       # oldest first; belongs to the mutex
    cdef Request taken[QUEUE]       # the main thread's
    cdef u32 queued
    cdef int going, quitting, inhibited
    cdef u32 parked, expected
    cdef readonly list cpus
    cdef list reports
    cdef void *current
    cdef u64 get_register(self, u32 n) noexcept nogil
    cdef void set_register(self, u32 n, u64 value) noexcept nogil
    cdef void request(self, CpuThread cpu, u32 actions) noexcept nogil
    cdef void enqueue(self, int cpu, u32 actions, u32 cause) noexcept nogil
    cdef int wait_resumed(self, CpuThread cpu) noexcept nogil
    cdef void halt(self, CpuThread cpu) noexcept nogil
    cdef void wake(self, CpuThread cpu) noexcept nogil
    cdef void enter_guest(self, CpuThread cpu) noexcept nogil
    cdef void leave_guest(self, CpuThread cpu) noexcept nogil
    cdef bint must_leave(self, CpuThread cpu) noexcept nogil


cdef class CpuThread:
    cdef readonly u32 index
    cdef readonly RunControl control
    cdef readonly bint created
    cdef readonly bint alive
    cdef readonly object failure
    cdef int held, inside, woken, halting
    cdef public int frozen          # a debugger keeps it where it is, whatever the others do; set while stopped
    cdef int tid
    cdef void kick(self) noexcept nogil
    cdef u64 read_register(self, u32 n) noexcept nogil
    cdef void write_register(self, u32 n, u64 value) noexcept nogil
    cdef void run(self) noexcept nogil
    cdef void _ended(self) noexcept nogil
