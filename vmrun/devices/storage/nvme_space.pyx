"""A namespace of an NVM Express controller: a drive's image in blocks, what it says of itself, what was done with it.

Ref: NVM Express 1.4, 5.15.2.1 (Identify Namespace), 5.15.2.4 (identification descriptors); TP 4065 (copy). A controller
that it is attached to has it in its table; several of one subsystem may. What changes here does so with the locks of all
controllers that know it.
Not modelled: metadata, protection, zones; that reads of blocks which were given back fail when feature 5 says so.
"""

from libc.string cimport memcpy

from vmrun.core.state import KEEP, U8, U32, U64, Table

cdef enum:
    FORMATS = 8                 # that each has: blocks of 512 and 4096, each with these many bytes of metadata
    NIDT_EUI64 = 1
    NIDT_UUID = 3
    NIDT_CSI = 4

cdef u8 METADATA[4]
METADATA[0], METADATA[1], METADATA[2], METADATA[3] = 0, 8, 16, 64


cdef class NvmeSpace:
    """`granularity`: bytes of what is given back at once. `copies`: blocks of a copy, its ranges less one, blocks of a
    range; all 0: it copies nothing. A block size that no format has is one more format. `shared`: several controllers of its
    subsystem may have it at once.
    """

    state = Table(
        "nvme-namespace", 1, U64("reads", KEEP), U64("writes", KEEP), U64("blocks_read", KEEP), U64("blocks_written", KEEP),
        U32("recovery", KEEP), U8("block_exponent", KEEP, least=9, most=21),
    )
    reset, save, load_state = state.methods()

    def __init__(self, backend, u32 nsid, u32 block_size, u64 granularity, copies=(0, 0, 0), u64 eui64=0, bytes uuid=None,
                 bint shared=False):
        self.backend, self.drive, self.nsid, self.size = backend, <void *>backend, nsid, backend.size
        self.own_shift = self.block_shift = block_size.bit_length() - 1
        self.granularity, self.eui64, self.shared = granularity, eui64, shared
        if uuid is not None:
            memcpy(self.uuid, <const u8 *>uuid, 16)
        self.has_uuid = uuid is not None
        self.most_copied, self.most_ranges, self.most_range = copies

    @property
    def block_exponent(self):
        return self.block_shift

    @block_exponent.setter
    def block_exponent(self, u32 value):
        self.block_shift = value

    def check_state(self, values):
        from vmrun.errors import StateError

        if values["block_exponent"] not in (9, 12, self.own_shift):
            raise StateError("nvme: blocks of a size that the namespace has not")

    def settle(self):
        """Nothing follows from what is kept."""

    def resized(self):
        """The drive has another size. The locks of all controllers that know it are held."""
        self.size = self.backend.size

    cdef u64 blocks(self) noexcept nogil:
        return self.size >> self.block_shift

    cdef bint has_own(self) noexcept nogil:
        return self.own_shift != 9 and self.own_shift != 12

    cdef bint has_format(self, u32 format) noexcept nogil:
        """Whether blocks can be as this one has them: those without metadata."""
        return format == 0 or format == 4 or format == FORMATS and self.has_own()

    cdef void choose(self, u32 format) noexcept nogil:
        """Blocks as a format that it has from now on."""
        self.block_shift = 9 if format == 0 else 12 if format == 4 else self.own_shift

    cdef void fill(self, u8 *data) noexcept nogil:
        """Identify Namespace, into 4096 bytes of zeros."""
        cdef u64 blocks = self.blocks()
        cdef u32 n, unit = <u32>(self.granularity >> self.block_shift) - 1
        for n in range(3):                                      # size, capacity, use
            memcpy(data + 8 * n, &blocks, 8)
        data[24] = 0x14                                         # deallocated blocks, granularities
        data[25] = FORMATS if self.has_own() else FORMATS - 1
        data[26] = 0 if self.block_shift == 9 else 4 if self.block_shift == 12 else FORMATS
        data[27], data[28], data[33] = 3, 0x1F, 1
        data[30] = 1 if self.shared else 0
        data[0x44] = data[0x46] = <u8>unit
        data[0x45] = data[0x47] = <u8>(unit >> 8)
        data[0x4A], data[0x4B] = <u8>self.most_range, <u8>(self.most_range >> 8)
        memcpy(data + 0x4C, &self.most_copied, 4)
        data[0x50] = <u8>self.most_ranges
        for n in range(8):
            data[0x78 + n] = <u8>(self.eui64 >> (56 - 8 * n))
        for n in range(FORMATS):                                # bytes of metadata, size of blocks
            data[0x80 + 4 * n] = METADATA[n & 3]
            data[0x82 + 4 * n] = 9 if n < 4 else 12
        if self.has_own():
            data[0x82 + 4 * FORMATS] = <u8>self.own_shift

    cdef void describe(self, u8 *data) noexcept nogil:
        """Namespace identification descriptors, into 4096 bytes of zeros."""
        cdef u32 n
        if self.has_uuid:
            data[0], data[1] = NIDT_UUID, 16
            memcpy(data + 4, self.uuid, 16)
            data += 20
        if self.eui64:
            data[0], data[1] = NIDT_EUI64, 8
            for n in range(8):
                data[4 + n] = <u8>(self.eui64 >> (56 - 8 * n))
            data += 12
        data[0], data[1], data[4] = NIDT_CSI, 1, 0              # its commands are those of NVM
