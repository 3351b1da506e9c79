"""Memory that an NVMe controller has itself: a buffer behind BAR 2, a persistent region behind BAR 4; their registers.

Ref: NVM Express 1.4, 3.1.11-3.1.21, 4.7 (controller memory buffer), 4.8 (persistent memory region). Registers are
called as there. A guest's queues, lists and data may lie in both: addresses from the base that it gave on are the
memory's own (`place`), whatever the BAR's is.
Not modelled: reads of PMRSTS as a barrier that reaches the host's disk; PMREBS and PMRSWTP are 0.
"""

from libc.string cimport memcpy

from vmrun.core.state import U32, U64, Flag, Table

cdef enum:
    R_CMBLOC = 0x38
    R_CMBSZ = 0x3C
    R_CMBMSC = 0x50
    R_CMBSTS = 0x58
    R_PMRCAP = 0xE00
    R_PMRCTL = 0xE04
    R_PMRSTS = 0xE08
    R_PMRMSCL = 0xE14
    R_PMRMSCU = 0xE18
    CRE = 1                     # CMBMSC: the registers tell of the buffer
    CMSE = 2                    # CMBMSC, PMRMSC: it has addresses of its own
    EN = 1                      # PMRCTL
    CBAI = 1                    # CMBSTS: the base cannot be
    NRDY = 0x100                # PMRSTS
    PMR_CBAI = 0x1000
    CMBLOC = 0x62               # BAR 2; lists and data without gaps in any order (CDPMLS, CDPCILS)
    CMBSZ_CAN = 0x21D           # MiB; submission queues, lists, data in and out
    PMRCAP = 0x01000898         # read and written, BAR 4, write barrier by reading PMRSTS, addresses of its own

cdef u64 PMRS = <u64>1 << 56, CMBS = <u64>1 << 57
cdef u64 NOWHERE = <u64>1 << 63


cdef class NvmeMemory:
    """`buffer_size`, `region_size`: bytes, 0 for none; `region`: what BAR 4 shows, seen while PMRCTL.EN is set. `legacy`: the
    buffer's registers tell of it (`told`) from the start, as before version 1.4.
    """

    state = Table("nvme-memory", 1, U64("cmbmsc"), U64("pmrmsc"), U32("cmbsts"), U32("pmrctl"), U32("pmrsts"),
                  Flag("told", lambda chip: chip.legacy))
    reset, save, load_state = state.methods()

    def __init__(self, PciConfig config, u64 buffer_size, u64 region_size, region, bint legacy):
        self.config, self.buffer_size, self.region_size = config, buffer_size, region_size
        self.region, self.legacy, self.told = region, legacy, legacy
        self.settle()

    cdef void show(self) noexcept with gil:
        """PMRCTL may be another. The device lock is held, no other: the layout changes."""
        self.settle()

    def settle(self):
        if self.region is not None:
            self.region.set_enabled(bool(self.pmrctl & EN))

    cdef u64 capabilities(self) noexcept nogil:
        """What CAP says besides."""
        return (CMBS if self.buffer_size else 0) | (PMRS if self.region_size else 0)

    cdef u32 register(self, u32 at) noexcept nogil:
        """One of 32 bits."""
        cdef bint told = self.buffer_size and self.told
        if at == R_CMBLOC:
            return CMBLOC if told else 0
        if at == R_CMBSZ:
            return <u32>(self.buffer_size >> 20) << 12 | CMBSZ_CAN if told else 0
        if at == R_CMBMSC or at == R_CMBMSC + 4:
            return <u32>(self.cmbmsc >> (8 * (at - R_CMBMSC)))
        if at == R_CMBSTS:
            return self.cmbsts
        if not self.region_size:
            return 0
        if at == R_PMRCAP:
            return PMRCAP
        if at == R_PMRCTL:
            return self.pmrctl
        if at == R_PMRSTS:
            return self.pmrsts
        if at == R_PMRMSCL or at == R_PMRMSCU:
            return <u32>(self.pmrmsc >> (8 * (at - R_PMRMSCL)))
        return 0

    cdef void set_register(self, u32 at, u32 value) noexcept nogil:
        """The device lock and those of all queues are held."""
        cdef u64 base
        if self.buffer_size and (at == R_CMBMSC or at == R_CMBMSC + 4):
            if at == R_CMBMSC:
                (<u32 *>&self.cmbmsc)[0] = (value & ~<u32>0xFFF) | (value & (CRE | CMSE))
                self.told = value & CRE
            else:
                (<u32 *>&self.cmbmsc)[1] = value
            base = self.cmbmsc & ~<u64>0xFFF
            self.cmbsts = CBAI if self.cmbmsc & CMSE and base + self.buffer_size < base else 0
        elif self.region_size and at == R_PMRCTL:
            self.pmrctl = value & EN
            self.pmrsts = (self.pmrsts & ~<u32>NRDY) | (0 if self.pmrctl else NRDY)
        elif self.region_size and (at == R_PMRMSCL or at == R_PMRMSCU):
            if at == R_PMRMSCL:
                (<u32 *>&self.pmrmsc)[0] = (value & ~<u32>0xFFF) | (value & (CMSE))
            else:
                (<u32 *>&self.pmrmsc)[1] = value
            base = self.pmrmsc & ~<u64>0xFFF
            self.pmrsts &= ~<u32>PMR_CBAI
            if self.pmrmsc & CMSE and base + self.region_size < base:
                self.pmrsts |= PMR_CBAI

    cdef int holds(self, u64 address) noexcept nogil:
        """Whose a guest's address is: 1 the buffer's, 2 the region's, 0 its own."""
        cdef u64 base = self.cmbmsc & ~<u64>0xFFF
        if self.cmbmsc & CMSE and not self.cmbsts and address - base < self.buffer_size:
            return 1
        base = self.pmrmsc & ~<u64>0xFFF
        if self.pmrmsc & CMSE and self.pmrctl & EN and not self.pmrsts & PMR_CBAI and address - base < self.region_size:
            return 2
        return 0

    cdef u64 place(self, u64 address) noexcept nogil:
        """Where on the bus a guest's address is."""
        cdef int whose = self.holds(address)
        if whose == 1:
            return self.bar(0x18) + (address - (self.cmbmsc & ~<u64>0xFFF))
        if whose == 2:
            return self.bar(0x20) + (address - (self.pmrmsc & ~<u64>0xFFF))
        return address

    cdef u64 bar(self, u32 offset) noexcept nogil:
        """Where it lies; where nothing is, if it has no place."""
        cdef u64 base
        memcpy(&base, self.config.data + offset, 8)
        base &= ~<u64>0xF
        return base if base and self.config.data[4] & 2 else NOWHERE
