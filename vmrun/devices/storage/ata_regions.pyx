"""What a processor sees of two ATA channels: command blocks, control blocks, bus masters."""

from libc.string cimport memset

from accel.api cimport IoRegion, u8, u32, u64
from vmrun.devices.storage.ata cimport ALTERNATE_STATUS, DATA, STATUS_COMMAND, AtaChannel
from vmrun.devices.storage.ata_transfers cimport BM_ACTIVE, BM_START, BM_TO_MEMORY

from accel.space import ANYHOW

# Registers of the bus master, 8 bytes a channel.
cdef enum:
    BMIC = 0                        # command
    BMIS = 2                        # status
    BMIDTP = 4                      # descriptor table, 4 bytes


cdef class CommandBlock(IoRegion):
    """Ports 0 to 7 of a channel; the data port takes words and dwords, the others bytes, two in a word."""

    cdef AtaChannel channel

    def __init__(self, AtaChannel channel):
        self.channel = channel
        self.widest = ANYHOW

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u64 value = 0
        cdef u32 i
        if offset == DATA:
            self.channel.move(<u8 *>&value, size, False)
            return value
        if size > 2:
            return <u64>-1
        for i in range(size):
            if offset + i <= STATUS_COMMAND:
                value |= self.channel.read_register(offset + i) << (8 * i)
            else:
                value |= 0xFF << (8 * i)
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 i
        if offset == DATA:
            self.channel.move(<u8 *>&value, size, True)
            return 0
        if size > 2:
            return 0
        for i in range(size):
            if offset + i <= STATUS_COMMAND:
                self.channel.write_register(offset + i, (value >> (8 * i)) & 0xFF)
        return 0

    cdef u32 read_string(self, u64 offset, u32 size, u8 *data, u32 count) noexcept nogil:
        cdef u32 total = size * count, done = 0, n
        if offset:
            return IoRegion.read_string(self, offset, size, data, count)
        while done < total:
            n = self.channel.move(data + done, total - done, False)
            if n == 0:
                memset(data + done, 0, total - done)
                break
            done += n
        return 0

    cdef u32 write_string(self, u64 offset, u32 size, u8 *data, u32 count) noexcept nogil:
        cdef u32 total = size * count, done = 0, n
        if offset:
            return IoRegion.write_string(self, offset, size, data, count)
        while done < total:
            n = self.channel.move(data + done, total - done, True)
            if n == 0:
                break
            done += n
        return 0


cdef class ControlBlock(IoRegion):
    """Alternate status and device control."""

    cdef AtaChannel channel

    def __init__(self, AtaChannel channel):
        self.channel = channel
        self.max_access, self.widest = 1, 2

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.channel.read_register(ALTERNATE_STATUS)

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        self.channel.write_control(value & 0xFF)
        return 0


cdef class BusMaster(IoRegion):
    """16 ports: BMIC, BMIS and BMIDTP of two channels."""

    cdef list channels
    cdef void *by_index[2]

    def __init__(self, AtaChannel primary, AtaChannel secondary):
        self.channels = [primary, secondary]
        self.by_index[0] = <void *>primary
        self.by_index[1] = <void *>secondary
        self.max_access = 4

    cdef u32 wide(self, u64 offset, u32 left) noexcept nogil:
        """Bytes of the aligned piece of an access that begins here. BMIC and BMIS are bytes: as in qemu-kvm a wider piece
        reads all ones there and changes nothing.
        """
        cdef u32 piece = 1
        if offset & 4:
            return 1
        while 2 * piece <= left and 2 * piece <= 4 - (offset & 3) and offset & (2 * piece - 1) == 0:
            piece *= 2
        return piece

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u64 value = 0
        cdef u32 i = 0, piece
        while i < size:
            piece = self.wide(offset + i, size - i)
            if piece == 1:
                value |= <u64>read_bm(<AtaChannel>self.by_index[(offset + i) >> 3 & 1], (offset + i) & 7) << (8 * i)
            else:
                value |= ((<u64>1 << 8 * piece) - 1) << (8 * i)
            i += piece
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 i = 0, piece
        while i < size:
            piece = self.wide(offset + i, size - i)
            if piece == 1:
                write_bm(<AtaChannel>self.by_index[(offset + i) >> 3 & 1], (offset + i) & 7, (value >> (8 * i)) & 0xFF)
            i += piece
        return 0


cdef u8 read_bm(AtaChannel channel, u64 offset) noexcept nogil:
    if offset == BMIC:
        return channel.bm_command
    if offset == BMIS:
        return channel.bm_status
    if offset >= BMIDTP:
        return (channel.bm_table >> (8 * (offset - BMIDTP))) & 0xFF
    return 0xFF


cdef void write_bm(AtaChannel channel, u64 offset, u8 value) noexcept nogil:
    cdef bint was = channel.bm_command & BM_START
    if offset == BMIC:
        channel.bm_command = value & (BM_START | BM_TO_MEMORY)
        if value & BM_START and not was:
            channel.bm_status |= BM_ACTIVE
            if channel.dma_waiting:
                channel.run_dma()
        elif was and not value & BM_START:                     # what is under way completes, as the chip lets its FIFO run out
            channel.bm_status &= ~BM_ACTIVE
    elif offset == BMIS:
        channel.bm_status = (value & 0x60) | (channel.bm_status & BM_ACTIVE) | (channel.bm_status & ~value & 0x06)
    elif offset >= BMIDTP:
        channel.bm_table &= ~(<u32>0xFF << (8 * (offset - BMIDTP)))
        channel.bm_table |= <u32>value << (8 * (offset - BMIDTP))
        channel.bm_table &= ~<u32>3


