from accel.api cimport u8, u32, u64
from accel.threads cimport pthread_rwlock_t
from vmrun.backends.block.engine cimport Engine, Transfer
from vmrun.backends.block.node cimport Cursor, Extent, Node


cdef class FileNode(Node):
    cdef readonly int fd
    cdef readonly str path
    cdef readonly u64 align         # what O_DIRECT asks of offsets, lengths and memory; 1: nothing
    cdef readonly bint device       # a block device: it cannot grow
    cdef public bint unsafe         # cache=unsafe: nothing is ever forced to the disk
    cdef public bint unlocked       # other processes are not kept out
    cdef public Engine engine       # who transfers by itself, None: threads do
    cdef u32 flying                 # its writes under way
    cdef bint nowait, sparse, drops, zeroes
    cdef bint hurries               # writes with RWF_NOWAIT work
    cdef bint near                  # the host's own disk or memory: as a rule a small write is a matter of moments
    cdef u64 rests_until            # when such writes may be tried again, in ns of the pool's clock
    cdef pthread_rwlock_t edges     # shared: aligned writes; exclusive: a read, change and write of a block's part
    cdef int transfer(self, u64 offset, u64 bytes, Cursor *cursor, bint write, int flags) noexcept nogil
    cdef bint aligned(self, u64 offset, u64 bytes, const Cursor *cursor) noexcept nogil
    cdef int bounce(self, u64 offset, u64 bytes, Cursor *cursor, bint write, int flags) noexcept nogil
    cdef void grow(self, u64 end) noexcept nogil
