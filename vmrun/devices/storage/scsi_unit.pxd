from accel.api cimport u8, u32, u64
from vmrun.devices.storage.scsi cimport ScsiRequest
from vmrun.devices.storage.scsi_modes cimport PagedUnit

cdef enum:
    MOST_PAGES = 16

ctypedef struct VitalPage:
    u8 code
    u32 length
    const u8 *data


cdef class DiskUnit(PagedUnit):
    cdef readonly bint removable
    cdef public bint thin, strict       # strict: SCSI-3 or later, protection bits are looked at
    cdef public u32 physical_exponent
    cdef public bint medium_to_tell     # a unit attention of the new medium follows that of the old one's going
    cdef u8 inquiry[36]
    cdef readonly list vital_data
    cdef VitalPage pages[MOST_PAGES]
    cdef u32 page_count
    cdef bint in_range(self, u64 lba, u64 count) noexcept nogil
    cdef int described(self, ScsiRequest *request, int length) noexcept nogil
    cdef int cd_command(self, ScsiRequest *request) noexcept nogil
    cdef int disk_command(self, ScsiRequest *request) noexcept nogil
    cdef int inquire(self, ScsiRequest *request) noexcept nogil
    cdef bint protected(self) noexcept nogil
    cdef int read_write(self, ScsiRequest *request, bint write, u64 lba, u64 count) noexcept nogil
    cdef int read_capacity(self, ScsiRequest *request, bint long) noexcept nogil
    cdef int write_same(self, ScsiRequest *request) noexcept nogil
    cdef int same_more(self, ScsiRequest *request) noexcept nogil
    cdef int spread(self, ScsiRequest *request, u64 size) noexcept nogil
    cdef int unmap(self, ScsiRequest *request) noexcept nogil
    cdef int unmap_more(self, ScsiRequest *request) noexcept nogil
