from accel.api cimport IoRegion, IrqLine, u8, u32, u64
from vmrun.devices.input.ps2 cimport Ps2Device
from vmrun.devices.input.ps2kbd cimport Ps2Keyboard
from vmrun.devices.input.ps2mouse cimport Ps2Mouse


cdef class I8042(IoRegion):
    cdef readonly IrqLine kbd_irq, aux_irq, a20
    cdef readonly Ps2Keyboard keyboard
    cdef readonly Ps2Mouse mouse
    cdef readonly object command_port
    cdef u8 xlate[256]
    cdef public u8 status, mode, outport, data
    cdef public bint release           # the translation has swallowed an 0xF0
    cdef public int argument           # the command that waits for its data byte, -1: none
    cdef public int answer             # of the controller itself, waiting for the buffer; bit 8: as from the mouse
    cdef void update(self) noexcept nogil
    cdef void fill(self) noexcept nogil
    cdef void show(self, u8 byte, bint aux) noexcept nogil
    cdef void reply(self, u8 byte, bint aux) noexcept nogil
    cdef void set_mode(self, u8 value) noexcept nogil
    cdef u32 set_outport(self, u8 value) noexcept nogil
    cdef u8 read_data(self) noexcept nogil
    cdef u32 write_data(self, u8 value) noexcept nogil
    cdef u32 write_command(self, u8 value) noexcept nogil
