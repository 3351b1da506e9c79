"""What the processors of the soft accelerator share: address spaces, blocks and their code, clock, bell."""

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdlib cimport free
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport close, write

from accel.api cimport DeviceLock
from accel.clock cimport VirtualClock
from accel.soft.code cimport forget_world
from accel.soft.cpu cimport *
from accel.soft.guest cimport *
from accel.soft.mmu cimport flush
from accel.soft.pending cimport *
from accel.soft.physical cimport keep_layout
from accel.soft.room cimport open_room
from accel.soft.translate cimport translate as hotspot
from accel.space cimport AddressSpace

from accel.errors import AccelFailure

cdef extern from *:
    """
    #include <sys/eventfd.h>
    #include <sys/mman.h>
    static int vr_bell(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }
    """
    int vr_bell() nogil
    int madvise(void *, size_t, int) nogil
    int MADV_HUGEPAGE

cdef u64 ARENA = <u64>96 << 20
cdef u64 GREAT = <u64>2 << 20


cdef u64 code_of_guest(Guest *g) noexcept:
    """Bytes of translated code."""
    return g.native_used + g.apart_used - g.apart_first


cdef class Machine:
    """What the processors share: address spaces, code cache, clock, bell."""

    def __cinit__(self, AddressSpace memory, AddressSpace io, DeviceLock lock, u32 hot=0, u64 room=0, bint exact=False,
                  i64 started=-1, bint threads=False, u32 shift=0, bint skips=False):
        self.memory, self.io, self.lock = memory, io, lock
        self.threads = threads
        self.world.threads = threads
        self.world.memory = <void *>memory
        self.paced = None if threads else SoftClock(exact, shift)
        self.clock = VirtualClock() if threads else self.paced
        self.exact, self.skips, self.started = exact, skips, started
        self.cpus = []
        self.tsc_hz = 1000000000
        self.bell = vr_bell()
        self.room, self.hot = room, hot
        if self.bell < 0 or keep_layout(&self.world):
            raise AccelFailure("the host has no memory for the code cache", "", "free some of the host's memory")

    cdef Guest *guest_of(self, u32 index) except NULL:
        """Where processor `index` keeps its blocks: with the first one, unless it has a thread of its own."""
        cdef u32 n = index if self.threads else 0
        cdef Guest *g = self.world.guests[n]
        cdef void *arena
        if g != NULL:
            return g
        g = <Guest *>PyMem_RawCalloc(1, sizeof(Guest))
        if g == NULL:
            raise MemoryError
        g.world = &self.world
        g.size = ARENA
        g.near.start = 1
        g.cpus = &self.table[n]
        g.buckets = <Block **>PyMem_RawCalloc(BUCKETS, sizeof(Block *))
        g.pages = <Block **>PyMem_RawCalloc(PAGE_BUCKETS, sizeof(Block *))
        g.jcache = <JumpEntry *>PyMem_RawCalloc(JCACHE_SIZE, sizeof(JumpEntry))
        # blocks, code to execute, the same to write; at an address for great pages
        self.taken = ARENA + 2 * self.room + GREAT
        arena = mmap(NULL, self.taken, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if arena != MAP_FAILED:
            g.memory = <u8 *>arena
            g.arena = <u8 *>((<u64>arena + GREAT - 1) & ~<u64>(GREAT - 1))
            madvise(g.arena, ARENA, MADV_HUGEPAGE)
        if g.arena == NULL or g.buckets == NULL or g.pages == NULL or g.jcache == NULL:
            self.drop_guest(g)
            raise AccelFailure("the host has no memory for the code cache", "", "free some of the host's memory")
        self.translates = self.room and open_room(
            g, g.arena + ARENA, g.arena + ARENA + self.room, self.room, self.hot, hotspot
        )
        return g

    cdef void drop_guest(self, Guest *g) noexcept:
        if g.memory != NULL:
            munmap(g.memory, self.taken)
        PyMem_RawFree(g.buckets)
        PyMem_RawFree(g.pages)
        PyMem_RawFree(g.jcache)
        PyMem_RawFree(g)

    def __dealloc__(self):
        cdef u32 n
        for n in range(MOST_GUESTS):
            if self.world.guests[n] != NULL:
                self.drop_guest(self.world.guests[n])
        free(self.world.map)
        if self.bell >= 0:
            close(self.bell)

    cdef u64 ticks(self, i64 ns) noexcept nogil:
        """Of the TSC."""
        if self.tsc_hz == 1000000000:
            return <u64>ns
        return <u64>ns // 1000000000 * self.tsc_hz + <u64>ns % 1000000000 * self.tsc_hz // 1000000000

    cdef void ring(self) noexcept nogil:
        """End the sleep, or the next one."""
        cdef u64 one = 1
        if vr_get32i(&self.asleep):
            write(self.bell, &one, 8)

    def flush(self):
        """The layout of memory changed, or somebody looks for writes: nothing cached stays."""
        cdef u32 n
        for n in range(self.world.count):
            self.world.guests[n].near.start, self.world.guests[n].near.last = 1, 0
        for n in range(self.count):
            vr_or32(&self.table[n].pending, PEND_FLUSH)

    def flush_now(self):
        """The TLBs, at once: no processor is executing."""
        cdef u32 n
        for n in range(self.count):
            flush(self.table[n], True)

    def drop_now(self):
        """The same at once: no processor is executing, or this is their thread."""
        cdef u32 n
        if keep_layout(&self.world):
            raise MemoryError
        forget_world(&self.world)
        for n in range(self.count):
            flush(self.table[n], True)
            vr_or32(&self.table[n].pending, PEND_FLUSH)     # the block that runs must not go on to others

    @property
    def statistics(self):
        """Counts of the first processor: instructions, blocks built, looked up (and not at hand), TLB fills, page
        faults, accesses that the TLB did not answer."""
        cdef Cpu *c = self.table[0]
        return {
            "instructions": c.executed, "builds": c.builds, "lookups": c.lookups, "misses": c.misses,
            "fills": c.fills, "faults": c.faults, "slow": c.slow,
            "cache": sum(self.world.guests[n].used for n in range(self.world.count)),
            "drops": sum(self.world.guests[n].drops for n in range(self.world.count)),
            "code": sum(code_of_guest(self.world.guests[n]) for n in range(self.world.count)) if self.translates else 0,
        }
