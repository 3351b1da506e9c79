# All that a device may see of the machine around it, at C level. The documentation is in api.pyx.
from posix.types cimport off_t

ctypedef unsigned char u8
ctypedef unsigned short u16
ctypedef unsigned int u32
ctypedef unsigned long long u64
ctypedef signed char i8
ctypedef int i32
ctypedef long long i64

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass

# What a register write asks the machine to do once the device lock is dropped.
cpdef enum:
    ACTION_NONE = 0
    ACTION_RESET = 1
    ACTION_SHUTDOWN = 2
    ACTION_POWERDOWN = 4
    ACTION_SUSPEND = 8
    ACTION_PANIC = 16
    ACTION_EXIT = 32
    ACTION_INIT = 64
    ACTION_WAKEUP = 128
    ACTION_WATCHDOG = 256
    ACTION_IO_ERROR = 512


cdef class Notifier:
    cdef readonly int fd
    cdef void signal(self) noexcept nogil
    cdef void clear(self) noexcept nogil


cdef class DeviceLock:
    cdef pthread_mutex_t mutex
    cdef void acquire(self) noexcept nogil
    cdef void release(self) noexcept nogil


cdef class IoRegion:
    cdef public str name
    cdef public u32 min_access, max_access      # what the implementation takes; the dispatcher splits and widens
    cdef public u32 widest                      # a wider access finds nobody at all
    cdef public u64 accesses
    cdef u64 read(self, u64 offset, u32 size) noexcept nogil
    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil
    cdef u32 read_string(self, u64 offset, u32 size, u8 *data, u32 count) noexcept nogil
    cdef u32 write_string(self, u64 offset, u32 size, u8 *data, u32 count) noexcept nogil


cdef class PyIoRegion(IoRegion):
    cdef object on_read, on_write
    cdef u64 call_read(self, u64 offset, u32 size) noexcept with gil
    cdef u32 call_write(self, u64 offset, u32 size, u64 value) noexcept with gil


cdef class IrqSink:
    cdef void set_irq(self, u32 n, int level) noexcept nogil


cdef class PyIrqSink(IrqSink):
    cdef object callback
    cdef void call(self, u32 n, int level) noexcept with gil


cdef class IrqLine:
    cdef readonly IrqSink sink
    cdef readonly u32 n
    cdef readonly int level
    cdef void set(self, int level) noexcept nogil


cdef class IrqFan(IrqSink):
    cdef readonly str name
    cdef readonly u32 count
    cdef u32 *asserted
    cdef list targets
    cdef void **lines
    cdef u32 *line_start


cdef class ByteRing:
    cdef u8 *data
    cdef readonly u32 capacity
    cdef u32 head, tail
    cdef readonly Notifier notifier
    cdef u32 used(self) noexcept nogil
    cdef int push(self, u8 byte) noexcept nogil
    cdef int pop(self) noexcept nogil
