"""Guest memory: blocks of anonymous host memory that regions show to the guest, and who wrote where.

What devices and bus masters write is marked when it has landed (`mark_dirty`): in the log of each client that keeps
one (DirtyLog), and for the processors that hold decoded instructions of the page. What processors write themselves an
accelerator notes, while there is a log.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EINVAL, errno
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap

from os import strerror

cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *, size_t, int)
    int MAP_FIXED, MAP_SHARED
    int MADV_DONTFORK
    int MADV_DONTNEED
    int MADV_HUGEPAGE

cdef extern from *:
    """
    #define vr_add(p, n) __atomic_add_fetch((p), (n), __ATOMIC_SEQ_CST)
    #define vr_take(p) __atomic_exchange_n((p), 0, __ATOMIC_SEQ_CST)
    #define vr_count(p) __atomic_add_fetch((p), 1, __ATOMIC_SEQ_CST)
    static int vr_first(unsigned char **p, void *value)
    {
        unsigned char *none = 0;
        return __atomic_compare_exchange_n(p, &none, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    """
    int vr_add(int *, int) nogil
    u8 vr_take(u8 *) nogil
    u64 vr_count(u64 *) nogil
    bint vr_first(u8 **, void *) nogil

cdef extern from *:
    """
    #include <sys/syscall.h>
    #include <unistd.h>
    #define vr_mbind(p, n, mode, mask, bits) syscall(SYS_mbind, (p), (n), (mode), (mask), (bits), 0UL)
    """
    long vr_mbind(void *, unsigned long, int, unsigned long *, unsigned long) nogil

cdef extern from *:
    ctypedef u8 volatile_u8 "volatile unsigned char"

cdef enum:
    MADV_POPULATE_WRITE = 23        # since Linux 5.14

BACKED = set()                      # host addresses of blocks with parts that MADV_DONTNEED does not clear

cdef u64 OFFSET_IN_PAGE = PAGE_SIZE - 1


cdef class RamBlock:
    """`size` bytes of zeroed memory (a multiple of 4096), by name. Raises MemoryError when the host has none.

    The buffer protocol gives a writable view without a copy; what is written through it is marked by `note_dirty`.
    """

    def __cinit__(self, str name, u64 size):
        if size == 0 or size & OFFSET_IN_PAGE:
            raise ValueError(f"RAM block {name}: {size} bytes is not a positive multiple of {PAGE_SIZE}")
        self.name = name
        self.size = size
        cdef void *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if host == MAP_FAILED:
            raise MemoryError(f"the host cannot give {size >> 20} MiB of memory for {name}")
        self.host = <u8 *>host
        madvise(host, size, MADV_DONTFORK)
        madvise(host, size, MADV_HUGEPAGE)      # where the host leaves it to the program; small blocks have none

    def __dealloc__(self):
        cdef u32 n
        if self.host != NULL:
            munmap(self.host, self.size)
            BACKED.discard(<u64>self.host)
        for n in range(MOST_LOGS):
            free(self.logs[n])
        free(self.code)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        buffer.buf = self.host
        buffer.len = self.size
        buffer.itemsize = 1
        buffer.format = b"B"
        buffer.ndim = 1
        buffer.obj = self
        buffer.readonly = 0
        buffer.shape = NULL
        buffer.strides = NULL
        buffer.suboffsets = NULL
        buffer.internal = NULL

    def __releasebuffer__(self, Py_buffer *buffer):
        pass

    def __len__(self):
        return self.size

    @property
    def address(self):
        """Host address, for an accelerator's memory slot."""
        return <u64>self.host

    def _check(self, u64 offset, u64 count):
        if offset > self.size or count > self.size - offset:
            raise IndexError(f"{self.name}: {count} bytes at {offset:#x} of {self.size:#x}")

    def read(self, u64 offset, u64 count):
        """`count` bytes from `offset`. IndexError when outside."""
        self._check(offset, count)
        return self.host[offset:offset + count]

    def write(self, u64 offset, data):
        """`data`: anything with a buffer. (A typed memoryview as parameter would import `collections` at start-up.)"""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self._check(offset, view.len)
            if view.len:
                memcpy(self.host + offset, view.buf, view.len)
                self.mark_dirty(offset, view.len)
        finally:
            PyBuffer_Release(&view)

    def fill(self, u8 value=0):
        """All of it."""
        memset(self.host, value, self.size)
        self.mark_dirty(0, self.size)

    def clear(self):
        """All zeros, as when it was new; the host has its pages back."""
        if <u64>self.host in BACKED or madvise(self.host, self.size, MADV_DONTNEED) < 0:
            memset(self.host, 0, self.size)
        self.mark_dirty(0, self.size)

    def give_back(self):
        """Nobody is going to use it: the host has its pages, and files below it, back at once, whoever still knows the block.
        It reads as zeros.
        """
        cdef void *fresh
        with nogil:                                 # it takes a while
            fresh = mmap(self.host, self.size, PROT_READ | PROT_WRITE,
                         MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if fresh != MAP_FAILED:
            BACKED.discard(<u64>self.host)
            madvise(fresh, self.size, MADV_DONTFORK)

    # --- how the host keeps it: before the block is in any address space ----------------------------------

    def back(self, u64 offset, u64 size, int fd, u64 file_offset, bint shared):
        """Lay a file under a part of it; fd -1: memory that shares with children alone. OSError."""
        cdef int flags = MAP_FIXED | MAP_NORESERVE | (MAP_SHARED if shared else MAP_PRIVATE)
        self._check(offset, size)
        if fd < 0:
            flags |= MAP_ANONYMOUS
        if mmap(self.host + offset, size, PROT_READ | PROT_WRITE, flags, fd, file_offset) == MAP_FAILED:
            raise OSError(errno, strerror(errno))
        BACKED.add(<u64>self.host)
        madvise(self.host + offset, size, MADV_DONTFORK)

    def advise(self, u64 offset, u64 size, int advice):
        """madvise. OSError."""
        self._check(offset, size)
        if madvise(self.host + offset, size, advice) < 0:
            raise OSError(errno, strerror(errno))

    def bind(self, u64 offset, u64 size, int mode, nodes):
        """mbind: 1 preferred, 2 bind, 3 interleave, on NUMA nodes below 128. OSError."""
        cdef unsigned long mask[2]
        self._check(offset, size)
        mask[0] = mask[1] = 0
        for node in nodes:
            mask[<int>node // 64] |= <unsigned long>1 << <int>node % 64
        if vr_mbind(self.host + offset, size, mode, mask, 129) < 0:
            raise OSError(errno, strerror(errno))

    def populate(self, u64 offset, u64 size):
        """Have the host give all pages now. OSError when it has not so many."""
        cdef u64 at = offset
        cdef int result
        self._check(offset, size)
        with nogil:
            result = madvise(self.host + offset, size, MADV_POPULATE_WRITE)
        if result < 0 and errno == EINVAL:          # an older kernel: touch each
            with nogil:
                while at < offset + size:
                    (<volatile_u8 *>self.host)[at] = self.host[at]
                    at += PAGE_SIZE
        elif result < 0:
            raise OSError(errno, strerror(errno))

    # --- who wrote where ----------------------------------------------------------------------------------

    cdef void mark_dirty(self, u64 offset, u64 size) noexcept nogil:
        """The bytes are there; whoever follows what is written learns it. They lie within the block."""
        cdef u64 page, first = offset >> PAGE_BITS, end
        cdef u32 n
        if not size:
            return
        end = ((offset + size - 1) >> PAGE_BITS) + 1
        if self.logging:
            for n in range(MOST_LOGS):
                if self.logging >> n & 1:
                    memset(self.logs[n] + first, 1, end - first)
        if self.code != NULL:
            for page in range(first, end):
                if self.code[page] == CODE_CACHED:
                    self.code[page] = CODE_WRITTEN
                    vr_count(&self.code_writes)

    cdef int watch_code(self) noexcept nogil:
        """From now on `code` exists. -1: no memory for it. Any thread."""
        cdef void *made
        if self.code == NULL:
            made = calloc(self.size >> PAGE_BITS, 1)
            if made != NULL and not vr_first(&self.code, made):
                free(made)
        return 0 if self.code != NULL else -1

    def note_dirty(self, u64 offset, u64 size):
        """These bytes were written behind the block's back: by a processor, or through a view of it."""
        if offset < self.size:
            self.mark_dirty(offset, min(size, self.size - offset))

    @property
    def logged(self):
        """True while somebody keeps a DirtyLog."""
        return self.logging != 0

    # --- pins ---------------------------------------------------------------------------------------------

    cdef void pin(self) noexcept nogil:
        """Somebody works on this memory by host address: it stays, even when it leaves every address space."""
        vr_add(&self.pin_count, 1)

    cdef void unpin(self) noexcept nogil:
        vr_add(&self.pin_count, -1)

    @property
    def pins(self):
        """Transfers under way."""
        return self.pin_count


@cython.no_gc_clear  # __dealloc__ needs the block
cdef class DirtyLog:
    """One client's record of the pages written in `block`, from now until `stop()`. At first all count as written.

    `accelerator` is told that somebody looks (log_dirty), and asked what its processors wrote (`sync`); None for a block
    that no processor sees. A byte a page, so that a writer on any thread stores without reading; a page is taken out of
    the record before its bytes are read, so what is written meanwhile is found the next time. Raises ValueError when
    eight clients have one already.
    """

    def __cinit__(self, RamBlock block, accelerator=None):
        self.slot = -1
        self.block = block
        self.accelerator = accelerator
        for n in range(MOST_LOGS):
            if not block.logging >> n & 1:
                break
        else:
            raise ValueError(f"{block.name}: {MOST_LOGS} clients follow its writes already")
        if block.logs[n] == NULL:
            block.logs[n] = <u8 *>calloc(block.size >> PAGE_BITS, 1)
            if block.logs[n] == NULL:
                raise MemoryError
        self.slot = n
        self.pages = block.logs[n]
        memset(self.pages, 1, block.size >> PAGE_BITS)
        block.logging |= 1 << n
        if accelerator is not None:
            accelerator.log_dirty(block, True)

    def __dealloc__(self):
        if self.slot >= 0:
            self.block.logging &= ~(<u32>1 << self.slot)

    def stop(self):
        """No more; safe to call twice. Whoever asks a stopped log is told that nothing was written."""
        if self.slot >= 0:
            self.block.logging &= ~(<u32>1 << self.slot)
            self.slot = -1
            if self.accelerator is not None:
                self.accelerator.log_dirty(self.block, False)

    def sync(self):
        """Bring in what processors wrote until now. Without the device lock."""
        if self.slot >= 0 and self.accelerator is not None:
            self.accelerator.sync_dirty(self.block)

    cdef u64 next_run(self, u64 *offset, u64 end) noexcept nogil:
        """The first run of written pages at or after `offset` and before `end`, taken out of the record.

        `offset` becomes its beginning (not before what it was); the answer is its length in bytes, cut at `end`; 0: none.
        """
        cdef u64 page = offset[0] >> PAGE_BITS, first, last
        if end > self.block.size:
            end = self.block.size
        if self.slot < 0 or offset[0] >= end:
            return 0
        last = (end - 1) >> PAGE_BITS
        while page <= last and not self.pages[page]:
            page += 1
        if page > last:
            return 0
        first = page
        while page <= last and self.pages[page] and vr_take(&self.pages[page]):
            page += 1
        if first << PAGE_BITS > offset[0]:
            offset[0] = first << PAGE_BITS
        return min(page << PAGE_BITS, end) - offset[0]

    cdef bint any(self, u64 offset, u64 size) noexcept nogil:
        """True when a page of the range was written; the whole range is taken out of the record."""
        cdef u64 end = offset + size if size < self.block.size else self.block.size, count
        cdef bint found = False
        count = self.next_run(&offset, end)
        while count:
            found = True
            offset += count
            count = self.next_run(&offset, end)
        return found

    def written(self, u64 offset, u64 size):
        """`any`, from Python."""
        return self.any(offset, size)

    def take(self, u64 offset=0, size=None):
        """[(offset, bytes)] of what was written in the range, page by page, joined; taken out of the record."""
        cdef u64 end = self.block.size if size is None else min(offset + <u64>size, self.block.size), count
        found = []
        count = self.next_run(&offset, end)
        while count:
            found.append((offset, count))
            offset += count
            count = self.next_run(&offset, end)
        return found

    def take_boxes(self, u64 base, u64 pitch, u64 width, u64 height):
        """[(x, y, w, h)] of a picture at `base`: `height` lines, `pitch` bytes apart, `width` bytes of each shown.

        x and w in bytes, y and h in lines. A run within one line is as wide as its pages, others are whole lines; boxes do
        not overlap and come from top to bottom.
        """
        cdef u64 first, last, left, right, count, offset = base, end
        if not pitch or not width or not height or width > pitch or base >= self.block.size:
            return []
        end = self.block.size if height > (self.block.size - base) // pitch else base + pitch * height
        boxes = []
        count = self.next_run(&offset, end)
        while count:
            first, last = (offset - base) // pitch, (offset + count - 1 - base) // pitch
            left, right = (offset - base) % pitch, (offset + count - 1 - base) % pitch + 1
            if last >= height:
                last = height - 1
            if first != last:
                left, right = 0, width
            offset += count
            count = self.next_run(&offset, end)
            if left >= width:
                continue                                    # between the lines
            if boxes and boxes[-1][1] + boxes[-1][3] > first:
                # The line before it was cut in two: the box above takes it whole.
                y = boxes[-1][1]
                boxes[-1] = (0, y, width, last + 1 - y)
            else:
                boxes.append((left, first, min(right, width) - left, last + 1 - first))
        return boxes
