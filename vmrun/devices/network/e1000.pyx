"""Intel 82540EM, 82544GC and 82545EM, compiled: the chip alone; e1000_pci.py is its card.

Ref: PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (Intel 317453): registers chapter 13,
descriptors 3.2 and 3.3, interrupts 3.4, PHY 13.4.9 (MDIC), EEPROM 5. Register and bit names are the manual's.
Not modelled: access through the I/O BAR (it reads as 0), wake-up, flow control, ASF, the receive checksum (RXD.IXSM
says that none was made), relative interrupt timers (RDTR only enables RADV), jumbo frames above 16 KiB, the Flash.

Departures, all as guests have met them on qemu-kvm's card:
- after a write to RCTL nothing is received for a second: a driver that enables reception before its interrupt handler is
  there loses the interrupt otherwise (32-bit Windows 10 hangs at boot);
- interrupts that are enabled by a write to IMS come at most every 128 us (`mitigation`), whatever ITR says;
- registers of `extra` (statistics beyond the basic ones, filters for wake-up, packet buffer memory) only store.

A write to TDT does the work of a TURN at most, the rest follows from a timer: no guest keeps the device lock for long.
"""

from libc.string cimport memcpy, memset

from vmrun.devices.network.frames cimport (
    FCS, SHORTEST, be16, le64, put_le16,
)
from vmrun.devices.network.intel_mac cimport (
    BMCR, BMCR_ANRESTART, BMCR_LOOPBACK, CTRL, CTRL_RST, CTRL_VME, DESCRIPTOR, EECD, EERD, ICR, ICS, IMC, IMS,
    INT_MDAC, INT_RXO, INT_RXT0, INT_TXDW, INT_TXQE, ITR, MDIC, MDIC_E, MDIC_I, MDIC_READ, MDIC_READY, MDIC_WRITE,
    MPC, RA, RAH_AV, RCTL, RCTL_EN, RCTL_SECRC, RDBAL, RDH, RDLEN, RDT, REGISTERS, RNBC, ROC, RXD_DD, RXD_EOP,
    RXD_IXSM, RXD_VP, STATUS, STATUS_LU, TCTL, TCTL_EN, TDH, TDT, VET, IntelMac, buffer_size,
)
from vmrun.devices.network.intel_tx cimport TXD_IDE

from vmrun.core.state import Bytes, Deadline, Flag, Part, Table, U32, Words
from vmrun.core.eeprom93 import Eeprom93 as _Eeprom93
from vmrun.devices.network.intel_mac import eeprom_words
from vmrun.devices.network.intel_tx import Transmitter as _Transmitter
from vmrun.devices.network.nic import NicTimer as _NicTimer

cdef enum:                      # registers by number: offset / 4
    LEDCTL = 0x0E00 >> 2
    PBA = 0x1000 >> 2
    RDTR = 0x2820 >> 2
    RADV = 0x282C >> 2
    TADV = 0x382C >> 2
    MANC = 0x5820 >> 2

cdef enum:
    RCTL_SIZES = 0x07FFFFFF     # without the 82574's FLXBUF
    EECD_SK = 1
    EECD_CS = 2
    EECD_DI = 4
    EECD_DO = 8
    EECD_GNT = 0x80
    EECD_PRES = 0x100
    EECD_KEPT = 0x77            # SK, CS, DI, FWE, REQ
    EERD_START = 1
    EERD_DONE = 0x10
    PHYID2 = 3
    # which timer
    AUTONEG_OVER = 0
    MITIGATION_OVER = 1
    RECEIVE_AGAIN = 2
    TRANSMIT_ON = 3

cdef i64 RECEIVE_DELAY = 1000000000
cdef u32 LEAST_DELAY = 500                  # in units of 256 ns: 7,813 interrupts a second

# How a register is read and written, and whether it is there at all.
cdef enum:
    NO = 0
    PLAIN = 1
    CLEARS = 2                  # read: it is 0 afterwards
    CLEARS_PAIR = 3             # and so is the low half before it
    SPECIAL = 4
    LOW4 = 5
    LOW11 = 6
    LOW13 = 7
    LOW16 = 8
    LENGTH = 9
    MITIGATED = 1               # needs
    EXTRA = 2

cdef u8 READS[REGISTERS]
cdef u8 WRITES[REGISTERS]
cdef u8 NEEDS[REGISTERS]

# first offset, count, read, write, needs. Without the extra registers only the first of each table is missing.
_MAP = (
    (0x0000, 1, PLAIN, SPECIAL, 0), (0x0008, 1, PLAIN, NO, 0), (0x0010, 2, SPECIAL, SPECIAL, 0),
    (0x0020, 1, PLAIN, SPECIAL, 0), (0x0038, 1, PLAIN, PLAIN, 0), (0x00C0, 1, SPECIAL, SPECIAL, 0),
    (0x00C4, 1, PLAIN, LOW16, MITIGATED), (0x00C8, 1, PLAIN, SPECIAL, 0), (0x00D0, 1, PLAIN, SPECIAL, 0),
    (0x00D8, 1, NO, SPECIAL, 0), (0x0100, 1, PLAIN, SPECIAL, 0), (0x0400, 1, PLAIN, SPECIAL, 0),
    (0x0458, 1, PLAIN, LOW16, EXTRA), (0x0E00, 1, PLAIN, PLAIN, 0), (0x1000, 1, PLAIN, PLAIN, 0),
    (0x2410, 1, PLAIN, LOW13, EXTRA), (0x2418, 1, PLAIN, LOW13, EXTRA), (0x2420, 1, PLAIN, LOW13, EXTRA),
    (0x2428, 1, PLAIN, LOW13, EXTRA), (0x2430, 1, PLAIN, LOW13, EXTRA), (0x2800, 2, PLAIN, PLAIN, 0),
    (0x2808, 1, PLAIN, LENGTH, 0), (0x2810, 1, PLAIN, LOW16, 0), (0x2818, 1, PLAIN, SPECIAL, 0),
    (0x2820, 1, PLAIN, LOW16, MITIGATED), (0x282C, 1, PLAIN, LOW16, MITIGATED), (0x3410, 1, PLAIN, LOW11, EXTRA),
    (0x3418, 1, PLAIN, LOW11, EXTRA), (0x3420, 1, PLAIN, LOW13, EXTRA), (0x3428, 1, PLAIN, LOW13, EXTRA),
    (0x3430, 1, PLAIN, LOW13, EXTRA), (0x3800, 2, PLAIN, PLAIN, 0), (0x3808, 1, PLAIN, LENGTH, 0),
    (0x3810, 1, PLAIN, LOW16, 0), (0x3818, 1, PLAIN, SPECIAL, 0), (0x3828, 1, PLAIN, PLAIN, 0),
    (0x382C, 1, PLAIN, LOW16, MITIGATED), (0x4000, 5, PLAIN, NO, 0), (0x4014, 6, PLAIN, NO, EXTRA),
    (0x4030, 3, PLAIN, NO, EXTRA), (0x403C, 2, PLAIN, NO, EXTRA), (0x4048, 4, PLAIN, NO, EXTRA),
    (0x4058, 1, PLAIN, PLAIN, EXTRA), (0x405C, 6, CLEARS, NO, EXTRA), (0x4074, 1, CLEARS, NO, 0),
    (0x4078, 2, CLEARS, NO, EXTRA), (0x4080, 1, CLEARS, NO, 0), (0x4088, 1, PLAIN, NO, EXTRA),
    (0x408C, 1, CLEARS_PAIR, NO, EXTRA), (0x4090, 1, PLAIN, NO, EXTRA), (0x4094, 1, CLEARS_PAIR, NO, EXTRA),
    (0x40A0, 1, PLAIN, NO, EXTRA), (0x40A4, 1, CLEARS, NO, EXTRA), (0x40A8, 1, PLAIN, NO, EXTRA),
    (0x40AC, 1, CLEARS, NO, EXTRA), (0x40B0, 4, PLAIN, NO, EXTRA), (0x40C0, 1, PLAIN, NO, 0),
    (0x40C4, 1, CLEARS_PAIR, NO, 0), (0x40C8, 1, PLAIN, NO, 0), (0x40CC, 1, CLEARS_PAIR, NO, 0),
    (0x40D0, 2, CLEARS, NO, 0), (0x40D8, 9, CLEARS, NO, EXTRA), (0x40FC, 1, PLAIN, NO, EXTRA),
    (0x5200, 128, PLAIN, PLAIN, 0), (0x5400, 32, PLAIN, PLAIN, 0), (0x5600, 128, PLAIN, PLAIN, 0),
    (0x5800, 1, PLAIN, PLAIN, EXTRA), (0x5808, 1, PLAIN, PLAIN, 0), (0x5810, 1, PLAIN, PLAIN, EXTRA),
    (0x5820, 1, PLAIN, NO, 0), (0x5838, 1, PLAIN, PLAIN, EXTRA), (0x5840, 1, PLAIN, PLAIN, EXTRA),
    (0x5844, 6, PLAIN, PLAIN, 0), (0x5880, 1, PLAIN, PLAIN, EXTRA), (0x5884, 3, PLAIN, PLAIN, 0),
    (0x5A00, 1, PLAIN, PLAIN, EXTRA), (0x5A04, 31, PLAIN, PLAIN, 0), (0x5B50, 1, PLAIN, PLAIN, 0),
    (0x5F00, 1, PLAIN, LOW11, EXTRA), (0x5F04, 6, PLAIN, LOW11, 0), (0x9000, 1, PLAIN, LOW4, EXTRA),
    (0x9004, 254, PLAIN, LOW4, 0), (0x9800, 1, PLAIN, PLAIN, EXTRA), (0x9804, 254, PLAIN, PLAIN, 0),
    (0x10000, 1, PLAIN, PLAIN, EXTRA), (0x10004, 16383, PLAIN, PLAIN, 0),
)  # fmt: skip

_AT_RESET = {
    CTRL: 0x00140240, STATUS: 0x80080783, LEDCTL: 0x602, PBA: 0x00100030, MANC: 0x00222300,
}
_PHY_AT_RESET = {
    0: 0x1140, 1: 0x794D, 2: 0x0141, 4: 0x0DE1, 5: 0x01E0, 9: 0x0E00, 10: 0x3C00, 16: 0x0360, 17: 0xAC00, 20: 0x0D60,
}
cdef u32 PHY_READS = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 16 | 1 << 17 | 1 << 20 | 1 << 21
cdef u32 PHY_WRITES = 1 | 1 << 4 | 1 << 9 | 1 << 16 | 1 << 20

_EEPROM = (
    0, 0, 0, 0, 0xFFFF, 0, 0, 0, 0x3000, 0x1000, 0x6403, 0, 0x8086, 0, 0x8086, 0x3040, 0x0008, 0x2000, 0x7E14, 0x0048,
    0x1000, 0x00D8, 0, 0x2700, 0x6CC9, 0x3150, 0x0722, 0x040B, 0x0984, 0, 0xC000, 0x0706, 0x1008, 0, 0x0F04, 0x7FFF,
    0x4D01, *[0xFFFF] * 11, 0x0100, 0x4000, 0x121C, *[0xFFFF] * 12,
)  # fmt: skip
def _fill():
    for offset, count, read, write, needs in _MAP:
        for n in range(offset >> 2, (offset >> 2) + count):
            READS[n], WRITES[n], NEEDS[n] = read, write, needs

_fill()

cdef class E1000(IntelMac):
    """128 KiB of registers. `address`: the station's, six bytes, which reset puts into the first receive address."""

    state = Table(
        "e1000", 1,
        Bytes("registers", 4 * REGISTERS), Words("phy", 32, 0xFFFF), U32("eecd", most=EECD_KEPT), Flag("raised"),
        Flag("delayed_tx"), Part("eeprom"), Part("tx"), Deadline("autoneg_timer"), Deadline("mitigation_timer"),
        Deadline("receive_timer"), Deadline("transmit_timer"),
    )
    _, save, load_state = state.methods()

    def __init__(self, dma, irq, timers, address, device_id, phy_id2=0x0C20):
        self.min_access = self.max_access = 4
        self.dma, self.irq, self.clock = dma, irq, timers.clock
        self.address, self.phy_id2 = bytes(address), phy_id2
        self.mitigation = self.extra = True
        self.eeprom = _Eeprom93(64)
        self.eeprom.words = eeprom_words(_EEPROM, device_id, self.address)
        self.tx = _Transmitter()
        self.serve(self.tx)
        self.autoneg_timer = _NicTimer(timers, self, AUTONEG_OVER)
        self.mitigation_timer = _NicTimer(timers, self, MITIGATION_OVER)
        self.receive_timer = _NicTimer(timers, self, RECEIVE_AGAIN)
        self.transmit_timer = _NicTimer(timers, self, TRANSMIT_ON)
        self.reset()

    def reset(self):
        cdef u32 n
        type(self).state.reset(self)
        for n, value in _AT_RESET.items():
            self.mac[n] = value
        for n, value in _PHY_AT_RESET.items():
            self.phy_cells[n] = value
        self.phy_cells[PHYID2] = self.phy_id2
        self.mac[RA] = int.from_bytes(self.address[:4], "little")
        self.mac[RA + 1] = int.from_bytes(self.address[4:], "little")
        self.mac[RA + 1] |= <u32>RAH_AV
        if self.tag_type_at_reset:
            self.mac[VET] = 0x8100
        if not self.link_up:
            self.link_registers(False)
        self.settle()

    def stop(self):
        for timer in (self.autoneg_timer, self.mitigation_timer, self.receive_timer, self.transmit_timer):
            timer.stop()

    # --- registers ------------------------------------------------------------------------------------------

    cdef bint usable(self, u32 n) noexcept nogil:
        return NEEDS[n] == 0 or (self.mitigation if NEEDS[n] == MITIGATED else self.extra)

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u32 n = <u32>(offset >> 2) & (REGISTERS - 1), how = READS[n], value = self.mac[n]
        if how == NO or not self.usable(n):
            return 0
        if how == CLEARS:
            self.mac[n] = 0
        elif how == CLEARS_PAIR:
            self.mac[n] = self.mac[n - 1] = 0
        elif n == ICR:
            self.mac[ICR] = 0
            self.update()
        elif n == EECD:
            value = self.eecd | EECD_PRES | EECD_GNT | (EECD_DO if self.eeprom.out else 0)
        elif n == EERD and value & EERD_START:
            value = value & ~<u32>EERD_START | EERD_DONE
            if value >> 8 < 64:
                value |= <u32>self.eeprom.cells[value >> 8 & 0x3F] << 16
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 wide) noexcept nogil:
        cdef u32 n = <u32>(offset >> 2) & (REGISTERS - 1), how = WRITES[n], value = <u32>wide
        if how == NO or not self.usable(n):
            return 0
        if how == PLAIN:
            self.mac[n] = value
        elif how == LOW16:
            self.mac[n] = value & 0xFFFF
            if n == TDH:
                self.tx.taken = 0
        elif how == LOW13:
            self.mac[n] = value & 0x1FFF
        elif how == LOW11:
            self.mac[n] = value & 0x7FF
        elif how == LOW4:
            self.mac[n] = value & 0xF
        elif how == LENGTH:
            self.mac[n] = value & 0xFFF80
        elif n == CTRL:
            self.mac[CTRL] = value & ~<u32>CTRL_RST
        elif n == EECD:
            self.eecd = value & EECD_KEPT
            self.eeprom.drive(value & EECD_CS != 0, value & EECD_SK != 0, value & EECD_DI != 0)
        elif n == EERD:
            self.mac[EERD] = value
        elif n == MDIC:
            self.mdic(value)
        elif n == ICR:
            self.mac[ICR] &= ~value
            self.update()
        elif n == ICS:
            self.cause(value)
        elif n == IMS:
            self.mac[IMS] |= value
            self.update()
        elif n == IMC:
            self.mac[IMS] &= ~value
            self.update()
        elif n == RCTL:
            self.mac[RCTL] = value
            self.receive_timer.arm(self.clock.now() + RECEIVE_DELAY)
        elif n == RDT:
            self.mac[RDT] = value & 0xFFFF
            if self.has_room(1):
                self.room()
        elif n == TCTL:
            self.mac[TCTL] = value
            self.transmit_ring()
        elif n == TDT:
            self.mac[TDT] = value & 0xFFFF
            self.transmit_ring()
        return 0

    cdef void mdic(self, u32 value) noexcept nogil:
        cdef u32 which = value >> 16 & 31
        if value >> 21 & 31 != 1:                               # there is one PHY, at address 1
            value = self.mac[MDIC] | MDIC_E
        elif value & MDIC_READ:
            value = value & 0xFFFF0000U | self.phy_cells[which] if PHY_READS >> which & 1 else value | MDIC_E
        elif value & MDIC_WRITE:
            if not PHY_WRITES >> which & 1:
                value |= MDIC_E
            elif which == BMCR:
                self.phy_cells[BMCR] = value & 0x7DC0           # reset and restart clear themselves
                if value & BMCR_ANRESTART and self.negotiates():
                    self.negotiate()
            else:
                self.phy_cells[which] = value & 0xFFFF
        self.mac[MDIC] = value | MDIC_READY
        if value & MDIC_I:
            self.cause(INT_MDAC)

    # --- interrupts -----------------------------------------------------------------------------------------

    cdef void cause(self, u32 bits) noexcept nogil:
        self.mac[ICR] |= bits
        self.update()

    cdef void update(self) noexcept nogil:
        """The pin as the registers have it. It rises only once the delay since the last time is over."""
        cdef u32 pending = self.mac[ICR] & self.mac[IMS], delay
        self.mac[ICS] = self.mac[ICR]                           # the same, without clearing: VxWorks reads it there
        if pending and not self.raised:
            if self.mitigation_timer.pending():
                return
            if self.mitigation:
                delay = 0xFFFFFFFF
                if self.delayed_tx and pending & (INT_TXQE | INT_TXDW) and self.mac[TADV]:
                    delay = min(delay, self.mac[TADV] * 4)
                if self.mac[RDTR] and pending & INT_RXT0 and self.mac[RADV]:
                    delay = min(delay, self.mac[RADV] * 4)
                if self.mac[ITR]:
                    delay = min(delay, self.mac[ITR])
                if delay == 0xFFFFFFFFU or delay < LEAST_DELAY:
                    delay = LEAST_DELAY
                self.mitigation_timer.arm(self.clock.now() + <i64>delay * 256)
                self.delayed_tx = False
        self.raised = pending != 0
        self.irq.set(self.raised)

    cdef void timed(self, u32 which) noexcept nogil:
        if which == MITIGATION_OVER:
            self.update()
        elif which == RECEIVE_AGAIN:
            self.room()
        elif which == TRANSMIT_ON:
            self.transmit_ring()
        else:
            self.negotiated()

    # --- transmit -------------------------------------------------------------------------------------------

    cdef void transmit_ring(self) noexcept nogil:
        cdef u32 commands, causes
        if not self.mac[TCTL] & TCTL_EN:
            return
        self.transmit_timer.cancel()
        self.spent = 0
        self.burst(True)
        causes = self.send_ring(self.tx, self.mac, &commands)
        self.burst(False)
        if commands & TXD_IDE:
            self.delayed_tx = True
        self.cause(causes)

    cdef void emitted(self, u8 *frame, u32 size) noexcept nogil:
        if self.phy_cells[BMCR] & BMCR_LOOPBACK:
            self.work(size)
            if self.ready():
                self.receive(frame, size)
        else:
            self.transmit(frame, size)
        self.count_sent(frame, size, self.tx.size)              # octets are without a tag

    # --- receive --------------------------------------------------------------------------------------------

    cdef bint has_room(self, u32 octets) noexcept nogil:
        """Whether the descriptors from RDH to RDT hold so many."""
        cdef u32 head = self.mac[RDH], tail = self.mac[RDT], size = buffer_size(self.mac[RCTL] & RCTL_SIZES), free
        if octets <= size:
            return head != tail
        if head < tail:
            free = tail - head
        elif head > tail:
            free = self.mac[RDLEN] // DESCRIPTOR + tail - head
            if free > 0x10000:
                return True                                     # RDH beyond the ring; the wrap-around is caught
        else:
            return False
        return octets <= <u64>free * size

    cdef void overrun(self) noexcept nogil:
        self.count(RNBC)
        self.count(MPC)
        self.cause(INT_RXO)

    cdef bint ready(self) noexcept nogil:
        return (
            self.mac[STATUS] & STATUS_LU and self.mac[RCTL] & RCTL_EN and self.dma.enabled and self.has_room(1)
            and not self.receive_timer.pending()
        )

    cdef int receive(self, const u8 *frame, u32 size) noexcept nogil:
        cdef u8 padded[SHORTEST]
        cdef u8 descriptor[DESCRIPTOR]
        cdef u8 status = 0
        cdef u32 tag = 0, total, done = 0, part, first, causes, tail, copy, skip = 0, at_frame
        cdef u64 at, to
        if not self.mac[STATUS] & STATUS_LU or not self.mac[RCTL] & RCTL_EN:
            return 1
        if self.receive_timer.pending():
            return 0
        if size < SHORTEST:
            memcpy(padded, frame, size)
            memset(padded + size, 0, SHORTEST - size)
            frame, size = padded, SHORTEST
        if self.too_long(size):
            self.count(ROC)
            return 1
        if not self.wanted(frame):
            return 1
        if self.mac[CTRL] & CTRL_VME and be16(frame + 12) == self.mac[VET] & 0xFFFF:
            tag, status, skip = be16(frame + 14), RXD_VP, 4
        size -= skip                                            # the tag's four bytes at 12 are left out
        total = size + (0 if self.mac[RCTL] & RCTL_SECRC else FCS)
        first = self.mac[RDH]
        if not self.has_room(total):
            self.overrun()
            return 1
        while done < total:
            part = min(total - done, buffer_size(self.mac[RCTL] & RCTL_SIZES))
            at = (<u64>self.mac[RDBAL + 1] << 32 | self.mac[RDBAL] & 0xFFFFFFF0U) + DESCRIPTOR * <u64>self.mac[RDH]
            self.dma.read_into(at, descriptor, DESCRIPTOR)
            to = le64(descriptor)
            put_le16(descriptor + 14, tag)
            if to:
                if done < size:
                    self.put_piece(to, frame, done, min(part, size - done), skip)
                done += part
                put_le16(descriptor + 8, part)
                if done >= total:
                    descriptor[12] |= RXD_EOP | RXD_IXSM
                else:
                    descriptor[12] &= 0xFF & ~RXD_EOP
            descriptor[12] |= status | RXD_DD
            self.dma.write_from(at + 8, descriptor + 8, 8)      # at one go: a driver may look at any time
            self.mac[RDH] += 1
            if self.mac[RDH] * DESCRIPTOR >= self.mac[RDLEN]:
                self.mac[RDH] = 0
            if self.mac[RDH] == first or first >= self.mac[RDLEN] // DESCRIPTOR:
                self.overrun()
                return 1
        self.count_received(total, size)
        self.cause(self.received(self.mac, DESCRIPTOR))
        return 1

    # --- state ------------------------------------------------------------------------------------------------

    @property
    def phy(self):
        return [self.phy_cells[n] for n in range(32)]

    @phy.setter
    def phy(self, values):
        for n in range(32):
            self.phy_cells[n] = values[n]

    def check_state(self, values):
        self.check_rings(values, (0,))

    def settle(self):
        self.irq.set(self.raised)
