"""virtio-net's chip: frames between the guest's rings and a network back end.

Ref: Virtual I/O Device (VIRTIO) 1.1, 5.1.

What the driver leaves to do (checksums, segments) goes on with the frame; the back end does it, or vmrun in software. Every
feature is offered whatever the back end can do: what a guest sees does not depend on the host's side.

Queues: receive and transmit of each pair, then control. A frame that finds no buffers stays with the back end, which gives
it again when the driver kicks; a frame that the back end has no room for stays in the ring until `sent`. Kicks are asked for
only by a queue that was found empty: while frames go out or there are buffers for those that come, none is needed.

Locks: the device lock is held.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset
from posix.time cimport CLOCK_MONOTONIC

from accel.dma import Scatter as _Scatter

from accel.api cimport i64
from accel.clock cimport clock_read
from accel.turns cimport turn_of
from vmrun.backends.protocols cimport (
    NET_CAN_CSUM, NET_CAN_ECN, NET_CAN_TSO4, NET_CAN_TSO6, NET_CAN_UFO, NET_MOST_FRAME, net_burst, net_room,
    net_send, net_sent,
)
from vmrun.core.cells cimport cells
from vmrun.core.state import KEEP, U16, U32, U64, Bytes, Flag, Number
from vmrun.errors import StateError

cdef enum:
    MOST_PIECES = 1026
    TURN = 128                  # frames sent at one go; the rest a moment later: others want the device lock. Large ones
    TURN_NS = 400000            # take what their bytes take, and memory that is touched first: they look at the clock
    LARGE = 4096
    MULTICAST_BIT = 1
    STATUS = 6                  # in the configuration
    LINK_UP = 1
    ANNOUNCE = 2
    LEGACY_HEADER = 10
    HEADER = 12
    # control
    C_RX = 0
    C_MAC = 1
    C_VLAN = 2
    C_ANNOUNCE = 3
    C_MQ = 4
    C_OFFLOADS = 5

cdef u64 F_GUEST_CSUM = <u64>1 << 1
cdef u64 F_CTRL_OFFLOADS = <u64>1 << 2
cdef u64 F_TSO4 = <u64>1 << 7
cdef u64 F_TSO6 = <u64>1 << 8
cdef u64 F_ECN = <u64>1 << 9
cdef u64 F_UFO = <u64>1 << 10
cdef u64 F_MERGEABLE = <u64>1 << 15
cdef u64 F_CTRL = <u64>1 << 17
cdef u64 F_CTRL_RX = <u64>1 << 18
cdef u64 F_VLAN = <u64>1 << 19
cdef u64 F_RX_EXTRA = <u64>1 << 20
cdef u64 F_ANNOUNCE = <u64>1 << 21
cdef u64 F_MQ = <u64>1 << 22
cdef u64 F_CTRL_MAC = <u64>1 << 23
cdef u64 VERSION_1 = <u64>1 << 32
cdef u64 OFFLOADS = F_GUEST_CSUM | F_TSO4 | F_TSO6 | F_ECN | F_UFO

ctypedef struct WireHeader:     # what lies before a frame in the guest's memory; little-endian
    NetHeader what
    u16 buffers


cdef bint call_ready(void *queue) noexcept nogil:
    return (<VirtQueue>queue).ready and not (<VirtQueue>queue).broken


cdef class NetPort(NetFrontend):
    def __init__(self, NetChip chip):
        self.chip = <void *>chip
        self.waits = True

    cdef bint can_receive(self) noexcept nogil:
        return (<NetChip>self.chip).can_take()

    cdef int receive(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil:
        return (<NetChip>self.chip).take(frame, length, header)

    cdef void link_changed(self, bint up) noexcept nogil:
        (<NetChip>self.chip).link(up)

    cdef void sent(self) noexcept nogil:
        (<NetChip>self.chip).sent_room()


cdef u32 flow(const u8 *frame, u32 length) noexcept nogil:
    """The same number for both directions of a connection, below 256."""
    cdef u32 sum = 0, n, at = 26, end = 34, ports = 34
    if length < 54:
        return 0
    if frame[12] == 0x86 and frame[13] == 0xDD:
        at, end, ports = 22, 54, 54
    elif frame[12] != 8 or frame[13] != 0:
        return 0
    else:
        ports = 14 + 4 * (frame[14] & 15)
    for n in range(at, end):
        sum += frame[n]
    for n in range(ports, min(ports + 4, length)):
        sum += frame[n] * 7
    return (sum ^ sum >> 8) & 0xFF


cdef void _go_on(void *chip) noexcept nogil:
    """What a burst left over."""
    (<NetChip>chip).sent_room()


cdef class NetChip(VirtioChip):
    """`backend`: the wire, None: it leads nowhere. `on_filter()`: the filters changed; `on_offloads(NET_CAN_…)`."""

    state = VirtioChip.state.extend(
        "virtio-net", 1,
        Flag("promiscuous", KEEP), Flag("all_multicast", KEEP), Flag("all_unicast", KEEP), Flag("no_multicast", KEEP),
        Flag("no_unicast", KEEP), Flag("no_broadcast", KEEP), Flag("unicast_overflow", KEEP),
        Flag("multicast_overflow", KEEP), Number("unicasts", 0, TABLE, KEEP), Number("multicasts", 0, TABLE, KEEP),
        Bytes("addresses", TABLE * 6, KEEP), Bytes("vlan_bits", 512, KEEP), U32("current", KEEP),
        U64("guest_offloads", KEEP),
    )
    save, load_state = state.methods()[1:]

    def __init__(self, dma, sizes, backend, bytes mac):
        super().__init__(dma, sizes)
        self.backend = backend
        self.wire = <void *>backend if backend is not None else NULL
        self.scatter = _Scatter(dma, MOST_PIECES)
        self.chains = <Chain *>calloc(MOST_CHAINS, sizeof(Chain))
        self.written = <u32 *>calloc(MOST_CHAINS, sizeof(u32))
        if self.chains == NULL or self.written == NULL:
            raise MemoryError
        memcpy(self.own_mac, <const u8 *>mac, 6)
        self.pairs = self.current = (self.queue_count - 1) // 2
        self.cable = True
        self.burst = TURN
        self.port = NetPort(self)
        self.later = turn_of(self, _go_on)
        self.fresh_filters()

    def __dealloc__(self):
        free(self.chains)
        free(self.written)

    def rewire(self, backend):
        """Another wire; None: it leads nowhere."""
        self.backend = backend
        self.wire = <void *>backend if backend is not None else NULL
        self.later.notifier.signal()                            # nobody calls `sent` for what the other one refused

    # --- life -----------------------------------------------------------------------------------------------

    cdef void fresh_filters(self) noexcept nogil:
        self.promiscuous = True
        self.all_multicast = self.all_unicast = self.no_multicast = self.no_unicast = self.no_broadcast = False
        self.unicast_overflow = self.multicast_overflow = False
        self.unicasts = self.multicasts = 0
        memset(self.table, 0, sizeof(self.table))
        memset(self.vlans, 0, sizeof(self.vlans))
        self.current = 1
        self.guest_offloads = OFFLOADS

    cdef void started(self) noexcept nogil:
        self.mergeable = self.accepted & F_MERGEABLE != 0
        self.header_size = HEADER if self.accepted & (F_MERGEABLE | VERSION_1) else LEGACY_HEADER
        self.offloads_changed()

    cdef void stopped(self) noexcept nogil:
        if not self.keep_filters:
            self.fresh_filters()
            memcpy(self.config, self.own_mac, 6)
            self.config[STATUS] &= ~<u8>ANNOUNCE
        self.port.takes = 0

    def settle(self):
        self.keep_filters = True
        super().settle()
        self.keep_filters = False
        self.current = min(max(self.current, 1), self.pairs)

    def check_state(self, values):
        super().check_state(values)
        if values["unicasts"] + values["multicasts"] > TABLE:
            raise StateError("a network card has more addresses than places for them")

    cdef void offloads_changed(self) noexcept nogil:
        cdef u64 on = self.accepted & self.guest_offloads
        cdef u32 takes = 0
        if on & F_GUEST_CSUM:
            takes |= NET_CAN_CSUM
            if on & F_TSO4:
                takes |= NET_CAN_TSO4
            if on & F_TSO6:
                takes |= NET_CAN_TSO6
            if on & F_ECN:
                takes |= NET_CAN_ECN
            if on & F_UFO:
                takes |= NET_CAN_UFO
        if takes != self.port.takes:
            self.port.takes = takes
            with gil:
                if self.on_offloads is not None:
                    self.on_offloads(takes)

    cdef void config_written(self, u32 offset, u32 size, u32 value) noexcept nogil:
        """A driver of old times writes its address there."""
        cdef u32 n
        if self.accepted & (VERSION_1 | F_CTRL_MAC):
            return
        for n in range(size):
            if offset + n < 6:
                self.config[offset + n] = value >> 8 * n & 0xFF
        self.filters_changed()

    cdef void kicked(self, u32 number) noexcept nogil:
        if number >= 2 * self.pairs:
            self.control(<VirtQueue>self.queue_of[number])
        elif number & 1:
            self.transmit(<VirtQueue>self.queue_of[number], min(self.burst, <u32>TURN))
        else:
            (<VirtQueue>self.queue_of[number]).listen(False)
            net_room(self.wire)

    # --- out ------------------------------------------------------------------------------------------------

    cdef void sent_room(self) noexcept nogil:
        """Go on with what lies in the rings: one turn for all of them, who begins changes."""
        cdef u32 n, first = self.next_pair, left = min(self.burst, <u32>TURN)
        if self.running:
            for n in range(self.pairs):
                self.next_pair = (first + n) % self.pairs
                left = self.transmit(<VirtQueue>self.queue_of[2 * self.next_pair + 1], left)
                if not left:
                    break
            self.next_pair = (self.next_pair + 1) % self.pairs

    cdef u32 transmit(self, VirtQueue queue, u32 left) noexcept nogil:
        """Send what this turn has `left`; what it has left then. 0: what lies in rings is sent later."""
        cdef Chain chain
        cdef int result
        cdef i64 began = clock_read(CLOCK_MONOTONIC)
        cdef bint some = False
        net_burst(self.wire, True)
        queue.listen(False)
        while left:
            result = queue.pop(&chain)
            if result == 0:
                queue.listen(True)
                result = queue.pop(&chain)
                if result > 0:
                    queue.listen(False)
            if result <= 0:
                if result < 0:
                    self.fault()
                break
            result = self.send_one(queue, &chain)
            if result == 0:
                queue.pop_back(&chain)
                break
            if result < 0:
                self.fault()
                break
            queue.push(&chain, 0)
            some = True
            left -= min(left, self.became)
            if chain.read_size >= LARGE and clock_read(CLOCK_MONOTONIC) - began > TURN_NS:
                left = 0
        net_burst(self.wire, False)
        if some:
            self.interrupt(queue)
        if not left:
            self.later.notifier.signal()
        return left

    cdef int send_one(self, VirtQueue queue, Chain *chain) noexcept nogil:
        """1: it is gone; 0: the back end has no room; -1: it is out of protocol."""
        cdef WireHeader header
        cdef int result
        cdef u64 before = 0
        self.became = 1
        if chain.read_size < self.header_size or chain.readable < chain.count:
            queue.broken = True
            return -1
        if not self.cable:
            return 1
        queue.copy_out(chain, 0, <u8 *>&header, LEGACY_HEADER)
        if queue.gather(chain, False, self.header_size, 0, self.scatter) != 0:
            self.scatter.finish(0)
            return 1                                            # memory that is not there: nothing to send
        if self.pairs > 1 and self.scatter.count and self.scatter.pieces[0].length >= 54:
            self.flows[flow(<u8 *>self.scatter.pieces[0].base, 54)] = <u8>(queue.number >> 1)
        if header.what.gso:
            before = net_sent(self.wire)
        result = net_send(
            self.wire, self.scatter.pieces, self.scatter.count,
            &header.what if header.what.flags & 1 or header.what.gso else NULL
        )
        self.scatter.finish(0)
        if header.what.gso:
            self.became = <u32>max(net_sent(self.wire) - before, <u64>1)
        return result

    # --- in -------------------------------------------------------------------------------------------------

    cdef bint can_take(self) noexcept nogil:
        return self.running and not self.receiving and call_ready(self.queue_of[0])

    cdef int take(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil:
        cdef u32 pair = 0
        cdef int result
        if not self.running:
            return 0
        if not self.cable or not self.wanted(frame, length):
            return 1
        if self.current > 1:
            pair = self.flows[flow(frame, length)]
            if pair >= self.current or not call_ready(self.queue_of[2 * pair]):
                pair = 0
        self.receiving = True
        result = self.fill(<VirtQueue>self.queue_of[2 * pair], frame, length, header)
        self.receiving = False
        return result

    cdef int fill(self, VirtQueue queue, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil:
        """1: it is in the guest's buffers, or lost; 0: there are not enough of them."""
        cdef WireHeader head
        cdef u64 buffers_at[2]
        cdef u64 skip, room
        cdef u32 done = 0, part, count = 0, n, offset
        cdef int result
        cdef u16 value
        cdef Chain *chain
        memset(&head, 0, sizeof(head))
        if header != NULL:
            head.what = header[0]
        head.buffers = 1
        while True:
            if count == MOST_CHAINS or count == queue.size:
                break
            chain = &self.chains[count]
            result = queue.pop(chain)
            if result == 0:
                queue.listen(True)
                result = queue.pop(chain)
            if result < 0:
                self.fault()
                return 1
            if result == 0:
                break
            count += 1
            skip = self.header_size if count == 1 else 0
            if chain.readable or chain.write_size <= skip and count == 1:
                queue.broken = True
                self.fault()
                return 1
            if count == 1:
                queue.copy_in(chain, 0, <u8 *>&head, self.header_size)
                for n in range(2):                              # where the number of buffers lies, byte by byte
                    offset = LEGACY_HEADER + n
                    part = 0
                    while part < chain.count and offset >= queue.pieces[part].len:
                        offset -= queue.pieces[part].len
                        part += 1
                    buffers_at[n] = queue.pieces[part].addr + offset
            room = chain.write_size - skip
            part = <u32>min(room, <u64>(length - done))
            queue.copy_in(chain, skip, frame + done, part)      # memory that is not there: its driver's loss
            self.written[count - 1] = part + <u32>skip
            done += part
            if done == length:
                if count > 1:
                    value = <u16>count
                    for n in range(2):
                        queue.dma.write_from(buffers_at[n], <const u8 *>&value + n, 1)
                queue.push_many(self.chains, self.written, count)
                self.interrupt(queue)
                return 1
            if not self.mergeable:
                queue.pop_back(chain)                           # too long for this driver: lost, the buffer stays
                self.dropped_long()
                return 1
        while count:
            count -= 1
            queue.pop_back(&self.chains[count])
        return 0

    cdef void dropped_long(self) noexcept nogil:
        self.too_short += 1

    cdef bint wanted(self, const u8 *frame, u32 length) noexcept nogil:
        """Whether the driver's filters let a frame through."""
        cdef u32 n, tag
        cdef const u8 *at
        if self.promiscuous:
            return True
        if self.accepted & F_VLAN and length >= 18 and frame[12] == 0x81 and frame[13] == 0:
            tag = (<u32>frame[14] << 8 | frame[15]) & 0xFFF
            if not self.vlans[tag >> 3] & 1 << (tag & 7):
                return False
        if frame[0] & MULTICAST_BIT:
            for n in range(6):
                if frame[n] != 0xFF:
                    break
            else:
                return not self.no_broadcast
            if self.no_multicast:
                return False
            if self.all_multicast or self.multicast_overflow:
                return True
            at = self.table + 6 * self.unicasts
            for n in range(self.multicasts):
                if memcmp(frame, at + 6 * n, 6) == 0:
                    return True
            return False
        if self.no_unicast:
            return False
        if self.all_unicast or self.unicast_overflow or memcmp(frame, self.config, 6) == 0:
            return True
        for n in range(self.unicasts):
            if memcmp(frame, self.table + 6 * n, 6) == 0:
                return True
        return False

    # --- control --------------------------------------------------------------------------------------------

    cdef void control(self, VirtQueue queue) noexcept nogil:
        cdef Chain chain
        cdef int result
        cdef u8 ack
        cdef u32 left = queue.size
        while left:
            left -= 1
            result = queue.pop(&chain)
            if result <= 0:
                if result < 0:
                    self.fault()
                break
            if chain.read_size < 2 or not chain.write_size:
                queue.broken = True
                self.fault()
                break
            ack = 0 if self.command(queue, &chain) else 1
            queue.copy_in(&chain, 0, &ack, 1)
            queue.push(&chain, 1)
            self.interrupt(queue)

    cdef bint command(self, VirtQueue queue, Chain *chain) noexcept nogil:
        """Whether it is one that can be done, and was."""
        cdef u8 what[2]
        cdef u8 data[8]
        cdef u32 tag, n
        cdef u64 wanted
        memset(data, 0, 8)
        queue.copy_out(chain, 0, what, 2)
        queue.copy_out(chain, 2, data, <u32>min(chain.read_size - 2, <u64>8))
        if what[0] == C_RX and self.accepted & F_CTRL_RX:
            if chain.read_size != 3 or what[1] > 5 or what[1] > 1 and not self.accepted & F_RX_EXTRA:
                return False
            if what[1] == 0:
                self.promiscuous = data[0] != 0
            elif what[1] == 1:
                self.all_multicast = data[0] != 0
            elif what[1] == 2:
                self.all_unicast = data[0] != 0
            elif what[1] == 3:
                self.no_multicast = data[0] != 0
            elif what[1] == 4:
                self.no_unicast = data[0] != 0
            else:
                self.no_broadcast = data[0] != 0
            self.filters_changed()
            return True
        if what[0] == C_MAC:
            if what[1] == 1 and self.accepted & F_CTRL_MAC:
                if chain.read_size != 8:
                    return False
                memcpy(self.config, data, 6)
                self.filters_changed()
                return True
            if what[1] == 0 and self.accepted & F_CTRL_RX:
                if not self.set_table(queue, chain):
                    return False
                self.filters_changed()
                return True
            return False
        if what[0] == C_VLAN and self.accepted & F_VLAN:
            tag = data[0] | <u32>data[1] << 8
            if chain.read_size != 4 or tag > 0xFFF or what[1] > 1:
                return False
            if what[1] == 0:
                self.vlans[tag >> 3] |= <u8>(1 << (tag & 7))
            else:
                self.vlans[tag >> 3] &= ~<u8>(1 << (tag & 7))
            self.filters_changed()
            return True
        if what[0] == C_ANNOUNCE and what[1] == 0 and self.accepted & F_ANNOUNCE:
            if not self.config[STATUS] & ANNOUNCE:
                return False
            self.config[STATUS] &= ~<u8>ANNOUNCE
            return True
        if what[0] == C_MQ and what[1] == 0 and self.accepted & F_MQ:
            n = data[0] | <u32>data[1] << 8
            if chain.read_size != 4 or not 1 <= n <= self.pairs:
                return False
            self.current = n
            return True
        if what[0] == C_OFFLOADS and what[1] == 0 and self.accepted & F_CTRL_OFFLOADS:
            if chain.read_size != 10:
                return False
            memcpy(&wanted, data, 8)
            if wanted & ~(self.accepted & OFFLOADS):
                return False
            self.guest_offloads = wanted
            self.offloads_changed()
            return True
        return False

    cdef bint set_table(self, VirtQueue queue, Chain *chain) noexcept nogil:
        """Unicast addresses, then multicast ones: a number and so many of them. Too many of a kind: all of that kind."""
        cdef u64 at = 2
        cdef u32 count, n, kind
        cdef u32 kept[2]
        cdef bint overflow[2]
        cdef u8 fresh[TABLE * 6]
        cdef u32 used = 0
        memset(fresh, 0, sizeof(fresh))
        for kind in range(2):
            if queue.copy_out(chain, at, <u8 *>&count, 4) != 0:
                return False
            at += 4
            if <u64>count * 6 > chain.read_size - at:
                return False
            overflow[kind] = used + count > TABLE
            kept[kind] = 0 if overflow[kind] else count
            if kept[kind] and queue.copy_out(chain, at, fresh + 6 * used, 6 * count) != 0:
                return False
            used += kept[kind]
            at += <u64>count * 6
        if at != chain.read_size:
            return False
        memcpy(self.table, fresh, sizeof(fresh))
        self.unicasts, self.multicasts = kept[0], kept[1]
        self.unicast_overflow, self.multicast_overflow = overflow[0], overflow[1]
        return True

    cdef void filters_changed(self) noexcept nogil:
        if not self.told:
            self.told = True
            with gil:
                if self.on_filter is not None:
                    self.on_filter()

    # --- the cable --------------------------------------------------------------------------------------------

    cdef void link(self, bint up) noexcept nogil:
        if up == self.cable:
            return
        self.cable = up
        if up:
            self.config[STATUS] |= <u8>LINK_UP
        else:
            self.config[STATUS] &= ~<u8>LINK_UP
        self.config_changed()
        if up:
            net_room(self.wire)

    def set_link(self, bint up):
        with nogil:
            self.link(up)

    def announce(self):
        """Ask the driver to announce itself. Whether it can be asked."""
        if not self.running or not self.accepted & F_ANNOUNCE:
            return False
        self.config[STATUS] |= <u8>ANNOUNCE
        with nogil:
            self.config_changed()
        return True

    # --- for the glue -----------------------------------------------------------------------------------------

    @property
    def addresses(self):
        return cells(self, self.table, TABLE * 6)

    @property
    def vlan_bits(self):
        return cells(self, self.vlans, 512)

    def forget_told(self):
        """The filters were asked for: the next change is told again."""
        self.told = False
