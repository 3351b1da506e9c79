"""Realtek RTL8139C+, compiled: the chip alone; rtl8139_pci.py is its card.

Ref: RTL8139C(L)+ data sheet, rev. 1.6 (registers 5, C+ descriptors 9); RTL8139D(L) data sheet for C mode. Register
names are the data sheet's; CR93C46 is the EEPROM's command register, `tally` what DTCCR dumps.
Not modelled: the high-priority transmit queue, the receive checksum of C+ mode, early interrupts, thresholds, wake-up,
power management, the boot ROM behind the chip's own pins.

Departures, as guests have met them on qemu-kvm's card: C+ descriptors that the chip may not have are no reason to wait,
the frame is lost (the driver gives them back without telling the chip); a frame lies in one receive descriptor.
A poll of the C+ queue goes once around its 64 descriptors at most.
"""

from libc.string cimport memcpy, memmove, memset

from vmrun.core.cells cimport cells
from vmrun.devices.network.nic cimport TURN
from vmrun.devices.network.frames cimport (
    BROADCAST, HEADER, MULTICAST, SHORTEST, add_up, be16, be32, checksum, crc_first, crc_last, folded, kind, le16, le32,
    put_be16, put_be32, put_le32,
)

from vmrun.core.state import Bytes, Deadline, Flag, Moment, Part, Table, U8, U16, U32, Words
from vmrun.core.eeprom93 import Eeprom93 as _Eeprom93
from vmrun.devices.network.nic import NicTimer as _NicTimer
from vmrun.errors import StateError

cdef u32 D_OWN = 0x80000000U
cdef u32 TX_ERRORS = 0x02F00000         # bits of a transmit descriptor that the chip sets
cdef u32 VERSION = 0x74800000           # in TCR: an RTL8139C+
cdef u32 TCR_KEPT = 0x7C800000U | 0x8070F80FU
cdef u32 RCR_KEPT = 0xF0FC0040U
cdef u32 TALLY_BYTES[13]
TALLY_BYTES[:] = [8, 8, 8, 4, 2, 2, 4, 4, 8, 8, 4, 2, 2]

_CUT = ("cut_at", "cut_size", "cut_mss", "cut_flags", "cut_tag")


def eeprom_words(address, vendor_id, device_id):
    """64 words: 0x8129, ids, the station address in words 7 to 9."""
    words = [0x8129, vendor_id, device_id] + [0] * 61
    for n in range(3):
        words[7 + n] = address[2 * n] | address[2 * n + 1] << 8
    return words


cdef class Rtl8139(NicChip):
    """256 bytes of registers."""

    state = Table(
        "rtl8139", 2,
        Bytes("idr_cells", 6, lambda chip: chip.address), Bytes("mar_cells", 8), Bytes("frame_cells", None, b"", most=MOST),
        Words("status", 4, 0xFFFFFFFF, [TSD_OWN] * 4), Words("addresses", 4, 0xFFFFFFFF), Words("tallies", 13, 0xFFFFFFFFFFFFFFFF),
        Part("eeprom"), Deadline("timer"), U32("rbstart"), U32("rx_size", 8192, least=8192, most=65536),
        U32("capr", most=0xFFFF), U32("cbr", most=0xFFFF), U32("tcr", VERSION), U32("rcr"), U32("mpc"), U32("timer_int"),
        U32("rds_low"), U32("rds_high"), U8("command", CR_RST), U16("imr"), U16("isr"), U8("cr9346"), U8("config0"),
        U8("config1", 0x0C), U8("config3", 1), U8("config4"), U8("config5"), U16("mulint"), U16("bmcr", 0x1000),
        U16("bmsr", lambda chip: 0x7829 | (BMSR_LINK if chip.link_up else 0)), U16("anar", 0x05E1), U16("anlpar", 0x05E1),
        U16("aner", 1), U16("cscr", 0x0340), U16("cpcr"), U8("tx_threshold"), U8("tx_now", most=3), U32("rx_descriptor"),
        U8("tx_descriptor", most=DESCRIPTORS - 1), Flag("clocked", True), Flag("cplus"), Flag("waiting"), Moment("started"), Moment("expires"),
        Deadline("transmit_timer"), U32("cut_at", most=MOST), U32("cut_size", most=MOST), U16("cut_mss", most=0x7FF),
        U8("cut_flags"), U32("cut_tag"),
        readers={1: lambda values: {**values, "transmit_timer": None, **dict.fromkeys(_CUT, 0)}},
    )
    reset, save, load_state = state.methods()

    def __init__(self, dma, irq, timers, address, device_id=0x8139, vendor_id=0x10EC):
        self.min_access, self.max_access = 1, 4
        self.dma, self.irq, self.clock = dma, irq, timers.clock
        self.address = bytes(address)
        memcpy(self.station, <const u8 *><bytes>self.address, 6)
        self.frame = self.frame_room + 4
        self.eeprom = _Eeprom93(64)
        self.eeprom.words = eeprom_words(self.address, vendor_id, device_id)
        self.timer = _NicTimer(timers, self, TIMEOUT)
        self.transmit_timer = _NicTimer(timers, self, TRANSMIT_ON)
        self.reset()

    def stop(self):
        self.timer.stop()
        self.transmit_timer.stop()

    cdef void soft_reset(self) noexcept nogil:
        """CR.RST, or the EEPROM's autoload: what the wire and the guest's memory hold stays, most registers do not."""
        cdef u32 n
        memcpy(self.idr, self.station, 6)
        self.isr = self.imr = 0
        for n in range(4):
            self.status[n] = TSD_OWN
        self.tx_now = self.rx_descriptor = self.tx_descriptor = 0
        self.rds_low = self.rds_high = self.rbstart = 0
        self.rx_size, self.capr, self.cbr = 8192, 0, 0
        self.tcr, self.clocked, self.command = VERSION, True, CR_RST
        self.config0, self.config1, self.config3, self.config5 = 0, 0x0C, 1, 0
        self.cscr, self.cpcr, self.cplus = 0x0340, 0, False
        self.bmcr, self.bmsr = 0x1000, 0x7829 | (BMSR_LINK if self.link_up else 0)
        self.anar, self.anlpar, self.aner = 0x05E1, 0x05E1, 1
        self.timer_int, self.started, self.waiting = 0, self.clock.now(), False
        memset(self.tallies, 0, sizeof(self.tallies))
        self.frame_size = self.cut_size = 0
        self.timer.cancel()
        self.transmit_timer.cancel()
        self.update()

    # --- interrupts and time ------------------------------------------------------------------------------

    cdef void update(self) noexcept nogil:
        self.irq.set(self.isr & self.imr != 0)

    cdef void interrupt(self, u32 bits) noexcept nogil:
        self.isr |= bits
        self.update()

    cdef u64 ticks(self, i64 ns) noexcept nogil:
        """Of the PCI clock, 33 MHz, in so many ns."""
        return <u64>(ns // 1000 * 33 + ns % 1000 * 33 // 1000)

    cdef void look_at_timer(self) noexcept nogil:
        """TCTR meets TimerInt at `expires`, once in 2^32 ticks; nothing wakes up for it while nobody would hear of it."""
        cdef i64 now = self.clock.now()
        cdef u64 passed
        if self.waiting and now >= self.expires:
            self.interrupt(INT_TIMEOUT)
        self.waiting = False
        if not self.timer_int:
            return
        passed = self.ticks(now - self.started)
        if <u32>passed >= self.timer_int:
            passed += <u64>1 << 32
        passed = (passed & ~<u64>0xFFFFFFFFU) + self.timer_int
        self.waiting = True
        self.expires = self.started + <i64>(passed // 33 * 1000 + passed % 33 * 1000 // 33)
        if self.imr & INT_TIMEOUT and not self.isr & INT_TIMEOUT:
            self.timer.arm(self.expires)

    cdef void timed(self, u32 which) noexcept nogil:
        if which == TRANSMIT_ON:
            self.transmit_ring()
            return
        self.interrupt(INT_TIMEOUT)
        self.look_at_timer()

    cdef void link_changed(self) noexcept nogil:
        if self.link_up:
            self.bmsr |= BMSR_LINK
        else:
            self.bmsr &= ~<u32>BMSR_LINK
        self.interrupt(INT_LINK)

    # --- registers ------------------------------------------------------------------------------------------

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u32 at = <u32>offset & 0xFF
        if size == 1:
            return self.read_byte(at)
        return self.read_word(at) if size == 2 else self.read_long(at)

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 at = <u32>offset & 0xFF
        if size == 1:
            self.write_byte(at, <u32>value & 0xFF)
        elif size == 2:
            self.write_word(at, <u32>value & 0xFFFF)
        else:
            self.write_long(at, <u32>value)
        return 0

    cdef u32 part(self, u32 *registers, u32 at, u32 size) noexcept nogil:
        """`size` bytes of four dwords, from byte `at` on."""
        if at & (size - 1):
            return 0
        return registers[at >> 2] >> (8 * (at & 3)) & (0xFF if size == 1 else 0xFFFF if size == 2 else 0xFFFFFFFFU)

    cdef u32 read_byte(self, u32 at) noexcept nogil:
        cdef u32 value
        if at < 6:
            return self.idr[at]
        if MAR0 <= at < MAR0 + 8:
            return self.mar[at - MAR0]
        if TSD0 <= at < TSD0 + 16:
            return self.part(self.status, at - TSD0, 1)
        if at == CR:
            return self.command | (CR_BUFE if self.capr == self.cbr else 0)
        if at == CR93C46:
            value = self.cr9346
            if value & 0xC0 == 0x80:
                value = value & 0xFE | (self.eeprom.selected and self.eeprom.out)
            return value
        if at == CONFIG0:
            return self.config0
        if at == CONFIG1:
            return self.config1
        if at == CONFIG3:
            return self.config3
        if at == CONFIG4:
            return self.config4
        if at == CONFIG5:
            return self.config5
        if at == MSR:
            return 0xD0 | (0 if self.bmsr & BMSR_LINK else 4)
        if at == HLTCLK:
            return self.clocked
        if at == RERID:
            return 0x20
        if at == MTPS:
            return self.tx_threshold
        if at == TCR + 3:
            return self.tcr >> 24
        return 0

    cdef u32 read_word(self, u32 at) noexcept nogil:
        if TSAD0 <= at < TSAD0 + 16:
            return self.part(self.addresses, at - TSAD0, 2)
        if at == IMR:
            return self.imr
        if at == ISR:
            self.look_at_timer()
            return self.isr
        if at == MULINT:
            return self.mulint
        if at == CAPR:
            return self.capr - 16 & 0xFFFF
        if at == CBR:
            return self.cbr
        if at == BMCR:
            return self.bmcr
        if at == BMSR:
            return self.bmsr
        if at == ANAR:
            return self.anar
        if at == ANLPAR:
            return self.anlpar
        if at == ANER:
            return self.aner
        if at == CPCR:
            return self.cpcr
        if at == INTRMITIGATE:
            return 0
        if at == TSAD:
            return self.summary()
        if at == CSCR:
            return self.cscr
        return self.read_byte(at) | self.read_byte(at + 1 & 0xFF) << 8

    cdef u32 read_long(self, u32 at) noexcept nogil:
        if at == MPC:
            return self.mpc
        if at == TCR:
            return self.tcr
        if at == RCR:
            return self.rcr
        if TSD0 <= at < TSD0 + 16:
            return self.part(self.status, at - TSD0, 4)
        if TSAD0 <= at < TSAD0 + 16:
            return self.addresses[at - TSAD0 >> 2]
        if at == RBSTART:
            return self.rbstart
        if at == RDSAR:
            return self.rds_low
        if at == RDSAR + 4:
            return self.rds_high
        if at == TCTR:
            return <u32>self.ticks(self.clock.now() - self.started)
        if at == TIMERINT:
            return self.timer_int
        return (
            self.read_byte(at) | self.read_byte(at + 1 & 0xFF) << 8 | self.read_byte(at + 2 & 0xFF) << 16
            | self.read_byte(at + 3 & 0xFF) << 24
        )

    cdef u32 summary(self) noexcept nogil:
        """TSAD: four bits each of TOK, TUN, TABT and OWN."""
        cdef u32 n, value = 0
        for n in range(4):
            value |= (
                (self.status[n] & TSD_TOK != 0) << (12 + n) | (self.status[n] & TSD_TUN != 0) << (8 + n)
                | (self.status[n] & TSD_TABT != 0) << (4 + n) | (self.status[n] & TSD_OWN != 0) << n
            )
        return value

    cdef void write_byte(self, u32 at, u32 value) noexcept nogil:
        cdef bint open = self.cr9346 & 0xC0 == 0xC0             # configuration registers can be written
        if at < 6:
            self.idr[at] = value
        elif MAR0 <= at < MAR0 + 8:
            self.mar[at - MAR0] = value
        elif at == CR:
            if value & CR_RST:
                self.soft_reset()
            if value & CR_RE:
                self.rx_descriptor = 0
            if value & CR_TE:
                self.tx_descriptor = 0
            self.command = value & 0x0C | self.command & 0xE3 & ~<u32>CR_RST
            if value & CR_RE:
                self.room()
        elif at == CR93C46:
            value = value & 0xCE | self.cr9346 & 0x31
            if value & 0xC0 == 0x40:
                self.soft_reset()
                value = 0
            # Out of programming mode the pins are not the EEPROM's.
            self.eeprom.drive(
                value & 0xC0 == 0x80 and value & 8 != 0, value & 0xC0 == 0x80 and value & 4 != 0, value & 2 != 0
            )
            self.cr9346 = value
        elif at == TCR:
            self.write_long(TCR, self.tcr & 0xFFFFFF00U | value)
        elif at == CONFIG0 and open:
            self.config0 = value & 0x07 | self.config0 & 0xF8
        elif at == CONFIG1 and open:
            self.config1 = value & 0xF3 | self.config1 & 0x0C
        elif at == CONFIG3 and open:
            self.config3 = value & 0x70 | self.config3 & 0x8F
        elif at == CONFIG4 and open:
            self.config4 = value & 0xF5 | self.config4 & 0x0A
        elif at == CONFIG5:
            self.config5 = value & 0x7F | self.config5 & 0x80
        elif at == HLTCLK:
            if value == c'R':
                self.clocked = True
            elif value == c'H':
                self.clocked = False
        elif at == MTPS:
            self.tx_threshold = value
        elif at == TPPOLL and value & 0x40:
            self.transmit_ring()

    cdef void write_word(self, u32 at, u32 value) noexcept nogil:
        if at == IMR:
            self.imr = value & ~<u32>INT_KEPT | self.imr & INT_KEPT
            self.look_at_timer()
            self.update()
        elif at == ISR:
            self.isr = self.isr & (~value | INT_KEPT)
            self.look_at_timer()
            self.update()
        elif at == MULINT:
            self.mulint = value & 0x0FFF | self.mulint & 0xF000
        elif at == CAPR:
            self.capr = value + 16 & (self.rx_size - 1)
            self.room()
        elif at == BMCR:
            self.bmcr = value & 0x8200 | self.bmcr & 0x7DFF
        elif at == BMSR:
            self.bmsr = value & 0x00C0 | self.bmsr & 0xFF3F
        elif at == ANAR:
            self.anar = value
        elif at == ANER:
            self.aner = value
        elif at == CPCR:
            self.cplus = True
            self.cpcr = value & 0x007B | self.cpcr & 0xFF84
        elif at != ANLPAR and at != INTRMITIGATE:
            self.write_byte(at, value & 0xFF)
            self.write_byte(at + 1 & 0xFF, value >> 8)

    cdef void write_long(self, u32 at, u32 value) noexcept nogil:
        cdef u32 n
        if at == MPC:
            self.mpc = 0
        elif at == TCR:
            if self.command & CR_TE:
                self.tcr = value & ~TCR_KEPT | self.tcr & TCR_KEPT
        elif at == RCR:
            self.rcr = value & ~RCR_KEPT | self.rcr & RCR_KEPT
            self.rx_size = <u32>8192 << (self.rcr >> 11 & 3)
            self.capr = self.cbr = 0
            self.room()
        elif TSD0 <= at < TSD0 + 16:
            n = at - TSD0 >> 2
            if self.cplus:
                self.status[n] = value
                if n == 0 and value & DTCCR_CMD:
                    self.dump_tally()
                return
            self.status[n] = value & 0x003F3FFF | self.status[n] & 0x00C00000
            self.transmit_one()
        elif TSAD0 <= at < TSAD0 + 16:
            self.addresses[at - TSAD0 >> 2] = value
        elif at == RBSTART:
            self.rbstart = value
        elif at == RDSAR:
            self.rds_low = value
        elif at == RDSAR + 4:
            self.rds_high = value
        elif at == TCTR:
            self.started = self.clock.now()
            self.look_at_timer()
        elif at == TIMERINT:
            if value != self.timer_int:
                self.timer_int = value
                self.look_at_timer()
        else:
            for n in range(4):
                self.write_byte(at + n & 0xFF, value >> (8 * n) & 0xFF)

    cdef void dump_tally(self) noexcept nogil:
        cdef u64 at = self.status[0] & 0xFFFFFFC0U | <u64>self.status[1] << 32
        cdef u32 n
        for n in range(13):
            self.dma.write_from(at, <u8 *>&self.tallies[n], TALLY_BYTES[n])   # little-endian, the low bytes
            at += TALLY_BYTES[n]
        self.status[0] &= ~<u32>DTCCR_CMD

    # --- transmit -------------------------------------------------------------------------------------------

    cdef void transmit_one(self) noexcept nogil:
        """C mode: the frame of the descriptor whose turn it is, when it is the chip's."""
        cdef u32 n = self.tx_now, size = self.status[n] & TSD_SIZE
        if not self.command & CR_TE or self.status[n] & TSD_OWN:
            return
        self.dma.read_into(self.addresses[n], self.frame, size)
        self.status[n] |= TSD_OWN | TSD_TOK
        self.tx_now = (n + 1) & 3
        self.send(size, NULL)
        self.frame_size = 0
        self.interrupt(INT_TOK)

    cdef void send(self, u32 size, const u8 *tag) noexcept nogil:
        """The frame that was built, with a tag of four bytes unless it is NULL."""
        cdef u8 *begin = self.frame
        if not size:
            return
        if tag != NULL and size >= 12:
            begin = self.frame_room
            memmove(begin, self.frame, 12)
            memcpy(begin + 12, tag, 4)
            size += 4
        if self.tcr & TCR_LBK == TCR_LBK:
            self.work(size)
            if self.ready():
                self.receive(begin, size)
        else:
            self.transmit(begin, size)
        if begin != self.frame:
            memmove(self.frame, begin, 12)

    cdef void transmit_ring(self) noexcept nogil:
        """C+ mode: what the ring has, at most once around; what is beyond a turn follows from a timer."""
        cdef u32 left = DESCRIPTORS
        cdef bint some = False
        self.spent = 0
        self.transmit_timer.cancel()
        if not self.command & CR_TE or not self.cpcr & CPCR_TXEN:
            self.cut_size = 0
            return
        while True:
            if self.cut_size:
                some = True
                self.segments()
            if self.spent >= TURN:
                self.transmit_timer.arm(self.clock.now())
                break
            if not left or not self.transmit_descriptor():
                break
            self.spent += 1
            left -= 1
            some = True
        if some:
            self.interrupt(INT_TOK)

    cdef bint transmit_descriptor(self) noexcept nogil:
        """C+ mode: the next descriptor, when it is the chip's."""
        cdef u8 descriptor[DESCRIPTOR]
        cdef u8 tag[4]
        cdef u64 at = (self.addresses[0] | <u64>self.addresses[1] << 32) + DESCRIPTOR * <u64>self.tx_descriptor
        cdef u32 word0, word1, size
        if self.dma.read_into(at, descriptor, DESCRIPTOR) != 0:
            return False
        word0, word1 = le32(descriptor), le32(descriptor + 4)
        if not word0 & D_OWN:
            return False
        if word0 & D_FS:
            self.frame_size = 0
        size = min(word0 & 0xFFFF, MOST - self.frame_size)
        self.dma.read_into(le32(descriptor + 8) | <u64>le32(descriptor + 12) << 32, self.frame + self.frame_size, size)
        self.frame_size += size
        self.tx_descriptor = 0 if word0 & D_EOR else (self.tx_descriptor + 1) % DESCRIPTORS
        put_le32(descriptor, word0 & ~(D_OWN | TX_ERRORS))
        self.dma.write_from(at, descriptor, 4)
        if word0 & D_LS:
            put_be16(tag, VLAN)
            memcpy(tag + 2, descriptor + 4, 2)                  # as it is on the wire
            self.offload(word0, tag if word1 & D_TAGC else NULL)
            if not self.cut_size:
                self.frame_size = 0
        return True

    cdef void offload(self, u32 word0, const u8 *tag) noexcept nogil:
        """A whole frame: sums and segments as its last descriptor asks, and off."""
        cdef u8 *ip = self.frame + HEADER
        cdef u32 size = self.frame_size, header, length, mss = word0 >> 16 & 0x7FF
        cdef bint segment = word0 & D_LGSEN != 0
        self.tallies[TX_OK] += 1
        if (
            size < HEADER + 20 or be16(self.frame + 12) != IPV4 or ip[0] >> 4 != 4
            or not word0 & (D_LGSEN | D_IPCS | D_UDPCS | D_TCPCS)
        ):
            self.send(size, tag)
            return
        header, length = (ip[0] & 15) * 4, be16(ip + 2)
        if header < 20 or header > size - HEADER or length < header or length > size - HEADER:
            self.send(size, tag)
            return
        if not segment and word0 & D_IPCS:
            put_be16(ip + 10, 0)
            put_be16(ip + 10, checksum(ip, header, 0))
        if segment:
            if ip[9] == TCP and mss:
                self.cut(header, mss, tag)
                return
        elif word0 & D_TCPCS and ip[9] == TCP:
            self.sum_transport(header, TCP, length - header)
        elif word0 & D_UDPCS and ip[9] == UDP:
            self.sum_transport(header, UDP, length - header)
        self.send(size, tag)

    cdef void sum_transport(self, u32 header, u32 protocol, u32 length) noexcept nogil:
        """The checksum of `length` bytes of TCP or UDP behind an IPv4 header of `header` bytes."""
        cdef u8 *ip = self.frame + HEADER
        cdef u8 *begin = ip + header
        cdef u32 place = 16 if protocol == TCP else 6
        if length < place + 2:
            return
        put_be16(begin + place, 0)
        put_be16(begin + place, checksum(begin, length, folded(add_up(ip + 12, 8, 0) + protocol + length)))

    cdef void cut(self, u32 header, u32 mss, const u8 *tag) noexcept nogil:
        """The frame is TCP over IPv4, to go out in segments of `mss` bytes of data."""
        cdef u8 *ip = self.frame + HEADER
        cdef u8 *tcp = ip + header
        cdef u32 length = be16(ip + 2) - header, head = (tcp[12] >> 4) * 4 if length >= 20 else 0
        if head < 20 or head > length:
            return
        self.cut_at, self.cut_size, self.cut_mss, self.cut_flags = 0, length - head, mss, tcp[13]
        self.cut_tag = le32(tag) if tag != NULL else 0
        self.segments()

    cdef void segments(self) noexcept nogil:
        """The segments that are left, as far as the turn goes. `cut_size` is 0 when all have gone."""
        cdef u8 tag[4]
        cdef u8 *ip = self.frame + HEADER
        cdef u32 header = (ip[0] & 15) * 4, part
        cdef u8 *tcp = ip + header
        cdef u32 head = (tcp[12] >> 4) * 4
        put_le32(tag, self.cut_tag)
        while self.cut_at < self.cut_size:
            if self.spent >= TURN:
                return
            part = min(max(<u32>self.cut_mss, <u32>1), self.cut_size - self.cut_at)
            if self.cut_at:
                memmove(tcp + head, tcp + head + self.cut_at, part)
            tcp[13] = self.cut_flags if self.cut_at + part == self.cut_size else self.cut_flags & ~<u32>9    # PSH, FIN
            put_be16(ip + 2, header + head + part)
            put_be16(ip + 10, 0)
            put_be16(ip + 10, checksum(ip, header, 0))
            self.sum_transport(header, TCP, head + part)
            self.send(HEADER + header + head + part, tag if self.cut_tag else NULL)
            put_be16(ip + 4, be16(ip + 4) + 1)
            put_be32(tcp + 4, be32(tcp + 4) + part)
            self.cut_at += part
        self.cut_size = self.frame_size = 0

    # --- receive --------------------------------------------------------------------------------------------

    cdef bint ready(self) noexcept nogil:
        cdef u32 free
        if not self.clocked or not self.command & CR_RE:
            return True                                         # to be dropped
        if self.cpcr & CPCR_RXEN and (self.rds_low or self.rds_high):
            return True
        free = self.capr - self.cbr & (self.rx_size - 1)
        return free == 0 or free >= 1514 or self.imr & INT_RXOVW != 0

    cdef bint wanted(self, const u8 *frame, u32 *status) noexcept nogil:
        cdef int to = kind(frame)
        cdef u32 n
        if self.rcr & RCR_AAP:
            return True
        if to == BROADCAST:
            if not self.rcr & RCR_AB:
                return False
            status[0] |= RX_BAR
            self.tallies[RX_OK_BROADCAST] += 1
        elif to == MULTICAST:
            n = crc_first(frame, 6) >> 26
            if not self.rcr & RCR_AM or not self.mar[n >> 3] >> (n & 7) & 1:
                return False
            status[0] |= RX_MAR
            self.tallies[RX_OK_MULTICAST] += 1
        else:
            for n in range(6):
                if frame[n] != self.idr[n]:
                    return False
            if not self.rcr & RCR_APM:
                return False
            status[0] |= RX_PAM
            self.tallies[RX_OK_PHYSICAL] += 1
        return True

    cdef int receive(self, const u8 *frame, u32 size) noexcept nogil:
        cdef u8 padded[SHORTEST + 4]
        cdef u32 status = 0, whole = size
        if not self.clocked or not self.command & CR_RE:
            return 1
        if size < SHORTEST + 4:                                 # room for the tag to be taken out
            memcpy(padded, frame, size)
            memset(padded + size, 0, SHORTEST + 4 - size)
            frame, size = padded, max(size, <u32>SHORTEST)
        if not self.wanted(frame, &status):
            self.tallies[RX_ERR] += 1
        elif not self.cpcr & CPCR_RXEN:
            self.receive_ring(frame, size, status)
        elif self.rds_low or self.rds_high:
            self.receive_descriptor(frame, size, whole, status)
        return 1

    cdef void missed(self) noexcept nogil:
        self.mpc += 1
        self.interrupt(INT_RXOVW)

    cdef void receive_descriptor(self, const u8 *frame, u32 size, u32 whole, u32 status) noexcept nogil:
        cdef u8 descriptor[DESCRIPTOR]
        cdef u8 crc[4]
        cdef u64 at = (self.rds_low | <u64>self.rds_high << 32) + DESCRIPTOR * <u64>self.rx_descriptor, to
        cdef u32 word0, word1, skip = 0
        self.dma.read_into(at, descriptor, DESCRIPTOR)
        word0, word1 = le32(descriptor), le32(descriptor + 4)
        if word0 & D_OWN and self.cpcr & CPCR_RXVLAN and be16(frame + 12) == VLAN:
            skip = 4
            size = max(size - skip, <u32>SHORTEST)
            word1 = word1 & 0xFFFF0000U | D_TAVA | le16(frame + 14)
        else:
            word1 &= ~<u32>D_TAVA
        if not word0 & D_OWN or size + 4 > word0 & D_RX_SIZE:
            self.tallies[RX_ERR] += 1
            self.tallies[MISSED] += 1
            self.missed()
            return
        to = le32(descriptor + 8) | <u64>le32(descriptor + 12) << 32
        self.dma.write_from(to, frame, 12)
        self.dma.write_from(to + 12, frame + 12 + skip, size - 12)
        put_le32(crc, ~crc_last(frame, whole))
        self.dma.write_from(to + size, crc, 4)
        word0 = word0 & ~(D_OWN | <u32>D_RX_SIZE) | D_FS | D_LS | size + 4
        if status & RX_BAR:
            word0 |= D_BAR
        if status & RX_MAR:
            word0 |= D_MAR
        if status & RX_PAM:
            word0 |= D_PAM
        put_le32(descriptor, word0)
        put_le32(descriptor + 4, word1)
        self.dma.write_from(at + 4, descriptor + 4, 4)
        self.dma.write_from(at, descriptor, 4)                  # last: it gives the descriptor back
        self.tallies[RX_OK] += 1
        self.rx_descriptor = 0 if word0 & D_EOR else self.rx_descriptor + 1
        self.interrupt(INT_ROK)

    cdef void receive_ring(self, const u8 *frame, u32 size, u32 status) noexcept nogil:
        cdef u8 word[4]
        cdef u32 free = self.capr - self.cbr & (self.rx_size - 1)
        if free and size + 8 >= free or size + 8 > self.rx_size:
            self.missed()
            return
        put_le32(word, status | RX_ROK | (size + 4) << 16)
        self.put(word, 4)
        self.put(frame, size)
        put_le32(word, ~crc_last(frame, size))
        self.put(word, 4)
        self.cbr = (self.cbr + 3 & ~<u32>3) & (self.rx_size - 1)
        self.interrupt(INT_ROK)

    cdef void put(self, const u8 *data, u32 size) noexcept nogil:
        """Into the ring at CBR, around its end unless RCR.WRAP lets it go on behind it."""
        cdef u32 past = self.cbr + size - self.rx_size if self.cbr + size > self.rx_size else 0
        if past and not (self.rx_size < 65536 and self.rcr & RCR_WRAP):
            self.dma.write_from(<u64>self.rbstart + self.cbr, data, size - past)
            self.dma.write_from(self.rbstart, data + size - past, past)
            self.cbr = past
            return
        self.dma.write_from(<u64>self.rbstart + self.cbr, data, size)
        self.cbr += size

    # --- state ------------------------------------------------------------------------------------------------

    @property
    def idr_cells(self):
        return cells(self, self.idr, 6)

    @property
    def mar_cells(self):
        return cells(self, self.mar, 8)

    @property
    def frame_cells(self):
        return (<char *>self.frame)[:self.frame_size]

    @frame_cells.setter
    def frame_cells(self, bytes value):
        self.frame_size = <u32>len(value)
        memcpy(self.frame, <const u8 *>value, self.frame_size)

    def check_state(self, values):
        size = values["rx_size"]
        if size & size - 1 or values["capr"] >= size or values["cbr"] > size:
            raise StateError(f"rtl8139: no receive ring of {size} bytes with these places in it")
        frame = values["frame_cells"].ljust(HEADER + 60, b"\0")
        tcp = HEADER + (frame[HEADER] & 15) * 4
        head = (frame[tcp + 12] >> 4) * 4 if tcp + 12 < len(frame) else 0
        if values["cut_size"] and tcp + head + values["cut_size"] > len(frame):
            raise StateError("rtl8139: more is to be sent than the frame has")

    def settle(self):
        self.update()
