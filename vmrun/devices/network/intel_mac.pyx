"""What Intel's gigabit chips share, the 8254x and the 82574: filters, statistics, link and autonegotiation, the walk
along a ring of transmit descriptors, the words of the EEPROM. A chip adds its registers, interrupts and reception.

Ref: PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (Intel 317453): filters 3.2.1,
statistics 13.7, MII 13.4.9, EEPROM 5.6; 82574 data sheet (317694), the same registers in chapter 10.
"""

from vmrun.devices.network.frames cimport BROADCAST, FCS, MULTICAST, UNICAST, be16, kind, le16, le32
from vmrun.devices.network.intel_tx cimport TXD_RPS, TXD_RS, TXD_STAT_DD
from vmrun.devices.network.nic cimport TURN

from vmrun.core.cells cimport cells
from vmrun.errors import StateError

cdef enum:
    LONGEST = 1522              # of a frame with a tag, while RCTL.LPE is off
    JUMBO = 16384
    TAG_AT = 12                 # a VLAN tag is behind the addresses

cdef i64 NEGOTIATION = 500000000            # ns
cdef u32 ADDRESS_SHIFT[4]                   # of the multicast address, by RCTL.MO
ADDRESS_SHIFT[:] = [4, 3, 2, 0]
EEPROM_SUM = 0xBABA


def eeprom_words(template, device_id, address):
    """The 64 words of a card with this id and station address (six bytes): words 0 to 2 are the address, 11 and 13 the
    id, the last makes the sum 0xBABA.
    """
    words = [*template]
    for n in range(3):
        words[n] = address[2 * n] | address[2 * n + 1] << 8
    words[11] = words[13] = device_id
    return [*words, (EEPROM_SUM - sum(words)) & 0xFFFF]


cdef u32 buffer_size(u32 rctl) noexcept nogil:
    """Bytes of a receive buffer, by RCTL's BSIZE, BSEX and (82574) FLXBUF."""
    cdef u32 code = rctl >> 16 & 3, flex = rctl >> 27 & 15
    if flex:
        return flex * 1024
    if rctl & RCTL_BSEX and code:
        return <u32>32768 >> code
    return 2048 if rctl & RCTL_BSEX else <u32>2048 >> code


# A transmitter knows its chip as a borrowed `void *`.
cdef bint _emit(void *owner, u8 *frame, u32 size) noexcept nogil:
    (<IntelMac>owner).emitted(frame, size)
    return (<IntelMac>owner).spent >= TURN


cdef void _segmented(void *owner) noexcept nogil:
    (<IntelMac>owner).count(TSCTC)


cdef class IntelMac(NicChip):
    """A chip gives `cause`, `emitted`, and what every NicChip gives; it makes the timers."""

    def __cinit__(self, *args, **kwargs):
        self.autonegotiation = self.tag_type_at_reset = True

    cdef void serve(self, Transmitter tx):
        """Frames of this transmitter are the chip's."""
        tx.owner, tx.emit, tx.segmented = <void *>self, _emit, _segmented

    cdef void cause(self, u32 bits) noexcept nogil:
        """Causes of an interrupt, of ICR."""

    cdef void emitted(self, u8 *frame, u32 size) noexcept nogil:
        """A transmitter's frame."""

    # --- link -----------------------------------------------------------------------------------------------

    cdef bint negotiates(self) noexcept nogil:
        return self.autonegotiation and self.phy_cells[BMCR] & BMCR_AUTOEN != 0

    cdef void negotiate(self) noexcept nogil:
        self.link_registers(False)
        self.autoneg_timer.arm(self.clock.now() + NEGOTIATION)

    cdef void negotiated(self) noexcept nogil:
        """The time of a negotiation is over."""
        if not self.link_up:
            return
        self.link_registers(True)
        self.phy_cells[ANLPAR] |= ANLPAR_ACK
        self.phy_cells[BMSR] |= BMSR_AN_COMP
        self.cause(INT_LSC)
        self.room()

    cdef void link_registers(self, bint up) noexcept nogil:
        if up:
            self.mac[STATUS] |= STATUS_LU
            self.phy_cells[BMSR] |= BMSR_LINK
        else:
            self.mac[STATUS] &= ~<u32>STATUS_LU
            self.phy_cells[BMSR] &= 0xFFFF & ~(BMSR_LINK | BMSR_AN_COMP)
            self.phy_cells[ANLPAR] &= 0xFFFF & ~ANLPAR_ACK

    cdef void link_changed(self) noexcept nogil:
        cdef u32 before = self.mac[STATUS]
        if not self.link_up:
            self.link_registers(False)
        elif self.negotiates() and not self.phy_cells[BMSR] & BMSR_AN_COMP:
            self.negotiate()
        else:
            self.link_registers(True)
            self.room()
        if self.mac[STATUS] != before:
            self.cause(INT_LSC)

    # --- statistics -----------------------------------------------------------------------------------------

    cdef void count(self, u32 n) noexcept nogil:
        if self.mac[n] != 0xFFFFFFFFU:
            self.mac[n] += 1

    cdef void count_octets(self, u32 low, u32 octets) noexcept nogil:
        cdef u64 sum = self.mac[low] | <u64>self.mac[low + 1] << 32
        sum = sum + octets if sum + octets >= sum else <u64>-1
        self.mac[low] = <u32>sum
        self.mac[low + 1] = <u32>(sum >> 32)

    cdef void count_size(self, u32 first, u32 octets) noexcept nogil:
        """One of six counters: 64, 65-127, 128-255, 256-511, 512-1023 and more octets; shorter ones count nowhere."""
        if octets > 1023:
            self.count(first + 5)
        elif octets > 511:
            self.count(first + 4)
        elif octets > 255:
            self.count(first + 3)
        elif octets > 127:
            self.count(first + 2)
        elif octets > 64:
            self.count(first + 1)
        elif octets == 64:
            self.count(first)

    cdef void count_sent(self, const u8 *frame, u32 size, u32 octets) noexcept nogil:
        """A frame of `size` bytes, which counts as so many octets."""
        cdef int to = kind(frame)
        if to == BROADCAST:
            self.count(BPTC)
        elif to == MULTICAST:
            self.count(MPTC)
        self.count_size(PTC64, size + FCS)
        self.count(TPT)
        self.count(GPTC)
        self.count_octets(TOTL, octets + FCS)
        self.count_octets(GOTCL, octets + FCS)

    cdef void count_received(self, u32 total, u32 octets) noexcept nogil:
        """A frame of `total` bytes in memory, of so many octets without the FCS on the wire."""
        self.count_size(PRC64, total)
        self.count(TPR)
        self.count(GPRC)
        self.count_octets(TORL, octets + FCS)
        self.count_octets(GORCL, octets + FCS)

    # --- transmit -------------------------------------------------------------------------------------------

    cdef u32 send_ring(self, Transmitter tx, u32 *ring, u32 *commands) noexcept nogil:
        """Descriptors from TDH to TDT, at most once around a ring whose registers make no sense; the causes. `ring`: the
        registers, shifted for other rings than the first. `commands`: what bits the descriptors' commands had. What a turn
        leaves over follows from a timer, unless the ring makes no sense.
        """
        cdef u8 descriptor[DESCRIPTOR]
        cdef u32 first = ring[TDH], causes = INT_TXQE, lower
        cdef bint vlan = self.mac[CTRL] & CTRL_VME != 0
        cdef u64 at
        commands[0] = 0
        while ring[TDH] != ring[TDT]:
            at = (<u64>ring[TDBAL + 1] << 32 | ring[TDBAL] & 0xFFFFFFF0U) + DESCRIPTOR * <u64>ring[TDH]
            self.dma.read_into(at, descriptor, DESCRIPTOR)
            lower = le32(descriptor + 8)
            commands[0] |= lower
            self.spent += 1
            if tx.place != at:
                tx.place, tx.taken = at, 0
            if not tx.process(self.dma, descriptor, vlan, self.mac[VET]):
                self.send_later(ring)
                return causes & ~<u32>INT_TXQE
            if lower & (TXD_RS | TXD_RPS):
                descriptor[12] = (descriptor[12] | TXD_STAT_DD) & 0xF1     # no collisions, no underrun
                self.dma.write_from(at + 12, descriptor + 12, 4)
                causes |= INT_TXDW
            ring[TDH] += 1
            if ring[TDH] * DESCRIPTOR >= ring[TDLEN]:
                ring[TDH] = 0
            if ring[TDH] == first or first >= ring[TDLEN] // DESCRIPTOR:
                break
            if self.spent >= TURN and ring[TDH] != ring[TDT]:
                self.send_later(ring)
                return causes & ~<u32>INT_TXQE
        return causes

    cdef void send_later(self, u32 *ring) noexcept nogil:
        if ring[TDT] * DESCRIPTOR < ring[TDLEN]:                # else it would never come to its end
            self.transmit_timer.arm(self.clock.now())

    # --- receive --------------------------------------------------------------------------------------------

    cdef bint too_long(self, u32 size) noexcept nogil:
        return not self.mac[RCTL] & RCTL_SBP and size > <u32>(JUMBO if self.mac[RCTL] & RCTL_LPE else LONGEST)

    cdef bint wanted(self, const u8 *frame) noexcept nogil:
        """Whether the filters let a frame through."""
        cdef u32 rctl = self.mac[RCTL], n, tag, low, high
        cdef int to = kind(frame)
        if rctl & RCTL_VFE and be16(frame + TAG_AT) == self.mac[VET] & 0xFFFF:
            tag = be16(frame + TAG_AT + 2)
            if not self.mac[VFTA + (tag >> 5 & 127)] >> (tag & 31) & 1:
                return False
        if to == UNICAST and rctl & RCTL_UPE:
            return True
        if to != UNICAST and rctl & RCTL_MPE:
            self.count(MPRC)
            return True
        if to == BROADCAST and rctl & RCTL_BAM:
            self.count(BPRC)
            return True
        low, high = le32(frame), le16(frame + 4)
        for n in range(RA, RA + 32, 2):
            if self.mac[n + 1] & RAH_AV and self.mac[n] == low and self.mac[n + 1] & 0xFFFF == high:
                return True
        n = high >> ADDRESS_SHIFT[rctl >> 12 & 3] & 0xFFF
        if self.mac[MTA + (n >> 5)] >> (n & 31) & 1:
            self.count(MPRC)
            return True
        return False

    cdef void put_piece(self, u64 to, const u8 *frame, u32 at, u32 count, u32 skip) noexcept nogil:
        """`count` bytes from `at` on into the guest's memory, of the frame without `skip` bytes of a tag."""
        cdef u32 before = min(count, TAG_AT - at) if skip and at < TAG_AT else 0
        if before:
            self.dma.write_from(to, frame + at, before)
        if count > before:
            self.dma.write_from(to + before, frame + at + before + skip, count - before)

    cdef u32 received(self, const u32 *ring, u32 step) noexcept nogil:
        """The causes after a frame: that it came, and that free descriptors are below RCTL's threshold."""
        cdef u32 tail = ring[RDT]
        if tail < ring[RDH]:
            tail += ring[RDLEN] // step
        if (tail - ring[RDH]) * step <= ring[RDLEN] >> ((self.mac[RCTL] >> 8 & 3) + 1):
            return INT_RXT0 | INT_RXDMT0
        return INT_RXT0

    # --- state ------------------------------------------------------------------------------------------------

    @property
    def registers(self):
        return cells(self, self.mac, 4 * REGISTERS)

    def check_rings(self, values, rings):
        """StateError for what a ring's registers (offsets by number, 0 the first ring's) cannot hold."""
        read = values["registers"]
        for ring in rings:
            for n in (RDH, RDT, TDH, TDT):
                if int.from_bytes(read[4 * (ring + n) : 4 * (ring + n) + 4], "little") > 0xFFFF:
                    raise StateError(f"{type(self).state.kind}: a ring's head or tail has 16 bits")
            for n in (RDLEN, TDLEN):
                if int.from_bytes(read[4 * (ring + n) : 4 * (ring + n) + 4], "little") & ~0xFFF80:
                    raise StateError(f"{type(self).state.kind}: no length of a ring")
