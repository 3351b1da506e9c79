# What Intel's gigabit chips share. The documentation is in intel_mac.pyx.
from accel.api cimport IrqLine, u8, u16, u32, u64, i64
from accel.clock cimport Clock
from accel.dma cimport Dma
from vmrun.devices.network.intel_tx cimport Transmitter
from vmrun.devices.network.nic cimport NicChip, NicTimer

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
    RDBAL = 0x2800 >> 2
    RDLEN = 0x2808 >> 2
    RDH = 0x2810 >> 2
    RDT = 0x2818 >> 2
    TDBAL = 0x3800 >> 2
    TDLEN = 0x3808 >> 2
    TDH = 0x3810 >> 2
    TDT = 0x3818 >> 2
    QUEUE = 0x100 >> 2          # from a ring's registers to those of the next
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
    REGISTERS = 0x8000

cdef enum:
    CTRL_RST = 1 << 26
    CTRL_VME = 1 << 30
    STATUS_LU = 2
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
    RXD_DD = 1
    RXD_EOP = 2
    RXD_IXSM = 4
    RXD_VP = 8
    DESCRIPTOR = 16
    # MII
    BMCR = 0
    BMSR = 1
    ANLPAR = 5
    BMCR_ANRESTART = 0x0200
    BMCR_AUTOEN = 0x1000
    BMCR_LOOPBACK = 0x4000
    BMSR_LINK = 0x0004
    BMSR_AN_COMP = 0x0020
    ANLPAR_ACK = 0x4000
    PHY_PAGES = 8               # of 32 registers; all but the 82574's PHY have one

cdef enum:
    RAH_AV = 0x80000000


cdef u32 buffer_size(u32 rctl) noexcept nogil


cdef class IntelMac(NicChip):
    cdef u32 mac[REGISTERS]
    cdef u16 phy_cells[PHY_PAGES * 32]
    cdef readonly Dma dma
    cdef readonly IrqLine irq
    cdef readonly NicTimer autoneg_timer, transmit_timer
    cdef Clock clock
    cdef public bint autonegotiation, tag_type_at_reset
    cdef public bytes address
    cdef public bint raised
    cdef void serve(self, Transmitter tx)
    cdef void cause(self, u32 bits) noexcept nogil
    cdef bint negotiates(self) noexcept nogil
    cdef void negotiate(self) noexcept nogil
    cdef void negotiated(self) noexcept nogil
    cdef void link_registers(self, bint up) noexcept nogil
    cdef void count(self, u32 n) noexcept nogil
    cdef void count_octets(self, u32 low, u32 octets) noexcept nogil
    cdef void count_size(self, u32 first, u32 octets) noexcept nogil
    cdef void count_sent(self, const u8 *frame, u32 size, u32 octets) noexcept nogil
    cdef void count_received(self, u32 total, u32 octets) noexcept nogil
    cdef bint wanted(self, const u8 *frame) noexcept nogil
    cdef bint too_long(self, u32 size) noexcept nogil
    cdef void put_piece(self, u64 to, const u8 *frame, u32 at, u32 count, u32 skip) noexcept nogil
    cdef u32 received(self, const u32 *ring, u32 step) noexcept nogil
    cdef void send_later(self, u32 *ring) noexcept nogil
    cdef u32 send_ring(self, Transmitter tx, u32 *ring, u32 *commands) noexcept nogil
    cdef void emitted(self, u8 *frame, u32 size) noexcept nogil
