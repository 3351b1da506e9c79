# The SCSI bus of an LSI 53C895A. The documentation is in lsi_bus.pyx.
from accel.aio cimport EventHandler, IoThread
from accel.api cimport IrqLine, i64, u8, u16, u32, u64
from accel.dma cimport Dma
from vmrun.bus.pci.config cimport PciConfig
from vmrun.devices.storage.scsi cimport ScsiRequest, ScsiUnits

cdef enum:
    MOST_INSTRUCTIONS = 20000
    MOST_COPIED = 1 << 24
    TURN = 500                      # instructions, or bytes, at one go
    TURN_BYTES = 1 << 20
    MOST_COMMANDS = 64              # that targets have at a time
    MESSAGE = 16

    # registers
    SCNTL0 = 0x00
    SCNTL1 = 0x01
    SCNTL2 = 0x02
    SCID = 0x04
    SXFER = 0x05
    SDID = 0x06
    GPREG = 0x07
    SFBR = 0x08
    SOCL = 0x09
    SSID = 0x0A
    SBCL = 0x0B
    DSTAT = 0x0C
    SSTAT0 = 0x0D
    SSTAT1 = 0x0E
    SSTAT2 = 0x0F
    DSA = 0x10
    ISTAT0 = 0x14
    ISTAT1 = 0x15
    CTEST0 = 0x18
    CTEST1 = 0x19
    CTEST2 = 0x1A
    CTEST3 = 0x1B
    TEMP = 0x1C
    DFIFO = 0x20
    CTEST4 = 0x21
    CTEST5 = 0x22
    CTEST6 = 0x23
    DBC = 0x24
    DCMD = 0x27
    DNAD = 0x28
    DSP = 0x2C
    DSPS = 0x30
    DMODE = 0x38
    DIEN = 0x39
    DCNTL = 0x3B
    ADDER = 0x3C
    SIEN0 = 0x40
    SIEN1 = 0x41
    SIST0 = 0x42
    SIST1 = 0x43
    MACNTL = 0x46
    GPCNTL = 0x47
    STIME1 = 0x49
    RESPID0 = 0x4A
    STEST0 = 0x4C
    STEST3 = 0x4F
    SIDL = 0x50
    STEST4 = 0x52
    CCNTL0 = 0x56
    CCNTL1 = 0x57
    SBDL = 0x58
    SCRATCHC = 0x60
    MMRS = 0xA0
    DBMS = 0xB4
    PMJAD1 = 0xC0
    PMJAD2 = 0xC4
    RBC = 0xC8
    UA = 0xCC
    ESA = 0xD0
    IA = 0xD4
    SBC = 0xD8
    CSBC = 0xDC

    SCNTL1_RST = 0x08
    SCNTL1_CON = 0x10
    SCNTL2_WSR = 0x01
    ATN = 0x08                      # of SOCL and SBCL
    ACK = 0x40
    BSY = 0x20
    DSTAT_IID = 0x01
    DSTAT_SIR = 0x04
    DSTAT_SSI = 0x08
    DSTAT_ABRT = 0x10
    DSTAT_BF = 0x20
    DSTAT_DFE = 0x80
    SSTAT0_RST = 0x02
    SSTAT0_WOA = 0x04
    ISTAT0_DIP = 0x01
    ISTAT0_SIP = 0x02
    ISTAT0_INTF = 0x04
    ISTAT0_CON = 0x08
    ISTAT0_SIGP = 0x20
    ISTAT0_SRST = 0x40
    ISTAT0_ABRT = 0x80
    ISTAT1_SRUN = 0x02
    CTEST2_DACK = 0x01
    CTEST2_CM = 0x10
    CTEST2_SIGP = 0x40
    DMODE_MAN = 0x01
    DCNTL_COM = 0x01
    DCNTL_STD = 0x04
    DCNTL_SSM = 0x10
    DCNTL_PFF = 0x40
    SIST0_RST = 0x02
    SIST0_UDC = 0x04
    SIST0_RSL = 0x10
    SIST0_SEL = 0x20
    SIST0_CMP = 0x40
    SIST0_MA = 0x80
    SIST1_HTH = 0x01
    SIST1_GEN = 0x02
    SIST1_STO = 0x04
    CCNTL0_PMJCTL = 0x40
    CCNTL0_ENPMJ = 0x80
    CCNTL1_EN64DBMV = 0x01
    CCNTL1_EN64TIBMV = 0x02
    CCNTL1_64TIMOD = 0x04

    PHASE = 7
    DATA_OUT = 0
    DATA_IN = 1
    COMMAND = 2
    STATUS = 3
    MESSAGE_OUT = 6
    MESSAGE_IN = 7

    # what the program waits for
    NOTHING = 0
    RESELECTION = 1
    TARGET = 2                      # the connected target has not asked for anything yet, or has no data yet

    # what follows a message
    THEN_COMMAND = 0
    THEN_FREE = 1
    THEN_DATA_OUT = 2
    THEN_DATA_IN = 3
    THEN_STATUS = 4


cdef struct LsiCommand:
    ScsiRequest scsi                # first
    bint used
    bint tagged
    bint ready                      # it has data, room or a status: it can come back
    bint over
    bint out
    bint away                       # the target has disconnected
    u8 status
    u32 age


cdef class LsiBus:
    cdef Dma dma
    cdef IrqLine irq
    cdef PciConfig config
    cdef readonly ScsiUnits units
    cdef void *units_of
    cdef u8 r[256]
    cdef public bint carry, may_leave
    cdef public u8 waiting, message_length, then, target, unit
    cdef public u16 tag             # 0x100: it has one
    cdef u8 message[MESSAGE]
    cdef LsiCommand commands[MOST_COMMANDS]
    cdef LsiCommand *current
    cdef public u32 ages
    cdef IoThread thread
    cdef EventHandler later
    cdef bint running, cut          # just now; it goes on a moment later
    cdef bint used                  # the bus, since the last turn: the program does not spin
    cdef u32 left                   # instructions that this program may still run
    cdef u64 copied, turn_ends      # bytes
    cdef u32 move_from, move_to, to_move            # of a memory move that is under way
    # what the chip overrides
    cdef void resume(self) noexcept nogil
    # what it calls
    cdef u32 get(self, u32 reg) noexcept nogil
    cdef void put(self, u32 reg, u32 value) noexcept nogil
    cdef void put_count(self, u32 value) noexcept nogil
    cdef u32 count(self) noexcept nogil
    cdef void phase(self, u8 phase) noexcept nogil
    cdef u32 fetch(self, u64 address) noexcept nogil
    cdef bint wanted(self) noexcept nogil
    cdef void update_irq(self) noexcept nogil
    cdef void dma_interrupt(self, u8 cause) noexcept nogil
    cdef void scsi_interrupt(self, u8 first, u8 second) noexcept nogil
    cdef void stop(self) noexcept nogil
    cdef void free_bus(self) noexcept nogil
    cdef void say(self, u8 byte) noexcept nogil
    cdef void forget(self, LsiCommand *command) noexcept nogil
    cdef bint reselect(self) noexcept nogil
    cdef void told(self, LsiCommand *command, bint over) noexcept nogil
    cdef void go_on(self) noexcept nogil
    cdef void mismatch(self, u8 next) noexcept nogil
    cdef void move_data(self, bint out) noexcept nogil
    cdef void more(self) noexcept nogil
    cdef u32 high(self) noexcept nogil
    cdef void take_command(self) noexcept nogil
    cdef void no_answer(self) noexcept nogil
    cdef void give_status(self) noexcept nogil
    cdef void give_message(self) noexcept nogil
    cdef void take_message(self) noexcept nogil
    cdef void end(self, u8 byte) noexcept nogil
