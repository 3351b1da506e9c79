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

# what a format tells its file about, for blkdebug; the names are in debug.pyx
cdef enum:
    EVENT_READ_AIO = 0
    EVENT_WRITE_AIO = 1
    EVENT_FLUSH_TO_DISK = 2
    EVENT_L1_UPDATE = 3
    EVENT_L2_LOAD = 4
    EVENT_L2_UPDATE = 5
    EVENT_REFBLOCK_LOAD = 6
    EVENT_REFBLOCK_UPDATE = 7
    EVENT_REFTABLE_UPDATE = 8
    EVENT_CLUSTER_ALLOC = 9
    EVENT_CLUSTER_FREE = 10
    EVENT_COW_READ = 11
    EVENT_COW_WRITE = 12
    EVENT_READ_COMPRESSED = 13
    EVENT_WRITE_COMPRESSED = 14
    EVENT_READ_BACKING_AIO = 15
    EVENT_NONE = 16

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
