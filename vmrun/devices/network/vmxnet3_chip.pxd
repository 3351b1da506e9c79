# The chip of vmxnet3. The documentation is in vmxnet3_chip.pyx.
from accel.api cimport IoRegion, IrqLine, u8, u16, u32, u64, i64
from accel.clock cimport Clock
from accel.dma cimport Dma
from vmrun.bus.pci.msi cimport MsiChip, MsixChip
from vmrun.devices.network.layers cimport Layers
from vmrun.devices.network.nic cimport NicChip, NicTimer

cdef enum:
    # BAR 0: interrupt masks, producer indexes
    IMR = 0x000
    TXPROD = 0x600
    RXPROD = 0x800
    RXPROD2 = 0xA00
    # BAR 1
    VRRS = 0x00
    UVRS = 0x08
    DSAL = 0x10
    DSAH = 0x18
    CMD = 0x20
    MACL = 0x28
    MACH = 0x30
    ICR = 0x38
    ECR = 0x40
    # the shared area
    MAGIC_AT = 0
    FEATURES_AT = 24
    QUEUES_AT = 40
    TX_QUEUES_AT = 62
    RX_QUEUES_AT = 63
    INTERRUPTS_AT = 80
    INTR_CTRL_AT = 108
    RX_MODE_AT = 120
    VLANS_AT = 136
    RSS_AT = 648
    ECR_AT = 696
    # a queue's descriptor
    QUEUE_DESCRIPTOR = 256
    UPDATE_RX_PROD_AT = 0
    STATUS_AT = 80
    STATISTICS_AT = 88
    # modes, features, events
    MODE_UCAST = 1
    MODE_MCAST = 2
    MODE_BCAST = 4
    MODE_ALL_MULTI = 8
    MODE_PROMISC = 16
    F_RXCSUM = 1
    F_RSS = 2
    F_RXVLAN = 4
    EVENT_LINK = 4
    DISABLE_ALL = 1
    # descriptors
    DESCRIPTOR = 16
    TX_GEN = 1 << 14
    TX_EOP = 1 << 12
    TX_CQ = 1 << 13
    TX_TI = 1 << 15
    OM_CSUM = 2
    OM_TSO = 3
    RX_BODY = 1 << 14
    RXC_EOP = 1 << 14
    RXC_SOP = 1 << 15
    RXC_CNC = 1 << 30
    RXC_TS = 1 << 15
    RXC_TUC = 1 << 16
    RXC_UDP = 1 << 17
    RXC_TCP = 1 << 18
    RXC_IPC = 1 << 19
    RXC_V6 = 1 << 20
    RXC_V4 = 1 << 21
    RXC_FRAGMENT = 1 << 22
    RXC_FCS = 1 << 23
    RXC_TYPE = 3 << 24
    # rings of a queue
    TX = 0
    TX_DONE = 1
    RX_HEAD = 2
    RX_BODY_RING = 3
    RX_DONE = 4
    LONGEST_RING = 8192
    # counters
    TSO = 0
    UCAST = 2
    MCAST = 4
    BCAST = 6
    NO_BUFFER = 8
    TX_DISCARDED = 9
    VLAN = 0x8100
    PAUSE = 20000               # ns until the end of a cut is looked for

cdef enum:
    QUEUES = 8
    VECTORS = 25
    RINGS = 5                   # of a queue: what goes out and its completions; two for what comes in and theirs
    MOST = 0x10000 + 64         # bytes of a frame, its headers included
    GROUPS = 256                # multicast addresses
    COUNTERS = 10

ctypedef struct Ring:
    u64 base
    u64 size                    # descriptors
    u64 next
    u64 gen


cdef class Vmxnet3(NicChip):
    cdef u8 frame[MOST]
    cdef Ring rings[QUEUES * RINGS]
    cdef u64 sent_counts[QUEUES * COUNTERS]
    cdef u64 come_counts[QUEUES * COUNTERS]
    cdef u8 tx_vector[QUEUES]
    cdef u8 rx_vector[QUEUES]
    cdef u8 starved[QUEUES]
    cdef u8 masks[VECTORS]
    cdef u8 waiting[VECTORS]
    cdef u8 station[6]
    cdef u8 permanent[6]
    cdef u8 group[GROUPS * 6]
    cdef u8 vlans[512]
    cdef u8 key[40]
    cdef u8 table[128]
    cdef readonly Dma dma
    cdef readonly IrqLine irq
    cdef readonly NicTimer timer
    cdef readonly IoRegion passthrough
    cdef Clock clock
    cdef public MsixChip msix
    cdef public MsiChip msi
    cdef public bytes address
    cdef public bint active, auto_mask, raised
    cdef public u64 shared, queues_at, features
    cdef public u32 shared_low, mac_low, last, tx_queues, rx_queues, event_vector, intr_control, rx_mode, groups, hash_type, table_size
    cdef public u32 busy, used, sending, dropping, om, hlen, mss, tagged, tag
    cdef u32 mask_of(self, u32 at) noexcept nogil
    cdef void doorbell(self, u32 at, u32 value) noexcept nogil
    cdef u32 result(self) noexcept nogil
    cdef void command(self, u32 what) noexcept nogil
    cdef u32 activate(self) noexcept nogil
    cdef bint take_ring(self, u32 which, u64 base, u32 size) noexcept nogil
    cdef void quiet(self) noexcept nogil
    cdef void clear(self) noexcept nogil
    cdef void read_features(self) noexcept nogil
    cdef void read_interrupts(self) noexcept nogil
    cdef void read_mode(self) noexcept nogil
    cdef void read_groups(self) noexcept nogil
    cdef void read_vlans(self) noexcept nogil
    cdef void read_rss(self) noexcept nogil
    cdef void write_statistics(self, bint status_only) noexcept nogil
    cdef void event(self, u32 bits) noexcept nogil
    cdef void fire(self, u32 vector) noexcept nogil
    cdef void settle_vector(self, u32 vector) noexcept nogil
    cdef void mask(self, u32 vector, bint on) noexcept nogil
    cdef u64 descriptor(self, u32 which, u8 *data) noexcept nogil
    cdef void step(self, u32 which) noexcept nogil
    cdef void complete(self, u32 which, u8 *data) noexcept nogil
    cdef void transmit_queue(self, u32 queue) noexcept nogil
    cdef void send(self, u32 queue) noexcept nogil
    cdef bint wanted(self, const u8 *frame) noexcept nogil
    cdef void renew(self, u32 queue) noexcept nogil
