"""The bytes of qcow2's tables, and a bounded cache of slices of them by their place in the file."""

from libc.errno cimport ENOMEM
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

cdef extern from "<endian.h>" nogil:
    u64 be64toh(u64)
    u64 htobe64(u64)
    u32 be32toh(u32)
    u32 htobe32(u32)
    u16 be16toh(u16)
    u16 htobe16(u16)


cdef u64 get64(const u8 *data) noexcept nogil:
    cdef u64 value
    memcpy(&value, data, 8)
    return be64toh(value)


cdef void put64(u8 *data, u64 value) noexcept nogil:
    value = htobe64(value)
    memcpy(data, &value, 8)


cdef u64 get_count(const u8 *block, u64 index, u32 order) noexcept nogil:
    """A reference count of 1 << order bits."""
    if order == 4:
        return be16toh((<const u16 *>block)[index])
    if order == 3:
        return block[index]
    if order == 5:
        return be32toh((<const u32 *>block)[index])
    if order == 6:
        return be64toh((<const u64 *>block)[index])
    return block[index >> (3 - order)] >> ((index & ((8 >> order) - 1)) << order) & ((1 << (1 << order)) - 1)


cdef void put_count(u8 *block, u64 index, u32 order, u64 value) noexcept nogil:
    cdef u32 shift, mask
    if order == 4:
        (<u16 *>block)[index] = htobe16(<u16>value)
    elif order == 3:
        block[index] = <u8>value
    elif order == 5:
        (<u32 *>block)[index] = htobe32(<u32>value)
    elif order == 6:
        (<u64 *>block)[index] = htobe64(value)
    else:
        shift = (index & ((8 >> order) - 1)) << order
        mask = (1 << (1 << order)) - 1
        block[index >> (3 - order)] = <u8>((block[index >> (3 - order)] & ~(mask << shift)) | (value << shift))

# --- the cache of tables -----------------------------------------------------------------------------------

cdef class MetaCache:
    """Slices of tables, of `slice` bytes (a power of two), by their offset in the file: at most `count` of them, eight at least;
    the one goes that was used the longest time ago.
    """

    def __cinit__(self, u64 slice, u64 count):
        cdef u32 n, buckets = 16
        if count < 8:
            count = 8
        while buckets < count:
            buckets *= 2
        self.slots = <Slot *>calloc(count, sizeof(Slot))
        self.buckets = <int *>malloc(buckets * sizeof(int))
        if self.slots == NULL or self.buckets == NULL:
            raise MemoryError
        self.slice, self.count, self.mask = slice, <u32>count, buckets - 1
        while <u64>1 << self.bits < slice:
            self.bits += 1
        self.first = self.last = -1
        for n in range(buckets):
            self.buckets[n] = -1

    def __dealloc__(self):
        cdef u32 n
        if self.slots != NULL:
            for n in range(self.filled):
                free(self.slots[n].data)
        free(self.slots)
        free(self.buckets)

    cdef Slot *find(self, u64 offset) noexcept nogil:
        cdef int n = self.buckets[(offset >> self.bits) & self.mask]
        while n >= 0:
            if self.slots[n].offset == offset:
                self.touch(n)
                return &self.slots[n]
            n = self.slots[n].next
        return NULL

    cdef void take_out(self, int n) noexcept nogil:
        cdef Slot *slot = &self.slots[n]
        if slot.newer >= 0:
            self.slots[slot.newer].older = slot.older
        else:
            self.first = slot.older
        if slot.older >= 0:
            self.slots[slot.older].newer = slot.newer
        else:
            self.last = slot.newer

    cdef void touch(self, int n) noexcept nogil:
        """It is the newest."""
        if self.first == n:
            return
        self.take_out(n)
        self.slots[n].newer, self.slots[n].older = -1, self.first
        if self.first >= 0:
            self.slots[self.first].newer = n
        else:
            self.last = n
        self.first = n

    cdef void age(self, int n) noexcept nogil:
        """It is the oldest."""
        if self.last == n:
            return
        self.take_out(n)
        self.slots[n].older, self.slots[n].newer = -1, self.last
        if self.last >= 0:
            self.slots[self.last].older = n
        else:
            self.first = n
        self.last = n

    cdef Slot *oldest(self) noexcept nogil:
        """The slot for what comes next: an empty one, as long as there is one."""
        cdef int n = <int>self.filled
        if self.filled < self.count and (self.last < 0 or self.slots[self.last].offset):
            self.slots[n].newer, self.slots[n].older = self.last, -1
            if self.last >= 0:
                self.slots[self.last].older = n
            else:
                self.first = n
            self.last = n
            self.filled += 1
        return &self.slots[self.last]

    cdef void unlink(self, Slot *slot) noexcept nogil:
        cdef int *at
        cdef int me = <int>(slot - self.slots)
        if slot.offset == 0:
            return
        at = &self.buckets[(slot.offset >> self.bits) & self.mask]
        while at[0] != me:
            at = &self.slots[at[0]].next
        at[0] = slot.next
        if slot.high:
            self.dirty -= 1
        slot.offset, slot.high, slot.low = 0, 0, 0
        self.age(me)

    cdef int place(self, Slot *slot, u64 offset) noexcept nogil:
        """`slot` stands for `offset` from now on; its data are the caller's to fill."""
        cdef u32 bucket = <u32>(offset >> self.bits) & self.mask
        self.unlink(slot)
        if slot.data == NULL:
            slot.data = <u8 *>malloc(self.slice)
            if slot.data == NULL:
                return ENOMEM
        slot.offset = offset
        slot.next = self.buckets[bucket]
        self.buckets[bucket] = <int>(slot - self.slots)
        self.touch(<int>(slot - self.slots))
        return 0

    cdef void drop(self, u64 offset, u64 bytes) noexcept nogil:
        """A table is gone: forget what is kept of it, written or not."""
        cdef Slot *slot
        cdef u64 at = offset
        while at < offset + bytes:
            slot = self.find(at)
            if slot != NULL:
                self.unlink(slot)
            at += self.slice

    cdef void mark(self, Slot *slot, u32 low, u32 high) noexcept nogil:
        if slot.high == 0:
            self.dirty += 1
            slot.low, slot.high = low, high
        else:
            if low < slot.low:
                slot.low = low
            if high > slot.high:
                slot.high = high
