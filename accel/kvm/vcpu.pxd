from accel.api cimport DeviceLock, IrqSink, u8, u32, u64
from accel.cpuport cimport CpuPort, InterruptSource
from accel.kvm.irq cimport KvmIrqchip
from accel.kvm.uapi cimport kvm_regs, kvm_run
from accel.kvm.vm cimport KvmVm
from accel.run cimport CpuThread, IntAck
from accel.space cimport AddressSpace


cdef class KvmVcpu(CpuThread):
    cdef readonly KvmVm vm
    cdef readonly KvmIrqchip irqchip
    cdef readonly u32 apic_id
    cdef readonly int fd
    cdef kvm_run *run_page                          # env->kvm_run: the page shared with the kernel
    cdef AddressSpace memory, io
    cdef DeviceLock device_lock
    cdef object cpuid, reset_state
    cdef IntAck ack                                 # the 8259A, when it is a device of ours
    cdef IrqSink eoi
    cdef InterruptSource source                     # the local APIC, when it is a device of ours
    cdef readonly KvmPort port                      # what that APIC calls
    cdef int intr, nmi_pending                      # level of INTR; NMIs not yet handed over
    cdef int init_pending, sipi_pending             # asked for by an APIC of ours; the vector of the latter + 1
    cdef int halted, wait_sipi
    cdef int dispatching                            # this thread holds the device lock: nobody need be called out
    cdef u64 map_size
    cdef int check_open(self) except -1
    cdef bint user_pic, user_apic
    cdef readonly u64 exits, io_exits, mmio_exits
    cdef u64 *general(self, u32 n) noexcept nogil
    cdef kvm_regs fetched                           # without KVM_CAP_SYNC_REGS: what KVM_GET_REGS gave
    cdef bint sync_regs
    cdef void inject(self) noexcept nogil
    cdef int handle_exit(self) noexcept nogil
    cdef void handle_io(self) noexcept nogil
    cdef void handle_mmio(self) noexcept nogil
    cdef int handle_halt(self) noexcept nogil
    cdef int wait_work(self) noexcept nogil
    cdef bint takes_intr(self) noexcept nogil
    cdef void call_out(self) noexcept nogil
    cdef bint owns_apic(self, u64 phys) noexcept nogil
    cdef void access_apic(self) noexcept nogil
    cdef void before_entry(self) noexcept nogil
    cdef void after_exit(self) noexcept nogil
    cdef void start_up(self) noexcept with gil
    cdef u64 debug_dr6                              # of the last KVM_EXIT_DEBUG, + 1 << 63: nobody has seen it yet
    cdef u32 debug_exception
    cdef void give_up(self, u32 reason, int err) noexcept with gil


cdef class KvmPort(CpuPort):
    cdef void *owner                                # the KvmVcpu, which keeps this


cdef class CpuPin(IrqSink):
    cdef KvmVcpu cpu
    cdef int pin
    cdef IrqSink lint                               # INTR goes to LINT0 of the first APIC of ours
