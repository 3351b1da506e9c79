"""The room for translated code: memory that is mapped twice, what lies at its beginning, and what happens when it is full.

At the beginning is what all code uses: the ways in and out, look-ups in the TLB and the jump cache, loads of vectors. In its second
part lie stubs and ways out of blocks, so that the first is dense.
"""

from libc.string cimport memset
from posix.mman cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE, mmap, munmap,
)
from posix.unistd cimport close, ftruncate

from accel.soft.assemble cimport *
from accel.soft.block cimport op_count, op_mark, op_native
from accel.soft.cpu cimport *
from accel.soft.guest cimport PAGE_BUCKETS, Guest
from accel.soft.mmu cimport ACCESS_READ, ACCESS_WRITE
from accel.soft.mmu cimport translate as lookup

cdef extern from *:
    """
    #include <sys/mman.h>
    #ifndef MADV_COLLAPSE
    #define MADV_COLLAPSE 25    /* since Linux 6.1 */
    #endif
    static int vr_room(void) { return memfd_create("vmrun-code", MFD_CLOEXEC); }
    """
    int vr_room() nogil
    int madvise(void *, size_t, int) nogil
    int MADV_COLLAPSE
cdef enum:
    GREAT = 2 << 20         # bytes of a great page
    WORTH = 64              # instructions for a byte of the room, that code of them may be dropped,
    DROPPING = 10000000     # and for dropping itself
    HOTTEST = 1 << 20


cdef u64 learn(Cpu *c, u64 ea, u32 how) noexcept nogil:
    """The TLB's entry of an address that translated code missed. 0: it cannot be used, or the access faults."""
    cdef TlbEntry *e = &c.tlb[(ea >> 12) & (TLB_SIZE - 1)]
    cdef u8 *host = NULL
    cdef u64 phys = 0
    if c.tlb == c.tlbs[2] or (ea & 0xFFF) + (how & 255) > 4096:
        return 0
    if lookup(c, ea, ACCESS_WRITE if how & 256 else ACCESS_READ, c.cpl == 3, &host, &phys):
        c.stop = STOP_NEXT
        return 0
    return (e.wtag if how & 256 else e.rtag) == ea & ~<u64>0xFFF


cdef void vector_at(Work *t, u32 op, u32 n, u32 base) noexcept nogil:
    """movaps between XMM `n` and the FXSAVE image at `base`."""
    put(t, rex(False, n, 0, base), 1)
    put(t, 0x0F, 1)
    put(t, op, 1)
    modrm_mem(t, n, base, 160 + 16 * n)


cdef void vectors_of(Work *t, bint store, u32 base) noexcept nogil:
    """All XMM registers to or from the image at `base`."""
    cdef u32 n
    for n in range(16):
        vector_at(t, 0x29 if store else 0x28, n, base)


cdef void load_vectors(Work *t) noexcept nogil:
    """XMM registers into the host's, in what is called; it returns not zero when SSE is off or an exception not masked."""
    put(t, 0x448B9C24, 4)                       # mov r11d, [rsp + mxcsr]
    put32(t, where.mxcsr + 8)
    put(t, 0x41F7D34181E3, 6)                   # not r11d; and r11d, …
    put32(t, 0x1F80)
    put(t, 0x440B9C24, 4)                       # or r11d, [rsp + sse_trap]
    put32(t, where.trap + 8)
    put(t, 0x7401C3, 3)                         # jz over; ret
    from_cpu(t, H_B, where.fx + 8)
    vectors_of(t, False, H_B)


cdef void upper_halves(Work *t, bint store, u32 base) noexcept nogil:
    """Of all YMM registers, to or from the area at `base`. Stored, the host's are zero."""
    cdef u32 n
    for n in range(16):                         # vextractf128, vinsertf128
        put(t, 0xC4, 1)
        put(t, (n >> 3 ^ 1) << 7 | 0x40 | (base >> 3 ^ 1) << 5 | 3, 1)
        put(t, 0x7D if store else (n ^ 15) << 3 | 5, 1)
        put(t, 0x19 if store else 0x18, 1)
        modrm_mem(t, n, base, 576 + 16 * n)
        put(t, 1, 1)
    if store:
        put(t, 0xC5F877, 3)                     # vzeroupper


cdef void held_halves(Work *t, bint store, u32 base, i64 off) noexcept nogil:
    """The same if the host has them. `off`: of the stack's pointer."""
    cdef u8 *without
    put(t, 0xF68424, 3)                         # test byte [rsp + …], 2
    put32(t, where.xmm + off)
    put(t, 0x02, 1)
    without = branch(t, 4)
    upper_halves(t, store, base)
    land(t, without)


cdef void drop_code(Cpu *c, Guest *g) noexcept nogil:
    """The room is full: nothing is translated any more. Nobody is in it."""
    cdef Block *block
    cdef Uop *u
    cdef Link *link
    cdef u64 now = c.executed + c.slice - c.budget
    cdef u32 n, i
    if g.drops and now - g.dropped < g.native_size * WORTH + DROPPING:
        g.hot = min(2 * g.hot + 1, HOTTEST)
    else:
        g.hot = max(g.hot // 2, g.least_hot)
    g.dropped = now
    g.drops += 1
    for n in range(PAGE_BUCKETS):
        block = g.pages[n]
        while block != NULL:
            block.native = g.cold
            u = code_of(block)
            for i in range(<u32>block.uops - block.linked):
                if u[i].fn == op_native:
                    u[i].fn = op_mark
                    if i == 0:
                        u[i].fn, u[i].imm = op_count, g.hot
            if block.linked:
                link = <Link *>&u[block.uops - 1]
                link.stub[0] = link.stub[1] = 0
            block = block.page_next
    memset(g.jcache, 0, JCACHE_SIZE * sizeof(JumpEntry))
    g.native_used, g.apart_used = g.native_first, g.apart_first


cdef void enlarge(Guest *g) noexcept nogil:
    """Great pages where code is about to be written, if the host has some: what runs is spread over all of it."""
    cdef u64 part, at, used
    for part in range(2):
        used = (g.native_used if part == 0 else g.apart_used) + LEAST_ROOM
        at = g.great[part]
        while at <= used and at + GREAT <= (g.apart_first if part == 0 else g.native_size):
            g.native_write[at + GREAT - 1] = 0      # where nothing is there is nothing to collapse
            if madvise(g.native_write + at, GREAT, MADV_COLLAPSE) or madvise(g.native_run + at, GREAT, MADV_COLLAPSE):
                at = g.native_size
            at += GREAT
        g.great[part] = at


cdef void trampolines(Guest *g) noexcept nogil:
    """At its beginning: from C into the code, back, and from one block to another by RIP."""
    cdef u8 *none
    cdef Work t
    cdef u8 *missed[2]
    cdef u8 *same
    cdef u8 *fill
    cdef u8 *base
    cdef u32 n
    t.at, t.shift, t.failed, t.fixes = g.native_write, g.native_run - g.native_write, False, 0
    # u64 enter(Cpu *rdi, u8 *rsi)
    put(&t, 0x535541544155, 6)                  # push rbx, rbp, r12, r13
    put(&t, 0x41564157, 4)                      # push r14, r15
    with_mem(&t, OP_STORE, H_RSP, 7, where.host_sp)     # mov [rdi + host_sp], rsp
    move(&t, H_RSP, 7)
    move(&t, H_A, 6)
    for n in range(16):
        if host_of(n) != NOWHERE:
            from_cpu(&t, host_of(n), 8 * n)
    put(&t, 0x41FFE2, 3)                        # jmp r10
    where.exit = <u32>(t.at - g.native_write)
    for n in range(16):
        if host_of(n) != NOWHERE:
            to_cpu(&t, host_of(n), 8 * n)
    put(&t, 0x80BC24, 3)                        # cmp byte [rsp + …], 0
    put32(&t, where.xmm)
    put(&t, 0, 1)
    same = branch(&t, 4)
    from_cpu(&t, H_B, where.fx)
    vectors_of(&t, True, H_B)
    held_halves(&t, True, H_B, 0)
    put(&t, 0xC68424, 3)                        # mov byte [rsp + …], 0
    put32(&t, where.xmm)
    put(&t, 0, 1)
    land(&t, same)
    move(&t, H_RAX, H_A)
    from_cpu(&t, H_RSP, where.host_sp)
    put(&t, 0x415F415E415D415C, 8)              # pop r15, r14, r13, r12
    put(&t, 0x5D5BC3, 3)                        # pop rbp, rbx; ret
    # called: XMM registers into the host's. Not zero: SSE is off, or an exception not masked
    where.vectors = <u32>(t.at - g.native_write)
    load_vectors(&t)
    put(&t, 0xC68424, 3)                        # mov byte [rsp + …], 1
    put32(&t, where.xmm + 8)
    put(&t, 0x01, 1)
    put(&t, 0x4531DBC3, 4)                      # xor r11d, r11d; ret
    # the same with their upper halves
    where.halves = <u32>(t.at - g.native_write)
    put(&t, 0x448B9C24, 4)                      # mov r11d, [rsp + vex_trap]
    put32(&t, where.vex + 8)
    put(&t, 0x4585DB7401C3, 6)                  # test r11d, r11d; jz over; ret
    put(&t, 0x80BC24, 3)                        # cmp byte [rsp + …], 0
    put32(&t, where.xmm + 8)
    put(&t, 0, 1)
    same = branch(&t, 5)
    load_vectors(&t)
    land(&t, same)
    from_cpu(&t, H_B, where.fx + 8)
    upper_halves(&t, False, H_B)
    put(&t, 0xC68424, 3)                        # mov byte [rsp + …], 3
    put32(&t, where.xmm + 8)
    put(&t, 0x03, 1)
    put(&t, 0x4531DBC3, 4)                      # xor r11d, r11d; ret
    # the TLB learns of linear address r10; r11d: the access, its size or 256. Not zero: it is worth another try
    fill = t.at
    for n in range(10):
        if n < 3 or n > 5:
            to_cpu(&t, host_of(n), 8 * n + 8)
    put(&t, 0x80BC24, 3)                        # cmp byte [rsp + …], 0
    put32(&t, where.xmm + 8)
    put(&t, 0, 1)
    same = branch(&t, 4)
    from_cpu(&t, 7, where.fx + 8)
    vectors_of(&t, True, 7)
    held_halves(&t, True, 7, 8)
    land(&t, same)
    move(&t, 6, H_A)
    with_reg(&t, False, OP_LOAD, H_RDX, H_B)
    with_mem(&t, OP_LEA, 7, H_RSP, 8)
    with_mem(&t, OP_LOAD, H_RSP, 7, where.host_sp)
    put(&t, 0x5748B8, 3)                        # push rdi; mov rax, …
    (<u64 *>t.at)[0] = <u64><void *>learn
    t.at += 8
    put(&t, 0xFFD0415B, 4)                      # call rax; pop r11
    with_mem(&t, OP_LEA, H_RSP, H_B, -8)
    with_reg(&t, False, OP_LOAD, H_A, H_RAX)
    put(&t, 0x80BC24, 3)
    put32(&t, where.xmm + 8)
    put(&t, 0, 1)
    none = branch(&t, 4)
    from_cpu(&t, 7, where.fx + 8)
    vectors_of(&t, False, 7)
    held_halves(&t, False, 7, 8)
    land(&t, none)
    for n in range(10):
        if n < 3 or n > 5:
            from_cpu(&t, host_of(n), 8 * n + 8)
    put(&t, 0x4585D2C3, 4)                      # test r10d, r10d; ret
    # to it, where r10 is the address less the TLB's entry's, which r11 points to
    for n in range(2 * SIZES):
        where.fill[n] = <u32>(t.at - g.native_write)
        with_mem(&t, OP_ADD, H_A, H_B, 8 if n >= SIZES else 0)
        put(&t, 0x41BB, 2)                      # mov r11d, …
        put32(&t, 1 << n % SIZES | (256 if n >= SIZES else 0))
        jump_to(&t, fill + t.shift)
    # to a block without code: r10 is the block, or it is in the jump cache's entry at r10
    g.cold_entry = <u32>(t.at - g.native_write)
    put(&t, 0x458B5208, 4)                      # mov r10d, [r10 + block]
    with_mem(&t, OP_ADD, H_A, H_RSP, where.arena)
    put(&t, 0x41FF62, 3)                        # jmp [r10 + native]
    put(&t, where.native, 1)
    g.cold = t.at + t.shift
    with_mem(&t, OP_LEA, H_A, H_A, 1)
    jump_to(&t, g.native_run + where.exit)
    # by the place that Cpu.link points to, to offset r10 in the page: its block's code, or to the interpreter to find one
    where.follow = <u32>(t.at - g.native_write)
    from_cpu(&t, H_B, where.link)
    with_mem(&t, OP_LOAD, H_B, H_B, 0)
    put(&t, 0x4D85DB, 3)                        # test r11, r11
    same = branch(&t, 4)
    move(&t, H_A, H_B)
    put(&t, 0x4531DB, 3)                        # xor r11d, r11d
    to_cpu(&t, H_B, where.link)
    put(&t, 0x41FF62, 3)                        # jmp [r10 + native]
    put(&t, where.native, 1)
    land(&t, same)
    with_mem(&t, OP_ADD, H_A, H_RSP, R_RIPB)
    to_cpu(&t, H_A, where.rip)
    from_cpu(&t, H_B, where.link)
    move(&t, H_A, H_B)
    put(&t, 0x4983E2E0, 4)                      # and r10, -32: a Link's size
    to_cpu(&t, H_A, where.link)
    put(&t, 0x41C1EB034183E301, 8)              # shr r11d, 3; and r11d, 1
    put(&t, 0x44899C24, 4)                      # mov [rsp + …], r11d
    put32(&t, where.fall)
    put(&t, 0x4531D2, 3)                        # xor r10d, r10d
    jump_to(&t, g.native_run + where.exit)
    # called: r11 is where to go on to RIP r10
    base = t.at + t.shift
    (<u64 *>t.at)[0] = <u64>g.native_run
    t.at += 8
    where.find = <u32>(t.at - g.native_write)
    to_cpu(&t, H_A, where.rip + 8)
    put(&t, 0x4D89D349C1EB08, 7)                # mov r11, r10; shr r11, 12 - 4
    put(&t, 0x4181E3, 3)                        # and r11d, …
    put32(&t, (ITLB_SIZE - 1) * sizeof(ItlbEntry))
    with_mem(&t, OP_ADD, H_B, H_RSP, where.itlb + 8)
    with_mem(&t, OP_SUB, H_A, H_B, 0)
    put(&t, 0x4981FA, 3)                        # cmp r10, 4095
    put32(&t, 4095)
    missed[0] = branch(&t, 7)
    with_mem(&t, OP_ADD, H_A, H_B, 8)
    put(&t, 0x4D89D349C1EB10, 7)                # mov r11, r10; shr r11, 16
    put(&t, 0x4D31D3, 3)                        # xor r11, r10
    put(&t, 0x4181E3, 3)                        # and r11d, …
    put32(&t, JCACHE_SIZE - 1)
    put(&t, 0x49C1E304, 4)                      # shl r11, 4
    with_mem(&t, OP_ADD, H_B, H_RSP, where.jcache + 8)
    with_mem(&t, OP_OR, H_A, H_RSP, where.key + 8)
    with_mem(&t, OP_CMP, H_A, H_B, 0)
    missed[1] = branch(&t, 5)
    from_cpu(&t, H_A, where.rip + 8)
    put(&t, 0x4981E2, 3)                        # and r10, -4096
    put32(&t, -4096)
    to_cpu(&t, H_A, R_RIPB + 8)
    move(&t, H_A, H_B)
    put(&t, 0x458B5A0C, 4)                      # mov r11d, [r10 + native]
    pointer(&t, OP_ADD, H_B, base)
    put(&t, 0xC3, 1)                            # ret
    for n in range(2):
        land(&t, missed[n])
    put(&t, 0x4531D2, 3)                        # xor r10d, r10d
    pointer(&t, OP_LEA, H_B, g.native_run + where.exit)
    put(&t, 0xC3, 1)
    g.native_first = g.native_used = (<u64>(t.at - g.native_write) + 63) & ~<u64>63
    g.apart_first = g.apart_used = g.native_size // 2
    g.great[0], g.great[1] = 0, g.apart_first


cdef int open_room(Guest *g, u8 *run, u8 *write, u64 size, u32 hot, Hotspot hotspot) noexcept nogil:
    """Memory for code at `run` (not far from the blocks), which are translated from now on. 0: the host refuses.

    `run` and `write`, where it is written: addresses that are taken.
    """
    cdef int fd = vr_room()
    cdef void *first
    cdef void *second
    if fd < 0:
        return 0
    if ftruncate(fd, <i64>size) < 0:
        close(fd)
        return 0
    first = mmap(write, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0)
    second = mmap(run, size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0)
    close(fd)
    if first == MAP_FAILED or second == MAP_FAILED:
        return 0
    measure()
    g.native_write, g.native_run, g.native_size = <u8 *>first, <u8 *>second, size
    g.hot = g.least_hot = hot
    g.hotspot = hotspot
    trampolines(g)
    if g.apart_first < g.native_first + LEAST_ROOM:
        g.native_write = NULL
    return g.native_write != NULL


def available():
    """Does this host give memory for translated code?"""
    cdef Guest g
    cdef u64 size = 65536
    cdef void *run = mmap(NULL, 2 * size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    cdef bint works
    if run == MAP_FAILED:
        return False
    works = open_room(&g, <u8 *>run, <u8 *>run + size, size, 0, NULL)
    munmap(run, 2 * size)
    return works
