from accel.api cimport u8, u16, u32, u64
from accel.dma cimport Scatter
from vmrun.bus.virtio.device cimport VirtioChip
from vmrun.bus.virtio.ring cimport Chain, Desc, VirtQueue
from vmrun.devices.storage.scsi cimport ScsiRequest, ScsiUnits

cdef enum:
    ANSWER = 30                 # bytes of a response that are ever written: its head and the sense data

ctypedef struct Command:        # one that a unit has
    ScsiRequest scsi            # first: a Command is a ScsiRequest
    Chain chain
    u32 queue
    u32 pieces
    Desc answer[ANSWER]         # where the response goes
    u32 room                    # for sense data
    u64 given                   # bytes for a command's data, 0: it has none
    Task *task                  # whoever wants it ended
    u8 response                 # that it then gets
    bint used
    Command *next

ctypedef struct Task:           # a management request that waits for commands to end
    Chain chain
    u64 answer                  # address of its response byte
    u32 waiting
    u8 response
    Task *next


cdef class ScsiChip(VirtioChip):
    cdef public ScsiUnits units
    cdef void *units_of         # borrowed
    cdef Scatter scatter
    cdef Command *commands
    cdef Command *free
    cdef Task *tasks
    cdef Task *free_task
    cdef u32 places, task_places
    cdef public bint missed     # an event found no buffer
    cdef public bint tells_units, tells_changes
    cdef readonly u32 in_flight
    cdef u32 sense_size(self) noexcept nogil
    cdef u32 cdb_size(self) noexcept nogil
    cdef bint address(self, const u8 *lun, u32 *target, u32 *unit) noexcept nogil
    cdef void respond(self, VirtQueue queue, Command *command, u8 response) noexcept nogil
    cdef void done(self, VirtQueue queue, Command *command) noexcept nogil
    cdef void serve_control(self, VirtQueue queue) noexcept nogil
    cdef int manage(self, VirtQueue queue, Chain *chain) noexcept nogil
    cdef int end_commands(self, VirtQueue queue, Chain *chain, u32 subtype, u32 target, u32 unit, u64 tag) noexcept nogil
    cdef void task_over(self, VirtQueue queue, Task *task) noexcept nogil
    cdef void event(self, VirtQueue queue, u32 what, const u8 *lun, u32 reason) noexcept nogil
    cdef void give_up(self, Command *command) noexcept nogil
