from accel.api cimport IoRegion, IrqSink, IrqLine, u8, u32, u64


cdef class PciConfig:
    cdef u8 data[256]
    cdef u8 writable[256]
    cdef u8 clear[256]          # write 1 to clear
    cdef u8 hooked[256]         # 1: tell the owner after a change, 2: after each write
    cdef u8 shown[256]          # 1: ask `on_read` before these bytes are read
    cdef readonly object hook
    cdef public object on_read
    cdef void call_read(self, u32 offset, u32 size) noexcept with gil
    cdef u32 read(self, u32 offset, u32 size) noexcept nogil
    cdef void write(self, u32 offset, u32 size, u32 value) noexcept nogil
    cdef void show_interrupt(self, int level) noexcept nogil
    cdef void call_hook(self, u32 offset, u32 size) noexcept with gil


cdef class PciFunctions:
    cdef void *by_devfn[256]
    cdef void *behind[256]      # of a bridge: the PciFunctions of its secondary bus
    cdef u8 bridges[256]
    cdef u32 bridge_count
    cdef list held, held_behind
    cdef void *towards(self, u32 number, bint *found) noexcept nogil
    cdef void *function(self, u32 number, u32 devfn) noexcept nogil


cdef class ConfigAddress(IoRegion):
    cdef public u32 latch


cdef class ConfigData(IoRegion):
    cdef readonly ConfigAddress address
    cdef readonly PciFunctions functions
    cdef void *selected(self) noexcept nogil


cdef class IntxPin(IrqSink):
    cdef PciConfig config
    cdef IrqLine out
    cdef int level


cdef class IntxBehind(IrqSink):
    cdef readonly IrqSink parent
    cdef u32 slot


cdef class IntxRouter(IrqSink):
    cdef readonly list pirq
    cdef void *lines[4]
    cdef u32 asserted[4]
    cdef u32 first_slot
