"""Transmit descriptors of Intel's gigabit chips: frames are gathered, segmented, summed up and tagged here.

Ref: PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (Intel 317453), 3.3 (descriptors) and
3.5 (TCP segmentation); 82574 data sheet (317694), 7.2.

A frame has at most 64 KiB here, what is beyond is cut off; a segment's headers have at most the 255 bytes of HDRLEN.
The guest's memory is read once, so that it cannot change between a check and its use.
"""

from libc.string cimport memcpy, memmove

from vmrun.devices.network.frames cimport add_up, be16, be32, folded, le16, le32, le64, put_be16, put_be32

from vmrun.core.cells cimport cells

from vmrun.core.state import Bytes, Flag, Table, U8, U16, U32, U64, Words

cdef enum:
    OFFLOADS = 11               # numbers in one Offload


cdef class Transmitter:
    """One queue. The owner's `emit` gets each frame; `segmented` is told of each transfer that was cut into segments."""

    state = Table(
        "intel-tx", 2,
        Bytes("frame", None, b"", most=MOST), Bytes("header", 256), Words("offload", 2 * OFFLOADS, 0xFFFFF),
        U16("tag"), U16("tag_type"), U32("frames"), U8("sums"), Flag("tagged"), Flag("segmenting"),
        U32("taken", most=0xFFFF), U64("place"), readers={1: lambda values: {**values, "taken": 0, "place": 0}},
    )
    reset, save, load_state = state.methods()

    def __cinit__(self):
        self.data = self.room + 4

    cdef bint process(self, Dma dma, const u8 *descriptor, bint vlan, u32 ethertype) noexcept nogil:
        """One descriptor of 16 bytes. `vlan`: tags are inserted, with this type. False: the turn is over, and not the
        descriptor, which is to come again.
        """
        cdef u32 lower = le32(descriptor + 8), length = lower & 0xFFFF, part, whole, size
        cdef u64 address = le64(descriptor)
        cdef Offload *said
        if lower & TXD_DEXT and not lower & TXD_DTYP_D:
            said = &self.segments if lower & TXD_TSE else &self.plain
            said.ipcss, said.ipcso, said.ipcse = descriptor[0], descriptor[1], le16(descriptor + 2)
            said.tucss, said.tucso, said.tucse = descriptor[4], descriptor[5], le16(descriptor + 6)
            said.paylen, said.hdr_len, said.mss = lower & 0xFFFFF, descriptor[13], le16(descriptor + 14)
            said.tcp, said.ip = lower >> 24 & 1, lower >> 25 & 1
            if lower & TXD_TSE:
                self.frames = 0
            return True
        if lower & TXD_DEXT:
            if self.size == 0:
                self.sums = descriptor[13]
            self.segmenting = lower & TXD_TSE != 0
        else:
            self.segmenting = False
        if vlan and lower & TXD_VLE and (self.segmenting or lower & TXD_EOP):
            self.tagged, self.tag, self.tag_type = True, le16(descriptor + 14), ethertype & 0xFFFF
        if self.segmenting:
            whole = self.segments.hdr_len + self.segments.mss
            part = min(self.taken, length)
            address += part
            length -= part
            while length and self.size < whole:
                part = min(min(length, whole - self.size), MOST - self.size)
                if not part:
                    break
                dma.read_into(address, self.data + self.size, part)
                size = self.size + part
                if self.size < self.segments.hdr_len <= size:
                    memcpy(self.head, self.data, self.segments.hdr_len)
                self.size = size
                address += part
                length -= part
                self.taken += part
                if size == whole:
                    self.segment()
                    memcpy(self.data, self.head, self.segments.hdr_len)
                    self.size = self.segments.hdr_len
                    if self.over and length:
                        return False
        else:
            part = min(length, MOST - self.size)
            dma.read_into(address, self.data + self.size, part)
            self.size += part
        self.taken = 0
        if lower & TXD_EOP:
            if not (self.segmenting and self.size < self.segments.hdr_len):
                self.segment()
            self.frames, self.sums, self.size = 0, 0, 0
            self.tagged = self.segmenting = False
        return True

    cdef void segment(self) noexcept nogil:
        """The bytes that are there are a frame: complete its headers, send it."""
        cdef Offload *said = &self.segments if self.segmenting else &self.plain
        cdef u8 *at
        cdef u32 length, sent
        if self.segmenting:
            at = self.data + said.ipcss
            if said.ip:
                put_be16(at + 2, self.size - said.ipcss)
                put_be16(at + 4, be16(at + 4) + self.frames)
            else:
                put_be16(at + 4, self.size - said.ipcss)
            at = self.data + said.tucss
            length = self.size - said.tucss
            if said.tcp:
                sent = self.frames * said.mss
                put_be32(at + 4, be32(at + 4) + sent)
                if said.paylen - sent > said.mss:
                    at[13] &= ~9                                # PSH and FIN are the last segment's
                elif self.frames:
                    self.segmented(self.owner)
            else:
                put_be16(at + 4, length)
            if self.sums & POPTS_TXSM:                          # the pseudo header's sum lacks the length
                at = self.data + said.tucso
                put_be16(at, folded(be16(at) + (length & 0xFFFF)))
            self.frames += 1
        if self.sums & POPTS_TXSM:
            self.put_sum(said.tucso, said.tucss, said.tucse)
        if self.sums & POPTS_IXSM:
            self.put_sum(said.ipcso, said.ipcss, said.ipcse)
        self.send()

    cdef void send(self) noexcept nogil:
        if self.tagged:
            memmove(self.room, self.data, 12)
            put_be16(self.room + 12, self.tag_type)
            put_be16(self.room + 14, self.tag)
            self.over = self.emit(self.owner, self.room, self.size + 4)
        else:
            self.over = self.emit(self.owner, self.data, self.size)

    cdef void put_sum(self, u32 place, u32 start, u32 end) noexcept nogil:
        """The checksum of [start, end] (end 0: to the last byte) at `place`; 0 is sent as all ones, as UDP has it."""
        cdef u32 size = self.size, sum
        if end and end < size:
            size = end + 1
        if place + 1 < size:
            sum = ~add_up(self.data + start, size - start if start < size else 0, 0) & 0xFFFF
            put_be16(self.data + place, sum if sum else 0xFFFF)

    # --- state ------------------------------------------------------------------------------------------------

    @property
    def frame(self):
        return (<char *>self.data)[:self.size]

    @frame.setter
    def frame(self, bytes value):
        self.size = <u32>len(value)
        memcpy(self.data, <const u8 *>value, self.size)

    @property
    def header(self):
        return cells(self, self.head, 256)

    @property
    def offload(self):
        cdef u32 *plain = <u32 *>&self.plain
        cdef u32 *segments = <u32 *>&self.segments
        return [plain[n] for n in range(OFFLOADS)] + [segments[n] for n in range(OFFLOADS)]

    @offload.setter
    def offload(self, list values):
        cdef u32 *plain = <u32 *>&self.plain
        cdef u32 *segments = <u32 *>&self.segments
        for n in range(OFFLOADS):
            plain[n], segments[n] = values[n], values[OFFLOADS + n]
