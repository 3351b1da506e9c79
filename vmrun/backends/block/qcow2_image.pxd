from accel.api cimport u8, u16, u32, u64
from accel.threads cimport pthread_cond_t, pthread_mutex_t, pthread_rwlock_t
from vmrun.backends.block.node cimport Node
from vmrun.backends.block.qcow2_cache cimport MetaCache, Slot

# what may be wrong with an image; the words are in qcow2_image.pyx
cdef enum:
    FAULT_NONE = 0
    FAULT_L2 = 1
    FAULT_CLUSTER = 2
    FAULT_DATA = 3
    FAULT_REFBLOCK = 4
    FAULT_SUBCLUSTERS = 5
    FAULT_COUNT = 6
    FAULT_ZERO = 16
    FAULT_FREE = 17             # what is given back is no cluster: it is kept, and all goes on
    FAULT_HEADER = 7            # this and the ones behind it: a write would go over that
    FAULT_OVER_L1 = 8
    FAULT_OVER_L2 = 9
    FAULT_OVER_REFTABLE = 10
    FAULT_OVER_REFBLOCK = 11
    FAULT_OVER_SNAPSHOTS = 12
    FAULT_OVER_INACTIVE_L1 = 13
    FAULT_OVER_INACTIVE_L2 = 14
    FAULT_OVER_BITMAPS = 15

cdef struct Fault:
    int kind
    u64 place, index, table     # bytes of the file, or of the disk; what more there is to say
    u64 size                    # bytes of a write

cdef struct Span:
    int kind                    # FAULT_OVER_…
    u64 start, end              # bytes of the file


cdef class Qcow2Image(Node):
    cdef readonly Node file, backing, data
    cdef public object header
    cdef public list snapshots
    cdef Span *spans                    # tables that are not looked at while the image is used
    cdef u64 span_count, span_clusters
    cdef readonly bint external         # the data lies in a file of its own
    cdef bint raw_external              # … and there as the disk has it, zeros too
    cdef readonly bint broken           # a corruption was found: nothing is read or written any more
    cdef public int hollow              # chain.py's: whether the file has holes where data have a place; -1: not known
    cdef public bint passes_discards
    cdef public u32 overlap_checks      # 1 << (FAULT_… - FAULT_HEADER): what a write is checked against
    cdef readonly u32 cluster_bits, version
    cdef readonly u64 cluster_size
    cdef Fault fault                    # the first, until it is taken
    cdef bint faulty                    # there was one
    cdef bint ext, lazy, is_dirty
    cdef readonly bint zstd
    cdef u64 gran                       # bytes of a subcluster; a cluster's without extended L2 entries
    cdef u32 l2_bits, refcount_order, entry_size
    cdef u64 *l1
    cdef readonly u64 l1_size, l1_offset
    cdef u64 *reftable
    cdef readonly u64 reftable_size, reftable_offset
    cdef u64 refblock_entries, most_refcount
    cdef u64 *sieve                     # a bit for each cluster, many share one: clear where no active table lies
    cdef u64 sieve_bits, sieve_count    # 0: to be made anew; tables in it
    cdef u64 found_size                 # of the file when it was opened
    cdef MetaCache l2, blocks
    cdef u64 most_tables, most_counts   # bytes that they keep
    cdef u64 piece                      # of the tables that are kept, 0: as it comes
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t settled
    cdef pthread_rwlock_t graph         # shared: reads and writes; exclusive: what frees clusters or moves tables
    cdef pthread_mutex_t inflate_mutex
    cdef u64 inflated_entry
    cdef u8 *inflated
    cdef u64 fuzzy                      # how often something was freed: what was inflated may be something else now

    cdef int header_field(self, u64 offset, const u8 *data, u64 size) noexcept nogil
    cdef int set_dirty(self) noexcept nogil
    cdef int write_slots(self, MetaCache cache, int what) noexcept nogil
    cdef int flush_meta(self) noexcept nogil
    cdef int load(self, MetaCache cache, u64 offset, Slot **found, bint nowait) noexcept nogil
    cdef int corrupt(self, int kind, u64 place, u64 index=*, u64 table=*, u64 size=*) noexcept nogil
    cdef int check_data(self, u64 host, u64 bytes) noexcept nogil
    cdef int check_table(self, u64 host, u64 bytes) noexcept nogil
    cdef int overlap(self, u64 host, u64 bytes) noexcept nogil
    cdef bint over_inactive(self, u64 host, u64 end) noexcept nogil
    cdef bint has_table(self, u64 host, u64 end) noexcept nogil
    cdef void note_table(self, u64 place) noexcept nogil
    cdef void sift(self) noexcept nogil
    cdef void tables_changed(self) noexcept nogil
