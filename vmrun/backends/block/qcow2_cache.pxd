from accel.api cimport u8, u16, u32, u64

# bits of the entries of L1 and L2 tables
cdef extern from *:
    """
    #define QCOW2_OFFSET 0x00fffffffffffe00ull
    #define QCOW2_COPIED (1ull << 63)
    #define QCOW2_PACKED (1ull << 62)
    #define QCOW2_ZERO 1ull
    #define QCOW2_LOW 0xffffffffull
    """
    const u64 OFFSET "QCOW2_OFFSET"
    const u64 COPIED "QCOW2_COPIED"     # nobody else refers to it
    const u64 PACKED "QCOW2_PACKED"     # compressed
    const u64 ZERO "QCOW2_ZERO"
    const u64 LOW "QCOW2_LOW"           # of a bitmap: which subclusters are there; the upper half: which are zero

cdef struct Slot:
    u64 offset                      # in the file; 0: empty
    u32 low, high                   # bytes that are not written yet; high 0: none
    int next                        # of its bucket
    int newer, older                # by when it was last used; -1: none
    u8 *data


cdef class MetaCache:
    cdef Slot *slots
    cdef int *buckets
    cdef u32 count, mask
    cdef u32 filled                 # slots that were ever used: the first ones
    cdef int first, last            # the newest and the oldest of them, -1: none
    cdef u32 bits
    cdef u64 slice                  # 1 << bits
    cdef u32 dirty
    cdef Slot *find(self, u64 offset) noexcept nogil
    cdef Slot *oldest(self) noexcept nogil
    cdef void take_out(self, int n) noexcept nogil
    cdef void touch(self, int n) noexcept nogil
    cdef void age(self, int n) noexcept nogil
    cdef int place(self, Slot *slot, u64 offset) noexcept nogil
    cdef void unlink(self, Slot *slot) noexcept nogil
    cdef void drop(self, u64 offset, u64 bytes) noexcept nogil
    cdef void mark(self, Slot *slot, u32 low, u32 high) noexcept nogil


cdef u64 get64(const u8 *data) noexcept nogil
cdef void put64(u8 *data, u64 value) noexcept nogil
cdef u64 get_count(const u8 *block, u64 index, u32 order) noexcept nogil
cdef void put_count(u8 *block, u64 index, u32 order, u64 value) noexcept nogil
