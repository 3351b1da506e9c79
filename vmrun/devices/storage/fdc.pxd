from accel.api cimport IoRegion, u8, u32, u64
from vmrun.devices.storage.fdc_transfer cimport FdcTransfers


cdef class Fdc(FdcTransfers):
    cdef show(self, u32 n)
    cdef void write_dor(self, u8 value) noexcept nogil
    cdef void write_dsr(self, u8 value) noexcept nogil
    cdef void write_data(self, u8 value) noexcept nogil
    cdef u8 read_data(self) noexcept nogil
    cdef void execute(self) noexcept nogil
    cdef void seek_done(self) noexcept nogil
    cdef void step_relative(self, bint inwards) noexcept nogil
    cdef void sense_interrupt(self) noexcept nogil
    cdef void dump(self) noexcept nogil
    cdef void save_registers(self) noexcept nogil
    cdef void restore_registers(self) noexcept nogil
    cdef void turned(self) noexcept nogil


cdef class FdcPorts(IoRegion):
    cdef Fdc fdc
    cdef u32 base
