"""An NE2000: National's DP8390 with its PROM and 32 KiB of buffer memory, compiled; ne2k_pci.py and ne2k_isa.py are its
cards.

Ref: DP8390D/NS32490D data sheet (registers 10, packet buffer 7, remote DMA 8); RTL8029AS data sheet for the PCI card's
two id registers and page 3. Register names are DP8390's.
Not modelled: loopback, network statistics counters, the send-packet command, 16-bit modes other than DCR.WTS.

Departures, as guests have met them on qemu-kvm's card: a unicast frame is compared with the PROM, not with PAR0-5; a
frame needs room for the longest one; remote DMA ends as soon as its count is 0. A frame that has no room waits on the
host's side instead of being lost, so a full ring keeps ISR.PRX set: no overflow warning comes that would wake a driver.
"""

from libc.string cimport memcpy, memset

from vmrun.core.cells cimport cells
from vmrun.devices.network.frames cimport BROADCAST, FCS, MULTICAST, SHORTEST, crc_first, kind

from vmrun.core.state import Bytes, Deadline, Table, U8, U16
from vmrun.devices.network.nic import NicTimer as _NicTimer
from vmrun.errors import StateError

cdef enum:
    PROM_END = 32
    BUFFER = 0x4000
    BUFFER_SIZE = 0x8000
    DATA = 0x10                 # ports
    RESET = 0x1F
    PORTS = 0x20
    CR_STP = 0x01
    CR_TXP = 0x04
    CR_RD = 0x18                # remote read or write
    ISR_PRX = 0x01
    ISR_PTX = 0x02
    ISR_RDC = 0x40
    ISR_RST = 0x80
    RCR_AB = 0x04
    RCR_AM = 0x08
    RCR_PRO = 0x10
    RSR_PRX = 0x01
    RSR_PHY = 0x20              # a group's frame
    TSR_PTX = 0x01
    DCR_WTS = 0x01
    LONGEST = 1514
    PAGES_OF_LONGEST = 6

cdef i64 WIRE_TIME = 200000             # ns


cdef class Ne2000(NicChip):
    """32 ports. `rtl8029`: it says that it is one."""

    state = Table(
        "ne2000", 1,
        Bytes("memory_cells", MEMORY), Bytes("par_cells", 6), Bytes("mar_cells", 8), U8("cr"), U16("pstart"), U16("pstop"),
        U8("bnry"), U8("tpsr"), U8("tsr"), U16("tbcr"), U16("rsar"), U16("rbcr"), U8("rcr"), U8("rsr"), U8("dcr"),
        U8("isr", ISR_RST), U8("imr"), U8("curr"), Deadline("timer"),
    )
    _, save, load_state = state.methods()

    def __init__(self, irq, timers, address, bint rtl8029=False):
        self.min_access, self.max_access = 1, 4
        self.irq, self.rtl8029 = irq, rtl8029
        self.address = bytes(address)
        self.clock, self.timer = timers.clock, _NicTimer(timers, self, 0)
        self.reset()

    def stop(self):
        self.timer.stop()

    def reset(self):
        type(self).state.reset(self)
        self.prom()

    cdef void soft_reset(self) noexcept nogil:
        """A read of the reset port."""
        self.isr = ISR_RST
        self.prom()
        self.update()

    cdef void prom(self) noexcept nogil:
        """The station address and two W, each byte twice."""
        cdef u32 n
        with gil:
            for n in range(6):
                self.memory[2 * n] = self.memory[2 * n + 1] = self.address[n]
        memset(self.memory + 12, 0, 16)
        memset(self.memory + 28, 0x57, 4)

    # --- interrupts -----------------------------------------------------------------------------------------

    cdef void update(self) noexcept nogil:
        self.irq.set(self.isr & self.imr & 0x7F != 0)

    cdef void interrupt(self, u32 bits) noexcept nogil:
        self.isr |= bits
        self.update()

    # --- ports ------------------------------------------------------------------------------------------------

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u32 at = <u32>offset
        if at == DATA:
            return self.take((2 if self.dcr & DCR_WTS else 1) if size < 4 else 4)
        if size == 1 and at < DATA:
            return self.read_register(at)
        if size == 1 and at == RESET:
            self.soft_reset()
            return 0
        return <u64>-1

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 at = <u32>offset
        if at == DATA:
            self.store((2 if self.dcr & DCR_WTS else 1) if size < 4 else 4, value)
        elif size == 1 and at < DATA:
            self.write_register(at, <u32>value & 0xFF)
        return 0

    cdef u32 read_register(self, u32 at) noexcept nogil:
        if at == 0:
            return self.cr
        at |= self.cr >> 6 << 4                                 # the page
        if at == 0x03:
            return self.bnry
        if at == 0x04:
            return self.tsr
        if at == 0x07:
            return self.isr
        if at == 0x08:
            return self.rsar & 0xFF
        if at == 0x09:
            return self.rsar >> 8
        if at == 0x0A:
            return 0x50                                         # 8029ID0 and 1
        if at == 0x0B:
            return 0x43
        if at == 0x0C:
            return self.rsr
        if 0x11 <= at <= 0x16:
            return self.par[at - 0x11]
        if at == 0x17:
            return self.curr
        if 0x18 <= at <= 0x1F:
            return self.mar[at - 0x18]
        if at == 0x21:
            return self.pstart >> 8
        if at == 0x22:
            return self.pstop >> 8
        if at == 0x35 or at == 0x36:
            return 0x40                                         # CONFIG2, CONFIG3: 10BASE-T, full duplex
        return 0

    cdef void write_register(self, u32 at, u32 value) noexcept nogil:
        if at == 0:
            self.command(value)
            return
        at |= self.cr >> 6 << 4
        if at == 0x01:
            if value << 8 <= MEMORY:
                self.pstart = value << 8
        elif at == 0x02:
            if value << 8 <= MEMORY:
                self.pstop = value << 8
        elif at == 0x03:
            if value << 8 < MEMORY:
                self.bnry = value
                self.room_soon()
        elif at == 0x04:
            self.tpsr = value
        elif at == 0x05:
            self.tbcr = self.tbcr & 0xFF00 | value
        elif at == 0x06:
            self.tbcr = self.tbcr & 0x00FF | value << 8
        elif at == 0x07:
            self.isr &= ~(value & 0x7F)
            if value & ISR_PRX and not self.cr & CR_STP and self.pstop > self.pstart and self.full():
                self.isr |= ISR_PRX                             # frames wait: none that comes would say so again
            self.update()
        elif at == 0x08:
            self.rsar = self.rsar & 0xFF00 | value
        elif at == 0x09:
            self.rsar = self.rsar & 0x00FF | value << 8
        elif at == 0x0A:
            self.rbcr = self.rbcr & 0xFF00 | value
        elif at == 0x0B:
            self.rbcr = self.rbcr & 0x00FF | value << 8
        elif at == 0x0C:
            self.rcr = value
        elif at == 0x0E:
            self.dcr = value
        elif at == 0x0F:
            self.imr = value
            self.update()
        elif 0x11 <= at <= 0x16:
            self.par[at - 0x11] = value
        elif at == 0x17:
            if value << 8 < MEMORY:
                self.curr = value
        elif 0x18 <= at <= 0x1F:
            self.mar[at - 0x18] = value

    cdef void command(self, u32 value) noexcept nogil:
        cdef u32 at
        self.cr = value
        if value & CR_STP:
            return
        self.isr &= ~<u32>ISR_RST
        if value & CR_RD and not self.rbcr:
            self.interrupt(ISR_RDC)
        if value & CR_TXP:
            at = self.tpsr << 8
            if at >= MEMORY:                                    # the memory repeats behind its end
                at -= BUFFER_SIZE
            if at + self.tbcr <= MEMORY:
                self.transmit(self.memory + at, self.tbcr)
            self.tsr = TSR_PTX
            self.cr &= ~<u32>CR_TXP
            self.interrupt(ISR_PTX)
        self.room_soon()

    cdef void room_soon(self) noexcept nogil:
        """A wire takes its time. Frames that came at once would do so inside a driver's loop, whose end clears ISR.PRX."""
        if not self.timer.pending():
            self.timer.arm(self.clock.now() + WIRE_TIME)

    cdef void timed(self, u32 which) noexcept nogil:
        self.room()

    # --- remote DMA -----------------------------------------------------------------------------------------

    cdef bint reachable(self, u32 at) noexcept nogil:
        return at < PROM_END or BUFFER <= at < MEMORY

    cdef u64 take(self, u32 count) noexcept nogil:
        cdef u32 n, at = self.rsar & ~(count - 1) if count == 2 else self.rsar
        cdef u64 value = 0
        for n in range(count):
            value |= <u64>(self.memory[at + n] if self.reachable(at + n) else 0xFF) << (8 * n)
        self.moved(count)
        return value

    cdef void store(self, u32 count, u64 value) noexcept nogil:
        cdef u32 n, at = self.rsar & ~(count - 1) if count == 2 else self.rsar
        if not self.rbcr:
            return
        for n in range(count):
            if self.reachable(at + n):
                self.memory[at + n] = value >> (8 * n) & 0xFF
        self.moved(count)

    cdef void moved(self, u32 count) noexcept nogil:
        self.rsar = self.rsar + count & 0xFFFF
        if self.rsar == self.pstop:
            self.rsar = self.pstart
        if self.rbcr <= count:
            self.rbcr = 0
            self.interrupt(ISR_RDC)
        else:
            self.rbcr -= count

    # --- receive ----------------------------------------------------------------------------------------------

    cdef bint full(self) noexcept nogil:
        """No room between CURR and BNRY for the longest frame."""
        cdef u32 now = self.curr << 8, limit = self.bnry << 8, free
        if self.pstop <= self.pstart:
            return True
        if now < limit:
            free = limit - now
        elif now - limit > self.pstop - self.pstart:
            return True
        else:
            free = (self.pstop - self.pstart) - (now - limit)
        return free <= PAGES_OF_LONGEST * 256                   # CURR must not come to BNRY: that is an empty ring

    cdef bint ready(self) noexcept nogil:
        return self.cr & CR_STP != 0 or not self.full()         # what comes while it is stopped is lost

    cdef bint wanted(self, const u8 *frame) noexcept nogil:
        cdef int to = kind(frame)
        cdef u32 n
        if self.rcr & RCR_PRO:
            return True
        if to == BROADCAST:
            return self.rcr & RCR_AB != 0
        if to == MULTICAST:
            n = crc_first(frame, 6) >> 26
            return self.rcr & RCR_AM and self.mar[n >> 3] >> (n & 7) & 1
        for n in range(6):
            if frame[n] != self.memory[2 * n]:
                return False
        return True

    cdef int receive(self, const u8 *frame, u32 size) noexcept nogil:
        cdef u8 padded[SHORTEST]
        cdef u32 at, following, total, done = 0, part
        if self.cr & CR_STP:
            return 1
        if self.full():
            return 0
        if size > LONGEST + FCS or not self.wanted(frame):
            return 1
        if size < SHORTEST:
            memcpy(padded, frame, size)
            memset(padded + size, 0, SHORTEST - size)
            frame, size = padded, SHORTEST
        at = self.curr << 8
        if not self.pstart <= at < self.pstop:
            at = self.pstart
        total = size + FCS
        following = at + (total + 4 + 255 & ~<u32>255)
        if following >= self.pstop:
            following -= self.pstop - self.pstart
        self.rsr = RSR_PRX | (RSR_PHY if frame[0] & 1 else 0)
        self.memory[at] = self.rsr
        self.memory[at + 1] = following >> 8 & 0xFF
        self.memory[at + 2] = total & 0xFF
        self.memory[at + 3] = total >> 8
        at += 4
        while done < size:
            part = min(size - done, self.pstop - at)
            memcpy(self.memory + at, frame + done, part)
            done += part
            at += part
            if at >= self.pstop:
                at = self.pstart
        self.curr = following >> 8 & 0xFF
        self.interrupt(ISR_PRX)
        return 1

    # --- state ------------------------------------------------------------------------------------------------

    @property
    def memory_cells(self):
        return cells(self, self.memory, MEMORY)

    @property
    def par_cells(self):
        return cells(self, self.par, 6)

    @property
    def mar_cells(self):
        return cells(self, self.mar, 8)

    def check_state(self, values):
        for name in ("pstart", "pstop"):
            if values[name] & 0xFF or values[name] > MEMORY:
                raise StateError(f"ne2000: {name} is {values[name]:#x}, no page of its memory")
        for name in ("bnry", "curr"):
            if values[name] << 8 >= MEMORY:
                raise StateError(f"ne2000: {name} is {values[name]:#x}, no page of its memory")

    def settle(self):
        self.update()
