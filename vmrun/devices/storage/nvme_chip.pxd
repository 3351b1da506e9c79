from accel.api cimport IoRegion, IrqLine, u8, u16, u32, u64
from accel.aio cimport EventHandler
from accel.dma cimport Dma, Scatter
from vmrun.backends.protocols cimport BlockRequest
from vmrun.bus.pci.msi cimport MsixChip

cdef enum:
    QUEUES = 65                     # the admin queue, and 64 for I/O
    PLACES = 1024                   # commands under way
    RANGES = 256
    EVENTS = 8
    AER_MOST = 4

ctypedef struct Submission:
    bint used
    u64 addr
    u32 size, head, tail, completion

ctypedef struct Completion:
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
    Place *next
    u32 queue, step, count
    u16 id
    u8 opcode
    Range *ranges                   # of a trim; of a compare, what the host has


cdef class NvmeDoorbell(EventHandler):
    cdef void *chip                 # borrowed: the chip has us in `bells`
    cdef readonly u32 number        # twice the queue, and 1 for its completions


cdef class NvmeChip(IoRegion):
    cdef readonly Dma dma
    cdef readonly object backend
    cdef void *drive
    cdef Scatter scatter
    cdef IrqLine intx
    cdef public MsixChip msix
    cdef public Submission submission[QUEUES]
    cdef public Completion completion[QUEUES]
    cdef u32 waiting[QUEUES]        # completions that a queue still gets
    cdef bint told[QUEUES]          # ... and whether it has got some that no interrupt told of
    cdef Place *places
    cdef Place *free
    cdef readonly u32 in_flight
    cdef bytes controller
    cdef u8 *controller_data
    cdef readonly u32 queue_count, vectors, mdts, block_shift, own_shift
    cdef readonly u64 size
    cdef bint serving               # within serve(): whoever is over at once interrupts with all the others
    cdef public u32 cc, csts, aqa, mask, raised
    cdef public u64 asq, acq, shadow, event_index
    cdef public u32 hot, cold, event_config, cache, event_count, waiting_events, masked_events
    cdef public u64 timestamp
    cdef u16 event_ids[AER_MOST]
    cdef u32 event_list[EVENTS]
    cdef readonly list bells        # an NvmeDoorbell each, where doorbells are served by a thread
    cdef object thread
    cdef public object on_bells     # on_bells(offsets and notifiers of those that need no exit now)
    cdef readonly u64 rung          # doorbells that the thread served
    cdef public u64 reads, writes, blocks_read, blocks_written

    cdef u64 page(self) noexcept nogil
    cdef u64 blocks(self) noexcept nogil
    cdef void write_cc(self, u32 value) noexcept nogil
    cdef bint begin(self, u32 value) noexcept nogil
    cdef void stop(self) noexcept nogil
    cdef void doorbell(self, u64 offset, u32 value) noexcept nogil
    cdef void ring(self, u32 number) noexcept nogil
    cdef void head_moved(self, u32 queue) noexcept nogil
    cdef void hang_bells(self) noexcept nogil
    cdef void serve(self, u32 queue) noexcept nogil
    cdef void serve_all(self, u32 completion) noexcept nogil
    cdef u32 room(self, u32 queue) noexcept nogil
    cdef int execute(self, u32 queue, Command *c) noexcept nogil
    cdef int admin(self, Command *c, u32 *result) noexcept nogil
    cdef int io(self, u32 queue, Command *c) noexcept nogil
    cdef int start(self, u32 queue, Command *c, int op, u64 offset, u64 length, u32 flags, bint data) noexcept nogil
    cdef int trim(self, u32 queue, Command *c) noexcept nogil
    cdef int compare(self, u32 queue, Command *c, u64 offset, u64 length) noexcept nogil
    cdef int gather(self, Command *c, u64 length, bint to_memory) noexcept nogil
    cdef int gather_list(self, Command *c, u64 length) noexcept nogil
    cdef int give(self, Command *c, const u8 *data, u64 length) noexcept nogil
    cdef void post(self, u32 queue, u16 id, u32 status, u32 result) noexcept nogil
    cdef void tell(self, u32 number) noexcept nogil
    cdef void check_pin(self) noexcept nogil
    cdef void over(self, Place *place) noexcept nogil
    cdef bint next_range(self, Place *place) noexcept nogil
    cdef void put_back(self, Place *place) noexcept nogil
    cdef void drop(self, u32 queue) noexcept nogil
    cdef int create_completion(self, Command *c) noexcept nogil
    cdef int create_submission(self, Command *c) noexcept nogil
    cdef int delete_queue(self, Command *c) noexcept nogil
    cdef int identify(self, Command *c) noexcept nogil
    cdef int log_page(self, Command *c) noexcept nogil
    cdef int get_feature(self, Command *c, u32 *result) noexcept nogil
    cdef int set_feature(self, Command *c, u32 *result) noexcept nogil
    cdef void event(self, u32 kind, u32 info, u32 page) noexcept nogil
    cdef void send_events(self) noexcept nogil
    cdef u32 shadow_tail(self, u32 queue) noexcept nogil
    cdef void shadow_head(self, u32 queue) noexcept nogil
