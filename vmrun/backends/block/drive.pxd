from accel.api cimport DeviceLock, u8, u32, u64
from accel.errands cimport Errand
from accel.threads cimport pthread_cond_t, pthread_mutex_t
from vmrun.backends.block.engine cimport Transfer
from vmrun.backends.block.limits cimport LimitGroup
from vmrun.backends.block.node cimport Node
from vmrun.backends.block.pool cimport Job
from vmrun.backends.protocols cimport BlockBackend, BlockRequest

# what a failed transfer does: QEMU's rerror and werror
cpdef enum:
    ERROR_REPORT = 0
    ERROR_IGNORE = 1
    ERROR_STOP = 2
    ERROR_ENOSPC = 3                # stop when the host's disk is full, else report
    ERROR_OWN = 4                   # it is the business of whoever asked

cpdef enum:
    REQUEST_OWN = 256               # of a request's flags: no guest's, so that no policy is about its errors

cdef enum:
    OPS = 5
    HISTOGRAMS = 3                  # of the first operations: read, write, flush
    MOST_BINS = 65

cdef struct Histogram:
    u32 bins                        # 0: nothing is counted
    u64 boundaries[MOST_BINS]       # ns
    u64 counts[MOST_BINS]

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
    cdef u32 hold                   # of it, in which `at_once` bytes have been read
    cdef u64 at_once
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
    cdef readonly LimitGroup limits # of whoever shares them, None without
    cdef u32 hurried                # how many wait for all that is under way: nothing waits for limits
    cdef bint limited               # there are some: what is_brief() may look at without the mutex
    cdef Histogram histograms[HISTOGRAMS]
    cdef u64 counts[OPS]
    cdef u64 amounts[OPS]
    cdef u64 failures[OPS]
    cdef u64 times[OPS]
    cdef int perform_now(self, BlockRequest *request, u32 flags) noexcept nogil
    cdef bint is_brief(self, BlockRequest *request) noexcept nogil
    cdef bint is_much(self, BlockRequest *request) noexcept nogil
    cdef bint put_off(self, DriveRequest *request) noexcept nogil
    cdef void _wait(self)
    cdef void _wait_for_all(self) noexcept nogil
    cdef int perform(self, DriveRequest *request) noexcept nogil
    cdef void start(self, DriveRequest *request) noexcept nogil
    cdef void put(self, DriveRequest *request) noexcept nogil
    cdef bint begin(self, DriveRequest *request) noexcept nogil
    cdef void finish(self, DriveRequest *request, int error) noexcept nogil
    cdef void settle_one(self) noexcept nogil
    cdef void weigh_again(self, bint given_up) noexcept nogil
    cdef void weigh_one(self, DriveRequest *request) noexcept nogil
    cdef void count(self, DriveRequest *request) noexcept nogil
    cdef void let_go(self) noexcept nogil
    cdef int policy(self, int op, int error) noexcept nogil
    cdef void tell(self, int op, int error, int policy) noexcept with gil
