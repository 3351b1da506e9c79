"""The floppy disk controller's transfers: sectors between an image and the DMA channel or the FIFO; its lines, its phases.

What it is told is fdc.pyx, which says what is modelled.
"""

from libc.string cimport memcmp, memcpy, memset

from vmrun.backends.protocols cimport (
    BLOCK_READ, BLOCK_WRITE, block_buffer, block_release, block_request, block_submit,
)

cdef void drive_done(BlockRequest *request) noexcept nogil:
    (<FdcTransfers>request.owner).landed(request)


cdef u32 sector_here(Disk *d) noexcept nogil:
    """Number of the sector under the head."""
    return (<u32>d.track * (2 if d.two_sided else 1) + d.head) * d.last_sect + d.sect - 1


cdef class FdcTransfers(IoRegion):
    """What a command moves, and how it ends."""

    # --- lines and phases -----------------------------------------------------------------------------------

    cdef u32 unit(self) noexcept nogil:
        """The drive that is selected: TDR can exchange the two."""
        return (self.current ^ (self.tdr >> 2)) & 1

    cdef Disk *here(self) noexcept nogil:
        return &self.drives[self.unit()]

    cdef int seek(self, u32 n, u8 head, u8 track, u8 sect) noexcept nogil:
        """0, 1: the track is another now; 2: there is no such track or no disk; 3: no such sector."""
        cdef Disk *d = &self.drives[n]
        cdef int result = 0
        if track > d.max_track or head and not d.two_sided:
            return 2
        if sect > d.last_sect:
            return 3
        if head != d.head or track != d.track or sect != d.sect:
            d.head = head
            if track != d.track:
                if self.inserted[n]:
                    d.changed = False
                result = 1
            d.track, d.sect = track, sect
        return result if self.inserted[n] else 2

    cdef void select(self, u8 number) noexcept nogil:
        self.current = number & DOR_SELECT

    cdef void raise_irq(self) noexcept nogil:
        self.sra |= SRA_INTPEND
        self.irq.set(1)
        self.results = 0

    cdef void lower_irq(self) noexcept nogil:
        self.status0 = 0
        self.sra &= ~SRA_INTPEND
        self.irq.set(0)

    cdef void soft_reset(self, bint tell) noexcept nogil:
        self.drop_request()
        self.lower_irq()
        self.sra = SRA_NDRV2 if self.backend[1] == NULL else 0
        self.srb = 0xC0
        self.current = 0
        self.dor = DOR_NRESET
        if self.dma is not None:
            self.dor |= DOR_DMA
            self.dma_let_go()
        self.msr = MSR_RQM
        self.results = 0
        self.turning.cancel()
        self.stage, self.multi_track = IDLE, False
        self.seek(0, 0, 0, 1)
        self.seek(1, 0, 0, 1)
        self.to_command()
        if tell:
            self.status0 |= ST0_READY_CHANGED
            self.raise_irq()
            self.results = POLLED

    cdef void to_command(self) noexcept nogil:
        self.phase, self.direction, self.position, self.length = COMMAND, WRITE, 0, 1
        self.msr = (self.msr & ~<u8>(MSR_BUSY | MSR_DIO)) | MSR_RQM

    cdef void to_result(self, u32 count) noexcept nogil:
        self.phase, self.direction, self.position, self.length = RESULT, READ, 0, count
        self.msr |= MSR_BUSY | MSR_RQM | MSR_DIO

    # --- transfers ----------------------------------------------------------------------------------------------

    cdef void refuse(self, u8 status1) noexcept nogil:
        """A transfer that does not begin; the result names the place that was asked for."""
        cdef u8 track = self.fifo_bytes[2], head = self.fifo_bytes[3], sect = self.fifo_bytes[4]
        self.finish(ST0_ABNORMAL, status1, 0)
        self.fifo_bytes[3], self.fifo_bytes[4], self.fifo_bytes[5] = track, head, sect

    cdef void start(self, u8 direction) noexcept nogil:
        cdef u8 *fifo = self.fifo_bytes
        cdef Disk *d
        cdef int found, sectors
        self.select(fifo[1])
        d = self.here()
        found = self.seek(self.unit(), fifo[3], fifo[2], fifo[4])
        if found >= 2:
            self.refuse(ST1_END if found == 3 else 0)
            return
        if found == 1:
            self.status0 |= ST0_SEEK
        if self.check_rate and self.dsr & DSR_RATE != d.rate:
            self.refuse(ST1_MISSING_MARK)
            return
        self.multi_track = fifo[0] & 0x80 != 0
        if fifo[5] == 0:
            self.length = fifo[8]
        else:
            sectors = <int>fifo[6] - fifo[4] + 1
            if sectors < 0:
                self.refuse(ST1_MISSING_MARK)
                return
            if self.multi_track:
                sectors += fifo[6]
            self.length = <u32>128 << (7 if fifo[5] > 7 else fifo[5])
            self.length *= sectors
        self.end_of_track = fifo[6]
        self.direction, self.position = direction, 0
        if direction == WRITE and self.readonly[self.unit()]:
            self.finish(ST0_ABNORMAL | ST0_SEEK, ST1_NOT_WRITABLE, 0)
        elif self.dor & DOR_DMA:
            self.msr &= ~<u8>MSR_RQM
            self.limit = self.length
            if direction == VERIFY:
                self.run(False)
            else:
                self.wait_for_dma()
        elif not self.length:
            self.finish(0, 0, 0)
        else:
            self.msr |= MSR_NONDMA | MSR_RQM
            if direction == WRITE:
                self.raise_irq()
            else:
                self.msr |= MSR_DIO
                self.pio_load()

    cdef void start_format(self) noexcept nogil:
        """The sectors' ids come as data, four bytes each: track, head, sector, size."""
        cdef u8 *fifo = self.fifo_bytes
        cdef Disk *d
        self.select(fifo[1])
        d = self.here()
        d.head = fifo[1] >> 2 & 1
        if not self.inserted[self.unit()] or d.head and not d.two_sided:
            self.finish(ST0_ABNORMAL, 0, 0)
        elif self.check_rate and self.dsr & DSR_RATE != d.rate or fifo[2] != SECTOR_CODE:
            self.finish(ST0_ABNORMAL, ST1_MISSING_MARK, 0)
        elif self.readonly[self.unit()]:
            self.finish(ST0_ABNORMAL, ST1_NOT_WRITABLE, 0)
        elif not fifo[3]:
            self.finish(0, 0, 0)
        else:
            self.end_of_track = fifo[5]                         # the byte to fill with
            self.direction, self.position, self.length = FORMAT, 0, <u32>4 * fifo[3]
            if self.dor & DOR_DMA:
                self.msr &= ~<u8>MSR_RQM
                self.limit = self.length
                self.wait_for_dma()
            else:
                self.msr |= MSR_NONDMA | MSR_RQM
                self.raise_irq()

    cdef void finish(self, u8 status0, u8 status1, u8 status2) noexcept nogil:
        """A transfer is over: the seven result bytes, and the interrupt."""
        cdef u8 *fifo = self.fifo_bytes
        cdef Disk *d = self.here()
        self.status0 &= ~<u8>(ST0_HEAD | 3)
        self.status0 |= self.current | status0
        if d.head:
            self.status0 |= ST0_HEAD
        fifo[0], fifo[1], fifo[2] = self.status0, status1, status2
        fifo[3], fifo[4], fifo[5], fifo[6] = d.track, d.head, d.sect, SECTOR_CODE
        if self.dma is not None:
            self.dma_let_go()
        self.stage = IDLE
        self.msr = (self.msr | MSR_RQM | MSR_DIO) & ~<u8>MSR_NONDMA
        self.to_result(7)
        self.raise_irq()

    cdef bint next_sector(self) noexcept nogil:
        """The head goes on; False where the command ends."""
        cdef Disk *d = self.here()
        cdef u8 head = d.head, track = d.track, sect = d.sect
        cdef bint more = True
        if sect >= d.last_sect or sect == self.end_of_track:
            sect = 1
            if self.multi_track and head == 0 and d.two_sided:
                head = 1
            else:
                more = self.multi_track and d.two_sided
                if self.multi_track:
                    head = 0
                track += 1
                self.status0 |= ST0_SEEK
        else:
            sect += 1
        self.seek(self.unit(), head, track, sect)
        return more

    cdef void wait_for_dma(self) noexcept nogil:
        self.waiting = True
        self.dma_ask()

    def dma_ready(self):
        """The channel is free, and a transfer waits for it: as much as both allow."""
        if not self.waiting:
            return
        self.waiting = False
        self.limit = min(self.length, self.dma.room(self.channel))
        self.run(False)

    cdef void run(self, bint resumed) noexcept nogil:
        """Sector by sector, until all is done or a request takes its time. `resumed`: a request is over."""
        cdef int result
        while True:
            if not resumed and not self.begin():
                return
            resumed = False
            result = self.moved()
            if result <= 0:
                return
            if result == 2:
                resumed = True

    cdef bint begin(self) noexcept nogil:
        """Ask for the next sector. True: it is there already."""
        cdef u32 at = self.position % SECTOR
        cdef u8 name[4]
        cdef Disk *d = self.here()
        if self.position >= self.limit:
            self.finish(0, 0, ST2_SCAN_NOT if SCAN_EQUAL <= self.direction <= SCAN_HIGH else 0)
            return False
        if self.direction == FORMAT:
            self.chunk = 4
            if not self.dma_get(name, 4):
                self.finish(ST0_ABNORMAL, ST1_OVERRUN, 0)
                return False
            d.sect = name[2]
            if not 0 < d.sect <= d.last_sect or name[3] != SECTOR_CODE:
                self.finish(ST0_ABNORMAL, ST1_MISSING_MARK, 0)
                return False
            memset(self.work, self.end_of_track, SECTOR)
            self.stage = STORING
            return self.transfer(BLOCK_WRITE, sector_here(d))
        self.chunk = min(self.limit - self.position, SECTOR - at)
        if self.direction != WRITE:
            self.stage = FETCHING
            return self.transfer(BLOCK_READ, sector_here(d))
        if self.chunk < SECTOR:
            self.stage = FILLING
            return self.transfer(BLOCK_READ, sector_here(d))
        if not self.dma_get(self.work, SECTOR):
            self.finish(ST0_ABNORMAL, ST1_OVERRUN, 0)
            return False
        self.stage = STORING
        return self.transfer(BLOCK_WRITE, sector_here(d))

    cdef int moved(self) noexcept nogil:
        """A request of a DMA transfer is over. 1: on with the next sector; 2: the next request is over too; 0: not."""
        cdef u32 at = self.position % SECTOR
        cdef int result
        if self.stage == FETCHING:
            if self.error:
                memset(self.work, 0, SECTOR)
            if self.direction == READ:
                if not self.dma_put(self.work + at, self.chunk):
                    self.finish(ST0_ABNORMAL, ST1_OVERRUN, 0)
                    return 0
            elif self.direction != VERIFY:
                result = self.compare(at)
                if result <= 0:
                    return 0
        elif self.stage == FILLING:
            if self.error:
                memset(self.work, 0, SECTOR)
            if not self.dma_get(self.work + at, self.chunk):
                self.finish(ST0_ABNORMAL, ST1_OVERRUN, 0)
                return 0
            self.stage = STORING
            return 2 if self.transfer(BLOCK_WRITE, sector_here(self.here())) else 0
        elif self.error:
            self.finish(ST0_ABNORMAL | ST0_SEEK, 0, 0)
            return 0
        self.position += self.chunk
        if self.direction != FORMAT and self.position % SECTOR == 0 and not self.next_sector():
            self.finish(0, 0, ST2_SCAN_NOT if SCAN_EQUAL <= self.direction <= SCAN_HIGH else 0)
            return 0
        return 1

    cdef int compare(self, u32 at) noexcept nogil:
        """Of a scan: 1 to go on, 0 when it is over."""
        cdef u8 data[SECTOR]
        cdef int order
        if not self.dma_get(data, self.chunk):
            self.finish(ST0_ABNORMAL, ST1_OVERRUN, 0)
            return 0
        order = memcmp(data, self.work + at, self.chunk)
        if order == 0:
            self.finish(0, 0, ST2_SCAN_EQUAL)
        elif order < 0 and self.direction == SCAN_LOW or order > 0 and self.direction == SCAN_HIGH:
            self.finish(0, 0, 0)
        else:
            return 1
        return 0

    cdef void pio_load(self) noexcept nogil:
        """The sector under the head, for the FIFO."""
        self.stage = FETCHING
        self.msr &= ~<u8>MSR_RQM
        if self.transfer(BLOCK_READ, sector_here(self.here())):
            self.run_pio()

    cdef void pio_write(self) noexcept nogil:
        """The FIFO has a sector, or the rest, or the id of one that is to be formatted."""
        cdef Disk *d = self.here()
        cdef u8 *name
        self.msr &= ~<u8>MSR_RQM
        if self.direction == FORMAT:
            name = self.fifo_bytes + (self.position - 4) % FIFO
            d.sect = name[2]
            if not 0 < d.sect <= d.last_sect or name[3] != SECTOR_CODE:
                self.finish(ST0_ABNORMAL, ST1_MISSING_MARK, 0)
                return
            memset(self.work, self.end_of_track, SECTOR)
            self.stage = STORING
        elif self.position % SECTOR:
            self.stage = FILLING
            if not self.transfer(BLOCK_READ, sector_here(d)):
                return
            self.run_pio()
            return
        else:
            memcpy(self.work, self.fifo_bytes, SECTOR)
            self.stage = STORING
        if self.transfer(BLOCK_WRITE, sector_here(d)):
            self.run_pio()

    cdef void run_pio(self) noexcept nogil:
        """A request of a transfer through the FIFO is over."""
        if self.stage == FETCHING:
            if self.error:
                memset(self.work, 0, SECTOR)
            memcpy(self.fifo_bytes, self.work, SECTOR)
            self.stage = IDLE
            self.msr |= MSR_RQM
            if self.position == 0:
                self.raise_irq()
            return
        if self.stage == FILLING:
            memcpy(self.work, self.fifo_bytes, self.position % SECTOR)
            self.stage = STORING
            if not self.transfer(BLOCK_WRITE, sector_here(self.here())):
                return
        self.stage = IDLE
        if self.error:
            self.finish(ST0_ABNORMAL | ST0_SEEK, 0, 0)
        elif self.position == self.length:
            if self.direction != FORMAT:
                self.next_sector()
            self.finish(0, 0, 0)
        elif self.direction == FORMAT or self.next_sector():
            self.msr |= MSR_RQM
        else:
            self.finish(ST0_ABNORMAL, ST1_END, 0)

    # --- the drive's image --------------------------------------------------------------------------------------

    cdef bint transfer(self, int op, u32 sector) noexcept nogil:
        """One sector between `work` and the image. True: it is over, `error` says how."""
        cdef void *drive = self.backend[self.unit()]
        cdef u8 *data
        self.error = 1
        self.request = block_request(drive, <void *>self, drive_done)
        if self.request == NULL:
            return True
        self.request.tag = <u64><size_t>drive
        data = block_buffer(self.request, SECTOR)
        if data == NULL:
            self.drop_request()
            return True
        if op == BLOCK_WRITE:
            memcpy(data, self.work, SECTOR)
        self.request.op, self.request.offset = op, <u64>sector * SECTOR
        if not block_submit(drive, self.request):
            return False
        self.take()
        return True

    cdef void take(self) noexcept nogil:
        """What the request brought."""
        self.error = self.request.error
        if self.request.op == BLOCK_READ and not self.error:
            memcpy(self.work, self.request.own, SECTOR)
        self.drop_request()

    cdef void landed(self, BlockRequest *request) noexcept nogil:
        self.take()
        if self.msr & MSR_NONDMA:
            self.run_pio()
        else:
            self.run(True)

    cdef void drop_request(self) noexcept nogil:
        cdef BlockRequest *request = self.request
        if request != NULL:
            self.request = NULL
            block_release(<void *><size_t>request.tag, request)

    # --- the DMA channel ------------------------------------------------------------------------------------------

    cdef bint dma_put(self, u8 *data, u32 count) noexcept with gil:
        return self.dma is not None and self.dma.move(self.channel, data[:count]) == count

    cdef bint dma_get(self, u8 *data, u32 count) noexcept with gil:
        cdef bytes found = self.dma.transfer(self.channel, count) if self.dma is not None else b""
        if len(found) != count:
            return False
        memcpy(data, <const u8 *>found, count)
        return True

    cdef void dma_ask(self) noexcept with gil:
        if self.dma is not None:
            self.dma.wait(self.channel, self.dma_ready)

    cdef void dma_let_go(self) noexcept with gil:
        self.waiting = False
        if self.dma is not None:
            self.dma.forget(self.channel)
