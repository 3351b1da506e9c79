# String instructions. The documentation is in string.pyx.
from accel.soft.cpu cimport Cpu, Uop, i64, u8, u32, u64
from accel.soft.insn cimport Insn

# `n` stores of `size` bytes to a device, one address behind the other from a linear one: of `data`, or NULL and all of one
# value. How many were done; 0: it is no device's, or these must go one by one; -1: a fault is noted.
ctypedef i64 (*DeviceRun)(Cpu *c, u64 linear, u32 size, const u8 *data, u64 value, u64 n) noexcept nogil
cdef void run_devices_by(DeviceRun run) noexcept
cdef int emit_string(Insn *i, Uop *u) noexcept nogil
