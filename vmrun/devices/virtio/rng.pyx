"""virtio-rng's chip: fills what it is given with the host's random bytes.

Ref: Virtual I/O Device (VIRTIO) 1.1, 5.4.
"""

from accel.api cimport u8, u32, u64
from vmrun.bus.virtio.device cimport VirtioChip
from vmrun.bus.virtio.ring cimport Chain, VirtQueue

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void *, size_t, unsigned int)

cdef enum:
    BLOCK = 256                 # getrandom() is never interrupted for so many


cdef class RngChip(VirtioChip):
    """`quota`: bytes that may still be given in this period; `limited` is whether there is such a limit."""

    cdef public bint limited
    cdef public u64 quota
    cdef VirtQueue requests

    def __init__(self, dma, sizes):
        super().__init__(dma, sizes)
        self.requests = self.queues[0]

    cdef void kicked(self, u32 queue) noexcept nogil:
        cdef Chain chain
        cdef int result
        cdef bint some = False
        cdef u64 written
        while not self.limited or self.quota:
            result = self.requests.pop(&chain)
            if result <= 0:
                if result < 0:
                    self.fault()
                break
            written = self.fill(&chain)
            self.requests.push(&chain, <u32>written)
            some = True
        if some:
            self.interrupt(self.requests)

    cdef u64 fill(self, Chain *chain) noexcept nogil:
        """Bytes written; at most 64 KiB for one request, and no more than the quota."""
        cdef u8 block[BLOCK]
        cdef u64 done = 0, wanted = min(chain.write_size, <u64>65536), part
        if self.limited:
            wanted = min(wanted, self.quota)
            self.quota -= wanted
        while done < wanted:
            part = min(<u64>BLOCK, wanted - done)
            if getrandom(block, part, 0) != <ssize_t>part:
                break
            if self.requests.copy_in(chain, done, block, <u32>part) != 0:
                break
            done += part
        return done

    def refill(self, u64 quota):
        """A new period."""
        with nogil:
            self.requests.enter()
            self.quota = quota
            self.requests.leave()
            if self.running:
                self.attend(0)
