"""Guest memory: blocks of anonymous host memory that regions show to the guest."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap

cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *, size_t, int)
    int MADV_DONTFORK


cdef class RamBlock:
    """`size` bytes of zeroed memory (a multiple of 4096), by name. Raises MemoryError when the host has none.

    The buffer protocol gives a writable view without a copy.
    """

    def __cinit__(self, str name, u64 size):
        if size == 0 or size & 0xFFF:
            raise ValueError(f"RAM block {name}: {size} bytes is not a positive multiple of 4096")
        self.name = name
        self.size = size
        cdef void *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if host == MAP_FAILED:
            raise MemoryError(f"the host cannot give {size >> 20} MiB of memory for {name}")
        self.host = <u8 *>host
        madvise(host, size, MADV_DONTFORK)

    def __dealloc__(self):
        if self.host != NULL:
            munmap(self.host, self.size)
        free(self.dirty)
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

    def read(self, u64 offset, u64 count):
        """`count` bytes from `offset`. IndexError when outside."""
        if offset > self.size or count > self.size - offset:
            raise IndexError(f"{self.name}: {count} bytes at {offset:#x} of {self.size:#x}")
        return self.host[offset:offset + count]

    def write(self, u64 offset, data):
        """`data`: anything with a buffer. (A typed memoryview as parameter would import `collections` at start-up.)"""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if offset > self.size or <u64>view.len > self.size - offset:
                raise IndexError(f"{self.name}: {view.len} bytes at {offset:#x} of {self.size:#x}")
            if view.len:
                memcpy(self.host + offset, view.buf, view.len)
                self.mark_dirty(offset, view.len)
        finally:
            PyBuffer_Release(&view)

    def fill(self, u8 value=0):
        memset(self.host, value, self.size)

    cdef void mark_dirty(self, u64 offset, u64 size) noexcept nogil:
        cdef u64 page
        if not size:
            return
        if self.dirty != NULL:
            memset(self.dirty + (offset >> 12), 1, ((offset + size - 1) >> 12) - (offset >> 12) + 1)
        if self.code != NULL:
            for page in range(offset >> 12, ((offset + size - 1) >> 12) + 1):
                if self.code[page] == 1:
                    self.code[page] = 2
                    self.code_writes += 1

    cdef int watch_code(self) noexcept nogil:
        """From now on `code` exists. -1: no memory for it."""
        if self.code == NULL:
            self.code = <u8 *>calloc(self.size >> 12, 1)
        return 0 if self.code != NULL else -1

    def start_log(self):
        """Begin to note written pages; those written through this object, and what the accelerator reports."""
        if self.dirty == NULL:
            self.dirty = <u8 *>calloc(self.size >> 12, 1)
            if self.dirty == NULL:
                raise MemoryError

    def stop_log(self):
        free(self.dirty)
        self.dirty = NULL

    def note_dirty(self, u64 offset, u64 size):
        """The accelerator found these pages written."""
        if offset < self.size:
            self.mark_dirty(offset, min(size, self.size - offset))

    def take_dirty(self, u64 offset, u64 size):
        """True when a page of the range was written since the last call."""
        cdef u64 page, first = offset >> 12, last = (offset + size + 0xFFF) >> 12
        cdef bint found = False
        if self.dirty == NULL:
            return True
        for page in range(first, min(last, self.size >> 12)):
            if self.dirty[page]:
                self.dirty[page] = 0
                found = True
        return found
