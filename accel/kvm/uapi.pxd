# The kernel's interface to KVM, from <linux/kvm.h>, and nothing else. Only what the accelerator uses is declared.
from accel.api cimport u8, u16, u32, u64

cdef extern from "<linux/kvm.h>" nogil:
    int KVM_API_VERSION

    # --- capabilities
    int KVM_CAP_IRQCHIP, KVM_CAP_HLT, KVM_CAP_USER_MEMORY, KVM_CAP_SET_TSS_ADDR, KVM_CAP_EXT_CPUID
    int KVM_CAP_NR_VCPUS, KVM_CAP_MAX_VCPUS, KVM_CAP_MAX_VCPU_ID, KVM_CAP_NR_MEMSLOTS, KVM_CAP_PIT2
    int KVM_CAP_PIT_STATE2, KVM_CAP_MP_STATE, KVM_CAP_COALESCED_MMIO, KVM_CAP_COALESCED_PIO
    int KVM_CAP_IRQ_ROUTING, KVM_CAP_IRQ_INJECT_STATUS, KVM_CAP_IRQFD, KVM_CAP_IRQFD_RESAMPLE
    int KVM_CAP_IOEVENTFD, KVM_CAP_IOEVENTFD_ANY_LENGTH, KVM_CAP_SET_IDENTITY_MAP_ADDR, KVM_CAP_ADJUST_CLOCK
    int KVM_CAP_INTERNAL_ERROR_DATA, KVM_CAP_VCPU_EVENTS, KVM_CAP_DEBUGREGS, KVM_CAP_XSAVE, KVM_CAP_XCRS
    int KVM_CAP_SYNC_REGS, KVM_CAP_SIGNAL_MSI, KVM_CAP_READONLY_MEM, KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X86_SMM
    int KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_REINJECT_CONTROL, KVM_CAP_KVMCLOCK_CTRL, KVM_CAP_TSC_DEADLINE_TIMER
    int KVM_CAP_DESTROY_MEMORY_REGION_WORKS, KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, KVM_CAP_MCE
    int KVM_CAP_GET_TSC_KHZ, KVM_CAP_X2APIC_API, KVM_CAP_SYSTEM_EVENT_DATA, KVM_CAP_XSAVE2

    # --- requests on /dev/kvm
    unsigned long KVM_GET_API_VERSION, KVM_CREATE_VM, KVM_GET_MSR_INDEX_LIST, KVM_CHECK_EXTENSION
    unsigned long KVM_GET_VCPU_MMAP_SIZE, KVM_GET_SUPPORTED_CPUID

    # --- requests on a VM
    unsigned long KVM_CREATE_VCPU, KVM_GET_DIRTY_LOG, KVM_SET_USER_MEMORY_REGION, KVM_SET_TSS_ADDR
    unsigned long KVM_SET_IDENTITY_MAP_ADDR, KVM_CREATE_IRQCHIP, KVM_IRQ_LINE, KVM_IRQ_LINE_STATUS
    unsigned long KVM_GET_IRQCHIP, KVM_SET_IRQCHIP, KVM_CREATE_PIT2, KVM_GET_PIT2, KVM_SET_PIT2
    unsigned long KVM_REINJECT_CONTROL, KVM_REGISTER_COALESCED_MMIO, KVM_UNREGISTER_COALESCED_MMIO
    unsigned long KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_IOEVENTFD, KVM_SIGNAL_MSI, KVM_SET_CLOCK, KVM_GET_CLOCK
    unsigned long KVM_SET_BOOT_CPU_ID, KVM_ENABLE_CAP

    # --- requests on a vCPU
    unsigned long KVM_RUN, KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS, KVM_SET_SREGS, KVM_INTERRUPT, KVM_NMI
    unsigned long KVM_SMI, KVM_GET_MSRS, KVM_SET_MSRS, KVM_GET_FPU, KVM_SET_FPU, KVM_GET_LAPIC, KVM_SET_LAPIC
    unsigned long KVM_SET_CPUID2, KVM_GET_MP_STATE, KVM_SET_MP_STATE, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS
    unsigned long KVM_SET_GUEST_DEBUG, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, KVM_GET_XSAVE, KVM_SET_XSAVE, KVM_GET_XCRS
    unsigned long KVM_SET_XCRS, KVM_KVMCLOCK_CTRL, KVM_GET_TSC_KHZ, KVM_X86_SETUP_MCE
    unsigned long KVM_TRANSLATE

    # --- memory
    u32 KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY

    struct kvm_userspace_memory_region:
        u32 slot, flags
        u64 guest_phys_addr, memory_size, userspace_addr

    struct kvm_dirty_log:
        u32 slot
        void *dirty_bitmap

    struct kvm_coalesced_mmio_zone:
        u64 addr
        u32 size, pio

    struct kvm_coalesced_mmio:
        u64 phys_addr
        u32 len, pio
        u8 data[8]

    struct kvm_coalesced_mmio_ring:
        u32 first, last
        kvm_coalesced_mmio *coalesced_mmio

    struct kvm_translation:
        u64 linear_address, physical_address
        u8 valid

    # --- interrupts
    u32 KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC
    u32 KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI
    u32 KVM_IRQFD_FLAG_DEASSIGN, KVM_IRQFD_FLAG_RESAMPLE
    u32 KVM_IOEVENTFD_FLAG_DATAMATCH, KVM_IOEVENTFD_FLAG_PIO, KVM_IOEVENTFD_FLAG_DEASSIGN
    u32 KVM_PIT_SPEAKER_DUMMY, KVM_PIT_FLAGS_HPET_LEGACY, KVM_PIT_FLAGS_SPEAKER_DATA_ON

    struct kvm_irq_level:
        u32 irq
        int status
        u32 level

    struct kvm_pic_state:
        u8 last_irr, irr, imr, isr, priority_add, irq_base, read_reg_select, poll, special_mask, init_state
        u8 auto_eoi, rotate_on_auto_eoi, special_fully_nested_mode, init4, elcr, elcr_mask

    struct kvm_ioapic_redir "struct kvm_ioapic_state":
        pass

    struct kvm_pit_channel_state:
        u32 count
        u16 latched_count
        u8 count_latched, status_latched, status, read_state, write_state, write_latch, rw_mode, mode, bcd, gate
        long long count_load_time

    struct kvm_pit_state2:
        kvm_pit_channel_state channels[3]
        u32 flags

    struct kvm_pit_config:
        u32 flags

    struct kvm_reinject_control:
        u8 pit_reinject

    struct kvm_irqchip:
        u32 chip_id

    struct kvm_irqfd:
        u32 fd, gsi, flags, resamplefd

    struct kvm_ioeventfd:
        u64 datamatch, addr
        u32 len
        int fd
        u32 flags

    struct kvm_msi:
        u32 address_lo, address_hi, data, flags

    struct kvm_clock_data:
        u64 clock
        u32 flags

    struct kvm_enable_cap:
        u32 cap, flags
        u64 args[4]

    # --- vCPU state
    struct kvm_regs:
        u64 rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags

    struct kvm_segment:
        u64 base
        u32 limit
        u16 selector
        u8 type, present, dpl, db, s, l, g, avl, unusable

    struct kvm_dtable:
        u64 base
        u16 limit

    struct kvm_sregs:
        kvm_segment cs, ds, es, fs, gs, ss, tr, ldt
        kvm_dtable gdt, idt
        u64 cr0, cr2, cr3, cr4, cr8, efer, apic_base
        u64 interrupt_bitmap[4]

    struct kvm_fpu:
        u8 fpr[8][16]
        u16 fcw, fsw
        u8 ftwx
        u16 last_opcode
        u64 last_ip, last_dp
        u8 xmm[16][16]
        u32 mxcsr

    struct kvm_msr_entry:
        u32 index
        u64 data

    struct kvm_msrs:
        u32 nmsrs
        kvm_msr_entry *entries

    struct kvm_msr_list:
        u32 nmsrs
        u32 *indices

    struct kvm_cpuid_entry2:
        u32 function, index, flags, eax, ebx, ecx, edx

    struct kvm_cpuid2:
        u32 nent
        kvm_cpuid_entry2 *entries

    struct kvm_lapic_state:
        char regs[0x400]

    struct kvm_mp_state:
        u32 mp_state

    u32 KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_HALTED
    u32 KVM_MP_STATE_SIPI_RECEIVED

    struct kvm_event_exception "struct kvm_vcpu_events":
        pass

    u32 KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SIPI_VECTOR, KVM_VCPUEVENT_VALID_SHADOW
    u32 KVM_VCPUEVENT_VALID_SMM

    struct kvm_debugregs:
        u64 db[4]
        u64 dr6, dr7, flags

    struct kvm_xcr:
        u32 xcr
        u64 value

    struct kvm_xcrs:
        u32 nr_xcrs, flags
        kvm_xcr xcrs[16]

    struct kvm_interrupt:
        u32 irq

    # --- the page that a vCPU shares with us
    u32 KVM_EXIT_UNKNOWN, KVM_EXIT_EXCEPTION, KVM_EXIT_IO, KVM_EXIT_HYPERCALL, KVM_EXIT_DEBUG, KVM_EXIT_HLT
    u32 KVM_EXIT_MMIO, KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_SHUTDOWN, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_INTR
    u32 KVM_EXIT_SET_TPR, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_SYSTEM_EVENT, KVM_EXIT_IOAPIC_EOI
    u32 KVM_INTERNAL_ERROR_EMULATION, KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
    u32 KVM_SYSTEM_EVENT_SHUTDOWN, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_CRASH
    u8 KVM_EXIT_IO_IN, KVM_EXIT_IO_OUT

    struct kvm_run_hw:
        u64 hardware_exit_reason

    struct kvm_run_fail:
        u64 hardware_entry_failure_reason
        u32 cpu

    struct kvm_run_io:
        u8 direction, size
        u16 port
        u32 count
        u64 data_offset

    struct kvm_run_mmio:
        u64 phys_addr
        u8 data[8]
        u32 len
        u8 is_write

    struct kvm_run_internal:
        u32 suberror, ndata
        u64 data[16]

    struct kvm_guest_debug_arch:
        u64 debugreg[8]

    struct kvm_guest_debug:
        u32 control, pad
        kvm_guest_debug_arch arch

    u32 KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_SW_BP, KVM_GUESTDBG_USE_HW_BP

    struct kvm_debug_exit_arch:
        u32 exception
        u64 pc, dr6, dr7

    struct kvm_run_debug:
        kvm_debug_exit_arch arch

    struct kvm_run_emulation:
        u64 flags
        u8 insn_size
        u8 insn_bytes[15]

    struct kvm_run_event:
        u32 type

    struct kvm_run_eoi:
        u8 vector

    u64 KVM_SYNC_X86_REGS

    struct kvm_sync_regs:
        kvm_regs regs

    struct kvm_run_sync:
        kvm_sync_regs regs

    struct kvm_run:
        u8 request_interrupt_window, immediate_exit
        u32 exit_reason
        u8 ready_for_interrupt_injection, if_flag
        u16 flags
        u64 cr8, apic_base
        kvm_run_hw hw
        kvm_run_fail fail_entry
        kvm_run_io io
        kvm_run_mmio mmio
        kvm_run_internal internal
        kvm_run_debug debug
        kvm_run_emulation emulation_failure
        kvm_run_event system_event
        kvm_run_eoi eoi
        u64 kvm_valid_regs, kvm_dirty_regs
        kvm_run_sync s
