from accel.api cimport u8, u32, u64
from vmrun.backends.protocols cimport BlockBackend
from vmrun.devices.storage.mmc cimport Mmc
from vmrun.devices.storage.scsi cimport ScsiRequest, ScsiUnit

cdef enum:
    FLUSHING = 1                        # a command's step: what was written is being flushed, then it is over


cdef class PagedUnit(ScsiUnit):
    cdef readonly BlockBackend drive
    cdef readonly Mmc mmc
    cdef readonly bint cd
    cdef public bint dpofua
    cdef public u32 block_size
    cdef u8 geometry[22]
    cdef u8 flexible[30]
    cdef u64 blocks(self) noexcept nogil
    cdef bint here(self) noexcept nogil
    cdef bint caches(self) noexcept nogil
    cdef u8 *room(self, ScsiRequest *request) noexcept nogil
    cdef int bad_field(self, ScsiRequest *request) noexcept nogil
    cdef int mode_page(self, u8 page, u8 control, u8 *out) noexcept nogil
    cdef int mode_sense(self, ScsiRequest *request) noexcept nogil
    cdef int mode_select(self, ScsiRequest *request) noexcept nogil
