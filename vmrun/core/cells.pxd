# Bytes inside a compiled chip, as a table of its state reaches them. The documentation is in cells.pyx.

cdef object cells(object owner, void *address, Py_ssize_t size)
