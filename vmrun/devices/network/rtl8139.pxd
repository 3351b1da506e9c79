# The chip of rtl8139. The documentation is in rtl8139.pyx.
from accel.api cimport IrqLine, u8, u16, u32, u64, i64
from accel.clock cimport Clock
from accel.dma cimport Dma
from vmrun.core.eeprom93 cimport Eeprom93
from vmrun.devices.network.nic cimport NicChip, NicTimer

cdef enum:                      # offsets
    IDR0 = 0x00
    MAR0 = 0x08
    TSD0 = 0x10                 # DTCCR in C+ mode
    TSAD0 = 0x20                # TNPDS in C+ mode
    RBSTART = 0x30
    CR = 0x37
    CAPR = 0x38
    CBR = 0x3A
    IMR = 0x3C
    ISR = 0x3E
    TCR = 0x40
    RCR = 0x44
    TCTR = 0x48
    MPC = 0x4C
    CR93C46 = 0x50
    CONFIG0 = 0x51
    CONFIG1 = 0x52
    TIMERINT = 0x54
    MSR = 0x58
    CONFIG3 = 0x59
    CONFIG4 = 0x5A
    HLTCLK = 0x5B
    MULINT = 0x5C
    RERID = 0x5E
    TSAD = 0x60
    BMCR = 0x62
    BMSR = 0x64
    ANAR = 0x66
    ANLPAR = 0x68
    ANER = 0x6A
    CSCR = 0x74
    CONFIG5 = 0xD8
    TPPOLL = 0xD9
    CPCR = 0xE0
    INTRMITIGATE = 0xE2
    RDSAR = 0xE4
    MTPS = 0xEC

cdef enum:
    CR_BUFE = 0x01
    CR_TE = 0x04
    CR_RE = 0x08
    CR_RST = 0x10
    INT_ROK = 0x0001
    INT_TOK = 0x0004
    INT_RXOVW = 0x0010
    INT_LINK = 0x0020           # PUN/LinkChg
    INT_TIMEOUT = 0x4000
    INT_KEPT = 0x1E00           # reserved bits
    RCR_AAP = 0x01
    RCR_APM = 0x02
    RCR_AM = 0x04
    RCR_AB = 0x08
    RCR_WRAP = 0x80
    TCR_LBK = 0x60000
    TSD_SIZE = 0x1FFF
    TSD_OWN = 0x2000
    TSD_TUN = 0x4000
    TSD_TOK = 0x8000
    TSD_TABT = 0x40000000
    DTCCR_CMD = 8
    CPCR_TXEN = 1
    CPCR_RXEN = 2
    CPCR_RXVLAN = 0x40
    BMSR_LINK = 4
    RX_ROK = 0x0001             # status before a frame in the ring
    RX_BAR = 0x2000
    RX_PAM = 0x4000
    RX_MAR = 0x8000
    # C+ descriptors
    D_EOR = 0x40000000
    D_FS = 0x20000000
    D_LS = 0x10000000
    D_LGSEN = 0x08000000
    D_MAR = 0x04000000
    D_PAM = 0x02000000
    D_BAR = 0x01000000
    D_IPCS = 0x40000
    D_UDPCS = 0x20000
    D_TCPCS = 0x10000
    D_RX_SIZE = 0x1FFF
    D_TAVA = 0x10000
    D_TAGC = 0x20000
    DESCRIPTORS = 64
    DESCRIPTOR = 16
    IPV4 = 0x0800
    VLAN = 0x8100
    TCP = 6
    UDP = 17
    # tally, in the order of the dump
    TX_OK = 0
    RX_OK = 1
    TX_ERR = 2
    RX_ERR = 3
    MISSED = 4
    RX_OK_PHYSICAL = 8
    RX_OK_BROADCAST = 9
    RX_OK_MULTICAST = 10

cdef enum:
    MOST = 0x10000              # bytes of a frame that descriptors build
    # timers
    TIMEOUT = 0
    TRANSMIT_ON = 1


cdef class Rtl8139(NicChip):
    cdef u8 frame_room[MOST + 64]
    cdef u8 *frame
    cdef u8 idr[6]
    cdef u8 mar[8]
    cdef u8 station[6]
    cdef public u32 frame_size
    cdef public u32 cut_at, cut_size, cut_mss, cut_flags, cut_tag   # of a frame that goes out in segments: what went, all
    cdef public u32 status[4]             # TSD
    cdef public u32 addresses[4]          # TSAD
    cdef readonly Dma dma
    cdef readonly IrqLine irq
    cdef readonly Eeprom93 eeprom
    cdef readonly NicTimer timer, transmit_timer
    cdef readonly Clock clock
    cdef public bytes address
    cdef public u32 rbstart, rx_size, capr, cbr, tcr, rcr, mpc, timer_int, rds_low, rds_high
    cdef public u32 command, imr, isr, cr9346, config0, config1, config3, config4, config5, mulint
    cdef public u32 bmcr, bmsr, anar, anlpar, aner, cscr, cpcr, tx_threshold
    cdef public u32 tx_now, rx_descriptor, tx_descriptor
    cdef public bint clocked, cplus, waiting
    cdef public i64 started, expires
    cdef public u64 tallies[13]
    cdef void soft_reset(self) noexcept nogil
    cdef void update(self) noexcept nogil
    cdef void interrupt(self, u32 bits) noexcept nogil
    cdef void look_at_timer(self) noexcept nogil
    cdef u64 ticks(self, i64 ns) noexcept nogil
    cdef u32 read_byte(self, u32 at) noexcept nogil
    cdef u32 read_word(self, u32 at) noexcept nogil
    cdef u32 read_long(self, u32 at) noexcept nogil
    cdef void write_byte(self, u32 at, u32 value) noexcept nogil
    cdef void write_word(self, u32 at, u32 value) noexcept nogil
    cdef void write_long(self, u32 at, u32 value) noexcept nogil
    cdef u32 part(self, u32 *registers, u32 at, u32 size) noexcept nogil
    cdef u32 summary(self) noexcept nogil
    cdef void dump_tally(self) noexcept nogil
    cdef void transmit_one(self) noexcept nogil
    cdef bint transmit_descriptor(self) noexcept nogil
    cdef void offload(self, u32 word0, const u8 *tag) noexcept nogil
    cdef void cut(self, u32 header, u32 mss, const u8 *tag) noexcept nogil
    cdef void segments(self) noexcept nogil
    cdef void transmit_ring(self) noexcept nogil
    cdef void sum_transport(self, u32 header, u32 protocol, u32 length) noexcept nogil
    cdef void send(self, u32 size, const u8 *tag) noexcept nogil
    cdef bint wanted(self, const u8 *frame, u32 *status) noexcept nogil
    cdef void receive_descriptor(self, const u8 *frame, u32 size, u32 whole, u32 status) noexcept nogil
    cdef void receive_ring(self, const u8 *frame, u32 size, u32 status) noexcept nogil
    cdef void put(self, const u8 *data, u32 size) noexcept nogil
    cdef void missed(self) noexcept nogil
