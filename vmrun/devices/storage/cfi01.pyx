"""A parallel NOR flash with Intel's command set (CFI command set 0001), the chip alone.

Ref: JEDEC JESD68.01 (CFI); Intel StrataFlash J3 (290667), 4 and appendix. As QEMU's: a program or an erase is over at
once, a program stores the value as it is (it clears no bits), 0x00 means read array. The bus is 8 bits wide.
Not modelled: block locks (taken, no effect), suspend, protection registers, timing.

In array mode the guest reads memory directly and each write comes here; the first of a command takes the memory away,
and every read comes here too until the array is shown again. What was programmed is written to the image behind the
guest's back, one request at a time with all that has gathered meanwhile.
"""

from libc.string cimport memcpy, memset

from vmrun.backends.protocols cimport (
    BLOCK_WRITE, BlockRequest, block_buffer, block_release, block_request, block_submit,
)

from vmrun.core.cells cimport cells

from vmrun.core.state import U8, U32, Bytes, Table

cdef enum:
    READ_ARRAY_0 = 0x00
    PROGRAM = 0x10
    BLOCK_ERASE = 0x20
    PROGRAM_2 = 0x40
    CLEAR_STATUS = 0x50
    LOCK = 0x60
    READ_STATUS = 0x70
    READ_ID = 0x90
    QUERY = 0x98
    CONFIRM = 0xD0
    WRITE_BUFFER = 0xE8
    AMD_RESET = 0xF0
    READ_ARRAY = 0xFF
    # status
    READY = 0x80
    ERASE_ERROR = 0x20
    PROGRAM_ERROR = 0x10
    IMAGE_STEP = 512
    NO_BUFFER = 0x7FFFFFFF


cdef void call_over(CfiFlash chip, BlockRequest *request) noexcept nogil:
    if request.error:
        chip.failures += 1
    block_release(chip.drive, request)
    chip.writing = False
    chip.write_back()


cdef void written(BlockRequest *request) noexcept nogil:
    call_over(<CfiFlash>request.owner, request)


def query_table(u64 size, u32 sector):
    """The CFI query structure of a device of `size` bytes, by address."""
    cdef bytearray table = bytearray(0x52)
    blocks = size // sector - 1
    table[0x10:0x17] = b"QRY\x01\x00\x31\x00"
    table[0x1B:0x1D] = b"\x45\x55"                          # 4.5 V to 5.5 V
    table[0x1F:0x26] = b"\x07\x07\x0a\x00\x04\x04\x04"      # times, as powers of two
    table[0x27] = (size & -size).bit_length() - 1           # bytes, as a power of two where they are one
    table[0x28] = 0x02                                      # 8 and 16 bits
    table[0x2A] = 0x08                                      # bytes of the write buffer, as a power of two
    table[0x2C] = 0x01
    table[0x2D], table[0x2E] = blocks & 0xFF, blocks >> 8 & 0xFF
    table[0x2F], table[0x30] = sector >> 8 & 0xFF, sector >> 16 & 0xFF
    table[0x31:0x36] = b"PRI10"
    table[0x3F] = 0x01
    return bytes(table)


cdef class CfiFlash(IoRegion):
    """`block` holds the contents, `backend` their image. `show_array(bool)` puts the memory in front, or takes it away;
    the device lock is held.
    """

    state = Table(
        "cfi01", 1, U8("command"), U8("cycle", most=3), U8("status", READY), U32("counter"),
        U32("buffer_at", NO_BUFFER), Bytes("buffer", BUFFER),
    )
    reset, save, load_state = state.methods()

    def __init__(self, RamBlock block, backend, show_array, u32 sector):
        self.name = "cfi.pflash01"
        self.block, self.backend, self.show_array = block, backend, show_array
        self.drive = <void *>backend
        self.readonly = backend.readonly
        self.sector = sector
        self.query = query_table(block.size, sector)
        self.query_data, self.query_size = <u8 *>self.query, <u32>len(self.query)
        self.status = READY
        self.buffer_at = NO_BUFFER

    @property
    def buffer(self):
        return cells(self, self.gathered, BUFFER)

    def check_state(self, values):
        """A command has a cycle that it knows."""
        from vmrun.errors import StateError

        cycles = {WRITE_BUFFER: 3, READ_ARRAY_0: 0, READ_STATUS: 0, READ_ID: 0}
        at = values["buffer_at"]
        if (at != NO_BUFFER) != (values["command"] == WRITE_BUFFER and values["cycle"] > 1):
            raise StateError("cfi.pflash01: a write buffer without its command, or the other way")
        if at != NO_BUFFER and (at % BUFFER or at >= self.block.size):
            raise StateError("cfi.pflash01: a write buffer outside the flash")
        if values["cycle"] > cycles.get(values["command"], 1):
            raise StateError("cfi.pflash01: a command that does not have so many cycles")

    def settle(self):
        self.show_array(self.command == READ_ARRAY_0 and self.cycle == 0)

    # --- the guest's side: the device lock is held ----------------------------------------------------------

    cdef void show(self, bint array) noexcept with gil:
        self.show_array(array)

    cdef void array_mode(self) noexcept nogil:
        self.command, self.cycle, self.buffer_at = READ_ARRAY_0, 0, NO_BUFFER
        self.show(True)

    cdef void io_mode(self) noexcept nogil:
        self.show(False)

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u64 value = 0
        cdef u32 at
        if self.command == READ_ARRAY_0:
            if offset + size <= self.block.size:
                memcpy(&value, self.block.host + offset, size)
            return value
        if self.command == READ_ID:
            return 0                                        # of a PC's: maker and device are 0
        if self.command == QUERY:
            at = <u32>offset & 0xFF
            return self.query_data[at] if at < self.query_size else 0
        value = self.status
        return value | value << 16 if size > 2 else value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        if offset + size > self.block.size:
            return 0
        if self.cycle == 0:
            self.first(offset, <u8>value)
        elif self.cycle == 1:
            self.second(offset, size, value)
        elif self.cycle == 2:
            self.buffered(offset, size, value)
        elif <u8>value == CONFIRM and not self.status & PROGRAM_ERROR:
            memcpy(self.block.host + self.buffer_at, self.gathered, BUFFER)
            self.changed(self.buffer_at, BUFFER)
            self.cycle, self.buffer_at = 0, NO_BUFFER
            self.status |= READY
        else:
            self.array_mode()
        return 0

    cdef void first(self, u64 offset, u8 command) noexcept nogil:
        """The first cycle of a command."""
        if command == BLOCK_ERASE:
            offset &= ~<u64>(self.sector - 1)
            if self.readonly:
                self.status |= ERASE_ERROR
            else:
                memset(self.block.host + offset, 0xFF, self.sector)
                self.changed(offset, self.sector)
            self.status |= READY
        elif command == WRITE_BUFFER:
            self.status |= READY
        elif command == READ_STATUS or command == READ_ID:
            self.io_mode()
            self.command = command
            return
        elif command == CLEAR_STATUS:
            self.status = 0
            self.array_mode()
            return
        elif command != PROGRAM and command != PROGRAM_2 and command != LOCK and command != QUERY:
            self.array_mode()
            return
        self.io_mode()
        self.command, self.cycle = command, 1

    cdef void second(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u8 byte = <u8>value
        if self.command == PROGRAM or self.command == PROGRAM_2:
            if self.readonly:
                self.status |= PROGRAM_ERROR
            else:
                memcpy(self.block.host + offset, &value, size)
                self.changed(offset, size)
            self.status |= READY
            self.cycle = 0
        elif self.command == BLOCK_ERASE:
            if byte == CONFIRM:
                self.status |= READY
                self.cycle = 0
            else:
                self.array_mode()
        elif self.command == WRITE_BUFFER:
            self.counter = <u8>value
            self.buffer_at = <u32>offset & ~<u32>(BUFFER - 1)
            memcpy(self.gathered, self.block.host + self.buffer_at, BUFFER)
            self.cycle = 2
        elif self.command == LOCK and (byte == CONFIRM or byte == 0x01):
            self.status |= READY
            self.cycle = 0
        elif self.command != QUERY or byte == READ_ARRAY:
            self.array_mode()

    cdef void buffered(self, u64 offset, u32 size, u64 value) noexcept nogil:
        """One of the counter + 1 values of a buffered write, which fall into one block of the buffer's size."""
        if self.readonly or offset < self.buffer_at or offset + size > <u64>self.buffer_at + BUFFER:
            self.status |= PROGRAM_ERROR
        else:
            memcpy(self.gathered + offset - self.buffer_at, &value, size)
        self.status |= READY
        if self.counter == 0:
            self.cycle = 3
        self.counter -= 1

    # --- the image's side -----------------------------------------------------------------------------------

    cdef void changed(self, u64 offset, u64 size) noexcept nogil:
        self.block.mark_dirty(offset, size)
        if self.low == self.high:
            self.low, self.high = offset, offset + size
        else:
            self.low, self.high = min(self.low, offset), max(self.high, offset + size)
        if not self.writing:
            self.write_back()

    cdef void write_back(self) noexcept nogil:
        cdef BlockRequest *request
        cdef u8 *data
        cdef u64 low, high
        while self.low != self.high and not self.writing:
            low = self.low & ~<u64>(IMAGE_STEP - 1)
            high = (self.high + IMAGE_STEP - 1) & ~<u64>(IMAGE_STEP - 1)
            request = block_request(self.drive, <void *>self, written)
            data = block_buffer(request, high - low) if request != NULL else NULL
            if data == NULL:
                block_release(self.drive, request)
                self.failures += 1
                return                              # tried again with the next change
            memcpy(data, self.block.host + low, high - low)
            self.low = self.high = 0
            request.op, request.offset = BLOCK_WRITE, low
            self.writing = True
            if block_submit(self.drive, request):
                self.failures += 1 if request.error else 0
                block_release(self.drive, request)
                self.writing = False
