"""The SCSI bus of an LSI 53C895A as its targets drive it, and the interrupts that come of it; compiled.

Ref: LSI Logic LSI53C895A PCI to Ultra2 SCSI Controller Technical Manual 2.2, chapter 4. SCRIPTS and registers are
lsi53c895a_chip.pyx.
"""

from libc.string cimport memcpy, memmove, memset

from accel.api cimport i64, u8, u16, u32, u64
from vmrun.devices.storage.scsi cimport (
    SCSI_DATA, SCSI_FROM_HOST, SCSI_LATER, SCSI_NOBODY, SCSI_OVER, ScsiRequest, scsi_begin, scsi_cancel, scsi_fetch,
)


cdef void command_done(ScsiRequest *request) noexcept nogil:
    (<LsiBus>request.owner).told(<LsiCommand *>request, True)


cdef void command_ready(ScsiRequest *request) noexcept nogil:
    (<LsiBus>request.owner).told(<LsiCommand *>request, False)


cdef class LsiBus:
    """Registers of the chip, and the commands that its targets have."""

    cdef void resume(self) noexcept nogil:
        pass

    # --- small things -----------------------------------------------------------------------------------------

    cdef u32 get(self, u32 reg) noexcept nogil:
        cdef u32 value
        memcpy(&value, self.r + reg, 4)
        return value

    cdef void put(self, u32 reg, u32 value) noexcept nogil:
        memcpy(self.r + reg, &value, 4)

    cdef void put_count(self, u32 value) noexcept nogil:
        """DBC, 24 bits."""
        self.r[DBC], self.r[DBC + 1], self.r[DBC + 2] = value & 0xFF, value >> 8 & 0xFF, value >> 16 & 0xFF

    cdef u32 count(self) noexcept nogil:
        return self.get(DBC) & 0xFFFFFF

    cdef void phase(self, u8 phase) noexcept nogil:
        self.r[SSTAT1] = (self.r[SSTAT1] & ~<u32>PHASE) | phase
        self.r[SBCL] = (self.r[SBCL] & ~<u32>PHASE) | phase

    cdef u32 fetch(self, u64 address) noexcept nogil:
        """A dword of memory; bus faults end the program."""
        cdef u32 value = 0
        if self.dma.read_into(address, <u8 *>&value, 4) != 0:
            self.dma_interrupt(DSTAT_BF)
        return value

    # --- interrupts -------------------------------------------------------------------------------------------

    cdef bint wanted(self) noexcept nogil:
        """Whether the pin is driven."""
        return (
            self.r[DSTAT] & self.r[DIEN] or self.r[SIST0] & self.r[SIEN0] or self.r[SIST1] & self.r[SIEN1]
            or self.r[ISTAT0] & ISTAT0_INTF
        )

    cdef void update_irq(self) noexcept nogil:
        self.r[ISTAT0] &= ~<u32>(ISTAT0_DIP | ISTAT0_SIP)
        if self.r[DSTAT]:
            self.r[ISTAT0] |= ISTAT0_DIP
        if self.r[SIST0] or self.r[SIST1]:
            self.r[ISTAT0] |= ISTAT0_SIP
        self.irq.set(1 if self.wanted() else 0)

    cdef void dma_interrupt(self, u8 cause) noexcept nogil:
        self.r[DSTAT] |= cause
        self.stop()
        self.update_irq()

    cdef void scsi_interrupt(self, u8 first, u8 second) noexcept nogil:
        """A selection that timed out stops the program only when it reaches for the bus again."""
        cdef u8 fatal0 = self.r[SIEN0] | (0xFF ^ (SIST0_CMP | SIST0_SEL | SIST0_RSL))
        cdef u8 fatal1 = (self.r[SIEN1] | (0xFF ^ (SIST1_GEN | SIST1_HTH))) & (0xFF ^ SIST1_STO)
        self.r[SIST0] |= first
        self.r[SIST1] |= second
        if self.r[SIST0] & fatal0 or self.r[SIST1] & fatal1:
            self.stop()
        self.update_irq()

    cdef void stop(self) noexcept nogil:
        self.r[ISTAT1] &= ~<u32>ISTAT1_SRUN

    # --- the bus ----------------------------------------------------------------------------------------------

    cdef void free_bus(self) noexcept nogil:
        self.r[SCNTL1] &= ~<u32>SCNTL1_CON
        self.r[SSTAT1] &= ~<u32>PHASE
        self.r[SBCL] = 0
        self.message_length = 0

    cdef void say(self, u8 byte) noexcept nogil:
        """One more byte of the target's message."""
        if self.message_length < MESSAGE:
            self.message[self.message_length] = byte
            self.message_length += 1

    cdef void forget(self, LsiCommand *command) noexcept nogil:
        scsi_cancel(&command.scsi)
        command.used = False
        if self.current == command:
            self.current = NULL

    cdef bint reselect(self) noexcept nogil:
        """The oldest of those that can come back does; whether there is one."""
        cdef LsiCommand *found = NULL
        cdef LsiCommand *c
        cdef u32 n
        if self.current != NULL or self.r[SCNTL1] & SCNTL1_CON:
            return False
        for n in range(MOST_COMMANDS):
            c = &self.commands[n]
            if c.used and c.away and c.ready and (found == NULL or <int>(c.age - found.age) < 0):
                found = c
        if found == NULL:
            return False
        found.away = False
        self.used = True
        self.current = found
        self.target, self.unit = <u8>found.scsi.target, <u8>found.scsi.lun
        self.r[SSID] = self.target | 0x80
        if not self.r[DCNTL] & DCNTL_COM:
            self.r[SFBR] = <u8>(1 << (self.target & 7))
        self.r[SCNTL1] |= SCNTL1_CON
        self.r[SBCL] |= BSY
        self.phase(MESSAGE_IN)
        self.message_length = 0
        self.say(0x80 | self.unit)
        if found.tagged:
            self.say(0x20)
            self.say(found.scsi.tag & 0xFF)
        self.then = THEN_STATUS if found.over else THEN_DATA_OUT if found.out else THEN_DATA_IN
        self.waiting = NOTHING
        return True

    cdef void told(self, LsiCommand *command, bint over) noexcept nogil:
        """A unit has data, room, or is done."""
        command.ready, command.over = True, over
        command.status = command.scsi.status
        command.out = command.scsi.direction == SCSI_FROM_HOST
        if command.away:
            if self.waiting == RESELECTION and self.reselect():
                self.resume()
            return
        if command == self.current and self.waiting == TARGET:
            self.waiting = NOTHING
            self.go_on()
            self.resume()

    cdef void go_on(self) noexcept nogil:
        """The connected target asks for what comes next: the rest of a move, another phase."""
        cdef u8 now = self.r[SSTAT1] & PHASE
        cdef bint moving = now in (DATA_OUT, DATA_IN) and self.count()
        if self.current.over:
            if moving:
                self.mismatch(STATUS)
            else:
                self.phase(STATUS)
        elif moving and now == (DATA_OUT if self.current.out else DATA_IN):
            self.move_data(now == DATA_OUT)
        else:
            self.phase(DATA_OUT if self.current.out else DATA_IN)

    cdef void mismatch(self, u8 next) noexcept nogil:
        """The target wants another phase than the program's."""
        cdef bint out = self.r[SSTAT1] & PHASE == DATA_OUT
        if self.r[CCNTL0] & CCNTL0_ENPMJ:
            if self.r[CCNTL0] & CCNTL0_PMJCTL:
                self.put(DSP, self.get(PMJAD1) if out else self.get(PMJAD2))
            else:
                self.put(DSP, self.get(PMJAD2) if self.r[SCNTL2] & SCNTL2_WSR else self.get(PMJAD1))
        else:
            self.scsi_interrupt(SIST0_MA, 0)
            self.stop()
        self.phase(next)

    cdef void move_data(self, bint out) noexcept nogil:
        """Between the target's data and memory, as much as DBC says or the target has."""
        cdef ScsiRequest *scsi
        cdef u64 address
        cdef u32 left = self.count(), size, done
        cdef int result
        while left and self.current != NULL:
            scsi = &self.current.scsi
            if self.current.over or not self.current.ready:
                break
            done = self.current.scsi.step_done
            size = scsi.chunk - done
            if size > left:
                size = left
            address = self.get(DNAD) | <u64>self.high() << 32
            if out:
                result = self.dma.read_into(address, scsi.data + done, size)
            else:
                result = self.dma.write_from(address, scsi.data + done, size)
            if result != 0:
                self.dma_interrupt(DSTAT_BF)
                return
            self.r[SFBR] = scsi.data[done]
            self.put(CSBC, self.get(CSBC) + size)
            self.put(DNAD, self.get(DNAD) + size)
            left -= size
            self.put_count(left)
            scsi.step_done += size
            if scsi.step_done < scsi.chunk:
                continue
            scsi.step_done = 0
            self.more()
        if self.current == NULL:
            return
        if not self.current.ready:                              # it asks for nothing before the drive is done
            self.waiting = TARGET
        elif left and self.current.over:
            self.mismatch(STATUS)

    cdef void more(self) noexcept nogil:
        """The target takes what it was given, or gets what it is to give next."""
        cdef int result = scsi_fetch(&self.current.scsi)
        self.current.ready = result != SCSI_LATER
        self.current.over = result == SCSI_OVER
        if result == SCSI_OVER:
            self.current.status = self.current.scsi.status
            if not self.count():
                self.phase(STATUS)

    cdef u32 high(self) noexcept nogil:
        """The upper half of the address of a move."""
        return self.get(DBMS) if self.r[CCNTL1] & (CCNTL1_EN64DBMV | CCNTL1_EN64TIBMV) else 0

    cdef void take_command(self) noexcept nogil:
        """The command phase: the unit gets its command."""
        cdef LsiCommand *c = NULL
        cdef u32 size = self.count(), n
        cdef int result
        if size > 16:
            size = 16
        for n in range(MOST_COMMANDS):
            if not self.commands[n].used:
                c = &self.commands[n]
                break
        if c == NULL:                                           # nobody has room: the bus falls silent
            self.free_bus()
            self.scsi_interrupt(SIST0_UDC, 0)
            return
        memset(c.scsi.cdb, 0, sizeof(c.scsi.cdb))
        if self.dma.read_into(self.get(DNAD) | <u64>self.high() << 32, c.scsi.cdb, size) != 0:
            self.dma_interrupt(DSTAT_BF)
            return
        self.put(DNAD, self.get(DNAD) + size)
        self.put_count(self.count() - size)
        self.r[SFBR] = c.scsi.cdb[0]
        self.ages += 1
        c.used, c.away, c.ready, c.over, c.tagged, c.age = True, False, False, False, self.tag > 0xFF, self.ages
        c.scsi.owner, c.scsi.done, c.scsi.ready, c.scsi.autosense = <void *>self, command_done, command_ready, False
        c.scsi.channel, c.scsi.target, c.scsi.lun, c.scsi.tag = 0, self.target, self.unit, self.tag & 0xFF
        c.scsi.step_done = 0
        self.current, self.used = c, True
        result = scsi_begin(self.units_of, &c.scsi)
        if result == SCSI_NOBODY:
            self.forget(c)
            self.no_answer()
            return
        if result == SCSI_DATA:
            c.out = c.scsi.direction == SCSI_FROM_HOST
            result = scsi_fetch(&c.scsi)
        else:
            c.out = False
        c.ready, c.over = result != SCSI_LATER, result == SCSI_OVER
        if c.over:
            c.status = c.scsi.status
            self.phase(STATUS)
        elif c.ready:
            self.phase(DATA_OUT if c.out else DATA_IN)
        elif self.may_leave:
            if c.scsi.length:
                self.say(2)                                     # save data pointer
            self.say(4)                                         # disconnect
            self.phase(MESSAGE_IN)
            self.then = THEN_FREE
            c.away = True
            self.current = NULL
        else:
            self.waiting = TARGET
            self.put_count(0)

    cdef void no_answer(self) noexcept nogil:
        """A selection that nobody answers."""
        self.scsi_interrupt(0, SIST1_STO)
        self.free_bus()

    cdef void give_status(self) noexcept nogil:
        cdef u8 status
        if self.current == NULL:
            self.dma_interrupt(DSTAT_IID)
            return
        status = self.current.status
        self.dma.write_from(self.get(DNAD) | <u64>self.high() << 32, &status, 1)
        self.r[SFBR] = status
        self.put(DNAD, self.get(DNAD) + 1)
        self.put_count(0)
        self.forget(self.current)
        self.message_length = 0
        self.say(0)                                             # command complete
        self.then = THEN_FREE
        self.phase(MESSAGE_IN)

    cdef void give_message(self) noexcept nogil:
        cdef u32 size = self.count()
        if size > self.message_length:
            size = self.message_length
        if not size:
            self.dma_interrupt(DSTAT_IID)
            return
        self.dma.write_from(self.get(DNAD) | <u64>self.high() << 32, self.message, size)
        self.r[SFBR], self.r[SIDL] = self.message[0], self.message[size - 1]
        self.message_length -= size
        memmove(self.message, self.message + size, self.message_length)
        self.put(DNAD, self.get(DNAD) + size)
        self.put_count(self.count() - size)
        if self.message_length:
            return
        if self.then == THEN_COMMAND:
            self.phase(COMMAND)
        elif self.then == THEN_FREE or self.current == NULL:
            self.free_bus()
        elif self.then == THEN_STATUS:
            self.phase(STATUS)
        else:
            self.phase(DATA_OUT if self.then == THEN_DATA_OUT else DATA_IN)

    cdef void take_message(self) noexcept nogil:
        """The initiator's message: which unit, which tag, or what is to end."""
        cdef u8 data[256]
        cdef u32 size = self.count(), at = 0, length
        cdef u8 byte
        if size > 256:
            size = 256
        if not size or self.dma.read_into(self.get(DNAD) | <u64>self.high() << 32, data, size) != 0:
            self.dma_interrupt(DSTAT_BF)
            return
        self.put(DNAD, self.get(DNAD) + size)
        self.put_count(self.count() - size)
        self.r[SOCL] &= ~<u32>ATN
        self.r[SBCL] &= ~<u32>ATN
        self.phase(COMMAND)
        while at < size:
            byte = data[at]
            self.r[SFBR] = byte
            at += 1
            if byte & 0x80:                                     # identify
                self.unit, self.may_leave = byte & 7, byte & 0x40
            elif byte == 0x08:                                  # no operation
                continue
            elif byte == 0x01 and at < size:                    # extended: transfer parameters, which are not bargained
                length = data[at] if data[at] else 256
                at += 1 + length
            elif byte in (0x20, 0x21, 0x22) and at < size:
                self.tag = 0x100 | data[at]
                at += 1
            elif byte == 0x04:                                  # disconnect
                self.free_bus()
                return
            elif byte in (0x06, 0x0C, 0x0D, 0x0E):              # abort, reset, abort tag, clear queue
                self.end(byte)
                self.free_bus()
                return
            else:
                self.message_length = 0
                self.say(7)                                     # reject
                self.then = THEN_COMMAND
                self.phase(MESSAGE_IN)
                return

    cdef void end(self, u8 byte) noexcept nogil:
        """Commands of the connected target that are to be given up."""
        cdef LsiCommand *c
        cdef u32 n
        for n in range(MOST_COMMANDS):
            c = &self.commands[n]
            if not c.used or c.scsi.target != self.target:
                continue
            if byte == 0x0D and not (c.tagged and self.tag > 0xFF and c.scsi.tag == self.tag & 0xFF) and c != self.current:
                continue
            if byte in (0x06, 0x0E) and c.scsi.lun != self.unit:
                continue
            self.forget(c)
        if byte == 0x0C:
            with gil:
                for unit in self.units.members:
                    if unit.target == self.target:
                        unit.bus_reset()
