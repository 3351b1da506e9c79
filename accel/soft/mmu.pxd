# Guest memory as the processors see it. The documentation is in mmu.pyx.
from accel.soft.cpu cimport *
from accel.space cimport Entry

cdef enum:
    ACCESS_READ = 0
    ACCESS_WRITE = 1
    ACCESS_FETCH = 2

cdef enum:
    BUCKETS = 65536
    PAGE_BUCKETS = 16384

# What all processors of a machine share.
ctypedef struct Guest:
    Cpu **cpus
    u32 count
    void *memory            # AddressSpace
    Block **buckets         # of blocks, by host address
    Block **pages           # of blocks, by host page
    u8 *arena               # blocks and their operations, one after the other
    u64 used, size
    # host code (translate.pyx): a room that is mapped twice
    u8 *native_write        # to write; NULL: nothing is translated
    u8 *native_run          # the same to execute
    u64 native_used, native_first, native_size
    u8 *cold                # in it: to a block that is not translated
    u32 hot                 # executions before a block is translated
    bint (*hotspot)(Cpu *c, Block *block) noexcept nogil    # translates it; False: it stays the interpreter's
    u64 code_writes         # bus masters' writes into cached code, as far as seen
    Entry near              # the memory that was used last, as the address space has it; start > last: unknown;
    u8 *near_base           # its RamBlock's host address
    u8 *near_code           # and map of pages with code

cdef int translate(Cpu *c, u64 linear, u32 access, bint user, u8 **host, u64 *phys) noexcept nogil
cdef void install(Cpu *c) noexcept nogil
cdef void set_mode(Cpu *c) noexcept nogil
cdef void flush(Cpu *c, bint globals_too) noexcept nogil
cdef int note_code(Cpu *c, u64 phys, u8 *host) noexcept nogil
cdef inline u32 page_bucket(u64 page) noexcept nogil:
    return <u32>((page >> 12) ^ (page >> 26)) & (PAGE_BUCKETS - 1)

cdef inline u32 bucket(u64 host) noexcept nogil:
    return <u32>(host ^ (host >> 16)) & (BUCKETS - 1)

cdef void forget_page(Guest *g, u8 *page) noexcept nogil
cdef void forget_written(Guest *g) noexcept nogil
cdef void forget_all(Guest *g) noexcept nogil
