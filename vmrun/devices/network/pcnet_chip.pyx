"""AMD Am79C970A (PCnet-PCI II), compiled: the chip alone; pcnet.py is its card.

Ref: Am79C970A data sheet (19436): CSRs and BCRs from p. 147 on, descriptors from p. 188 on, initialization block p. 184.
CSRs and BCRs go by number, as in the data sheet; bits by its names.
Not modelled: the serial EEPROM, magic packets, the MII of later chips, statistics other than missed frames, big-endian
accesses, burst lengths, the expansion ROM's own port.

Departures, as guests have met them on qemu-kvm's card: a received frame is followed by four zeros for its FCS; after a
descriptor that the chip may not have, it looks for one that it may have in the rest of the ring, among 512; a ring of length
0 has 512.
"""

from libc.string cimport memcpy, memset

from vmrun.core.cells cimport cells
from vmrun.devices.network.nic cimport TURN
from vmrun.devices.network.frames cimport (
    BROADCAST, FCS, SHORTEST, UNICAST, crc_last, kind, le16, le32, put_le16, put_le32,
)

from vmrun.core.state import Bytes, Deadline, Flag, Signed, Table, U8, U32, Words
from vmrun.devices.network.nic import NicTimer as _NicTimer
from vmrun.errors import StateError

cdef enum:                      # CSR0
    INIT = 0x0001
    STRT = 0x0002
    STOP = 0x0004
    TDMD = 0x0008
    TXON = 0x0010
    RXON = 0x0020
    IENA = 0x0040
    INTR = 0x0080
    IDON = 0x0100
    TINT = 0x0200
    RINT = 0x0400
    MISS = 0x1000
    CERR = 0x2000

cdef enum:                      # others
    DXSUFLO = 0x0040            # CSR3
    TXSTRTM = 0x0004            # CSR4; qemu-kvm's card sets the mask where TXSTRT is meant
    DPOLL = 0x1000
    SPND = 0x0001               # CSR5
    LTINTEN = 0x4000
    TOKINTD = 0x8000
    DRX = 0x0001                # CSR15, MODE
    DTX = 0x0002
    LOOP = 0x0004
    DXMTFCS = 0x0008
    INTL = 0x0040
    DRCVPA = 0x2000
    DRCVBC = 0x4000
    PROM = 0x8000
    CURRENT_RECEIVE = 28        # pairs of CSRs: descriptor addresses
    NEXT_RECEIVE = 26
    AFTER_NEXT_RECEIVE = 36
    CURRENT_TRANSMIT = 34
    RCVRC = 72                  # counters count down from the lengths
    XMTRC = 74
    RCVRL = 76
    XMTRL = 78
    MFC = 112                   # missed frames
    MC = 2                      # BCRs
    APROMWE = 0x0100
    TMAULOOP = 0x4000
    BSBC = 18
    DWIO = 0x0080
    SWS = 20
    SSIZE32 = 0x0100

cdef enum:                      # descriptors
    OWN = 0x8000
    ERR = 0x4000
    STP = 0x0200
    ENP = 0x0100
    BCNT = 0x0FFF
    R_OFLO = 0x1000
    R_CRC = 0x0800
    R_BUFF = 0x0400
    R_PAM = 0x0040
    R_LAFM = 0x0020
    R_BAM = 0x0010
    T_ADD_FCS = 0x2000
    T_LTINT = 0x1000
    T_LCAR = 0x08000000
    T_UFLO = 0x40000000
    WITH_CRC = 1                # loop_test
    WITHOUT_CRC = 2

cdef u32 T_BUFF = 0x80000000U
cdef i64 POLL_EVERY = 1986000           # ns: 65,536 PCI clocks

_CSR_AT_RESET = {
    0: 0x0004, 3: 0, 4: 0x0115, 5: 0, 6: 0, 8: 0, 9: 0, 10: 0, 11: 0, 72: 1, 74: 1, 76: 1, 78: 1, 80: 0x1410, 88: 0x1003,
    89: 0x0262, 94: 0, 100: 0x0200, 103: 0x0105, 112: 0, 114: 0, 122: 0, 124: 0,
}
_BCR_AT_RESET = {
    0: 0x0005, 1: 0x0005, 2: 0x0002, 4: 0x00C0, 5: 0x0084, 6: 0x0088, 7: 0x0090, 9: 0, 18: 0x9001, 19: 0x0002, 20: 0x0200,
    22: 0xFF06,
}
cdef u32 CSR_VALUES[128]                # after a reset; 0x10000: it stays as it is
cdef u8 CSR_WRITABLE[128]               # 1: always; 2: while the chip is stopped or suspended
cdef u32 BCR_WRITABLE = 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 2 | 1 << 9 | 1 << 18 | 1 << 19 | 1 << 22 | 1 << 20


def _fill():
    for n in range(128):
        CSR_VALUES[n] = _CSR_AT_RESET.get(n, 0x10000)
    for n in (1, 2, *range(8, 16), *range(18, 48), 72, 74, 76, 78, 112):
        CSR_WRITABLE[n] = 2
    for n in (3, 4, 5):
        CSR_WRITABLE[n] = 1


_fill()


def prom_of(address):
    """The 16 bytes of the address PROM."""
    data = bytearray(address + bytes((0, 0, 0, 0x11, 0, 0, 0, 0, 0x57, 0x57)))
    data[12:14] = sum(data).to_bytes(2, "little")
    return bytes(data)


cdef class Pcnet(NicChip):
    """32 bytes of ports, or memory."""

    state = Table(
        "pcnet", 2,
        Words("csrs", 128, 0xFFFF), Words("bcrs", 32, 0xFFFF, [_BCR_AT_RESET.get(n, 0) for n in range(32)]),
        Bytes("aprom_cells", 16, lambda chip: prom_of(chip.address)), Bytes("frame_cells", MOST),
        Signed("frame_size", -1, MOST, -1), U8("rap", most=127), U32("rdra"), U32("tdra"), Flag("raised"), Deadline("timer"),
        U32("left", most=0xFFFF), U32("begin"), Flag("adding"),
        readers={1: lambda values: {**values, "left": 0, "begin": 0, "adding": False}},
    )
    _, save, load_state = state.methods()

    def __init__(self, dma, irq, timers, address):
        self.min_access, self.max_access = 1, 4
        self.dma, self.irq, self.clock = dma, irq, timers.clock
        self.address = bytes(address)
        self.timer = _NicTimer(timers, self, 0)
        self.reset()

    def reset(self):
        type(self).state.reset(self)
        self.soft_reset()
        self.update()

    def stop(self):
        self.timer.stop()

    cdef void soft_reset(self) noexcept nogil:
        """A read of the reset port."""
        cdef u32 n
        self.rdra = self.tdra = self.rap = 0
        self.bcrs[BSBC] &= 0xFFFF & ~DWIO
        for n in range(128):
            if CSR_VALUES[n] < 0x10000:
                self.csrs[n] = CSR_VALUES[n]
        for n in range(3):
            self.csrs[12 + n] = le16(self.aprom + 2 * n)
        self.csrs[15] &= 0x21C4
        self.left = 0
        self.timer.cancel()

    # --- interrupts and time ------------------------------------------------------------------------------

    cdef void update(self) noexcept nogil:
        cdef u32 c0 = self.csrs[0] & ~<u32>INTR, c4 = self.csrs[4], c5 = self.csrs[5]
        cdef bint out = False
        if c0 & ~<u32>self.csrs[3] & 0x5F00 or c4 >> 1 & ~c4 & 0x0115 or c5 >> 1 & c5 & 0x0048:
            out = c0 & IENA != 0
            c0 |= INTR
        if c4 & 0x0080 and c0 & IENA:                           # UINTCMD
            self.csrs[4] = c4 & 0xFF7F | 0x0040
            c0 |= INTR
            out = True
        if c5 >> 1 & c5 & 0x0500:
            c0 |= INTR
            out = True
        self.csrs[0] = c0
        self.raised = out
        self.irq.set(out)

    cdef void poll_later(self) noexcept nogil:
        if self.left:
            self.timer.arm(self.clock.now())
        elif not self.csrs[0] & STOP and not self.csrs[5] & SPND and not self.csrs[4] & DPOLL:
            if not self.timer.pending():
                self.timer.arm(self.clock.now() + POLL_EVERY)
        else:
            self.timer.cancel()

    cdef void timed(self, u32 which) noexcept nogil:
        self.poll()
        self.update()
        self.poll_later()

    cdef void poll(self) noexcept nogil:
        if self.csrs[0] & RXON:
            self.look_at_receive()
        if self.left or self.csrs[0] & TDMD or self.csrs[0] & TXON and not self.csrs[4] & DPOLL and self.look_at_transmit():
            self.transmit_all()

    # --- ports ------------------------------------------------------------------------------------------------

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u32 at = <u32>offset & 0x1F, value = 0xFFFFFFFFU, n
        cdef bint wide = self.bcrs[BSBC] & DWIO != 0
        if at < 0x10:
            if (size < 4) != wide and not at & (size - 1):
                value = 0
                for n in range(size):
                    value |= <u32>self.aprom[at + n] << (8 * n)
            return value
        if size == 1 or (size == 4) != wide:
            return value
        at = at & 0xF if not wide else (at & 0xF) >> 1          # RDP, RAP, RESET, BDP at 0, 2, 4, 6
        if at == 0:
            value = self.read_csr(self.rap)
        elif at == 2:
            value = self.rap
        elif at == 4:
            self.soft_reset()
            value = 0
        elif at == 6:
            value = self.read_bcr(self.rap)
        self.update()
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 at = <u32>offset & 0x1F, n
        cdef bint wide = self.bcrs[BSBC] & DWIO != 0
        if at < 0x10:
            if (size < 4) != wide and not at & (size - 1) and self.bcrs[MC] & APROMWE:
                for n in range(size):
                    self.aprom[at + n] = value >> (8 * n) & 0xFF
            return 0
        if size == 4 and not wide:
            if at == 0x10:                                      # this is how a driver chooses wide accesses
                self.bcrs[BSBC] |= DWIO
        elif size == 2 and not wide or size == 4 and wide:
            at = at & 0xF if not wide else (at & 0xF) >> 1
            if at == 0:
                self.write_csr(self.rap, <u32>value & 0xFFFF)
            elif at == 2:
                self.rap = <u32>value & 0x7F
            elif at == 6:
                self.write_bcr(self.rap, <u32>value & 0xFFFF)
        self.update()
        self.poll_later()
        return 0

    cdef u32 read_csr(self, u32 n) noexcept nogil:
        if n == 0:
            self.update()
            return self.csrs[0] | (0x8000 if self.csrs[0] & 0x7800 else 0)
        if n == 16 or n == 17:
            return self.csrs[n - 15]
        if n == 58:
            return self.read_bcr(SWS)
        if n == 88:
            return <u32>self.csrs[89] << 16 | self.csrs[88]
        return self.csrs[n]

    cdef void write_csr(self, u32 n, u32 value) noexcept nogil:
        cdef u32 kept
        if n == 0:
            kept = self.csrs[0] & ~(value & 0x7F00)
            self.csrs[0] = kept & ~<u32>IENA | value & (IENA | TDMD)
            value = value & 0x7F
            if value & 7 == 7:
                value &= ~<u32>(INIT | STRT)
            if value & STOP and not self.csrs[0] & STOP:
                self.halt()
            if value & INIT and not self.csrs[0] & INIT:
                self.initialize()
            if value & STRT and not self.csrs[0] & STRT:
                self.start()
            if self.csrs[0] & TDMD:
                self.transmit_all()
            return
        if n == 16 or n == 17:
            n -= 15
        if n == 58:
            self.write_bcr(SWS, value)
            self.csrs[58] = value
            return
        if not CSR_WRITABLE[n] or CSR_WRITABLE[n] == 2 and not (self.csrs[0] & STOP or self.csrs[5] & SPND):
            return
        if n == 4:
            value = value & ~<u32>0x026A | self.csrs[4] & ~value & 0x026A
        elif n == 5:
            value = value & ~<u32>0x0A90 | self.csrs[5] & ~value & 0x0A90
        elif (n == RCVRL or n == XMTRL) and not value:
            value = 512
        self.csrs[n] = value
        if n == 5:
            self.room()

    cdef u32 read_bcr(self, u32 n) noexcept nogil:
        cdef u32 value
        if n >= 32:
            return 0
        value = self.bcrs[n]
        if 4 <= n <= 7:                                         # LEDs: bit 15 is whether one is on
            value = value & 0x7FFF | (0x8000 if value & 0x40 and self.link_up else 0)
        return value

    cdef void write_bcr(self, u32 n, u32 value) noexcept nogil:
        cdef u32 style = value & 0xFF
        if n >= 32 or not BCR_WRITABLE >> n & 1:
            return
        if n == SWS:
            if not (self.csrs[0] & STOP or self.csrs[5] & SPND):
                return
            value &= ~<u32>0x0300
            if style == 0:
                value |= 0x0200
            elif style == 1:
                value |= 0x0100
            elif style <= 3:
                value |= 0x0300
            else:
                value = 0x0200
        self.bcrs[n] = value

    # --- start and stop -----------------------------------------------------------------------------------

    cdef u32 pair(self, u32 n) noexcept nogil:
        return self.csrs[n] | <u32>self.csrs[n + 1] << 16

    cdef void set_pair(self, u32 n, u32 value) noexcept nogil:
        self.csrs[n], self.csrs[n + 1] = value & 0xFFFF, value >> 16

    cdef u32 physical(self, u32 address) noexcept nogil:
        """With 16-bit structures addresses have 24 bits; CSR2 gives the rest."""
        if self.bcrs[SWS] & SSIZE32:
            return address
        return address & 0x00FFFFFF | <u32>(self.csrs[2] & 0xFF00) << 16

    cdef void initialize(self) noexcept nogil:
        """Read the initialization block."""
        cdef u8 block[28]
        cdef u32 rlen, tlen, rdra, tdra, n, at
        cdef bint wide = self.bcrs[SWS] & SSIZE32 != 0
        self.dma.read_into(self.physical(self.pair(1)), block, 28 if wide else 24)
        if wide:
            rlen, tlen = block[2] >> 4, block[3] >> 4
            at, rdra, tdra = 4, le32(block + 20), le32(block + 24)
        else:
            at, rdra, tdra = 2, le32(block + 16), le32(block + 20)
            rlen, tlen = rdra >> 29, tdra >> 29
            rdra &= 0xFFFFFF
            tdra &= 0xFFFFFF
        self.csrs[15] = le16(block)
        for n in range(3):
            self.csrs[12 + n] = le16(block + at + 2 * n)
        at += 8 if wide else 6
        for n in range(4):
            self.csrs[8 + n] = le16(block + at + 2 * n)
        self.csrs[RCVRL] = 1 << rlen if rlen < 9 else 512
        self.csrs[XMTRL] = 1 << tlen if tlen < 9 else 512
        self.csrs[RCVRC], self.csrs[XMTRC] = self.csrs[RCVRL], self.csrs[XMTRL]
        self.csrs[6] = tlen << 12 | rlen << 8
        self.rdra, self.tdra = self.physical(rdra), self.physical(tdra)
        self.csrs[0] = (self.csrs[0] | IDON | INIT) & 0xFFFF & ~STOP
        self.room()

    cdef void start(self) noexcept nogil:
        if not self.csrs[15] & DTX:
            self.csrs[0] |= TXON
        if not self.csrs[15] & DRX:
            self.csrs[0] |= RXON
        self.csrs[0] = (self.csrs[0] | STRT) & 0xFFFF & ~STOP
        self.frame_size = -1
        self.room()

    cdef void halt(self) noexcept nogil:
        self.csrs[0] = self.csrs[0] & 0x0014 | 0x0014
        self.left = 0
        self.csrs[4] &= 0xFFFF & ~0x02C2
        self.csrs[5] &= 0xFFFF & ~0x0011

    # --- descriptors ----------------------------------------------------------------------------------------

    cdef u32 stride(self) noexcept nogil:
        return 16 if self.bcrs[SWS] & 0xFF else 8

    cdef void load(self, u32 at, Descriptor *found, bint transmit) noexcept nogil:
        cdef u8 raw[16]
        if not self.bcrs[SWS] & SSIZE32:
            self.dma.read_into(at, raw, 8)
            found.address, found.status = le32(raw) & 0xFFFFFF, <u32>raw[3] << 8
            found.length, found.more = le16(raw + 4), le16(raw + 6) << (16 if transmit else 0)
            found.user = 0
            return
        self.dma.read_into(at, raw, 16)
        found.address, found.length, found.status = le32(raw), le16(raw + 4), le16(raw + 6)
        found.more, found.user = le32(raw + 8), le32(raw + 12)
        if self.bcrs[SWS] & 0xFF == 3:
            found.address, found.more = found.more, found.address

    cdef void store(self, u32 at, Descriptor *what, bint transmit) noexcept nogil:
        """The words without OWN first: a driver may look at any time."""
        cdef u8 raw[16]
        cdef bint third = self.bcrs[SWS] & 0xFF == 3
        if not self.bcrs[SWS] & SSIZE32:
            put_le32(raw, what.address & 0xFFFFFF | (what.status & 0xFF00) << 16)
            put_le16(raw + 4, what.length)
            put_le16(raw + 6, what.more >> (16 if transmit else 0))
            self.dma.write_from(at + 4, raw + 4, 4)
            self.dma.write_from(at, raw, 4)
            return
        put_le32(raw, what.more if third else what.address)
        put_le16(raw + 4, what.length)
        put_le16(raw + 6, what.status)
        put_le32(raw + 8, what.address if third else what.more)
        put_le32(raw + 12, what.user)
        self.dma.write_from(at + 8, raw + 8, 8)
        self.dma.write_from(at, raw, 4)
        self.dma.write_from(at + 4, raw + 4, 4)

    cdef bint bad(self, u32 at, bint transmit) noexcept nogil:
        """The ones are not there, or the zeros."""
        cdef Descriptor found
        self.load(at, &found, transmit)
        return found.length >> 12 != 15 or not transmit and found.more >> 12 & 15 != 0

    cdef u32 receive_place(self, i64 back) noexcept nogil:
        """Address of the receive descriptor whose count is `back`, however far below 1."""
        cdef i64 length = self.csrs[RCVRL] if self.csrs[RCVRL] else 512
        if back < 1:
            back += length * ((length - back) // length)
        return self.rdra + <u32>((length - back) * self.stride())

    cdef void look_at_receive(self) noexcept nogil:
        """Current, next and second next descriptor into their CSRs."""
        cdef Descriptor found
        cdef u32 now, following, after
        cdef bint wrong
        self.set_pair(CURRENT_RECEIVE, 0)
        if self.rdra:
            now = self.receive_place(self.csrs[RCVRC])
            following = self.receive_place(<i64>self.csrs[RCVRC] - 1)
            after = self.receive_place(<i64>self.csrs[RCVRC] - 2)
            if not self.bad(now, False):
                wrong = self.bad(following, False)
                if wrong or following == now:
                    following = 0
                wrong = wrong or self.bad(after, False)
                if wrong or after == now:
                    after = 0
                self.set_pair(CURRENT_RECEIVE, now)
                self.set_pair(NEXT_RECEIVE, following)
                self.set_pair(AFTER_NEXT_RECEIVE, after)
        self.csrs[40] = self.csrs[41] = self.csrs[44] = self.csrs[45] = 0
        if self.pair(CURRENT_RECEIVE):
            self.load(self.physical(self.pair(CURRENT_RECEIVE)), &found, False)
            self.csrs[40], self.csrs[41] = found.length & BCNT, found.status & 0xFFFF
        if self.pair(NEXT_RECEIVE):
            self.load(self.physical(self.pair(NEXT_RECEIVE)), &found, False)
            self.csrs[44], self.csrs[45] = found.length & BCNT, found.status & 0xFFFF

    cdef bint look_at_transmit(self) noexcept nogil:
        """The current descriptor into its CSRs; whether it is the chip's."""
        cdef Descriptor found
        cdef u32 now
        self.set_pair(CURRENT_TRANSMIT, 0)
        if self.tdra:
            now = self.tdra + <u32>(self.csrs[XMTRL] - self.csrs[XMTRC]) * self.stride()
            if not self.bad(now, True):
                if now:
                    self.csrs[60] = self.csrs[61] = 0
                    self.csrs[62], self.csrs[63] = self.csrs[42], self.csrs[43]
                self.set_pair(CURRENT_TRANSMIT, now)
        self.csrs[42] = self.csrs[43] = 0
        if self.pair(CURRENT_TRANSMIT):
            self.load(self.physical(self.pair(CURRENT_TRANSMIT)), &found, True)
            self.csrs[42], self.csrs[43] = found.length & BCNT, found.status & 0xFFFF
        return self.csrs[43] & OWN != 0

    # --- transmit -------------------------------------------------------------------------------------------

    cdef void fetch(self, Descriptor *descriptor) noexcept nogil:
        cdef u32 part = min(<u32>(4096 - (descriptor.length & BCNT)), <u32>(MOST - self.frame_size))
        self.dma.read_into(self.physical(descriptor.address), self.frame + self.frame_size, part)
        self.frame_size += part

    cdef void transmit_all(self) noexcept nogil:
        """Descriptors from the current one on, at most once around the ring: `left` are to be looked at. What a turn leaves
        over, half a frame too, follows from the timer.
        """
        cdef Descriptor now
        cdef u32 at
        cdef bint more = True, again = self.left != 0
        if self.transmitting:
            return
        if not self.left:
            self.frame_size, self.begin, self.adding = -1, 0, False
        if not self.csrs[0] & TXON:
            self.csrs[0] &= 0xFFFF & ~TDMD
            self.left, self.frame_size = 0, -1
            return
        if not self.left:
            self.left = max(<u32>self.csrs[XMTRL], <u32>1)
        self.transmitting = True
        self.spent = 0
        while self.left and more and self.spent < TURN:
            more = self.look_at_transmit()
            if not more:
                break
            self.spent += 2                                         # it is looked at twice, and written
            self.left -= 1
            at = self.physical(self.pair(CURRENT_TRANSMIT))
            self.load(at, &now, True)
            if now.status & STP:
                self.frame_size, self.begin = 0, at
                if self.bcrs[SWS] & 0xFF != 1:
                    self.adding = now.status & T_ADD_FCS != 0
            if not self.link_up and (
                not self.csrs[15] & LOOP or not self.csrs[15] & INTL and not self.bcrs[MC] & TMAULOOP
            ):
                now.more |= T_LCAR
                now.status |= ERR
                self.csrs[0] |= 0x8000 | CERR
                self.frame_size = -1
            elif self.frame_size >= 0:
                self.fetch(&now)
                if now.status & ENP:
                    if self.csrs[15] & LOOP:
                        if self.bcrs[SWS] & 0xFF == 1:
                            self.adding = not now.status & T_ADD_FCS
                        self.loop_test = WITH_CRC if self.adding else WITHOUT_CRC
                        self.work(<u32>self.frame_size)
                        self.receive(self.frame, <u32>self.frame_size)
                        self.loop_test = 0
                    else:
                        self.transmit(self.frame, <u32>self.frame_size)
                    self.csrs[0] &= 0xFFFF & ~TDMD
                    self.csrs[4] |= TXSTRTM
                    self.frame_size = -1
            now.status &= ~<u32>OWN
            self.store(at, &now, True)
            if not self.csrs[5] & TOKINTD or self.csrs[5] & LTINTEN and now.status & T_LTINT:
                self.csrs[0] |= TINT
            self.csrs[XMTRC] = self.csrs[XMTRL] if self.csrs[XMTRC] <= 1 else self.csrs[XMTRC] - 1
        if not more:
            self.left = 0
        if self.frame_size >= 0 and not self.left and not self.csrs[43] & OWN:  # a frame whose end is not there: underflow
            self.load(self.begin, &now, True)
            now.more |= T_BUFF | T_UFLO
            now.status = (now.status | ERR) & ~<u32>OWN
            self.store(self.begin, &now, True)
            self.csrs[0] |= TINT
            self.frame_size = -1
            if not self.csrs[3] & DXSUFLO:
                self.csrs[0] &= 0xFFFF & ~(TXON | TDMD)
        self.transmitting = False
        if again and not self.left:
            self.room()                                             # what came waited until the frame was whole

    # --- receive ----------------------------------------------------------------------------------------------

    cdef bint ready(self) noexcept nogil:
        # half a frame that the next turn goes on with is in the way; one that is being sent is not
        cdef bint half = self.left and self.frame_size >= 0 and not self.transmitting
        return not (self.csrs[0] & STOP or self.csrs[5] & SPND or half)

    cdef u32 taken(self, const u8 *frame) noexcept nogil:
        """By which match a frame is received, as its status has it; 0: it is not."""
        cdef u32 n, mode = self.csrs[15]
        cdef int to = kind(frame)
        if not mode & DRCVPA:
            n = 0
            while n < 3 and le16(frame + 2 * n) == self.csrs[12 + n]:
                n += 1
            if n == 3:
                return R_PAM
        if to == BROADCAST and not mode & DRCVBC:
            return R_BAM
        if to != UNICAST:
            n = crc_last(frame, 6) >> 26
            if self.csrs[8 + (n >> 4)] >> (n & 15) & 1:
                return R_LAFM
        return 0

    cdef u32 fill(self, Descriptor *descriptor, u32 at, u32 done, u32 size) noexcept nogil:
        """Bytes of the frame from `done` on into a descriptor's buffer, which is given back; where it goes on."""
        cdef u32 part = min(<u32>(4096 - (descriptor.length & BCNT)), size - done)
        self.dma.write_from(self.physical(descriptor.address), self.frame + done, part)
        descriptor.status &= ~<u32>OWN
        self.store(at, descriptor, False)
        return done + part

    cdef int receive(self, const u8 *data, u32 size) noexcept nogil:
        cdef Descriptor now
        cdef u32 how = 0, at, done, used, n, place, crc
        cdef u32 following[2]
        cdef bint wrong = False
        if self.csrs[15] & DRX or self.csrs[0] & STOP or self.csrs[5] & SPND or not size:
            return 1
        if self.csrs[15] & LOOP and not self.loop_test:
            return 1
        if size > MOST:
            return 1
        if data != self.frame:
            memcpy(self.frame, data, size)
        if size < SHORTEST:
            memset(self.frame + size, 0, SHORTEST - size)
            size = SHORTEST
        if not self.csrs[15] & PROM:
            how = self.taken(self.frame)
            if not how:
                self.poll()
                self.update()
                return 1
        self.look_at_receive()
        if not self.csrs[41] & OWN and self.rdra:
            place = self.csrs[RCVRC] - 1
            for n in range(1, min(<u32>self.csrs[RCVRL], <u32>LONGEST_RING)):
                if <int>place <= 1:
                    place = self.csrs[RCVRL]
                self.load(self.rdra + (self.csrs[RCVRL] - place) * self.stride(), &now, False)
                if now.status & OWN:
                    self.csrs[RCVRC] = place
                    self.look_at_receive()
                    break
                place -= 1
        if not self.csrs[41] & OWN:
            self.csrs[0] |= MISS
            self.csrs[MFC] += 1
        else:
            if not self.loop_test:
                memset(self.frame + size, 0, FCS)
                size += FCS
            elif self.loop_test == WITH_CRC or not self.csrs[15] & DXMTFCS or size < SHORTEST + FCS:
                crc = crc_last(self.frame, size)
                for n in range(4):
                    self.frame[size + n] = crc >> (24 - 8 * n) & 0xFF
                size += FCS
            else:
                crc = crc_last(self.frame, size - FCS)
                for n in range(4):
                    wrong = wrong or self.frame[size - FCS + n] != (crc >> (24 - 8 * n) & 0xFF)
            following[0], following[1] = self.pair(NEXT_RECEIVE), self.pair(AFTER_NEXT_RECEIVE)
            at = self.physical(self.pair(CURRENT_RECEIVE))
            self.load(at, &now, False)
            now.status |= STP
            done = self.fill(&now, at, 0, size)
            used = 1
            while done < size and used < 3 and following[used - 1]:
                self.load(self.physical(following[used - 1]), &now, False)
                if not now.status & OWN:
                    break
                at = self.physical(following[used - 1])
                done = self.fill(&now, at, done, size)
                used += 1
            self.load(at, &now, False)
            if done == size:
                now.more = now.more & ~<u32>0x0FFF | size & 0x0FFF
                now.status = now.status & ~<u32>(R_PAM | R_LAFM | R_BAM) | ENP | how
                if wrong:
                    now.status |= R_CRC | ERR
            else:
                now.status |= R_OFLO | R_BUFF | ERR
            self.store(at, &now, False)
            self.csrs[0] |= RINT
            for n in range(used):
                self.csrs[RCVRC] = self.csrs[RCVRL] if self.csrs[RCVRC] <= 1 else self.csrs[RCVRC] - 1
            self.look_at_receive()
        self.poll()
        self.update()
        return 1

    # --- state ------------------------------------------------------------------------------------------------

    @property
    def aprom_cells(self):
        return cells(self, self.aprom, 16)

    @property
    def frame_cells(self):
        return cells(self, self.frame, MOST)

    def check_state(self, values):
        if not values["csrs"][RCVRL] and values["rdra"]:
            raise StateError("pcnet: a receive ring of no descriptors")

    def settle(self):
        self.irq.set(self.raised)
