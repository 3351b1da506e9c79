# The walk through page tables. The documentation is in paging.pyx.
from accel.soft.guest cimport *

cdef enum:
    ACCESS_READ = 0
    ACCESS_WRITE = 1
    ACCESS_FETCH = 2

cdef enum:
    VICTIMS = 8             # entries behind the others of a TLB: those dropped last
    TLB_ALL = TLB_SIZE + VICTIMS

ctypedef struct Walk:
    u64 phys                # of the 4 KiB page
    bint writable           # by this CPL, now
    bint executable
    bint user
    bint all_pages          # global
    bint closed             # no data, by its protection key
    u32 level               # 1: a page of 4 KiB; 2: of 2 MiB; 3: greater
    bint dirty

cdef inline bint opened(Cpu *c) noexcept nogil:
    """Where SMAP is on, may the supervisor access data of the user's? The processor itself never."""
    return c.eflags & F_AC and not c.implicit

cdef int walk(Cpu *c, u64 linear, u32 access, bint user, Walk *out) noexcept nogil
