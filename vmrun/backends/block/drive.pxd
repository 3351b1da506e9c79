from accel.api cimport DeviceLock, u8, u32, u64
from accel.errands cimport Errand
from accel.threads cimport pthread_cond_t, pthread_mutex_t
from vmrun.backends.block.engine cimport Transfer
from vmrun.backends.block.node cimport Node
from vmrun.backends.block.pool cimport Job
from vmrun.backends.protocols cimport BlockBackend, BlockRequest

# what a failed transfer does: QEMU's rerror and werror
cpdef enum:
    ERROR_REPORT = 0
    ERROR_IGNORE = 1
    ERROR_STOP = 2
    ERROR_ENOSPC = 3                # stop when the host's disk is full, else report

cdef enum:
    OPS = 5
    LIMITS = 6                      # bytes and requests per second: all, reads, writes

cdef struct DriveRequest:
    BlockRequest base               # first: a DriveRequest is a BlockRequest
    Job job
    Errand errand
    Transfer transfer
    void *drive
    int state                       # HELD, QUEUED, RUNNING, PARKED
    DriveRequest *after
    u64 since


cdef class Drive(BlockBackend):
    cdef readonly Node node
    cdef Node top                   # what requests go to: the node, or what watches it (tap.pyx)
    cdef readonly DeviceLock lock
    cdef void *errands              # the same, when it is an ErrandLock
    cdef public bint write_cache    # off: every write is on stable storage when it is over
    cdef public bint ignore_flush, discards
    cdef public int detect_zeroes   # 0 off, 1 on, 2 unmap
    cdef public int on_read_error, on_write_error
    cdef public object on_error     # called from a worker: (drive, op, errno, policy done: ERROR_REPORT, _IGNORE, _STOP)
    cdef public dict options
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t settled
    cdef u32 running                # held, queued or under way
    cdef u32 busy                   # of those, what the workers have
    cdef u32 inside                 # callers that read by themselves just now
    cdef u32 quiet                  # how many want nothing to be under way
    cdef DriveRequest *held         # they wait for the settling ones
    cdef DriveRequest *parked       # they failed, and the machine stopped for it
    cdef readonly bint closing
    cdef bint limited
    cdef double rates[LIMITS]       # units per second; 0: no limit
    cdef double bursts[LIMITS]      # units that may come at once
    cdef u64 free_at[LIMITS]        # when what has passed so far is paid for
    cdef u64 request_unit           # bytes that count as one request; 0: each is one
    cdef dict given_limits
    cdef u64 counts[OPS]
    cdef u64 amounts[OPS]
    cdef u64 failures[OPS]
    cdef u64 times[OPS]
    cdef int perform_now(self, BlockRequest *request, u32 flags) noexcept nogil
    cdef bint is_brief(self, BlockRequest *request) noexcept nogil
    cdef bint put_off(self, DriveRequest *request) noexcept nogil
    cdef void _wait(self)
    cdef int perform(self, DriveRequest *request) noexcept nogil
    cdef void start(self, DriveRequest *request) noexcept nogil
    cdef void put(self, DriveRequest *request) noexcept nogil
    cdef bint begin(self, DriveRequest *request) noexcept nogil
    cdef void finish(self, DriveRequest *request, int error) noexcept nogil
    cdef void settle_one(self) noexcept nogil
    cdef void let_go(self) noexcept nogil
    cdef int policy(self, int op, int error) noexcept nogil
    cdef void tell(self, int op, int error, int policy) noexcept with gil
