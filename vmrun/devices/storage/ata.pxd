# An ATA channel. The documentation is in ata.pyx.
from accel.api cimport u8, u32, u64
from vmrun.devices.storage.ata_transfers cimport AtaTransfers

# Registers of the command block by offset; the control block's alternate status is one more.
cdef enum:
    DATA = 0
    ERROR_FEATURES = 1
    SECTOR_COUNT = 2
    SECTOR_NUMBER = 3
    CYLINDER_LOW = 4
    CYLINDER_HIGH = 5
    DEVICE_HEAD = 6
    STATUS_COMMAND = 7
    ALTERNATE_STATUS = 8


cdef class AtaChannel(AtaTransfers):
    cdef void command(self, u8 code) noexcept nogil
    cdef void smart(self) noexcept nogil
    cdef void set_features(self) noexcept nogil
    cdef bint packet_command(self, u8 code) noexcept nogil
    cdef u32 holding(self, int phase, u32 filled, u32 block_end) noexcept nogil
    cdef u64 read_register(self, u64 offset) noexcept nogil
    cdef void write_register(self, u64 offset, u8 value) noexcept nogil
    cdef void write_control(self, u8 value) noexcept nogil
