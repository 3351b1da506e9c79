"""Native code for single guest instructions.

An x86-64 host executes a floating-point or SIMD instruction of the guest itself: the same opcode with fixed registers
(xmm0, or memory at rsi) in a few bytes of code, which the handlers call. The code is kept for good and found again by
its bytes; there are only as many as there are instructions with immediates that matter (some ten thousand, with the
registers of MMX, and forty thousand with VEX), so a guest cannot fill the room.

The room is mapped twice, once to write and once to execute, so nothing is ever both.
"""

from libc.string cimport memcmp, memcpy
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE, mmap
from posix.unistd cimport close, ftruncate

cdef extern from *:
    """
    #define _GNU_SOURCE
    #include <sys/mman.h>
    #if defined(__x86_64__)
    #define VR_NATIVE 1
    static int vr_host_has(void)
    {
        __builtin_cpu_init();
        return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("ssse3");
    }
    static int vr_host_aes(void)
    {
        __builtin_cpu_init();
        return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
    }
    #include <cpuid.h>
    /* A word of CPUID, as far as the host's kernel lets programs use it: nothing when YMM registers are not its. */
    static unsigned vr_host_word(unsigned leaf, unsigned which)
    {
        unsigned r[4] = {0, 0, 0, 0}, low, high;
        if (!__get_cpuid_count(1, 0, r, r + 1, r + 2, r + 3) || !(r[2] >> 27 & 1))
            return 0;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        if ((low & 6) != 6 || !__get_cpuid_count(leaf, 0, r, r + 1, r + 2, r + 3))
            return 0;
        return r[which];
    }
    #else
    #define VR_NATIVE 0
    static int vr_host_has(void) { return 0; }
    static int vr_host_aes(void) { return 0; }
    static unsigned vr_host_word(unsigned leaf, unsigned which) { return 0; }
    #endif
    static int vr_memfd(void) { return memfd_create("vmrun-stubs", MFD_CLOEXEC); }
    static void vr_lock(int *l) { while (__atomic_exchange_n(l, 1, __ATOMIC_ACQUIRE)) ; }
    static void vr_unlock(int *l) { __atomic_store_n(l, 0, __ATOMIC_RELEASE); }
    """
    const bint VR_NATIVE
    int vr_host_has() nogil
    int vr_host_aes() nogil
    u32 vr_host_word(u32, u32) nogil
    int vr_memfd() nogil
    void vr_lock(int *) nogil
    void vr_unlock(int *) nogil

cdef enum:
    ROOM = 8 << 20
    BUCKETS = 131072
    LIMIT = 100000          # stubs

cdef struct Entry:
    u32 at                  # in the room
    u32 count               # bytes; 0: free

cdef u8 *writing = NULL
cdef u8 *running = NULL
cdef u32 used = 0
cdef u32 stubs = 0
cdef int lock = 0
cdef Entry table[BUCKETS]


cdef void add(Code *code, u64 bytes, u32 count) noexcept nogil:
    """Append `count` bytes, written as one number: 0x0F1007 is 0F 10 07."""
    cdef u32 n
    for n in range(count):
        code.bytes[code.count] = <u8>(bytes >> (8 * (count - 1 - n)))
        code.count += 1


cdef bint has_imm(const Insn *i) noexcept nogil:
    if i.map == 1:
        return 0x70 <= i.op <= 0x73 or i.op == 0xC2 or 0xC4 <= i.op <= 0xC6
    return i.map == 3


cdef void add_insn(Code *code, const Insn *i, u32 modrm, bint wide) noexcept nogil:
    """Append the instruction itself (maps 0F…) with other operands; `wide`: with REX.W."""
    cdef u32 prefix = prefix_of(i)
    if prefix:
        add(code, 0x66 if prefix == P66 else (0xF3 if prefix == PF3 else 0xF2), 1)
    if wide:
        add(code, 0x48, 1)
    add(code, 0x0F, 1)
    if i.map == 2:
        add(code, 0x38, 1)
    elif i.map == 3:
        add(code, 0x3A, 1)
    add(code, i.op, 1)
    add(code, modrm, 1)
    if has_imm(i):
        add(code, <u64>i.imm & 0xFF, 1)


cdef inline i64 least(i64 a, i64 b) noexcept nogil:
    return a if a < b else b


cdef i64 plain_immediate(const Insn *i) noexcept nogil:
    """The immediate without bits that mean nothing, so that there are few different stubs."""
    cdef i64 imm = i.imm & 0xFF
    cdef u32 op = i.op
    if i.map == 1:
        if 0x71 <= op <= 0x73:
            return least(imm, 16 if op == 0x73 and i.reg & 3 == 3 else 64)
        return imm & 7 if op == 0xC2 or op == 0xC4 or op == 0xC5 else imm
    if 0x08 <= op <= 0x0C or op == 0x14 or op == 0x20:
        return imm & 15
    if op == 0x15 or op == 0x42:
        return imm & 7
    if op == 0x0D or op == 0x16 or op == 0x17 or op == 0x22:
        return imm & 3
    if op == 0x0F:
        return least(imm, 32)
    if op == 0x44:
        return imm & 0x11
    if op == 0xCC:
        return imm & 3
    return imm & 0x7F if 0x60 <= op <= 0x63 else imm


cdef Stub finish(Code *code) noexcept nogil:
    """The code with a return behind it, to be called. NULL: no room, or no executable memory."""
    global used, stubs
    cdef u32 n, hash = <u32>2166136261
    cdef Entry *entry
    cdef u8 *found = NULL
    add(code, 0xC3, 1)
    for n in range(code.count):
        hash = (hash ^ code.bytes[n]) * 16777619
    hash ^= hash >> 15
    vr_lock(&lock)
    while running != NULL:
        entry = &table[hash & (BUCKETS - 1)]
        if entry.count == 0:
            if stubs == LIMIT or used + code.count > ROOM:
                break
            memcpy(writing + used, code.bytes, code.count)
            entry.at, entry.count = used, code.count
            used = (used + code.count + 15) & ~<u32>15
            stubs += 1
        elif entry.count != code.count or memcmp(writing + entry.at, code.bytes, code.count):
            hash += 1
            continue
        found = running + entry.at
        break
    vr_unlock(&lock)
    return <Stub>found


cdef int map_room() except -1:
    """Memory for the stubs. 0: the host refuses."""
    global writing, running
    cdef int fd
    cdef void *first
    cdef void *second
    if running != NULL:
        return 1
    fd = vr_memfd()
    if fd < 0:
        return 0
    if ftruncate(fd, ROOM) < 0:
        close(fd)
        return 0
    first = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
    second = mmap(NULL, ROOM, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0)
    close(fd)
    if first == MAP_FAILED or second == MAP_FAILED:
        return 0
    writing, running = <u8 *>first, <u8 *>second
    return 1


def stubs_available():
    """Can this host run them? (works, why not, what to do)"""
    cdef Code code
    cdef Stub stub
    if not VR_NATIVE:
        return False, "its floating point needs an x86-64 host", "run vmrun on an x86-64 host"
    if not vr_host_has():
        return False, "the host processor lacks SSE4.2", "use a newer host"
    if not map_room():
        return (
            False,
            "the host gives no executable memory (memfd_create, mmap PROT_EXEC)",
            "allow it in the sandbox: SELinux execmem, seccomp, vm.memfd_noexec=0",
        )
    code.count = 0
    add(&code, 0x488D4205, 4)               # lea rax, [rdx+5]
    stub = finish(&code)
    if stub == NULL or stub(NULL, NULL, 37) != 42:
        return False, "executable memory does not execute", "report it as a bug"
    return True, "", ""


def host_has_aes():
    """Do stubs of AES and PCLMULQDQ run here?"""
    return bool(vr_host_aes())


def host_word(leaf, register):
    """CPUID `leaf`, index 0: 1 EBX, 2 ECX, 3 EDX; 0 when the host's programs have no YMM registers."""
    return int(vr_host_word(leaf, register))


map_room()
