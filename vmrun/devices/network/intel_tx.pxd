# The transmit side that Intel's gigabit chips share. The documentation is in intel_tx.pyx.
from accel.api cimport u8, u16, u32, u64
from accel.dma cimport Dma

cdef enum:
    MOST = 0x10000              # bytes of a frame that descriptors build

# first dword of a descriptor's second half (CMD, DTYP, DTALEN), and POPTS of its upper dword
cdef enum:
    TXD_DTYP_D = 0x00100000
    TXD_EOP = 0x01000000
    TXD_TSE = 0x04000000
    TXD_RS = 0x08000000
    TXD_RPS = 0x10000000
    TXD_DEXT = 0x20000000
    TXD_VLE = 0x40000000
    TXD_IDE = 0x80000000
    TXD_STAT_DD = 1
    POPTS_IXSM = 1
    POPTS_TXSM = 2

ctypedef struct Offload:        # what a context descriptor says
    u32 ipcss
    u32 ipcso
    u32 ipcse
    u32 tucss
    u32 tucso
    u32 tucse
    u32 paylen
    u32 hdr_len
    u32 mss
    u32 ip                      # IPv4
    u32 tcp                     # UDP otherwise

ctypedef bint (*emit_fn)(void *owner, u8 *frame, u32 size) noexcept nogil    # whether the turn is over
ctypedef void (*segmented_fn)(void *owner) noexcept nogil


cdef class Transmitter:
    cdef u8 room[MOST + 4]      # a VLAN tag moves the addresses forward
    cdef u8 head[256]
    cdef u8 *data
    cdef void *owner
    cdef emit_fn emit
    cdef segmented_fn segmented
    cdef Offload plain
    cdef Offload segments
    cdef public u32 tag, tag_type, frames
    cdef public u32 taken       # bytes of a descriptor that the turn ended in
    cdef public u64 place       # where that lies
    cdef readonly u32 size
    cdef public u8 sums
    cdef public bint tagged, segmenting
    cdef bint over
    cdef bint process(self, Dma dma, const u8 *descriptor, bint vlan, u32 ethertype) noexcept nogil
    cdef void segment(self) noexcept nogil
    cdef void send(self) noexcept nogil
    cdef void put_sum(self, u32 place, u32 start, u32 end) noexcept nogil
