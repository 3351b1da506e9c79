"""Mode pages of SCSI disks and CD-ROM drives: what MODE SENSE tells and MODE SELECT changes.

Ref: T10 SPC-3, SBC-3, MMC-5. Values are those that qemu-kvm's units show. Pages are made when they are asked for, as the cache
bit and the door's lock change.
"""

from libc.string cimport memcpy, memset

from vmrun.devices.storage.mmc cimport be16, be32, put16, put32
from vmrun.devices.storage.scsi cimport scsi_fail, scsi_good, scsi_own
from vmrun.devices.storage.scsi_codes cimport *

cdef enum:
    CURRENT = 0
    CHANGEABLE = 1
    SAVED = 3
    WCE = 4


cdef class PagedUnit(ScsiUnit):
    """A unit on `drive` with a tray; `geometry` and `flexible` are what those pages say behind their header."""

    cdef u32 block(self) noexcept nogil:
        return self.block_size

    cdef u64 blocks(self) noexcept nogil:
        return self.drive.size // self.block_size

    cdef bint here(self) noexcept nogil:
        """Whether there is a medium to be read."""
        return self.drive.size != 0 and not self.mmc.tray_open

    cdef bint caches(self) noexcept nogil:
        cdef bint on
        with gil:
            on = bool(getattr(self.drive, "write_cache", True))
        return on

    cdef u8 *room(self, ScsiRequest *request) noexcept nogil:
        """Zeroed memory for an answer. NULL: the host has no memory."""
        return scsi_own(request, request.expected)

    cdef int bad_field(self, ScsiRequest *request) noexcept nogil:
        return scsi_fail(request, ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0)

    cdef int mode_page(self, u8 page, u8 control, u8 *out) noexcept nogil:
        """The page with its header; its length, 0 when there is none."""
        cdef u8 *p = out + 2
        cdef u32 length
        if page == PAGE_GEOMETRY and not self.cd:
            length = 22
            if control != CHANGEABLE:
                memcpy(p, self.geometry, 22)
        elif page == PAGE_FLEXIBLE and not self.cd:
            length = 30
            if control != CHANGEABLE:
                memcpy(p, self.flexible, 30)
        elif page == PAGE_CACHING:
            length = 18
            if control == CHANGEABLE or self.caches():
                p[0] = WCE
        elif page == PAGE_ERROR_RECOVERY:
            length = 10
            if control != CHANGEABLE or self.cd:
                p[0] = 0x80                                     # writes are reallocated
            if control != CHANGEABLE and self.cd:
                p[1] = 0x20                                     # reads are tried again so often
        elif page == PAGE_AUDIO and self.cd:
            length = 14
        elif page == PAGE_CAPABILITIES and self.cd:
            length = 20
            if control != CHANGEABLE:
                p[0] = 0x3B                                     # reads CD-R, CD-RW, method 2, DVD-ROM, DVD-R
                p[2], p[3] = 0x7F, 0xFF
                p[4] = 0x2D | (2 if self.mmc.locked else 0)     # tray, ejects, locks
                put16(p + 6, 50 * 176)                          # KB/s
                put16(p + 8, 2)
                put16(p + 10, 2048)                             # KiB of buffer
                put16(p + 12, 16 * 176)
                put16(p + 16, 16 * 176)
                put16(p + 18, 16 * 176)
        else:
            return 0
        out[0], out[1] = page, <u8>length
        return <int>length + 2

    cdef int mode_sense(self, ScsiRequest *request) noexcept nogil:
        cdef u8 *cdb = request.cdb
        cdef u8 page = cdb[2] & 0x3F, control = cdb[2] >> 6
        cdef bint short = cdb[0] == MODE_SENSE
        cdef u32 at = 4 if short else 8, n
        cdef u64 count = self.blocks() if self.here() else 0
        cdef u8 *out = self.room(request)
        if out == NULL:
            return scsi_fail(request, HARDWARE_ERROR, ASC_INTERNAL_FAILURE, 0)
        if not self.cd:
            out[2 if short else 3] = (0x10 if self.dpofua else 0) | (0x80 if self.drive.readonly else 0)
        if not cdb[1] & 8 and count and not self.cd:            # a block descriptor
            out[3 if short else 7] = 8
            put32(out + at, <u32>(count if count <= 0xFFFFFF else 0))
            put32(out + at + 4, self.block_size)
            at += 8
        if control == SAVED:
            return scsi_fail(request, ILLEGAL_REQUEST, ASC_SAVING_NOT_SUPPORTED, 0)
        if page == PAGE_ALL:
            for n in range(PAGE_ALL):
                at += self.mode_page(<u8>n, control, out + at)
        else:
            n = self.mode_page(page, control, out + at)
            if not n:
                return self.bad_field(request)
            at += n
        if short:
            out[0] = <u8>(at - 1)
        else:
            put16(out, at - 2)
        return self.answer(request, at)

    cdef int mode_select(self, ScsiRequest *request) noexcept nogil:
        """The list is there: first all of it is looked at, then it is acted upon."""
        cdef u8 *cdb = request.cdb
        cdef u8 *list = request.own
        cdef u8 now[64]
        cdef u8 mask[64]
        cdef bint short = cdb[0] == MODE_SELECT
        cdef u32 total = <u32>request.expected, at = 4 if short else 8, descriptor, n, header, length, size
        cdef int found, caching = -1
        if cdb[1] & 0x11 != 0x10:                               # page format, nothing saved
            return self.bad_field(request)
        if total < at:
            return scsi_fail(request, ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH, 0)
        descriptor = list[3] if short else be16(list + 6)
        if total - at < descriptor:
            return scsi_fail(request, ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH, 0)
        if descriptor != 0 and descriptor != 8:
            return scsi_fail(request, ILLEGAL_REQUEST, ASC_INVALID_PARAMETER, 0)
        size = be32(list + at + 4) & 0xFFFFFF if descriptor else 0
        at += descriptor
        while at < total:
            header = 4 if list[at] & 0x40 else 2
            if total - at < header:
                return scsi_fail(request, ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH, 0)
            length = be16(list + at + 2) if header == 4 else list[at + 1]
            if header == 4 and list[at + 1]:                    # a sub-page
                return scsi_fail(request, ILLEGAL_REQUEST, ASC_INVALID_PARAMETER, 0)
            if length > total - at - header:
                return scsi_fail(request, ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH, 0)
            memset(now, 0, 64)
            memset(mask, 0, 64)
            found = self.mode_page(list[at] & 0x3F, CURRENT, now)
            self.mode_page(list[at] & 0x3F, CHANGEABLE, mask)
            if not found or length != now[1]:
                return scsi_fail(request, ILLEGAL_REQUEST, ASC_INVALID_PARAMETER, 0)
            for n in range(length):
                if (now[2 + n] ^ list[at + header + n]) & ~mask[2 + n]:
                    return scsi_fail(request, ILLEGAL_REQUEST, ASC_INVALID_PARAMETER, 0)
            if list[at] & 0x3F == PAGE_CACHING:
                caching = list[at + header] & WCE
            at += header + length
        if size and not size & ~<u32>0xFE00:
            self.block_size = size
        if caching >= 0:
            with gil:
                self.drive.write_cache = bool(caching)
        if self.caches():
            return scsi_good(request)
        request.step = FLUSHING
        return self.flush(request)
