# What processors share: one's blocks and code (Guest), and all that run the same machine (World). No module of its own.
#
# Processors that take turns on one thread share one Guest. Those with threads of their own have a Guest each: what they
# make of code is theirs alone, so that they run without a lock. A processor that writes into another's code drops the
# blocks there itself, under that Guest's lock; host and guest are both x86, so the other sees it no later than what is
# stored afterwards.
#
# Order of locks: World.lock, then one Guest.lock. The device lock is taken before both, and by none who holds one.
from accel.soft.cpu cimport *
from accel.space cimport Entry

cdef extern from *:
    """
    #include <sched.h>
    #ifndef VR_SPIN
    #define VR_SPIN
    static inline void vr_take_spin(int *l)
    {
        int n = 0;
        while (__atomic_exchange_n(l, 1, __ATOMIC_ACQUIRE))
            if (++n % 64 == 0)
                sched_yield();
            else
                __builtin_ia32_pause();
    }
    static inline void vr_give_spin(int *l) { __atomic_store_n(l, 0, __ATOMIC_RELEASE); }
    static inline void vr_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
    #endif
    """
    void vr_take_spin(int *) nogil
    void vr_give_spin(int *) nogil
    void vr_fence() nogil
    void vr_yield "sched_yield"() nogil

cdef enum:
    BUCKETS = 131072
    PAGE_BUCKETS = 16384
    RECENT = 1024
    MOST_GUESTS = 256

ctypedef struct World:
    bint threads            # a thread for each processor, and a Guest
    void *memory            # AddressSpace
    Guest *guests[MOST_GUESTS]
    u32 count
    int lock                # for what follows, and the maps of pages with code (RamBlock.code)
    u64 code_writes         # bus masters' writes into cached code, as far as seen
    u8 *recent[RECENT]      # pages that came to hold code, a ring:
    u64 noted               # how many there ever were
    Entry *map              # the layout of memory while threads run; changed only while all are outside
    u32 map_count

ctypedef struct Guest:
    World *world
    int lock                # of its blocks, where World.threads
    u32 alone               # 1: its processor wants to execute an instruction while all others stand still; 2: it does
    u8 *building            # the page that a block is being made of
    u64 seen                # of World.noted
    Cpu **cpus
    u32 count
    Block **buckets         # of blocks, by host address
    Block **pages           # of blocks, by host page
    JumpEntry *jcache
    u8 *memory              # all that is mapped for these:
    u8 *arena               # blocks and their operations, one after the other
    u64 used, size
    # host code (translate.pyx): a room that is mapped twice
    u8 *native_write        # to write; NULL: nothing is translated
    u8 *native_run          # the same to execute
    u64 native_used, native_first, native_size
    u64 apart_used, apart_first         # of its second part: what is seldom executed
    u64 great[2]            # of each part: as far as it has been asked for in great pages
    u8 *cold                # in it: to a block that is not translated, which is in R10,
    u32 cold_entry          # or in the entry of the jump cache that R10 points to
    u32 hot, least_hot      # executions before a block is translated: now, and while there is room
    u64 dropped             # when all code was dropped for the last time, in instructions (Cpu.executed),
    u64 drops               # and how often
    bint (*hotspot)(Cpu *c, Block *block) noexcept nogil    # translates it; False: it stays the interpreter's
    Entry near              # the memory that was used last, as the address space has it; start > last: unknown;
    u8 *near_base           # its RamBlock's host address
    u8 *near_code           # and map of pages with code

cdef inline u32 page_bucket(u64 page) noexcept nogil:
    return <u32>((page >> 12) ^ (page >> 26)) & (PAGE_BUCKETS - 1)

cdef inline u32 bucket(u64 host) noexcept nogil:
    return <u32>((host * <u64>0x9E3779B97F4A7C15) >> 40) & (BUCKETS - 1)

# --- places (Link.ways) that lead to a block, a list; and the jumps of the host's code that belong to them. The word in front
# --- of a stub says where its jump's displacement is, from the room's beginning

cdef inline Link *link_of(Block **place) noexcept nogil:
    return <Link *>(<u64>place & ~<u64>(sizeof(Link) - 1))

cdef inline u32 way_of(Block **place) noexcept nogil:
    return <u32>(<u64>place >> 3) & 1

cdef inline Block **next_place(Guest *g, Block **place) noexcept nogil:
    cdef u32 at = link_of(place).more[way_of(place)]
    return <Block **>(g.arena + at) if at else NULL

cdef inline void add_place(Guest *g, Block *block, Block **place) noexcept nogil:
    link_of(place).more[way_of(place)] = <u32>(<u8 *>block.places - g.arena) if block.places != NULL else 0
    block.places = place

cdef inline void patch(Guest *g, Block **place, u8 *target) noexcept nogil:
    """Let the host's code jump to `target` there, if it is the code of one thread alone."""
    cdef u32 stub = link_of(place).stub[way_of(place)], site
    if stub and not g.world.threads:
        site = (<u32 *>(g.native_write + stub))[-1]
        (<i32 *>(g.native_write + site))[0] = <i32>(target - (g.native_run + site + 4))

cdef inline void unpatch(Guest *g, Block **place) noexcept nogil:
    patch(g, place, g.native_run + link_of(place).stub[way_of(place)])

cdef inline void keep_at_hand(Guest *g, Block *block) noexcept nogil:
    """In the jump cache."""
    cdef JumpEntry *e = &g.jcache[jump_slot(block.host)]
    e.key, e.block = block_key(block.host, block.mode), <u32>(<u8 *>block - g.arena)
    e.native = <u32>(block.native - g.native_run) if block.native != g.cold else g.cold_entry

cdef inline void take(Guest *g) noexcept nogil:
    if g.world.threads:
        vr_take_spin(&g.lock)

cdef inline void give(Guest *g) noexcept nogil:
    if g.world.threads:
        vr_give_spin(&g.lock)
