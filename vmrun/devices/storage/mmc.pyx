"""What CD and DVD drives of every bus have in common: the medium, the tray, and the answers that describe them.

Ref: T10 MMC-5 (GET CONFIGURATION, events, disc and track information, DVD structures), SFF-8020i (READ TOC, READ CD).
Values are those that qemu-kvm's drives show. atapi.pyx puts it on an IDE cable, scsi_disk.pyx on a SCSI bus.
Not modelled: audio (no drive since 2000 has the analogue path), writing, several sessions, regions, CSS keys.

A medium is one data track: what the drive's image holds, in blocks of 2048 bytes. An image above MOST_CD is a DVD.
"""

from libc.string cimport memcpy, memset

cdef enum:
    READ_CD = 0xBE
    PROFILE_CD_ROM = 0x0008
    PROFILE_DVD_ROM = 0x0010
    LEAD_OUT = 0xAA
    DATA_TRACK = 0x14           # ADR 1, CONTROL 4

# Blocks of a CD of 80 minutes; more is a DVD.
cdef u64 MOST_CD = 80 * 60 * 75


cdef void _msf(u8 *p, u64 lba) noexcept nogil:
    """Minute, second, frame; block 0 is at 00:02:00."""
    lba += 150
    p[0], p[1], p[2] = <u8>(lba // 75 // 60), <u8>(lba // 75 % 60), <u8>(lba % 75)


cdef void sector_of(u8 *sector, const u8 *data, u64 lba) noexcept nogil:
    """The 2352 bytes of a mode 1 sector around 2048 of data; its error correction is left 0, as QEMU does."""
    memset(sector, 0xFF, 12)
    sector[0] = sector[11] = 0
    _msf(sector + 12, lba)
    sector[15] = 1
    memcpy(sector + 16, data, CD_BLOCK)
    memset(sector + 16 + CD_BLOCK, 0, CD_RAW - 16 - CD_BLOCK)


cdef class Mmc:
    """Answers go to `out`, which has room for the longest (2052 bytes); their length is returned, or MMC_…."""

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

    # --- answers ----------------------------------------------------------------------------------------------

    cdef int toc(self, u32 form, bint msf, u32 start, u8 *out) noexcept nogil:
        cdef u8 *to = out + 4
        cdef u32 n
        if form == 0:
            if start > 1 and start != LEAD_OUT:
                return MMC_FIELD
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
                put32(to + 4, <u32>self.total())
            to += 8
        elif form == 1:                         # sessions: one, from block 0
            out[2] = out[3] = 1
            memset(to, 0, 8)
            to += 8
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
                        put32(to + 7, <u32>self.total())
                elif msf:
                    _msf(to + 8, 0)
                to += 11
        else:
            return MMC_FIELD
        put16(out, <u32>(to - out) - 2)
        return <int>(to - out)

    cdef int configuration(self, const u8 *cdb, bint all, u8 *out) noexcept nogil:
        """The profile list; with `all` the core and removable-medium features behind it."""
        cdef u32 profile = 0, n, length = 20
        if self.total():
            profile = PROFILE_DVD_ROM if self.total() > MOST_CD else PROFILE_CD_ROM
        memset(out, 0, 40)
        put16(out + 6, profile)
        # feature 0, persistent and current, two profiles
        out[10], out[11] = 0x03, 8
        for n in range(2):
            put16(out + 12 + 4 * n, PROFILE_DVD_ROM if n == 0 else PROFILE_CD_ROM)
            out[14 + 4 * n] = 1 if profile == (PROFILE_DVD_ROM if n == 0 else PROFILE_CD_ROM) else 0
        if all:
            put16(out + 20, 1)
            out[22], out[23] = 0x0B, 8          # version 2, persistent, current
            put32(out + 24, 1)                  # SCSI
            out[28] = 1                         # device busy events
            put16(out + 32, 3)
            out[34], out[35], out[36] = 0x0B, 4, 0x39
            length = 40
        put32(out, length - 4)
        return <int>length

    cdef int event_status(self, const u8 *cdb, u8 *out) noexcept nogil:
        """Only the media class has events: a new medium, or the wish to have it out."""
        cdef u8 event = 0
        if not cdb[1] & 1:                      # asynchronous notification
            return MMC_FIELD
        memset(out, 0, 8)
        out[3] = 0x10                           # the classes that there are
        if not cdb[4] & 0x10:
            out[2] = 0x80
            return 4
        if self.event_new:
            event, self.event_new = 2, False
        elif self.event_eject:
            event, self.event_eject = 1, False
        out[2] = 4
        out[4] = event
        out[5] = (1 if self.tray_open else 0) | (2 if self.total() else 0)
        put16(out, 4)
        return 8

    cdef int mechanism_status(self, u8 *out) noexcept nogil:
        memset(out, 0, 8)
        out[5] = 1                              # one slot
        return 8

    cdef int disc_information(self, const u8 *cdb, u8 *out) noexcept nogil:
        if cdb[1] & 7:
            return MMC_FIELD
        memset(out, 0, 34)
        out[1] = 32
        out[2] = 0x0E                           # complete disc, last session complete
        out[3] = out[4] = out[5] = out[6] = 1
        out[7] = 0x20                           # unrestricted use
        return 34

    cdef int track_information(self, const u8 *cdb, u8 *out) noexcept nogil:
        cdef u32 kind = cdb[1] & 3, number = be32(cdb + 2)
        if kind == 0 and number >= self.total() or kind == 1 and number != 1 or kind == 2 and number != 1 or kind == 3:
            return MMC_FIELD
        memset(out, 0, 36)
        out[1] = 34
        out[2] = out[3] = 1                     # track, session
        out[5], out[6] = 4, 1                   # data track, mode 1
        put32(out + 24, <u32>self.total())
        return 36

    cdef int subchannel(self, u8 *out) noexcept nogil:
        memset(out, 0, 4)
        out[1] = 0x15                           # no audio status to tell
        return 4

    cdef int dvd_structure(self, const u8 *cdb, u8 *out) noexcept nogil:
        cdef u32 form = cdb[7], layer = cdb[6]
        cdef u64 total = self.total()
        if form < 0xFF:
            if not total:
                return MMC_NO_MEDIUM
            if total <= MOST_CD:
                return MMC_FORMAT
        memset(out, 0, 2052)
        if form == 0x00:                        # physical format
            if layer:
                return MMC_FIELD
            put16(out, 2048 + 2)
            out[4], out[5], out[6] = 1, 0x0F, 1
            put32(out + 12, <u32>(total - 1))
            put32(out + 16, <u32>(total - 1))
            return 2052
        if form == 0x01:                        # no copyright protection
            put16(out, 4 + 2)
            return 8
        if form == 0x04:                        # manufacturing information
            put16(out, 2048 + 2)
            return 2052
        if form == 0xFF:                        # which of these there are
            out[4], out[5], out[9] = 0x00, 0x40, 4
            put16(out + 6, 2048 + 4)
            out[8], out[9] = 0x01, 0x40
            put16(out + 10, 4 + 4)
            out[12], out[13] = 0x04, 0x40
            put16(out + 14, 2048 + 4)
            out[16], out[17] = 0xFF, 0x40
            put16(out + 18, 4 * 4 + 4)
            put16(out, 4 * 4 + 2)
            return 20
        return MMC_FIELD

    cdef int start_stop(self, const u8 *cdb) noexcept nogil:
        cdef bint load = cdb[4] & 2, start = cdb[4] & 1
        if cdb[4] & 0xF0 or not load:           # power conditions, spinning: nothing to see
            return 0
        if not start:
            if self.locked and not self.tray_open:
                return MMC_PREVENTED
            if self.tray_open:
                return 0
            self.tray_open = True
        elif self.tray_open:
            self.tray_open = False
        else:
            return 0
        self.changed = self.event_new = False   # what the guest did itself is no news: Linux would fail its next read
        with gil:
            if self.on_tray is not None:
                self.on_tray(bool(self.tray_open))
        return 0

    cdef int span(self, const u8 *cdb, u64 *lba, u64 *blocks) noexcept nogil:
        """What READ CD asks for: MMC_SPAN_…, or MMC_FIELD."""
        cdef u64 last
        cdef u8 parts = cdb[9] & 0xF8
        if cdb[0] == READ_CD:
            lba[0], blocks[0] = be32(cdb + 2), <u64>cdb[6] << 16 | be16(cdb + 7)
        else:
            lba[0] = (<u64>cdb[3] * 60 + cdb[4]) * 75 + cdb[5]
            last = (<u64>cdb[6] * 60 + cdb[7]) * 75 + cdb[8]
            if lba[0] < 150 or last < lba[0]:
                return MMC_FIELD
            lba[0], blocks[0] = lba[0] - 150, last - lba[0]
        if blocks[0] == 0 or parts == 0:
            return MMC_SPAN_NOTHING
        if parts == 0x10:
            return MMC_SPAN_DATA
        if parts == 0xF8:
            return MMC_SPAN_RAW
        return MMC_FIELD
