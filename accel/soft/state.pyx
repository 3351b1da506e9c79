"""A processor's state, in and out, as plain values in KVM's own layouts (accel.kvm.state's).

    {"mp_state": n, "regs": {rax: …}, "sregs": {cs: {base: …}, cr0: …}, "xsave": 4096 bytes, "xcrs": {0: value},
     "msrs": {index: value}, "events": 64 bytes, "debugregs": {…}}

The machine is stopped, so all of it lies in c.fx.

Ref: Linux Documentation/virt/kvm/api.rst and <asm/kvm.h>; Intel SDM volume 1, 13.4 (XSAVE).
"""

from libc.string cimport memcpy

from accel.soft.control cimport set_cr0
from accel.soft.cpu cimport *
from accel.soft.fpstate cimport PKRU
from accel.soft.msr cimport read_msr, write_msr
from accel.soft.pmu cimport is_counter, load_counter_msr
from accel.soft.segment cimport *
from accel.soft.transfer cimport set_eflags

import struct

GENERAL = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr")
CONTROL = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")
# What a save holds beside sregs; a processor without one of them leaves it out.
MSRS = (
    0x10, 0x48, 0x174, 0x175, 0x176, 0x17A, 0x1A0, *range(0x200, 0x210), 0x250, 0x258, 0x259, *range(0x268, 0x270), 0x277,
    0x2FF, *range(0x400, 0x428, 4), 0x6E0, 0x6E1, *range(0x186, 0x18A),
    *range(0x309, 0x30C), 0x38D, *range(0xC1, 0xC5), 0x38E, 0x38F, 0x4B564D00, 0x4B564D01, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000102, 0xC0000103,
)
RUNNABLE, UNINITIALIZED, HALTED = 0, 1, 3
EVENTS = struct.Struct("<4BI4B4BII4B36x")       # kvm_vcpu_events


cdef dict segment_state(Cpu *c, u32 n):
    cdef Segment *s = &c.seg[n]
    cdef u32 ar = s.ar
    return {
        "base": c.regs[BASE + n] if n < LDTR else s.base, "limit": s.limit, "selector": s.sel,
        "type": ar & 15, "s": ar >> 4 & 1, "dpl": ar >> 5 & 3, "present": ar >> 7 & 1, "avl": ar >> 12 & 1,
        "l": ar >> 13 & 1, "db": ar >> 14 & 1, "g": ar >> 15 & 1, "unusable": ar >> 16 & 1,
    }


cdef int set_segment_state(Cpu *c, u32 n, dict values) except -1:
    cdef Segment *s = &c.seg[n]
    cdef u32 ar = (
        (values["type"] & 15) | (values["s"] & 1) << 4 | (values["dpl"] & 3) << 5 | (values["present"] & 1) << 7
        | (values["avl"] & 1) << 12 | (values["l"] & 1) << 13 | (values["db"] & 1) << 14 | (values["g"] & 1) << 15
        | (values["unusable"] & 1) << 16
    )
    cdef u64 base = values["base"]
    s.limit, s.sel, s.ar = values["limit"], values["selector"], ar
    if n < LDTR:
        c.regs[BASE + n] = base
    else:
        s.base = base
    return 0


cdef dict regs_state(Cpu *c):
    values = {name: c.regs[n] for n, name in enumerate(GENERAL)}
    values["rip"], values["rflags"] = c.rip, get_eflags(c)
    return values


cdef int set_regs_state(Cpu *c, dict values) except -1:
    for n, name in enumerate(GENERAL):
        c.regs[<int>n] = values[name]
    c.rip = values["rip"]
    set_eflags(c, <u32>(values["rflags"] & 0xFFFFFFFF), ~<u32>0)
    return 0


cdef dict sregs_state(Cpu *c):
    cdef u64 apic_base = 0
    cdef u32 n
    values = {}
    for n in range(8):
        values[SEGMENTS[n]] = segment_state(c, n)
    values["gdt"] = {"base": c.gdt.base, "limit": c.gdt.limit}
    values["idt"] = {"base": c.idt.base, "limit": c.idt.limit}
    values["cr0"], values["cr2"], values["cr3"], values["cr4"] = c.cr0, c.cr2, c.cr3, c.cr4
    values["cr8"], values["efer"] = c.hooks.get_tpr(c), c.efer
    c.hooks.rdmsr(c, 0x1B, &apic_base)
    values["apic_base"] = apic_base
    values["interrupt_bitmap"] = [0, 0, 0, 0]
    return values


cdef int set_sregs_state(Cpu *c, dict values) except -1:
    cdef u32 n
    for n in range(8):
        set_segment_state(c, n, values[SEGMENTS[n]])
    c.gdt.base, c.gdt.limit = values["gdt"]["base"], values["gdt"]["limit"]
    c.idt.base, c.idt.limit = values["idt"]["base"], values["idt"]["limit"]
    set_cr0(c, values["cr0"])
    c.cr2, c.cr3, c.cr4, c.efer = values["cr2"], values["cr3"], values["cr4"], values["efer"]
    c.hooks.wrmsr(c, 0x1B, values["apic_base"])
    c.hooks.set_tpr(c, <u32>values["cr8"])
    return 0


cdef bytes xsave_state(Cpu *c):
    """The area in its standard form, with all that there is in use; PKRU is where the processor's CPUID says."""
    area = bytearray(c.fx[:4096])
    struct.pack_into("<II", area, 24, c.mxcsr, 0xFFFF)
    struct.pack_into("<8Q", area, 512, c.xcr_mask | 3, *[0] * 7)
    keys, area[PKRU : PKRU + 4] = area[PKRU : PKRU + 4], bytes(4)
    area[c.keys_at : c.keys_at + 4] = keys
    return bytes(area)


cdef int set_xsave_state(Cpu *c, bytes values) except -1:
    """ValueError: parts that there are none of here are in use."""
    if len(values) != 4096:
        raise ValueError("an XSAVE area has 4096 bytes")
    area = bytearray(values)
    used, = struct.unpack_from("<Q", area, 512)
    if used & ~(c.xcr_mask | 3) and any(area[576:]):
        raise ValueError("extended states that this processor has not")
    keys = area[c.keys_at : c.keys_at + 4] if used & 0x200 else bytes(4)
    area[832:] = bytes(4096 - 832)
    area[PKRU : PKRU + 4] = keys
    area[416:576] = bytes(160)
    if not used & 1:
        area[:24] = struct.pack("<H22x", 0x37F)
        area[32:160] = bytes(128)
    if not used & 2:
        area[160:416] = bytes(256)
    if not used & 4:
        area[576:832] = bytes(256)
    c.mxcsr = struct.unpack_from("<I", area, 24)[0] & (0xFFFF | (c.features[3] >> 7 & 1) << 17)
    struct.pack_into("<II", area, 24, c.mxcsr, 0xFFFF)
    memcpy(c.fx, <const u8 *>area, 4096)
    (<u16 *>c.fx)[0] = <u16>((<u16 *>c.fx)[0] & 0x1F3F | 0x40)
    c.fx[5] = 0
    c.fp_live = False
    return 0


cdef int set_xcrs_state(Cpu *c, dict values) except -1:
    cdef u64 value = values.get(0, 1)
    if not value & 1 or value & ~(c.xcr_mask | 3) or value & 6 == 4:
        raise ValueError("XCR0 cannot be so")
    c.xcr0 = value
    return 0


cdef dict msrs_state(Cpu *c):
    cdef u64 value = 0
    values = {}
    for index in MSRS:
        if read_msr(c, <u32>index, &value) == 0:
            values[index] = value
    c.stop = STOP_NEXT
    return values


cdef list set_msrs_state(Cpu *c, dict values):
    refused = []
    for index, value in values.items():
        if load_counter_msr(c, index, value) if is_counter(index) else write_msr(c, <u32>index, <u64>value):
            refused.append(index)
    c.stop = STOP_NEXT
    return refused


cdef bytes events_state(Cpu *c):
    """No exception is ever pending between two instructions."""
    return EVENTS.pack(
        0, 0, 0, 0, 0, 0, 0, 0, c.shadow & 3, 0, c.pending & PEND_NMI != 0, c.nmi_blocked, 0, c.sipi_vector, 0xD,
        c.in_smm, c.pending & PEND_SMI != 0, 0, 0,
    )


cdef int set_events_state(Cpu *c, bytes values) except -1:
    parts = EVENTS.unpack(values)
    c.shadow = parts[8] & 3
    c.nmi_blocked, c.sipi_vector, c.in_smm = parts[11], parts[13] & 0xFF, parts[15] & 1
    if parts[10] & 1:
        c.pending |= PEND_NMI
    if parts[16] & 1:
        c.pending |= PEND_SMI
    return 0


cdef dict cpu_state(Cpu *c):
    """All parts."""
    return {
        "mp_state": UNINITIALIZED if c.wait_sipi else (HALTED if c.halted else RUNNABLE),
        "regs": regs_state(c), "sregs": sregs_state(c), "xsave": xsave_state(c), "xcrs": {0: c.xcr0},
        "msrs": msrs_state(c), "events": events_state(c),
        "debugregs": {"db": [c.dr[n] for n in range(4)], "dr6": c.dr6, "dr7": c.dr7, "flags": 0},
    }


cdef list set_cpu_state(Cpu *c, dict state):
    """Load the parts given; the MSRs that were refused. KeyError, OverflowError for values that cannot be."""
    refused = []
    if "regs" in state:
        set_regs_state(c, state["regs"])
    if "xsave" in state:
        set_xsave_state(c, state["xsave"])
    if "xcrs" in state:
        set_xcrs_state(c, state["xcrs"])
    if "sregs" in state:
        set_sregs_state(c, state["sregs"])
    if "msrs" in state:
        refused = set_msrs_state(c, state["msrs"])
    if "events" in state:
        set_events_state(c, state["events"])
    if "debugregs" in state:
        for n in range(4):
            c.dr[<int>n] = state["debugregs"]["db"][n]
        c.dr6, c.dr7 = state["debugregs"]["dr6"], state["debugregs"]["dr7"]
    if "mp_state" in state:
        c.wait_sipi, c.halted = state["mp_state"] == UNINITIALIZED, state["mp_state"] == HALTED
    settle(c)
    return refused


cdef void settle(Cpu *c) noexcept nogil:
    """What follows from the rest: CPL, PDPTEs, mode, TLB."""
    cdef u32 i
    if not c.cr0 & CR0_PE:
        c.cpl = 0
    else:
        c.cpl = 3 if is_v86(c) else ar_dpl(c.seg[SS].ar)
    if c.cr0 >> 31 & 1 and c.cr4 & CR4_PAE and not is_long(c):
        for i in range(4):
            c.pdpte[i] = c.hooks.phys_load(c, (c.cr3 & <u64>0xFFFFFFE0) + i * 8, 8)
    c.link = NULL
    c.memory.flush(c, True)
    c.memory.set_mode(c)


cdef dict describe_cpu(Cpu *c):
    """A report for a person: registers, mode, the bytes at RIP as far as they are mapped."""
    cdef u64 linear = c.rip, value = 0, cr2 = c.cr2
    cdef u32 vector = c.vector, error = c.error, stop = c.stop
    cdef bint has_error = c.has_error
    cdef u8 code[16]
    cdef u32 count = 0
    mode = 64 if is_64(c) else (32 if c.seg[CS].ar & AR_DB else 16)
    if mode != 64:
        linear = (linear + c.regs[BASE + CS]) & <u64>0xFFFFFFFF
    with nogil:                 # where a device is, its lock is taken
        while count < 16 and c.memory.sys_load(c, linear + count, 1, &value) == 0:
            code[count] = <u8>value
            count += 1
    c.cr2, c.vector, c.error, c.has_error, c.stop = cr2, vector, error, has_error, stop
    return {
        "regs": regs_state(c), "sregs": sregs_state(c), "mode": mode, "linear_rip": linear, "code": code[:count],
    }
