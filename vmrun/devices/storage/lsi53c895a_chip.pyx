"""LSI 53C895A: a SCSI controller with a processor of its own, compiled: registers and SCRIPTS; its bus is lsi_bus.pyx.

Ref: LSI Logic LSI53C895A PCI to Ultra2 SCSI Controller Technical Manual 2.2, chapters 4 (registers) and 5 (SCRIPTS).

A driver writes the address of a program to DSP; the chip fetches its instructions with DMA, selects a target, and moves
messages, the command, data and status as the target asks for them (the phase). A target that cannot go on at once
disconnects, if it may, and comes back (reselection); one that may not lets the program wait.

Programs are the guest's: a run ends after MOST_INSTRUCTIONS or MOST_COPIED bytes with an unexpected disconnect, as real
drivers that spin expect it. A turn in which a command began or a target came back is not spinning: while the program runs,
the driver has more for it.

A read of DSTAT clears it, also where qemu-kvm's keeps it, behind an interrupt on the fly: here the program runs on beside
the driver, which may read until nothing is left.

After a move RBC, UA and SBC are what the manual says: what is left, where it would have gone, what was moved. qemu-kvm's
are the other way round, and Linux takes for data what a short answer left of its buffer.

A command that is under way when the machine is saved ends as BUSY in the machine that goes on; drivers repeat it.

Not modelled: target role, low-level mode, parity, arbitration by hand, wide residue, phase mismatch jumps' byte counts beyond
those of DBC, RBC, UA, ESA and SBC; general purpose timers elapse at once.
"""

from libc.string cimport memcpy, memset

from accel.aio cimport IoThread
from accel.api cimport IoRegion, IrqLine, i64, u8, u16, u32, u64
from accel.dma cimport Dma
from accel.turns cimport turn_of
from vmrun.bus.pci.config cimport PciConfig
from vmrun.core.cells cimport cells
from vmrun.devices.storage.lsi_bus cimport (
    ACK, ADDER, ATN, BSY, CCNTL1, CCNTL1_64TIMOD, CCNTL1_EN64DBMV, CCNTL1_EN64TIBMV, COMMAND, CTEST0, CTEST1, CTEST2,
    CTEST2_CM, CTEST2_DACK, CTEST2_SIGP, CTEST3, CTEST6, DATA_IN, DATA_OUT, DBC, DBMS, DCMD, DCNTL, DCNTL_PFF,
    DCNTL_SSM, DCNTL_STD, DFIFO, DIEN, DMODE, DMODE_MAN, DNAD, DSA, DSP, DSPS, DSTAT, DSTAT_ABRT, DSTAT_BF, DSTAT_DFE,
    DSTAT_IID, DSTAT_SIR, DSTAT_SSI, ESA, GPCNTL, GPREG, IA, ISTAT0, ISTAT0_ABRT, ISTAT0_CON, ISTAT0_INTF, ISTAT0_SIGP,
    ISTAT0_SRST, ISTAT1, ISTAT1_SRUN, MACNTL, MESSAGE, MESSAGE_IN, MESSAGE_OUT, MMRS, MOST_COMMANDS, MOST_COPIED,
    MOST_INSTRUCTIONS, NOTHING, PHASE, RBC, RESELECTION, RESPID0, SBC, SBCL, SBDL, SCID, SCNTL0, SCNTL1, SCNTL1_CON,
    SCNTL1_RST, SCRATCHC, SDID, SFBR, SIDL, SIEN0, SIEN1, SIST0, SIST0_MA, SIST0_RSL, SIST0_RST, SIST0_UDC, SIST1,
    SIST1_GEN, SIST1_STO, SOCL, SSID, SSTAT0, SSTAT0_RST, SSTAT0_WOA, SSTAT1, SSTAT2, STATUS, STEST4, STIME1, TARGET,
    TEMP, THEN_COMMAND, THEN_STATUS, TURN, TURN_BYTES, UA, LsiBus, LsiCommand,
)
from vmrun.devices.storage.scsi cimport TASK_BUSY, ScsiUnits, scsi_cancel, scsi_release

from vmrun.core.state import KEEP, Bytes, Flag, Rows, Table, U8, U16, U32
from vmrun.errors import StateError


cdef void _go_on(void *chip) noexcept nogil:
    """What a long program has left."""
    if (<LsiChip>chip).cut:
        (<LsiChip>chip).turn(False)


cdef class LsiChip(LsiBus):
    """`irq` is INTA#; `config` knows where BAR 1 shows the registers, for programs that reach them by their addresses."""

    state = Table(
        "lsi53c895a", 1,
        Bytes("registers", 256, KEEP), Flag("carry"), U8("waiting", most=TARGET), Bytes("message_bytes", MESSAGE),
        U8("message_length", most=MESSAGE), U8("then", most=THEN_STATUS), U8("target", most=15), U8("unit", most=63),
        U16("tag", most=0x1FF), Flag("may_leave"), U8("current_row", 0xFF), U32("ages"),
        Rows(
            "held", MOST_COMMANDS,
            Flag("used"), U8("target", most=15), U8("lun", most=63), U8("tag"), Flag("tagged"), Flag("over"),
            Flag("out"), Flag("away"), U8("status"), U32("age"),
        ),
    )
    save, load_state = state.methods()[1:]

    def __init__(self, Dma dma, IrqLine irq, PciConfig config, ScsiUnits units):
        self.dma, self.irq, self.config, self.units = dma, irq, config, units
        self.units_of = <void *>units
        self.reset()

    def __dealloc__(self):
        cdef u32 n
        for n in range(MOST_COMMANDS):
            scsi_release(&self.commands[n].scsi)

    # --- state ------------------------------------------------------------------------------------------------

    @property
    def registers(self):
        return cells(self, self.r, 256)

    @property
    def message_bytes(self):
        return cells(self, self.message, MESSAGE)

    @property
    def current_row(self):
        cdef u32 n
        for n in range(MOST_COMMANDS):
            if self.current == &self.commands[n]:
                return n
        return 0xFF

    @current_row.setter
    def current_row(self, value):
        self.current = &self.commands[<u32>value] if value < MOST_COMMANDS else NULL

    @property
    def held(self):
        """What targets have, as rows."""
        cdef LsiCommand *c
        rows = []
        for n in range(MOST_COMMANDS):
            c = &self.commands[<u32>n]
            rows.append({
                "used": bool(c.used), "target": c.scsi.target if c.used else 0, "lun": c.scsi.lun if c.used else 0,
                "tag": c.scsi.tag & 0xFF if c.used else 0, "tagged": bool(c.tagged and c.used),
                "over": bool(c.over and c.used), "out": bool(c.out and c.used), "away": bool(c.away and c.used),
                "status": c.status if c.used else 0, "age": c.age if c.used else 0,
            })  # fmt: skip
        return rows

    @held.setter
    def held(self, rows):
        """What was not over ends as BUSY: its data is not saved."""
        cdef LsiCommand *c
        for n, row in enumerate(rows):
            c = &self.commands[<u32>n]
            scsi_cancel(&c.scsi)
            c.used, c.tagged, c.out, c.away, c.age = row["used"], row["tagged"], row["out"], row["away"], row["age"]
            c.scsi.target, c.scsi.lun, c.scsi.tag = row["target"], row["lun"], row["tag"]
            c.scsi.channel, c.scsi.owner = 0, <void *>self
            c.ready = c.over = bool(row["used"])
            c.status = row["status"] if row["over"] else TASK_BUSY

    def check_state(self, values):
        row = values["current_row"]
        if row != 0xFF and (row >= MOST_COMMANDS or not values["held"][row]["used"] or values["held"][row]["away"]):
            raise StateError("LSI: the target that is connected has no command")
        phase = values["registers"][SSTAT1] & PHASE
        if row == 0xFF and values["waiting"] == TARGET:
            raise StateError("LSI: it waits for a target that is not there")
        if phase == MESSAGE_IN and not values["message_length"] and row != 0xFF:
            raise StateError("LSI: a message without bytes")

    def settle(self):
        """After a load the connected target, if its command was cut off, has a status to give."""
        self.cut = False
        if self.current != NULL and self.current.over and self.r[SSTAT1] & PHASE in (DATA_OUT, DATA_IN):
            self.phase(STATUS)
        with nogil:
            self.update_irq()

    def reset(self):
        """Power-on, RESET# and SRST."""
        with nogil:
            self.clear()
        self.units.reset()

    cdef void clear(self) noexcept nogil:
        cdef u32 n
        for n in range(MOST_COMMANDS):
            scsi_cancel(&self.commands[n].scsi)
            self.commands[n].used = False
        self.current = NULL
        memset(self.r, 0, 256)
        self.r[SCNTL0], self.r[SCID], self.r[RESPID0] = 0xC0, 7, 0x80
        self.r[CTEST2], self.r[DCMD] = CTEST2_DACK, 0x40
        self.carry, self.waiting, self.message_length, self.then = False, NOTHING, 0, THEN_COMMAND
        self.target = self.unit = 0
        self.tag = 0
        self.may_leave = self.cut = False
        self.irq.set(0)

    # --- SCRIPTS ----------------------------------------------------------------------------------------------

    cdef void resume(self) noexcept nogil:
        """Go on with a program that has waited."""
        if self.r[ISTAT1] & ISTAT1_SRUN and self.waiting == NOTHING:
            self.run()

    cdef void start(self) noexcept nogil:
        if self.r[ISTAT1] & ISTAT1_SRUN:
            return
        self.waiting = NOTHING
        self.run()

    cdef bint runs(self) noexcept nogil:
        return self.running or self.cut and self.r[ISTAT1] & ISTAT1_SRUN

    cdef void run(self) noexcept nogil:
        if self.running:                                        # it has come back to itself: the run below goes on
            return
        self.copied, self.left, self.to_move = 0, MOST_INSTRUCTIONS, 0
        self.r[ISTAT1] |= ISTAT1_SRUN
        self.turn(self.thread is None or not self.thread.running)

    cdef void turn(self, bint whole) noexcept nogil:
        """Go on with the program. Not the `whole` of it: so much, and the I/O thread has the rest a moment later, so that nobody
        waits long for the device lock.
        """
        cdef u32 until
        if self.used and not whole:
            self.left, self.copied = MOST_INSTRUCTIONS, 0
        self.used = False
        until = 0 if whole or self.left < TURN else self.left - TURN
        self.turn_ends = MOST_COPIED if whole else self.copied + TURN_BYTES
        self.running, self.cut = True, False
        while self.r[ISTAT1] & ISTAT1_SRUN and self.waiting == NOTHING:
            if not self.left or self.copied > MOST_COPIED:
                if self.current != NULL:
                    self.forget(self.current)                   # a target that leaves the bus so has given up its command
                self.free_bus()
                self.scsi_interrupt(SIST0_UDC, 0)
                self.stop()
                break
            if not whole and (self.copied >= self.turn_ends or self.left <= until and not self.stopping(until)):
                self.cut = True
                self.later.notifier.signal()
                break
            if self.to_move:
                self.move_on()
            else:
                self.left -= 1
                self.step()
            if self.r[DCNTL] & DCNTL_SSM and self.r[ISTAT1] & ISTAT1_SRUN and not self.to_move:
                self.dma_interrupt(DSTAT_SSI)
        self.running = False

    cdef bint stopping(self, u32 until) noexcept nogil:
        """Nobody was there: the program stops at its next look at the bus. The driver is not to see it run, if that comes
        within another turn.
        """
        return self.r[SIST1] & SIST1_STO and self.left + TURN > until

    def serve_on(self, IoThread thread):
        """Long programs run on `thread`. Before the machine runs; `quit` ends it."""
        self.thread, self.later = thread, turn_of(self, _go_on)
        thread.add(self.later)

    def quit(self):
        self.thread.remove(self.later)
        self.thread = None

    def before_save(self):
        """A saved program waits, or has ended."""
        if self.cut:
            with nogil:
                self.turn(True)

    cdef i64 near(self, u32 value) noexcept nogil:
        """24 bits with their sign."""
        return <i64>(<int>(value << 8) >> 8)

    cdef void step(self) noexcept nogil:
        cdef u32 at = self.get(DSP), insn, address
        insn = self.fetch(at)
        if insn == 0 and self.r[ISTAT1] & ISTAT1_SRUN:          # a hole, as SeaBIOS leaves one: the next dword counts
            self.put(DSP, at + 4)
            return
        address = self.fetch(<u64>at + 4)
        if not self.r[ISTAT1] & ISTAT1_SRUN:
            return
        self.put(DBC, insn)                                     # the upper byte is DCMD
        self.put(DSPS, address)
        self.put(DSP, at + 8)
        if insn >> 30 == 0:
            self.block_move(insn, address)
        elif insn >> 30 == 1:
            if insn >> 27 & 7 < 5:
                self.bus_instruction(insn, address)
            else:
                self.register_instruction(insn)
        elif insn >> 30 == 2:
            self.transfer_control(insn, address)
        elif insn >> 29 & 1:
            self.load_store(insn, address)
        else:
            self.memory_move(insn, address)

    cdef void block_move(self, u32 insn, u32 address) noexcept nogil:
        cdef u32 row[2]
        cdef u32 count = insn & 0xFFFFFF, high = 0, kind = insn >> 24, offset = address, selector, moved
        cdef u8 now = self.r[SSTAT1] & PHASE
        if self.r[SIST1] & SIST1_STO:                           # nobody was there
            self.stop()
            return
        self.put(IA, self.get(DSP) - 8)
        if insn >> 29 & 1:
            address = self.fetch(address)
        elif insn >> 28 & 1:
            if self.dma.read_into(<u32>(self.get(DSA) + self.near(address)), <u8 *>row, 8) != 0:
                self.dma_interrupt(DSTAT_BF)
                return
            kind, count, address = row[0] >> 24, row[0] & 0xFFFFFF, row[1]
            self.put(ESA, <u32>(self.get(DSA) + self.near(offset)))
            if self.r[CCNTL1] & CCNTL1_EN64TIBMV:
                if self.r[CCNTL1] & CCNTL1_64TIMOD:
                    high = row[0] >> 24
                else:
                    selector = row[0] >> 24 & 31
                    if selector < 16:
                        high = self.get(SCRATCHC + 4 * selector)
                    elif selector <= 0x15:
                        high = self.get(MMRS + 4 * (selector - 16))
        elif self.r[CCNTL1] & CCNTL1_EN64DBMV:
            high = self.fetch(self.get(DSP))
            self.put(DSP, self.get(DSP) + 4)
            self.put(IA, self.get(DSP) - 12)
        if not self.r[ISTAT1] & ISTAT1_SRUN:
            return
        self.put_count(count)
        self.put(RBC, kind << 24 | count)
        self.put(DNAD, address)
        self.put(DBMS, high)
        if now != insn >> 24 & 7:
            self.scsi_interrupt(SIST0_MA, 0)
            self.stop()
            return
        if now == DATA_OUT or now == DATA_IN:
            if self.current == NULL:
                self.dma_interrupt(DSTAT_IID)
                return
            self.move_data(now == DATA_OUT)
        elif now == COMMAND:
            self.take_command()
        elif now == STATUS:
            self.give_status()
        elif now == MESSAGE_OUT:
            self.take_message()
        elif now == MESSAGE_IN:
            self.give_message()
        moved = count - self.count()
        self.r[DFIFO] = self.r[DBC]
        self.put(SBC, moved)
        self.put(UA, address + moved)
        self.put(RBC, kind << 24 | self.count())

    cdef void bus_instruction(self, u32 insn, u32 address) noexcept nogil:
        cdef u32 opcode = insn >> 27 & 7, id = insn
        cdef bint there = False
        if insn >> 25 & 1:
            id = self.fetch(<u32>(self.get(DSA) + self.near(insn)))
        id = id >> 16 & 15
        if insn >> 26 & 1:
            address = <u32>(self.get(DSP) + self.near(address))
        self.put(DNAD, address)
        if not self.r[ISTAT1] & ISTAT1_SRUN:
            return
        if opcode == 0:                                         # select
            self.r[SDID] = id
            if self.r[SCNTL1] & SCNTL1_CON or self.reselect():
                self.put(DSP, address)                          # somebody was first
                return
            self.r[SSTAT0] |= SSTAT0_WOA
            self.units.find(0, id, 0, &there)
            if not there:
                self.no_answer()
                return
            self.target, self.unit, self.tag, self.may_leave = id, 0, 0, False
            self.r[SCNTL1] |= SCNTL1_CON
            if insn >> 24 & 1:
                self.r[SOCL] |= ATN
                self.r[SBCL] |= ATN
            self.r[SBCL] |= BSY
            self.phase(MESSAGE_OUT)                             # as qemu-kvm, with ATN or without
        elif opcode == 1:                                       # wait for the target to disconnect
            self.r[SCNTL1] &= ~<u32>SCNTL1_CON
        elif opcode == 2:                                       # wait to be reselected
            if self.r[ISTAT0] & ISTAT0_SIGP:
                self.put(DSP, address)
            elif not (self.current != NULL and self.r[SCNTL1] & SCNTL1_CON) and not self.reselect():
                self.waiting = RESELECTION                      # else it has been: by whom a selection lost the bus to
        elif opcode == 3:                                       # set
            if insn & ATN:
                self.r[SOCL] |= ATN
                self.r[SBCL] |= ATN
                self.phase(MESSAGE_OUT)
            if insn & ACK:
                self.r[SOCL] |= ACK
            if insn >> 10 & 1:
                self.carry = True
        else:                                                   # clear
            if insn & ATN:
                self.r[SOCL] &= ~<u32>ATN
                self.r[SBCL] &= ~<u32>ATN
            if insn & ACK:
                self.r[SOCL] &= ~<u32>ACK
            if insn >> 10 & 1:
                self.carry = False

    cdef void register_instruction(self, u32 insn) noexcept nogil:
        cdef u32 reg = (insn >> 16 & 0x7F) | (insn & 0x80), opcode = insn >> 27 & 7, how = insn >> 24 & 7, sum
        cdef u8 value = 0, other = insn >> 8 & 0xFF, out
        if opcode == 5:
            value = self.r[SFBR]
        elif how:
            value = self.read_byte(reg)
        if opcode == 7 and insn >> 23 & 1:
            other = self.r[SFBR]
        if how == 0:
            value = other
        elif how == 1:
            out = value >> 7
            value = <u8>(value << 1) | (1 if self.carry else 0)
            self.carry = out
        elif how == 2:
            value |= other
        elif how == 3:
            value ^= other
        elif how == 4:
            value &= other
        elif how == 5:
            out = value & 1
            value = value >> 1 | (0x80 if self.carry else 0)
            self.carry = out
        else:
            sum = <u32>value + other + (1 if how == 7 and self.carry else 0)
            value, self.carry = <u8>sum, sum > 0xFF
        if opcode == 6:
            self.r[SFBR] = value
        else:
            self.write_byte(reg, value)

    cdef void transfer_control(self, u32 insn, u32 address) noexcept nogil:
        cdef bint true = insn >> 19 & 1, holds
        cdef u8 mask
        cdef u32 opcode = insn >> 27 & 7
        if insn & 0x002E0000 == 0:                              # no operation
            return
        if self.r[SIST1] & SIST1_STO:
            self.stop()
            return
        holds = true
        if insn >> 21 & 1:
            holds = self.carry
        if holds == true and insn >> 17 & 1:
            holds = self.r[SSTAT1] & PHASE == insn >> 24 & 7
        if holds == true and insn >> 18 & 1:
            mask = ~insn >> 8 & 0xFF
            holds = self.r[SFBR] & mask == insn & mask
        if holds != true:
            return
        if insn >> 23 & 1:
            address = <u32>(self.get(DSP) + self.near(address))
        if opcode == 0:                                         # jump
            self.put(ADDER, address)
            self.put(DSP, address)
        elif opcode == 1:                                       # call
            self.put(TEMP, self.get(DSP))
            self.put(DSP, address)
        elif opcode == 2:                                       # return
            self.put(DSP, self.get(TEMP))
        elif opcode == 3:                                       # interrupt
            if insn >> 20 & 1:
                self.r[ISTAT0] |= ISTAT0_INTF
                self.update_irq()
            else:
                self.dma_interrupt(DSTAT_SIR)
        else:
            self.dma_interrupt(DSTAT_IID)

    cdef int own(self, u32 address) noexcept nogil:
        """The register at an address of memory, as BAR 1 shows them; -1: none."""
        cdef u32 base
        memcpy(&base, self.config.data + 0x14, 4)
        base &= ~<u32>0xF
        if base and self.config.data[4] & 2 and address - base < 0x400:
            return (address - base) & 0xFF
        return -1

    cdef void load_store(self, u32 insn, u32 address) noexcept nogil:
        cdef u8 data[8]
        cdef u32 n, count = insn & 7, reg = insn >> 16 & 0xFF
        cdef int from_own
        if insn >> 28 & 1:
            address = <u32>(self.get(DSA) + self.near(address))
        from_own = self.own(address)
        if insn >> 24 & 1:                                      # load
            if from_own >= 0:
                for n in range(count):
                    data[n] = self.read_byte((from_own + n) & 0xFF)
            elif self.dma.read_into(address, data, count) != 0:
                self.dma_interrupt(DSTAT_BF)
                return
            for n in range(count):
                self.write_byte((reg + n) & 0xFF, data[n])
        else:
            for n in range(count):
                data[n] = self.read_byte((reg + n) & 0xFF)
            if from_own >= 0:
                for n in range(count):
                    self.write_byte((from_own + n) & 0xFF, data[n])
            elif self.dma.write_from(address, data, count) != 0:
                self.dma_interrupt(DSTAT_BF)

    cdef void memory_move(self, u32 insn, u32 source) noexcept nogil:
        self.move_from, self.move_to, self.to_move = source, self.fetch(self.get(DSP)), insn & 0xFFFFFF
        self.put(DSP, self.get(DSP) + 4)
        self.put(TEMP, self.move_to)
        self.move_on()

    cdef void move_on(self) noexcept nogil:
        """With a memory move, until this turn ends."""
        cdef u8 data[4096]
        cdef u32 size
        cdef int read_own, write_own
        while self.to_move and self.r[ISTAT1] & ISTAT1_SRUN and self.copied <= self.turn_ends:
            read_own, write_own = self.own(self.move_from), self.own(self.move_to)
            size = min(self.to_move, <u32>1 if read_own >= 0 or write_own >= 0 else <u32>4096)
            if read_own >= 0:
                data[0] = self.read_byte(read_own)
            elif self.dma.read_into(self.move_from, data, size) != 0:
                self.to_move = 0
                self.dma_interrupt(DSTAT_BF)
                return
            if write_own >= 0:
                self.write_byte(write_own, data[0])
            elif self.dma.write_from(self.move_to, data, size) != 0:
                self.to_move = 0
                self.dma_interrupt(DSTAT_BF)
                return
            self.move_from += size
            self.move_to += size
            self.to_move -= size
            self.copied += size if size > 1 else 64

    # --- registers --------------------------------------------------------------------------------------------

    cdef u8 read_byte(self, u32 reg) noexcept nogil:
        cdef u8 value = self.r[reg]
        if reg == DSTAT:
            value |= DSTAT_DFE
            self.r[DSTAT] = 0
            self.update_irq()
            self.look_again()
        elif reg == SIST0 or reg == SIST1:
            self.r[reg] = 0
            self.update_irq()
            self.look_again()
        elif reg == GPREG:
            value = 0x7F
        elif reg == SSTAT2:
            value = 0 if self.r[SCNTL1] & SCNTL1_CON else 2
        elif reg == ISTAT0:
            value |= ISTAT0_CON if self.r[SCNTL1] & SCNTL1_CON else 0
        elif reg == CTEST0:
            value = 0xFF
        elif reg == CTEST1:
            value = 0
        elif reg == CTEST2:
            value |= CTEST2_DACK | CTEST2_CM
            if self.r[ISTAT0] & ISTAT0_SIGP:
                self.r[ISTAT0] &= ~<u32>ISTAT0_SIGP
                value |= CTEST2_SIGP
        elif reg == CTEST6:
            value = 0
        elif reg == MACNTL or reg == GPCNTL:
            value = 0x0F
        elif reg == STEST4:
            value = 0xE0
        elif reg >= 0xE0:                                       # reserved
            value = 0xFF
        elif reg == SBDL:
            value = self.message[0] if self.r[SSTAT1] & PHASE == MESSAGE_IN and self.message_length else 0
        return value

    cdef void look_again(self) noexcept nogil:
        """A driver that has served its interrupts hears of those that want to come back, if it asked for that."""
        if self.r[SIEN0] & SIST0_RSL and not self.wanted() and not self.runs() and self.waiting != RESELECTION:
            if self.r[SCID] & 0x40 and self.reselect():
                self.scsi_interrupt(SIST0_RSL, 0)

    cdef void write_byte(self, u32 reg, u8 value) noexcept nogil:
        if reg in (SSID, SBCL, DSTAT, SSTAT0, SSTAT1, SSTAT2, GPREG, SIST0, SIST1, SIDL, SIDL + 1, STEST4, MACNTL, CTEST0):
            return
        if reg == SCNTL1:
            self.r[reg] = (value & ~<u32>(1 | SCNTL1_CON)) | (self.r[reg] & SCNTL1_CON)
            if not value & SCNTL1_CON and not self.runs():
                self.r[reg] &= ~<u32>SCNTL1_CON
            if value & SCNTL1_RST:
                if not self.r[SSTAT0] & SSTAT0_RST:
                    self.reset_bus()
            else:
                self.r[SSTAT0] &= ~<u32>SSTAT0_RST
        elif reg == SDID:
            self.r[reg] = value & 15
        elif reg == ISTAT0:
            self.write_istat(value)
        elif reg == ISTAT1:
            return
        elif reg == CTEST2:
            self.r[reg] = value & 0x08
        elif reg == CTEST3:
            self.r[reg] = value & 0x0F
        elif reg == DSP + 3:
            self.r[reg] = value
            if not self.r[DMODE] & DMODE_MAN and not self.running:
                self.start()
        elif reg == DIEN or reg == SIEN0 or reg == SIEN1:
            self.r[reg] = value
            self.update_irq()
        elif reg == DCNTL:
            self.r[reg] = value & ~<u32>(DCNTL_PFF | DCNTL_STD)
            if value & DCNTL_STD and not self.running:
                self.start()
        elif reg == STIME1:
            self.r[reg] = value
            if value & 15:                                      # the general purpose timer: it elapses at once
                self.scsi_interrupt(0, SIST1_GEN)
        else:
            self.r[reg] = value

    cdef void reset_bus(self) noexcept nogil:
        cdef u32 n
        for n in range(MOST_COMMANDS):
            if self.commands[n].used:
                self.forget(&self.commands[n])
        self.free_bus()
        if self.waiting == TARGET:
            self.waiting = NOTHING
        with gil:
            for unit in self.units.members:
                unit.bus_reset()
        self.r[SSTAT0] |= SSTAT0_RST
        self.scsi_interrupt(SIST0_RST, 0)

    cdef void write_istat(self, u8 value) noexcept nogil:
        cdef bint reset = value & ISTAT0_SRST and not self.r[ISTAT0] & ISTAT0_SRST
        self.r[ISTAT0] = (self.r[ISTAT0] & 0x0F) | (value & 0xF0)
        if value & ISTAT0_ABRT:
            self.dma_interrupt(DSTAT_ABRT)
        if value & ISTAT0_INTF:
            self.r[ISTAT0] &= ~<u32>ISTAT0_INTF
            self.update_irq()
        if self.waiting == RESELECTION and value & ISTAT0_SIGP and self.r[ISTAT1] & ISTAT1_SRUN:
            self.waiting = NOTHING
            self.put(DSP, self.get(DNAD))
            self.run()
        if reset:
            self.clear()
            self.r[ISTAT0] = value & ISTAT0_SRST


cdef class LsiRegisters(IoRegion):
    """256 bytes, of any access size."""

    cdef LsiChip chip

    def __init__(self, LsiChip chip):
        self.chip = chip

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u64 value = 0
        cdef u32 n
        for n in range(size):
            value |= <u64>self.chip.read_byte((offset + n) & 0xFF) << (8 * n)
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 n
        for n in range(size):
            self.chip.write_byte((offset + n) & 0xFF, value >> (8 * n) & 0xFF)
        return 0
