# Queues of an NVMe controller. The documentation is in nvme_queues.pyx.
from accel.aio cimport Completion, EventHandler, IoThread
from accel.api cimport IoRegion, IrqLine, pthread_mutex_t, u8, u16, u32, u64
from accel.dma cimport Dma
from accel.turns cimport Turn
from vmrun.backends.protocols cimport BlockRequest
from vmrun.bus.pci.msi cimport MsixChip
from vmrun.devices.storage.nvme_memory cimport NvmeMemory

cdef enum:
    QUEUES = 65                     # the admin queue, and 64 for I/O
    MOST_ENTRIES = 0x800
    PLACES = 1024                   # commands under way
    RANGES = 256
    DOORBELLS = 0x1000
    CSTS_READY = 1
    CSTS_FATAL = 2
    # status
    OK = 0
    DNR = 0x4000
    INVALID_OPCODE = 0x4001
    INVALID_FIELD = 0x4002
    TRANSFER_ERROR = 0x4004
    INTERNAL_ERROR = 0x4006
    INVALID_NSID = 0x400B
    SEQUENCE_ERROR = 0x400C
    INVALID_SGL_COUNT = 0x400D + 1
    SGL_LENGTH = 0x400F
    INVALID_CMB = 0x4012
    INVALID_PRP = 0x4013
    INVALID_SGL_TYPE = 0x4011
    LBA_RANGE = 0x4080
    INVALID_CQID = 0x4100
    INVALID_QID = 0x4101
    QUEUE_SIZE = 0x4102
    EVENT_LIMIT = 0x0105
    INVALID_VECTOR = 0x4108
    INVALID_FORMAT = 0x410A
    QUEUE_IN_USE = 0x010C
    NOT_SAVEABLE = 0x410D
    NOT_CHANGEABLE = 0x410E
    ALREADY_ATTACHED = 0x4118
    PRIVATE = 0x4119
    NOT_ATTACHED = 0x411A
    INVALID_LIST = 0x411C
    INVALID_CONTROLLER = 0x411F
    RESOURCE_COUNT = 0x4121
    INVALID_RESOURCE = 0x4122
    SIZE_LIMIT = 0x4183
    WRITE_FAULT = 0x0280
    READ_ERROR = 0x0281
    COMPARE_FAILED = 0x0285
    LATER = -1                      # no answer yet

ctypedef struct SubmissionQueue:
    bint used
    u64 addr
    u32 size, head, tail, completion

ctypedef struct CompletionQueue:
    bint used, interrupts, phase
    u64 addr
    u32 size, head, tail, vector

ctypedef struct Command:
    u8 opcode, flags
    u16 id
    u32 nsid, cdw2, cdw3
    u64 mptr, prp1, prp2
    u32 cdw10, cdw11, cdw12, cdw13, cdw14, cdw15

ctypedef struct Range:
    u32 attributes, blocks
    u64 first

ctypedef struct Place:
    BlockRequest *request
    void *space                     # NvmeSpace, borrowed from who knows it
    void *drive                     # of the request
    Place *next
    bint every                      # goes on with the next namespace
    u32 queue, step, count
    u16 id
    u8 opcode
    Range *ranges                   # of a trim or copy; of a compare, what the host has
    u64 to, done                    # of a copy: bytes where the next piece goes, of the range that are copied

ctypedef struct Side:               # what a completion queue and those that lead to it have besides what a guest sees
    void *lock                      # DeviceLock, borrowed from `locks`; NULL: the device lock
    void *scatter                   # Scatter, borrowed from `scatters`
    bint attended                   # whoever serves it just now has the device lock too
    bint serving                    # within serve(): whoever is over at once interrupts with all the others
    bint told                       # it has got answers that no interrupt told of
    u32 waiting                     # answers that it still gets
    Place *place                    # within serve(): for the next command that takes time
    u64 moved                       # bytes of the commands served just now


cdef class NvmeDoorbell(EventHandler):
    cdef void *chip                 # borrowed: the chip has us in `bells`
    cdef readonly u32 number        # twice the queue, and 1 for its completions


cdef class NvmeDebt(Completion):
    cdef void *chip


cdef class NvmeQueues(IoRegion):
    cdef readonly Dma dma
    cdef IrqLine intx
    cdef public MsixChip msix
    cdef public NvmeMemory memory    # of the controller itself; None: it has none
    cdef public SubmissionQueue submission[QUEUES]
    cdef public CompletionQueue completion[QUEUES]
    cdef Side side[QUEUES]          # by completion queue
    cdef int rest[QUEUES]           # submission queues that were left with commands in them
    cdef list locks, scatters
    cdef pthread_mutex_t pool       # of `free`, `short` and `in_flight`; innermost, with the MSI-X table's
    cdef Place *places
    cdef Place *free
    cdef bint short                 # somebody found no place
    cdef readonly u32 in_flight
    cdef readonly u32 queue_count
    cdef public u32 cc, csts, mask, raised
    cdef public u64 shadow, event_index
    cdef u64 owed                   # I/O completion queues, less one, whose interrupt waits for the device lock
    cdef bint moved_bells           # doorbells that need no exit are others now
    cdef readonly list bells        # an NvmeDoorbell each, where doorbells are served by a thread
    cdef void *bell_of[2 * QUEUES]
    cdef IoThread thread
    cdef Turn later
    cdef NvmeDebt debt
    cdef readonly bint own_locks
    cdef public object on_bells     # on_bells(offsets and notifiers of those that need no exit now)
    cdef readonly u64 rung          # doorbells that the thread served

    cdef u64 at(self, u64 address) noexcept nogil
    # what a controller overrides
    cdef int execute(self, u32 queue, Command *c) noexcept nogil
    cdef void over(self, Place *place) noexcept nogil
    cdef void event(self, u32 kind, u32 info, u32 page) noexcept nogil
    cdef void send_events(self) noexcept nogil
    # locks
    cdef void enter(self, u32 completion) noexcept nogil
    cdef void leave(self, u32 completion) noexcept nogil
    cdef void enter_all(self) noexcept nogil
    cdef void leave_all(self) noexcept nogil
    cdef bint has_thread(self) noexcept nogil
    # doorbells
    cdef void doorbell(self, u64 offset, u32 value) noexcept nogil
    cdef void ring(self, u32 number) noexcept nogil
    cdef void serve_rest(self) noexcept nogil
    cdef void head_moved(self, u32 queue) noexcept nogil
    cdef void hang_bells(self) noexcept nogil
    # queues
    cdef void serve(self, u32 queue) noexcept nogil
    cdef void serve_all(self, u32 completion) noexcept nogil
    cdef void serve_later(self, u32 queue) noexcept nogil
    cdef u32 room(self, u32 queue) noexcept nogil
    cdef void post(self, u32 queue, u16 id, u32 status, u32 result) noexcept nogil
    cdef u32 shadow_tail(self, u32 queue) noexcept nogil
    cdef void shadow_head(self, u32 queue) noexcept nogil
    # interrupts
    cdef void tell(self, u32 number) noexcept nogil
    cdef void owe(self, u32 number) noexcept nogil
    cdef void pay(self) noexcept nogil
    cdef void check_pin(self) noexcept nogil
    # commands under way
    cdef Place *take_place(self, u32 queue) noexcept nogil
    cdef void put_back(self, Place *place) noexcept nogil
    cdef void drop(self, u32 queue) noexcept nogil
    cdef void drop_all(self) noexcept nogil
    cdef void forget(self, Place *place) noexcept nogil
    cdef void drop_space(self, void *space) noexcept nogil
