"""System instructions: their emitter, and those that need no file of their own.

Most are slow functions behind one operation (`op_call`), which keeps the block alive when they return 0. Far transfers
use `op_transfer`, which goes straight on to the block at the new c.rip. The frequent ones have operations of their own.

Ref: Intel SDM volumes 2 and 3; AMD64 volume 3.
Not modelled: monitor/mwait (mwait does not wait), performance counters, VMX, SVM.
"""

from accel.soft.control cimport *
from accel.soft.controlregs cimport *
from accel.soft.cpu cimport *
from accel.soft.exception cimport enter_redirected, merge_pending, redirects, soft_interrupt
from accel.soft.far cimport *
from accel.soft.insn cimport *
from accel.soft.integer cimport emit_integer
from accel.soft.msr cimport cpuid, has_kvm, read_msr, write_msr
from accel.soft.operand cimport mem_operand
from accel.soft.pmu cimport read_counter
from accel.soft.port cimport do_in, do_ins, do_out, do_outs
from accel.soft.protect cimport *
from accel.soft.segment cimport *
from accel.soft.shift cimport op_feature
from accel.soft.smm cimport resume
from accel.soft.transfer cimport *
from accel.soft.xsave cimport do_pkru, do_xcr, do_xrstor, do_xsave

cdef extern from * nogil:
    """
    #include <sys/random.h>
    /* A number of the host's, 0: it has none yet. 256 bytes at a time, as many as getrandom(2) gives whole or not at
       all; each is given once, then known to nobody else. */
    static int vr_random(unsigned long long *value)
    {
        static __thread unsigned long long numbers[32];
        static __thread unsigned left;
        if (!left) {
            if (getrandom(numbers, sizeof numbers, GRND_NONBLOCK) != sizeof numbers)
                return 0;
            left = sizeof numbers / sizeof *numbers;
        }
        *value = numbers[--left];
        numbers[left] = 0;
        return 1;
    }
    """
    bint vr_random(u64 *value)

# 0: done, the block goes on; 1: an exception is noted, it belongs to this instruction; 2: c.rip and c.stop are set.
ctypedef int (*Slow)(Cpu *c, Uop *u) noexcept nogil

cdef enum:
    FLAGS_POP = F_TF | F_DF | F_NT | F_RF | F_AC | F_ID


cdef void op_call(Cpu *c, Uop *u) noexcept nogil:
    cdef int result = (<Slow><void *>u.imm)(c, u)
    if result == 0:
        next(c, u)
        return
    if result == 1:
        fault(c, u)


cdef void op_transfer(Cpu *c, Uop *u) noexcept nogil:
    cdef int result = (<Slow><void *>u.imm)(c, u)
    if result == 0:
        if c.pending == 0:
            go(c)
            return
        c.stop = STOP_NEXT
        return
    if result == 1:
        fault(c, u)


cdef inline int if_mode(Cpu *c, Uop *u, u32 mode) noexcept nogil:
    """Go on when the mode is still what the block was made for."""
    return 0 if c.mode == mode else left(c, u)


# --- flags -----------------------------------------------------------------------------------------------------------

cdef inline bint virtual_flag(Cpu *c) noexcept nogil:
    """cli and sti are for VIF: in a program of virtual-8086 mode with VME, of other modes with PVI."""
    return c.cpl == 3 and c.cr0 & CR0_PE and c.cr4 & (CR4_VME if is_v86(c) else CR4_PVI) != 0


cdef void op_cli(Cpu *c, Uop *u) noexcept nogil:
    if c.cpl > iopl(c):
        if not virtual_flag(c):
            raise_gp(c, u, 0)
            return
        c.eflags &= ~<u32>F_VIF
        next(c, u)
        return
    c.eflags &= ~<u32>F_IF
    next(c, u)


cdef void op_sti(Cpu *c, Uop *u) noexcept nogil:
    """The interrupt shadow only matters when something waits already; what comes later waits for the block's end."""
    if c.cpl > iopl(c):
        if not virtual_flag(c) or c.eflags & F_VIP:
            raise_gp(c, u, 0)
            return
        c.eflags |= F_VIF
        next(c, u)
        return
    if c.pending and not c.eflags & F_IF:
        c.eflags |= F_IF
        c.shadow = 1
        leave(c, u, STOP_NEXT)
        return
    c.eflags |= F_IF
    next(c, u)


cdef void op_pushf64(Cpu *c, Uop *u) noexcept nogil:
    if st64(c, c.regs[4] - 8, get_eflags(c) & ~<u32>(F_VM | F_RF)):
        fault(c, u)
        return
    c.regs[4] -= 8
    next(c, u)


cdef int do_pushf(Cpu *c, Uop *u) noexcept nogil:
    if is_v86(c) and iopl(c) != 3:
        if u.a != 2 or not c.cr4 & CR4_VME:
            return failed(c, X_GP, 0)
        return push(c, 2, virtual_flags(c))
    return push(c, u.a, get_eflags(c) & ~<u32>(F_VM | F_RF))


cdef int do_popf(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 value = 0
    cdef u32 mask = FLAGS_POP, before = c.eflags, mode = c.mode
    cdef u64 sp = c.regs[4]
    if is_v86(c) and iopl(c) != 3:
        if u.a != 2 or not c.cr4 & CR4_VME:
            return failed(c, X_GP, 0)
        if pop(c, 2, &value):
            return 1
        if set_virtual_flags(c, <u32>value):
            c.regs[4] = sp
            return 1
        return 0
    if pop(c, u.a, &value):
        return 1
    if c.cpl <= iopl(c):
        mask |= F_IF
    if c.cpl == 0:
        mask |= F_IOPL
    if u.a == 2:
        mask &= 0xFFFF
    set_eflags(c, <u32>value & ~<u32>F_RF, mask)
    before ^= c.eflags
    if before & (F_TF | F_AC):
        c.memory.set_mode(c)
        return if_mode(c, u, mode)
    return left(c, u) if c.pending and before & F_IF else 0


cdef int do_ac(Cpu *c, Uop *u) noexcept nogil:
    """clac, stac (b 1)."""
    if not has(c, FEAT_7_EBX, 20) or c.cpl != 0:
        return undefined(c)
    c.eflags = c.eflags | F_AC if u.b else c.eflags & ~<u32>F_AC
    c.memory.set_mode(c)
    return 0


# --- segment registers -----------------------------------------------------------------------------------------------

cdef int loaded(Cpu *c, Uop *u, u32 n, u32 mode) noexcept nogil:
    """After a load of segment register `n`. One of SS keeps interrupts away from the next instruction."""
    c.memory.set_mode(c)
    if n == SS and (c.pending or c.mode & MODE_STEP):
        c.shadow = 7
        return left(c, u)
    return if_mode(c, u, mode)


cdef int do_mov_to_seg(Cpu *c, Uop *u) noexcept nogil:
    cdef u32 sel = 0, mode = c.mode
    if read_word(c, u, &sel) or load_seg(c, u.b, sel):
        return 1
    return loaded(c, u, u.b, mode)


cdef int do_mov_from_seg(Cpu *c, Uop *u) noexcept nogil:
    return write_word(c, u, c.seg[u.b].sel)


cdef int do_push_seg(Cpu *c, Uop *u) noexcept nogil:
    return push(c, u.a, c.seg[u.b].sel)


cdef int do_pop_seg(Cpu *c, Uop *u) noexcept nogil:
    cdef Stack s
    cdef u64 value = 0, mask
    cdef u32 mode = c.mode
    stack_of(c, &s)
    mask = s.mask
    if take(c, &s, u.a, &value) or load_seg(c, u.b, <u32>value):
        return 1
    if mask == 0xFFFF:                              # as wide as the old stack was
        r16(c, RSP)[0] = <u16>s.sp
    else:
        c.regs[4] = s.sp
    return loaded(c, u, u.b, mode)


cdef int do_load_far(Cpu *c, Uop *u) noexcept nogil:
    """les, lds, lss, lfs, lgs."""
    cdef u64 offset = 0, at = address(c, u)
    cdef u16 sel = 0
    cdef u32 mode = c.mode
    if c.memory.load(c, at, u.a, &offset) or ld16(c, at + u.a, &sel) or load_seg(c, u.b, sel):
        return 1
    set_reg(c, u.d, u.a, offset)
    return loaded(c, u, u.b, mode)


# --- the rest ------------------------------------------------------------------------------------------------------------

cdef int do_invlpg(Cpu *c, Uop *u) noexcept nogil:
    if c.cpl != 0:
        return failed(c, X_GP, 0)
    c.memory.flush_page(c, address(c, u))
    return left(c, u)


cdef int do_privileged(Cpu *c, Uop *u) noexcept nogil:
    """invd, wbinvd: there is no cache."""
    return failed(c, X_GP, 0) if c.cpl else 0


cdef int do_cpuid(Cpu *c, Uop *u) noexcept nogil:
    cdef u32 out[4]
    cpuid(c, <u32>c.regs[0], <u32>c.regs[1], out)
    c.regs[0], c.regs[3], c.regs[1], c.regs[2] = out[0], out[1], out[2], out[3]
    return 0


cdef int do_rdtsc(Cpu *c, Uop *u) noexcept nogil:
    """rdtsc, rdtscp (b 1)."""
    cdef u64 value
    if u.b and not has(c, FEAT_EXT_EDX, 27):
        return undefined(c)
    if c.cr4 & CR4_TSD and c.cpl != 0:
        return failed(c, X_GP, 0)
    value = c.hooks.tsc(c) + c.tsc_offset
    c.regs[0] = value & <u64>0xFFFFFFFF
    c.regs[2] = value >> 32
    if u.b:
        c.regs[1] = c.tsc_aux & <u64>0xFFFFFFFF
    return 0


cdef int do_rdpmc(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 value = 0
    if c.cpl and c.cr0 & CR0_PE and not c.cr4 & CR4_PCE:
        return failed(c, X_GP, 0)
    if read_counter(c, <u32>c.regs[1], &value):
        return 1
    c.regs[0], c.regs[2] = value & <u64>0xFFFFFFFF, value >> 32
    return 0


cdef int do_rdmsr(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 value = 0
    if c.cpl != 0:
        return failed(c, X_GP, 0)
    if read_msr(c, <u32>c.regs[1], &value):
        return 1
    c.regs[0] = value & <u64>0xFFFFFFFF
    c.regs[2] = value >> 32
    return 0


cdef int do_wrmsr(Cpu *c, Uop *u) noexcept nogil:
    if c.cpl != 0:
        return failed(c, X_GP, 0)
    if write_msr(c, <u32>c.regs[1], (c.regs[0] & <u64>0xFFFFFFFF) | (c.regs[2] << 32)):
        return 1
    return left(c, u)


cdef void op_swapgs(Cpu *c, Uop *u) noexcept nogil:
    cdef u64 base = c.regs[BASE + GS]
    if c.cpl != 0:
        raise_gp(c, u, 0)
        return
    c.regs[BASE + GS] = c.kernel_gs
    c.kernel_gs = base
    next(c, u)


cdef int do_fsgsbase(Cpu *c, Uop *u) noexcept nogil:
    """rdfsbase, rdgsbase, wrfsbase, wrgsbase; b 0 to 3."""
    cdef u64 *base = &c.regs[BASE + FS + (u.b & 1)]
    cdef u64 value
    if not c.cr4 & CR4_FSGSBASE:
        return undefined(c)
    if u.b < 2:
        set_reg(c, u.s, u.a, base[0])
        return 0
    value = r64(c, u.s)[0] if u.a == 8 else r32(c, u.s)[0]
    if not canonical(value):
        return failed(c, X_GP, 0)
    base[0] = value
    return 0


cdef int do_invpcid(Cpu *c, Uop *u) noexcept nogil:
    """The TLB has the current PCID's entries only, so all that is not one address drops everything that is not global."""
    cdef u64 at = address(c, u), low = 0, linear = 0
    cdef u64 kind = r64(c, u.d)[0] if is_64(c) else r32(c, u.d)[0]
    if not has(c, FEAT_7_EBX, 10):
        return undefined(c)
    if c.cpl != 0:
        return failed(c, X_GP, 0)
    if c.memory.load(c, at, 8, &low) or c.memory.load(c, at + 8, 8, &linear):
        return 1
    if kind > 3 or low >> 12 or kind < 2 and low and not c.cr4 & CR4_PCIDE or kind == 0 and not canonical(linear):
        return failed(c, X_GP, 0)
    if kind == 0:
        c.memory.flush_page(c, linear)
    else:
        c.memory.flush(c, kind == 2)
    return left(c, u)


cdef int do_random(Cpu *c, Uop *u) noexcept nogil:
    """rdrand, rdseed (b 1)."""
    cdef u64 value = 0
    if not (has(c, FEAT_7_EBX, 18) if u.b else has(c, FEAT_1_ECX, 30)):
        return undefined(c)
    if c.seed:
        c.seed ^= c.seed << 13                      # xorshift
        c.seed ^= c.seed >> 7
        c.seed ^= c.seed << 17
        value = c.seed
        set_status_flags(c, F_CF)
    else:
        set_status_flags(c, F_CF if vr_random(&value) else 0)
    set_reg(c, u.s, u.a, value)
    return 0


cdef int do_rdpid(Cpu *c, Uop *u) noexcept nogil:
    if not has(c, FEAT_7_ECX, 22):
        return undefined(c)
    set_reg(c, u.s, 8 if is_64(c) else 4, c.tsc_aux & <u64>0xFFFFFFFF)
    return 0


cdef int do_clzero(Cpu *c, Uop *u) noexcept nogil:
    """The 64 bytes that RAX lies in."""
    cdef u64 zeros[8]
    cdef u32 n
    if not has(c, FEAT_EXT_8_EBX, 0):
        return undefined(c)
    for n in range(8):
        zeros[n] = 0
    return c.memory.store_bytes(c, address(c, u) & ~<u64>63, 64, zeros)


cdef int do_adx(Cpu *c, Uop *u) noexcept nogil:
    """adcx, adox (b 1): one flag in and out, the others stay."""
    cdef u32 flag = F_OF if u.b else F_CF, flags = status_flags(c)
    cdef u64 a = r64(c, u.d)[0], b = 0, r, carried = flags & flag != 0
    if not has(c, FEAT_7_EBX, 19):
        return undefined(c)
    if not u.x:
        b = r64(c, u.s)[0]
    elif c.memory.load(c, address(c, u), u.a, &b):
        return 1
    if u.a < 8:
        r = (a & <u64>0xFFFFFFFF) + (b & <u64>0xFFFFFFFF) + carried
        carried = r >> 32
    else:
        r = a + b + carried
        carried = r < a or (carried and r == a)
    set_reg(c, u.d, u.a, r)
    set_status_flags(c, flags | flag if carried else flags & ~flag)
    return 0


# --- transactions: each aborts as it begins, for no reason that is told ----------------------------------------------

cdef void op_xbegin(Cpu *c, Uop *u) noexcept nogil:
    if not has(c, FEAT_7_EBX, 11):
        raise_at(c, u, X_UD)
        return
    c.regs[0] = 0
    leave(c, u, STOP_NEXT)
    c.rip = (c.rip + <u64>u.imm) & rip_mask(c.mode)


cdef void op_xabort(Cpu *c, Uop *u) noexcept nogil:
    """Outside of a transaction it does nothing."""
    if not has(c, FEAT_7_EBX, 11):
        raise_at(c, u, X_UD)
        return
    next(c, u)


cdef int do_xend(Cpu *c, Uop *u) noexcept nogil:
    return failed(c, X_GP, 0) if has(c, FEAT_7_EBX, 11) else undefined(c)


cdef int do_xtest(Cpu *c, Uop *u) noexcept nogil:
    if not c.features[FEAT_7_EBX] & (1 << 11 | 1 << 4):
        return undefined(c)
    set_status_flags(c, F_ZF)
    return 0


cdef int do_hypercall(Cpu *c, Uop *u) noexcept nogil:
    """vmcall, vmmcall: KVM's guests may ask, and are told that there is no such call (or EPERM)."""
    cdef i64 result = -1000 if c.cpl == 0 else -1
    if not has_kvm(c):
        return undefined(c)
    if c.cpl == 0 and <u32>c.regs[0] == 1:          # KVM_HC_VAPIC_POLL_IRQ
        result = 0
    set_reg(c, RAX, 8 if is_64(c) else 4, <u64>result)
    return 0


cdef int do_monitor(Cpu *c, Uop *u) noexcept nogil:
    if not has(c, FEAT_1_ECX, 3) or c.cpl != 0:
        return undefined(c)
    return 0


# --- the emitter ---------------------------------------------------------------------------------------------------------

cdef int call(Uop *u, Slow function, u32 b) noexcept nogil:
    u.fn = op_call
    u.imm = <i64><void *>function
    u.b = <u8>b
    return 1


cdef int transfer(Uop *u, Slow function, u32 b) noexcept nogil:
    u.fn = op_transfer
    u.imm = <i64><void *>function
    u.b = <u8>b
    return 1


cdef int word(Insn *i, Uop *u, Slow function, u32 b, u32 size, bint write) noexcept nogil:
    """An instruction on r/m: x, s, d, and how many operations."""
    cdef Uop *at = u
    if i.mem:
        at = mem_operand(i, u, size, write)
        at.x = 1
    else:
        at.s = gpr(i, i.rm, 2)
    at.a = i.osize
    at.d = gpr(i, i.reg, 2)
    call(at, function, b)
    return <int>(at - u) + 1


cdef int pointer(Insn *i, Uop *u, Slow function, u32 b) noexcept nogil:
    """A far jump or call: the operand is in memory."""
    cdef int count = word(i, u, function, b, i.osize + 2, False)
    u[count - 1].fn = op_transfer
    return count


cdef int direct(Insn *i, Uop *u, Slow function) noexcept nogil:
    """A far jump or call with selector and offset in the instruction."""
    u.disp = <i32>i.imm
    u.x = <u8>i.imm2
    return transfer(u, function, <u32>i.imm2 >> 8)


cdef int port(Insn *i, Uop *u, Slow function) noexcept nogil:
    u.a = 1 if not i.op & 1 else (2 if i.osize == 2 else 4)
    u.x = i.asize
    u.d = i.seg
    u.s = i.op >= 0xEC
    u.disp = <i32>(i.imm & 0xFF)
    return call(u, function, i.prefix & (P_F2 | P_F3) != 0)


cdef int emit_one(Insn *i, Uop *u) noexcept nogil:
    cdef u32 op = i.op
    u.a = i.osize
    if op in (0x06, 0x0E, 0x16, 0x1E):
        return call(u, do_push_seg, op >> 3)
    if op in (0x07, 0x17, 0x1F):
        return call(u, do_pop_seg, op >> 3)
    if op == 0x62:
        return word(i, u, do_bound, 0, i.osize * 2, False)
    if op == 0x63:
        return word(i, u, do_arpl, 0, 2, True)
    if op == 0x6C or op == 0x6D:
        return port(i, u, do_ins)
    if op == 0x6E or op == 0x6F:
        return port(i, u, do_outs)
    if op == 0x8C:
        return word(i, u, do_mov_from_seg, i.reg & 7, 2, True) if i.reg & 7 < 6 else 0
    if op == 0x8E:
        return word(i, u, do_mov_to_seg, i.reg & 7, 2, False) if i.reg & 7 < 6 and i.reg & 7 != CS else 0
    if op == 0xC6 or op == 0xC7:                    # xabort, xbegin
        if i.modrm != 0xF8:
            return 0
        u.imm = i.imm
        u.fn = op_xbegin if op == 0xC7 else op_xabort
        return 1
    if op == 0x9A:
        return direct(i, u, do_call)
    if op == 0xEA:
        return direct(i, u, do_jump)
    if op == 0x9C:
        if i.osize == 8:
            u.fn = op_pushf64
            return 1
        return call(u, do_pushf, 0)
    if op == 0x9D:
        return call(u, do_popf, 0)
    if op == 0xC4 or op == 0xC5:
        return word(i, u, do_load_far, ES if op == 0xC4 else DS, i.osize + 2, False)
    if op == 0xCA or op == 0xCB:
        u.disp = <i32>(i.imm & 0xFFFF) if op == 0xCA else 0
        return transfer(u, do_return, 0)
    if op == 0xCC:
        return transfer(u, do_int, 3)
    if op == 0xCD:
        u.x = 1
        return transfer(u, do_int, <u32>i.imm & 0xFF)
    if op == 0xCE:
        return call(u, do_into, 4)
    if op == 0xCF:
        return transfer(u, do_iret, 0)
    if op in (0xE4, 0xE5, 0xEC, 0xED):
        return port(i, u, do_in)
    if op in (0xE6, 0xE7, 0xEE, 0xEF):
        return port(i, u, do_out)
    if op == 0xF1:
        u.fn = op_icebp
    elif op == 0xF4:
        u.fn = op_hlt
    elif op == 0xFA:
        u.fn = op_cli
    elif op == 0xFB:
        u.fn = op_sti
    elif op == 0xFF:
        return pointer(i, u, do_jump_mem, i.reg & 7 == 3)
    else:
        return 0
    return 1


cdef int emit_tables(Insn *i, Uop *u) noexcept nogil:
    """0F 00 and 0F 01."""
    cdef u32 n = i.reg & 7
    if i.op == 0:
        if n < 2:
            return word(i, u, do_selector_store, LDTR if n == 0 else TR, 2, True)
        if n < 4:
            return word(i, u, do_lldt if n == 2 else do_ltr, 0, 2, False)
        return word(i, u, do_verify, n - 4, 2, False)
    if n == 4:
        return word(i, u, do_smsw, 0, 2, True)
    if n == 6:
        return word(i, u, do_lmsw, 0, 2, False)
    if i.mem:
        if n < 4:
            return word(i, u, do_table_store if n < 2 else do_table_load, n & 1, 10 if i.mode & MODE_64 else 6, n < 2)
        return word(i, u, do_invlpg, 0, 1, False) if n == 7 else 0
    if i.modrm == 0xC1 or i.modrm == 0xD9:
        return call(u, do_hypercall, 0)
    if i.modrm == 0xC8 or i.modrm == 0xC9:
        return call(u, do_monitor, 0)
    if i.modrm == 0xD0 or i.modrm == 0xD1:
        return call(u, do_xcr, i.modrm & 1)
    if i.modrm == 0xCA or i.modrm == 0xCB:
        return call(u, do_ac, i.modrm & 1)
    if i.modrm == 0xD5 or i.modrm == 0xD6:
        return call(u, do_xend if i.modrm == 0xD5 else do_xtest, 0)
    if i.modrm == 0xEE or i.modrm == 0xEF:
        return call(u, do_pkru, i.modrm & 1) if not i.prefix & (P_66 | P_F2 | P_F3) else 0
    if i.modrm == 0xF8 and i.mode & MODE_64:
        u.fn = op_swapgs
        return 1
    if i.modrm == 0xF9:
        return call(u, do_rdtsc, 1)
    if i.modrm == 0xFC:
        i.mem, i.base, i.index, i.disp, i.scale = True, RAX, R_ZERO, 0, 0
        return word(i, u, do_clzero, 0, 64, True)
    return 0


cdef int emit_states(Insn *i, Uop *u) noexcept nogil:
    """0F AE /4 to /6: xsave, xrstor, xsaveopt; with 66 clwb."""
    cdef u32 n = i.reg & 7
    if i.prefix & P_66:
        return emit_integer(i, u)
    return word(i, u, do_xrstor if n == 5 else do_xsave, n == 6, 64, n != 5)


cdef int emit_two(Insn *i, Uop *u) noexcept nogil:
    cdef u32 op = i.op
    u.a = i.osize
    if op < 2:
        return emit_tables(i, u)
    if op == 0x02 or op == 0x03:
        return word(i, u, do_lar if op == 2 else do_lsl, 0, 2, False)
    if op == 0x05:
        return transfer(u, do_syscall, 0)
    if op == 0x06:
        return call(u, do_clts, 0)
    if op == 0x07:
        return transfer(u, do_sysret, 0)
    if op == 0x08 or op == 0x09:
        return call(u, do_privileged, 0)
    if 0x20 <= op <= 0x23:
        if i.prefix & P_LOCK:                       # AMD's other way to CR8
            u.fn, u.a, u.b = op_feature, FEAT_EXT_ECX, 4
            u[1].d = u[1].s = gpr(i, i.rm, 8)
            u[1].a = i.osize
            return 1 + call(u + 1, do_mov_to_cr if op & 2 else do_mov_from_cr, 8)
        u.d = u.s = gpr(i, i.rm, 8)
        if op & 1:
            return call(u, do_mov_to_dr if op & 2 else do_mov_from_dr, i.reg)
        return call(u, do_mov_to_cr if op & 2 else do_mov_from_cr, i.reg)
    if op == 0x30:
        return call(u, do_wrmsr, 0)
    if op == 0x31:
        return call(u, do_rdtsc, 0)
    if op == 0x32:
        return call(u, do_rdmsr, 0)
    if op == 0x33:
        return call(u, do_rdpmc, 0)
    if op == 0x34:
        return transfer(u, do_sysenter, 0)
    if op == 0x35:
        return transfer(u, do_sysexit, 0)
    if op == 0xA0 or op == 0xA8:
        return call(u, do_push_seg, FS if op == 0xA0 else GS)
    if op == 0xA1 or op == 0xA9:
        return call(u, do_pop_seg, FS if op == 0xA1 else GS)
    if op == 0xA2:
        return call(u, do_cpuid, 0)
    if op == 0xAA:
        return transfer(u, do_rsm, 0)
    if op == 0xAE and i.mem:
        return emit_states(i, u)
    if op == 0xAE and i.mode & MODE_64:
        return word(i, u, do_fsgsbase, i.reg & 7, 8, False)
    if op == 0xC7 and i.mem:
        return word(i, u, do_xrstor if i.reg & 7 == 3 else do_xsave, (i.reg & 7) - 2, 64, i.reg & 7 > 3)
    if op == 0xC7:
        u.s = gpr(i, i.rm, 8)
        return call(u, do_rdpid if i.prefix & P_F3 else do_random, i.reg & 1)
    if op in (0xB2, 0xB4, 0xB5):
        return word(i, u, do_load_far, op & 7, i.osize + 2, False)
    return 0


cdef int emit_system(Insn *i, Uop *u) noexcept nogil:
    """Operations of an instruction of class K_SYSTEM; 0: #UD."""
    cdef int n
    if i.map == MAP_ONE:
        return emit_one(i, u)
    if i.map == MAP_0F:
        return emit_two(i, u)
    if i.map == MAP_0F38 and i.op == 0x82:
        return word(i, u, do_invpcid, 0, 16, False)
    if i.map == MAP_0F38 and i.op == 0xF6:
        n = word(i, u, do_adx, i.prefix & P_F3 != 0, 8 if i.prefix & P_REXW else 4, False)
        u[n - 1].a = 8 if i.prefix & P_REXW else 4
        return n
    return 0
