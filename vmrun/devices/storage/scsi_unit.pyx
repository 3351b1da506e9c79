"""Disks and CD-ROM drives as they answer SCSI commands: the interpreter alone. scsi.pyx moves its data, scsi_disk.py makes
it and puts it on a bus.

Ref: T10 SPC-3 (INQUIRY, sense), SBC-3 (block commands, UNMAP, WRITE SAME), MMC-5 (in mmc.pyx). Values are those
that qemu-kvm's units show.
Not modelled: persistent reservations, protection information, VERIFY that compares, ORWRITE, XOR, COMPARE AND WRITE,
self-tests, logs: each ends as an invalid command. RESERVE and RELEASE succeed: there is one initiator.

INQUIRY's pages are made by the glue; mode pages are scsi_modes.pyx.
"""

from libc.string cimport memcpy

from vmrun.backends.protocols cimport BLOCK_DISCARD, BLOCK_FUA, BLOCK_UNMAP, BLOCK_WRITE, BLOCK_ZERO, BlockBackend
from vmrun.devices.storage.mmc cimport (
    CD_BLOCK, MMC_FIELD, MMC_FORMAT, MMC_NO_MEDIUM, MMC_PREVENTED, MMC_SPAN_DATA, MMC_SPAN_NOTHING, Mmc, be16, be32,
    be64, put32, put64,
)
from vmrun.devices.storage.scsi cimport SCSI_OWN, ScsiUnit, scsi_fail, scsi_good, scsi_io, scsi_own
from vmrun.devices.storage.scsi_codes cimport *
from vmrun.devices.storage.scsi_modes cimport FLUSHING

from vmrun.core.state import KEEP, Flag, Table, U8, U32
from vmrun.errors import StateError

cdef enum:
    MOST_INQUIRY = 256
    SAME_PIECE = 524288             # bytes of a pattern that are written at a time
    # steps of commands that do I/O of their own, beside FLUSHING
    UNMAPPING = 2
    SAMING = 3


cdef bint writes(u8 code) noexcept nogil:
    return code in (
        WRITE_6, WRITE_10, WRITE_12, WRITE_16, WRITE_VERIFY_10, WRITE_VERIFY_12, WRITE_VERIFY_16, WRITE_SAME_10,
        WRITE_SAME_16, UNMAP, FORMAT_UNIT,
    )


cdef class DiskUnit(PagedUnit):
    """`cd` or disk on `drive`, with blocks of `block_size`. `inquiry`: the standard data, 36 bytes; `vital`: page → bytes of
    each vital product data page, header and all; `geometry`, `flexible`: what those mode pages say behind their header.
    """

    state = Table(
        "scsi-disk", 1,
        Flag("attention", True), U8("attention_asc", ASC_RESET), U8("attention_ascq"), U8("sense_key", most=15),
        U8("sense_asc"), U8("sense_ascq"), Flag("sense_is_attention"), U32("block_size", KEEP, least=256, most=0xFE00),
        Flag("locked"), Flag("tray_open", KEEP), Flag("changed"), Flag("event_new"), Flag("event_eject"),
        Flag("medium_to_tell"),
    )
    reset, save, load_state = state.methods()

    def __init__(
        self, BlockBackend drive, bint cd, u32 block_size, bytes inquiry, dict vital, bytes geometry, bytes flexible,
        bint removable=False,
    ):
        if len(inquiry) != 36 or len(geometry) != 22 or len(flexible) != 30 or len(vital) > MOST_PAGES:
            raise ValueError("a page has another size")
        self.drive, self.cd, self.block_size, self.removable = drive, cd, block_size, removable or cd
        self.backend = <void *>drive
        self.mmc = Mmc()
        self.mmc.backend = drive
        memcpy(self.inquiry, <const u8 *>inquiry, 36)
        memcpy(self.geometry, <const u8 *>geometry, 22)
        memcpy(self.flexible, <const u8 *>flexible, 30)
        self.vital_data = list(vital.values())
        for n, code in enumerate(sorted(vital)):
            self.pages[n] = VitalPage(code, len(vital[code]), <const u8 *><bytes>vital[code])
        self.page_count = len(vital)
        self.strict = True
        self.reset()

    # What of its state is the tray's.
    @property
    def locked(self):
        return self.mmc.locked

    @locked.setter
    def locked(self, value):
        self.mmc.locked = value

    @property
    def tray_open(self):
        return self.mmc.tray_open

    @tray_open.setter
    def tray_open(self, value):
        self.mmc.tray_open = value

    @property
    def changed(self):
        return self.mmc.changed

    @changed.setter
    def changed(self, value):
        self.mmc.changed = value

    @property
    def event_new(self):
        return self.mmc.event_new

    @event_new.setter
    def event_new(self, value):
        self.mmc.event_new = value

    @property
    def event_eject(self):
        return self.mmc.event_eject

    @event_eject.setter
    def event_eject(self, value):
        self.mmc.event_eject = value

    @property
    def on_tray(self):
        return self.mmc.on_tray

    @on_tray.setter
    def on_tray(self, value):
        self.mmc.on_tray = value

    def standard_inquiry(self):
        """36 bytes."""
        return bytes(self.inquiry[:36])

    def vital_page(self, u8 code):
        """With its header; nothing when there is no such page."""
        for page in self.vital_data:
            if page[1] == code:
                return page
        return b""

    def check_state(self, values):
        if values["block_size"] % 256:
            raise StateError("a block is no multiple of 256 bytes")

    # --- from the host ----------------------------------------------------------------------------------------

    def medium_changed(self, bint loaded):
        """The tray closed over a medium, or opened. The device lock is held."""
        self.mmc.medium_changed(loaded)
        self.mmc.changed = False
        self.medium_to_tell = loaded
        self.attend(ASC_NO_MEDIUM, 0)

    def eject_asked(self):
        self.mmc.eject_asked()

    cdef void reset_unit(self) noexcept nogil:
        self.mmc.locked = False
        self.medium_to_tell = False
        self.attend(ASC_RESET, 0)

    cdef void attention_reported(self) noexcept nogil:
        if self.medium_to_tell:
            self.medium_to_tell = False
            self.attend(ASC_MEDIUM_CHANGED, 0)

    # --- commands ---------------------------------------------------------------------------------------------

    cdef bint in_range(self, u64 lba, u64 count) noexcept nogil:
        return lba <= self.blocks() and count <= self.blocks() - lba

    cdef int answer(self, ScsiRequest *request, u64 length) noexcept nogil:
        """As in qemu-kvm an answer fills the room that the command has for it, with zeros at its end."""
        return ScsiUnit.answer(self, request, request.expected)

    cdef int described(self, ScsiRequest *request, int length) noexcept nogil:
        """Answer with what Mmc has written into `own`, or the sense of what it returned instead."""
        if length == MMC_NO_MEDIUM:
            return scsi_fail(request, NOT_READY, ASC_NO_MEDIUM, 0)
        if length == MMC_FORMAT:
            return scsi_fail(request, ILLEGAL_REQUEST, ASC_INCOMPATIBLE_FORMAT, 0)
        if length == MMC_PREVENTED:
            return scsi_fail(request, ILLEGAL_REQUEST if self.here() else NOT_READY, ASC_REMOVAL_PREVENTED, 2)
        if length < 0:
            return self.bad_field(request)
        return self.answer(request, <u64>length)

    cdef int command(self, ScsiRequest *request) noexcept nogil:
        cdef u8 *cdb = request.cdb
        cdef u8 code = cdb[0]
        cdef int result
        if request.expected > SCSI_OWN and code not in (
            READ_10, READ_12, READ_16, WRITE_10, WRITE_12, WRITE_16, WRITE_VERIFY_10, WRITE_VERIFY_12, WRITE_VERIFY_16,
            READ_6, WRITE_6,
        ):
            return self.bad_field(request)
        # Without a medium too.
        if code == INQUIRY:
            return self.inquire(request)
        if code == MODE_SENSE or code == MODE_SENSE_10:
            return self.mode_sense(request)
        if code == RESERVE or code == RELEASE:
            return self.bad_field(request) if cdb[1] & 1 else scsi_good(request)
        if code == RESERVE_10 or code == RELEASE_10:
            return self.bad_field(request) if cdb[1] & 3 else scsi_good(request)
        if code == PREVENT_ALLOW:
            self.mmc.locked = cdb[4] & 1
            return scsi_good(request)
        if code == REQUEST_SENSE:                               # nothing to be told
            if self.room(request) == NULL:
                return scsi_fail(request, HARDWARE_ERROR, ASC_INTERNAL_FAILURE, 0)
            if cdb[1] & 1:
                request.own[0] = 0x72
                return self.answer(request, 8)
            request.own[0], request.own[7] = 0x70, 10
            return self.answer(request, 18)
        if code == START_STOP:
            if self.removable:
                result = self.mmc.start_stop(cdb)
                if result < 0:
                    return self.described(request, result)
            return scsi_good(request)
        if self.cd and code in (GET_CONFIGURATION, GET_EVENT_STATUS, MECHANISM_STATUS, SET_SPEED, STOP_PLAY):
            return self.cd_command(request)
        if code == READ_DVD_STRUCTURE and self.cd and cdb[7] == 0xFF:
            return self.cd_command(request)
        if not self.here():
            return scsi_fail(request, NOT_READY, ASC_NO_MEDIUM, 0)
        if code in (READ_6, READ_10, READ_12, READ_16):
            if code == READ_6:
                return self.read_write(
                    request, False, be32(cdb) & 0x1FFFFF, request.expected // self.block_size
                )
            return self.read_write(
                request, False, be64(cdb + 2) if code == READ_16 else be32(cdb + 2), request.expected // self.block_size
            )
        if code == TEST_UNIT_READY:
            return scsi_good(request)
        if code == READ_CAPACITY_10:
            return self.read_capacity(request, False)
        if code == SYNCHRONIZE_CACHE or code == SYNCHRONIZE_CACHE_16:
            request.step = FLUSHING
            return self.flush(request)
        if code == MODE_SELECT or code == MODE_SELECT_10:
            return self.take_list(request, request.expected) if request.expected else scsi_good(request)
        if code == SEEK_10:
            if not self.in_range(be32(cdb + 2), 1):
                return scsi_fail(request, ILLEGAL_REQUEST, ASC_OUT_OF_RANGE, 0)
            return scsi_good(request)
        if code == SERVICE_ACTION_IN_16 and cdb[1] & 31 == SAI_READ_CAPACITY_16:
            return self.read_capacity(request, True)
        if code == SERVICE_ACTION_IN_16:
            return self.bad_field(request)
        if code in (VERIFY_10, VERIFY_12, VERIFY_16):
            if cdb[1] & 6:                                      # comparing
                return self.bad_field(request)
            if not self.in_range(
                be64(cdb + 2) if code == VERIFY_16 else be32(cdb + 2),
                be16(cdb + 7) if code == VERIFY_10 else be32(cdb + (6 if code == VERIFY_12 else 10)),
            ):
                return scsi_fail(request, ILLEGAL_REQUEST, ASC_OUT_OF_RANGE, 0)
            return scsi_good(request)
        return self.cd_command(request) if self.cd and not writes(code) else self.disk_command(request)

    cdef int disk_command(self, ScsiRequest *request) noexcept nogil:
        """What changes blocks; a disc drive refuses it as a disk does that may only be read."""
        cdef u8 *cdb = request.cdb
        cdef u8 code = cdb[0]
        if code in (WRITE_6, WRITE_10, WRITE_12, WRITE_16, WRITE_VERIFY_10, WRITE_VERIFY_12, WRITE_VERIFY_16):
            if code == WRITE_6:
                return self.read_write(request, True, be32(cdb) & 0x1FFFFF, request.expected // self.block_size)
            return self.read_write(
                request, True, be64(cdb + 2) if code in (WRITE_16, WRITE_VERIFY_16) else be32(cdb + 2),
                request.expected // self.block_size,
            )
        if code == WRITE_SAME_10 or code == WRITE_SAME_16:
            return self.take_list(request, request.expected)
        if code == UNMAP:
            if not request.expected:
                return scsi_good(request)
            return self.take_list(request, request.expected)
        if code == FORMAT_UNIT and not cdb[1]:
            return scsi_good(request)
        return scsi_fail(request, ILLEGAL_REQUEST, ASC_ILLEGAL_OPCODE, 0)

    cdef int cd_command(self, ScsiRequest *request) noexcept nogil:
        cdef u8 *cdb = request.cdb
        cdef u8 code = cdb[0]
        cdef u64 lba = 0, count = 0
        cdef u8 *out
        cdef int kind
        if code == SET_SPEED or code == STOP_PLAY:
            return scsi_good(request)
        out = self.room(request)
        if out == NULL:
            return scsi_fail(request, HARDWARE_ERROR, ASC_INTERNAL_FAILURE, 0)
        if code == GET_CONFIGURATION:
            return self.described(request, self.mmc.configuration(cdb, True, out))
        if code == GET_EVENT_STATUS:
            return self.described(request, self.mmc.event_status(cdb, out))
        if code == MECHANISM_STATUS:
            return self.described(request, self.mmc.mechanism_status(out))
        if code == READ_TOC:
            return self.described(request, self.mmc.toc(cdb[2] & 15, cdb[1] & 2, cdb[6], out))
        if code == READ_DISC_INFORMATION:
            return self.described(request, self.mmc.disc_information(cdb, out))
        if code == READ_TRACK_INFORMATION:
            return self.described(request, self.mmc.track_information(cdb, out))
        if code == READ_DVD_STRUCTURE:
            return self.bad_field(request) if cdb[1] else self.described(request, self.mmc.dvd_structure(cdb, out))
        if code == READ_SUBCHANNEL:
            return self.described(request, self.mmc.subchannel(out))
        if code == READ_CD:
            kind = self.mmc.span(cdb, &lba, &count)
            if kind == MMC_SPAN_NOTHING:
                return scsi_good(request)
            # Whole sectors are for ripping programs; the data of blocks that are not 2048 bytes nobody asks for.
            if kind != MMC_SPAN_DATA or self.block_size != CD_BLOCK:
                return self.bad_field(request)
            request.expected = count * CD_BLOCK
            return self.read_write(request, False, lba, count)
        return scsi_fail(request, ILLEGAL_REQUEST, ASC_ILLEGAL_OPCODE, 0)

    cdef int inquire(self, ScsiRequest *request) noexcept nogil:
        cdef u8 *cdb = request.cdb
        cdef u8 *out
        cdef u32 n, length
        if cdb[1] & 2 or not cdb[1] & 1 and cdb[2]:
            return self.bad_field(request)
        out = self.room(request)
        if out == NULL:
            return scsi_fail(request, HARDWARE_ERROR, ASC_INTERNAL_FAILURE, 0)
        if cdb[1] & 1:
            for n in range(self.page_count):
                if self.pages[n].code == cdb[2]:
                    memcpy(out, self.pages[n].data, self.pages[n].length)
                    return self.answer(request, self.pages[n].length)
            return self.bad_field(request)
        length = <u32>min(request.expected, <u64>MOST_INQUIRY)
        memcpy(out, self.inquiry, 36)
        if length > 36:
            out[4] = <u8>(length - 5)
        return self.answer(request, length)

    cdef bint protected(self) noexcept nogil:
        """Of a disc whatever its drive says: `media` may be forgotten."""
        return self.cd or self.drive.readonly

    cdef int read_write(self, ScsiRequest *request, bint write, u64 lba, u64 count) noexcept nogil:
        cdef u8 *cdb = request.cdb
        cdef u32 flags = 0
        if write and self.protected():
            return scsi_fail(request, DATA_PROTECT, ASC_WRITE_PROTECTED, 0)
        if cdb[0] >> 5 and self.strict and cdb[1] & 0xE0 and cdb[0] != READ_CD:     # protection information
            return self.bad_field(request)
        if not self.in_range(lba, count):
            return scsi_fail(request, ILLEGAL_REQUEST, ASC_OUT_OF_RANGE, 0)
        if write and (cdb[0] in (WRITE_VERIFY_10, WRITE_VERIFY_12, WRITE_VERIFY_16) or cdb[0] != WRITE_6 and cdb[1] & 8):
            flags = BLOCK_FUA
        return self.transfer(request, write, lba * self.block_size, count * self.block_size, flags)

    cdef int read_capacity(self, ScsiRequest *request, bint long) noexcept nogil:
        cdef u8 *cdb = request.cdb
        cdef u8 *out = self.room(request)
        cdef u64 last = self.blocks() - 1
        if out == NULL:
            return scsi_fail(request, HARDWARE_ERROR, ASC_INTERNAL_FAILURE, 0)
        if not self.blocks():
            return scsi_fail(request, NOT_READY, ASC_NOT_READY, 3)
        if long:
            if not cdb[14] & 1 and be64(cdb + 2):
                return self.bad_field(request)
            put64(out, last)
            put32(out + 8, self.block_size)
            out[13] = self.physical_exponent
            out[14] = 0x80 if self.thin else 0
            return self.answer(request, request.expected if request.expected < 32 else 32)
        if not cdb[8] & 1 and be32(cdb + 2):
            return self.bad_field(request)
        put32(out, <u32>min(last, <u64>0xFFFFFFFF))
        put32(out + 4, self.block_size)
        return self.answer(request, 8)

    # --- parameter lists, and I/O of its own ------------------------------------------------------------------

    cdef int listed(self, ScsiRequest *request) noexcept nogil:
        cdef u8 code = request.cdb[0]
        if request.step == FLUSHING:
            return scsi_good(request)
        if request.step == UNMAPPING:
            return self.unmap_more(request)
        if request.step == SAMING:
            return self.same_more(request)
        if code == MODE_SELECT or code == MODE_SELECT_10:
            return self.mode_select(request)
        if code == UNMAP:
            return self.unmap(request)
        return self.write_same(request)

    cdef int write_same(self, ScsiRequest *request) noexcept nogil:
        cdef u8 *cdb = request.cdb
        cdef bint wide = cdb[0] == WRITE_SAME_16
        cdef u64 lba = be64(cdb + 2) if wide else be32(cdb + 2)
        cdef u64 count = be32(cdb + 10) if wide else be16(cdb + 7)
        cdef u32 n
        cdef bint zero = True
        if not count or cdb[1] & 0x16:                          # anchors, and patterns with addresses in them
            return self.bad_field(request)
        if self.protected():
            return scsi_fail(request, DATA_PROTECT, ASC_WRITE_PROTECTED, 0)
        if not self.in_range(lba, count):
            return scsi_fail(request, ILLEGAL_REQUEST, ASC_OUT_OF_RANGE, 0)
        request.offset, request.span, request.step = lba * self.block_size, count * self.block_size, SAMING
        if not cdb[1] & 1:
            for n in range(self.block_size):
                if request.own[n]:
                    zero = False
                    break
        if zero:
            n = BLOCK_UNMAP if cdb[1] & 8 else 0
            count, request.span = request.span, 0
            return scsi_io(request, BLOCK_ZERO, request.offset, count, n)
        return self.same_more(request)

    cdef int same_more(self, ScsiRequest *request) noexcept nogil:
        """The next piece of a pattern: `own` has one block, then as many of it as are written at a time."""
        cdef u64 size = request.span, at
        cdef u32 most = SAME_PIECE // self.block_size * self.block_size
        if not size:
            return scsi_good(request)
        if size > most:
            size = most
        if request.own_size < size:
            if self.spread(request, size) != 0:
                return scsi_fail(request, HARDWARE_ERROR, ASC_INTERNAL_FAILURE, 0)
        elif request.data == NULL:
            at = self.block_size
            while at < size:
                memcpy(request.own + at, request.own, self.block_size)
                at += self.block_size
        request.data = request.own
        at = request.offset
        request.offset += size
        request.span -= size
        return scsi_io(request, BLOCK_WRITE, at, size, 0)

    cdef int spread(self, ScsiRequest *request, u64 size) noexcept nogil:
        """`own` becomes `size` bytes of the block that it begins with. 0, or -1: no memory."""
        cdef u8 block[0xFE00]
        cdef u64 at
        memcpy(block, request.own, self.block_size)
        if scsi_own(request, size) == NULL:
            return -1
        at = 0
        while at < size:
            memcpy(request.own + at, block, self.block_size)
            at += self.block_size
        return 0

    cdef int unmap(self, ScsiRequest *request) noexcept nogil:
        cdef u8 *list = request.own
        cdef u32 total = <u32>request.expected, length
        if total < 8 or total < be16(list) + 2 or total < be16(list + 2) + 8 or be16(list + 2) & 15:
            return scsi_fail(request, ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH, 0)
        if self.protected():
            return scsi_fail(request, DATA_PROTECT, ASC_WRITE_PROTECTED, 0)
        length = be16(list + 2)
        request.offset, request.span, request.step = 8, 8 + length, UNMAPPING
        return self.unmap_more(request)

    cdef int unmap_more(self, ScsiRequest *request) noexcept nogil:
        """The next range of the list: `offset` is where it stands, `span` where the list ends."""
        cdef u64 lba
        cdef u32 count
        while request.offset < request.span:
            lba, count = be64(request.own + request.offset), be32(request.own + request.offset + 8)
            request.offset += 16
            if not self.in_range(lba, count):
                return scsi_fail(request, ILLEGAL_REQUEST, ASC_OUT_OF_RANGE, 0)
            if count:
                return scsi_io(request, BLOCK_DISCARD, lba * self.block_size, <u64>count * self.block_size, 0)
        return scsi_good(request)
