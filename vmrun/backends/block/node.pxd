# A node of the block graph, at C level. The documentation is in node.pyx.
from accel.api cimport u8, u32, u64
from vmrun.backends.block.engine cimport Transfer
from vmrun.backends.protocols cimport IoVec

# flags of readv and writev
cdef enum:
    NODE_NOWAIT = 1             # readv: EAGAIN rather than wait for the host's disk or a lock
    NODE_FUA = 2                # writev, zero: on stable storage when it returns
    NODE_UNMAP = 4              # zero: the space may be given back
    NODE_BRIEF = 8              # write_now: waiting for what as a rule is a moment is fine
    NODE_STATE = 16             # readv of qcow2: behind the disk's end, where the machine's state lies

cpdef enum:
    EXTENT_DATA = 1             # reads as what is stored
    EXTENT_ZERO = 2             # reads as zeros
    EXTENT_ALLOCATED = 4        # this node answers for it, not its backing image
    EXTENT_OFFSET = 8           # `host` is where in the node's file
    EXTENT_COMPRESSED = 16
    EXTENT_HOLE = 32            # with DATA: nothing may be stored, but who is asked does not say that it reads as zeros

# what a format tells its file about, for blkdebug: BlkdebugEvent of QEMU's, in its order; names in debug.pyx
cdef enum:
    EVENT_L1_UPDATE = 0
    EVENT_L1_GROW_ALLOC_TABLE = 1
    EVENT_L1_GROW_WRITE_TABLE = 2
    EVENT_L1_GROW_ACTIVATE_TABLE = 3
    EVENT_L2_LOAD = 4
    EVENT_L2_UPDATE = 5
    EVENT_L2_UPDATE_COMPRESSED = 6
    EVENT_L2_ALLOC_COW_READ = 7
    EVENT_L2_ALLOC_WRITE = 8
    EVENT_READ_AIO = 9
    EVENT_READ_BACKING_AIO = 10
    EVENT_READ_COMPRESSED = 11
    EVENT_WRITE_AIO = 12
    EVENT_WRITE_COMPRESSED = 13
    EVENT_VMSTATE_LOAD = 14
    EVENT_VMSTATE_SAVE = 15
    EVENT_COW_READ = 16
    EVENT_COW_WRITE = 17
    EVENT_REFTABLE_LOAD = 18
    EVENT_REFTABLE_GROW = 19
    EVENT_REFTABLE_UPDATE = 20
    EVENT_REFBLOCK_LOAD = 21
    EVENT_REFBLOCK_UPDATE = 22
    EVENT_REFBLOCK_UPDATE_PART = 23
    EVENT_REFBLOCK_ALLOC = 24
    EVENT_REFBLOCK_ALLOC_HOOKUP = 25
    EVENT_REFBLOCK_ALLOC_WRITE = 26
    EVENT_REFBLOCK_ALLOC_WRITE_BLOCKS = 27
    EVENT_REFBLOCK_ALLOC_WRITE_TABLE = 28
    EVENT_REFBLOCK_ALLOC_SWITCH_TABLE = 29
    EVENT_CLUSTER_ALLOC = 30
    EVENT_CLUSTER_ALLOC_BYTES = 31
    EVENT_CLUSTER_FREE = 32
    EVENT_FLUSH_TO_OS = 33
    EVENT_FLUSH_TO_DISK = 34
    EVENT_PWRITEV_RMW_HEAD = 35
    EVENT_PWRITEV_RMW_AFTER_HEAD = 36
    EVENT_PWRITEV_RMW_TAIL = 37
    EVENT_PWRITEV_RMW_AFTER_TAIL = 38
    EVENT_PWRITEV = 39
    EVENT_PWRITEV_ZERO = 40
    EVENT_PWRITEV_DONE = 41
    EVENT_EMPTY_IMAGE_PREPARE = 42
    EVENT_L1_SHRINK_WRITE_TABLE = 43
    EVENT_L1_SHRINK_FREE_L2_CLUSTERS = 44
    EVENT_COR_WRITE = 45
    EVENT_CLUSTER_ALLOC_SPACE = 46
    EVENT_NONE = 47

cdef struct Extent:
    u64 length
    u32 flags
    u64 host

# Where a transfer is in its vectors: `skip` bytes of at[0] are done.
cdef struct Cursor:
    const IoVec *at
    u32 left
    u64 skip

cdef void cursor_memory(Cursor *cursor, IoVec *vector, void *base, u64 length) noexcept nogil
cdef void cursor_advance(Cursor *cursor, u64 bytes) noexcept nogil
cdef void cursor_fill(Cursor *cursor, u64 bytes) noexcept nogil
cdef void cursor_put(Cursor *cursor, const u8 *data, u64 bytes) noexcept nogil
cdef void cursor_get(Cursor *cursor, u8 *data, u64 bytes) noexcept nogil
cdef bint cursor_zero(const Cursor *cursor, u64 bytes) noexcept nogil
cdef bint memory_zero(const u8 *data, u64 bytes) noexcept nogil


cdef class Node:
    cdef public str name
    cdef readonly str driver
    cdef readonly u64 size
    cdef readonly bint readonly
    cdef readonly bint closed
    cdef readonly u32 held          # holders besides the first: each calls close()
    cdef public bint asleep         # another program may be writing it: no locks, nothing is written (machine/handover.py)
    cdef public bint lazy           # opened for reading only until somebody wants to write
    cdef u64 limit, passed          # the end of a write that somebody waits for, and of the one that went beyond
    cdef int bell                   # an eventfd that is told then
    cdef void reach(self, u64 end) noexcept nogil
    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil
    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil
    cdef int write_now(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil
    cdef bint begin(self, Transfer *transfer) noexcept nogil
    cdef int flush(self) noexcept nogil
    cdef int discard(self, u64 offset, u64 bytes) noexcept nogil
    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil
    cdef int status(self, u64 offset, u64 bytes, Extent *found) noexcept nogil
    cdef void event(self, int what) noexcept nogil
    cdef int pread(self, void *data, u64 bytes, u64 offset) noexcept nogil
    cdef int pwrite(self, const void *data, u64 bytes, u64 offset) noexcept nogil


cdef class Filter(Node):
    cdef readonly Node file
