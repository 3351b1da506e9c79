from accel.api cimport u8, u16, u32, u64
from accel.dma cimport Scatter
from accel.turns cimport Turn
from vmrun.backends.protocols cimport NetFrontend, NetHeader
from vmrun.bus.virtio.device cimport VirtioChip
from vmrun.bus.virtio.ring cimport Chain, VirtQueue

cdef enum:
    MOST_CHAINS = 1024          # buffers of one frame
    TABLE = 64                  # addresses of the filter


cdef class NetChip(VirtioChip):
    cdef readonly object backend
    cdef void *wire             # borrowed
    cdef readonly NetPort port
    cdef readonly Turn later
    cdef Scatter scatter
    cdef Chain *chains
    cdef u32 *written
    cdef public u32 pairs       # queue pairs that there are
    cdef public u32 current     # that the driver uses
    cdef u32 header_size
    cdef bint mergeable
    cdef bint keep_filters
    cdef bint receiving
    cdef public bint cable, promiscuous, all_multicast, all_unicast, no_multicast, no_unicast, no_broadcast
    cdef public u32 burst       # frames sent at one go
    cdef public bint unicast_overflow, multicast_overflow
    cdef public u32 unicasts, multicasts
    cdef u8 table[TABLE * 6]    # unicast addresses, then multicast ones
    cdef u8 vlans[512]
    cdef u8 flows[256]
    cdef public u64 guest_offloads
    cdef u8 own_mac[6]
    cdef public object on_filter, on_offloads
    cdef bint told              # the filters changed since they were asked for last
    cdef readonly u64 too_short
    cdef u32 became             # frames on the wire that the last one made
    cdef u32 next_pair          # whose turn it is to send first
    cdef u32 transmit(self, VirtQueue queue, u32 left) noexcept nogil
    cdef int send_one(self, VirtQueue queue, Chain *chain) noexcept nogil
    cdef int take(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil
    cdef int fill(self, VirtQueue queue, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil
    cdef bint wanted(self, const u8 *frame, u32 length) noexcept nogil
    cdef bint can_take(self) noexcept nogil
    cdef void control(self, VirtQueue queue) noexcept nogil
    cdef bint command(self, VirtQueue queue, Chain *chain) noexcept nogil
    cdef bint set_table(self, VirtQueue queue, Chain *chain) noexcept nogil
    cdef void sent_room(self) noexcept nogil
    cdef void link(self, bint up) noexcept nogil
    cdef void fresh_filters(self) noexcept nogil
    cdef void offloads_changed(self) noexcept nogil
    cdef void filters_changed(self) noexcept nogil
    cdef void dropped_long(self) noexcept nogil


cdef class NetPort(NetFrontend):
    cdef void *chip             # borrowed: the chip owns its port
