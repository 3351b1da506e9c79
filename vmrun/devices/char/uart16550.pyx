"""16550 UART with FIFOs, the chip alone; isa_serial.py gives it ports, an interrupt and a chardev.

Ref: Texas Instruments PC16550D, SNLS378C. Register and bit names are the datasheet's.
Not modelled: line timing of the transmitter (a byte is sent as soon as the chardev takes it), parity and framing
errors (a chardev has none), the FIFO DMA modes (the PC does not wire RXRDY and TXRDY).
Departures: INTR does not depend on OUT2, as in QEMU; on a PC board a gate outside the chip does that. An empty FIFO
reads as 0, as in QEMU. Unlike QEMU, the modem lines of loopback count as changes in MSR, as the datasheet has it.
"""

from libc.string cimport memcpy

from accel.api cimport IoRegion, IrqLine, i64, u8, u32, u64
from accel.clock cimport Timer, TimerQueue
from vmrun.backends.protocols cimport CHAR_EVENT_BREAK, CHAR_EVENT_DRAINED, CharBackend, CharFrontend

from vmrun.core.state import Bytes, Deadline, Flag, Maybe, Table, U8
from vmrun.errors import StateError

cdef enum:
    ERBFI = 0x01            # IER: received data available
    ETBEI = 0x02            # transmitter holding register empty
    ELSI = 0x04             # receiver line status
    EDSSI = 0x08            # modem status

    FIFO_ENABLE = 0x01      # FCR
    RCVR_RESET = 0x02
    XMIT_RESET = 0x04

    DLAB = 0x80             # LCR
    SET_BREAK = 0x40

    DTR = 0x01              # MCR
    RTS = 0x02
    OUT1 = 0x04
    OUT2 = 0x08
    LOOP = 0x10

    DR = 0x01               # LSR
    OE = 0x02
    PE = 0x04
    FE = 0x08
    BI = 0x10
    THRE = 0x20
    TEMT = 0x40
    FIFO_ERROR = 0x80

    DCTS = 0x01             # MSR
    TERI = 0x04
    CTS = 0x10
    DSR = 0x20
    RI = 0x40
    DCD = 0x80

    INT_NONE = 0x1          # IIR bits 3..0, a priority code
    INT_MODEM = 0x0
    INT_THRE = 0x2
    INT_RX = 0x4
    INT_TIMEOUT = 0xC
    INT_LINE = 0x6

    DEPTH = 16

cdef u8 TRIGGER[4]
TRIGGER[0], TRIGGER[1], TRIGGER[2], TRIGGER[3] = 1, 4, 8, 14


cdef class _Frontend(CharFrontend):
    cdef Uart16550 uart

    def __cinit__(self, Uart16550 uart):
        self.uart = uart

    cdef u32 can_receive(self) noexcept nogil:
        return self.uart.room()

    cdef void receive(self, const u8 *data, u32 count) noexcept nogil:
        cdef u32 i
        for i in range(count):
            self.uart.receive_byte(data[i], 0)
        self.uart.update()

    cdef void event(self, int what) noexcept nogil:
        if what == CHAR_EVENT_BREAK:
            self.uart.receive_byte(0, BI)
            self.uart.update()
        elif what == CHAR_EVENT_DRAINED:
            if self.uart.tsr_full:
                self.uart.transmit()
                self.uart.update()


cdef class _Timeout(Timer):
    """Four characters' time without a read or an arrival, with the trigger level not reached."""

    cdef Uart16550 uart

    cdef void expire(self) noexcept nogil:
        if self.uart.rx_count and self.uart.fcr & FIFO_ENABLE:
            self.uart.timeout_pending = True
            self.uart.update()


cdef class Uart16550(IoRegion):
    """Eight registers. `backend` None: what is sent vanishes. `baudbase`: bits per second at divisor 1."""

    # Divisor and modem outputs after a master reset are as QEMU leaves them.
    state = Table(
        "16550", 1,
        U8("ier", most=0x0F), U8("fcr", most=0xC9), U8("lcr"), U8("mcr", OUT2, most=0x1F), U8("lsr", THRE | TEMT),
        U8("msr", DCD | DSR | CTS), U8("scr"), U8("dll", 12), U8("dlm"), Flag("thre_pending"), Flag("timeout_pending"),
        U8("rbr"), Bytes("rx", most=DEPTH), Bytes("rx_errors", most=DEPTH), Bytes("tx", most=DEPTH),
        Maybe(U8("sending")), Deadline("timeout"),
    )
    reset, save, load_state = state.methods()

    def __init__(self, IrqLine irq, TimerQueue timers, CharBackend backend=None, u32 baudbase=115200):
        cdef _Timeout timeout = _Timeout(timers)
        self.max_access = 1
        self.irq = irq
        self.baudbase = baudbase if baudbase else 115200
        timeout.uart = self
        self.timeout = timeout
        self.backend = backend
        self.frontend = _Frontend(self)
        self.reset()
        if backend is not None:
            backend.frontend = self.frontend

    def detach(self):
        """Leave the back end and drop the timer; breaks the reference cycles."""
        self.timeout.cancel()
        if self.backend is not None and self.backend.frontend is self.frontend:
            self.backend.frontend = CharFrontend()
        self.backend = None

    def rewire(self, CharBackend backend):
        """Another back end in the place of the one it has. The device lock is held."""
        if self.backend is not None and self.backend.frontend is self.frontend:
            self.backend.frontend = CharFrontend()
        self.backend = backend
        backend.frontend = self.frontend

    # --- interrupts -----------------------------------------------------------------------------------------

    cdef u8 interrupt(self) noexcept nogil:
        """IIR bits 3..0: the pending source of the highest priority."""
        if self.ier & ELSI and self.lsr & (OE | PE | FE | BI):
            return INT_LINE
        if self.ier & ERBFI:
            if self.fcr & FIFO_ENABLE:
                if self.rx_count >= TRIGGER[self.fcr >> 6]:
                    return INT_RX
                if self.timeout_pending:
                    return INT_TIMEOUT
            elif self.lsr & DR:
                return INT_RX
        if self.ier & ETBEI and self.thre_pending:
            return INT_THRE
        if self.ier & EDSSI and self.msr & 0x0F:
            return INT_MODEM
        return INT_NONE

    cdef void update(self) noexcept nogil:
        self.irq.set(self.interrupt() != INT_NONE)

    # --- receiver -------------------------------------------------------------------------------------------

    cdef u32 room(self) noexcept nogil:
        if self.mcr & LOOP:         # SIN is disconnected
            return 0
        if self.fcr & FIFO_ENABLE:
            return DEPTH - self.rx_count
        return 0 if self.lsr & DR else 1

    cdef void receive_byte(self, u8 byte, u8 error) noexcept nogil:
        cdef u32 slot
        if self.fcr & FIFO_ENABLE:
            if self.rx_count == DEPTH:
                self.lsr |= OE      # the FIFO keeps what it has
                return
            slot = (self.rx_head + self.rx_count) % DEPTH
            self.rx_data[slot] = byte
            self.rx_error[slot] = error
            self.rx_count += 1
            self.lsr |= DR
            if self.rx_count == 1:
                self.show_error()
            self.arm_timeout()
        else:
            if self.lsr & DR:
                self.lsr |= OE      # the new character replaces the old
            self.rbr = byte
            self.lsr |= DR | error

    cdef void show_error(self) noexcept nogil:
        """LSR tells of a character's errors when it reaches the top of the FIFO."""
        if self.rx_count:
            self.lsr |= self.rx_error[self.rx_head]
            self.rx_error[self.rx_head] = 0

    cdef void clear_rx(self) noexcept nogil:
        self.rx_count = 0
        self.lsr &= ~(DR | BI | PE | FE) & 0xFF
        self.timeout_pending = False
        self.timeout.cancel()

    cdef void arm_timeout(self) noexcept nogil:
        """Start, bit, parity and stop bits of four characters from now."""
        cdef u32 bits = 2 + 5 + (self.lcr & 3) + ((self.lcr >> 3) & 1) + ((self.lcr >> 2) & 1)
        cdef u32 divisor = self.dlm << 8 | self.dll
        if divisor == 0:
            divisor = 1
        self.timeout.arm(self.timeout.queue.clock.now() + <i64>4 * bits * divisor * 1000000000 // self.baudbase)

    cdef u8 read_rbr(self) noexcept nogil:
        cdef u8 value = self.rbr
        cdef bint was_full
        if self.fcr & FIFO_ENABLE:
            was_full = self.rx_count == DEPTH
            self.timeout_pending = False
            value = 0                   # of an empty FIFO, as in QEMU
            if self.rx_count:
                value = self.rx_data[self.rx_head]
                self.rx_head = (self.rx_head + 1) % DEPTH
                self.rx_count -= 1
                self.show_error()
            if self.rx_count:
                self.arm_timeout()
            else:
                self.lsr &= ~DR & 0xFF
                self.timeout.cancel()
        else:
            was_full = self.lsr & DR
            self.lsr &= ~DR & 0xFF
        if was_full and self.backend is not None and not self.mcr & LOOP:
            self.backend.input_room()
        return value

    # --- transmitter ----------------------------------------------------------------------------------------

    cdef void transmit(self) noexcept nogil:
        """Send until THR or FIFO and shift register are empty, or the chardev takes no more."""
        while True:
            if self.tsr_full:
                if self.mcr & LOOP:
                    self.receive_byte(self.tsr, 0)
                elif self.backend is not None and not self.backend.put(self.tsr):
                    break           # CHAR_EVENT_DRAINED goes on here
                self.tsr_full = False
            if self.tx_count == 0:
                break
            self.tsr = self.tx_data[self.tx_head]
            self.tsr_full = True
            self.tx_head = (self.tx_head + 1) % DEPTH
            self.tx_count -= 1
            if self.tx_count == 0:
                self.lsr |= THRE
                self.thre_pending = True
        if not self.tsr_full and self.lsr & THRE:
            self.lsr |= TEMT

    # --- modem ----------------------------------------------------------------------------------------------

    cdef void set_msr(self) noexcept nogil:
        """Bits 7..4 are the inputs, inverted to active high; in loopback the outputs. Bits 3..0 note changes."""
        cdef u8 lines = CTS | DSR | DCD
        cdef u8 changed
        if self.mcr & LOOP:
            lines = 0
            if self.mcr & RTS:
                lines |= CTS
            if self.mcr & DTR:
                lines |= DSR
            if self.mcr & OUT1:
                lines |= RI
            if self.mcr & OUT2:
                lines |= DCD
        changed = ((self.msr ^ lines) >> 4) & 0x0F
        if lines & RI:
            changed &= ~TERI & 0x0F     # only the trailing edge of the ring counts
        self.msr = lines | (self.msr & 0x0F) | changed

    # --- registers ------------------------------------------------------------------------------------------

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u8 value = 0xFF
        cdef u32 i
        if offset == 0:
            value = self.dll if self.lcr & DLAB else self.read_rbr()
        elif offset == 1:
            value = self.dlm if self.lcr & DLAB else self.ier
        elif offset == 2:
            value = self.interrupt()
            if value == INT_THRE:
                self.thre_pending = False
            if self.fcr & FIFO_ENABLE:
                value |= 0xC0
        elif offset == 3:
            value = self.lcr
        elif offset == 4:
            value = self.mcr
        elif offset == 5:
            value = self.lsr
            if self.fcr & FIFO_ENABLE:
                if value & (PE | FE | BI):
                    value |= FIFO_ERROR
                for i in range(self.rx_count):
                    if self.rx_error[(self.rx_head + i) % DEPTH]:
                        value |= FIFO_ERROR
            self.lsr &= ~(OE | PE | FE | BI) & 0xFF
        elif offset == 6:
            value = self.msr
            self.msr &= 0xF0
        elif offset == 7:
            value = self.scr
        self.update()
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 data) noexcept nogil:
        cdef u8 value = data & 0xFF
        cdef bint was_loop
        if offset == 0:
            if self.lcr & DLAB:
                self.dll = value
            else:
                self.thre_pending = False
                self.lsr &= ~(THRE | TEMT) & 0xFF
                # INTR goes low between two THRE interrupts: the PC's 8259A sees edges.
                self.update()
                if self.fcr & FIFO_ENABLE:
                    if self.tx_count == DEPTH:      # the datasheet leaves it open; the newest is kept, as in QEMU
                        self.tx_count -= 1
                        self.tx_head = (self.tx_head + 1) % DEPTH
                else:
                    self.tx_count = 0
                self.tx_data[(self.tx_head + self.tx_count) % DEPTH] = value
                self.tx_count += 1
                self.transmit()
        elif offset == 1:
            if self.lcr & DLAB:
                self.dlm = value
            else:
                value &= 0x0F
                # Drivers expect THRE at once when they enable it on an idle line.
                if (value ^ self.ier) & ETBEI:
                    self.thre_pending = value & ETBEI and self.lsr & THRE
                self.ier = value
        elif offset == 2:
            self.write_fcr(value)
        elif offset == 3:
            self.lcr = value
        elif offset == 4:
            was_loop = self.mcr & LOOP
            self.mcr = value & 0x1F
            self.set_msr()
            if was_loop and not self.mcr & LOOP and self.backend is not None:
                self.backend.input_room()
                self.transmit()
        elif offset == 7:
            self.scr = value
        self.update()
        return 0

    cdef void write_fcr(self, u8 value) noexcept nogil:
        if (value ^ self.fcr) & FIFO_ENABLE:
            value |= RCVR_RESET | XMIT_RESET
        if value & RCVR_RESET:
            self.clear_rx()
        if value & XMIT_RESET:
            self.tx_count = 0
            self.lsr |= THRE
            if not self.tsr_full:
                self.lsr |= TEMT
            self.thre_pending = True
        # Without bit 0 the other bits are not programmed.
        self.fcr = value & 0xC9 if value & FIFO_ENABLE else 0
        if value & RCVR_RESET and self.backend is not None:
            self.backend.input_room()

    # --- state ----------------------------------------------------------------------------------------------

    @property
    def rx(self):
        cdef u32 i
        return bytes([self.rx_data[(self.rx_head + i) % DEPTH] for i in range(self.rx_count)])

    @rx.setter
    def rx(self, bytes data):
        self.rx_head, self.rx_count = 0, <u32>len(data)
        memcpy(self.rx_data, <const u8 *>data, len(data))

    @property
    def rx_errors(self):
        cdef u32 i
        return bytes([self.rx_error[(self.rx_head + i) % DEPTH] for i in range(self.rx_count)])

    @rx_errors.setter
    def rx_errors(self, bytes data):
        memcpy(self.rx_error, <const u8 *>data, len(data))

    @property
    def tx(self):
        cdef u32 i
        return bytes([self.tx_data[(self.tx_head + i) % DEPTH] for i in range(self.tx_count)])

    @tx.setter
    def tx(self, bytes data):
        self.tx_head, self.tx_count = 0, <u32>len(data)
        memcpy(self.tx_data, <const u8 *>data, len(data))

    @property
    def sending(self):
        """The transmitter's shift register, None while it is empty."""
        return self.tsr if self.tsr_full else None

    @sending.setter
    def sending(self, value):
        self.tsr_full, self.tsr = value is not None, value or 0

    def check_state(self, values):
        if len(values["rx"]) != len(values["rx_errors"]):
            raise StateError("16550: the receive FIFO and its errors differ in length")

    def settle(self):
        self.update()
        if self.backend is not None:
            self.backend.input_room()
        self.transmit()
        self.update()
