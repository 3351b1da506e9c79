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
    u8 *building            # the page that a block is being made of
    u64 seen                # of World.noted
    Cpu **cpus
    u32 count
    Block **buckets         # of blocks, by host address
    Block **pages           # of blocks, by host page
    u8 *arena               # blocks and their operations, one after the other
    u64 used, size
    # host code (translate.pyx): a room that is mapped twice
    u8 *native_write        # to write; NULL: nothing is translated
    u8 *native_run          # the same to execute
    u64 native_used, native_first, native_size
    u8 *cold                # in it: to a block that is not translated
    u32 hot                 # executions before a block is translated
    bint (*hotspot)(Cpu *c, Block *block) noexcept nogil    # translates it; False: it stays the interpreter's
    Entry near              # the memory that was used last, as the address space has it; start > last: unknown;
    u8 *near_base           # its RamBlock's host address
    u8 *near_code           # and map of pages with code

cdef inline u32 page_bucket(u64 page) noexcept nogil:
    return <u32>((page >> 12) ^ (page >> 26)) & (PAGE_BUCKETS - 1)

cdef inline u32 bucket(u64 host) noexcept nogil:
    return <u32>((host * <u64>0x9E3779B97F4A7C15) >> 40) & (BUCKETS - 1)

cdef inline void take(Guest *g) noexcept nogil:
    if g.world.threads:
        vr_take_spin(&g.lock)

cdef inline void give(Guest *g) noexcept nogil:
    if g.world.threads:
        vr_give_spin(&g.lock)
