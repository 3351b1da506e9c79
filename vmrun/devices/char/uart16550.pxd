from accel.api cimport IoRegion, IrqLine, i64, u8, u32, u64
from accel.clock cimport Timer
from vmrun.backends.protocols cimport CharBackend, CharFrontend


cdef class Uart16550(IoRegion):
    cdef readonly IrqLine irq
    cdef readonly CharBackend backend
    cdef CharFrontend frontend
    cdef readonly Timer timeout
    cdef u32 baudbase
    cdef public u8 ier, fcr, lcr, mcr, lsr, msr, scr, dll, dlm
    cdef public bint thre_pending, timeout_pending
    cdef bint rx_was_full
    cdef public u8 rbr
    cdef u8 tsr
    cdef bint tsr_full
    cdef u8 rx_data[16]
    cdef u8 rx_error[16]
    cdef u8 tx_data[16]
    cdef u32 rx_head, rx_count, tx_head, tx_count
    cdef u8 interrupt(self) noexcept nogil
    cdef void update(self) noexcept nogil
    cdef void transmit(self) noexcept nogil
    cdef void receive_byte(self, u8 byte, u8 error) noexcept nogil
    cdef void show_error(self) noexcept nogil
    cdef void clear_rx(self) noexcept nogil
    cdef void arm_timeout(self) noexcept nogil
    cdef void set_msr(self) noexcept nogil
    cdef u8 read_rbr(self) noexcept nogil
    cdef void write_fcr(self, u8 value) noexcept nogil
    cdef u32 room(self) noexcept nogil
