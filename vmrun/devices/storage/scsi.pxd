from accel.api cimport DeviceLock, u8, u16, u32, u64
from accel.dma cimport Scatter
from vmrun.backends.protocols cimport BlockRequest

cdef enum:
    SCSI_CDB = 32               # bytes of the longest command that an adapter hands on
    SCSI_SENSE = 18
    SCSI_CHUNK = 131072         # bytes that are moved at a time for adapters that do not know where to beforehand
    SCSI_OWN = 65536            # bytes of the longest answer or parameter list

    # status, as SAM-3 has it
    GOOD = 0x00
    CHECK_CONDITION = 0x02
    TASK_BUSY = 0x08
    TASK_ABORTED = 0x40

    # directions
    SCSI_NOTHING = 0
    SCSI_TO_HOST = 1
    SCSI_FROM_HOST = 2

    # what scsi_begin, scsi_run and scsi_fetch return
    SCSI_LATER = 0              # `done` (or `ready`) will be called
    SCSI_OVER = 1               # `status` is valid; nothing will be called
    SCSI_DATA = 2               # data is to be moved: `direction`, `length`; with scsi_fetch `chunk` bytes at `data`
    SCSI_NOBODY = 3             # there is no such target

cdef struct ScsiRequest

ctypedef void (*scsi_told)(ScsiRequest *request) noexcept nogil

cdef struct ScsiRequest:
    # the adapter's to fill in
    void *owner
    void *context
    u64 tag
    u32 channel, target, lun
    u8 cdb[SCSI_CDB]
    bint autosense              # sense data goes with the status: what was reported is over
    scsi_told done              # status and sense are there
    scsi_told ready             # scsi_fetch has something to say
    # the answer
    int direction
    u64 expected                # bytes, as the command's length says
    u64 length                  # bytes that are moved
    u64 moved                   # bytes that have been
    u8 status
    u8 sense[SCSI_SENSE]
    u32 sense_length
    u8 *data
    u32 chunk
    # the unit's own
    void *units
    void *unit                  # NULL: the target answers for a unit that it does not have
    void *backend
    bint active, chunked
    u32 step_done               # for adapters that move piece by piece: of the chunk, what has been
    int kind, step
    u64 offset, span
    u32 flags
    u8 *own
    u64 own_size
    BlockRequest *io
    ScsiRequest *before         # of the units' commands under way
    ScsiRequest *next


ctypedef struct ScsiPlace:
    u32 channel, target, lun
    void *unit


cdef class ScsiUnits:
    cdef public DeviceLock lock     # that guards the units and all commands; None: the device lock
    cdef readonly list members      # keeps alive what `places` borrows
    cdef ScsiPlace *places
    cdef u32 count, room
    cdef ScsiRequest *first         # commands under way
    cdef public bint queueing       # tagged commands, as INQUIRY tells
    cdef u8 version[4]
    cdef public u8 attention_asc, attention_ascq     # a unit attention of the whole bus, 0 for none
    cdef void *find(self, u32 channel, u32 target, u32 lun, bint *there) noexcept nogil


cdef class ScsiUnit:
    cdef readonly u32 channel, target, lun
    cdef void *backend
    cdef public bint attention      # a unit attention is pending: asc and ascq
    cdef public u8 attention_asc, attention_ascq
    cdef public u8 sense_key, sense_asc, sense_ascq  # what REQUEST SENSE tells; key 0: nothing
    cdef public bint sense_is_attention
    # what a kind of unit overrides
    cdef int command(self, ScsiRequest *request) noexcept nogil
    cdef int listed(self, ScsiRequest *request) noexcept nogil
    cdef u32 block(self) noexcept nogil
    cdef void attention_reported(self) noexcept nogil
    cdef void reset_unit(self) noexcept nogil
    # what it calls
    cdef void attend(self, u8 asc, u8 ascq) noexcept nogil
    cdef int answer(self, ScsiRequest *request, u64 length) noexcept nogil
    cdef int take_list(self, ScsiRequest *request, u64 length) noexcept nogil
    cdef int transfer(self, ScsiRequest *request, bint write, u64 offset, u64 length, u32 flags) noexcept nogil
    cdef int flush(self, ScsiRequest *request) noexcept nogil


cdef void scsi_release(ScsiRequest *request) noexcept nogil
cdef int scsi_begin(void *units, ScsiRequest *request) noexcept nogil
cdef int scsi_run(ScsiRequest *request, Scatter scatter) noexcept nogil
cdef int scsi_fetch(ScsiRequest *request) noexcept nogil
cdef void scsi_cancel(ScsiRequest *request) noexcept nogil
cdef int scsi_good(ScsiRequest *request) noexcept nogil
cdef int scsi_fail(ScsiRequest *request, u8 key, u8 asc, u8 ascq) noexcept nogil
cdef u8 *scsi_own(ScsiRequest *request, u64 size) noexcept nogil
cdef int scsi_io(ScsiRequest *request, int op, u64 offset, u64 length, u32 flags) noexcept nogil
cdef void scsi_unit_reset(void *unit) noexcept nogil
