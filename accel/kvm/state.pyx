"""A processor's state, in and out of KVM, as plain values in KVM's own layouts.

    {"regs": {rax: …}, "sregs": {cs: {base: …}, cr0: …}, "xsave": 4096 bytes, "fpu": {…} where there is no xsave,
     "xcrs": {number: value}, "msrs": {index: value}, "lapic": 1024 bytes, "mp_state": n, "events": bytes, "debugregs": {…}}

Ref: Linux Documentation/virt/kvm/api.rst and <asm/kvm.h>.
"""

from libc.errno cimport errno
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.ioctl cimport ioctl

from accel.api cimport u8, u32, u64
from accel.kvm.uapi cimport *
from accel.kvm.vm cimport check

cdef extern from *:
    """
    #include <linux/kvm.h>
    #define vr_events_flags(e) ((e)->flags)
    """
    struct kvm_vcpu_events:
        u32 flags
    struct kvm_xsave:
        u32 region[1024]

# In the order in which they may be loaded: CPUID is there first; the APIC base comes with sregs, before the APIC.
PARTS = ("mp_state", "regs", "xsave", "fpu", "xcrs", "sregs", "msrs", "events", "debugregs", "lapic")

# Loaded after the others: enabling a clock or a deadline depends on them.
LATE_MSRS = (0x6E0, 0x4B564D01, 0x12)


def get_regs(int fd):
    cdef kvm_regs regs
    check(ioctl(fd, KVM_GET_REGS, &regs), "KVM_GET_REGS")
    return regs


def set_regs(int fd, dict values):
    cdef kvm_regs regs = values
    check(ioctl(fd, KVM_SET_REGS, &regs), "KVM_SET_REGS")


def get_sregs(int fd):
    cdef kvm_sregs sregs
    memset(&sregs, 0, sizeof(sregs))
    check(ioctl(fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS")
    return sregs


def set_sregs(int fd, dict values):
    cdef kvm_sregs sregs = values
    check(ioctl(fd, KVM_SET_SREGS, &sregs), "KVM refuses the system registers")


def get_fpu(int fd):
    cdef kvm_fpu fpu
    memset(&fpu, 0, sizeof(fpu))
    check(ioctl(fd, KVM_GET_FPU, &fpu), "KVM_GET_FPU")
    return {"fpr": [bytes(fpu.fpr[i][:16]) for i in range(8)], "xmm": [bytes(fpu.xmm[i][:16]) for i in range(16)],
            "fcw": fpu.fcw, "fsw": fpu.fsw, "ftwx": fpu.ftwx, "last_opcode": fpu.last_opcode,
            "last_ip": fpu.last_ip, "last_dp": fpu.last_dp, "mxcsr": fpu.mxcsr}


def set_fpu(int fd, dict values):
    cdef kvm_fpu fpu
    cdef bytes part
    memset(&fpu, 0, sizeof(fpu))
    for i, part in enumerate(values["fpr"][:8]):
        memcpy(fpu.fpr[i], <const u8 *>part, min(len(part), 16))
    for i, part in enumerate(values["xmm"][:16]):
        memcpy(fpu.xmm[i], <const u8 *>part, min(len(part), 16))
    fpu.fcw, fpu.fsw, fpu.ftwx = values["fcw"], values["fsw"], values["ftwx"]
    fpu.last_opcode, fpu.last_ip, fpu.last_dp = values["last_opcode"], values["last_ip"], values["last_dp"]
    fpu.mxcsr = values["mxcsr"]
    check(ioctl(fd, KVM_SET_FPU, &fpu), "KVM_SET_FPU")


def get_xsave(int fd):
    cdef kvm_xsave area
    check(ioctl(fd, KVM_GET_XSAVE, &area), "KVM_GET_XSAVE")
    return (<u8 *>&area)[:4096]


def set_xsave(int fd, bytes values):
    cdef kvm_xsave area
    memset(&area, 0, sizeof(area))
    memcpy(&area, <const u8 *>values, min(len(values), 4096))
    check(ioctl(fd, KVM_SET_XSAVE, &area), "KVM refuses the extended state")


def get_xcrs(int fd):
    cdef kvm_xcrs xcrs
    memset(&xcrs, 0, sizeof(xcrs))
    check(ioctl(fd, KVM_GET_XCRS, &xcrs), "KVM_GET_XCRS")
    return {xcrs.xcrs[i].xcr: xcrs.xcrs[i].value for i in range(min(xcrs.nr_xcrs, <u32>16))}


def set_xcrs(int fd, dict values):
    cdef kvm_xcrs xcrs
    memset(&xcrs, 0, sizeof(xcrs))
    for i, (number, value) in enumerate(list(values.items())[:16]):
        xcrs.xcrs[i].xcr = number
        xcrs.xcrs[i].value = value
        xcrs.nr_xcrs = i + 1
    check(ioctl(fd, KVM_SET_XCRS, &xcrs), "KVM refuses the extended control registers")


def get_msrs(int fd, indices):
    """{index: value} of those that KVM lets be read."""
    cdef kvm_msrs *msrs
    cdef u32 count = len(indices), done = 0, i
    cdef int got
    msrs = <kvm_msrs *>calloc(1, sizeof(kvm_msrs) + count * sizeof(kvm_msr_entry))
    if msrs == NULL:
        raise MemoryError
    indices = list(indices)
    values = {}
    try:
        while done < count:
            msrs.nmsrs = min(count - done, <u32>256)
            for i in range(msrs.nmsrs):
                msrs.entries[i].index = indices[done + i]
            got = check(ioctl(fd, KVM_GET_MSRS, msrs), "KVM_GET_MSRS")
            for i in range(<u32>got):
                values[msrs.entries[i].index] = msrs.entries[i].data
            # KVM stops at the first that it does not know.
            done += <u32>got + (1 if <u32>got < msrs.nmsrs else 0)
        return values
    finally:
        free(msrs)


def set_msrs(int fd, dict values):
    """Load MSRs; those that KVM refuses are returned as a list."""
    cdef kvm_msrs *msrs
    cdef u32 count = len(values), done = 0, i
    cdef int got
    msrs = <kvm_msrs *>calloc(1, sizeof(kvm_msrs) + count * sizeof(kvm_msr_entry))
    if msrs == NULL:
        raise MemoryError
    ordered = [(i, v) for i, v in values.items() if i not in LATE_MSRS]
    ordered += [(i, values[i]) for i in LATE_MSRS if i in values]
    refused = []
    try:
        while done < count:
            msrs.nmsrs = min(count - done, <u32>256)
            for i in range(msrs.nmsrs):
                msrs.entries[i].index, msrs.entries[i].data = ordered[done + i]
            got = ioctl(fd, KVM_SET_MSRS, msrs)
            got = max(got, 0)
            if <u32>got < msrs.nmsrs:
                refused.append(msrs.entries[got].index)
                got += 1
            done += <u32>got
        return refused
    finally:
        free(msrs)


def get_lapic(int fd):
    cdef kvm_lapic_state lapic
    check(ioctl(fd, KVM_GET_LAPIC, &lapic), "KVM_GET_LAPIC")
    return (<u8 *>lapic.regs)[:0x400]


def set_lapic(int fd, bytes values):
    cdef kvm_lapic_state lapic
    memset(&lapic, 0, sizeof(lapic))
    memcpy(lapic.regs, <const u8 *>values, min(len(values), 0x400))
    check(ioctl(fd, KVM_SET_LAPIC, &lapic), "KVM refuses the local APIC's state")


def get_mp_state(int fd):
    cdef kvm_mp_state mp
    check(ioctl(fd, KVM_GET_MP_STATE, &mp), "KVM_GET_MP_STATE")
    return mp.mp_state


def set_mp_state(int fd, u32 value):
    cdef kvm_mp_state mp
    mp.mp_state = value
    check(ioctl(fd, KVM_SET_MP_STATE, &mp), "KVM refuses the MP state")


def get_events(int fd):
    cdef kvm_vcpu_events events
    memset(&events, 0, sizeof(events))
    check(ioctl(fd, KVM_GET_VCPU_EVENTS, &events), "KVM_GET_VCPU_EVENTS")
    return (<u8 *>&events)[:sizeof(events)]


def set_events(int fd, bytes values):
    cdef kvm_vcpu_events events
    memset(&events, 0, sizeof(events))
    memcpy(&events, <const u8 *>values, min(<size_t>len(values), sizeof(events)))
    check(ioctl(fd, KVM_SET_VCPU_EVENTS, &events), "KVM refuses the pending events")


def clear_events(int fd):
    """No exception, interrupt, NMI or SMI pending."""
    cdef kvm_vcpu_events events
    memset(&events, 0, sizeof(events))
    events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW
    check(ioctl(fd, KVM_SET_VCPU_EVENTS, &events), "KVM refuses to clear pending events")


def get_debugregs(int fd):
    cdef kvm_debugregs debug
    memset(&debug, 0, sizeof(debug))
    check(ioctl(fd, KVM_GET_DEBUGREGS, &debug), "KVM_GET_DEBUGREGS")
    return debug


def set_debugregs(int fd, dict values):
    cdef kvm_debugregs debug
    memset(&debug, 0, sizeof(debug))
    debug = values
    check(ioctl(fd, KVM_SET_DEBUGREGS, &debug), "KVM refuses the debug registers")


def set_cpuid(int fd, entries):
    """KVM_SET_CPUID2."""
    cdef u32 i, count = len(entries)
    cdef kvm_cpuid2 *table = <kvm_cpuid2 *>calloc(1, sizeof(kvm_cpuid2) + count * sizeof(kvm_cpuid_entry2))
    if table == NULL:
        raise MemoryError
    try:
        table.nent = count
        for i in range(count):
            entry = entries[i]
            table.entries[i].function = entry["function"]
            table.entries[i].index = entry["index"]
            table.entries[i].flags = entry["flags"]
            table.entries[i].eax = entry["eax"]
            table.entries[i].ebx = entry["ebx"]
            table.entries[i].ecx = entry["ecx"]
            table.entries[i].edx = entry["edx"]
        check(ioctl(fd, KVM_SET_CPUID2, table), "KVM refuses the CPUID of this processor")
    finally:
        free(table)


def setup_mce(int fd, u64 mcg_cap):
    check(ioctl(fd, KVM_X86_SETUP_MCE, &mcg_cap), "KVM refuses the machine-check banks")


def translate(int fd, u64 linear):
    """Guest-physical address of a linear one, or None."""
    cdef kvm_translation request
    memset(&request, 0, sizeof(request))
    request.linear_address = linear
    if ioctl(fd, KVM_TRANSLATE, &request) < 0 or not request.valid:
        return None
    return request.physical_address


def get_state(int fd, msr_indices, bint lapic, bint xsave, bint xcrs):
    """All parts that exist here."""
    state = {"mp_state": get_mp_state(fd), "regs": get_regs(fd), "sregs": get_sregs(fd),
             "msrs": get_msrs(fd, msr_indices), "events": get_events(fd), "debugregs": get_debugregs(fd)}
    if xsave:
        state["xsave"] = get_xsave(fd)
    else:
        state["fpu"] = get_fpu(fd)
    if xcrs:
        state["xcrs"] = get_xcrs(fd)
    if lapic:
        state["lapic"] = get_lapic(fd)
    return state


def set_state(int fd, dict state):
    """Load the parts given; the MSRs that KVM refused."""
    refused = []
    for part in PARTS:
        if part not in state:
            continue
        value = state[part]
        if part == "msrs":
            refused = set_msrs(fd, value)
        else:
            _SETTERS[part](fd, value)
    # Loading the APIC wakes no processor; the MP state has the last word.
    if "mp_state" in state:
        set_mp_state(fd, state["mp_state"])
    return refused


_SETTERS = {"mp_state": set_mp_state, "regs": set_regs, "xsave": set_xsave, "fpu": set_fpu, "xcrs": set_xcrs,
            "sregs": set_sregs, "events": set_events, "debugregs": set_debugregs, "lapic": set_lapic}
