"""virtio-scsi's chip: commands of the guest's driver go to the units of a SCSI bus, any number in flight.

Ref: Virtual I/O Device (VIRTIO) 1.1, 5.6.

Queue 0 takes task management, queue 1 gives events, the others take commands. A command that is to be aborted ends when the
drive has let go of its memory, and only then is the management request answered: a guest may use that memory again.
What is out of protocol (a request or its room for a response cut short) breaks the device until its reset; what is only
wrong (no such unit, too little room for data) gets its response.

Locks: the device lock is held, or one for all queues, the units' (commands of any queue go to any unit); the drive's
completions take the same.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from vmrun.devices.storage.scsi cimport (
    CHECK_CONDITION, SCSI_CDB, SCSI_DATA, SCSI_FROM_HOST, SCSI_LATER, SCSI_NOBODY, SCSI_OVER, SCSI_TO_HOST, TASK_ABORTED,
    scsi_begin, scsi_cancel, scsi_release, scsi_run, scsi_unit_reset,
)

from accel.dma import Scatter as _Scatter
from accel.errands import spare_lock

from vmrun.core.state import Flag, Part

cdef enum:
    CONTROL = 0
    EVENTS = 1
    COMMANDS = 2                # the first of them
    HEAD = 19                   # of a request: unit, tag, attributes; the command follows
    RESPONSE = 12               # of a response: sense length, residual, qualifier, status, response
    SENSE_OFFSET = 20           # in the configuration
    CDB_OFFSET = 24
    SENSE_DEFAULT = 96
    CDB_DEFAULT = 32
    MOST_PIECES = 1026
    # responses
    S_OK = 0
    S_OVERRUN = 1
    S_ABORTED = 2
    S_BAD_TARGET = 3
    S_RESET = 4
    S_FAILURE = 9
    S_FUNCTION_SUCCEEDED = 10
    S_FUNCTION_REJECTED = 11
    S_INCORRECT_LUN = 12
    # control requests
    T_TMF = 0
    T_AN_QUERY = 1
    T_AN_SUBSCRIBE = 2
    TMF_SIZE = 24
    AN_SIZE = 16
    ABORT_TASK = 0
    ABORT_TASK_SET = 1
    CLEAR_ACA = 2
    CLEAR_TASK_SET = 3
    I_T_NEXUS_RESET = 4
    LOGICAL_UNIT_RESET = 5
    QUERY_TASK = 6
    QUERY_TASK_SET = 7
    # events
    E_NOTHING = 0
    E_TRANSPORT_RESET = 1
    E_PARAMETERS = 3
    REASON_RESCAN = 1
    REASON_REMOVED = 2

cdef u32 E_MISSED = 0x80000000


cdef void unit_done(ScsiRequest *request) noexcept nogil:
    cdef Command *command = <Command *>request
    (<ScsiChip>request.owner).done(<VirtQueue>(<ScsiChip>request.owner).queue_of[command.queue], command)


cdef class ScsiChip(VirtioChip):
    """`units`: those of the bus. `sizes`: entries of the control, event and command queues."""

    state = VirtioChip.state.extend("virtio-scsi", 1, Flag("missed"), Part("units"))
    save, load_state = state.methods()[1:]

    def __init__(self, dma, sizes, ScsiUnits units):
        cdef u32 n
        super().__init__(dma, sizes)
        self.units = units
        self.units_of = <void *>units
        self.scatter = _Scatter(dma, MOST_PIECES)
        self.places, self.task_places = sum(sizes[COMMANDS:]), sizes[CONTROL]
        self.commands = <Command *>calloc(self.places, sizeof(Command))
        self.tasks = <Task *>calloc(self.task_places, sizeof(Task))
        if self.commands == NULL or self.tasks == NULL:
            raise MemoryError
        for n in range(self.places):
            self.commands[n].next = self.free
            self.free = &self.commands[n]
        for n in range(self.task_places):
            self.tasks[n].next = self.free_task
            self.free_task = &self.tasks[n]

    def __dealloc__(self):
        cdef u32 n
        if self.commands != NULL:
            for n in range(self.places):
                scsi_release(&self.commands[n].scsi)
        free(self.commands)
        free(self.tasks)

    def make_lock(self):
        if self.units.lock is None:
            self.units.lock = spare_lock()
        return self.units.lock

    def quit(self):
        super().quit()
        self.units.lock = None

    # --- the driver's side --------------------------------------------------------------------------------

    cdef u32 sense_size(self) noexcept nogil:
        cdef u32 size
        memcpy(&size, self.config + SENSE_OFFSET, 4)
        return size & 0xFFFF

    cdef u32 cdb_size(self) noexcept nogil:
        cdef u32 size
        memcpy(&size, self.config + CDB_OFFSET, 4)
        return size & 0xFF

    cdef void config_written(self, u32 offset, u32 size, u32 value) noexcept nogil:
        """The driver chooses how long commands and sense data are."""
        cdef u8 copy[8]
        cdef u32 n, sense, cdb
        memcpy(copy, self.config + SENSE_OFFSET, 8)
        for n in range(size):
            if SENSE_OFFSET <= offset + n < SENSE_OFFSET + 8:
                copy[offset + n - SENSE_OFFSET] = value >> (8 * n) & 0xFF
        memcpy(&sense, copy, 4)
        memcpy(&cdb, copy + 4, 4)
        if sense >= 65536 or cdb >= 256:
            self.fault()
            return
        (<VirtQueue>self.queue_of[CONTROL]).enter()
        memcpy(self.config + SENSE_OFFSET, copy, 8)
        (<VirtQueue>self.queue_of[CONTROL]).leave()

    cdef void stopped(self) noexcept nogil:
        cdef u32 n
        for n in range(COMMANDS, self.queue_count):
            self.queue_stopped(n)
        n = SENSE_DEFAULT
        memcpy(self.config + SENSE_OFFSET, &n, 4)
        n = CDB_DEFAULT
        memcpy(self.config + CDB_OFFSET, &n, 4)
        self.missed = False
        with gil:
            for unit in self.units.members:
                unit.bus_reset()

    cdef void queue_stopped(self, u32 queue) noexcept nogil:
        cdef u32 n
        for n in range(self.places):
            if self.commands[n].used and self.commands[n].queue == queue:
                scsi_cancel(&self.commands[n].scsi)
                self.give_up(&self.commands[n])

    cdef void give_up(self, Command *command) noexcept nogil:
        """Its place is free; who waited for it has one less to wait for."""
        cdef Task *task = command.task
        command.used, command.task = False, NULL
        command.next = self.free
        self.free = command
        self.in_flight -= 1
        if task != NULL:
            task.waiting -= 1
            if not task.waiting:
                self.task_over(<VirtQueue>self.queue_of[CONTROL], task)

    cdef void kicked(self, u32 number) noexcept nogil:
        if number == CONTROL:
            self.serve_control(<VirtQueue>self.queue_of[number])
        elif number == EVENTS:
            if self.missed:
                self.event(<VirtQueue>self.queue_of[number], E_NOTHING, NULL, 0)
        else:
            self.serve_queue(<VirtQueue>self.queue_of[number])

    cdef bint address(self, const u8 *lun, u32 *target, u32 *unit) noexcept nogil:
        """Target and unit of the eight bytes that name them; whether they are of a kind that there is."""
        if lun[0] != 1 or lun[2] != 0 and not 0x40 <= lun[2] < 0x80:
            return False
        target[0], unit[0] = lun[1], (<u32>lun[2] << 8 | lun[3]) & 0x3FFF
        return True

    # --- commands -----------------------------------------------------------------------------------------

    cdef int serve_chain(self, VirtQueue queue, Chain *chain) noexcept nogil:
        """1: it is answered; 0: a unit has it; -1: out of protocol."""
        cdef Command *command = self.free
        cdef u8 head[HEAD + SCSI_CDB]
        cdef u32 cdb = self.cdb_size(), sense = self.sense_size(), take, left, n
        cdef u64 room_in, room_out, room
        cdef bint to_host
        cdef int result
        take = cdb if cdb < SCSI_CDB else SCSI_CDB
        if command == NULL or chain.read_size < HEAD + cdb or chain.write_size < RESPONSE + sense:
            queue.broken = True
            return -1
        memset(head, 0, HEAD + SCSI_CDB)
        if queue.copy_out(chain, 0, head, HEAD + take) != 0:
            queue.broken = True
            return -1
        self.free = command.next
        self.in_flight += 1
        command.used, command.task, command.queue, command.chain = True, NULL, queue.number, chain[0]
        command.room = sense
        command.pieces, left = 0, ANSWER
        for n in range(chain.readable, chain.count):
            command.answer[command.pieces] = queue.pieces[n]
            if command.answer[command.pieces].len > left:
                command.answer[command.pieces].len = left
            left -= command.answer[command.pieces].len
            command.pieces += 1
            if not left:
                break
        command.scsi.status, command.scsi.sense_length = 0, 0
        command.given = command.scsi.moved = 0
        room_out, room_in = chain.read_size - HEAD - cdb, chain.write_size - RESPONSE - sense
        if room_out and room_in:                                # both ways at once
            self.respond(queue, command, S_FAILURE)
            return 1
        command.scsi.channel = 0
        if not self.address(head, &command.scsi.target, &command.scsi.lun):
            self.respond(queue, command, S_BAD_TARGET)
            return 1
        memcpy(&command.scsi.tag, head + 8, 8)
        memcpy(command.scsi.cdb, head + HEAD, SCSI_CDB)
        command.scsi.owner, command.scsi.done, command.scsi.autosense = <void *>self, unit_done, True
        result = scsi_begin(self.units_of, &command.scsi)
        if result == SCSI_DATA:
            to_host = command.scsi.direction == SCSI_TO_HOST
            room = room_in if to_host else room_out
            if command.scsi.expected > room:
                scsi_cancel(&command.scsi)
                self.respond(queue, command, S_OVERRUN)
                return 1
            command.given = room
            if queue.gather(
                chain, to_host, RESPONSE + sense if to_host else HEAD + cdb, room - command.scsi.length, self.scatter
            ) != 0:
                self.scatter.finish(0)
                scsi_cancel(&command.scsi)
                self.respond(queue, command, S_FAILURE)
                return 1
            result = scsi_run(&command.scsi, self.scatter)
        if result == SCSI_NOBODY:
            self.respond(queue, command, S_BAD_TARGET)
            return 1
        if result == SCSI_LATER:
            return 0
        self.respond(queue, command, S_OK)
        return 1

    cdef void respond(self, VirtQueue queue, Command *command, u8 response) noexcept nogil:
        """Into the used ring; the place is free again."""
        cdef u8 out[ANSWER]
        cdef u32 n, at = 0, size = RESPONSE, value
        memset(out, 0, ANSWER)
        out[11] = response
        if response == S_OK:
            out[10] = command.scsi.status
            if command.scsi.status == CHECK_CONDITION:
                n = min(command.scsi.sense_length, command.room)
                memcpy(out, &n, 4)
                memcpy(out + RESPONSE, command.scsi.sense, n)
                size += n
            else:
                value = <u32>min(command.given - command.scsi.moved, <u64>0xFFFFFFFF)
                memcpy(out + 4, &value, 4)
        for n in range(command.pieces):
            if at >= size:
                break
            value = min(command.answer[n].len, size - at)
            queue.dma.write_from(command.answer[n].addr, out + at, value)
            at += value
        queue.push(&command.chain, <u32>command.chain.write_size)
        self.give_up(command)

    cdef void done(self, VirtQueue queue, Command *command) noexcept nogil:
        """A unit is."""
        self.dma.space.enter()
        if command.task != NULL:
            self.respond(queue, command, command.response)
        else:
            self.respond(queue, command, S_ABORTED if command.scsi.status == TASK_ABORTED else S_OK)
        self.interrupt(queue)
        self.dma.space.leave()

    # --- task management ----------------------------------------------------------------------------------

    cdef void serve_control(self, VirtQueue queue) noexcept nogil:
        cdef Chain chain
        cdef int result
        cdef bint some = False
        while True:
            chain.count = 0
            result = queue.pop(&chain)
            if result > 0:
                result = self.manage(queue, &chain)
                some = some or result > 0
            if result < 0:
                queue.broken = True
                self.fault()
                break
            if result == 0 and not chain.count:
                break
        if some:
            self.interrupt(queue)

    cdef int manage(self, VirtQueue queue, Chain *chain) noexcept nogil:
        """1: it is answered; 0: it waits; -1: out of protocol."""
        cdef u8 data[TMF_SIZE]
        cdef u8 out[5]
        cdef u32 type, subtype, target, unit
        cdef u64 tag
        cdef bint there = False
        if queue.copy_out(chain, 0, <u8 *>&type, 4) != 0:
            return -1
        memset(out, 0, 5)
        if type == T_AN_QUERY or type == T_AN_SUBSCRIBE:        # there are no such notifications
            if chain.read_size < AN_SIZE or chain.write_size < 5:
                return -1
            queue.copy_in(chain, 0, out, 5)
            queue.push(chain, 5)
            return 1
        if type != T_TMF or queue.copy_out(chain, 0, data, TMF_SIZE) != 0 or not chain.write_size:
            return -1
        memcpy(&subtype, data + 4, 4)
        memcpy(&tag, data + 16, 8)
        out[0] = S_FUNCTION_REJECTED if subtype > QUERY_TASK_SET or subtype == CLEAR_ACA else S_BAD_TARGET
        if out[0] == S_BAD_TARGET and self.address(data + 8, &target, &unit):
            if self.units.find(0, target, unit, &there) != NULL or there and subtype == I_T_NEXUS_RESET:
                return self.end_commands(queue, chain, subtype, target, unit, tag)
            if there:
                out[0] = S_INCORRECT_LUN
        queue.copy_in(chain, 0, out, 1)
        queue.push(chain, <u32>chain.write_size)
        return 1

    cdef int end_commands(
        self, VirtQueue queue, Chain *chain, u32 subtype, u32 target, u32 unit, u64 tag
    ) noexcept nogil:
        cdef Task *task = self.free_task
        cdef Command *command
        cdef u32 n, found = 0
        cdef bint resets = subtype == I_T_NEXUS_RESET or subtype == LOGICAL_UNIT_RESET
        cdef bint one = subtype == ABORT_TASK or subtype == QUERY_TASK
        cdef bint asks = subtype == QUERY_TASK or subtype == QUERY_TASK_SET
        cdef u8 response = S_OK
        if task == NULL:
            return -1
        task.waiting = 0
        for n in range(self.places):
            command = &self.commands[n]
            if not command.used or command.scsi.target != target or one and command.scsi.tag != tag:
                continue
            if command.scsi.lun != unit and subtype != I_T_NEXUS_RESET or command.task != NULL:
                continue
            found += 1
            if not asks:
                command.task, command.response = task, S_RESET if resets else S_ABORTED
                task.waiting += 1
        if asks and found:
            response = S_FUNCTION_SUCCEEDED
        if resets:
            for n in range(self.units.count):
                if self.units.places[n].target == target and (
                    subtype == I_T_NEXUS_RESET or self.units.places[n].lun == unit
                ):
                    scsi_unit_reset(self.units.places[n].unit)
        if task.waiting:
            self.free_task = task.next
            task.chain, task.response = chain[0], response
            task.answer = queue.pieces[chain.readable].addr
            return 0
        queue.copy_in(chain, 0, &response, 1)
        queue.push(chain, <u32>chain.write_size)
        return 1

    cdef void task_over(self, VirtQueue queue, Task *task) noexcept nogil:
        """The last command that it waited for has ended."""
        queue.dma.write_from(task.answer, &task.response, 1)
        queue.push(&task.chain, <u32>task.chain.write_size)
        task.next = self.free_task
        self.free_task = task
        self.interrupt(queue)

    # --- events -------------------------------------------------------------------------------------------

    cdef void event(self, VirtQueue queue, u32 what, const u8 *lun, u32 reason) noexcept nogil:
        """Tell the driver; it learns later that it missed something when it has no buffer there."""
        cdef Chain chain
        cdef u8 out[16]
        if not self.running:
            return
        if queue.pop(&chain) <= 0:
            self.missed = True
            return
        if chain.write_size < 16:
            queue.broken = True
            self.fault()
            return
        memset(out, 0, 16)
        if self.missed:
            what |= E_MISSED
            self.missed = False
        memcpy(out, &what, 4)
        if lun != NULL:
            memcpy(out + 4, lun, 8)
        memcpy(out + 12, &reason, 4)
        queue.copy_in(&chain, 0, out, 16)
        queue.push(&chain, 16)
        self.interrupt(queue)

    def tell(self, u32 what, u32 target, u32 unit, u32 reason):
        """An event about a unit. The units are entered."""
        cdef u8 lun[8]
        memset(lun, 0, 8)
        lun[0], lun[1], lun[3] = 1, target & 0xFF, unit & 0xFF
        if unit >= 256:
            lun[2] = 0x40 | unit >> 8
        self.event(self.queues[EVENTS], what, lun, reason)

    def unit_appeared(self, unit):
        if self.tells_units and self.accepted >> 1 & 1:
            self.tell(E_TRANSPORT_RESET, unit.target, unit.lun, REASON_RESCAN)
        self.units.attend(0x3F, 0x0E)                           # reported units have changed

    def unit_leaving(self, unit):
        if self.tells_units and self.accepted >> 1 & 1:
            self.tell(E_TRANSPORT_RESET, unit.target, unit.lun, REASON_REMOVED)
        self.units.attend(0x3F, 0x0E)

    def unit_changed(self, unit, u8 asc, u8 ascq):
        if self.tells_changes and self.accepted >> 2 & 1:
            self.tell(E_PARAMETERS, unit.target, unit.lun, asc | <u32>ascq << 8)
