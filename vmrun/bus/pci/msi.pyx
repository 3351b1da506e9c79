"""Message-signalled interrupts, compiled: a function raises vector n with `notify`, the device lock held. Where the
accelerator takes messages from any thread (`anywhere`), an MSI-X vector may be raised without it: table and pending bits have
a mutex of their own, the innermost of all locks.

Ref: PCI Local Bus Specification 3.0, 6.8.1 (MSI), 6.8.2 (MSI-X).
A message is a write of a bus master: without bus mastering none leaves. One to 0xfee00000 goes straight to the
accelerator's sink, one to any other address is a write like any other.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from vmrun.core.cells cimport cells

from vmrun.core.state import KEEP, Bytes, Table

from accel.threads cimport pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock

cdef enum:
    CONTROL = 2
    # MSI
    MSI_ENABLE = 1
    MSI_ADDRESS = 4
    MSI_ADDRESS_HIGH = 8
    # MSI-X, high byte of the control word
    MSIX_ENABLE = 0x80
    MSIX_MASK = 0x40
    ENTRY = 16
    VECTOR_CONTROL = 12


cdef class Messages:
    """What MSI and MSI-X share. `offset`: of the capability in `config`."""

    cdef void send(self, u64 addr, u32 data) noexcept nogil:
        if not self.dma.enabled:
            return
        if addr >> 20 == 0xFEE:
            self.sink.send(addr, data)
        else:
            self.dma.space.enter()
            self.dma.write_from(addr, <const u8 *>&data, 4)
            self.dma.space.leave()

    cdef bint anywhere(self) noexcept nogil:
        """Whether `notify` needs no device lock."""
        return self.sink.anywhere

    cdef bint enabled(self) noexcept nogil:
        return False

    cdef void notify(self, u32 vector) noexcept nogil:
        pass

    cdef void flush(self) noexcept nogil:
        """Send what is pending and no longer held back."""

    def is_enabled(self):
        return self.enabled()

    def raise_vector(self, u32 vector):
        """`notify`, for devices in Python."""
        with nogil:
            self.notify(vector)

    def settle(self):
        """`flush`: registers of the capability were written."""
        with nogil:
            self.flush()


cdef class MsiChip(Messages):
    """`wide`: 64-bit address; `masks`: a mask bit for each vector. Everything it knows is in configuration space."""

    def __init__(self, PciConfig config, Dma dma, MsiSink sink, u32 offset, u32 vectors, bint wide, bint masks):
        self.config, self.dma, self.sink = config, dma, sink
        self.offset, self.vectors, self.wide, self.masks = offset, vectors, wide, masks

    cdef u32 field(self, u32 offset) noexcept nogil:
        """Data (8), mask (12) or pending (16), numbered as with a 32-bit address."""
        return self.offset + offset + (4 if self.wide else 0)

    cdef bint enabled(self) noexcept nogil:
        return self.config.data[self.offset + CONTROL] & MSI_ENABLE

    cdef void notify(self, u32 vector) noexcept nogil:
        cdef u32 allowed = <u32>1 << (self.config.data[self.offset + CONTROL] >> 4 & 7)
        cdef u32 bits, data
        cdef u64 addr
        if not self.enabled():
            return
        vector &= allowed - 1
        if self.masks:
            bits = self.config.read(self.field(16), 4)
            if self.config.read(self.field(12), 4) >> vector & 1:
                bits |= <u32>1 << vector
                memcpy(self.config.data + self.field(16), &bits, 4)
                return
        addr = self.config.read(self.offset + MSI_ADDRESS, 4)
        if self.wide:
            addr |= <u64>self.config.read(self.offset + MSI_ADDRESS_HIGH, 4) << 32
        data = self.config.read(self.field(8), 2)
        self.send(addr, (data & ~(allowed - 1)) | vector)

    cdef void flush(self) noexcept nogil:
        cdef u8 *control = &self.config.data[self.offset + CONTROL]
        cdef u32 pending, ready, vector, allowed
        if not self.enabled():
            return
        if (control[0] >> 4 & 7) > (control[0] >> 1 & 7):     # more than there are: all of them
            control[0] = (control[0] & 0x8F) | (control[0] & 0x0E) << 3
        if not self.masks:
            return
        allowed = <u32>1 << (control[0] >> 4 & 7)
        pending = self.config.read(self.field(16), 4)
        if allowed < 32:
            pending &= (<u32>1 << allowed) - 1
        ready = pending & ~self.config.read(self.field(12), 4)
        pending &= ~ready
        memcpy(self.config.data + self.field(16), &pending, 4)
        for vector in range(32):
            if ready >> vector & 1:
                self.notify(vector)


cdef class MsixChip(Messages):
    """Table and pending bits of up to 2048 vectors; `table_io` and `pending_io` show them in a BAR."""

    state = Table(
        "msix-table", 1,
        Bytes("entries", lambda chip: len(chip.entries), KEEP), Bytes("waiting", lambda chip: len(chip.waiting), KEEP),
    )
    save, load_state = state.methods()[1:]

    def __cinit__(self, PciConfig config, Dma dma, MsiSink sink, u32 offset, u32 vectors):
        if not 0 < vectors <= 2048:
            raise ValueError(f"MSI-X has 1 to 2048 vectors, not {vectors}")
        pthread_mutex_init(&self.mutex, NULL)
        self.config, self.dma, self.sink = config, dma, sink
        self.offset, self.vectors = offset, vectors
        self.table = <u8 *>calloc(vectors, ENTRY)
        self.pending = <u8 *>calloc((vectors + 63) // 64, 8)
        if self.table == NULL or self.pending == NULL:
            raise MemoryError
        self.table_io, self.pending_io = MsixTable(), MsixPending()
        (<MsixTable>self.table_io).chip = <void *>self
        (<MsixPending>self.pending_io).chip = <void *>self
        self.reset()

    def __dealloc__(self):
        free(self.table)
        free(self.pending)
        pthread_mutex_destroy(&self.mutex)
        # Whoever still holds a region of an unplugged device finds nothing behind it.
        if self.table_io is not None:
            (<MsixTable>self.table_io).chip = NULL
        if self.pending_io is not None:
            (<MsixPending>self.pending_io).chip = NULL

    def reset(self):
        """All vectors masked, nothing pending."""
        cdef u32 vector
        with nogil:
            pthread_mutex_lock(&self.mutex)
            memset(self.table, 0, self.vectors * ENTRY)
            memset(self.pending, 0, (self.vectors + 63) // 64 * 8)
            for vector in range(self.vectors):
                self.table[vector * ENTRY + VECTOR_CONTROL] = 1
            pthread_mutex_unlock(&self.mutex)

    cdef bint enabled(self) noexcept nogil:
        return self.config.data[self.offset + CONTROL + 1] & MSIX_ENABLE

    cdef bint masked(self, u32 vector) noexcept nogil:
        return (
            (self.config.data[self.offset + CONTROL + 1] & (MSIX_ENABLE | MSIX_MASK)) != MSIX_ENABLE
            or self.table[vector * ENTRY + VECTOR_CONTROL] & 1
        )

    cdef void notify(self, u32 vector) noexcept nogil:
        if vector < self.vectors:
            pthread_mutex_lock(&self.mutex)
            self.raise_one(vector)
            pthread_mutex_unlock(&self.mutex)

    cdef void raise_one(self, u32 vector) noexcept nogil:
        """With the mutex, so that a vector that was masked a moment ago is silent."""
        cdef u64 addr
        cdef u32 data
        if self.masked(vector):
            self.pending[vector >> 3] |= 1 << (vector & 7)
            return
        memcpy(&addr, self.table + vector * ENTRY, 8)
        memcpy(&data, self.table + vector * ENTRY + 8, 4)
        self.send(addr, data)

    cdef void flush_vector(self, u32 vector) noexcept nogil:
        """With the mutex."""
        if self.pending[vector >> 3] >> (vector & 7) & 1 and not self.masked(vector):
            self.pending[vector >> 3] &= ~(1 << (vector & 7))
            self.raise_one(vector)

    cdef void flush(self) noexcept nogil:
        cdef u32 vector
        pthread_mutex_lock(&self.mutex)
        for vector in range(self.vectors):
            self.flush_vector(vector)
        pthread_mutex_unlock(&self.mutex)

    def message(self, u32 vector):
        """(address, data, masked) of a vector: what a route in the kernel needs to know."""
        cdef u64 addr
        cdef u32 data
        if vector >= self.vectors:
            raise IndexError(vector)
        memcpy(&addr, self.table + vector * ENTRY, 8)
        memcpy(&data, self.table + vector * ENTRY + 8, 4)
        return addr, data, bool(self.masked(vector))

    @property
    def entries(self):
        return cells(self, self.table, self.vectors * ENTRY)

    @property
    def waiting(self):
        return cells(self, self.pending, (self.vectors + 7) // 8)


cdef u32 table_read(MsixChip chip, u32 offset) noexcept nogil:
    cdef u32 value = 0
    if offset + 4 <= chip.vectors * ENTRY:
        memcpy(&value, chip.table + offset, 4)
    return value


cdef void table_write(MsixChip chip, u32 offset, u32 value) noexcept nogil:
    if offset + 4 <= chip.vectors * ENTRY:
        pthread_mutex_lock(&chip.mutex)
        memcpy(chip.table + offset, &value, 4)
        chip.flush_vector(offset // ENTRY)
        pthread_mutex_unlock(&chip.mutex)


cdef u32 pending_read(MsixChip chip, u32 offset) noexcept nogil:
    cdef u32 value = 0
    if offset + 4 <= (chip.vectors + 63) // 64 * 8:
        memcpy(&value, chip.pending + offset, 4)
    return value


cdef class MsixTable(IoRegion):
    """Entries of 16 bytes: address, data, vector control. Taken as dwords, or pairs of them."""

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return table_read(<MsixChip>self.chip, <u32>offset) if size == 4 and offset & 3 == 0 and self.chip != NULL else 0

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        if size == 4 and offset & 3 == 0 and self.chip != NULL:
            table_write(<MsixChip>self.chip, <u32>offset, <u32>value)
        return 0


cdef class MsixPending(IoRegion):
    """A bit for each vector; read only."""

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return pending_read(<MsixChip>self.chip, <u32>offset) if size == 4 and offset & 3 == 0 and self.chip != NULL else 0

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        return 0
