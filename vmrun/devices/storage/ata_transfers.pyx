"""What an ATA channel moves: sectors and packets between the host and images, by its hands or by bus mastering; compiled.

Ref: ATA/ATAPI-6 (T13 1410D): protocols 9; Intel 82371SB PIIX3 (290550) 2.7, bus-master IDE.

PIO reads fetch up to 256 sectors ahead into a buffer and offer them block by block; PIO writes go to the image block
by block. DMA moves straight between guest memory and the image. Commands are ata.pyx.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from vmrun.backends.protocols cimport (
    BLOCK_DISCARD, BLOCK_FLUSH, BLOCK_READ, BLOCK_WRITE, BlockRequest, block_buffer, block_release,
    block_request, block_submit, block_take,
)
from vmrun.devices.storage.atapi cimport (
    PACKET_ANSWER, PACKET_DONE, PACKET_ERROR, PACKET_LIST, packet_answer, packet_blocks, packet_failed, packet_lba,
    packet_length, packet_raw, packet_reset, packet_run, packet_sense,
)
from vmrun.devices.storage.mmc cimport CD_BLOCK, CD_RAW, sector_of

cdef enum:
    RAW_AHEAD = BUFFER // CD_RAW    # whole sectors that the buffer holds


cdef void request_done(BlockRequest *request) noexcept nogil:
    (<AtaTransfers>request.owner).io_done()


cdef class AtaTransfers:
    """A channel's command is AtaChannel's; what is under way for it is here."""

    def __cinit__(self):
        self.buffer = <u8 *>calloc(1, BUFFER)
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buffer)

    cdef Drive *drive(self) noexcept nogil:
        return &self.drives[self.unit]

    # --- interrupts -------------------------------------------------------------------------------------

    cdef void drive_irq(self) noexcept nogil:
        self.irq.set(self.pending and not self.control & NIEN)

    cdef void raise_irq(self) noexcept nogil:
        self.pending = True
        if not self.control & NIEN:
            self.bm_status |= BM_INTERRUPT
        self.drive_irq()

    cdef void lower_irq(self) noexcept nogil:
        self.pending = False
        self.drive_irq()

    # --- ends of commands --------------------------------------------------------------------------------

    cdef void signature(self, u32 n, bint reset) noexcept nogil:
        cdef Drive *d = &self.drives[n]
        d.select &= 0xF0
        d.nsector = d.sector = 1
        d.lcyl = d.hcyl = 0 if d.present else 0xFF
        if self.packets[n] != NULL:
            d.lcyl, d.hcyl = PACKET_LCYL, PACKET_HCYL
        if reset:
            d.hob_nsector = d.hob_sector = d.hob_lcyl = d.hob_hcyl = d.hob_feature = 0

    cdef void soft_reset(self, bint software) noexcept nogil:
        cdef u32 n
        self.stop_io()
        self.unit = 0
        for n in range(2):
            self.drives[n].select = 0xA0
            self.signature(n, True)
            self.drives[n].mult = MOST_MULTIPLE                # 66h, which would keep it, is only answered
            self.drives[n].error = 1 if software else 0
            self.drives[n].status = DRDY | DSC if self.drives[n].present else 0
            if self.packets[n] != NULL:
                packet_reset(self.packets[n])
                if software:
                    self.drives[n].status = 0                  # a packet device is not ready until it is told to
            self.drives[n].feature = 0
        self.pending = False
        self.drive_irq()

    cdef void stop_io(self) noexcept nogil:
        """Give up what is under way; the drive is busy until it is over."""
        if self.request != NULL:
            block_release(self.requested, self.request)
            self.request = NULL
        self.phase = IDLE
        self.dma_waiting = self.packet = self.packet_dma = self.listing = False
        self.left = self.position = self.block_end = self.filled = 0
        self.block = 1
        self.bm_status &= ~BM_ACTIVE

    cdef void fail(self, u8 error) noexcept nogil:
        cdef Drive *d = self.drive()
        d.status = DRDY | ERR
        d.error = error
        self.phase = IDLE
        self.dma_waiting = self.packet = self.packet_dma = self.listing = False
        self.raise_irq()

    cdef void abort(self) noexcept nogil:
        self.fail(ABRT)

    cdef void finish(self) noexcept nogil:
        """The command is complete without data, or its data has moved."""
        self.drive().status = DRDY | DSC
        self.phase = IDLE
        self.raise_irq()

    # --- where and how much -------------------------------------------------------------------------------

    cdef u64 address(self) noexcept nogil:
        cdef Drive *d = self.drive()
        cdef u64 cylinder
        if self.lba48 and d.select & LBA:
            return (<u64>d.hob_hcyl << 40 | <u64>d.hob_lcyl << 32 | <u64>d.hob_sector << 24
                    | <u64>d.hcyl << 16 | <u64>d.lcyl << 8 | d.sector)
        if d.select & LBA:
            return <u64>(d.select & 15) << 24 | <u64>d.hcyl << 16 | <u64>d.lcyl << 8 | d.sector
        if d.sector == 0 or d.sector > d.sectors or (d.select & 15) >= d.heads:
            return <u64>-1
        cylinder = <u64>d.hcyl << 8 | d.lcyl
        return (cylinder * d.heads + (d.select & 15)) * d.sectors + d.sector - 1

    cdef void set_address(self, u64 lba) noexcept nogil:
        """Show where the command got to."""
        cdef Drive *d = self.drive()
        cdef u64 cylinder
        if self.lba48 and d.select & LBA:
            d.hob_hcyl, d.hob_lcyl, d.hob_sector = lba >> 40 & 0xFF, lba >> 32 & 0xFF, lba >> 24 & 0xFF
            d.hcyl, d.lcyl, d.sector = lba >> 16 & 0xFF, lba >> 8 & 0xFF, lba & 0xFF
        elif d.select & LBA:
            d.select = (d.select & 0xF0) | (lba >> 24 & 15)
            d.hcyl, d.lcyl, d.sector = lba >> 16 & 0xFF, lba >> 8 & 0xFF, lba & 0xFF
        else:
            cylinder = lba // (<u64>d.heads * d.sectors)
            d.hcyl, d.lcyl = cylinder >> 8 & 0xFF, cylinder & 0xFF
            d.select = (d.select & 0xF0) | <u8>(lba // d.sectors % d.heads & 15)
            d.sector = <u8>(lba % d.sectors + 1)

    cdef u32 count(self) noexcept nogil:
        cdef Drive *d = self.drive()
        cdef u32 n
        if self.lba48:
            n = <u32>d.hob_nsector << 8 | d.nsector
            return n if n else 65536
        return d.nsector if d.nsector else 256

    cdef bint check_range(self, u64 lba, u32 count) noexcept nogil:
        return lba < self.drive().total and count <= self.drive().total - lba

    # --- data through the host's hands --------------------------------------------------------------------

    cdef void submit(self, int op, u64 lba, u32 sectors, u32 phase) noexcept nogil:
        """Start a request on a copy of the buffer, or on guest memory when the phase is DMA."""
        cdef BlockRequest *request = block_request(self.backend[self.unit], <void *>self, request_done)
        cdef u8 *copy
        cdef int failed = 0
        self.phase = phase
        if request == NULL:
            self.scatter.finish(0)
            self.fail(ABRT)
            return
        request.op = op
        request.offset = lba * 512
        if phase == DMA:
            failed = block_take(request, self.scatter)
        elif phase != FLUSHING:
            copy = block_buffer(request, sectors * 512)
            if copy == NULL:
                failed = -1
            elif phase == WRITING:
                memcpy(copy, self.buffer, sectors * 512)
        self.request, self.requested = request, self.backend[self.unit]
        if failed:
            self.stop_io()
            self.fail(ABRT)
        elif block_submit(self.requested, request):
            self.io_done()

    cdef void trim(self) noexcept nogil:
        """Give back the next range of the list in the buffer: 48 bits of address, 16 of length each."""
        cdef BlockRequest *request
        cdef u64 entry
        cdef int error = 0
        while self.position < self.filled and not error:
            memcpy(&entry, self.buffer + self.position, 8)
            self.position += 8
            if not entry >> 48:
                continue
            if not self.check_range(entry << 16 >> 16, <u32>(entry >> 48)):
                error = 1
                break
            request = block_request(self.backend[self.unit], <void *>self, request_done)
            if request == NULL:
                error = 1
                break
            request.op, request.offset, request.length = BLOCK_DISCARD, (entry << 16 >> 16) * 512, (entry >> 48) * 512
            self.request, self.requested = request, self.backend[self.unit]
            if not block_submit(self.requested, request):
                return
            error = request.error
            block_release(self.requested, request)
            self.request = NULL
        self.position = self.filled = 0
        if error:
            self.bm_status &= ~BM_ACTIVE
            self.abort()
        else:
            self.dma_over()

    cdef void start_pio(self, bint write, u32 block) noexcept nogil:
        cdef Drive *d = self.drive()
        cdef u64 lba = self.address()
        cdef u32 count = self.count()
        if block == 0 or lba == <u64>-1:
            self.abort()
            return
        self.lba, self.left, self.block, self.media = lba, count, block, True
        self.position = self.filled = self.block_end = 0
        if write:
            self.phase = HOST_WRITES
            self.block_end = 512 * (block if block < count else count)
            d.status = DRDY | DSC | DRQ
        else:
            d.status = DRDY | DSC | BSY
            self.fetch()

    cdef void fetch(self) noexcept nogil:
        cdef u32 sectors = self.left if self.left < BUFFER // 512 else BUFFER // 512
        if self.lba >= self.drive().total:
            sectors = 0
        elif sectors > self.drive().total - self.lba:
            sectors = <u32>(self.drive().total - self.lba)
        if sectors < self.left:
            sectors -= sectors % self.block
        if sectors == 0:                                       # the disk ends before this block does
            self.abort()                                       # IDNF in the standard; qemu-kvm says ABRT
            return
        self.drive().status |= BSY
        self.drive().status &= ~DRQ
        self.filled = sectors * 512
        self.position = self.block_end = 0
        self.submit(BLOCK_READ, self.lba, sectors, READING)

    cdef void offer(self) noexcept nogil:
        """The next block of a read is there for the host."""
        cdef u32 rest = self.filled - self.position, size = self.block * 512
        self.block_end = self.position + (size if size < rest else rest)
        if self.media:
            self.set_address(self.lba - (self.filled - self.block_end) // 512)
            self.drive().nsector = (self.left + (self.filled - self.block_end) // 512) & 0xFF
        self.phase = HOST_READS
        self.drive().status = DRDY | DSC | DRQ
        self.raise_irq()

    cdef void store(self) noexcept nogil:
        """The host has given a block of a write."""
        if not self.check_range(self.lba, self.block_end // 512):
            self.abort()
            return
        self.drive().status = DRDY | DSC | BSY
        self.submit(BLOCK_WRITE, self.lba, self.block_end // 512, WRITING)

    cdef void start_flush(self) noexcept nogil:
        self.drive().status = DRDY | DSC | BSY
        self.submit(BLOCK_FLUSH, 0, 0, FLUSHING)

    cdef void io_done(self) noexcept nogil:
        cdef int phase = self.phase, error = self.request.error
        cdef u32 sectors
        if phase == READING and not error:
            memcpy(self.buffer, self.request.vectors[0].base, self.filled)
        block_release(self.requested, self.request)
        self.request = NULL
        if self.packet:
            self.packet_read(error)
        elif phase == TRIMMING and not error:
            self.trim()
        elif error:
            self.set_address(self.lba)
            self.bm_status &= ~BM_ACTIVE
            self.fail(UNC if phase == READING else ABRT)
        elif phase == READING:
            sectors = self.filled // 512
            self.lba += sectors
            self.left -= sectors
            self.offer()
        elif phase == WRITING:
            sectors = self.block_end // 512
            self.lba += sectors
            self.left -= sectors
            self.set_address(self.lba)
            self.drive().nsector = self.left & 0xFF
            if self.left == 0:
                self.finish()
                return
            self.position = 0
            self.block_end = 512 * (self.block if self.block < self.left else self.left)
            self.phase = HOST_WRITES
            self.drive().status = DRDY | DSC | DRQ
            self.raise_irq()
        elif phase == FLUSHING:
            self.finish()
        elif phase == DMA:
            self.dma_over()

    cdef void dma_over(self) noexcept nogil:
        """All data has moved. The bus master stays active while its table has more."""
        self.lba += self.left
        self.set_address(self.lba)
        self.drive().nsector = 0
        if not self.table_left:
            self.bm_status &= ~BM_ACTIVE
        self.dma_waiting = False
        self.finish()

    cdef void block_moved(self) noexcept nogil:
        """The host has moved the last byte of a DRQ block."""
        if self.packet:
            self.packet_moved()
        elif self.phase == HOST_WRITES:
            self.store()
        elif self.position < self.filled:
            self.offer()
        elif self.left:
            self.fetch()
        else:
            self.drive().status = DRDY | DSC
            self.phase = IDLE

    cdef u32 move(self, u8 *data, u32 size, bint out) noexcept nogil:
        """Move up to `size` bytes between the host and this block; the number moved."""
        cdef u32 n = self.block_end - self.position
        if self.phase != (HOST_WRITES if out else HOST_READS) or not self.drive().status & DRQ:
            return 0
        if n > size:
            n = size
        if out:
            memcpy(self.buffer + self.position, data, n)
        else:
            memcpy(data, self.buffer + self.position, n)
        self.position += n
        if self.position == self.block_end:
            self.block_moved()
        return n

    # --- packet devices -------------------------------------------------------------------------------------

    cdef void start_packet(self) noexcept nogil:
        cdef Drive *d = self.drive()
        if d.feature & 2:                                      # overlapped
            self.abort()
            return
        self.packet, self.packet_dma, self.listing = True, d.feature & 1, False
        self.limit = <u32>d.hcyl << 8 | d.lcyl
        d.nsector = (d.nsector & ~<u32>7) | REASON_PACKET
        self.left = self.filled = self.position = 0
        self.block_end = PACKET_SIZE
        self.phase = HOST_WRITES
        d.status = DRDY | DSC | DRQ

    cdef void run_packet(self) noexcept nogil:
        """The packet is whole."""
        cdef Drive *d = self.drive()
        cdef void *unit = self.packets[self.unit]
        cdef int kind = packet_run(unit, self.buffer)
        cdef bint raw
        self.position = self.block_end = self.filled = self.left = 0
        self.media = False
        if kind == PACKET_ERROR:
            self.packet_end(DRDY | ERR, packet_sense(unit) << 4)
            return
        if kind == PACKET_DONE:
            self.packet_end(DRDY | DSC, 0)
            return
        if not self.packet_dma and self.limit == 0:
            self.abort()
            return
        if kind == PACKET_LIST:
            self.listing = True
            self.block_end = packet_length(unit)
            d.nsector &= ~<u32>7
            d.lcyl, d.hcyl = <u8>self.block_end, <u8>(self.block_end >> 8)
            self.phase = HOST_WRITES
            d.status = DRDY | DSC | DRQ
            self.raise_irq()
            return
        if kind == PACKET_ANSWER:
            self.filled = packet_length(unit)
            memcpy(self.buffer, packet_answer(unit), self.filled)
            if not self.packet_dma:
                self.packet_offer()
                return
        else:
            raw = packet_raw(unit)
            self.lba = packet_lba(unit) * (CD_BLOCK // 512)
            self.left = packet_blocks(unit) * (CD_BLOCK // 512)
            if not self.packet_dma or raw:
                if self.packet_dma and packet_blocks(unit) > RAW_AHEAD:
                    # Departure: whole sectors by DMA go through the buffer, as many as it holds.
                    packet_failed(unit, 5)
                    self.packet_end(DRDY | ERR, packet_sense(unit) << 4)
                    return
                self.packet_fetch()
                return
            self.media = True
        d.status = DRDY | DSC | BSY | DRQ
        self.phase = DMA
        self.dma_op = BLOCK_READ
        self.dma_waiting = True
        if self.bm_status & BM_ACTIVE:
            self.run_dma()

    cdef void packet_fetch(self) noexcept nogil:
        """The next blocks of the medium into the buffer."""
        cdef u32 most = RAW_AHEAD * (CD_BLOCK // 512) if packet_raw(self.packets[self.unit]) else BUFFER // 512
        cdef u32 sectors = self.left if self.left < most else most
        self.drive().status = DRDY | DSC | BSY
        self.filled = sectors * 512
        self.position = self.block_end = 0
        self.submit(BLOCK_READ, self.lba, sectors, READING)

    cdef void packet_read(self, int error) noexcept nogil:
        """What the medium has is there, in the buffer or in the guest's memory."""
        cdef void *unit = self.packets[self.unit]
        cdef u8 sector[CD_RAW]
        cdef u32 blocks
        if error:
            self.bm_status &= ~BM_ACTIVE
            packet_failed(unit, error)
            self.packet_end(DRDY | ERR, packet_sense(unit) << 4)
        elif self.phase == DMA:
            self.bm_status &= ~BM_ACTIVE
            self.packet_end(DRDY | DSC, 0)
        else:
            blocks = self.filled // CD_BLOCK
            self.lba += self.filled // 512
            self.left -= self.filled // 512
            if packet_raw(unit):                               # from the last one on, each grows in its place
                self.filled = blocks * CD_RAW
                while blocks:
                    blocks -= 1
                    sector_of(sector, self.buffer + blocks * CD_BLOCK, packet_lba(unit) + blocks)
                    memcpy(self.buffer + blocks * CD_RAW, sector, CD_RAW)
            if not self.packet_dma:
                self.packet_offer()
                return
            self.phase = DMA
            self.drive().status = DRDY | DSC | BSY | DRQ
            self.dma_op = BLOCK_READ
            self.dma_waiting = True
            if self.bm_status & BM_ACTIVE:
                self.run_dma()

    cdef void packet_offer(self) noexcept nogil:
        """The next DRQ block: as much as the host said it takes at a time, an even number but for the last."""
        cdef Drive *d = self.drive()
        cdef u32 size = self.filled - self.position, most = self.limit if self.limit != 0xFFFF else 0xFFFE
        if size > most:
            size = most & ~<u32>1 if most > 1 else most
        self.block_end = self.position + size
        d.lcyl, d.hcyl = <u8>size, <u8>(size >> 8)
        d.nsector = (d.nsector & ~<u32>7) | REASON_DATA
        self.phase = HOST_READS
        d.status = DRDY | DSC | DRQ
        self.raise_irq()

    cdef void packet_moved(self) noexcept nogil:
        if self.phase == HOST_READS and self.position < self.filled:
            self.packet_offer()
        elif self.phase == HOST_READS and self.left:
            self.packet_fetch()
        elif self.phase == HOST_READS or self.listing:
            self.packet_end(DRDY | DSC, 0)
        else:
            self.drive().status = DRDY | DSC | BSY
            self.run_packet()

    cdef void packet_end(self, u8 status, u8 error) noexcept nogil:
        cdef Drive *d = self.drive()
        d.status, d.error = status, error
        d.nsector = (d.nsector & ~<u32>7) | REASON_OVER
        self.packet = self.packet_dma = self.listing = self.dma_waiting = False
        self.phase = IDLE
        self.raise_irq()

    # --- bus master -----------------------------------------------------------------------------------------

    cdef void start_dma(self, int op) noexcept nogil:
        cdef Drive *d = self.drive()
        self.lba = self.address()
        self.left = self.count() if op != BLOCK_DISCARD else d.nsector
        if self.lba == <u64>-1 and op != BLOCK_DISCARD:
            self.abort()
            return
        if self.lba == <u64>-1:
            self.lba = 0
        d.status = DRDY | DSC | DRQ
        self.phase = DMA
        self.dma_op = op
        self.dma_waiting = True
        if self.bm_status & BM_ACTIVE:
            self.run_dma()

    cdef void run_dma(self) noexcept nogil:
        """Both sides are ready: walk the descriptor table and go."""
        cdef u8 entry[8]
        cdef u32 at = self.bm_table, address, size, flags
        cdef u32 wanted = self.filled if self.packet and not self.media else self.left * 512
        cdef bint bad = False, last = False, longer = False
        self.dma_waiting = False
        self.drive().status |= BSY
        if not self.dma.enabled and not self.packet:           # nothing moves, and the table never ends
            self.table_left = True
            self.dma_over()
            return
        self.scatter.begin(self.dma_op == BLOCK_READ)
        while self.scatter.total < wanted and not last and not bad:
            if self.dma.read_into(at, entry, 8) != 0:
                bad = True
                break
            memcpy(&address, entry, 4)
            memcpy(&flags, entry + 4, 4)
            size = flags & 0xFFFE
            if size == 0:
                size = PRD_LARGEST
            last = flags >> 31
            at += 8
            if at - self.bm_table > PRD_TABLE:
                break
            longer = size > wanted - self.scatter.total
            if longer:
                size = wanted - <u32>self.scatter.total
            bad = self.scatter.add(address & ~<u32>1, size) != 0
        if bad or self.scatter.total < wanted:
            self.scatter.finish(0)
            self.bm_status &= ~BM_ACTIVE
            if bad:
                self.bm_status |= BM_ERROR
            elif not self.packet:                              # too short: the command is given up, nobody is told
                self.drive().status, self.phase = DRDY | DSC, IDLE
                return
            self.abort()
            return
        if not self.packet and self.dma_op != BLOCK_DISCARD and not self.check_range(self.lba, self.left):
            self.scatter.finish(0)                             # the bus master is told of the disk's end like of any other
            self.bm_status &= ~BM_ACTIVE
            self.abort()
            return
        self.table_left = longer or (wanted and not last and at - self.bm_table < PRD_TABLE)
        if self.packet and not self.media:
            self.scatter.put(0, self.buffer, wanted)
            self.scatter.finish(wanted)
            self.bm_status &= ~BM_ACTIVE
            self.packet_end(DRDY | DSC, 0)
            return
        if self.dma_op == BLOCK_DISCARD:
            self.scatter.get(0, self.buffer, wanted)
            self.scatter.finish(0)
            self.phase, self.position, self.filled = TRIMMING, 0, wanted
            self.trim()
            return
        self.submit(self.dma_op, self.lba, 0, DMA)
