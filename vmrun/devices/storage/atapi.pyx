"""A CD/DVD drive's packet commands: the interpreter alone. ata.pyx moves its packets and data, ide_cd.py puts it on a cable.

Ref: SFF-8020i (ATA packet interface for CD-ROMs); T10 MMC-5 (GET CONFIGURATION, events, disc and track information, DVD
structures); SPC-3 for INQUIRY, mode pages and sense data. Values are those that qemu-kvm's drive shows.
Departures, as in qemu-kvm: READ TOC's format is in the old field alone (the last byte); the profile list is the only
feature; additional sense qualifiers are 0.
Not modelled: audio (no drive since 2000 has the analogue path), writing, several sessions, regions, CSS keys.

A medium is one data track: what the drive's image holds, in blocks of 2048 bytes. An image above MOST_CD is a DVD.
A drive that gets another medium tells it as a UNIT ATTENTION and as a media event, once each.
"""

from libc.string cimport memcpy, memset

from vmrun.core.state import Flag, Table, U8

cdef enum:
    TEST_UNIT_READY = 0x00
    REQUEST_SENSE = 0x03
    INQUIRY = 0x12
    START_STOP_UNIT = 0x1B
    PREVENT_ALLOW = 0x1E
    READ_CAPACITY = 0x25
    READ_10 = 0x28
    SEEK_10 = 0x2B
    READ_SUBCHANNEL = 0x42
    READ_TOC = 0x43
    GET_CONFIGURATION = 0x46
    GET_EVENT_STATUS = 0x4A
    STOP_PLAY = 0x4E
    READ_DISC_INFORMATION = 0x51
    READ_TRACK_INFORMATION = 0x52
    MODE_SELECT_10 = 0x55
    MODE_SENSE_10 = 0x5A
    READ_12 = 0xA8
    READ_DVD_STRUCTURE = 0xAD
    READ_CD_MSF = 0xB9
    SET_SPEED = 0xBB
    MECHANISM_STATUS = 0xBD
    READ_CD = 0xBE

    NO_SENSE = 0
    NOT_READY = 2
    MEDIUM_ERROR = 3
    ILLEGAL_REQUEST = 5
    UNIT_ATTENTION = 6

    ASC_UNRECOVERED = 0x11
    ASC_PARAMETER_LIST_LENGTH = 0x1A
    ASC_ILLEGAL_OPCODE = 0x20
    ASC_OUT_OF_RANGE = 0x21
    ASC_INVALID_FIELD = 0x24
    ASC_MEDIUM_CHANGED = 0x28
    ASC_RESET = 0x29
    ASC_INCOMPATIBLE_FORMAT = 0x30
    ASC_SAVING_NOT_SUPPORTED = 0x39
    ASC_NO_MEDIUM = 0x3A
    ASC_REMOVAL_PREVENTED = 0x53

    PROFILE_CD_ROM = 0x0008
    PROFILE_DVD_ROM = 0x0010

    PAGE_ERROR_RECOVERY = 0x01
    PAGE_AUDIO = 0x0E
    PAGE_CAPABILITIES = 0x2A
    PAGE_ALL = 0x3F

    LEAD_OUT = 0xAA
    DATA_TRACK = 0x14           # ADR 1, CONTROL 4

# Blocks of a CD of 80 minutes; more is a DVD.
cdef u64 MOST_CD = 80 * 60 * 75


cdef u32 _be16(const u8 *p) noexcept nogil:
    return <u32>p[0] << 8 | p[1]


cdef u32 _be32(const u8 *p) noexcept nogil:
    return <u32>p[0] << 24 | <u32>p[1] << 16 | <u32>p[2] << 8 | p[3]


cdef void _put16(u8 *p, u32 value) noexcept nogil:
    p[0], p[1] = <u8>(value >> 8), <u8>value


cdef void _put32(u8 *p, u32 value) noexcept nogil:
    p[0], p[1], p[2], p[3] = <u8>(value >> 24), <u8>(value >> 16), <u8>(value >> 8), <u8>value


cdef void _msf(u8 *p, u64 lba) noexcept nogil:
    """Minute, second, frame; block 0 is at 00:02:00."""
    lba += 150
    p[0], p[1], p[2] = <u8>(lba // 75 // 60), <u8>(lba // 75 % 60), <u8>(lba % 75)


cdef void packet_sector(u8 *sector, const u8 *data, u64 lba) noexcept nogil:
    """The 2352 bytes of a mode 1 sector around 2048 of data; its error correction is left 0, as QEMU does."""
    memset(sector, 0xFF, 12)
    sector[0] = sector[11] = 0
    _msf(sector + 12, lba)
    sector[15] = 1
    memcpy(sector + 16, data, CD_BLOCK)
    memset(sector + 16 + CD_BLOCK, 0, CD_RAW - 16 - CD_BLOCK)


cdef class PacketUnit:
    """`text` is the vendor (8), product (16) and revision (4) that INQUIRY tells."""

    state = Table(
        "atapi", 1, U8("sense", most=15), U8("asc"), U8("ascq"), Flag("locked"), Flag("tray_open"), Flag("changed"),
        Flag("event_new"), Flag("event_eject"),
    )
    save, load_state = state.methods()[1:]

    def __init__(self, BlockBackend backend, bytes text):
        if len(text) != 28:
            raise ValueError("INQUIRY has 28 bytes of text")
        self.backend = backend
        memcpy(self.text, <const u8 *>text, 28)
        self.reset()

    def reset(self):
        """Power-on. The tray and the medium stay as they are."""
        packet_reset(<void *>self)
        self.locked = False
        self.changed = self.event_new = self.event_eject = False

    cdef u64 total(self) noexcept nogil:
        """Blocks of the medium; 0 without one, or while the tray is open."""
        return 0 if self.tray_open else self.backend.size // CD_BLOCK

    # --- from the host: the medium, by hand --------------------------------------------------------------------

    def medium_changed(self, bint loaded):
        """The tray closed over a medium (`loaded`), or opened. The device lock is held."""
        self.tray_open = not loaded
        self.event_new = self.changed = loaded and self.backend.size >= CD_BLOCK
        self.event_eject = False

    def eject_asked(self):
        """Somebody pressed the button while the guest holds the door: the guest is told."""
        self.event_eject = True

    # --- ends -----------------------------------------------------------------------------------------------

    cdef int fail(self, u8 sense, u8 asc, u8 ascq) noexcept nogil:
        self.sense, self.asc, self.ascq = sense, asc, ascq
        return PACKET_ERROR

    cdef int give(self, u32 length, u32 room) noexcept nogil:
        """Answer with as much of `length` bytes as the host has room for."""
        self.length = length if length < room else room
        return PACKET_ANSWER if self.length else PACKET_DONE

    cdef int read(self, u64 lba, u64 blocks, bint raw) noexcept nogil:
        if not blocks:
            return PACKET_DONE
        if lba >= self.total() or blocks > self.total() - lba:
            return self.fail(ILLEGAL_REQUEST, ASC_OUT_OF_RANGE, 0)
        self.lba, self.blocks, self.raw = lba, <u32>blocks, raw
        return PACKET_READ

    # --- commands -------------------------------------------------------------------------------------------

    cdef int packet(self, const u8 *cdb) noexcept nogil:
        """Twelve bytes; what becomes of them (PACKET_…)."""
        cdef u8 code = cdb[0]
        # A new medium is told once, but not to those who ask what there is to know.
        if self.changed and code not in (INQUIRY, REQUEST_SENSE, GET_CONFIGURATION, GET_EVENT_STATUS):
            self.changed = False
            return self.fail(UNIT_ATTENTION, ASC_MEDIUM_CHANGED, 0)
        if code == REQUEST_SENSE:
            return self.request_sense(cdb)
        self.sense = self.asc = self.ascq = 0
        if code == INQUIRY:
            return self.inquiry(cdb)
        if code == GET_CONFIGURATION:
            return self.get_configuration(cdb)
        if code == GET_EVENT_STATUS:
            return self.get_event_status(cdb)
        if code == MODE_SENSE_10:
            return self.mode_sense(cdb)
        if code == MODE_SELECT_10:
            return self.mode_select(cdb)
        if code == START_STOP_UNIT:
            return self.start_stop(cdb)
        if code == PREVENT_ALLOW:
            self.locked = cdb[4] & 1
            return PACKET_DONE
        if code == MECHANISM_STATUS:
            return self.mechanism_status(cdb)
        if code == SET_SPEED or code == STOP_PLAY:
            return PACKET_DONE
        if code == READ_DVD_STRUCTURE:
            return self.dvd_structure(cdb)
        if code not in (
            TEST_UNIT_READY, READ_CAPACITY, READ_10, READ_12, READ_CD, READ_CD_MSF, SEEK_10, READ_SUBCHANNEL, READ_TOC,
            READ_DISC_INFORMATION, READ_TRACK_INFORMATION,
        ):
            return self.fail(ILLEGAL_REQUEST, ASC_ILLEGAL_OPCODE, 0)
        if not self.total():
            return self.fail(NOT_READY, ASC_NO_MEDIUM, 0)
        if code == READ_10:
            return self.read(_be32(cdb + 2), _be16(cdb + 7), False)
        if code == READ_12:
            return self.read(_be32(cdb + 2), _be32(cdb + 6), False)
        if code == READ_CD or code == READ_CD_MSF:
            return self.read_cd(cdb)
        if code == READ_CAPACITY:
            _put32(self.answer, <u32>min(self.total() - 1, <u64>0xFFFFFFFF))
            _put32(self.answer + 4, CD_BLOCK)
            return self.give(8, 8)
        if code == SEEK_10:
            if _be32(cdb + 2) >= self.total():
                return self.fail(ILLEGAL_REQUEST, ASC_OUT_OF_RANGE, 0)
            return PACKET_DONE
        if code == READ_SUBCHANNEL:
            memset(self.answer, 0, 4)
            self.answer[1] = 0x15               # no audio status to tell
            return self.give(4, _be16(cdb + 7))
        if code == READ_TOC:
            return self.read_toc(cdb)
        if code == READ_DISC_INFORMATION:
            return self.disc_information(cdb)
        if code == READ_TRACK_INFORMATION:
            return self.track_information(cdb)
        return PACKET_DONE                      # TEST UNIT READY

    cdef int inquiry(self, const u8 *cdb) noexcept nogil:
        cdef u8 *out = self.answer
        if cdb[1] & 1 or cdb[2]:
            return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)
        memset(out, 0, 36)
        out[0] = 0x05                           # CD-ROM device
        out[1] = 0x80                           # removable
        out[3] = 0x21                           # ATAPI-2, response format 1
        out[4] = 31
        memcpy(out + 8, self.text, 28)
        return self.give(36, _be16(cdb + 3))

    cdef int request_sense(self, const u8 *cdb) noexcept nogil:
        cdef u8 *out = self.answer
        memset(out, 0, 18)
        out[0] = 0xF0                           # current error, valid
        out[2] = self.sense
        out[7] = 10
        out[12], out[13] = self.asc, self.ascq
        if self.sense == UNIT_ATTENTION:
            self.sense = self.asc = self.ascq = 0
        return self.give(18, cdb[4])

    cdef int read_cd(self, const u8 *cdb) noexcept nogil:
        """Which parts of a sector are wanted: the data alone, the whole sector, or nothing at all."""
        cdef u64 lba, blocks, last
        cdef u8 parts = cdb[9] & 0xF8
        if cdb[0] == READ_CD:
            lba, blocks = _be32(cdb + 2), <u64>cdb[6] << 16 | _be16(cdb + 7)
        else:
            lba = (<u64>cdb[3] * 60 + cdb[4]) * 75 + cdb[5]
            last = (<u64>cdb[6] * 60 + cdb[7]) * 75 + cdb[8]
            if lba < 150 or last < lba:
                return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)
            lba, blocks = lba - 150, last - lba
        if blocks == 0 or parts == 0:
            return PACKET_DONE
        if parts == 0x10:
            return self.read(lba, blocks, False)
        if parts == 0xF8:
            return self.read(lba, blocks, True)
        return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)

    cdef int read_toc(self, const u8 *cdb) noexcept nogil:
        cdef u8 *out = self.answer
        cdef u8 *to = out + 4
        cdef bint msf = cdb[1] & 2
        cdef u32 form = cdb[9] >> 6, start = cdb[6], n
        if form == 0:
            if start > 1 and start != LEAD_OUT:
                return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)
            out[2] = out[3] = 1
            if start <= 1:
                memset(to, 0, 8)
                to[1], to[2] = DATA_TRACK, 1
                if msf:
                    _msf(to + 5, 0)
                to += 8
            memset(to, 0, 8)
            to[1], to[2] = DATA_TRACK + 2, LEAD_OUT
            if msf:
                _msf(to + 5, self.total())
            else:
                _put32(to + 4, <u32>self.total())
            to += 8
        elif form == 1:                         # sessions: one, from block 0
            out[2] = out[3] = 1
            memset(to, 0, 8)
            to += 8
            out[1] = 10
        elif form == 2:                         # the whole table of contents, as points
            out[2] = out[3] = 1
            for n in range(4):
                memset(to, 0, 11)
                to[0], to[1] = 1, DATA_TRACK
                to[3] = 0xA0 + n if n < 3 else 1
                if n == 0 or n == 1:
                    to[8] = 1                   # first, then last track
                    if n == 0:
                        to[9] = 0
                elif n == 2:
                    if msf:
                        _msf(to + 8, self.total())
                    else:
                        _put32(to + 7, <u32>self.total())
                elif msf:
                    _msf(to + 8, 0)
                to += 11
        else:
            return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)
        _put16(out, <u32>(to - out) - 2)
        return self.give(<u32>(to - out), _be16(cdb + 7))

    cdef int get_configuration(self, const u8 *cdb) noexcept nogil:
        cdef u8 *out = self.answer
        cdef u32 profile = 0, n, length
        if cdb[1] & 2 or _be16(cdb + 2):        # only all features, from the first on
            return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)
        if self.total():
            profile = PROFILE_DVD_ROM if self.total() > MOST_CD else PROFILE_CD_ROM
        memset(out, 0, 40)
        _put16(out + 6, profile)
        # profile list: feature 0, persistent and current, two profiles
        out[10], out[11] = 0x03, 8
        for n in range(2):
            _put16(out + 12 + 4 * n, PROFILE_DVD_ROM if n == 0 else PROFILE_CD_ROM)
            out[14 + 4 * n] = 1 if profile == (PROFILE_DVD_ROM if n == 0 else PROFILE_CD_ROM) else 0
        length = 20
        _put32(out, length - 4)
        return self.give(length, _be16(cdb + 7))

    cdef int get_event_status(self, const u8 *cdb) noexcept nogil:
        """Only the media class has events: a new medium, or the wish to have it out."""
        cdef u8 *out = self.answer
        cdef u8 event = 0
        if not cdb[1] & 1:                      # asynchronous notification
            return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)
        memset(out, 0, 8)
        out[3] = 0x10                           # the classes that there are
        if not cdb[4] & 0x10:
            out[2] = 0x80
            return self.give(4, _be16(cdb + 7))
        if self.event_new:
            event, self.event_new = 2, False
        elif self.event_eject:
            event, self.event_eject = 1, False
        out[2] = 4
        out[4] = event
        out[5] = (1 if self.tray_open else 0) | (2 if self.total() else 0)
        _put16(out, 4)
        return self.give(8, _be16(cdb + 7))

    cdef int mode_sense(self, const u8 *cdb) noexcept nogil:
        cdef u8 *out = self.answer
        cdef u8 *to
        cdef u32 page = cdb[2] & 0x3F, control = cdb[2] >> 6
        cdef bint known = False
        if control == 3:
            return self.fail(ILLEGAL_REQUEST, ASC_SAVING_NOT_SUPPORTED, 0)
        if control:                             # changeable and default values are not told
            return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)
        memset(out, 0, 64)
        out[2] = 0x70
        to = out + 8
        if page == PAGE_ERROR_RECOVERY:
            known = True
            to[0], to[1], to[3] = PAGE_ERROR_RECOVERY, 6, 5
            to += 8
        elif page == PAGE_AUDIO:
            known = True
            to[0], to[1] = PAGE_AUDIO, 14
            to += 16
        elif page == PAGE_CAPABILITIES:
            known = True
            to[0], to[1] = PAGE_CAPABILITIES, 20
            to[2] = 0x3B                        # reads CD-R, CD-RW, method 2, DVD-ROM, DVD-R
            to[4], to[5] = 0x71, 0x60           # plays audio, multi-session, mode 2 forms; bar code, UPC
            to[6] = 0x29 | (2 if self.locked else 0)            # tray, ejects, locks
            _put16(to + 8, 704)                 # KB/s
            to[11] = 2
            _put16(to + 12, 512)                # KiB of buffer
            _put16(to + 14, 704)
            to += 22
        if not known:
            return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)
        _put16(out, <u32>(to - out) - 2)
        return self.give(<u32>(to - out), _be16(cdb + 7))

    cdef int mode_select(self, const u8 *cdb) noexcept nogil:
        """The list is taken; nothing in it can be changed to any effect."""
        self.length = _be16(cdb + 7)
        if self.length > 1024:
            return self.fail(ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH, 0)
        return PACKET_LIST if self.length else PACKET_DONE

    cdef int mechanism_status(self, const u8 *cdb) noexcept nogil:
        memset(self.answer, 0, 8)
        self.answer[5] = 1                      # one slot
        return self.give(8, _be16(cdb + 8))

    cdef int disc_information(self, const u8 *cdb) noexcept nogil:
        cdef u8 *out = self.answer
        if cdb[1] & 7:
            return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)
        memset(out, 0, 34)
        out[1] = 32
        out[2] = 0x0E                           # complete disc, last session complete
        out[3] = out[4] = out[5] = out[6] = 1
        out[7] = 0x20                           # unrestricted use
        return self.give(34, _be16(cdb + 7))

    cdef int track_information(self, const u8 *cdb) noexcept nogil:
        cdef u8 *out = self.answer
        cdef u32 kind = cdb[1] & 3, number = _be32(cdb + 2)
        if kind == 0 and number >= self.total() or kind == 1 and number != 1 or kind == 2 and number != 1 or kind == 3:
            return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)
        memset(out, 0, 36)
        out[1] = 34
        out[2] = out[3] = 1                     # track, session
        out[5], out[6] = 4, 1                   # data track, mode 1
        _put32(out + 24, <u32>self.total())
        return self.give(36, _be16(cdb + 7))

    cdef int dvd_structure(self, const u8 *cdb) noexcept nogil:
        cdef u8 *out = self.answer
        cdef u32 form = cdb[7], layer = cdb[6], room = _be16(cdb + 8)
        cdef u64 total = self.total()
        if form < 0xFF:
            if not total:
                return self.fail(NOT_READY, ASC_NO_MEDIUM, 0)
            if total <= MOST_CD:
                return self.fail(ILLEGAL_REQUEST, ASC_INCOMPATIBLE_FORMAT, 0)
        memset(out, 0, 2052)
        if form == 0x00:                        # physical format
            if layer:
                return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)
            _put16(out, 2048 + 2)
            out[4], out[5], out[6] = 1, 0x0F, 1
            _put32(out + 12, <u32>(total - 1))
            _put32(out + 16, <u32>(total - 1))
            return self.give(2052, room)
        if form == 0x01:                        # no copyright protection
            _put16(out, 4 + 2)
            return self.give(8, room)
        if form == 0x04:                        # manufacturing information
            _put16(out, 2048 + 2)
            return self.give(2052, room)
        if form == 0xFF:                        # which of these there are
            out[4], out[5], out[9] = 0x00, 0x40, 4
            _put16(out + 6, 2048 + 4)
            out[8], out[9] = 0x01, 0x40
            _put16(out + 10, 4 + 4)
            out[12], out[13] = 0x04, 0x40
            _put16(out + 14, 2048 + 4)
            out[16], out[17] = 0xFF, 0x40
            _put16(out + 18, 4 * 4 + 4)
            _put16(out, 4 * 4 + 2)
            return self.give(20, room)
        return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)

    cdef int start_stop(self, const u8 *cdb) noexcept nogil:
        cdef bint load = cdb[4] & 2, start = cdb[4] & 1
        if cdb[4] & 0xF0 or not load:           # power conditions, spinning: nothing to see
            return PACKET_DONE
        if not start:
            if self.locked:
                return self.fail(ILLEGAL_REQUEST if self.total() else NOT_READY, ASC_REMOVAL_PREVENTED, 0)
            self.tray_open = True
            self.changed = self.event_new = False
        elif self.tray_open:
            self.tray_open = False
            self.changed = self.event_new = self.backend.size >= CD_BLOCK
        return PACKET_DONE


cdef int _run(PacketUnit unit, const u8 *cdb) noexcept nogil:
    return unit.packet(cdb)


cdef u64 _lba(PacketUnit unit) noexcept nogil:
    return unit.lba


cdef u32 _number(PacketUnit unit, int which) noexcept nogil:
    return unit.length if which == 0 else unit.blocks if which == 1 else unit.raw if which == 2 else unit.sense


cdef u8 *_answer(PacketUnit unit) noexcept nogil:
    return unit.answer


cdef void _failed(PacketUnit unit, int error) noexcept nogil:
    if error == 123:                            # ENOMEDIUM
        unit.fail(NOT_READY, ASC_NO_MEDIUM, 0)
    else:
        unit.fail(MEDIUM_ERROR, ASC_UNRECOVERED, 0)


cdef void _reset(PacketUnit unit) noexcept nogil:
    unit.sense = unit.asc = unit.ascq = 0
    unit.length = unit.blocks = 0


ctypedef int (*run_fn)(void *, const u8 *) noexcept nogil
ctypedef u64 (*lba_fn)(void *) noexcept nogil
ctypedef u32 (*number_fn)(void *, int) noexcept nogil
ctypedef u8 *(*answer_fn)(void *) noexcept nogil
ctypedef void (*failed_fn)(void *, int) noexcept nogil
ctypedef void (*reset_fn)(void *) noexcept nogil
cdef run_fn call_run = <run_fn>_run
cdef lba_fn call_lba = <lba_fn>_lba
cdef number_fn call_number = <number_fn>_number
cdef answer_fn call_answer = <answer_fn>_answer
cdef failed_fn call_failed = <failed_fn>_failed
cdef reset_fn call_reset = <reset_fn>_reset


cdef int packet_run(void *unit, const u8 *cdb) noexcept nogil:
    return call_run(unit, cdb)


cdef u32 packet_length(void *unit) noexcept nogil:
    return call_number(unit, 0)


cdef u32 packet_blocks(void *unit) noexcept nogil:
    return call_number(unit, 1)


cdef bint packet_raw(void *unit) noexcept nogil:
    return call_number(unit, 2)


cdef u8 packet_sense(void *unit) noexcept nogil:
    return <u8>call_number(unit, 3)


cdef u64 packet_lba(void *unit) noexcept nogil:
    return call_lba(unit)


cdef u8 *packet_answer(void *unit) noexcept nogil:
    return call_answer(unit)


cdef void packet_failed(void *unit, int error) noexcept nogil:
    call_failed(unit, error)


cdef void packet_reset(void *unit) noexcept nogil:
    call_reset(unit)
