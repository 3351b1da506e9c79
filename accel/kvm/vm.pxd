from accel.api cimport DeviceLock, u8, u32, u64
from accel.kvm.uapi cimport kvm_coalesced_mmio_ring
from accel.run cimport RunControl
from accel.space cimport AddressSpace


cdef class KvmVm:
    cdef readonly int kvm_fd, fd
    cdef readonly AddressSpace memory, io
    cdef readonly DeviceLock lock
    cdef readonly RunControl control
    cdef readonly u64 run_size
    cdef public u64 slot_limit
    cdef readonly bint readonly_memory, immediate_exit
    cdef readonly bint has_sync_regs
    cdef public bint want_registers                 # a device answers in registers: have them with every exit
    cdef readonly object memory_listener
    cdef u64 ring_offset                            # of the coalesced ring in a vCPU's kvm_run mapping
    cdef kvm_coalesced_mmio_ring *ring              # the first vCPU maps it; NULL before
    cdef u32 ring_room
    cdef bint draining
    cdef readonly u64 drained
    cdef int create_vm(self) except -1
    cdef u32 drain_ring(self) noexcept nogil


cdef class MemoryListener:
    cdef KvmVm vm
    cdef dict slots                                 # (address, size, host, read-only) → slot
    cdef dict logged                                # RamBlock → how many asked for its log
    cdef list free
    cdef u32 next_slot
    cdef list gone, come

cdef object failure(str what, int err)
cdef int check(int result, str what) except -1
