"""Bytes inside a compiled chip as a memoryview that keeps the chip alive.

    @property
    def cmos(self):
        return cells(self, self.ram, 128)
"""

from cpython.buffer cimport PyBuffer_FillInfo


cdef class _Cells:
    cdef object owner
    cdef void *address
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.address, self.size, 0, flags)

    def __releasebuffer__(self, Py_buffer *buffer):
        pass


cdef object cells(object owner, void *address, Py_ssize_t size):
    """A writable view of `size` bytes at `address`, which lie as long as `owner` lives."""
    cdef _Cells held = _Cells.__new__(_Cells)
    held.owner, held.address, held.size = owner, address, size
    return memoryview(held)
