"""Which namespaces an NVM Express controller has: those of its subsystem, of which some are attached to it; identify lists,
attachment, format.

Ref: NVM Express 1.4, 5.12 (attachment), 5.15 (identify), 5.23 (format), 6.1 (namespaces). A controller without a subsystem is
its only controller. Admin commands come here with the device lock and the locks of all its queues; what other controllers see is
changed with theirs too: those of the subsystem, in the order of their numbers, are taken by nobody who has not the device
lock.
"""

from libc.string cimport memcpy

from accel.api cimport u16
from accel.dma cimport Scatter
from vmrun.backends.protocols cimport BLOCK_UNMAP, BLOCK_ZERO
from vmrun.core.cells cimport cells
from vmrun.devices.storage.nvme_io cimport EVERY
from vmrun.devices.storage.nvme_queues cimport (
    ALREADY_ATTACHED, INVALID_FIELD, INVALID_FORMAT, INVALID_LIST, INVALID_NSID, NOT_ATTACHED, OK, PRIVATE, Command,
)
from vmrun.devices.storage.nvme_space cimport NvmeSpace

cdef enum:
    PAGE = 4096                     # an identify page, a list of controllers
    LISTED = 1024                   # namespaces of a list
    MOST_LISTED = 2047              # controllers of a list
    ZONED = 2                       # command set
    MOST_BYTES = 0x7FFFFE00         # that are given back at once


cdef class NvmeSpaces(NvmeIo):
    """`number` is the controller's within its subsystem. `known_spaces`: NvmeSpace by number."""

    def __cinit__(self, *args, **kwargs):
        self.known_spaces = {}

    @property
    def attached(self):
        """The numbers of what is attached: little-endian bits."""
        return sum(1 << nsid for nsid in range(MOST_NAMESPACES + 1) if self.spaces[nsid] != NULL).to_bytes(33, "little")

    @attached.setter
    def attached(self, bits):
        chosen = int.from_bytes(bits, "little")
        for nsid in range(MOST_NAMESPACES + 1):
            self.spaces[nsid] = self.known[nsid] if chosen >> nsid & 1 else NULL

    @property
    def changed_spaces(self):
        return cells(self, self.changed, MOST_NAMESPACES + 1)

    # --- the subsystem's side: the device lock is held --------------------------------------------------------------

    def join(self, u32 number, others, bint in_subsystem):
        """It is controller `number` among `others` (by number, NvmeSpaces or None), which know of it from now on."""
        self.number, self.in_subsystem = number, in_subsystem
        self.peers[number] = <void *>self
        for other in others:
            if other is not None:
                self._meet(other)
                (<NvmeSpaces>other)._meet(self)

    def part(self):
        """No other controller knows it any more. Nothing of it is under way."""
        cdef u32 n
        for n in range(MOST_CONTROLLERS):
            if self.peers[n] != NULL and n != self.number:
                (<NvmeSpaces>self.peers[n])._miss(self.number)
                self.peers[n] = NULL

    def _meet(self, NvmeSpaces other):
        self.peers[other.number] = <void *>other

    def _miss(self, u32 number):
        self.peers[number] = NULL

    def know(self, NvmeSpace space, bint attached):
        """There is such a namespace."""
        with nogil:
            self.enter_all()
        self.known_spaces[space.nsid] = space
        self.known[space.nsid] = <void *>space
        if attached:
            self.spaces[space.nsid] = <void *>space
        with nogil:
            self.leave_all()

    def forget_space(self, NvmeSpace space):
        """It is there no more; what it had under way is given up."""
        with nogil:
            self.enter_all()
            self.drop_space(<void *>space)
            self.known[space.nsid] = self.spaces[space.nsid] = NULL
            self.leave_all()
        self.known_spaces.pop(space.nsid, None)

    def space_resized(self, NvmeSpace space):
        """The drive has another size: those who have it attached are told."""
        cdef u32 n
        with nogil:
            self.enter_all()
            self.enter_family()
        space.resized()
        with nogil:
            self.leave_family()
            self.leave_all()
            for n in range(MOST_CONTROLLERS):
                if self.peers[n] != NULL and (<NvmeSpaces>self.peers[n]).spaces[space.nsid] != NULL:
                    (<NvmeSpaces>self.peers[n]).notice(space.nsid)

    cdef void enter_family(self) noexcept nogil:
        """Also what the other controllers' queues have. `enter_all` comes before."""
        cdef u32 n
        for n in range(MOST_CONTROLLERS):
            if self.peers[n] != NULL and n != self.number:
                (<NvmeSpaces>self.peers[n]).enter_all()

    cdef void leave_family(self) noexcept nogil:
        cdef u32 n
        for n in range(MOST_CONTROLLERS):
            if self.peers[n] != NULL and n != self.number:
                (<NvmeSpaces>self.peers[n]).leave_all()

    cdef bint attached_anywhere(self, u32 nsid) noexcept nogil:
        cdef u32 n
        for n in range(MOST_CONTROLLERS):
            if self.peers[n] != NULL and (<NvmeSpaces>self.peers[n]).spaces[nsid] != NULL:
                return True
        return False

    cdef void notice(self, u32 nsid) noexcept nogil:
        """What is attached, or what it is like, has changed."""

    # --- admin commands ---------------------------------------------------------------------------------------------

    cdef int give(self, Command *c, const u8 *data, u64 length) noexcept nogil:
        """An admin command's answer to the guest's memory."""
        cdef int status
        if c.flags >> 6:
            return INVALID_FIELD
        status = self.gather(c, length, True, self.side[0].scatter)
        if status == OK:
            (<Scatter>self.side[0].scatter).put(0, data, length)
            (<Scatter>self.side[0].scatter).finish(length)
        else:
            (<Scatter>self.side[0].scatter).finish(0)
        return status

    cdef int receive(self, Command *c, u8 *data, u64 length) noexcept nogil:
        """What an admin command brings, out of the guest's memory."""
        cdef int status
        if c.flags >> 6:
            return INVALID_FIELD
        status = self.gather(c, length, False, self.side[0].scatter)
        if status == OK:
            (<Scatter>self.side[0].scatter).get(0, data, length)
        (<Scatter>self.side[0].scatter).finish(0)
        return status

    cdef int attach(self, Command *c) noexcept nogil:
        """Attach a namespace to the controllers of a list (CDW10.SEL 0), or take it from them (1)."""
        cdef u8 controllers[PAGE]
        cdef int status
        if not c.nsid or c.nsid > MOST_NAMESPACES and c.nsid != EVERY:
            return INVALID_NSID
        if not self.in_subsystem or c.nsid == EVERY or self.known[c.nsid] == NULL:
            return INVALID_FIELD
        status = self.receive(c, controllers, PAGE)
        if status != OK:
            return status
        self.enter_family()
        status = self.attach_to(c, controllers)
        self.leave_family()
        return status

    cdef int attach_to(self, Command *c, const u8 *controllers) noexcept nogil:
        cdef u16 words[MOST_LISTED + 1]
        cdef u32 n
        cdef u32 select = c.cdw10 & 15
        cdef void *peer
        memcpy(words, controllers, PAGE)
        if not words[0]:
            return INVALID_LIST
        for n in range(1, min(<u32>words[0], <u32>MOST_LISTED) + 1):
            peer = self.peers[words[n]] if words[n] < MOST_CONTROLLERS else NULL
            if peer == NULL:
                return INVALID_LIST
            if select == 0:
                if (<NvmeSpaces>peer).spaces[c.nsid] != NULL:
                    return ALREADY_ATTACHED
                if not (<NvmeSpace>self.known[c.nsid]).shared and self.attached_anywhere(c.nsid):
                    return PRIVATE
                (<NvmeSpaces>peer).spaces[c.nsid] = self.known[c.nsid]
            elif select == 1:
                if (<NvmeSpaces>peer).spaces[c.nsid] == NULL:
                    return NOT_ATTACHED
                (<NvmeSpaces>peer).spaces[c.nsid] = NULL
            else:
                return INVALID_FIELD
            (<NvmeSpaces>peer).notice(c.nsid)
        return OK

    cdef int format(self, Command *c) noexcept nogil:
        """Blocks of another size, all zeroes, of one namespace or of all that are attached."""
        cdef u32 format = c.cdw10 & 15, first = c.nsid, last = c.nsid, n
        if c.nsid == EVERY:
            first, last = 1, MOST_NAMESPACES
        elif not c.nsid or c.nsid > MOST_NAMESPACES:
            return INVALID_NSID
        elif self.spaces[c.nsid] == NULL:
            return INVALID_FIELD
        for n in range(first, last + 1):
            if self.spaces[n] == NULL:
                continue
            if c.cdw10 & 0x1F0 or not (<NvmeSpace>self.spaces[n]).has_format(format):
                return INVALID_FORMAT                           # 1F0h: metadata among the blocks, protection
        self.enter_family()
        for n in range(first, last + 1):
            if self.spaces[n] != NULL:
                (<NvmeSpace>self.spaces[n]).choose(format)
        self.leave_family()
        if c.nsid == EVERY:
            return self.start_all(0, c, BLOCK_ZERO, BLOCK_UNMAP)
        return self.start(
            0, c, <NvmeSpace>self.spaces[first], BLOCK_ZERO, 0, (<NvmeSpace>self.spaces[first]).size, BLOCK_UNMAP, False
        )

    cdef int identify_space(self, Command *c, u8 *data) noexcept nogil:
        """What Identify says of namespaces and of who has them, into 4096 bytes of zeros."""
        cdef u8 kind = c.cdw10 & 0xFF, set = c.cdw11 >> 24
        cdef void **table = &self.spaces[0]
        if kind in (0x10, 0x11, 0x1A, 0x1B):                    # also what is not attached
            table = &self.known[0]
        if kind in (0x12, 0x13):
            return self.list_controllers(c, data)
        if kind in (0x02, 0x10, 0x07, 0x1A):                    # a list
            if c.nsid >= <u32>0xFFFFFFFE:
                return INVALID_NSID
            if kind in (0x07, 0x1A) and set:
                return OK if set == ZONED else INVALID_FIELD    # none has zones
            self.list_spaces(table, c.nsid, data)
            return OK
        if not c.nsid or c.nsid > MOST_NAMESPACES:
            return INVALID_NSID
        if kind in (0x00, 0x11):
            if table[c.nsid] != NULL:
                (<NvmeSpace>table[c.nsid]).fill(data)
            return OK
        if kind == 0x03:
            if table[c.nsid] == NULL:
                return INVALID_FIELD
            (<NvmeSpace>table[c.nsid]).describe(data)
            return OK
        return OK if table[c.nsid] == NULL or not set else INVALID_FIELD  # 05h, 1Bh: what a command set adds is nothing

    cdef void list_spaces(self, void **table, u32 above, u8 *data) noexcept nogil:
        cdef u32 n, count = 0
        for n in range(above + 1, MOST_NAMESPACES + 1):
            if table[n] != NULL and count < LISTED:
                memcpy(data + 4 * count, &n, 4)
                count += 1

    cdef int list_controllers(self, Command *c, u8 *data) noexcept nogil:
        """12h: those that have the namespace, 13h: all; from CDW10.CNTID on."""
        cdef u32 n, count = 0
        cdef bint one = c.cdw10 & 0xFF == 0x12
        if not self.in_subsystem:
            return INVALID_FIELD
        if one:
            if c.nsid == EVERY:
                return INVALID_FIELD
            if not c.nsid or c.nsid > MOST_NAMESPACES:
                return INVALID_FIELD
            if self.known[c.nsid] == NULL:
                return INVALID_FIELD
        for n in range(c.cdw10 >> 16, MOST_CONTROLLERS):
            if self.peers[n] == NULL or one and (<NvmeSpaces>self.peers[n]).spaces[c.nsid] == NULL:
                continue
            count += 1
            data[2 * count] = <u8>n
        data[0] = <u8>count
        return OK

    cdef void list_changed(self, u8 *data) noexcept nogil:
        """Namespaces that changed since the list was last read."""
        cdef u32 n, count = 0
        for n in range(1, MOST_NAMESPACES + 1):
            if self.changed[n]:
                memcpy(data + 4 * count, &n, 4)
                count += 1

    cdef u32 most_deallocated(self) noexcept nogil:
        """Blocks that one command gives back at most: as the largest blocks have it."""
        cdef u32 n, least = 0, most
        for n in range(1, MOST_NAMESPACES + 1):
            if self.spaces[n] != NULL:
                most = <u32>(MOST_BYTES >> (<NvmeSpace>self.spaces[n]).block_shift)
                if not least or most < least:
                    least = most
        return least
