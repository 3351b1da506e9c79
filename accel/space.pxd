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
    cdef Entry *table
    cdef u32 entries
    cdef u32 last_hit
    cdef unsigned short *port_index
    cdef void *retired_table
    cdef list retired_flat
    cdef readonly list kept
    cpdef invalidate(self)
    cpdef commit(self)
    cdef _build(self, list flat)
    cdef Entry *find(self, u64 addr) noexcept nogil
    cdef u64 load(self, u64 addr, u32 size) noexcept nogil
    cdef u32 store(self, u64 addr, u32 size, u64 value) noexcept nogil
    cdef u32 piece(self, u64 addr, u32 left, u32 whole) noexcept nogil
    cdef u32 load_string(self, u64 addr, u32 size, u8 *data, u32 count) noexcept nogil
    cdef u32 store_string(self, u64 addr, u32 size, u8 *data, u32 count) noexcept nogil
    cdef int copy_in(self, u64 addr, const u8 *data, u64 count) noexcept nogil
    cdef int copy_out(self, u64 addr, u8 *data, u64 count) noexcept nogil


cdef void mark_dirty(void *block, u8 *host, u64 count) noexcept nogil
