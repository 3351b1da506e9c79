from accel.api cimport u8, u16, u32, u64
from vmrun.backends.protocols cimport BlockBackend
from vmrun.devices.storage.mmc cimport Mmc
from vmrun.devices.storage.scsi cimport ScsiRequest, ScsiUnit

cdef enum:
    MOST_PAGES = 16

ctypedef struct VitalPage:
    u8 code
    u32 length
    const u8 *data


cdef class DiskUnit(ScsiUnit):
    cdef readonly BlockBackend drive
    cdef readonly Mmc mmc
    cdef readonly bint cd, removable
    cdef public bint dpofua, thin, strict   # strict: SCSI-3 or later, protection bits are looked at
    cdef public u32 block_size, physical_exponent
    cdef public bint medium_to_tell     # a unit attention of the new medium follows that of the old one's going
    cdef u8 inquiry[36]
    cdef u8 geometry[22]
    cdef u8 flexible[30]
    cdef readonly list vital_data
    cdef VitalPage pages[MOST_PAGES]
    cdef u32 page_count
    cdef u64 blocks(self) noexcept nogil
    cdef bint here(self) noexcept nogil
    cdef bint in_range(self, u64 lba, u64 count) noexcept nogil
    cdef bint caches(self) noexcept nogil
    cdef u8 *room(self, ScsiRequest *request) noexcept nogil
    cdef int bad_field(self, ScsiRequest *request) noexcept nogil
    cdef int described(self, ScsiRequest *request, int length) noexcept nogil
    cdef int cd_command(self, ScsiRequest *request) noexcept nogil
    cdef int disk_command(self, ScsiRequest *request) noexcept nogil
    cdef int inquire(self, ScsiRequest *request) noexcept nogil
    cdef bint protected(self) noexcept nogil
    cdef int read_write(self, ScsiRequest *request, bint write, u64 lba, u64 count) noexcept nogil
    cdef int read_capacity(self, ScsiRequest *request, bint long) noexcept nogil
    cdef int mode_page(self, u8 page, u8 control, u8 *out) noexcept nogil
    cdef int mode_sense(self, ScsiRequest *request) noexcept nogil
    cdef int mode_select(self, ScsiRequest *request) noexcept nogil
    cdef int write_same(self, ScsiRequest *request) noexcept nogil
    cdef int same_more(self, ScsiRequest *request) noexcept nogil
    cdef int spread(self, ScsiRequest *request, u64 size) noexcept nogil
    cdef int unmap(self, ScsiRequest *request) noexcept nogil
    cdef int unmap_more(self, ScsiRequest *request) noexcept nogil
