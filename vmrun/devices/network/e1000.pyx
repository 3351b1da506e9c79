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

A write to TDT sends at most TURN frames, the rest follows from a timer: no guest keeps the device lock for long.
"""

from libc.string cimport memcpy, memset

from vmrun.devices.network.frames cimport (
    BROADCAST, FCS, MULTICAST, SHORTEST, UNICAST, be16, kind, le16, le32, le64, put_le16,
)
from vmrun.devices.network.intel_tx cimport TXD_IDE, TXD_RPS, TXD_RS, TXD_STAT_DD

from vmrun.core.cells cimport cells

from vmrun.core.state import Bytes, Deadline, Flag, Part, Table, U32, Words
from vmrun.core.eeprom93 import Eeprom93 as _Eeprom93
from vmrun.devices.network.intel_tx import Transmitter as _Transmitter
from vmrun.devices.network.nic import NicTimer as _NicTimer
from vmrun.errors import StateError

cdef enum:                      # registers by number: offset / 4
    CTRL = 0x0000 >> 2
    STATUS = 0x0008 >> 2
    EECD = 0x0010 >> 2
    EERD = 0x0014 >> 2
    MDIC = 0x0020 >> 2
    VET = 0x0038 >> 2
    ICR = 0x00C0 >> 2
    ITR = 0x00C4 >> 2
    ICS = 0x00C8 >> 2
    IMS = 0x00D0 >> 2
    IMC = 0x00D8 >> 2
    RCTL = 0x0100 >> 2
    TCTL = 0x0400 >> 2
    AIT = 0x0458 >> 2
    LEDCTL = 0x0E00 >> 2
    PBA = 0x1000 >> 2
    RDFH = 0x2410 >> 2
    RDBAL = 0x2800 >> 2
    RDBAH = 0x2804 >> 2
    RDLEN = 0x2808 >> 2
    RDH = 0x2810 >> 2
    RDT = 0x2818 >> 2
    RDTR = 0x2820 >> 2
    RADV = 0x282C >> 2
    TDFH = 0x3410 >> 2
    TDBAL = 0x3800 >> 2
    TDBAH = 0x3804 >> 2
    TDLEN = 0x3808 >> 2
    TDH = 0x3810 >> 2
    TDT = 0x3818 >> 2
    TXDCTL = 0x3828 >> 2
    TADV = 0x382C >> 2
    MPC = 0x4010 >> 2
    PRC64 = 0x405C >> 2
    GPRC = 0x4074 >> 2
    BPRC = 0x4078 >> 2
    MPRC = 0x407C >> 2
    GPTC = 0x4080 >> 2
    GORCL = 0x4088 >> 2
    GOTCL = 0x4090 >> 2
    RNBC = 0x40A0 >> 2
    ROC = 0x40AC >> 2
    TORL = 0x40C0 >> 2
    TOTL = 0x40C8 >> 2
    TPR = 0x40D0 >> 2
    TPT = 0x40D4 >> 2
    PTC64 = 0x40D8 >> 2
    MPTC = 0x40F0 >> 2
    BPTC = 0x40F4 >> 2
    TSCTC = 0x40F8 >> 2
    MTA = 0x5200 >> 2
    RA = 0x5400 >> 2
    VFTA = 0x5600 >> 2
    MANC = 0x5820 >> 2
    REGISTERS = 0x8000

cdef enum:
    CTRL_RST = 1 << 26
    CTRL_VME = 1 << 30
    STATUS_LU = 2
    EECD_SK = 1
    EECD_CS = 2
    EECD_DI = 4
    EECD_DO = 8
    EECD_GNT = 0x80
    EECD_PRES = 0x100
    EECD_KEPT = 0x77            # SK, CS, DI, FWE, REQ
    EERD_START = 1
    EERD_DONE = 0x10
    MDIC_WRITE = 1 << 26
    MDIC_READ = 1 << 27
    MDIC_READY = 1 << 28
    MDIC_I = 1 << 29
    MDIC_E = 1 << 30
    INT_TXDW = 0x01
    INT_TXQE = 0x02
    INT_LSC = 0x04
    INT_RXDMT0 = 0x10
    INT_RXO = 0x40
    INT_RXT0 = 0x80
    INT_MDAC = 0x200
    RCTL_EN = 0x02
    RCTL_SBP = 0x04
    RCTL_UPE = 0x08
    RCTL_MPE = 0x10
    RCTL_LPE = 0x20
    RCTL_BAM = 0x8000
    RCTL_VFE = 1 << 18
    RCTL_BSEX = 1 << 25
    RCTL_SECRC = 1 << 26
    TCTL_EN = 2
    RAH_AV = 0x80000000
    RXD_DD = 1
    RXD_EOP = 2
    RXD_IXSM = 4
    RXD_VP = 8
    DESCRIPTOR = 16
    LONGEST = 1522              # of a frame with a tag, while RCTL.LPE is off
    JUMBO = 16384
    # MII
    BMCR = 0
    BMSR = 1
    PHYID2 = 3
    ANLPAR = 5
    BMCR_ANRESTART = 0x0200
    BMCR_AUTOEN = 0x1000
    BMCR_LOOPBACK = 0x4000
    BMSR_LINK = 0x0004
    BMSR_AN_COMP = 0x0020
    ANLPAR_ACK = 0x4000
    # which timer
    AUTONEG_OVER = 0
    MITIGATION_OVER = 1
    RECEIVE_AGAIN = 2
    TRANSMIT_ON = 3
    TURN = 4096                 # frames that one access sends

cdef i64 NEGOTIATION = 500000000            # ns
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
cdef u32 ADDRESS_SHIFT[4]       # of the multicast address, by RCTL.MO
ADDRESS_SHIFT[:] = [4, 3, 2, 0]

# Words 0-2 are the address, 11 and 13 the device id, 63 makes the sum 0xBABA.
_EEPROM = (
    0, 0, 0, 0, 0xFFFF, 0, 0, 0, 0x3000, 0x1000, 0x6403, 0, 0x8086, 0, 0x8086, 0x3040, 0x0008, 0x2000, 0x7E14, 0x0048,
    0x1000, 0x00D8, 0, 0x2700, 0x6CC9, 0x3150, 0x0722, 0x040B, 0x0984, 0, 0xC000, 0x0706, 0x1008, 0, 0x0F04, 0x7FFF,
    0x4D01, *[0xFFFF] * 11, 0x0100, 0x4000, 0x121C, *[0xFFFF] * 12,
)  # fmt: skip
EEPROM_SUM = 0xBABA

def eeprom_words(device_id, address, template=_EEPROM):
    """The 64 words of a card with this id and station address (six bytes)."""
    words = [*template][:63]
    for n in range(3):
        words[n] = address[2 * n] | address[2 * n + 1] << 8
    words[11] = words[13] = device_id
    return [*words, (EEPROM_SUM - sum(words)) & 0xFFFF]

def _fill():
    for offset, count, read, write, needs in _MAP:
        for n in range(offset >> 2, (offset >> 2) + count):
            READS[n], WRITES[n], NEEDS[n] = read, write, needs

_fill()

cdef void _emit(void *owner, u8 *frame, u32 size) noexcept nogil:
    (<E1000>owner).emitted(frame, size)

cdef void _segmented(void *owner) noexcept nogil:
    (<E1000>owner).count(TSCTC)

cdef class E1000(NicChip):
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
        self.autonegotiation = self.mitigation = self.extra = self.tag_type_at_reset = True
        self.eeprom = _Eeprom93(64)
        self.eeprom.words = eeprom_words(device_id, self.address)
        self.tx = _Transmitter()
        self.tx.owner, self.tx.emit, self.tx.segmented = <void *>self, _emit, _segmented
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
        elif self.link_up:
            self.link_registers(True)
            self.phy_cells[ANLPAR] |= ANLPAR_ACK
            self.phy_cells[BMSR] |= BMSR_AN_COMP
            self.cause(INT_LSC)
            self.room()

    # --- link -----------------------------------------------------------------------------------------------

    cdef bint negotiates(self) noexcept nogil:
        return self.autonegotiation and self.phy_cells[BMCR] & BMCR_AUTOEN != 0

    cdef void negotiate(self) noexcept nogil:
        self.link_registers(False)
        self.autoneg_timer.arm(self.clock.now() + NEGOTIATION)

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

    # --- transmit -------------------------------------------------------------------------------------------

    cdef void transmit_ring(self) noexcept nogil:
        """Descriptors from TDH to TDT, at most once around a ring whose registers make no sense."""
        cdef u8 descriptor[DESCRIPTOR]
        cdef u32 first = self.mac[TDH], causes = INT_TXQE, lower
        cdef u64 at
        if not self.mac[TCTL] & TCTL_EN:
            return
        self.transmit_timer.cancel()
        self.tx.emitted = 0
        while self.mac[TDH] != self.mac[TDT]:
            at = (<u64>self.mac[TDBAH] << 32 | self.mac[TDBAL] & 0xFFFFFFF0U) + DESCRIPTOR * <u64>self.mac[TDH]
            self.dma.read_into(at, descriptor, DESCRIPTOR)
            lower = le32(descriptor + 8)
            if lower & TXD_IDE:
                self.delayed_tx = True
            self.tx.process(self.dma, descriptor, self.mac[CTRL] & CTRL_VME != 0, self.mac[VET])
            if lower & (TXD_RS | TXD_RPS):
                descriptor[12] = (descriptor[12] | TXD_STAT_DD) & 0xF1     # no collisions, no underrun
                self.dma.write_from(at + 12, descriptor + 12, 4)
                causes |= INT_TXDW
            self.mac[TDH] += 1
            if self.mac[TDH] * DESCRIPTOR >= self.mac[TDLEN]:
                self.mac[TDH] = 0
            if self.mac[TDH] == first or first >= self.mac[TDLEN] // DESCRIPTOR:
                break
            if self.tx.emitted >= TURN and self.mac[TDH] != self.mac[TDT]:
                self.transmit_timer.arm(self.clock.now())
                causes &= ~<u32>INT_TXQE
                break
        self.cause(causes)

    cdef void emitted(self, u8 *frame, u32 size) noexcept nogil:
        cdef int to = kind(frame)
        if self.phy_cells[BMCR] & BMCR_LOOPBACK:
            if self.ready():
                self.receive(frame, size)
        else:
            self.transmit(frame, size)
        if to == BROADCAST:
            self.count(BPTC)
        elif to == MULTICAST:
            self.count(MPTC)
        self.count_size(PTC64, size + FCS)
        self.count(TPT)
        self.count(GPTC)
        self.count_octets(TOTL, self.tx.size + FCS)
        self.count_octets(GOTCL, self.tx.size + FCS)

    # --- receive --------------------------------------------------------------------------------------------

    cdef u32 buffer_size(self) noexcept nogil:
        cdef u32 code = self.mac[RCTL] >> 16 & 3
        if self.mac[RCTL] & RCTL_BSEX and code:
            return <u32>32768 >> code
        return 2048 if self.mac[RCTL] & RCTL_BSEX else <u32>2048 >> code

    cdef bint has_room(self, u32 octets) noexcept nogil:
        """Whether the descriptors from RDH to RDT hold so many."""
        cdef u32 head = self.mac[RDH], tail = self.mac[RDT], size = self.buffer_size(), free
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

    cdef bint wanted(self, const u8 *frame) noexcept nogil:
        """Whether the filters let a frame through."""
        cdef u32 rctl = self.mac[RCTL], n, tag, low, high
        cdef int to = kind(frame)
        if rctl & RCTL_VFE and be16(frame + 12) == self.mac[VET] & 0xFFFF:
            tag = be16(frame + 14)
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
        if not self.mac[RCTL] & RCTL_SBP and size > (JUMBO if self.mac[RCTL] & RCTL_LPE else LONGEST):
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
            part = min(total - done, self.buffer_size())
            at = (<u64>self.mac[RDBAH] << 32 | self.mac[RDBAL] & 0xFFFFFFF0U) + DESCRIPTOR * <u64>self.mac[RDH]
            self.dma.read_into(at, descriptor, DESCRIPTOR)
            to = le64(descriptor)
            put_le16(descriptor + 14, tag)
            descriptor[12] &= 0xFF & ~RXD_DD
            if to:
                if done < size:
                    copy = min(part, size - done)
                    if skip and done < 12:                      # a buffer has 256 bytes at least
                        self.dma.write_from(to, frame, 12)
                        self.dma.write_from(to + 12, frame + 12 + skip, copy - 12)
                    else:
                        self.dma.write_from(to, frame + done + skip, copy)
                done += part
                put_le16(descriptor + 8, part)
                if done >= total:
                    descriptor[12] |= RXD_EOP | RXD_IXSM
                else:
                    descriptor[12] &= 0xFF & ~RXD_EOP
            self.dma.write_from(at, descriptor, DESCRIPTOR)
            descriptor[12] |= status | RXD_DD                   # last: a driver may look at any time
            self.dma.write_from(at + 12, descriptor + 12, 1)
            self.mac[RDH] += 1
            if self.mac[RDH] * DESCRIPTOR >= self.mac[RDLEN]:
                self.mac[RDH] = 0
            if self.mac[RDH] == first or first >= self.mac[RDLEN] // DESCRIPTOR:
                self.overrun()
                return 1
        self.count_size(PRC64, total)
        self.count(TPR)
        self.count(GPRC)
        self.count_octets(TORL, size + FCS)
        self.count_octets(GORCL, size + FCS)
        causes = INT_RXT0
        tail = self.mac[RDT]
        if tail < self.mac[RDH]:
            tail += self.mac[RDLEN] // DESCRIPTOR
        if (tail - self.mac[RDH]) * DESCRIPTOR <= self.mac[RDLEN] >> ((self.mac[RCTL] >> 8 & 3) + 1):
            causes |= INT_RXDMT0
        self.cause(causes)
        return 1

    # --- state ------------------------------------------------------------------------------------------------

    @property
    def registers(self):
        return cells(self, self.mac, 4 * REGISTERS)

    @property
    def phy(self):
        return self.phy_cells

    @phy.setter
    def phy(self, values):
        self.phy_cells = values

    def check_state(self, values):
        read = values["registers"]
        for n in (RDH, RDT, TDH, TDT):
            if int.from_bytes(read[4 * n : 4 * n + 4], "little") > 0xFFFF:
                raise StateError("e1000: a ring's head or tail has 16 bits")
        for n in (RDLEN, TDLEN):
            if int.from_bytes(read[4 * n : 4 * n + 4], "little") & ~0xFFF80:
                raise StateError("e1000: no length of a ring")

    def settle(self):
        self.irq.set(self.raised)
