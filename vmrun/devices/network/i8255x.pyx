"""Intel 82557, 82558, 82559, 82550, 82551, 82562 and the ICH's LAN function, compiled: the chip alone; eepro100.py
has the cards.

Ref: Intel 8255x 10/100 Mbps Ethernet Controller Family, Open Source Software Developer Manual 1.3: CSR 6.3, SCB 6.3.2,
PORT 6.3.3, EEPROM 6.3.4, MDI 6.3.6, command blocks 6.4.2, receive frames 6.4.3, counters 6.3.2.2.5. Intel 82555 data
sheet (PHY). Register and command names are the manual's.
Not modelled: flexible receive frames (header and buffer descriptors), early receive, flow control, wake-up, the Flash,
the microcode (it is taken and not run), the internal dump's contents, checksums and VLAN tags of the 82550 and 82551.

A frame that finds the receive unit suspended or without resources is lost and counted, as in hardware. RU Start does
nothing while the unit is ready: iPXE gives it twice, and a frame that came in between would make the unit go through
the same list again, whose buffers the driver has freed by then. The last frame of a list comes LAST_WAITS later: the
wire gives a driver that time to add to the list, and iPXE, which looks at its frames first and at the unit then,
restarts it at frames that it has not seen where a whole list fills in between. Chains of command blocks run for a TURN
at a time, the rest from a timer: a chain that ends in itself keeps nobody.
"""

from libc.string cimport memcpy, memmove, memset

from vmrun.core.cells cimport cells

from vmrun.devices.network.nic cimport TURN
from vmrun.devices.network.frames cimport (
    BROADCAST, FCS, MULTICAST, SHORTEST, be16, crc_first, crc_last, kind, le16, le32, put_le16, put_le32,
)

from vmrun.core.state import Bytes, Deadline, Flag, Part, Table, U8, U32, Words
from vmrun.core.eeprom93 import Eeprom93 as _Eeprom93
from vmrun.devices.network.nic import NicTimer as _NicTimer

cdef enum:
    # registers
    STATUS = 0
    ACK = 1
    COMMAND = 2
    MASK = 3
    POINTER = 4
    PORT = 8
    FLASH = 12
    EEPROM = 14
    MDI = 16
    REGISTERS = 64
    # SCB status: STAT/ACK, and the interrupt masks
    INT_CX = 0x80
    INT_FR = 0x40
    INT_CNA = 0x20
    INT_RNR = 0x10
    INT_MDI = 0x08
    INT_SWI = 0x04
    INT_FCP = 0x01
    MASK_FCP = 0x04
    MASK_SI = 0x02
    MASK_ALL = 0x01
    # units
    CU_IDLE = 0
    CU_SUSPENDED = 1
    CU_ACTIVE = 2
    RU_IDLE = 0
    RU_SUSPENDED = 1
    RU_STARVED = 2              # no resources
    RU_READY = 4
    # command blocks and receive frames
    CB_C = 0x8000
    CB_OK = 0x2000
    CB_EL = 0x8000
    CB_S = 0x4000
    CB_I = 0x2000
    CB_SF = 0x0008
    RFD_BROADCAST = 0x0000
    RFD_NO_MATCH = 0x0004       # of an individual address exactly, as promiscuous mode or a hash lets it in
    RFD_NOT_MINE = 0x0002
    RFD_TYPE = 0x0020           # a type, not a length
    RFD_F = 0x4000
    RFD_EOF = 0x8000
    ALONE = 0xFFFFFFFF          # TBD array address: the frame follows the block
    BLOCK = 16
    LONGEST = 1518
    # counters
    TX_GOOD = 0
    RX_GOOD = 9
    RX_STARVED = 12
    RX_SHORT = 15
    COUNTERS = 20
    # EEPROM control
    EE_SK = 1
    EE_CS = 2
    EE_DI = 4
    EE_DO = 8
    EE_KEPT = 7
    # MDI
    MDI_WRITE = 1
    MDI_READ = 2
    MDI_READY = 1 << 28
    MDI_IE = 1 << 29
    BMCR = 0
    BMSR = 1
    BMSR_LINK = 0x0004
    BMSR_DONE = 0x0020
    # which timer
    COMMANDS_ON = 0
    LAST_MAY_COME = 1

_PHY_AT_RESET = {0: 0x3000, 1: 0x7809, 2: 0x02A8, 3: 0x0154, 4: 0x05E1, 5: 0x41FE, 6: 0x0001}
cdef u32 PHY_WRITABLE[32]
PHY_WRITABLE[:] = [0x7D80, 0, 0, 0, 0xFFFF] + [0] * 11 + [0xFFFF] * 16

# Bytes 0 to 21 of `configure` after a reset: standard transmit blocks and counters, padding, short frames dropped.
_CONFIGURATION = bytes((22, 8, 0, 0, 0, 0, 0x32, 3, 1, 0, 0x2E, 0, 0x60, 0, 0xF2, 0xC8, 0, 0x40, 0xF2, 0x80, 0x3F, 5))
cdef u8 DEFAULTS[22]
DEFAULTS[:] = list(_CONFIGURATION)
EEPROM_SUM = 0xBABA
cdef i64 LAST_WAITS = 500000                # ns: four frames on a wire of 100 Mbit/s


def eeprom_words(address):
    """64 words: the station address, one PHY at address 1; the sum of all is 0xBABA."""
    words = [0] * 63
    for n in range(3):
        words[n] = address[2 * n] | address[2 * n + 1] << 8
    words[5], words[6] = 0x4000, 0x0001
    return [*words, (EEPROM_SUM - sum(words)) & 0xFFFF]


cdef class I8255x(NicChip):
    """64 bytes of registers. `extended`: 82558 and later, with extended transmit blocks and counters; `tco`: 82559 and
    later, with three counters more."""

    state = Table(
        "i8255x", 2,
        Bytes("registers", REGISTERS), Bytes("configuration", 22, _CONFIGURATION), Bytes("individual", 6, lambda chip: chip.address),
        Bytes("multicast", 8), Words("phy", 32, 0xFFFF), Words("counts", COUNTERS, 0xFFFFFFFF), Part("eeprom"), Deadline("timer"),
        U8("cu", CU_IDLE, only=(CU_IDLE, CU_SUSPENDED, CU_ACTIVE)), U8("ru", RU_IDLE, only=(RU_IDLE, RU_SUSPENDED, RU_STARVED, RU_READY)),
        U8("status"), U8("mask"), U32("cu_base"), U32("cu_offset"), U32("ru_base"), U32("ru_offset"), U32("counters"),
        Flag("last_may_come"), Deadline("last_timer"),
        readers={1: lambda before: {**before, "last_may_come": False, "last_timer": None}},
    )  # fmt: skip
    _, save, load_state = state.methods()

    def __init__(self, dma, irq, timers, address, extended=True, tco=True):
        self.min_access, self.max_access = 1, 4
        self.dma, self.irq, self.clock = dma, irq, timers.clock
        self.address, self.extended, self.tco = bytes(address), extended, tco
        self.eeprom = _Eeprom93(64)
        self.eeprom.words = eeprom_words(self.address)
        self.timer = _NicTimer(timers, self, COMMANDS_ON)
        self.last_timer = _NicTimer(timers, self, LAST_MAY_COME)
        self.reset()

    def reset(self):
        type(self).state.reset(self)
        for n, value in _PHY_AT_RESET.items():
            self.phy[n] = value
        put_le32(self.cells + MDI, 1 << 28 | 1 << 21)
        self.link_registers()
        self.settle()
        if self.net is not None:
            self.room()                                         # who waits for a list's last frame has no list any more

    def settle(self):
        self.update()

    def stop(self):
        self.timer.stop()
        self.last_timer.stop()

    def link_registers(self):
        self.link_changed()

    cdef void link_changed(self) noexcept nogil:
        self.phy[BMSR] &= 0xFFFF & ~(BMSR_LINK | BMSR_DONE)
        if self.link_up:
            self.phy[BMSR] |= BMSR_LINK | BMSR_DONE

    # --- interrupts -------------------------------------------------------------------------------------------

    cdef void update(self) noexcept nogil:
        cdef u32 held = self.mask & (INT_CX | INT_FR | INT_CNA | INT_RNR)
        if self.mask & MASK_FCP:
            held |= INT_FCP
        self.irq.set(not self.mask & MASK_ALL and self.status & ~held != 0)

    cdef void interrupt(self, u32 bits) noexcept nogil:
        self.status |= bits
        self.update()

    cdef void halt(self) noexcept nogil:
        """Both units idle."""
        self.cu, self.ru = CU_IDLE, RU_IDLE
        self.timer.cancel()

    cdef void clear(self) noexcept nogil:
        """A software reset: all but the EEPROM and the PHY."""
        self.halt()
        self.status = self.mask = 0
        self.cu_base = self.cu_offset = self.ru_base = self.ru_offset = self.counters = 0
        memset(self.counts, 0, sizeof(self.counts))
        memset(self.hash, 0, 8)
        memset(self.cells, 0, MDI)
        memcpy(self.config, DEFAULTS, 22)
        self.update()

    # --- registers --------------------------------------------------------------------------------------------

    cdef u32 byte_at(self, u32 at) noexcept nogil:
        if at == STATUS:
            return self.cu << 6 | self.ru << 2
        if at == ACK:
            return self.status
        if at == COMMAND:
            return 0                                            # every command is taken at once
        if at == MASK:
            return self.mask & 0xFD                             # SI reads as 0
        if at == EEPROM:
            return self.cells[EEPROM] & EE_KEPT | (EE_DO if self.eeprom.out else 0)
        return self.cells[at]

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u64 value = 0
        cdef u32 n
        for n in range(size):
            if offset + n < REGISTERS:
                value |= <u64>self.byte_at(<u32>offset + n) << 8 * n
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 at, n, byte
        if offset + size > REGISTERS:
            return 0
        for n in range(size):
            at, byte = <u32>offset + n, value >> 8 * n & 0xFF
            if at == ACK:
                self.status &= ~byte
                self.update()
            elif at == MASK:
                self.mask = byte & 0xFD
                self.update()
                if byte & MASK_SI:
                    self.interrupt(INT_SWI)
            elif at == EEPROM:
                self.cells[EEPROM] = byte & EE_KEPT
                self.eeprom.drive(byte & EE_CS != 0, byte & EE_SK != 0, byte & EE_DI != 0)
            elif at >= POINTER:
                self.cells[at] = byte
        if offset <= COMMAND < offset + size:                   # last: it may go with its pointer's or masks' bytes
            self.command(value >> 8 * (COMMAND - offset) & 0xFF)
        if offset <= PORT + 3 < offset + size:
            self.port_command(le32(self.cells + PORT))
        if offset <= MDI + 3 < offset + size:
            self.mdi()
        return 0

    cdef void port_command(self, u32 value) noexcept nogil:
        cdef u8 result[8]
        cdef u32 what = value & 15
        if what == 0:
            self.clear()
        elif what == 1:                                         # self-test: a signature, and no failure
            put_le32(result, 0xFFFFFFFFU)
            put_le32(result + 4, 0)
            self.dma.write_from(value & ~<u32>15, result, 8)
            self.clear()
        elif what == 2:
            self.halt()

    cdef void mdi(self) noexcept nogil:
        cdef u32 value = le32(self.cells + MDI), which = value >> 16 & 31, op = value >> 26 & 3, data = value & 0xFFFF
        if value >> 21 & 31 != 1:                               # there is one PHY
            data = 0
        elif op == MDI_READ:
            data = self.phy[which]
        elif op == MDI_WRITE:
            if which == BMCR and data & 0x8000:
                self.phy[BMCR], self.phy[4] = 0x3000, 0x05E1
            else:
                self.phy[which] = self.phy[which] & ~PHY_WRITABLE[which] & 0xFFFF | data & PHY_WRITABLE[which]
        put_le32(self.cells + MDI, value & 0xEFFF0000U | MDI_READY | data)
        if value & MDI_IE:
            self.interrupt(INT_MDI)

    cdef void command(self, u32 value) noexcept nogil:
        cdef u32 pointer = le32(self.cells + POINTER), what = value >> 4
        if what == 1:
            self.cu_offset, self.cu = pointer, CU_ACTIVE
            self.run()
        elif what == 2 or what == 10:
            if self.cu == CU_SUSPENDED:
                self.cu = CU_ACTIVE
                self.run()
        elif what == 4:
            self.counters = pointer
        elif what == 5 or what == 7:
            self.dump_counters(what == 7)
        elif what == 6:
            self.cu_base = pointer
        what = value & 7
        if what == 1:
            if self.ru != RU_READY:
                self.ru_offset, self.ru = pointer, RU_READY
        elif what == 2:
            if self.ru == RU_SUSPENDED:
                self.ru = RU_READY
        elif what == 4:
            if self.ru != RU_IDLE:
                self.ru = RU_IDLE
                self.interrupt(INT_RNR)
        elif what == 6:
            self.ru_base = pointer

    cdef void dump_counters(self, bint reset) noexcept nogil:
        """16 counters, 19 with byte 6's bit 5 clear, 20 with its bit 2 set; then the word that says that they are there."""
        cdef u8 data[4 * COUNTERS + 4]
        cdef u32 n, count = 16
        if self.tco and self.config[6] & 0x04:
            count = 20
        elif self.extended and not self.config[6] & 0x20:
            count = 19
        for n in range(count):
            put_le32(data + 4 * n, self.counts[n])
        put_le32(data + 4 * count, 0xA007 if reset else 0xA005)
        self.dma.write_from(self.counters, data, 4 * count + 4)
        if reset:
            memset(self.counts, 0, sizeof(self.counts))

    # --- command unit -----------------------------------------------------------------------------------------

    cdef void timed(self, u32 which) noexcept nogil:
        if which == LAST_MAY_COME:
            self.last_may_come = True
            self.room()
        elif self.cu == CU_ACTIVE:
            self.run()

    cdef void run(self) noexcept nogil:
        cdef u8 block[BLOCK]
        cdef u8 done[2]
        cdef u32 at, what, n, status
        self.timer.cancel()
        self.spent = 0
        while self.spent < TURN:
            self.spent += 2
            at = self.cu_base + self.cu_offset
            if self.dma.read_into(at, block, BLOCK) < 0:        # nothing there: the chain ends
                self.cu = CU_IDLE
                self.interrupt(INT_CNA)
                return
            what, status = le16(block + 2), CB_C | CB_OK
            self.cu_offset = le32(block + 4)
            n = what & 7
            if n == 1:
                memcpy(self.station, block + 8, 6)
            elif n == 2:
                self.dma.read_into(at + 8, self.config, min(<u32>22, max(<u32>1, block[8] & 63)))
            elif n == 3:
                self.filters(at, block)
            elif n == 4:
                self.transmit_block(at, block)
            elif n == 6:
                memset(self.frame, 0, 596)
                self.dma.write_from(le32(block + 8), self.frame, 596)
            put_le16(done, le16(block) | status)
            self.dma.write_from(at, done, 2)
            if what & CB_I:
                self.interrupt(INT_CX)
            if what & CB_EL:
                self.cu = CU_IDLE
                self.interrupt(INT_CNA)
                return
            if what & CB_S:
                self.cu = CU_SUSPENDED
                self.interrupt(INT_CNA)
                return
            if self.cu != CU_ACTIVE:
                return
        self.timer.arm(self.clock.now() + 1)

    cdef void filters(self, u32 at, const u8 *block) noexcept nogil:
        """Multicast addresses become bits of a hash: 2 to 7 of the CRC."""
        cdef u32 count = le16(block + 8) & 0x3FFF, n, bit
        memset(self.hash, 0, 8)
        if self.dma.read_into(at + 10, self.frame, count) < 0:
            return
        self.spent += count >> 3                                # each takes a quarter of a microsecond
        for n in range(0, count - count % 6, 6):
            bit = crc_first(self.frame + n, 6) >> 26 & 63
            self.hash[bit >> 3] |= 1 << (bit & 7)

    cdef u32 gather(self, u32 at, u32 count, u32 used) noexcept nogil:
        """Append a piece of the guest's memory to the frame; its bytes afterwards."""
        count = min(count, MOST - used)
        if count and self.dma.read_into(at, self.frame + used, count) < 0:
            memset(self.frame + used, 0, count)
        return used + count

    cdef void transmit_block(self, u32 at, const u8 *block) noexcept nogil:
        cdef u8 descriptor[8]
        cdef u32 array = le32(block + 8), count = le16(block + 12) & 0x3FFF, buffers = block[15], used = 0, n, place
        cdef bint last = False
        if not le16(block + 2) & CB_SF:
            used = self.gather(at + BLOCK, count, 0)            # simplified: the frame follows the block
        elif array != ALONE:
            place = at + BLOCK
            if count:                                           # data in the block first
                used = self.gather(place, count, 0)
            n = 0
            if self.extended and not self.config[6] & 0x10 and not count:
                for n in range(2):                              # the first two descriptors are in the block
                    if n >= buffers or last:
                        break
                    self.dma.read_into(place + 8 * n, descriptor, 8)
                    used = self.gather(le32(descriptor), le16(descriptor + 4) & 0x3FFF, used)
                    last = descriptor[6] & 1
                n = min(buffers, <u32>2)
            place = array
            while n < buffers and not last:
                self.spent += 1
                self.dma.read_into(place, descriptor, 8)
                used = self.gather(le32(descriptor), le16(descriptor + 4) & 0x3FFF, used)
                last = descriptor[6] & 1
                place += 8
                n += 1
        else:
            used = self.gather(at + BLOCK, count, 0)
        if used >= 14 and not self.config[10] & 0x08:
            memcpy(self.frame + 6, self.station, 6)             # it puts its own address in
        if used and used < SHORTEST and self.config[18] & 0x02:
            memset(self.frame + used, 0, SHORTEST - used)
            used = SHORTEST
        if used >= 14:
            if self.config[10] & 0xC0:                          # loopback, internal or external
                self.work(used)
                self.last_may_come = True
                self.receive(self.frame, used)
            else:
                self.transmit(self.frame, used)
            self.counts[TX_GOOD] += 1

    # --- receive unit -----------------------------------------------------------------------------------------

    cdef bint wanted(self, const u8 *frame, u32 *status) noexcept nogil:
        cdef int to = kind(frame)
        cdef u32 bit
        cdef bint same = True
        status[0] = 0
        for bit in range(6):
            if frame[bit] != self.station[bit]:
                same = False
        if same:
            return True
        status[0] = RFD_NOT_MINE
        if to == BROADCAST:
            if not self.config[15] & 0x02:
                return True
        elif to == MULTICAST or self.config[20] & 0x40:
            if to == MULTICAST and self.config[21] & 0x08:
                return True
            bit = crc_first(frame, 6) >> 26 & 63
            if self.hash[bit >> 3] >> (bit & 7) & 1:
                return True
        if self.config[15] & 0x01:
            status[0] |= RFD_NO_MATCH
            return True
        return False

    cdef void starved(self) noexcept nogil:
        self.counts[RX_STARVED] += 1
        self.ru = RU_STARVED
        self.interrupt(INT_RNR)

    cdef int receive(self, const u8 *frame, u32 size) noexcept nogil:
        cdef u8 padded[SHORTEST]
        cdef u8 block[BLOCK]
        cdef u8 sum[FCS]
        cdef u32 status, at, what, room, total
        if size < 14 or not self.link_up or self.ru == RU_IDLE:
            return 1
        if self.ru != RU_READY:
            self.counts[RX_STARVED] += 1
            return 1
        if size < SHORTEST:
            memcpy(padded, frame, size)
            memset(padded + size, 0, SHORTEST - size)
            frame, size = padded, SHORTEST
        if size > LONGEST and not self.config[18] & 0x08 or size + FCS >= MOST:
            self.counts[RX_SHORT] += 1
            return 1
        if not self.wanted(frame, &status):
            return 1
        at = self.ru_base + self.ru_offset
        if self.dma.read_into(at, block, BLOCK) < 0:
            self.starved()
            return 1
        what, room = le16(block + 2), le16(block + 14) & 0x3FFE
        if not room and what & CB_EL:                           # the end of the list is not written to
            self.starved()
            return 1
        if what & CB_EL and not self.last_may_come:
            if not self.last_timer.pending():
                self.last_timer.arm(self.clock.now() + LAST_WAITS)
            return 0
        self.last_may_come = False
        status |= CB_C | CB_OK
        if be16(frame + 12) > 1500:
            status |= RFD_TYPE
        total = size
        self.dma.write_from(at + BLOCK, frame, min(size, room))
        if self.config[18] & 0x04:                              # the FCS goes with it
            total += FCS
            if room >= total:
                put_le32(sum, ~crc_last(frame, size))
                self.dma.write_from(at + BLOCK + size, sum, FCS)
        if total > room:
            total = room
            status = status & ~<u32>CB_OK | 0x0200              # cut off: out of buffer space
        put_le16(block, status)
        put_le16(block + 12, RFD_EOF | RFD_F | total)
        self.dma.write_from(at + 12, block + 12, 2)
        self.dma.write_from(at, block, 2)                       # last: a driver may look at any time
        self.counts[RX_GOOD] += 1
        self.ru_offset = le32(block + 4)
        self.status |= INT_FR
        if what & CB_EL:
            self.ru = RU_STARVED
            self.status |= INT_RNR
        elif what & CB_S:
            self.ru = RU_SUSPENDED
            self.status |= INT_RNR
        self.update()
        return 1

    # --- state ------------------------------------------------------------------------------------------------

    @property
    def registers(self):
        return cells(self, self.cells, REGISTERS)

    @property
    def configuration(self):
        return cells(self, self.config, 22)

    @property
    def individual(self):
        return cells(self, self.station, 6)

    @property
    def multicast(self):
        return cells(self, self.hash, 8)

