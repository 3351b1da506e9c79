"""Which parts of a disk were written: a bit for each piece of `granularity` bytes. From any thread, without the GIL."""

from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from accel.threads cimport pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock

cdef extern from *:
    int popcount "__builtin_popcountll" (u64) nogil
    int lowest "__builtin_ctzll" (u64) nogil


cdef class Bitmap:
    """All clear. `granularity`: a power of two, at least 512."""

    def __cinit__(self, u64 size, u64 granularity):
        if granularity < 512 or granularity & (granularity - 1):
            raise ValueError("granularity must be power of 2 and at least 512")
        pthread_mutex_init(&self.mutex, NULL)
        self.shift = lowest(granularity)
        self.size, self.bits = size, (size + granularity - 1) >> self.shift
        self.words = <u64 *>calloc(self.bits // 64 + 1, 8)
        if self.words == NULL:
            raise MemoryError
        self.enabled = True

    def __dealloc__(self):
        free(self.words)
        pthread_mutex_destroy(&self.mutex)

    @property
    def granularity(self):
        return <u64>1 << self.shift

    @property
    def count(self):
        """Bytes that are marked, whole pieces."""
        return self.set_bits << self.shift

    cdef bint has(self, u64 bit) noexcept nogil:
        return self.words[bit >> 6] >> (bit & 63) & 1

    cdef void change(self, u64 first, u64 end, bint value) noexcept nogil:
        """Bits from `first` up to `end`; with the mutex."""
        cdef u64 mask, old, n
        if end > self.bits:
            end = self.bits
        while first < end:
            n = 64 - (first & 63)
            if n > end - first:
                n = end - first
            mask = (~<u64>0 >> (64 - n)) << (first & 63)
            old = self.words[first >> 6]
            if value:
                self.words[first >> 6] = old | mask
                self.set_bits += <u64>popcount(mask & ~old)
            else:
                self.words[first >> 6] = old & ~mask
                self.set_bits -= <u64>popcount(mask & old)
            first += n

    cdef void mark(self, u64 offset, u64 bytes) noexcept nogil:
        if bytes == 0:
            return
        pthread_mutex_lock(&self.mutex)
        self.change(offset >> self.shift, ((offset + bytes - 1) >> self.shift) + 1, True)
        pthread_mutex_unlock(&self.mutex)

    cdef bint take(self, u64 *at, u64 *bytes, u64 most) noexcept nogil:
        """The first run of marked pieces from at[0] on, at most `most` bytes, which are clear then."""
        cdef u64 bit, end, word, limit = most >> self.shift
        if limit == 0:
            limit = 1
        pthread_mutex_lock(&self.mutex)
        bit = at[0] >> self.shift
        while bit < self.bits:
            word = self.words[bit >> 6] >> (bit & 63)
            if word:
                bit += lowest(word)
                break
            bit = (bit | 63) + 1
        if bit >= self.bits:
            pthread_mutex_unlock(&self.mutex)
            return False
        end = bit
        while end < self.bits and end - bit < limit and self.has(end):
            end += 1
        self.change(bit, end, False)
        pthread_mutex_unlock(&self.mutex)
        at[0] = bit << self.shift
        bytes[0] = (end - bit) << self.shift
        if bytes[0] > self.size - at[0]:
            bytes[0] = self.size - at[0]
        return True

    def next(self, u64 offset, u64 most=1 << 20):
        """(offset, bytes) of a run that was marked and is clear now; None when there is none from `offset` on."""
        cdef u64 at = offset, bytes = 0
        return (at, bytes) if self.take(&at, &bytes, most) else None

    def set(self, u64 offset, u64 bytes):
        self.mark(offset, bytes)

    def clear(self, u64 offset=0, u64 bytes=<u64>-1):
        """Whole pieces."""
        cdef u64 end = self.bits if bytes >= self.size - offset else (offset + bytes) >> self.shift
        pthread_mutex_lock(&self.mutex)
        self.change((offset + (<u64>1 << self.shift) - 1) >> self.shift, end, False)
        pthread_mutex_unlock(&self.mutex)

    def test(self, u64 offset):
        return offset < self.size and self.has(offset >> self.shift)

    def run(self, u64 offset, u64 most):
        """(bytes from `offset` on that are alike, whether they are marked): at most `most`, and all at the end."""
        cdef u64 bit = offset >> self.shift, limit = (offset + most - 1 >> self.shift) + 1
        cdef bint marked
        if most == 0 or offset >= self.size:
            return most, False
        pthread_mutex_lock(&self.mutex)
        if limit > self.bits:
            limit = self.bits
        marked = self.has(bit)
        while bit < limit and self.has(bit) == marked:
            bit += 1
        pthread_mutex_unlock(&self.mutex)
        return min(most, (bit << self.shift) - offset), marked

    def merge(self, Bitmap other not None):
        """What the other has too; granularities may differ."""
        cdef u64 n
        if self.size != other.size:
            raise ValueError("Bitmaps are of different sizes")
        if other is self:
            return
        pthread_mutex_lock(&other.mutex)
        for n in range(other.bits):
            if other.words[n >> 6] == 0:
                continue
            if other.has(n):
                self.mark(n << other.shift, min(<u64>1 << other.shift, other.size - (n << other.shift)))
        pthread_mutex_unlock(&other.mutex)

    def copy(self):
        cdef Bitmap made = Bitmap(self.size, <u64>1 << self.shift)
        pthread_mutex_lock(&self.mutex)
        memcpy(made.words, self.words, (self.bits // 64 + 1) * 8)
        made.set_bits = self.set_bits
        pthread_mutex_unlock(&self.mutex)
        return made

    def swap(self, Bitmap other not None):
        """Each gets what the other has; they are alike in size and granularity."""
        if other is self:
            return
        pthread_mutex_lock(&self.mutex)
        pthread_mutex_lock(&other.mutex)
        self.words, other.words = other.words, self.words
        self.set_bits, other.set_bits = other.set_bits, self.set_bits
        pthread_mutex_unlock(&other.mutex)
        pthread_mutex_unlock(&self.mutex)

    def pack(self):
        """As qcow2 has it: the first piece is the lowest bit of the first byte."""
        cdef u64 length = (self.bits + 7) // 8
        pthread_mutex_lock(&self.mutex)
        found = (<char *>self.words)[:length]
        pthread_mutex_unlock(&self.mutex)
        return found

    def load(self, const u8[::1] data):
        """The opposite of pack(); what is too short has zeros behind."""
        cdef u64 length = (self.bits + 7) // 8, n
        pthread_mutex_lock(&self.mutex)
        memset(self.words, 0, (self.bits // 64 + 1) * 8)
        if data.shape[0]:
            memcpy(self.words, &data[0], min(length, <u64>data.shape[0]))
        if self.bits & 63:
            self.words[self.bits >> 6] &= ~<u64>0 >> (64 - (self.bits & 63))
        else:
            self.words[self.bits >> 6] = 0
        self.set_bits = 0
        for n in range(self.bits // 64 + 1):
            self.set_bits += <u64>popcount(self.words[n])
        pthread_mutex_unlock(&self.mutex)

    def resize(self, u64 size):
        """What is new is clear."""
        cdef u64 bits = (size + (<u64>1 << self.shift) - 1) >> self.shift
        cdef u64 *grown
        pthread_mutex_lock(&self.mutex)
        if bits < self.bits:
            self.change(bits, self.bits, False)
        else:
            grown = <u64 *>realloc(self.words, (bits // 64 + 1) * 8)
            if grown == NULL:
                pthread_mutex_unlock(&self.mutex)
                raise MemoryError
            memset(grown + self.bits // 64 + 1, 0, (bits // 64 - self.bits // 64) * 8)
            self.words = grown
        self.size, self.bits = size, bits
        pthread_mutex_unlock(&self.mutex)
