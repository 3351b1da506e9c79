"""What a processor asks of its surroundings: ports, devices, the APIC, MSRs that are not its own, the time.

All take the device lock themselves; the x87 state is in memory meanwhile.
"""

from libc.string cimport memcpy

from accel.soft.fpu cimport fpu_resume, fpu_suspend
from accel.soft.mmu cimport ACCESS_WRITE, translate
from accel.soft.pending cimport *
from accel.soft.physical cimport plain
from accel.soft.processor cimport *
from accel.soft.segment cimport EFER_LMA
from accel.soft.string cimport run_devices_by
from accel.space cimport Entry


cdef void finish(Processor cpu, u32 action) noexcept nogil:
    """After a device was called: what it asked for, and whether the processor must look around."""
    if action:
        if cpu.leader is None:
            cpu.control.request(cpu, action)
        else:
            cpu.control.request(cpu.leader, action)
    cdef u32 waits = vr_get32(&cpu.c.pending)
    if action and cpu.c.exact or waits and (waits != PEND_INTR or cpu.c.eflags & F_IF):
        cpu.c.slice -= cpu.c.budget
        cpu.c.budget = 0


cdef u64 c_in(Processor cpu, Cpu *c, u32 port, u32 size) noexcept nogil:
    cdef u64 value
    fpu_suspend(c)
    cpu.take_lock()
    cpu.control.current = <void *>cpu
    value = cpu.machine.io.load(port, size)
    cpu.control.current = NULL
    cpu.give_lock()
    fpu_resume(c)
    finish(cpu, 0)
    return value


cdef void c_out(Processor cpu, Cpu *c, u32 port, u32 size, u64 value) noexcept nogil:
    cdef u32 action
    fpu_suspend(c)
    cpu.take_lock()
    cpu.control.current = <void *>cpu
    action = cpu.machine.io.store(port, size, value)
    cpu.control.current = NULL
    cpu.give_lock()
    fpu_resume(c)
    finish(cpu, action)


cdef void c_string(Processor cpu, Cpu *c, u32 port, u32 size, u8 *data, u32 count, bint out) noexcept nogil:
    cdef u32 action
    fpu_suspend(c)
    cpu.take_lock()
    if out:
        action = cpu.machine.io.store_string(port, size, data, count)
    else:
        action = cpu.machine.io.load_string(port, size, data, count)
    cpu.give_lock()
    fpu_resume(c)
    finish(cpu, action)


cdef u64 c_load(Processor cpu, Cpu *c, u64 phys, u32 size) noexcept nogil:
    cdef u64 value
    if cpu.owns_apic(phys):
        cpu.take_lock()
        value = cpu.source.mmio_read(<u32>phys & 0xFFC)
        cpu.give_lock()
        return value >> (8 * (phys & 3))
    if cpu.hides_apic(phys):
        return ~<u64>0
    fpu_suspend(c)
    cpu.take_lock()
    cpu.control.current = <void *>cpu
    value = cpu.machine.memory.load(phys, size)
    cpu.control.current = NULL
    cpu.give_lock()
    fpu_resume(c)
    finish(cpu, 0)
    return value


cdef void c_store(Processor cpu, Cpu *c, u64 phys, u32 size, u64 value) noexcept nogil:
    cdef u32 action = 0
    if cpu.owns_apic(phys):
        cpu.take_lock()
        if not phys & 3:
            cpu.source.mmio_write(<u32>phys & 0xFFC, <u32>value)
        cpu.give_lock()
        finish(cpu, 0)
        return
    if cpu.hides_apic(phys):
        return
    fpu_suspend(c)
    cpu.take_lock()
    cpu.control.current = <void *>cpu
    action = cpu.machine.memory.store(phys, size, value)
    cpu.control.current = NULL
    cpu.give_lock()
    fpu_resume(c)
    finish(cpu, action)


cdef i64 c_run(Processor cpu, Cpu *c, u64 linear, u32 size, const u8 *data, u64 value, u64 n) noexcept nogil:
    """See accel/soft/string.pxd."""
    cdef Entry *entry
    cdef u8 *host = NULL
    cdef u64 phys, done = 0
    cdef u32 action = 0
    if not c.efer & EFER_LMA:
        linear &= <u64>0xFFFFFFFF
    if translate(c, linear, ACCESS_WRITE, c.cpl == 3, &host, &phys):
        return -1
    if host != NULL or cpu.owns_apic(phys) or cpu.hides_apic(phys) or plain(c, phys, &entry) != NULL:
        return 0
    if entry == NULL or entry.region == NULL or entry.last - phys < n * size - 1:
        return 0
    fpu_suspend(c)
    cpu.take_lock()
    cpu.control.current = <void *>cpu
    while done < n and not action:
        if data != NULL:
            value = 0
            memcpy(&value, data + done * size, size)
        action = cpu.machine.memory.store(phys + done * size, size, value)
        done += 1
    cpu.control.current = NULL
    cpu.give_lock()
    fpu_resume(c)
    finish(cpu, action)
    return <i64>done


cdef u64 c_tsc(void *cpu, Cpu *c) noexcept nogil:
    return (<Processor>cpu).machine.ticks((<Processor>cpu).machine.clock.now())


cdef int c_rdmsr(Processor cpu, Cpu *c, u32 msr, u64 *value) noexcept nogil:
    cdef int result = -1
    if msr == MSR_CLOCK or msr == MSR_CLOCK_OLD:
        value[0] = cpu.kvmclock_msr
        return 0 if cpu.use_kvmclock else -1
    if msr == MSR_WALL or msr == MSR_WALL_OLD:
        value[0] = cpu.wall_msr
        return 0 if cpu.use_kvmclock else -1
    if MSR_ASYNC_PF <= msr <= MSR_PV_EOI:
        value[0] = cpu.offers[msr - MSR_ASYNC_PF]
        return 0 if cpu.kvm_features >> (4 + msr - MSR_ASYNC_PF) & 1 else -1
    if cpu.source is not None:
        cpu.take_lock()
        result = cpu.source.rdmsr(msr, value)
        cpu.give_lock()
    return result


cdef int c_wrmsr(Processor cpu, Cpu *c, u32 msr, u64 value) noexcept nogil:
    cdef int result = -1
    if msr == MSR_CLOCK or msr == MSR_CLOCK_OLD:
        return cpu.set_kvmclock(value) if cpu.use_kvmclock else -1
    if msr == MSR_WALL or msr == MSR_WALL_OLD:
        return cpu.set_wall(value) if cpu.use_kvmclock else -1
    if MSR_ASYNC_PF <= msr <= MSR_PV_EOI:
        if not cpu.kvm_features >> (4 + msr - MSR_ASYNC_PF) & 1:
            return -1
        cpu.offers[msr - MSR_ASYNC_PF] = value
        return 0
    if cpu.source is not None:
        cpu.take_lock()
        result = cpu.source.wrmsr(msr, value)
        cpu.give_lock()
        finish(cpu, 0)
    return result


cdef u32 c_get_tpr(void *cpu, Cpu *c) noexcept nogil:
    return (<Processor>cpu).source.get_tpr() >> 4 if (<Processor>cpu).source is not None else 0


cdef void c_set_tpr(Processor cpu, Cpu *c, u32 value) noexcept nogil:
    if cpu.source is not None:
        cpu.take_lock()
        cpu.source.set_tpr(<u8>(value << 4))
        cpu.give_lock()
        finish(cpu, 0)


cdef int c_ack(Processor cpu, Cpu *c) noexcept nogil:
    cdef int vector = -1
    fpu_suspend(c)
    cpu.take_lock()
    if cpu.source is not None:
        vector = cpu.source.acknowledge()
    elif cpu.ack is not None:
        vector = cpu.ack.acknowledge()
    cpu.give_lock()
    fpu_resume(c)
    return vector


cdef u64 port_in(Cpu *c, u32 port, u32 size) noexcept nogil:
    return c_in(<Processor>c.owner, c, port, size)

cdef void port_out(Cpu *c, u32 port, u32 size, u64 value) noexcept nogil:
    c_out(<Processor>c.owner, c, port, size, value)

cdef void port_in_string(Cpu *c, u32 port, u32 size, u8 *data, u32 count) noexcept nogil:
    c_string(<Processor>c.owner, c, port, size, data, count, False)

cdef void port_out_string(Cpu *c, u32 port, u32 size, u8 *data, u32 count) noexcept nogil:
    c_string(<Processor>c.owner, c, port, size, data, count, True)

cdef u64 phys_load(Cpu *c, u64 phys, u32 size) noexcept nogil:
    return c_load(<Processor>c.owner, c, phys, size)

cdef void phys_store(Cpu *c, u64 phys, u32 size, u64 value) noexcept nogil:
    c_store(<Processor>c.owner, c, phys, size, value)

cdef i64 device_run(Cpu *c, u64 linear, u32 size, const u8 *data, u64 value, u64 n) noexcept nogil:
    return c_run(<Processor>c.owner, c, linear, size, data, value, n)

run_devices_by(device_run)

cdef u64 tsc(Cpu *c) noexcept nogil:
    return c_tsc(c.owner, c)

cdef int rdmsr(Cpu *c, u32 msr, u64 *value) noexcept nogil:
    return c_rdmsr(<Processor>c.owner, c, msr, value)

cdef int wrmsr(Cpu *c, u32 msr, u64 value) noexcept nogil:
    return c_wrmsr(<Processor>c.owner, c, msr, value)

cdef u32 get_tpr(Cpu *c) noexcept nogil:
    return c_get_tpr(c.owner, c)

cdef void set_tpr(Cpu *c, u32 value) noexcept nogil:
    c_set_tpr(<Processor>c.owner, c, value)

cdef int acknowledge(Cpu *c) noexcept nogil:
    return c_ack(<Processor>c.owner, c)


cdef void connect(Cpu *c) noexcept nogil:
    c.hooks.port_in, c.hooks.port_out = port_in, port_out
    c.hooks.port_in_string, c.hooks.port_out_string = port_in_string, port_out_string
    c.hooks.phys_load, c.hooks.phys_store = phys_load, phys_store
    c.hooks.tsc, c.hooks.rdmsr, c.hooks.wrmsr = tsc, rdmsr, wrmsr
    c.hooks.get_tpr, c.hooks.set_tpr, c.hooks.acknowledge = get_tpr, set_tpr, acknowledge
