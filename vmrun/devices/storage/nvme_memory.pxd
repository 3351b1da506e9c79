# Memory that an NVMe controller has itself. The documentation is in nvme_memory.pyx.
from accel.api cimport u32, u64
from vmrun.bus.pci.config cimport PciConfig

cdef class NvmeMemory:
    cdef PciConfig config
    cdef readonly u64 buffer_size, region_size
    cdef readonly bint legacy
    cdef readonly object region
    cdef public u64 cmbmsc, pmrmsc
    cdef public bint told
    cdef public u32 cmbsts, pmrctl, pmrsts

    cdef u64 capabilities(self) noexcept nogil
    cdef u32 register(self, u32 at) noexcept nogil
    cdef void set_register(self, u32 at, u32 value) noexcept nogil
    cdef void show(self) noexcept with gil
    cdef int holds(self, u64 address) noexcept nogil
    cdef u64 place(self, u64 address) noexcept nogil
    cdef u64 bar(self, u32 offset) noexcept nogil
