"""A bus master's way to memory: small copies, and transfers that work on the guest's memory in place.

A transfer is a transaction. `map` turns guest addresses into pieces of host memory and pins them; the data moves, on any
thread, by preadv, sendmsg or memcpy; `dma_unmap` says how many bytes were written. Only then are they marked in dirty logs
and in the processors' caches of code, so nobody looks at a page before its bytes are there. Pinned memory stays, even
when the guest takes it out of its address space meanwhile.

Memory only: what a guest puts into a descriptor never calls a device's registers, so no device is entered twice. A
device whose data sheet says that it writes registers (a message interrupt by hand) asks for `registers=True`.

Addresses do not wrap: a range past the end of the address space is refused whole. Sizes are the guest's, capacities
are not: nothing here allocates.

Locks: the device lock is held for everything except the use of the pieces, and `dma_unmap`, which any
thread may call.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from accel.ram cimport RamBlock
from accel.space cimport Entry, mark_dirty

cdef u64 LAST = <u64>-1


cdef void dma_unmap(IoVec *pieces, void **blocks, u32 count, bint to_memory, u64 written) noexcept nogil:
    """A transfer is over; of one to memory the first `written` bytes have landed. A piece without a block is not pinned."""
    cdef u32 n
    cdef u64 part
    for n in range(count):
        part = min(written, pieces[n].length)
        written -= part
        if blocks[n] != NULL:
            if to_memory and part:
                mark_dirty(blocks[n], <u8 *>pieces[n].base, part)
            (<RamBlock>blocks[n]).unpin()


cdef class Dma:
    """`enabled` follows the device's bus-master bit: without it nothing is reached.

    The C calls answer 0 (or a count) or a negative DMA_…; the device reports that as its data sheet says.
    """

    def __cinit__(self, AddressSpace space, bint enabled=True, bint registers=False):
        self.space = space
        self.enabled = enabled
        self.registers = registers

    cdef int read_into(self, u64 addr, u8 *data, u64 count) noexcept nogil:
        """`count` bytes, now. What cannot be read is all ones, from the first such byte on."""
        cdef Entry *entry
        cdef u64 part
        cdef int result = 0
        if not self.enabled:
            result = DMA_OFF
        elif count and count - 1 > LAST - addr:
            result = DMA_WRAP
        elif self.registers:
            return DMA_HOLE if self.space.copy_out(addr, data, count) else 0
        while count and result == 0:
            entry = self.space.find(addr)
            if entry == NULL or entry.host == NULL:
                result = DMA_HOLE
                break
            part = entry.last - addr
            part = count if count - 1 <= part else part + 1
            memcpy(data, entry.host + (addr - entry.start), part)
            addr += part
            data += part
            count -= part
        if result:
            memset(data, 0xFF, count)
        return result

    cdef int write_from(self, u64 addr, const u8 *data, u64 count) noexcept nogil:
        """`count` bytes, now, up to the first that has no memory. Into ROM they vanish."""
        cdef Entry *entry
        cdef u64 part
        if not self.enabled:
            return DMA_OFF
        if count and count - 1 > LAST - addr:
            return DMA_WRAP
        if self.registers:
            return DMA_HOLE if self.space.copy_in(addr, data, count) else 0
        while count:
            entry = self.space.find(addr)
            if entry == NULL or entry.host == NULL or entry.region != NULL:
                return DMA_HOLE
            part = entry.last - addr
            part = count if count - 1 <= part else part + 1
            if entry.writable:
                memcpy(entry.host + (addr - entry.start), data, part)
                mark_dirty(entry.block, entry.host + (addr - entry.start), part)
            addr += part
            data += part
            count -= part
        return 0

    cdef int map(self, u64 addr, u64 count, bint to_memory, IoVec *pieces, void **blocks, u32 most) noexcept nogil:
        """Host memory of [addr, addr + count): how many pieces, at most `most`; or a DMA_… with nothing pinned."""
        cdef Entry *entry
        cdef u64 part
        cdef u32 n = 0
        cdef int result = 0
        if not self.enabled:
            return DMA_OFF
        if count and count - 1 > LAST - addr:
            return DMA_WRAP
        while count:
            entry = self.space.find(addr)
            if entry == NULL or entry.host == NULL or (to_memory and not entry.writable):
                result = DMA_HOLE
                break
            if n == most:
                result = DMA_FULL
                break
            part = entry.last - addr
            part = count if count - 1 <= part else part + 1
            pieces[n].base = entry.host + (addr - entry.start)
            pieces[n].length = part
            blocks[n] = entry.block
            (<RamBlock>entry.block).pin()
            n += 1
            addr += part
            count -= part
        if result:
            dma_unmap(pieces, blocks, n, False, 0)
            return result
        return <int>n

    def read(self, u64 addr, u64 count):
        """`count` bytes, or None when they could not all be read."""
        cdef bytearray out = bytearray(count)
        cdef u8 *data = <u8 *>out
        cdef int result
        with nogil:
            result = self.read_into(addr, data, count)
        return bytes(out) if result == 0 else None

    def write(self, u64 addr, data):
        """True when all bytes found memory."""
        cdef Py_buffer view
        cdef int result = 0
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        if view.len:
            with nogil:
                result = self.write_from(addr, <u8 *>view.buf, view.len)
        PyBuffer_Release(&view)
        return result == 0


cdef class Scatter:
    """The memory of one transfer, gathered from any number of ranges: what PRD tables, NIC descriptors and virtqueues say.

    `begin`, `add` each range, use `pieces[:count]` or `get`/`put` by offset within the whole, `finish`. Room for
    `capacity` pieces, neighbours joined. One transfer at a time; who owns it keeps it until `finish`.
    """

    def __cinit__(self, Dma dma, u32 capacity=256):
        self.dma = dma
        self.pieces = <IoVec *>calloc(capacity, sizeof(IoVec))
        self.blocks = <void **>calloc(capacity, sizeof(void *))
        if self.pieces == NULL or self.blocks == NULL:
            raise MemoryError
        self.capacity = capacity

    def __dealloc__(self):
        free(self.pieces)
        free(self.blocks)

    cdef void begin(self, bint to_memory) noexcept nogil:
        """A new transfer; one that was not finished ends, with nothing written."""
        self.finish(0)
        self.to_memory = to_memory

    cdef int add(self, u64 addr, u64 count) noexcept nogil:
        """Append [addr, addr + count). 0, or a DMA_…: then this range is not part of the transfer, those before are."""
        cdef int n
        cdef u32 i, last = self.count
        cdef IoVec *before
        if count > LAST - self.total:
            return DMA_WRAP
        n = self.dma.map(addr, count, self.to_memory, self.pieces + last, self.blocks + last, self.capacity - last)
        if n < 0:
            return n
        self.total += count
        if n and last and self.blocks[last - 1] == self.blocks[last]:
            before = &self.pieces[last - 1]
            if <u8 *>before.base + before.length == <u8 *>self.pieces[last].base:
                before.length += self.pieces[last].length
                (<RamBlock>self.blocks[last]).unpin()
                n -= 1
                for i in range(last, last + <u32>n):
                    self.pieces[i] = self.pieces[i + 1]
                    self.blocks[i] = self.blocks[i + 1]
        self.count = last + <u32>n
        return 0

    cdef IoVec *seek(self, u64 offset, u64 *within) noexcept nogil:
        """The piece that holds byte `offset`, and where in it. `offset` is below `total`."""
        if offset < self.near_start:
            self.near, self.near_start = 0, 0
        while offset - self.near_start >= self.pieces[self.near].length:
            self.near_start += self.pieces[self.near].length
            self.near += 1
        within[0] = offset - self.near_start
        return &self.pieces[self.near]

    cdef u64 get(self, u64 offset, u8 *data, u64 count) noexcept nogil:
        """Copy out of the guest's memory; how many of the `count` bytes there were."""
        cdef u64 at, part, done = 0
        cdef IoVec *piece
        if offset >= self.total:
            return 0
        count = min(count, self.total - offset)
        while done < count:
            piece = self.seek(offset + done, &at)
            part = min(count - done, piece.length - at)
            memcpy(data + done, <u8 *>piece.base + at, part)
            done += part
        return count

    cdef u64 put(self, u64 offset, const u8 *data, u64 count) noexcept nogil:
        """Copy into the guest's memory; how many of the `count` bytes had room. `finish` tells of them."""
        cdef u64 at, part, done = 0
        cdef IoVec *piece
        if offset >= self.total or not self.to_memory:
            return 0
        count = min(count, self.total - offset)
        while done < count:
            piece = self.seek(offset + done, &at)
            part = min(count - done, piece.length - at)
            memcpy(<u8 *>piece.base + at, data + done, part)
            done += part
        return count

    cdef u64 fill(self, u64 offset, u8 value, u64 count) noexcept nogil:
        """`put` of one value."""
        cdef u64 at, part, done = 0
        cdef IoVec *piece
        if offset >= self.total or not self.to_memory:
            return 0
        count = min(count, self.total - offset)
        while done < count:
            piece = self.seek(offset + done, &at)
            part = min(count - done, piece.length - at)
            memset(<u8 *>piece.base + at, value, part)
            done += part
        return count

    cdef u32 window(self, u64 offset, u64 count, IoVec *out, u32 most) noexcept nogil:
        """The pieces of [offset, offset + count), cut at the end and at `most`; how many."""
        cdef u64 at
        cdef u32 n = 0
        cdef IoVec *piece
        while count and offset < self.total and n < most:
            piece = self.seek(offset, &at)
            out[n].base = <u8 *>piece.base + at
            out[n].length = min(count, piece.length - at)
            offset += out[n].length
            count -= out[n].length
            n += 1
        return n

    cdef void finish(self, u64 written) noexcept nogil:
        """The transfer is over: of one to memory, the first `written` bytes have landed. Harmless when there is none."""
        dma_unmap(self.pieces, self.blocks, self.count, self.to_memory, written)
        self.hand_over()

    cdef void hand_over(self) noexcept nogil:
        """Empty, without an end: somebody else has taken the pieces with their blocks, for `dma_unmap`."""
        self.count = 0
        self.total = 0
        self.near, self.near_start = 0, 0

    # --- from Python (tests) ------------------------------------------------------------------------------

    def start(self, bint to_memory):
        self.begin(to_memory)

    def append(self, u64 addr, u64 count):
        """0 or a DMA_…"""
        return self.add(addr, count)

    def load(self, u64 offset, u64 count):
        cdef bytearray out = bytearray(min(count, self.total))
        return bytes(out[:self.get(offset, <u8 *>out, <u64>len(out))])

    def store(self, u64 offset, bytes data):
        return self.put(offset, <const u8 *>data, <u64>len(data))

    def clear(self, u64 offset, u8 value, u64 count):
        return self.fill(offset, value, count)

    def lengths(self, u64 offset=0, count=None, u32 most=64):
        """Of the pieces of a range."""
        cdef IoVec out[64]
        cdef u32 n = self.window(offset, self.total if count is None else <u64>count, out, min(most, <u32>64))
        return [out[i].length for i in range(n)]

    def end(self, u64 written=0):
        self.finish(written)
