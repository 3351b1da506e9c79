"""A CD/DVD drive's packet commands: the interpreter alone. ata.pyx moves its packets and data, ide_cd.py puts it on a cable.

Ref: SFF-8020i (ATA packet interface for CD-ROMs); SPC-3 for INQUIRY, mode pages and sense data. Values are those that
qemu-kvm's drive shows. What a drive on any bus tells of its medium and its tray is mmc.pyx.
Departures, as in qemu-kvm: READ TOC's format is in the old field alone (the last byte); the profile list is the only
feature; additional sense qualifiers are 0.

A drive that gets another medium tells it as a UNIT ATTENTION and as a media event, once each.
"""

from libc.string cimport memcpy, memset

from vmrun.devices.storage.mmc cimport (
    CD_BLOCK, MMC_FIELD, MMC_FORMAT, MMC_NO_MEDIUM, MMC_PREVENTED, MMC_SPAN_RAW, Mmc, be16, be32, put16, put32,
)

from vmrun.backends.protocols cimport BlockBackend
from vmrun.devices.storage.scsi_codes cimport *

from vmrun.core.state import Flag, Table, U8

cdef enum:
    DEVICE_IDENTIFICATION = 0x83    # INQUIRY's page


cdef class PacketUnit(Mmc):
    """`text` is the vendor (8), product (16) and revision (4) that INQUIRY tells, `names` the descriptors of its page 83h."""

    state = Table(
        "atapi", 1, U8("sense", most=15), U8("asc"), U8("ascq"), Flag("locked"), Flag("tray_open"), Flag("changed"),
        Flag("event_new"), Flag("event_eject"),
    )
    save, load_state = state.methods()[1:]

    def __init__(self, BlockBackend backend, bytes text, bytes names=b""):
        if len(text) != 28 or len(names) > 124:
            raise ValueError("INQUIRY has 28 bytes of text, and 124 of names at most")
        self.backend = backend
        memcpy(self.text, <const u8 *>text, 28)
        self.named = <u32>len(names) + 4
        self.names[0], self.names[1], self.names[3] = 0x05, DEVICE_IDENTIFICATION, <u8>len(names)
        memcpy(self.names + 4, <const u8 *>names, len(names))
        self.reset()

    def reset(self):
        """Power-on. The tray and the medium stay as they are."""
        packet_reset(<void *>self)
        self.locked = False
        self.changed = self.event_new = self.event_eject = False

    # --- ends -----------------------------------------------------------------------------------------------

    cdef int fail(self, u8 sense, u8 asc, u8 ascq) noexcept nogil:
        self.sense, self.asc, self.ascq = sense, asc, ascq
        return PACKET_ERROR

    cdef int give(self, u32 length, u32 room) noexcept nogil:
        """Answer with as much of `length` bytes as the host has room for."""
        self.length = length if length < room else room
        return PACKET_ANSWER if self.length else PACKET_DONE

    cdef int tell(self, int length, u32 room) noexcept nogil:
        """Answer with what Mmc has written to `answer`, or the sense of what it returned instead."""
        if length == MMC_NO_MEDIUM:
            return self.fail(NOT_READY, ASC_NO_MEDIUM, 0)
        if length == MMC_FORMAT:
            return self.fail(ILLEGAL_REQUEST, ASC_INCOMPATIBLE_FORMAT, 0)
        if length == MMC_PREVENTED:
            return self.fail(NOT_READY if self.total() else ILLEGAL_REQUEST, ASC_REMOVAL_PREVENTED, 0)
        if length < 0:
            return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)
        return self.give(<u32>length, room)

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
            if cdb[1] & 2 or be16(cdb + 2):     # only all features, from the first on
                return self.tell(MMC_FIELD, 0)
            return self.tell(self.configuration(cdb, False, self.answer), be16(cdb + 7))
        if code == GET_EVENT_STATUS:
            return self.tell(self.event_status(cdb, self.answer), be16(cdb + 7))
        if code == MODE_SENSE_10:
            return self.mode_sense(cdb)
        if code == MODE_SELECT_10:
            return self.mode_select(cdb)
        if code == START_STOP:
            return self.tell(self.start_stop(cdb), 0)
        if code == PREVENT_ALLOW:
            self.locked = cdb[4] & 1
            return PACKET_DONE
        if code == MECHANISM_STATUS:
            return self.tell(self.mechanism_status(self.answer), be16(cdb + 8))
        if code == SET_SPEED or code == STOP_PLAY:
            return PACKET_DONE
        if code == READ_DVD_STRUCTURE:
            return self.tell(self.dvd_structure(cdb, self.answer), be16(cdb + 8))
        if code not in (
            TEST_UNIT_READY, READ_CAPACITY_10, READ_10, READ_12, READ_CD, READ_CD_MSF, SEEK_10, READ_SUBCHANNEL, READ_TOC,
            READ_DISC_INFORMATION, READ_TRACK_INFORMATION,
        ):
            return self.fail(ILLEGAL_REQUEST, ASC_ILLEGAL_OPCODE, 0)
        if not self.total():
            return self.fail(NOT_READY, ASC_NO_MEDIUM, 0)
        if code == READ_10:
            return self.read(be32(cdb + 2), be16(cdb + 7), False)
        if code == READ_12:
            return self.read(be32(cdb + 2), be32(cdb + 6), False)
        if code == READ_CD or code == READ_CD_MSF:
            return self.read_cd(cdb)
        if code == READ_CAPACITY_10:
            put32(self.answer, <u32>min(self.total() - 1, <u64>0xFFFFFFFF))
            put32(self.answer + 4, CD_BLOCK)
            return self.give(8, 8)
        if code == SEEK_10:
            if be32(cdb + 2) >= self.total():
                return self.fail(ILLEGAL_REQUEST, ASC_OUT_OF_RANGE, 0)
            return PACKET_DONE
        if code == READ_SUBCHANNEL:
            return self.tell(self.subchannel(self.answer), be16(cdb + 7))
        if code == READ_TOC:
            return self.tell(self.toc(cdb[9] >> 6, cdb[1] & 2, cdb[6], self.answer), be16(cdb + 7))
        if code == READ_DISC_INFORMATION:
            return self.tell(self.disc_information(cdb, self.answer), be16(cdb + 7))
        if code == READ_TRACK_INFORMATION:
            return self.tell(self.track_information(cdb, self.answer), be16(cdb + 7))
        return PACKET_DONE                      # TEST UNIT READY

    cdef int inquiry(self, const u8 *cdb) noexcept nogil:
        cdef u8 *out = self.answer
        if cdb[1] & 1 and cdb[2] == DEVICE_IDENTIFICATION:
            memcpy(out, self.names, self.named)
            return self.give(self.named, be16(cdb + 3))
        if cdb[1] & 1 and cdb[2] == 0:          # which pages there are
            memset(out, 0, 6)
            out[0], out[3], out[5] = 0x05, 2, DEVICE_IDENTIFICATION
            return self.give(6, be16(cdb + 3))
        if cdb[1] & 1 or cdb[2]:
            return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)
        memset(out, 0, 36)
        out[0] = 0x05                           # CD-ROM device
        out[1] = 0x80                           # removable
        out[3] = 0x21                           # ATAPI-2, response format 1
        out[4] = 31
        memcpy(out + 8, self.text, 28)
        return self.give(36, be16(cdb + 3))

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
        cdef u64 lba = 0, blocks = 0
        cdef int kind = self.span(cdb, &lba, &blocks)
        if kind < 0:
            return self.tell(kind, 0)
        return self.read(lba, blocks, kind == MMC_SPAN_RAW) if kind else PACKET_DONE

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
            put16(to + 8, 704)                 # KB/s
            to[11] = 2
            put16(to + 12, 512)                # KiB of buffer
            put16(to + 14, 704)
            to += 22
        if not known:
            return self.fail(ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)
        put16(out, <u32>(to - out) - 2)
        return self.give(<u32>(to - out), be16(cdb + 7))

    cdef int mode_select(self, const u8 *cdb) noexcept nogil:
        """The list is taken; nothing in it can be changed to any effect."""
        self.length = be16(cdb + 7)
        if self.length > 1024:
            return self.fail(ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH, 0)
        return PACKET_LIST if self.length else PACKET_DONE


cdef u64 call_lba(void *unit) noexcept nogil:
    return (<PacketUnit>unit).lba


cdef u32 call_number(void *unit, int which) noexcept nogil:
    return (<PacketUnit>unit).length if which == 0 else (<PacketUnit>unit).blocks if which == 1 else (<PacketUnit>unit).raw if which == 2 else (<PacketUnit>unit).sense


cdef u8 *call_answer(void *unit) noexcept nogil:
    return (<PacketUnit>unit).answer


cdef void call_failed(PacketUnit unit, int error) noexcept nogil:
    if error == 123:                            # ENOMEDIUM
        unit.fail(NOT_READY, ASC_NO_MEDIUM, 0)
    else:
        unit.fail(MEDIUM_ERROR, ASC_UNRECOVERED, 0)


cdef void call_reset(PacketUnit unit) noexcept nogil:
    unit.sense = unit.asc = unit.ascq = 0
    unit.length = unit.blocks = 0


cdef int packet_run(void *unit, const u8 *cdb) noexcept nogil:
    return (<PacketUnit>unit).packet(cdb)


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
    call_failed(<PacketUnit>unit, error)


cdef void packet_reset(void *unit) noexcept nogil:
    call_reset(<PacketUnit>unit)
