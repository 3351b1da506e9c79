"""Keyboard controller, the chip alone: an 8042 with the PS/2 firmware, a keyboard and a mouse on its two cables.

Ref: IBM PS/2 Hardware Interface Technical Reference, 'Keyboard and auxiliary device controller'.
`data_port` is port 0x60 and the region itself; `command_port` is port 0x64.
Not modelled: the controller's RAM beyond the command byte (commands 21h-3Fh, 61h-7Fh), the test inputs, line time-outs.
Departures, as in QEMU: status bit 3 stays set; status bit 2 comes with the self test, not with bit 2 of the command byte.
"""

from accel.space import ALONE
from accel.api cimport ACTION_NONE, ACTION_RESET, IoRegion, IrqLine, u8, u32, u64
from accel.clock cimport TimerQueue
from vmrun.devices.input.ps2 cimport Ps2Device, Ps2Host
from vmrun.devices.input.ps2kbd cimport Ps2Keyboard
from vmrun.devices.input.ps2mouse cimport Ps2Mouse

from vmrun.core.state import Flag, Part, Signed, Table, U8
from vmrun.devices.input.keycodes import SET1_FROM_SET2

cdef enum:
    OBF = 0x01                  # status
    SYSTEM = 0x04
    COMMAND = 0x08
    UNLOCKED = 0x10
    AUX = 0x20

    KBD_INT = 0x01              # command byte
    AUX_INT = 0x02
    KBD_DISABLE = 0x10
    AUX_DISABLE = 0x20
    TRANSLATE = 0x40

    OUT_RESET = 0x01            # output port: 0 resets
    OUT_A20 = 0x02
    OUT_KBD_FULL = 0x10
    OUT_AUX_FULL = 0x20

    AS_AUX = 0x100


cdef class _Host(Ps2Host):
    cdef I8042 controller

    cdef void ps2_ready(self) noexcept nogil:
        self.controller.fill()
        self.controller.update()


cdef class _CommandPort(IoRegion):
    cdef I8042 controller

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.controller.status

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        return self.controller.write_command(value & 0xFF)


cdef class I8042(IoRegion):
    """kbd_irq, aux_irq and a20 are the pins it drives."""

    state = Table(
        "i8042", 1,
        Part("keyboard"), Part("mouse"), U8("status", COMMAND | UNLOCKED), U8("mode", KBD_INT | AUX_INT),
        U8("outport", 0xCF), U8("data"), Flag("release"), Signed("argument", -1, 255, -1), Signed("answer", -1, 0x1FF, -1),
    )
    reset, save, load_state = state.methods()

    def __init__(self, IrqLine kbd_irq, IrqLine aux_irq, IrqLine a20, TimerQueue timers):
        cdef _Host host = _Host()
        cdef _CommandPort command_port = _CommandPort()
        cdef u32 i
        self.max_access = 1
        self.widest = ALONE
        self.kbd_irq, self.aux_irq, self.a20 = kbd_irq, aux_irq, a20
        self.keyboard = Ps2Keyboard(timers)
        self.mouse = Ps2Mouse()
        command_port.max_access = 1
        command_port.widest = ALONE
        command_port.controller = self
        self.command_port = command_port
        for i in range(256):
            self.xlate[i] = SET1_FROM_SET2[i]
        host.controller = self
        self.keyboard.host = self.mouse.host = host
        self.reset()

    def detach(self):
        """Break the reference cycles; the chip is not used any more."""
        self.keyboard.detach()
        self.keyboard.host = self.mouse.host = Ps2Host()
        (<_CommandPort>self.command_port).controller = None

    # --- output buffer --------------------------------------------------------------------------------------

    cdef void update(self) noexcept nogil:
        cdef bint full = self.status & OBF
        cdef bint aux = self.status & AUX
        self.kbd_irq.set(full and not aux and self.mode & KBD_INT)
        self.aux_irq.set(full and aux and self.mode & AUX_INT)
        self.a20.set(self.outport & OUT_A20)

    cdef void show(self, u8 byte, bint aux) noexcept nogil:
        self.data = byte
        self.status = (self.status & ~AUX & 0xFF) | OBF | (AUX if aux else 0)

    cdef void fill(self) noexcept nogil:
        """The next byte into the output buffer, if that is empty: the controller's own, the keyboard's, the mouse's."""
        cdef int byte
        if self.status & OBF:
            return
        if self.answer >= 0:
            byte = self.answer
            self.answer = -1
            self.show(byte & 0xFF, byte & AS_AUX)
            return
        while not self.mode & KBD_DISABLE:
            byte = self.keyboard.take()
            if byte < 0:
                break
            if self.mode & TRANSLATE:
                if byte == 0xF0:
                    self.release = True
                    continue
                byte = self.xlate[byte] | (0x80 if self.release else 0)
                self.release = False
            self.show(byte, False)
            return
        if not self.mode & AUX_DISABLE:
            byte = self.mouse.take()
            if byte >= 0:
                self.show(byte, True)

    cdef void reply(self, u8 byte, bint aux) noexcept nogil:
        self.answer = byte | (AS_AUX if aux else 0)
        self.fill()

    cdef u8 read_data(self) noexcept nogil:
        cdef u8 value = self.data
        if self.status & OBF:
            self.status &= ~(OBF | AUX) & 0xFF
            # The interrupt goes low between two bytes: the 8259A sees edges.
            self.update()
            self.fill()
            self.update()
        return value

    # --- commands -------------------------------------------------------------------------------------------

    cdef void set_mode(self, u8 value) noexcept nogil:
        self.mode = value
        if not value & TRANSLATE:
            self.release = False
        self.fill()

    cdef u32 set_outport(self, u8 value) noexcept nogil:
        self.outport = value
        return ACTION_NONE if value & OUT_RESET else ACTION_RESET

    cdef u32 write_data(self, u8 value) noexcept nogil:
        cdef u32 action = ACTION_NONE
        cdef int command = self.argument
        self.argument = -1
        if command == 0x60:
            self.set_mode(value)
        elif command == 0xD1:
            action = self.set_outport(value)
        elif command == 0xD2:
            self.reply(value, False)
        elif command == 0xD3:
            self.reply(value, True)
        elif command == 0xD4:
            self.mode &= ~AUX_DISABLE & 0xFF
            self.mouse.command(value)
        else:
            self.mode &= ~KBD_DISABLE & 0xFF
            self.keyboard.command(value)
        self.fill()
        self.update()
        return action

    cdef u32 write_command(self, u8 value) noexcept nogil:
        cdef u32 action = ACTION_NONE
        self.argument = -1
        if value == 0x20:
            self.reply(self.mode, False)
        elif value in (0x60, 0xD1, 0xD2, 0xD3, 0xD4):
            self.argument = value
        elif value == 0xA7:
            self.mode |= AUX_DISABLE
        elif value == 0xA8:
            self.mode &= ~AUX_DISABLE & 0xFF
        elif value == 0xA9 or value == 0xAB:
            self.reply(0x00, False)     # the interface is fine
        elif value == 0xAA:
            self.status |= SYSTEM
            self.reply(0x55, False)
        elif value == 0xAD:
            self.mode |= KBD_DISABLE
        elif value == 0xAE:
            self.mode &= ~KBD_DISABLE & 0xFF
        elif value == 0xC0:
            self.reply(0x80, False)     # input port: the keyboard is not locked
        elif value == 0xD0:
            self.reply((self.outport & ~(OUT_KBD_FULL | OUT_AUX_FULL) & 0xFF)
                       | (OUT_KBD_FULL if self.kbd_irq.level else 0)
                       | (OUT_AUX_FULL if self.aux_irq.level else 0), False)
        elif value == 0xDD:
            self.outport &= ~OUT_A20 & 0xFF
        elif value == 0xDF:
            self.outport |= OUT_A20
        elif value >= 0xF0 and not value & OUT_RESET:
            action = ACTION_RESET
        self.fill()
        self.update()
        return action

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.read_data()

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        return self.write_data(value & 0xFF)

    def settle(self):
        self.update()
