"""SCSI commands on their way between an adapter and a unit, whatever the adapter and whatever the unit; compiled.

Ref: T10 SAM-3 (tasks, status, unit attentions), SPC-3 (REPORT LUNS, INQUIRY and REQUEST SENSE of a unit that is not there).

An adapter fills in a ScsiRequest, which it owns, and calls

    scsi_begin(units, r)    SCSI_NOBODY: no such target. SCSI_OVER: status and sense are there. SCSI_LATER: done() will come.
                            SCSI_DATA: r.direction and r.length say what is to be moved; then one of
    scsi_run(r, scatter)    all at once, between the unit and `length` bytes of guest memory (zero-copy), or
    scsi_fetch(r)           piece by piece, for adapters that learn only bit by bit where to (SCRIPTS, PIO): SCSI_DATA means
                            that r.chunk bytes at r.data are there to be taken, or have room to be filled; the next call
                            says that this was done. SCSI_LATER: ready() or done() will come.
    scsi_cancel(r)          gives it up, in whatever state; nothing will be called.
    scsi_release(r)         at the very end: frees what the request holds.

A unit decides in `command`: it ends with scsi_good or scsi_fail, or says what data there is (answer, take_list, transfer), or
starts something without data (flush, scsi_io). The same functions then serve both ways of moving.

Unit attentions are told once, to the first command that is not exempt. An adapter with autosense has told them with the
status; for one without they stay until REQUEST SENSE.

Locks: the device lock is held, or, of an adapter whose queues are served without it, the units' `lock`; the drive's
completions take the same. Whoever comes from the host's side has the device lock and enters the units (`with units:`).
"""

from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from vmrun.backends.protocols cimport (
    BLOCK_FLUSH, BLOCK_READ, BLOCK_WRITE, block_buffer, block_release, block_request, block_submit, block_take,
)
from vmrun.devices.storage.mmc cimport be16, be32
from vmrun.devices.storage.scsi_codes cimport *

from vmrun.core.state import Table, U8

cdef enum:
    # kinds: what there is to be moved
    NONE = 0
    ANSWER = 1                  # `own` to the host
    LIST = 2                    # `own` from the host, then the unit's `listed`
    READ = 3
    WRITE = 4
    INTERNAL = 5                # the unit's own I/O; then its `listed` goes on

    KEPT = 4096                 # bytes that a request keeps between commands
    NO_UNIT = 0x7F
    NO_UNIT_YET = 0x3F


# --- ends ---------------------------------------------------------------------------------------------------------


cdef int scsi_good(ScsiRequest *request) noexcept nogil:
    return _over(request, GOOD, NO_SENSE, 0, 0)


cdef int scsi_fail(ScsiRequest *request, u8 key, u8 asc, u8 ascq) noexcept nogil:
    return _over(request, CHECK_CONDITION, key, asc, ascq)


cdef int _over(ScsiRequest *request, u8 status, u8 key, u8 asc, u8 ascq) noexcept nogil:
    request.status = status
    request.sense_length = 0
    if status == CHECK_CONDITION:
        _fixed(request.sense, key, asc, ascq)
        request.sense_length = SCSI_SENSE
    if request.unit != NULL:
        call_keep_sense(request.unit, key, asc, ascq)
    _stop(request)
    return SCSI_OVER


cdef void _stop(ScsiRequest *request) noexcept nogil:
    """Off the list of those under way, and nothing in flight."""
    cdef BlockRequest *io = request.io
    request.io = NULL
    if io != NULL:
        block_release(request.backend, io)
    request.data, request.chunk = NULL, 0
    if request.own_size > KEPT:
        free(request.own)
        request.own, request.own_size = NULL, 0
    if request.active:
        request.active = False
        call_unlink(<ScsiUnits>request.units, request)


cdef void _fixed(u8 *out, u8 key, u8 asc, u8 ascq) noexcept nogil:
    """Sense data, fixed format."""
    memset(out, 0, SCSI_SENSE)
    out[0], out[2], out[7], out[12], out[13] = 0x70, key, 10, asc, ascq


cdef int _errno(ScsiRequest *request, int error) noexcept nogil:
    """The host could not do it: ENOMEDIUM, ENOMEM, EINVAL, ENOSPC, EROFS, anything else."""
    if error == 123:
        return scsi_fail(request, NOT_READY, 0x3A, 0)
    if error == 12:
        return scsi_fail(request, HARDWARE_ERROR, 0x44, 0)
    if error == 22:
        return scsi_fail(request, ILLEGAL_REQUEST, 0x24, 0)
    if error == 28:
        return scsi_fail(request, DATA_PROTECT, 0x27, 7)
    if error == 30:
        return scsi_fail(request, DATA_PROTECT, 0x27, 0)
    return scsi_fail(request, ABORTED_COMMAND, 0, 6)            # I/O process terminated


cdef u8 *scsi_own(ScsiRequest *request, u64 size) noexcept nogil:
    """Zeroed memory of the request's own, KEPT bytes at least. NULL: there is none."""
    if size < KEPT:
        size = KEPT
    if request.own_size < size:
        free(request.own)
        request.own = <u8 *>malloc(size)
        request.own_size = size if request.own != NULL else 0
    if request.own != NULL:
        memset(request.own, 0, size)
    return request.own


cdef void scsi_release(ScsiRequest *request) noexcept nogil:
    scsi_cancel(request)
    free(request.own)
    request.own, request.own_size = NULL, 0


cdef void scsi_cancel(ScsiRequest *request) noexcept nogil:
    if request.active:
        _stop(request)


# --- the start ----------------------------------------------------------------------------------------------------


cdef int scsi_begin(void *units, ScsiRequest *request) noexcept nogil:
    cdef bint there = False
    request.units = units
    request.direction, request.kind, request.step = SCSI_NOTHING, NONE, 0
    request.expected = request.length = request.moved = request.offset = request.span = 0
    request.status, request.sense_length, request.flags = GOOD, 0, 0
    request.data, request.chunk, request.io = NULL, 0, NULL
    request.backend, request.chunked = NULL, False
    request.unit = (<ScsiUnits>units).find(request.channel, request.target, request.lun, &there)
    if not there:
        return SCSI_NOBODY
    request.active = True
    call_link(<ScsiUnits>units, request)
    return call_start(request.unit, units, request)


cdef int start_unit(ScsiUnit unit, ScsiUnits units, ScsiRequest *request) noexcept nogil:
    """A command for a unit that is there."""
    cdef u8 code = request.cdb[0]
    request.backend = unit.backend
    request.expected = _expected(request.cdb, unit.block())
    if (unit.attention or units.attention_asc) and code not in (
        INQUIRY, REPORT_LUNS, GET_CONFIGURATION, GET_EVENT_STATUS
    ) and not (code == REQUEST_SENSE and unit.sense_is_attention):
        return _report_attention(unit, units, request)
    if code == REPORT_LUNS:
        return _report_luns(units, request)
    if code == REQUEST_SENSE and unit.sense_key:
        return _tell_sense(unit, units, request)
    return unit.command(request)


cdef int _report_attention(ScsiUnit unit, ScsiUnits units, ScsiRequest *request) noexcept nogil:
    cdef u8 asc = unit.attention_asc, ascq = unit.attention_ascq
    cdef bint own = unit.attention
    if not own:
        asc, ascq = units.attention_asc, units.attention_ascq
    scsi_fail(request, UNIT_ATTENTION, asc, ascq)
    if request.autosense:
        _attention_over(unit, units, own)
        unit.sense_key, unit.sense_is_attention = NO_SENSE, False
    else:
        unit.sense_is_attention = True
    return SCSI_OVER


cdef void _attention_over(ScsiUnit unit, ScsiUnits units, bint own) noexcept nogil:
    if own:
        unit.attention = False
        unit.attention_reported()
    else:
        units.attention_asc = units.attention_ascq = 0


cdef int _tell_sense(ScsiUnit unit, ScsiUnits units, ScsiRequest *request) noexcept nogil:
    """REQUEST SENSE about the command before."""
    cdef u8 *out = scsi_own(request, SCSI_SENSE)
    cdef u8 key = unit.sense_key, asc = unit.sense_asc, ascq = unit.sense_ascq
    if out == NULL:
        return _errno(request, 12)
    if unit.sense_is_attention:
        _attention_over(unit, units, unit.attention)
        unit.sense_is_attention = False
    return unit.answer(request, _sense_data(out, request.cdb[1] & 1, key, asc, ascq))


cdef u32 _sense_data(u8 *out, bint descriptors, u8 key, u8 asc, u8 ascq) noexcept nogil:
    if not descriptors:
        _fixed(out, key, asc, ascq)
        return SCSI_SENSE
    memset(out, 0, 8)
    out[0], out[1], out[2], out[3] = 0x72, key, asc, ascq
    return 8


# --- what a target answers for units that it does not have --------------------------------------------------------


cdef int start_nobody(ScsiUnits units, ScsiRequest *request) noexcept nogil:
    cdef u8 code = request.cdb[0]
    cdef u8 *out = scsi_own(request, KEPT)
    cdef u32 length
    request.expected = _expected(request.cdb, 512)
    if out == NULL:
        return _errno(request, 12)
    if code == REPORT_LUNS and not request.lun:
        return _report_luns(units, request)
    if code == INQUIRY:
        if request.cdb[1] & 3 or request.cdb[2]:
            if request.cdb[1] & 3 != 1 or request.cdb[2]:
                return scsi_fail(request, ILLEGAL_REQUEST, 0x24, 0)
            out[0] = NO_UNIT if request.lun else NO_UNIT_YET
            out[3] = 1                                          # the list of pages has itself alone
            return _own_answer(request, 5)
        length = 36
        if request.lun:
            out[0] = NO_UNIT
        else:
            out[0], out[2], out[3] = NO_UNIT_YET, 5, 0x12
            out[4] = 31
            out[7] = 0x12 if units.queueing else 0x10
            memcpy(out + 8, <const char *>b"QEMU    QEMU TARGET     ", 24)
            memcpy(out + 32, units.version, 4)
        return _own_answer(request, length)
    if code == REQUEST_SENSE:
        if request.lun:
            length = _sense_data(out, request.cdb[1] & 1, ILLEGAL_REQUEST, 0x25, 0)
        else:
            length = _sense_data(out, request.cdb[1] & 1, NO_SENSE, 0, 0)
        return _own_answer(request, length)
    if request.lun:
        return scsi_fail(request, ILLEGAL_REQUEST, 0x25, 0)     # no such unit
    return scsi_good(request) if code == 0x00 else scsi_fail(request, ILLEGAL_REQUEST, 0x20, 0)


cdef int _report_luns(ScsiUnits units, ScsiRequest *request) noexcept nogil:
    """The units of a target, and unit 0 in any case."""
    cdef u8 *out
    cdef u32 n, length = 16, lun, found = 1
    if request.expected < 16 or request.cdb[2] > 2:
        return scsi_fail(request, ILLEGAL_REQUEST, 0x24, 0)
    for n in range(units.count):
        if units.places[n].channel == request.channel and units.places[n].target == request.target:
            found += units.places[n].lun != 0
    out = scsi_own(request, 8 + 8 * <u64>found)
    if out == NULL:
        return _errno(request, 12)
    for n in range(units.count):
        lun = units.places[n].lun
        if units.places[n].channel == request.channel and units.places[n].target == request.target and lun:
            if lun < 256:
                out[length + 1] = <u8>lun
            else:
                out[length], out[length + 1] = <u8>(0x40 | lun >> 8), <u8>lun
            length += 8
    out[2], out[3] = <u8>((length - 8) >> 8), <u8>(length - 8)
    return _own_answer(request, length)


cdef int _own_answer(ScsiRequest *request, u64 length) noexcept nogil:
    """`length` bytes of `own`, as far as the command has room."""
    if length > request.expected:
        length = request.expected
    if not length:
        return scsi_good(request)
    request.kind, request.direction, request.length = ANSWER, SCSI_TO_HOST, length
    return SCSI_DATA


# --- moving data --------------------------------------------------------------------------------------------------


cdef int scsi_io(ScsiRequest *request, int op, u64 offset, u64 length, u32 flags) noexcept nogil:
    """I/O of the unit's own (zero, discard, flush, a pattern in `data`); `listed` is called when it is over."""
    cdef u8 *copy
    request.kind = INTERNAL
    if request.io != NULL:
        block_release(request.backend, request.io)
    if _begin_io(request) == NULL:
        return _errno(request, 12)
    request.io.op, request.io.offset, request.io.flags = op, offset, flags
    if op == BLOCK_WRITE:
        copy = block_buffer(request.io, length)
        if copy == NULL:
            return _errno(request, 12)
        memcpy(copy, request.data, length)
    else:
        request.io.length = length
    return _go_on(request) if block_submit(request.backend, request.io) else SCSI_LATER


cdef BlockRequest *_begin_io(ScsiRequest *request) noexcept nogil:
    """A transfer of the drive's. NULL: no memory."""
    request.io = block_request(request.backend, <void *>request, _io_done)
    if request.io != NULL:
        request.io.lock = call_lock(<ScsiUnits>request.units)
    return request.io


cdef int scsi_run(ScsiRequest *request, Scatter scatter) noexcept nogil:
    """`scatter` has gathered `length` bytes, in the direction of the command; it is empty afterwards."""
    cdef int result = SCSI_OVER
    if request.kind == ANSWER:
        scatter.put(0, request.own, request.length)
        scatter.finish(request.length)
        request.moved = request.length
        return scsi_good(request)
    if request.kind == LIST:
        scatter.get(0, request.own, request.length)
        scatter.finish(0)
        request.moved = request.length
        return (<ScsiUnit>request.unit).listed(request)
    if _begin_io(request) == NULL or block_take(request.io, scatter) != 0:
        scatter.finish(0)
        return _errno(request, 12)
    request.io.op = BLOCK_WRITE if request.kind == WRITE else BLOCK_READ
    request.io.offset, request.io.flags = request.offset, request.flags
    return _go_on(request) if block_submit(request.backend, request.io) else SCSI_LATER


cdef int scsi_fetch(ScsiRequest *request) noexcept nogil:
    cdef u64 size
    request.chunked = True
    if request.kind == ANSWER or request.kind == LIST:
        if request.data == NULL:
            request.data, request.chunk = request.own, <u32>request.length
            return SCSI_DATA
        request.moved = request.length
        request.data, request.chunk = NULL, 0
        return scsi_good(request) if request.kind == ANSWER else (<ScsiUnit>request.unit).listed(request)
    if request.kind == WRITE and request.data != NULL:           # it is filled
        request.data = NULL
        return _chunk(request) if block_submit(request.backend, request.io) else SCSI_LATER
    if request.kind == READ and request.data != NULL:            # it was taken
        request.moved += request.chunk
        request.data, request.chunk = NULL, 0
        block_release(request.backend, request.io)
        request.io = NULL
    if request.moved == request.length:
        return scsi_good(request)
    size = request.length - request.moved
    if size > SCSI_CHUNK:
        size = SCSI_CHUNK
    if _begin_io(request) == NULL or block_buffer(request.io, size) == NULL:
        return _errno(request, 12)
    request.io.op = BLOCK_WRITE if request.kind == WRITE else BLOCK_READ
    request.io.offset, request.io.flags = request.offset + request.moved, request.flags
    request.chunk = <u32>size
    if request.kind == WRITE:
        request.data = <u8 *>request.io.vectors[0].base
        return SCSI_DATA
    return _chunk(request) if block_submit(request.backend, request.io) else SCSI_LATER


cdef int _chunk(ScsiRequest *request) noexcept nogil:
    """A piece has been read or written."""
    if request.io.error:
        return _errno(request, request.io.error)
    if request.kind == READ:
        request.data = <u8 *>request.io.vectors[0].base
        return SCSI_DATA
    block_release(request.backend, request.io)
    request.io = NULL
    request.moved += request.chunk
    request.chunk = 0
    return scsi_fetch(request)


cdef int _go_on(ScsiRequest *request) noexcept nogil:
    """The drive is done, of what was not asked for piece by piece."""
    cdef int error = request.io.error
    block_release(request.backend, request.io)                   # what was read is marked as written
    request.io = NULL
    if error:
        return _errno(request, error)
    if request.kind == INTERNAL:
        return (<ScsiUnit>request.unit).listed(request)
    request.moved = request.length
    return scsi_good(request)


cdef void _io_done(BlockRequest *io) noexcept nogil:
    cdef ScsiRequest *request = <ScsiRequest *>io.owner
    cdef int result
    if request.chunked and request.kind != INTERNAL:
        result = _chunk(request)
    else:
        result = _go_on(request)
    if result == SCSI_OVER:
        request.done(request)
    elif result == SCSI_DATA:
        request.ready(request)


cdef u64 _expected(const u8 *cdb, u32 block) noexcept nogil:
    """Bytes that a command is to move, by its code and its length field."""
    cdef u8 code = cdb[0]
    cdef u64 count
    if code >> 5 == 0:
        count = cdb[4]
    elif code >> 5 in (1, 2):
        count = be16(cdb + 7)
    elif code >> 5 == 4:
        count = be32(cdb + 10)
    elif code >> 5 == 5:
        count = be32(cdb + 6)
    else:
        return 0
    if code in (0x00, 0x01, 0x16, 0x17, 0x1B, 0x1E, 0x2B, 0x34, 0x35, 0x36, 0x90, 0x91, 0xBB, 0xA7):
        return 0
    if code == INQUIRY:
        return be16(cdb + 3)
    if code == 0x25:                            # READ CAPACITY
        return 8
    if code in (0x2F, 0xAF, 0x8F):              # VERIFY compares nothing
        return 0
    if code in (0x41, 0x93):                    # WRITE SAME
        return 0 if cdb[1] & 1 else block
    if code in (0x08, 0x0A) and count == 0:
        return <u64>256 * block
    if code in (0x08, 0x0A, 0x28, 0x2A, 0xA8, 0xAA, 0x88, 0x8A, 0x2E, 0xAE, 0x8E):
        return count * block
    if code in (0xAD, 0xBD):                    # READ DVD STRUCTURE, MECHANISM STATUS
        return be16(cdb + 8)
    if code in (0xBE, 0xB9):                    # READ CD
        return 0
    return count


# --- units --------------------------------------------------------------------------------------------------------


cdef class ScsiUnit:
    """Base of what answers commands; `backend` is its drive (borrowed), `place` where it is."""

    def place(self, u32 channel, u32 target, u32 lun):
        self.channel, self.target, self.lun = channel, target, lun

    cdef int command(self, ScsiRequest *request) noexcept nogil:
        return scsi_fail(request, ILLEGAL_REQUEST, 0x20, 0)

    cdef int listed(self, ScsiRequest *request) noexcept nogil:
        """A parameter list is there, or I/O of its own is over."""
        return scsi_good(request)

    cdef u32 block(self) noexcept nogil:
        return 512

    cdef void attention_reported(self) noexcept nogil:
        pass

    cdef void reset_unit(self) noexcept nogil:
        """The bus or the adapter resets it."""
        self.attend(0x29, 0)

    def bus_reset(self):
        self.reset_unit()

    cdef void attend(self, u8 asc, u8 ascq) noexcept nogil:
        """Have the next command told of something."""
        self.attention, self.attention_asc, self.attention_ascq = True, asc, ascq

    def tell(self, u8 asc, u8 ascq):
        self.attend(asc, ascq)

    cdef int answer(self, ScsiRequest *request, u64 length) noexcept nogil:
        return _own_answer(request, length)

    cdef int take_list(self, ScsiRequest *request, u64 length) noexcept nogil:
        if scsi_own(request, length) == NULL:
            return _errno(request, 12)
        if not length:
            return (<ScsiUnit>request.unit).listed(request)
        request.kind, request.direction, request.length = LIST, SCSI_FROM_HOST, length
        return SCSI_DATA

    cdef int transfer(self, ScsiRequest *request, bint write, u64 offset, u64 length, u32 flags) noexcept nogil:
        if not length:
            return scsi_good(request)
        request.kind = WRITE if write else READ
        request.direction = SCSI_FROM_HOST if write else SCSI_TO_HOST
        request.offset, request.length, request.flags = offset, length, flags
        return SCSI_DATA

    cdef int flush(self, ScsiRequest *request) noexcept nogil:
        return scsi_io(request, BLOCK_FLUSH, 0, 0, 0)


cdef class ScsiUnits:
    """All units of a bus. `version`: four characters, what an absent unit says its firmware is."""

    state = Table("scsi-units", 1, U8("attention_asc"), U8("attention_ascq"))
    reset, save, load_state = state.methods()

    def __init__(self, bint queueing=True, bytes version=b"    "):
        self.members = []
        self.queueing = queueing
        version = version.ljust(4)
        memcpy(self.version, <const u8 *>version, 4)

    def __dealloc__(self):
        free(self.places)

    def __enter__(self):
        """With the device lock held: no command is served until the end."""
        if self.lock is not None:
            self.lock.__enter__()
        return self

    def __exit__(self, *exc):
        if self.lock is not None:
            self.lock.__exit__()

    def add(self, ScsiUnit unit):
        """The units are entered."""
        cdef ScsiPlace *places
        if self.count == self.room:
            places = <ScsiPlace *>realloc(self.places, (self.room + 16) * sizeof(ScsiPlace))
            if places == NULL:
                raise MemoryError
            self.places = places
            self.room += 16
        self.members.append(unit)
        self.places[self.count] = ScsiPlace(unit.channel, unit.target, unit.lun, <void *>unit)
        self.count += 1

    def remove(self, ScsiUnit unit):
        """Commands that are under way end as aborted. The units are entered."""
        cdef u32 n
        cdef ScsiRequest *request
        cdef ScsiRequest *next
        for n in range(self.count):
            if self.places[n].unit == <void *>unit:             # nobody finds it from here on
                self.count -= 1
                self.places[n] = self.places[self.count]
                break
        with nogil:
            request = self.first
            while request != NULL:
                next = request.next
                if request.unit == <void *>unit:
                    _over(request, TASK_ABORTED, NO_SENSE, 0, 0)
                    request.done(request)
                    next = self.first                           # the adapter may have begun others
                request = next
        self.members = [other for other in self.members if other is not unit]

    def attend(self, u8 asc, u8 ascq):
        """A unit attention for whoever commands next on this bus. The units are entered."""
        self.attention_asc, self.attention_ascq = asc, ascq

    @property
    def in_flight(self):
        """How many commands are under way."""
        cdef ScsiRequest *request = self.first
        count = 0
        while request != NULL:
            count += 1
            request = request.next
        return count

    cdef void *find(self, u32 channel, u32 target, u32 lun, bint *there) noexcept nogil:
        cdef u32 n
        for n in range(self.count):
            if self.places[n].channel == channel and self.places[n].target == target:
                there[0] = True
                if self.places[n].lun == lun:
                    return self.places[n].unit
        return NULL


cdef void *call_lock(ScsiUnits units) noexcept nogil:
    return <void *>units.lock if units.lock is not None else NULL


cdef void call_link(ScsiUnits units, ScsiRequest *request) noexcept nogil:
    request.before, request.next = NULL, units.first
    if units.first != NULL:
        units.first.before = request
    units.first = request


cdef void call_unlink(ScsiUnits units, ScsiRequest *request) noexcept nogil:
    if request.before != NULL:
        request.before.next = request.next
    else:
        units.first = request.next
    if request.next != NULL:
        request.next.before = request.before
    request.before = request.next = NULL


cdef void call_keep_sense(void *unit, u8 key, u8 asc, u8 ascq) noexcept nogil:
    (<ScsiUnit>unit).sense_key, (<ScsiUnit>unit).sense_asc, (<ScsiUnit>unit).sense_ascq, (<ScsiUnit>unit).sense_is_attention = key, asc, ascq, False


cdef void scsi_unit_reset(void *unit) noexcept nogil:
    """ScsiUnit.reset_unit of a borrowed unit."""
    (<ScsiUnit>unit).reset_unit()


cdef int call_start(void *unit, void *units, ScsiRequest *request) noexcept nogil:
    if unit == NULL:
        return start_nobody(<ScsiUnits>units, request)
    return start_unit(<ScsiUnit>unit, <ScsiUnits>units, request)
