"""VMware's paravirtual network card, version 1, compiled: the chip alone; vmxnet3.py is its card.

Ref: the driver of Linux (drivers/net/vmxnet3/vmxnet3_defs.h: registers, commands, shared area, descriptors) and FreeBSD's
(if_vmxreg.h); names are theirs.
Not modelled: LRO, wake-up, plug-ins, moderation of interrupts, versions 2 and later.

The driver's memory holds everything: the shared area says where queues are, each queue's descriptors who owns them, by a
generation bit that changes with each turn of a ring. All of it is read when a command says so, checked, and kept here; a
card that is told nonsense does not start. A write to TXPROD does the work of a TURN at most, the rest from a timer.
Frames without a buffer wait on the host's side; the driver is asked (updateRxProd) to tell when there are buffers.
"""

from libc.string cimport memcmp, memcpy, memmove, memset

from vmrun.backends.protocols cimport (
    IoVec, NET_GSO_NONE, NET_GSO_TCP4, NET_GSO_TCP6, NET_NEEDS_CSUM, NetHeader, net_cutting, net_send, net_sent,
)
from vmrun.core.cells cimport cells

from vmrun.devices.network.frames cimport (
    BROADCAST, MULTICAST, SHORTEST, be16, checksum, kind, le16, le32, le64, put_be16, put_le16, put_le32,
)
from vmrun.devices.network.nic cimport FRAME, TURN
from vmrun.devices.network.layers cimport TCP, UDP, header_sum_right, look, pseudo_sum, toeplitz, transport_sum_right

from vmrun.core.state import Bytes, Deadline, Flag, Table, U32, U64
from vmrun.devices.network.nic import NicTimer as _NicTimer
from vmrun.errors import StateError

cdef u32 MAGIC = 0xBABEFEE1U
cdef u32 GEN = 0x80000000U                  # of receive descriptors and completions
cdef u32 SET = 0xCAFE0000U                  # commands
cdef u32 GET = 0xF00D0000U
cdef u32 SPEED = 10000                      # Mbit/s


cdef class _PassThrough(IoRegion):
    """BAR 0."""
    cdef void *chip             # borrowed: the chip owns its window

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return (<Vmxnet3>self.chip).mask_of(<u32>offset) if self.chip != NULL else 0

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        if self.chip != NULL:
            (<Vmxnet3>self.chip).doorbell(<u32>offset, <u32>value)
        return 0


cdef class Vmxnet3(NicChip):
    """BAR 1; `passthrough` is BAR 0. `msix` and `msi` are set by the glue."""

    state = Table(
        "vmxnet3", 1,
        Bytes("ring_cells", sizeof(Ring) * QUEUES * RINGS), Bytes("count_cells", 16 * QUEUES * COUNTERS), Bytes("vector_cells", 3 * QUEUES),
        Bytes("mask_cells", 2 * VECTORS), Bytes("individual", 6, lambda chip: chip.address), Bytes("group_cells", 6 * GROUPS),
        Bytes("vlan_cells", 512), Bytes("rss_cells", 168), Bytes("frame_cells", None, b"", most=MOST), Deadline("timer"),
        Flag("active"), Flag("auto_mask"), Flag("raised"), U64("shared"), U64("queues_at"), U64("features"), U32("shared_low"), U32("mac_low"),
        U32("last"), U32("tx_queues", most=QUEUES), U32("rx_queues", most=QUEUES), U32("event_vector", most=VECTORS - 1), U32("intr_control"),
        U32("rx_mode"), U32("groups", most=GROUPS), U32("hash_type"), U32("table_size", most=128), U32("busy", most=0xFF), U32("sending", most=QUEUES - 1), U32("dropping", most=1),
        U32("om", most=3), U32("hlen", most=0x3FF), U32("mss", most=0x3FFF), U32("tagged", most=1), U32("tag", most=0xFFFF),
    )  # fmt: skip
    _, save, load_state = state.methods()

    def __init__(self, dma, irq, timers, address):
        self.min_access = self.max_access = 4
        self.dma, self.irq, self.clock, self.address = dma, irq, timers.clock, bytes(address)
        memcpy(self.permanent, <const u8 *><bytes>self.address, 6)
        self.timer = _NicTimer(timers, self, 0)
        self.passthrough = _PassThrough()
        self.passthrough.min_access = self.passthrough.max_access = 4
        (<_PassThrough>self.passthrough).chip = <void *>self
        self.reset()

    def __dealloc__(self):
        if self.passthrough is not None:
            (<_PassThrough>self.passthrough).chip = NULL

    def reset(self):
        type(self).state.reset(self)
        memset(self.masks, 1, VECTORS)
        self.settle()

    def stop(self):
        self.timer.stop()

    cdef void quiet(self) noexcept nogil:
        """Queues stop; nothing is forgotten that the driver does not say anew."""
        self.active = False
        self.timer.cancel()
        self.busy = self.used = self.dropping = self.tagged = 0
        memset(self.starved, 0, QUEUES)

    cdef void clear(self) noexcept nogil:
        self.quiet()
        memset(self.rings, 0, sizeof(self.rings))
        memset(self.masks, 1, VECTORS)
        memset(self.waiting, 0, VECTORS)
        self.tx_queues = self.rx_queues = self.groups = self.rx_mode = 0
        self.features = 0
        memset(self.vlans, 0, 512)
        self.raised = False
        self.irq.set(False)

    # --- registers --------------------------------------------------------------------------------------------

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u32 value, n
        if offset == VRRS or offset == UVRS:
            return 1                                            # versions that it has, as bits
        if offset == CMD:
            return self.result()
        if offset == MACL:
            return le32(self.station)
        if offset == MACH:
            return le16(self.station + 4)
        if offset == ICR:
            value = self.raised
            self.raised = False
            self.irq.set(False)
            return value
        return 0

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u8 events[4]
        if offset == DSAL:
            self.shared_low = <u32>value
        elif offset == DSAH:
            self.shared = value << 32 | self.shared_low
        elif offset == CMD:
            self.command(<u32>value)
        elif offset == MACL:
            self.mac_low = <u32>value
        elif offset == MACH:
            put_le32(self.station, self.mac_low)
            put_le16(self.station + 4, <u32>value)
        elif offset == ECR and self.shared:
            if self.dma.read_into(self.shared + ECR_AT, events, 4) == 0:
                put_le32(events, le32(events) & ~<u32>value)
                self.dma.write_from(self.shared + ECR_AT, events, 4)
        return 0

    cdef u32 mask_of(self, u32 at) noexcept nogil:
        return self.masks[at >> 3] if at < 8 * VECTORS and not at & 7 else 0

    cdef void doorbell(self, u32 at, u32 value) noexcept nogil:
        if at & 7:
            return
        if at < 8 * VECTORS:
            self.mask(at >> 3, value & 1)
        elif TXPROD <= at < TXPROD + 8 * QUEUES:
            self.burst(True)
            self.spent = 0
            self.transmit_queue((at - TXPROD) >> 3)
            self.burst(False)
        elif RXPROD <= at < RXPROD + 8 * QUEUES:
            self.renew((at - RXPROD) >> 3)
        elif RXPROD2 <= at < RXPROD2 + 8 * QUEUES:
            self.renew((at - RXPROD2) >> 3)

    cdef u32 result(self) noexcept nogil:
        """What the last command says."""
        cdef u32 what = self.last
        if what == SET:
            return 0 if self.active else 1
        if what == GET:                                         # queues in error
            return 0
        if what == GET + 2:
            return SPEED << 16 | 1 if self.link_up else 0
        if what == GET + 3:
            return le32(self.permanent)
        if what == GET + 4:
            return le16(self.permanent + 4)
        if what == GET + 5:
            return 0x07B0
        if what == GET + 6:
            return 1
        if what == GET + 8:
            return 3                                            # masks by driver or device, MSI-X at most
        return 0

    cdef void command(self, u32 what) noexcept nogil:
        self.last = what
        if what == SET:
            self.quiet()
            if self.activate():
                self.active = True
                self.room()
        elif what == SET + 1:
            self.quiet()
        elif what == SET + 2:
            self.clear()
        elif what == SET + 3:
            self.read_mode()
            self.room()
        elif what == SET + 4:
            self.read_groups()
        elif what == SET + 5:
            self.read_vlans()
        elif what == SET + 6:
            self.read_rss()
        elif what == SET + 9:
            self.read_features()
        elif (what == GET or what == GET + 1) and self.active:  # else their memory may be somebody else's by now
            self.write_statistics(what == GET)

    # --- what the shared area says ------------------------------------------------------------------------------

    cdef u32 activate(self) noexcept nogil:
        """Read everything; 0 when it makes no sense."""
        cdef u8 head[72]
        cdef u8 d[80]
        cdef u32 n
        cdef u64 at
        if self.dma.read_into(self.shared, head, 72) < 0 or le32(head + MAGIC_AT) != MAGIC:
            return 0
        self.tx_queues, self.rx_queues = head[TX_QUEUES_AT], head[RX_QUEUES_AT]
        if not 1 <= self.tx_queues <= QUEUES or not 1 <= self.rx_queues <= QUEUES:
            self.tx_queues = self.rx_queues = 0
            return 0
        self.queues_at = le64(head + QUEUES_AT)
        memset(self.rings, 0, sizeof(self.rings))
        for n in range(self.tx_queues + self.rx_queues):
            at = self.queues_at + QUEUE_DESCRIPTOR * n
            if self.dma.read_into(at, d, 80) < 0 or d[72] >= VECTORS:
                return 0
            if n < self.tx_queues:
                self.tx_vector[n] = d[72]
                if not (
                    self.take_ring(n * RINGS + TX, le64(d + 16), le32(d + 56))
                    and self.take_ring(n * RINGS + TX_DONE, le64(d + 32), le32(d + 64))
                    and self.rings[n * RINGS].size and self.rings[n * RINGS + 1].size
                ):
                    return 0
            else:
                self.rx_vector[n - self.tx_queues] = d[72]
                if not (
                    self.take_ring((n - self.tx_queues) * RINGS + RX_HEAD, le64(d + 16), le32(d + 56))
                    and self.take_ring((n - self.tx_queues) * RINGS + RX_BODY_RING, le64(d + 24), le32(d + 60))
                    and self.take_ring((n - self.tx_queues) * RINGS + RX_DONE, le64(d + 32), le32(d + 64))
                    and self.rings[(n - self.tx_queues) * RINGS + RX_DONE].size
                ):
                    return 0
        memset(self.sent_counts, 0, sizeof(self.sent_counts))
        memset(self.come_counts, 0, sizeof(self.come_counts))
        self.read_features()
        self.read_interrupts()
        self.read_mode()
        self.read_groups()
        self.read_vlans()
        self.read_rss()
        return 1

    cdef bint take_ring(self, u32 which, u64 base, u32 size) noexcept nogil:
        cdef Ring *ring = &self.rings[which]
        if size > LONGEST_RING:
            return False
        ring.base, ring.size, ring.next, ring.gen = base, size, 0, 1
        return True

    cdef void read_features(self) noexcept nogil:
        cdef u8 data[8]
        if self.dma.read_into(self.shared + FEATURES_AT, data, 8) == 0:
            self.features = le64(data)

    cdef void read_interrupts(self) noexcept nogil:
        cdef u8 data[32]
        if self.dma.read_into(self.shared + INTERRUPTS_AT, data, 32) == 0:
            self.auto_mask = data[0] & 1
            self.event_vector = data[2] if data[2] < VECTORS else 0
            self.intr_control = le32(data + 28)

    cdef void read_mode(self) noexcept nogil:
        cdef u8 data[4]
        if self.dma.read_into(self.shared + RX_MODE_AT, data, 4) == 0:
            self.rx_mode = le32(data)

    cdef void read_groups(self) noexcept nogil:
        cdef u8 data[16]
        cdef u32 size
        self.groups = 0
        if self.dma.read_into(self.shared + RX_MODE_AT, data, 16) < 0:
            return
        size = min(le16(data + 4) // 6, <u32>GROUPS)
        if size and self.dma.read_into(le64(data + 8), self.group, size * 6) == 0:
            self.groups = size

    cdef void read_vlans(self) noexcept nogil:
        if self.dma.read_into(self.shared + VLANS_AT, self.vlans, 512) < 0:
            memset(self.vlans, 0, 512)

    cdef void read_rss(self) noexcept nogil:
        cdef u8 data[16]
        cdef u8 head[8]
        cdef u64 at
        self.hash_type = self.table_size = 0
        if not self.features & F_RSS or self.dma.read_into(self.shared + RSS_AT, data, 16) < 0 or le32(data + 4) < 176:
            return
        at = le64(data + 8)
        if self.dma.read_into(at, head, 8) < 0 or le16(head + 2) != 1 or le16(head + 4) > 40:
            return
        memset(self.key, 0, 40)
        if self.dma.read_into(at + 8, self.key, le16(head + 4)) < 0 or self.dma.read_into(at + 48, self.table, 128) < 0:
            return
        self.hash_type, self.table_size = le16(head), min(le16(head + 6), <u32>128)

    cdef void write_statistics(self, bint status_only) noexcept nogil:
        cdef u8 status[8]
        cdef u32 n
        cdef u64 at
        memset(status, 0, 8)
        status[0] = not self.active
        for n in range(self.tx_queues + self.rx_queues):
            at = self.queues_at + QUEUE_DESCRIPTOR * n
            self.dma.write_from(at + STATUS_AT, status, 8)
            if status_only:
                continue
            if n < self.tx_queues:
                self.dma.write_from(at + STATISTICS_AT, <u8 *>&self.sent_counts[n * COUNTERS], 8 * COUNTERS)
            else:
                self.dma.write_from(at + STATISTICS_AT, <u8 *>&self.come_counts[(n - self.tx_queues) * COUNTERS], 8 * COUNTERS)

    # --- interrupts ---------------------------------------------------------------------------------------------

    cdef void event(self, u32 bits) noexcept nogil:
        cdef u8 data[4]
        if self.active and self.dma.read_into(self.shared + ECR_AT, data, 4) == 0:
            put_le32(data, le32(data) | bits)
            self.dma.write_from(self.shared + ECR_AT, data, 4)
            self.fire(self.event_vector)

    cdef void link_changed(self) noexcept nogil:
        self.event(EVENT_LINK)
        if self.link_up:
            self.room()

    cdef void fire(self, u32 vector) noexcept nogil:
        self.waiting[vector] = 1
        self.settle_vector(vector)

    cdef void settle_vector(self, u32 vector) noexcept nogil:
        cdef u8 control[4]
        if not self.waiting[vector] or self.masks[vector] & 1:
            return
        # DISABLE_ALL is the driver's to change at any time
        if self.dma.read_into(self.shared + INTR_CTRL_AT, control, 4) == 0 and le32(control) & DISABLE_ALL:
            return
        self.waiting[vector] = 0
        if self.auto_mask:
            self.masks[vector] = 1
        if self.msix is not None and self.msix.enabled():
            self.msix.notify(vector)
        elif self.msi is not None and self.msi.enabled():
            self.msi.notify(vector)
        else:
            self.raised = True
            self.irq.set(True)

    cdef void mask(self, u32 vector, bint on) noexcept nogil:
        self.masks[vector] = on
        if not on:
            self.settle_vector(vector)

    # --- rings --------------------------------------------------------------------------------------------------

    cdef u64 descriptor(self, u32 which, u8 *data) noexcept nogil:
        """The next descriptor of a ring; 0: there is none."""
        cdef Ring *ring = &self.rings[which]
        if not ring.size:
            return 0
        return self.dma.read_into(ring.base + DESCRIPTOR * ring.next, data, DESCRIPTOR) == 0

    cdef void step(self, u32 which) noexcept nogil:
        cdef Ring *ring = &self.rings[which]
        ring.next += 1
        if ring.next >= ring.size:
            ring.next, ring.gen = 0, ring.gen ^ 1

    cdef void complete(self, u32 which, u8 *data) noexcept nogil:
        """Write a completion, the half with its generation last."""
        cdef Ring *ring = &self.rings[which]
        cdef u64 at = ring.base + DESCRIPTOR * ring.next
        if ring.gen:
            data[15] |= 0x80
        self.dma.write_from(at, data, 12)
        self.dma.write_from(at + 12, data + 12, 4)
        self.step(which)

    # --- transmit -----------------------------------------------------------------------------------------------

    cdef void timed(self, u32 which) noexcept nogil:
        cdef u32 n, busy = self.busy
        self.busy = self.spent = 0
        for n in range(QUEUES):
            if busy >> n & 1:
                self.transmit_queue(n)

    cdef void transmit_queue(self, u32 queue) noexcept nogil:
        """What the ring has, a TURN of it; the timer has the rest, and what a large frame before it holds back."""
        cdef u8 d[DESCRIPTOR]
        cdef u8 done[DESCRIPTOR]
        cdef u32 which = queue * RINGS + TX, low, high, length, at
        cdef bint told = False
        if not self.active or queue >= self.tx_queues or self.busy >> queue & 1:
            return
        if self.used and self.sending != queue:
            self.used = self.dropping = self.tagged = 0         # half a frame of another queue
        self.sending = queue
        while True:
            if self.spent >= TURN or net_cutting(self.backend):
                self.busy |= <u32>1 << queue
                self.timer.arm(self.clock.now() + (PAUSE if self.spent < TURN else 0))
                break
            self.spent += 1
            if not self.descriptor(which, d):
                break
            low, high = le32(d + 8), le32(d + 12)
            if (low >> 14 & 1) != self.rings[which].gen:
                break
            if not self.used and not self.dropping:
                self.om, self.hlen, self.mss = high >> 10 & 3, high & 0x3FF, low >> 18
                self.tagged, self.tag = high >> 15 & 1, high >> 16
            length = low & 0x3FFF
            if not length:
                length = 0x4000
            if self.used + length > 0x10000 or self.dma.read_into(le64(d), self.frame + self.used, length) < 0:
                self.dropping = 1
            else:
                self.used += length
            at = <u32>self.rings[which].next
            self.step(which)
            if high & TX_EOP:
                if self.dropping:
                    self.sent_counts[queue * COUNTERS + TX_DISCARDED] += 1
                else:
                    self.send(queue)
                self.used = self.dropping = self.tagged = 0
                if high & TX_CQ:
                    memset(done, 0, DESCRIPTOR)
                    put_le32(done, at & 0xFFF)
                    self.complete(queue * RINGS + TX_DONE, done)
                    told = True
        if told:
            self.fire(self.tx_vector[queue])

    cdef void send(self, u32 queue) noexcept nogil:
        """The frame is whole. Its large segments are cut, and its sum made, by who takes it."""
        cdef NetHeader header
        cdef Layers found
        cdef IoVec piece
        cdef u32 size = self.used, skip = 0
        cdef u64 *counts = &self.sent_counts[queue * COUNTERS]
        cdef u64 before = net_sent(self.backend)
        cdef int to
        self.work(size)
        if size < 14 or not self.link_up:
            counts[TX_DISCARDED] += 1
            return
        if self.tagged:
            memmove(self.frame + 16, self.frame + 12, size - 12)
            put_be16(self.frame + 12, VLAN)
            put_be16(self.frame + 14, self.tag)
            size += 4
            skip = 4
        memset(&header, 0, sizeof(header))
        header.gso = NET_GSO_NONE
        if self.om == OM_CSUM:
            header.flags, header.csum_start = NET_NEEDS_CSUM, self.hlen + skip
            header.csum_offset = self.mss - self.hlen if self.mss >= self.hlen else 0xFFFF
        elif self.om == OM_TSO and self.mss and size >= SHORTEST:
            if self.used > self.hlen + self.mss:
                look(self.frame, size, &found)
                if not found.l4 or found.protocol != TCP:
                    counts[TX_DISCARDED] += 1
                    return
                if found.version == 4:                          # its lengths and sums are for the driver to leave out
                    put_be16(self.frame + found.l3 + 2, size - found.l3)
                    put_be16(self.frame + found.l3 + 10, 0)
                    put_be16(self.frame + found.l3 + 10, checksum(self.frame + found.l3, found.l4 - found.l3, 0))
                else:
                    put_be16(self.frame + found.l3 + 4, size - found.l3 - 40)
                header.gso = NET_GSO_TCP4 if found.version == 4 else NET_GSO_TCP6
                header.segment_size, header.header_length = self.mss, found.payload
                counts[TSO] += 1
                counts[TSO + 1] += size
            else:
                look(self.frame, size, &found)
            if found.l4:
                put_be16(self.frame + found.l4 + 16, pseudo_sum(self.frame, &found, size - found.l4))
                header.flags, header.csum_start, header.csum_offset = NET_NEEDS_CSUM, found.l4, 16
        to = kind(self.frame)
        to = BCAST if to == BROADCAST else MCAST if to == MULTICAST else UCAST
        counts[to] += 1
        counts[to + 1] += size
        piece.base, piece.length = self.frame, size
        net_send(self.backend, &piece, 1, &header if header.flags or header.gso else NULL)
        self.spent += FRAME * <u32>(net_sent(self.backend) - before)

    # --- receive ------------------------------------------------------------------------------------------------

    cdef void renew(self, u32 queue) noexcept nogil:
        """The driver says that it has put buffers into a ring."""
        cdef u8 none = 0
        if queue < self.rx_queues and self.active:
            if self.starved[queue]:
                self.starved[queue] = 0
                self.dma.write_from(self.queues_at + QUEUE_DESCRIPTOR * (self.tx_queues + queue) + UPDATE_RX_PROD_AT, &none, 1)
            self.room()

    cdef bint ready(self) noexcept nogil:
        cdef u32 n
        if not self.active or not self.dma.enabled:
            return False
        for n in range(self.rx_queues):
            if not self.starved[n]:
                return True
        return False

    cdef bint wanted(self, const u8 *frame) noexcept nogil:
        cdef int to
        cdef u32 n, tag
        if self.rx_mode & MODE_PROMISC:
            return True
        if be16(frame + 12) == VLAN:
            tag = be16(frame + 14) & 0xFFF
            if not self.vlans[tag >> 3] >> (tag & 7) & 1:
                return False
        to = kind(frame)
        if to == BROADCAST:
            return self.rx_mode & MODE_BCAST
        if to == MULTICAST:
            if self.rx_mode & MODE_ALL_MULTI:
                return True
            if self.rx_mode & MODE_MCAST:
                for n in range(self.groups):
                    if memcmp(self.group + 6 * n, frame, 6) == 0:
                        return True
            return False
        return self.rx_mode & MODE_UCAST and memcmp(self.station, frame, 6) == 0

    cdef int receive(self, const u8 *frame, u32 size) noexcept nogil:
        cdef u8 padded[SHORTEST]
        cdef u8 d[DESCRIPTOR]
        cdef u8 done[DESCRIPTOR]
        cdef u8 data[36]
        cdef Layers found
        cdef u32 queue = 0, type = 0, hash = 0, skip = 0, tag = 0, left, at, which, other, length, part, addresses, flags, tries
        cdef u32 rqid
        cdef u64 to
        cdef u8 yes = 1
        cdef u64 *counts
        cdef int sort
        cdef bint start = True
        if not self.active or not self.link_up or not self.dma.enabled:
            return 1
        if size < SHORTEST:
            memcpy(padded, frame, size)
            memset(padded + size, 0, SHORTEST - size)
            frame, size = padded, SHORTEST
        if size > 0x10000 or not self.wanted(frame):
            return 1
        look(frame, size, &found)
        if self.hash_type and found.l3:
            addresses = 8 if found.version == 4 else 32
            memcpy(data, frame + found.l3 + (12 if found.version == 4 else 8), addresses)
            if found.l4 and found.protocol == TCP and self.hash_type & (2 if found.version == 4 else 8):
                type = 2 if found.version == 4 else 4
                memcpy(data + addresses, frame + found.l4, 4)
                addresses += 4
            elif self.hash_type & (1 if found.version == 4 else 4):
                type = 1 if found.version == 4 else 3
            if type:
                hash = toeplitz(self.key, data, addresses)
                if self.table_size:
                    queue = self.table[hash % self.table_size]
                    if queue >= self.rx_queues:
                        queue = 0
        counts = &self.come_counts[queue * COUNTERS]
        if be16(frame + 12) == VLAN and self.features & F_RXVLAN:
            skip, tag = 4, be16(frame + 14)
        left, at = size - skip, 0
        tries = 0
        while left:
            which = queue * RINGS + RX_HEAD
            rqid = queue
            if not self.descriptor(which, d) or (le32(d + 8) >> 31) != self.rings[which].gen or not start and not le32(d + 8) & RX_BODY:
                which = queue * RINGS + RX_BODY_RING
                rqid = queue + self.rx_queues
                if start or not self.descriptor(which, d) or (le32(d + 8) >> 31) != self.rings[which].gen:
                    break                                       # no buffer
            elif start and le32(d + 8) & RX_BODY:               # bodies that nobody needed
                self.step(which)
                tries += 1
                if tries > LONGEST_RING:
                    break
                continue
            to, length = le64(d), le32(d + 8) & 0x3FFF
            if not length:
                length = 0x4000
            part = min(left, length)
            if skip and at < 12:
                self.dma.write_from(to, frame + at, min(part, 12 - at))
                if part > 12 - at:
                    self.dma.write_from(to + 12 - at, frame + 16, part - (12 - at))
            else:
                self.dma.write_from(to, frame + at + skip, part)
            at += part
            left -= part
            memset(done, 0, DESCRIPTOR)
            put_le32(
                done,
                <u32>self.rings[which].next & 0xFFF | (RXC_SOP if start else 0) | (RXC_EOP if not left else 0) | rqid << 16 | type << 26
            )
            put_le32(done + 4, hash)
            flags = RXC_TYPE | RXC_FCS
            if not left:
                if found.version == 4:
                    flags |= RXC_V4
                elif found.version == 6:
                    flags |= RXC_V6
                if found.fragment:
                    flags |= RXC_FRAGMENT
                if found.l4:
                    flags |= RXC_TCP if found.protocol == TCP else RXC_UDP
                if self.features & F_RXCSUM and found.l3:
                    if found.version == 4 and header_sum_right(frame, &found):
                        flags |= RXC_IPC
                    if found.l4 and transport_sum_right(frame, &found):
                        flags |= RXC_TUC
                else:
                    put_le32(done, le32(done) | RXC_CNC)
            put_le32(done + 8, part | (RXC_TS if skip else 0) | tag << 16)
            put_le32(done + 12, flags)
            self.complete(queue * RINGS + RX_DONE, done)
            self.step(which)
            start = False
        if left:
            if start:
                if self.starved[queue]:
                    return 0
                self.starved[queue] = 1                         # it shall tell; and did it fill a ring meanwhile?
                self.dma.write_from(self.queues_at + QUEUE_DESCRIPTOR * (self.tx_queues + queue) + UPDATE_RX_PROD_AT, &yes, 1)
                counts[NO_BUFFER] += 1
                which = queue * RINGS + RX_HEAD
                if self.descriptor(which, d) and (le32(d + 8) >> 31) == self.rings[which].gen:
                    self.starved[queue] = 0
                return 0
            counts[NO_BUFFER] += 1
            memset(done, 0, DESCRIPTOR)                         # an end that says error, or the driver waits for one
            put_le32(done, RXC_EOP | queue << 16 | <u32>self.rings[queue * RINGS + RX_HEAD].next & 0xFFF)
            put_le32(done + 8, 1 << 14)
            put_le32(done + 12, RXC_TYPE)
            self.complete(queue * RINGS + RX_DONE, done)
            self.fire(self.rx_vector[queue])
            return 1
        sort = kind(frame)
        sort = BCAST if sort == BROADCAST else MCAST if sort == MULTICAST else UCAST
        counts[sort] += 1
        counts[sort + 1] += size
        self.fire(self.rx_vector[queue])
        return 1

    # --- state --------------------------------------------------------------------------------------------------

    @property
    def ring_cells(self):
        return cells(self, self.rings, sizeof(self.rings))

    @property
    def count_cells(self):
        return cells(self, self.sent_counts, sizeof(self.sent_counts) + sizeof(self.come_counts))

    @property
    def vector_cells(self):
        return cells(self, self.tx_vector, 3 * QUEUES)

    @property
    def mask_cells(self):
        return cells(self, self.masks, 2 * VECTORS)

    @property
    def individual(self):
        return cells(self, self.station, 6)

    @property
    def group_cells(self):
        return cells(self, self.group, sizeof(self.group))

    @property
    def vlan_cells(self):
        return cells(self, self.vlans, 512)

    @property
    def rss_cells(self):
        return cells(self, self.key, 168)

    @property
    def frame_cells(self):
        return (<char *>self.frame)[:self.used]

    @frame_cells.setter
    def frame_cells(self, bytes value):
        self.used = <u32>len(value)
        memcpy(self.frame, <const u8 *>value, self.used)

    def check_state(self, values):
        rings = values["ring_cells"]
        for n in range(QUEUES * RINGS):
            size, next, gen = (int.from_bytes(rings[32 * n + at : 32 * n + at + 8], "little") for at in (8, 16, 24))
            if size > LONGEST_RING or next >= max(size, 1) or gen > 1:
                raise StateError("vmxnet3: a ring that cannot be")
        if any(vector >= VECTORS for vector in values["vector_cells"][: 2 * QUEUES]):
            raise StateError("vmxnet3: there is no such vector")
        if values["active"] and not (values["tx_queues"] and values["rx_queues"]):
            raise StateError("vmxnet3: an active card has queues")

    def settle(self):
        self.irq.set(self.raised)
