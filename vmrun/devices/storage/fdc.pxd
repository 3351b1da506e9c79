from accel.api cimport IoRegion, IrqLine, u8, u32, u64
from accel.clock cimport Timer
from vmrun.backends.protocols cimport BlockRequest

cdef enum:
    FIFO = 512


ctypedef struct Disk:
    u8 head, track, sect            # where the head is
    u8 last_sect, max_track
    u8 perpendicular, rate
    bint two_sided, changed


cdef class Fdc(IoRegion):
    cdef public Disk drives[2]
    cdef readonly list backends, disks, kinds
    cdef str fallback
    cdef void *backend[2]
    cdef bint inserted[2]
    cdef bint readonly[2]
    cdef IrqLine irq
    cdef readonly Timer turning
    cdef object dma
    cdef u32 channel
    cdef bint check_rate
    # registers
    cdef public u8 sra, srb, dor, tdr, dsr, msr, current, status0, status1, status2, results
    cdef public u8 timer0, timer1, precomp_track, config, locked, power, end_of_track
    # the command at hand
    cdef public u8 phase, command, direction, stage
    cdef public bint multi_track, waiting
    cdef public u32 position, length, limit, chunk
    cdef u8 fifo_bytes[FIFO]
    cdef u8 work[512]
    cdef BlockRequest *request
    cdef int error

    cdef show(self, u32 n)
    cdef u32 unit(self) noexcept nogil
    cdef Disk *here(self) noexcept nogil
    cdef int seek(self, u32 n, u8 head, u8 track, u8 sect) noexcept nogil
    cdef void select(self, u8 number) noexcept nogil
    cdef void raise_irq(self) noexcept nogil
    cdef void lower_irq(self) noexcept nogil
    cdef void soft_reset(self, bint tell) noexcept nogil
    cdef void to_command(self) noexcept nogil
    cdef void to_result(self, u32 count) noexcept nogil
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
    cdef void start(self, u8 direction) noexcept nogil
    cdef void start_format(self) noexcept nogil
    cdef void refuse(self, u8 status1) noexcept nogil
    cdef void finish(self, u8 status0, u8 status1, u8 status2) noexcept nogil
    cdef bint next_sector(self) noexcept nogil
    cdef void wait_for_dma(self) noexcept nogil
    cdef void run(self, bint resumed) noexcept nogil
    cdef bint begin(self) noexcept nogil
    cdef int moved(self) noexcept nogil
    cdef int compare(self, u32 at) noexcept nogil
    cdef bint transfer(self, int op, u32 sector) noexcept nogil
    cdef void landed(self, BlockRequest *request) noexcept nogil
    cdef void drop_request(self) noexcept nogil
    cdef void pio_load(self) noexcept nogil
    cdef void pio_write(self) noexcept nogil
    cdef void run_pio(self) noexcept nogil
    cdef void take(self) noexcept nogil
    cdef bint dma_put(self, u8 *data, u32 count) noexcept with gil
    cdef bint dma_get(self, u8 *data, u32 count) noexcept with gil
    cdef void dma_ask(self) noexcept with gil
    cdef void dma_let_go(self) noexcept with gil
    cdef void turned(self) noexcept nogil




cdef class FdcPorts(IoRegion):
    cdef Fdc fdc
    cdef u32 base
