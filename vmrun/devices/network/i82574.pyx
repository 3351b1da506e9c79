"""Intel 82574L, compiled: the chip alone; e1000e_pci.py is its card.

Ref: 82574 GbE Controller Family data sheet (Intel 317694): receive 7.1 (descriptors 7.1.4 to 7.1.5, header split
7.1.10, RSS 7.1.12, checksums 7.1.14), transmit 7.2, interrupts 7.4, registers chapter 10, NVM chapter 6; PHY 10.2.2.
Register and bit names are the data sheet's.
Not modelled: wake-up, flow control, the Flash, manageability, IEEE 1588 time stamps, jumbo frames above 16 KiB, SPI by hand (EECD);
delays by TIDV, TADV, RDTR and RADV (ITR and EITR hold interrupts apart), hashes over IPv6 extension headers.

INT_ASSERTED stays until ICR is cleared: a driver that reads ICR after a message's masks were set by themselves finds it,
and the causes go. A write to TDT does the work of a TURN at most, the rest follows from a timer.
"""

from libc.string cimport memcpy, memset

from vmrun.devices.network.frames cimport (
    FCS, SHORTEST, be16, le64, put_le16, put_le32,
)
from vmrun.devices.network.layers cimport (
    TCP, UDP, Layers, header_sum_right, look, toeplitz, transport_sum_right,
)
from vmrun.devices.network.intel_mac cimport (
    BMCR, BMCR_ANRESTART, BMCR_AUTOEN, BMCR_LOOPBACK, CTRL, CTRL_RST, CTRL_VME, EECD, EERD, GORCL, GOTCL, ICR, ICS,
    IMC, IMS, INT_LSC, INT_MDAC, INT_RXO, INT_TXDW, ITR, MDIC, MDIC_E, MDIC_I, MDIC_READ, MDIC_READY, MDIC_WRITE,
    MPC, PHY_PAGES, QUEUE, RA, RAH_AV, RCTL, RCTL_EN, RCTL_SECRC, RDBAL, RDH, RDLEN, RDT, REGISTERS, RNBC, ROC, RXD_DD,
    RXD_EOP, RXD_IXSM, RXD_VP, STATUS, STATUS_LU, TCTL, TCTL_EN, TDH, TDLEN, TDT, TORL, TOTL, VET, IntelMac,
    buffer_size,
)

from vmrun.core.state import KEEP, Bytes, Deadline, Flag, Part, Table, U32, Words
from vmrun.devices.network.intel_mac import eeprom_words
from vmrun.devices.network.intel_tx import Transmitter as _Transmitter
from vmrun.devices.network.nic import NicTimer as _NicTimer

cdef enum:                      # registers by number: offset / 4
    CTRL_DUP = 0x0004 >> 2
    CTRL_EXT = 0x0018 >> 2
    EIAC = 0x00DC >> 2
    IAM = 0x00E0 >> 2
    IVAR = 0x00E4 >> 2
    EITR = 0x00E8 >> 2
    PSRCTL = 0x2170 >> 2
    RSRPD = 0x2C00 >> 2
    STATISTICS_END = 0x4128 >> 2
    RXCSUM = 0x5000 >> 2
    RFCTL = 0x5008 >> 2
    MRQC = 0x5818 >> 2
    SWSM = 0x5B50 >> 2
    RETA = 0x5C00 >> 2
    RSSRK = 0x5C80 >> 2

cdef enum:
    CTRL_FD = 1
    CTRL_FRCSPD = 1 << 11
    CTRL_FRCDPX = 1 << 12
    STATUS_FD = 1
    STATUS_SPEED = 3 << 6       # CTRL's is two bits higher
    GIGABIT = 2 << 6
    EXT_EIAME = 1 << 24
    EXT_IAME = 1 << 27
    STATUS_PHYRA = 0x400
    EECD_REQ = 0x40
    EECD_GNT = 0x80
    EECD_PRES = 0x100
    EECD_AUTO_RD = 0x200
    EERD_START = 1
    EERD_DONE = 2
    INT_SRPD = 0x10000
    INT_RXQ0 = 1 << 20
    INT_TXQ0 = 1 << 22
    INT_OTHER = 1 << 24
    OTHERS = INT_LSC | INT_RXO | INT_MDAC | INT_SRPD | 1 << 17 | 1 << 18
    QUEUES = 0x1F << 20         # the causes that have vectors
    RCTL_DTYP_PS = 0x400
    RFCTL_EXTEN = 0x8000
    IPOFL = 0x100
    TUOFL = 0x200
    PCSD = 0x2000
    # status of a received frame, and its errors (extended place)
    RXD_UDPCS = 0x10
    RXD_TCPCS = 0x20
    RXD_IPCS = 0x40
    RXD_IPIDV = 0x200
    RXD_TCPE = 1 << 29
    RXD_IPE = 1 << 30
    HDRSP = 0x8000
    PAGE = 22
    BMCR_RESET = 0x8000
    BMCR_RETAINED = 0x3140      # by that reset: speed, autonegotiation, duplex
    # which timer
    AUTONEG_OVER = 0
    ITR_OVER = 1
    TRANSMIT_ON = 2
    EITR_OVER = 3

cdef u32 INT_ASSERTED = 0x80000000U

# Bits of each register that a write changes; what is not named reads as 0 and stays so.
cdef u32 WRITABLE[REGISTERS]
cdef u16 ALIAS[0x400 >> 1]                  # of the first 2 KiB: names of old for rings' registers
_MASKS = (
    (0x0000, 1, 0xFFFFFFFF), (0x0018, 1, 0xFFFFCFFF), (0x001C, 1, 0xFFFFFFFF), (0x0028, 1, 0xFFFFFFFF), (0x002C, 2, 0xFFFF), (0x0038, 1, 0xFFFF),
    (0x00C4, 1, 0xFFFF), (0x00DC, 3, 0xFFFFFFFF), (0x00E8, 5, 0xFFFF), (0x0100, 1, 0xFFFFFFFF), (0x0160, 1, 0xFFF8),
    (0x0168, 1, 0x8000FFF8), (0x0170, 1, 0xFFFF), (0x0400, 1, 0xFFFFFFFF), (0x0410, 1, 0xFFFFFFFF), (0x0458, 1, 0xFFFF), (0x0E00, 1, 0xFFFFFFFF),
    (0x0F00, 1, 0xFFFFFFFF), (0x0F08, 1, 0xFFFFFFFF), (0x0F10, 1, 0xFFFFFFFF), (0x1000, 1, 0xFFFFFFFF), (0x1008, 1, 0x3F),
    (0x1010, 1, 0xFFFFFFFF), (0x1028, 1, 0xFFFF), (0x1030, 4, 0xFFFFFFFF), (0x1050, 1, 0xFFFFFFFF), (0x2160, 1, 0x8000FFF8), (0x2168, 1, 0xFFF8),
    (0x2170, 1, 0xFFFFFFFF), (0x2410, 1, 0x1FFF), (0x2418, 1, 0x1FFF), (0x2420, 1, 0x1FFF), (0x2428, 1, 0x1FFF), (0x2430, 1, 0x1FFF),
    (0x2820, 1, 0xFFFF), (0x282C, 1, 0xFFFF), (0x2C00, 1, 0xFFF), (0x2C08, 1, 0xFFFF), (0x3410, 1, 0x1FFF), (0x3418, 1, 0x1FFF), (0x3420, 1, 0x1FFF),
    (0x3428, 1, 0x1FFF), (0x3430, 1, 0x1FFF), (0x382C, 1, 0xFFFF), (0x3820, 1, 0xFFFF), (0x3840, 1, 0x780007FF), (0x3940, 1, 0x780007FF), (0x4058, 1, 0xFFFFFFFF),
    (0x5000, 1, 0xFFFFFFFF), (0x5008, 1, 0xFFFFFFFF), (0x5010, 4, 0xFFFFFFFF), (0x5200, 160, 0xFFFFFFFF), (0x5600, 129, 0xFFFFFFFF),
    (0x5808, 1, 0xFFFFFFFF), (0x5810, 1, 0xFFFFFFFF), (0x5818, 1, 0xFFFFFFFF), (0x5820, 3, 0xFFFFFFFF), (0x5830, 1, 0xFFFFFFFF), (0x5838, 1, 0xFFFFFFFF),
    (0x5840, 7, 0xFFFFFFFF), (0x5860, 1, 0xFFFFFFFF), (0x5880, 12, 0xFFFFFFFF), (0x5A00, 32, 0xFFFFFFFF), (0x5B00, 1, 0xF97FFFFF), (0x5B08, 1, 0xFFFFFFFF),
    (0x5B10, 9, 0xFFFFFFFF), (0x5B50, 1, 0xFFFFFFFF), (0x5B64, 1, 0xFFFFFFFF), (0x5B68, 1, 0x1F), (0x5C00, 64, 0xFFFFFFFF), (0x5F00, 11, 0x7FF),
    (0x5F40, 1, 0xFFFF),
    *((ring + at, 1, mask) for ring in (0x2800, 0x2900, 0x3800, 0x3900)
      for at, mask in ((0, 0xFFFFFFF0), (4, 0xFFFFFFFF), (8, 0xFFF80), (0x10, 0xFFFF), (0x18, 0xFFFF), (0x28, 0xFFFFFFFF))),
)  # fmt: skip
_ALIASES = {
    0x0108: 0x2820, 0x0110: 0x2800, 0x0114: 0x2804, 0x0118: 0x2808, 0x0120: 0x2810, 0x0128: 0x2818,
    0x0420: 0x3800, 0x0424: 0x3804, 0x0428: 0x3808, 0x0430: 0x3810, 0x0438: 0x3818,
    **{n: n - 0x40 + 0x5400 for n in range(0x40, 0xC0, 4)}, **{n: n - 0x600 + 0x5600 for n in range(0x600, 0x800, 4)},
}  # fmt: skip
_AT_RESET = {
    0x0000: 0x140241, 0x0008: 0x80283, 0x0010: 0x300, 0x0014: 2, 0x0410: 0x602008, 0x0E00: 0x68302, 0x0F00: 8, 0x0F10: 0x30D, 0x1000: 0x140014, 0x1008: 0x28,
    0x1010: 0x80000000, 0x1028: 2, 0x102C: 2, 0x1030: 0xC0000000, 0x1050: 1, 0x2170: 0x40402, 0x2828: 0x10000, 0x2928: 0x10000, 0x3410: 0x600, 0x3418: 0x600,
    0x3420: 0x600, 0x3428: 0x600, 0x3840: 0x403, 0x3940: 0x403, 0x5000: 0x300, 0x5820: 0x10000000, 0x5B00: 0x6800200, 0x5B30: 0x20000004, 0x5B50: 1,
}  # fmt: skip
cdef u32 RESET_VALUES[REGISTERS]

# The PHY: registers that are there (0 to 15 are the same on all pages), their values after reset, those that take writes.
_PHY_AT_RESET = {
    (0, 0): 0x1140, (0, 1): 0x794D, (0, 2): 0x0141, (0, 3): 0x0CB1, (0, 4): 0x0DE1, (0, 5): 0x07E0, (0, 6): 4, (0, 7): 0x2001, (0, 8): 0,
    (0, 9): 0x0F00, (0, 10): 0x3C00, (0, 15): 0x3000, (0, 16): 0x3360, (0, 17): 0xAC08, (0, 18): 0, (0, 19): 0, (0, 20): 0, (0, 21): 0, (0, 22): 0, (0, 25): 0,
    (0, 26): 0, (0, 29): 0, (0, 30): 0, (2, 16): 0x88, (2, 18): 0, (2, 19): 0, (2, 21): 0x1046, (3, 16): 0, (3, 17): 0, (3, 18): 0x4005, (3, 19): 0,
    (5, 20): 0, (5, 21): 0, (6, 17): 0,
}  # fmt: skip
_PHY_READ_ONLY = {(0, 1), (0, 2), (0, 3), (0, 5), (0, 6), (0, 8), (0, 10), (0, 15), (0, 17), (0, 19), (0, 21)}
cdef u16 PHY_RESET[PHY_PAGES * 32]
cdef u8 PHY_HOW[PHY_PAGES * 32]                 # 0: not there, 1: read only, 2: written too

DEVICE_ID = 0x10D3
_NVM = (
    0, 0, 0, 0x0420, 0xF746, 0x2010, 0xFFFF, 0xFFFF, 0, 0, 0x026B, 0x10D3, 0x8086, 0x10D3, 0, 0x8058, 0, 0x2001, 0x7E7C, 0xFFFF,
    0x1000, 0x00C8, 0, 0x2704, 0x6CC9, 0x3150, 0x070E, 0x460B, 0x2D84, 0x0100, 0xF000, 0x0706, 0x6000, 0x0080, 0x0F04, 0x7FFF,
    0x4F01, 0xC600, 0, 0x20FF, 0x0028, 3, 0, 0, 0, 3, 0, 0xFFFF, 0x0100, 0xC000, 0x121C, 0xC007, *[0xFFFF] * 8, 0, 0x0120, 0xFFFF,
)  # fmt: skip
def _fill():
    for offset, count, mask in _MASKS:
        for n in range(offset >> 2, (offset >> 2) + count):
            WRITABLE[n] = mask
    for n in range(0x400 >> 1):
        ALIAS[n] = n
    for one, other in _ALIASES.items():
        ALIAS[one >> 2] = other >> 2
    for offset, value in _AT_RESET.items():
        RESET_VALUES[offset >> 2] = value
    for (page, number), value in _PHY_AT_RESET.items():
        PHY_RESET[32 * page + number] = value
        PHY_HOW[32 * page + number] = 1 if (page, number) in _PHY_READ_ONLY else 2


_fill()


cdef class I82574(IntelMac):
    """128 KiB of registers. `address`: the station's, six bytes, which reset puts into the first receive address. `msix`
    and `msi` are set by the glue."""

    state = Table(
        "i82574", 1,
        Bytes("registers", 4 * REGISTERS), Words("phy", PHY_PAGES * 32, 0xFFFF), Words("nvm", 64, 0xFFFF, KEEP), Flag("raised"),
        U32("fresh"), U32("ioaddr"), U32("sending", most=3), Part("tx0"), Part("tx1"), Deadline("autoneg_timer"), Deadline("itr_timer"),
        Deadline("transmit_timer"),
    )  # fmt: skip
    _, save, load_state = state.methods()

    def __init__(self, dma, irq, timers, address):
        self.min_access = self.max_access = 4
        self.dma, self.irq, self.clock = dma, irq, timers.clock
        self.address = bytes(address)
        memcpy(self.station, <const u8 *><bytes>self.address, 6)
        for n, word in enumerate(eeprom_words(_NVM, DEVICE_ID, self.address)):
            self.nvm[n] = word
        self.tx0, self.tx1 = _Transmitter(), _Transmitter()
        self.serve(self.tx0)
        self.serve(self.tx1)
        self.autoneg_timer = _NicTimer(timers, self, AUTONEG_OVER)
        self.itr_timer = _NicTimer(timers, self, ITR_OVER)
        self.transmit_timer = _NicTimer(timers, self, TRANSMIT_ON)
        self.eitr_timer = _NicTimer(timers, self, EITR_OVER)
        self.reset()

    def reset(self):
        type(self).state.reset(self)
        self.phy_reset()
        self.clear()
        self.settle()

    def stop(self):
        for timer in (self.autoneg_timer, self.itr_timer, self.transmit_timer, self.eitr_timer):
            timer.stop()

    cdef void clear(self) noexcept nogil:
        """A reset of the MAC, by CTRL.RST or the bus."""
        self.autoneg_timer.cancel()
        self.itr_timer.cancel()
        self.transmit_timer.cancel()
        self.eitr_timer.cancel()
        memset(self.until, 0, sizeof(self.until))
        memcpy(self.mac, RESET_VALUES, sizeof(self.mac))
        self.raised, self.fresh = False, 0
        self.tx0.taken = self.tx1.taken = 0
        memcpy(&self.mac[RA], self.station, 6)
        self.mac[RA + 1] = self.mac[RA + 1] & 0xFFFF | RAH_AV
        if self.tag_type_at_reset:
            self.mac[VET] = 0x8100
        self.link_registers(self.link_up)
        self.irq.set(False)

    # --- registers ------------------------------------------------------------------------------------------

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.get(<u32>(offset >> 2) & (REGISTERS - 1))

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        self.put(<u32>(offset >> 2) & (REGISTERS - 1), <u32>value)
        return 0

    cdef u32 get(self, u32 n) noexcept nogil:
        cdef u32 value
        if n < 0x400 >> 1:
            n = ALIAS[n]
        value = self.mac[n]
        if n == CTRL_DUP:
            value = self.mac[CTRL]
        elif n == ICR:
            if self.mac[IMS] == 0 or value & INT_ASSERTED:
                if value & INT_ASSERTED and self.mac[CTRL_EXT] & EXT_IAME:
                    self.mac[IMS] &= ~self.mac[IAM]
                self.mac[ICR] = 0
                self.update()
        elif n == ICS:
            value = self.mac[ICR]
        elif n == IMC:
            value = self.mac[IMS]
        elif n == SWSM:
            self.mac[SWSM] |= 1                                 # who reads SMBI as 0 has it
        elif MPC - 4 <= n < STATISTICS_END:
            if n == TORL + 1 or n == TOTL + 1 or n == GORCL + 1 or n == GOTCL + 1:
                self.mac[n] = self.mac[n - 1] = 0
            elif n != TORL and n != TOTL and n != GORCL and n != GOTCL:
                self.mac[n] = 0
        return value

    cdef void put(self, u32 n, u32 value) noexcept nogil:
        cdef u32 before
        if n < 0x400 >> 1:
            n = ALIAS[n]
        if n == CTRL or n == CTRL_DUP:
            if value & CTRL_RST:
                self.clear()
                self.room()
                return
            if value >> 31:                                     # PHY_RST
                self.phy_reset()
                self.link_registers(self.link_up)
            self.mac[CTRL] = value & 0x7FFFFFFF
            self.settle_speed()
        elif n == STATUS:
            self.mac[STATUS] &= value | ~<u32>STATUS_PHYRA
        elif n == EECD:
            self.mac[EECD] = value & 0x3E7F | EECD_PRES | EECD_AUTO_RD | (EECD_GNT if value & EECD_REQ else 0)
        elif n == EERD:
            if value & EERD_START:
                value = value & 0xFFFC | EERD_DONE | (<u32>self.nvm[value >> 2 & 63] << 16 if value >> 2 & 0x3FFF < 64 else 0)
            self.mac[EERD] = value
        elif n == MDIC:
            self.mdic(value)
        elif n == ICR:
            if self.mac[ICR] & INT_ASSERTED and self.mac[CTRL_EXT] & EXT_IAME:
                self.mac[IMS] &= ~self.mac[IAM]
            self.mac[ICR] &= ~value
            if not self.mac[ICR] & ~INT_ASSERTED:
                self.mac[ICR] = 0
            self.update()
        elif n == ICS:
            self.cause(value & ~INT_ASSERTED)
        elif n == IMS:
            before = self.mac[IMS]
            self.mac[IMS] |= value & 0x01F7FFFF
            self.fresh |= self.mac[ICR] & self.mac[IMS] & ~before
            self.update()
        elif n == IMC:
            self.mac[IMS] &= ~value
            self.update()
        elif n == RCTL:
            self.mac[RCTL] = value
            if value & RCTL_EN:
                self.room()
        elif n == TCTL:
            self.mac[TCTL] = value
            self.transmit_rings()
        else:
            self.mac[n] = self.mac[n] & ~WRITABLE[n] | value & WRITABLE[n]
            if n == RDT or n == RDT + QUEUE:
                self.room()
            elif n == TDT or n == TDT + QUEUE:
                self.transmit_rings()
            elif n == TDH:
                self.tx0.taken = 0
            elif n == TDH + QUEUE:
                self.tx1.taken = 0

    def peek(self, u32 offset):
        """A register, as an access through the I/O BAR reads it."""
        return self.get(offset >> 2 & (REGISTERS - 1))

    def poke(self, u32 offset, u32 value):
        self.put(offset >> 2 & (REGISTERS - 1), value)

    cdef u32 phy_place(self, u32 which) noexcept nogil:
        """Registers 0 to 15 are the same on every page."""
        return which if which < 16 else (self.phy_cells[PAGE] & (PHY_PAGES - 1)) * 32 + which

    cdef void phy_reset(self) noexcept nogil:
        memcpy(self.phy_cells, PHY_RESET, sizeof(self.phy_cells))

    cdef void mdic(self, u32 value) noexcept nogil:
        cdef u32 which = value >> 16 & 31, place = self.phy_place(which)
        if which == PAGE:
            place = PAGE
        if value >> 21 & 31 != 1 or not PHY_HOW[place]:         # there is one PHY, at address 1
            value |= MDIC_E
        elif value & MDIC_READ:
            value = value & 0xFFFF0000U | self.phy_cells[place]
        elif value & MDIC_WRITE:
            if PHY_HOW[place] == 1:
                value |= MDIC_E
            elif which == BMCR:
                if value & BMCR_RESET:                          # drivers end with it what they set before: that stays
                    self.phy_cells[BMCR] = value & BMCR_RETAINED
                    self.link_registers(self.link_up)
                else:
                    self.phy_cells[BMCR] = value & 0x7DC0       # restart clears itself
                    if value & BMCR_ANRESTART and value & BMCR_AUTOEN:
                        self.negotiate()
            else:
                self.phy_cells[place] = value & 0xFFFF
        else:
            value |= MDIC_E
        self.mac[MDIC] = value | MDIC_READY
        if value & MDIC_I:
            self.cause(INT_MDAC)

    # --- interrupts -----------------------------------------------------------------------------------------

    cdef void cause(self, u32 bits) noexcept nogil:
        if bits & OTHERS:
            bits |= INT_OTHER
        self.mac[ICR] |= bits
        self.fresh |= bits
        self.update()

    cdef void update(self) noexcept nogil:
        """Messages, or the pin, as the registers have it; held apart by ITR and EITR."""
        cdef u32 pending = self.mac[ICR] & self.mac[IMS]
        self.fresh &= self.mac[ICR]
        if pending:
            self.mac[ICR] |= INT_ASSERTED
        if self.msix is not None and self.msix.enabled():
            if self.fresh & self.mac[IMS]:
                self.messages()
            return
        if pending and not self.raised:
            if self.itr_timer.pending():
                return
            if self.mac[ITR]:
                self.itr_timer.arm(self.clock.now() + <i64>self.mac[ITR] * 256)
            if self.msi is not None and self.msi.enabled():
                self.msi.notify(0)
        self.raised = pending != 0
        self.fresh = 0
        if self.msi is None or not self.msi.enabled():
            self.irq.set(self.raised)

    cdef void messages(self) noexcept nogil:
        """Causes of queues and others go to the vectors that IVAR says; those in EIAC clear themselves."""
        cdef u32 n, bit, entry, vector
        cdef i64 now = self.clock.now(), next = 0
        for n in range(5):                                      # RXQ0, RXQ1, TXQ0, TXQ1, OTHER
            bit = <u32>INT_RXQ0 << n
            if not self.fresh & self.mac[IMS] & self.mac[ICR] & bit:
                continue
            entry = self.mac[IVAR] >> 4 * n & 15
            vector = entry & 7
            if not entry & 8 or vector >= VECTORS:
                self.fresh &= ~bit
                continue
            if now < self.until[vector]:
                next = self.until[vector] if not next else min(next, self.until[vector])
                continue
            self.fresh &= ~bit
            self.until[vector] = now + <i64>self.mac[EITR + vector] * 256
            self.msix.notify(vector)
            if self.mac[CTRL_EXT] & EXT_EIAME:
                self.mac[IMS] &= ~(self.mac[IAM] & bit)
            self.mac[ICR] &= ~(self.mac[EIAC] & bit)
        self.fresh &= QUEUES
        if next:
            self.eitr_timer.arm(next)

    cdef void timed(self, u32 which) noexcept nogil:
        if which == ITR_OVER or which == EITR_OVER:
            self.update()
        elif which == TRANSMIT_ON:
            self.transmit_rings()
        else:
            self.negotiated()

    # --- link -----------------------------------------------------------------------------------------------

    cdef void link_registers(self, bint up) noexcept nogil:
        IntelMac.link_registers(self, up)
        self.phy_cells[17] = 0xAC08 if up else 0xA000

    cdef void settle_speed(self) noexcept nogil:
        """STATUS has what CTRL forces, else a gigabit, full duplex."""
        cdef u32 ctrl = self.mac[CTRL], forced
        forced = ctrl >> 2 & STATUS_SPEED if ctrl & CTRL_FRCSPD else GIGABIT
        if not ctrl & CTRL_FRCDPX or ctrl & CTRL_FD:
            forced |= STATUS_FD
        self.mac[STATUS] = self.mac[STATUS] & ~<u32>(STATUS_SPEED | STATUS_FD) | forced

    # --- transmit -------------------------------------------------------------------------------------------

    cdef void transmit_rings(self) noexcept nogil:
        """Both rings, one after the other; the causes of both at the end."""
        cdef u32 causes
        if not self.mac[TCTL] & TCTL_EN:
            return
        self.transmit_timer.cancel()
        self.spent = 0
        self.burst(True)
        causes = self.transmit_ring(0) | self.transmit_ring(1)
        self.burst(False)
        if causes:
            self.cause(causes)

    cdef u32 transmit_ring(self, u32 queue) noexcept nogil:
        cdef u32 *ring = self.mac + QUEUE * queue
        cdef u32 commands, causes
        if ring[TDH] == ring[TDT] or not ring[TDLEN]:
            return 0
        self.sending = queue
        if queue:
            causes = self.send_ring(self.tx1, ring, &commands)
        else:
            causes = self.send_ring(self.tx0, ring, &commands)
        return causes | INT_TXQ0 << queue if causes & INT_TXDW else causes

    cdef void emitted(self, u8 *frame, u32 size) noexcept nogil:
        if size < 14:
            self.work(size)
            return
        if self.phy_cells[BMCR] & BMCR_LOOPBACK or self.mac[RCTL] & 0xC0 == 0x40:
            self.work(size)
            if self.ready():
                self.receive(frame, size)
        else:
            self.transmit(frame, size)
        self.count_sent(frame, size, size)

    # --- receive --------------------------------------------------------------------------------------------

    cdef u32 descriptor_size(self) noexcept nogil:
        return 32 if self.mac[RCTL] & RCTL_DTYP_PS and self.mac[RFCTL] & RFCTL_EXTEN else 16

    cdef u32 capacity(self, u32 *sizes) noexcept nogil:
        """Sizes of a descriptor's four buffers; how much of a frame all hold."""
        cdef u32 psrctl = self.mac[PSRCTL]
        if self.descriptor_size() == 32:
            sizes[0], sizes[1] = (psrctl & 0x7F) * 128, (psrctl >> 8 & 0x3F) * 1024
            sizes[2], sizes[3] = (psrctl >> 16 & 0x3F) * 1024, (psrctl >> 24 & 0x3F) * 1024
        else:
            sizes[0], sizes[1], sizes[2], sizes[3] = buffer_size(self.mac[RCTL]), 0, 0, 0
        return sizes[0] + sizes[1] + sizes[2] + sizes[3]

    cdef bint has_room(self, u32 queue, u32 octets) noexcept nogil:
        """Whether the descriptors from RDH to RDT hold so many."""
        cdef u32 sizes[4]
        cdef u32 *ring = self.mac + QUEUE * queue
        cdef u32 head = ring[RDH], tail = ring[RDT], count = ring[RDLEN] // self.descriptor_size(), each = self.capacity(sizes), free
        if head == tail or not count or not each or head >= count:
            return False
        free = tail - head if head < tail else count + tail - head
        return octets <= <u64>free * (each - sizes[0] if sizes[1] else each)

    cdef bint ready(self) noexcept nogil:
        return (
            self.mac[STATUS] & STATUS_LU and self.mac[RCTL] & RCTL_EN and self.dma.enabled
            and (self.has_room(0, 1) or self.has_room(1, 1))
        )

    cdef u32 hashed(self, const u8 *frame, Layers *found, u32 *kind) noexcept nogil:
        """RSS: the hash, and of what it is."""
        cdef u8 data[36]
        cdef u32 mrqc = self.mac[MRQC], addresses
        cdef bint tcp = found.l4 and found.protocol == TCP
        kind[0] = 0
        if mrqc & 3 != 1 or not found.l3:
            return 0
        addresses = 8 if found.version == 4 else 32
        memcpy(data, frame + found.l3 + (12 if found.version == 4 else 8), addresses)
        if tcp:
            memcpy(data + addresses, frame + found.l4, 4)
        if found.version == 4:
            if tcp and mrqc >> 16 & 1:
                kind[0] = 1
            elif mrqc >> 17 & 1:
                kind[0] = 2
        elif tcp and mrqc >> 18 & 1:
            kind[0] = 3
        elif mrqc >> 19 & 1:
            kind[0] = 4
        elif mrqc >> 20 & 1:
            kind[0] = 5
        if not kind[0]:
            return 0
        return toeplitz(<u8 *>&self.mac[RSSRK], data, addresses + (4 if kind[0] == 1 or kind[0] == 3 else 0))

    cdef u32 sums(self, const u8 *frame, Layers *found) noexcept nogil:
        """Status and errors of the checksums that RXCSUM asks for."""
        cdef u32 status = 0, rxcsum = self.mac[RXCSUM]
        if found.version == 4 and rxcsum & IPOFL:
            status |= RXD_IPCS
            if not header_sum_right(frame, found):
                status |= RXD_IPE
        if found.l4 and rxcsum & TUOFL and not (found.protocol == UDP and be16(frame + found.l4 + 6) == 0):
            status |= RXD_TCPCS if found.protocol == TCP else RXD_TCPCS | RXD_UDPCS
            if not transport_sum_right(frame, found):
                status |= RXD_TCPE
        if not status & (RXD_IPCS | RXD_TCPCS):
            status |= RXD_IXSM
        return status

    cdef int receive(self, const u8 *frame, u32 size) noexcept nogil:
        cdef u8 padded[SHORTEST]
        cdef u8 d[32]
        cdef u8 written[32]
        cdef u32 sizes[4]
        cdef u32 lengths[4]
        cdef Layers found
        cdef u32 *ring
        cdef u32 tag = 0, skip = 0, status, type, hash, queue = 0, total, left, at_frame, first, step, n, part, take, causes, header, fit
        cdef u64 at, to
        cdef bint split, extended, last
        if not self.mac[STATUS] & STATUS_LU or not self.mac[RCTL] & RCTL_EN or not self.dma.enabled:
            return 1
        if size < SHORTEST:
            memcpy(padded, frame, size)
            memset(padded + size, 0, SHORTEST - size)
            frame, size = padded, SHORTEST
        if self.too_long(size):
            self.count(ROC)
            return 1
        if not self.wanted(frame):
            return 1
        look(frame, size, &found)
        hash = self.hashed(frame, &found, &type)
        if type:
            queue = (<u8 *>&self.mac[RETA])[hash & 127] >> 7
        ring = self.mac + QUEUE * queue
        status = self.sums(frame, &found)
        if self.mac[CTRL] & CTRL_VME and be16(frame + 12) == self.mac[VET] & 0xFFFF:
            tag, skip = be16(frame + 14), 4
            status |= RXD_VP
        extended = self.mac[RFCTL] & RFCTL_EXTEN != 0
        split = self.descriptor_size() == 32
        step = self.descriptor_size()
        self.capacity(sizes)
        total = size - skip + (0 if self.mac[RCTL] & RCTL_SECRC else FCS)
        header = 0
        if split and found.l4 and found.payload - skip <= sizes[0]:
            header = found.payload - skip                       # the header goes to the first buffer alone
        if not self.has_room(queue, total):
            self.count(RNBC)
            self.count(MPC)
            self.cause(INT_RXO)
            return 1
        first, left, at_frame = ring[RDH], total, 0
        while left:
            at = (<u64>ring[RDBAL + 1] << 32 | ring[RDBAL]) + step * <u64>ring[RDH]
            memset(d, 0, 32)
            self.dma.read_into(at, d, step)
            for n in range(4):
                lengths[n] = 0
                if n and not split or not left:
                    continue
                fit = sizes[n]
                if split and n == 0 and (header or at_frame):
                    fit = header if not at_frame else 0         # only the first descriptor's
                part = min(left, fit)
                to = le64(d + 8 * n)
                if not to:
                    continue                                    # a buffer that is not there
                lengths[n] = part
                take = min(part, size - skip - at_frame) if at_frame < size - skip else 0   # of the frame; no FCS is made
                if take:
                    self.put_piece(to, frame, at_frame, take, skip)
                at_frame += part
                left -= part
            last = left == 0
            memset(written, 0, 32)
            if not extended:
                memcpy(written, d, 8)
                put_le16(written + 8, lengths[0])
                written[12] = status & 0xFF | (RXD_EOP if last else 0)
                if last:
                    written[13] = status >> 24 & 0xFF
                put_le16(written + 14, tag)
            else:
                if last:
                    if self.mac[RXCSUM] & PCSD:
                        put_le32(written, type | queue << 8)
                        put_le32(written + 4, hash)
                    elif found.l3 and found.version == 4:
                        put_le16(written + 4, be16(frame + found.l3 + 4))
                        if not type:
                            status |= RXD_IPIDV
                put_le32(written + 8, (status if last else status & RXD_VP) | (RXD_EOP if last else 0))
                put_le16(written + 12, lengths[0])
                put_le16(written + 14, tag)
                if split:
                    if header and at_frame - lengths[1] - lengths[2] - lengths[3] == header:
                        put_le16(written + 16, HDRSP | header)
                        put_le16(written + 12, lengths[0])
                    for n in range(1, 4):
                        put_le16(written + 16 + 2 * n, lengths[n])
            self.dma.write_from(at, written, step)
            n = 8 if extended else 12
            written[n] |= RXD_DD                                # last: a driver may look at any time
            self.dma.write_from(at + n, written + n, 1)
            ring[RDH] += 1
            if ring[RDH] * step >= ring[RDLEN]:
                ring[RDH] = 0
            if ring[RDH] == first or not lengths[0] | lengths[1] | lengths[2] | lengths[3] and ring[RDH] == ring[RDT]:
                self.cause(INT_RXO)                             # the buffers hold nothing
                return 1
        self.count_received(total, size)
        causes = self.received(ring, step) | INT_RXQ0 << queue
        if size <= self.mac[RSRPD]:
            causes |= INT_SRPD
        self.cause(causes)
        return 1

    # --- state ------------------------------------------------------------------------------------------------

    @property
    def phy(self):
        return self.phy_cells

    @phy.setter
    def phy(self, values):
        self.phy_cells = values

    def check_state(self, values):
        self.check_rings(values, (0, QUEUE))

    def settle(self):
        self.irq.set(self.raised and not (self.msi is not None and self.msi.is_enabled()))
        if self.fresh:
            self.update()
