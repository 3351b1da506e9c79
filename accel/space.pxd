from accel.api cimport DeviceLock, IoRegion, u8, u32, u64
from accel.ram cimport RamBlock

cdef enum:
    KIND_CONTAINER = 0
    KIND_RAM = 1
    KIND_ROM = 2            # reads are memory, writes vanish
    KIND_IO = 3
    KIND_ALIAS = 4
    KIND_ROM_DEVICE = 5     # reads are memory, writes are calls

ctypedef struct Entry:
    u64 start
    u64 last                # inclusive
    void *region            # IoRegion, borrowed from the FlatView; NULL for plain memory
    u64 offset              # of `start` within region (or within the RAM block)
    u64 room                # bytes of the region from `offset` on, what others overlay included
    u8 *host                # host address of `start`, or NULL
    void *block             # RamBlock, borrowed; for the dirty log
    u32 widest              # of an access that somebody answers
    bint writable

ctypedef struct View:       # a FlatView as it is looked up; older ones live while somebody without the device lock looks
    View *older
    u32 count
    u32 near                # the entry that was found last
    Entry entries[1]


cdef class Region:
    cdef readonly str name
    cdef readonly u64 size          # 0 means 2**64
    cdef readonly int kind
    cdef readonly RamBlock block
    cdef readonly u64 offset        # into the block, or into the alias's target
    cdef readonly IoRegion io
    cdef readonly Region target
    cdef readonly u64 addr
    cdef readonly int priority
    cdef readonly bint enabled
    cdef readonly bint readonly      # of an alias: what it shows cannot be written through it
    cdef readonly Region parent
    cdef readonly list children
    cdef public object owner
    cdef list spaces
    cdef readonly list doorbells        # (offset, size, value or None, Notifier)
    cdef _place(self, Region child)


cdef class FlatRange:
    cdef readonly u64 start, size, offset
    cdef readonly Region region
    cdef readonly bint readonly


cdef class AddressSpace:
    cdef readonly str name
    cdef readonly Region root
    cdef readonly list flat
    cdef readonly u64 unassigned
    cdef list listeners
    cdef int transactions
    cdef bint stale
    cdef bint ports
    cdef View *view
    cdef View *retired
    cdef Entry *table               # those of `view`
    cdef u32 entries
    cdef int readers
    cdef unsigned short *port_index
    cdef list retired_flats
    cdef readonly list kept
    cdef readonly dict doorbells    # (address, size, value or None, descriptor) → Notifier
    cdef public object on_doorbells
    cpdef invalidate(self)
    cpdef commit(self)
    cdef _build(self, list flat)
    cdef _retire(self)
    cdef _keep(self, list flat, set shown)
    cdef _hang_doorbells(self, list flat)
    cdef void enter(self) noexcept nogil
    cdef void leave(self) noexcept nogil
    cdef Entry *find(self, u64 addr) noexcept nogil
    cdef u64 load(self, u64 addr, u32 size) noexcept nogil
    cdef u32 store(self, u64 addr, u32 size, u64 value) noexcept nogil
    cdef u32 piece(self, u64 addr, u32 left, u32 whole) noexcept nogil
    cdef u32 load_string(self, u64 addr, u32 size, u8 *data, u32 count) noexcept nogil
    cdef u32 store_string(self, u64 addr, u32 size, u8 *data, u32 count) noexcept nogil
    cdef int copy_in(self, u64 addr, const u8 *data, u64 count) noexcept nogil
    cdef int copy_out(self, u64 addr, u8 *data, u64 count) noexcept nogil


cdef void mark_dirty(void *block, u8 *host, u64 count) noexcept nogil
