"""An ATA channel with two disks, and the bus-master engine that moves their data; compiled.

Ref: ATA/ATAPI-6 (T13 1410D): registers 7, protocols 9, commands 8; Intel 82371SB PIIX3 (290550) 2.7, bus-master IDE.
Packet devices (CD-ROM drives) are units whose commands atapi.pyx works out; ata_transfers.pyx moves all data. What a
processor sees of a channel is ata_regions.pyx.
Not modelled: power states beyond their answers, security, queued commands, media access
timing. Commands that are not modelled end in ABRT, as ATA says.
"""

from libc.string cimport memcpy

from accel.api cimport IrqLine, u16
from accel.dma cimport Dma, Scatter
from vmrun.backends.protocols cimport BLOCK_DISCARD, BLOCK_READ, BLOCK_WRITE, BlockBackend, block_settling
from vmrun.core.cells cimport cells
from vmrun.devices.storage.ata_transfers cimport (
    ABRT, BM_START, BM_TO_MEMORY, BSY, BUFFER, DMA, DRDY, DRQ, DSC, HOB, HOST_READS, HOST_WRITES, IDLE,
    MOST_MULTIPLE, PACKET_SIZE, PIECES, SLAVE, SRST, Drive,
)
from vmrun.devices.storage.atapi cimport PacketUnit, packet_reset
from vmrun.devices.storage.smart cimport (
    TESTS, Health, smart_errors, smart_test, smart_tests, smart_thresholds, smart_values,
)

from vmrun.core.state import Bytes, Flag, Rows, Table, U8, U16, U32, U64
from vmrun.errors import StateError

# Commands, as ATA/ATAPI-6 names them; _RETRY, _OLD: obsolete codes of the same.
cdef enum:
    DATA_SET_MANAGEMENT = 0x06
    DEVICE_RESET = 0x08
    RECALIBRATE = 0x10              # and all of 1xh
    READ_SECTORS = 0x20
    READ_SECTORS_RETRY = 0x21
    READ_SECTORS_EXT = 0x24
    READ_DMA_EXT = 0x25
    READ_NATIVE_MAX_EXT = 0x27
    READ_MULTIPLE_EXT = 0x29
    WRITE_SECTORS = 0x30
    WRITE_SECTORS_RETRY = 0x31
    WRITE_SECTORS_EXT = 0x34
    WRITE_DMA_EXT = 0x35
    WRITE_MULTIPLE_EXT = 0x39
    WRITE_VERIFY = 0x3C
    READ_VERIFY = 0x40
    READ_VERIFY_RETRY = 0x41
    READ_VERIFY_EXT = 0x42
    SEEK = 0x70                     # and all of 7xh
    DEVICE_DIAGNOSTIC = 0x90
    DEVICE_PARAMETERS = 0x91
    STANDBY_IMMEDIATE_OLD = 0x94
    IDLE_IMMEDIATE_OLD = 0x95
    STANDBY_OLD = 0x96
    IDLE_OLD = 0x97
    CHECK_POWER_MODE_OLD = 0x98
    SLEEP_OLD = 0x99
    PACKET = 0xA0
    IDENTIFY_PACKET_DEVICE = 0xA1
    READ_MULTIPLE = 0xC4
    WRITE_MULTIPLE = 0xC5
    SET_MULTIPLE_MODE = 0xC6
    READ_DMA = 0xC8
    READ_DMA_RETRY = 0xC9
    WRITE_DMA = 0xCA
    WRITE_DMA_RETRY = 0xCB
    STANDBY_IMMEDIATE = 0xE0
    IDLE_IMMEDIATE = 0xE1
    STANDBY = 0xE2
    IDLE_COMMAND = 0xE3
    CHECK_POWER_MODE = 0xE5
    SLEEP = 0xE6
    FLUSH_CACHE = 0xE7
    FLUSH_CACHE_EXT = 0xEA
    IDENTIFY_DEVICE = 0xEC
    SET_FEATURES = 0xEF
    SECURITY_FREEZE_LOCK = 0xF5
    SMART = 0xB0
    READ_NATIVE_MAX = 0xF8

# Features of SET FEATURES.
cdef enum:
    ENABLE_WRITE_CACHE = 0x02
    TRANSFER_MODE = 0x03
    DISABLE_WRITE_CACHE = 0x82


cdef class AtaChannel(AtaTransfers):
    """`irq` is INTRQ. `attach` puts a disk on a unit; `command_block`, `control_block` and `bus_master` are its ports.

    Saved between requests: the back ends are drained, so a command is over or waits for the host or the bus master.
    """

    state = Table(
        "ata-channel", 2,
        Rows(
            "drives", 2,
            Flag("present"), U8("feature"), U8("error"), U8("nsector"), U8("sector"), U8("lcyl"), U8("hcyl"),
            U8("select"), U8("status"), U8("hob_feature"), U8("hob_nsector"), U8("hob_sector"), U8("hob_lcyl"),
            U8("hob_hcyl"), U8("mult", only=(0, 1, 2, 4, 8, 16)), U8("udma", most=0x3F), U8("mdma", most=7),
            Flag("write_cache"), U16("cylinders"), U16("heads", 1, least=1, most=16),
            U16("sectors", 1, least=1, most=255), U64("total"), U8("sdma", most=7),
        ),
        U8("control"), U8("unit", most=1), Flag("pending"), U8("phase", only=(IDLE, HOST_READS, HOST_WRITES, DMA)),
        U32("position", most=BUFFER), U32("block_end", most=BUFFER), U32("filled", most=BUFFER), U32("left", most=65536),
        U32("block", 1, least=1, most=MOST_MULTIPLE), U64("lba", most=1 << 48), Flag("lba48"), Flag("media"),
        U8("bm_command", most=BM_START | BM_TO_MEMORY), U8("bm_status", most=0x67), U32("bm_table"),
        Flag("packet"), Flag("packet_dma"), Flag("listing"), U32("limit", most=0xFFFF),
        Rows("health", 2, Flag("enabled", True), Flag("saves", True), U32("tests", most=TESTS)), Bytes("test_log", 2 * TESTS),
        Flag("dma_waiting"), U8("dma_op", BLOCK_READ, only=(BLOCK_READ, BLOCK_WRITE, BLOCK_DISCARD)),
        Bytes("held", most=BUFFER),
        readers={1: lambda before: {**before, "drives": [{**drive, "sdma": 0} for drive in before["drives"]]}},
    )
    save, load_state = state.methods()[1:]

    def __init__(self, IrqLine irq, Dma dma):
        self.irq = irq
        self.dma = dma
        self.scatter = Scatter(dma, PIECES)
        self.backends = [None, None]
        self.packet_units = [None, None]
        self.dma_op = BLOCK_READ
        for n in range(2):                  # no division by what no disk has told
            self.drives[n].cylinders = self.drives[n].heads = self.drives[n].sectors = 1
        self.reset()

    def attach(self, u32 unit, BlockBackend backend, bytes identify, u32 cylinders, u32 heads, u32 sectors):
        """A disk on `unit`; `identify` is its 512 bytes of IDENTIFY data."""
        cdef Drive *d = &self.drives[unit & 1]
        self.backends[unit & 1] = backend
        self.backend[unit & 1] = <void *>backend
        memcpy(self.identify[unit & 1], <const u8 *>identify, 512)
        d.present = True
        d.total = backend.size // 512
        d.cylinders, d.heads, d.sectors = cylinders, heads, sectors
        d.write_cache = True
        self.healths[unit & 1].enabled = self.healths[unit & 1].saves = True
        self.reset()

    def attach_packet(self, u32 unit, PacketUnit packets, bytes identify):
        """A packet device on `unit`; `identify` is its 512 bytes of IDENTIFY PACKET data."""
        cdef Drive *d = &self.drives[unit & 1]
        self.backends[unit & 1] = packets.backend
        self.backend[unit & 1] = <void *>packets.backend
        self.packet_units[unit & 1] = packets
        self.packets[unit & 1] = <void *>packets
        memcpy(self.identify[unit & 1], <const u8 *>identify, 512)
        d.present = True
        self.reset()

    def reset(self):
        """Power-on and RESET#."""
        cdef u32 n
        with nogil:
            self.stop_io()
            for n in range(2):
                self.drives[n].udma = 1 << 5                   # UDMA 5 is what a PC finds selected
                self.drives[n].mdma = self.drives[n].sdma = 0
            self.control = 0
            self.soft_reset(False)
            self.bm_command = self.bm_status = 0
            self.bm_table = 0

    @property
    def health(self):
        return [{"enabled": h.enabled, "saves": h.saves, "tests": h.tests} for h in self.healths]

    @health.setter
    def health(self, rows):
        for n, row in enumerate(rows):
            self.healths[n].enabled, self.healths[n].saves, self.healths[n].tests = (
                row["enabled"], row["saves"], row["tests"],
            )

    @property
    def test_log(self):
        return cells(self, self.tested, 2 * TESTS)

    # --- commands -----------------------------------------------------------------------------------------

    cdef void command(self, u8 code) noexcept nogil:
        cdef Drive *d = self.drive()
        cdef u64 last
        if not d.present and not (code == DEVICE_DIAGNOSTIC and (self.drives[0].present or self.drives[1].present)):
            return
        if d.status & (BSY | DRQ) or block_settling(self.backend[self.unit]):
            if code != DEVICE_RESET or self.packets[self.unit] == NULL:
                return
        self.lower_irq()
        self.lba48 = False
        d.status = DRDY | DSC
        d.error = 0
        if self.packets[self.unit] != NULL and self.packet_command(code):
            return
        if code == IDENTIFY_DEVICE:
            memcpy(self.buffer, self.identify[self.unit], 512)
            self.buffer[59 * 2] = d.mult
            self.buffer[59 * 2 + 1] = 1 if d.mult else 0
            self.buffer[62 * 2 + 1] = d.sdma
            self.buffer[63 * 2 + 1] = d.mdma
            self.buffer[88 * 2 + 1] = d.udma
            self.buffer[54 * 2], self.buffer[54 * 2 + 1] = d.cylinders & 0xFF, d.cylinders >> 8
            self.buffer[55 * 2], self.buffer[56 * 2] = d.heads & 0xFF, d.sectors & 0xFF
            if not d.write_cache:
                self.buffer[85 * 2] &= ~0x20
            self.left, self.block, self.filled, self.position, self.media = 0, 1, 512, 0, False
            self.offer()
        elif code in (READ_SECTORS, READ_SECTORS_RETRY):
            self.start_pio(False, 1)
        elif code == READ_SECTORS_EXT:
            self.lba48 = True
            self.start_pio(False, 1)
        elif code == READ_MULTIPLE:
            self.start_pio(False, d.mult)
        elif code == READ_MULTIPLE_EXT:
            self.lba48 = True
            self.start_pio(False, d.mult)
        elif code in (WRITE_SECTORS, WRITE_SECTORS_RETRY, WRITE_VERIFY):
            self.start_pio(True, 1)
        elif code == WRITE_SECTORS_EXT:
            self.lba48 = True
            self.start_pio(True, 1)
        elif code == WRITE_MULTIPLE:
            self.start_pio(True, d.mult)
        elif code == WRITE_MULTIPLE_EXT:
            self.lba48 = True
            self.start_pio(True, d.mult)
        elif code in (READ_DMA, READ_DMA_RETRY):
            self.start_dma(BLOCK_READ)
        elif code == READ_DMA_EXT:
            self.lba48 = True
            self.start_dma(BLOCK_READ)
        elif code in (WRITE_DMA, WRITE_DMA_RETRY):
            self.start_dma(BLOCK_WRITE)
        elif code == WRITE_DMA_EXT:
            self.lba48 = True
            self.start_dma(BLOCK_WRITE)
        elif code == DATA_SET_MANAGEMENT:                       # only TRIM exists
            if d.feature == 1 and self.identify[self.unit][169 * 2] & 1:
                self.start_dma(BLOCK_DISCARD)                    # the high half of the count is not looked at: qemu-kvm
            else:
                self.abort()
        elif code in (READ_VERIFY, READ_VERIFY_RETRY, READ_VERIFY_EXT):
            self.lba48 = code == READ_VERIFY_EXT
            last = self.address()
            if self.check_range(last, self.count()):
                self.finish()
            else:
                self.abort()
        elif code in (FLUSH_CACHE, FLUSH_CACHE_EXT):
            self.start_flush()
        elif code == SECURITY_FREEZE_LOCK:                      # there is nothing to freeze; firmware gives it to every disk
            d.nsector = 0
            self.finish()
        elif code == SET_MULTIPLE_MODE:
            if d.nsector > MOST_MULTIPLE or d.nsector & (d.nsector - 1 if d.nsector else 0):
                self.abort()
            else:
                d.mult = d.nsector
                self.finish()
        elif code == DEVICE_PARAMETERS and d.nsector == 0:
            self.abort()
        elif code == DEVICE_PARAMETERS:
            d.heads = (d.select & 15) + 1
            d.sectors = d.nsector
            last = d.total // (<u64>d.heads * d.sectors)
            d.cylinders = <u16>(last if last < 16383 else 16383)
            self.finish()
        elif code in (READ_NATIVE_MAX, READ_NATIVE_MAX_EXT):
            self.lba48 = code == READ_NATIVE_MAX_EXT
            last = d.total - 1
            if not self.lba48 and last > 0xFFFFFFF:
                last = 0xFFFFFFF
            self.set_address(last)
            self.finish()
        elif code & 0xF0 == RECALIBRATE or code & 0xF0 == SEEK:
            self.finish()
        elif code == DEVICE_DIAGNOSTIC:
            self.unit = 0
            self.drives[0].select = self.drives[1].select = 0xA0
            self.signature(0, False)
            self.signature(1, False)
            self.drives[0].error = self.drives[1].error = 1
            if self.drives[0].present:
                self.drives[0].status = DRDY | DSC if self.packets[0] == NULL else 0
            if self.drives[1].present:
                self.drives[1].status = DRDY | DSC if self.packets[1] == NULL else 0
            self.phase = IDLE
            self.raise_irq()
        elif code == SET_FEATURES:
            self.set_features()
        elif code == SMART:
            self.smart()
        elif code in (CHECK_POWER_MODE, CHECK_POWER_MODE_OLD):  # active
            d.nsector = 0xFF
            self.finish()
        elif code in (STANDBY_IMMEDIATE, IDLE_IMMEDIATE, STANDBY, IDLE_COMMAND, SLEEP, STANDBY_IMMEDIATE_OLD,
                      IDLE_IMMEDIATE_OLD, STANDBY_OLD, IDLE_OLD, SLEEP_OLD):
            self.finish()                                      # nothing spins
            d.status = DRDY
        else:
            self.abort()

    cdef void smart(self) noexcept nogil:
        """What the disk tells of its health; the register of features says what is wanted."""
        cdef Drive *d = self.drive()
        cdef Health *health = &self.healths[self.unit]
        cdef u8 *kinds = self.tested[self.unit]
        cdef u8 what = d.feature
        if self.packets[self.unit] != NULL or d.lcyl != 0x4F or d.hcyl != 0xC2 or not health.enabled and what != 0xD8:
            self.abort()
            return
        if what == 0xD8 or what == 0xD9:
            health.enabled = what == 0xD8
        elif what == 0xD2 and d.sector in (0, 0xF1):
            health.saves = d.sector == 0xF1
        elif what == 0xD4:
            if not smart_test(health, kinds, d.sector):
                self.abort()
                return
        elif what == 0xD0 or what == 0xD1 or what == 0xD5 and d.sector in (1, 6):
            if what == 0xD0:
                smart_values(health, self.buffer)
            elif what == 0xD1:
                smart_thresholds(self.buffer)
            elif d.sector == 1:
                smart_errors(self.buffer)
            else:
                smart_tests(health, kinds, self.buffer)
            self.left, self.media, self.block = 0, False, 1
            self.position, self.filled = 0, 512
            self.offer()
            return
        elif what != 0xDA:                                      # its status: as good as the key that was given
            self.abort()
            return
        self.finish()

    cdef void set_features(self) noexcept nogil:
        cdef Drive *d = self.drive()
        cdef u8 mode = d.nsector & 7
        if d.feature == TRANSFER_MODE:
            if not (d.nsector >> 3 in (0, 1) or d.nsector >> 3 in (2, 4) and mode <= 2 or d.nsector >> 3 == 8 and mode <= 5):
                self.abort()
                return
            d.sdma = 1 << mode if d.nsector >> 3 == 2 else 0
            d.mdma = 1 << mode if d.nsector >> 3 == 4 else 0
            d.udma = 1 << mode if d.nsector >> 3 == 8 else 0
            self.finish()
        elif d.feature == ENABLE_WRITE_CACHE:
            d.write_cache = True
            self.finish()
        elif d.feature == DISABLE_WRITE_CACHE:
            d.write_cache = False
            self.start_flush()
        elif d.feature in (0xCC, 0x66, 0xAA, 0x55, 0x05, 0x85, 0x69, 0x67, 0x96, 0x9A, 0x42, 0xC2):
            self.finish()                                      # look-ahead, power-on defaults, APM, AAM
        else:
            self.abort()

    cdef bint packet_command(self, u8 code) noexcept nogil:
        """A command for a packet device; True when that was all. The rest are commands that disks have too."""
        cdef Drive *d = self.drive()
        if code == PACKET:
            self.start_packet()
        elif code == IDENTIFY_PACKET_DEVICE:
            memcpy(self.buffer, self.identify[self.unit], 512)
            self.buffer[62 * 2 + 1] = d.sdma
            self.buffer[63 * 2 + 1] = d.mdma
            self.buffer[88 * 2 + 1] = d.udma
            self.left, self.block, self.filled, self.position, self.media = 0, 1, 512, 0, False
            self.offer()
        elif code == DEVICE_RESET:                             # without an interrupt
            self.stop_io()
            self.signature(self.unit, False)
            packet_reset(self.packets[self.unit])
            d.status, d.error = 0, 1
        elif code in (IDENTIFY_DEVICE, READ_SECTORS):          # a disk's
            self.signature(self.unit, False)
            self.abort()
        elif code in (SET_FEATURES, DEVICE_DIAGNOSTIC, CHECK_POWER_MODE, CHECK_POWER_MODE_OLD, STANDBY_IMMEDIATE,
                      IDLE_IMMEDIATE, STANDBY, IDLE_COMMAND, SLEEP, STANDBY_IMMEDIATE_OLD, IDLE_IMMEDIATE_OLD,
                      STANDBY_OLD, IDLE_OLD, SLEEP_OLD):
            return False
        else:
            self.abort()
        return True

    # --- registers --------------------------------------------------------------------------------------

    cdef u64 read_register(self, u64 offset) noexcept nogil:
        cdef Drive *d = self.drive()
        cdef bint hob = (self.control & HOB) != 0
        cdef bint empty = not self.drives[0].present and not self.drives[1].present
        if offset == STATUS_COMMAND or offset == ALTERNATE_STATUS:
            if empty or not d.present:
                return 0
            if offset == STATUS_COMMAND:
                self.lower_irq()
            if block_settling(self.backend[self.unit]):
                return BSY                                     # what a reset has interrupted is not over yet
            return d.status
        if empty:
            return 0
        if offset == ERROR_FEATURES:
            if not d.present:
                return 0
            return d.hob_feature if hob else d.error
        if offset == SECTOR_COUNT:
            return d.hob_nsector if hob else d.nsector
        if offset == SECTOR_NUMBER:
            return d.hob_sector if hob else d.sector
        if offset == CYLINDER_LOW:
            return d.hob_lcyl if hob else d.lcyl
        if offset == CYLINDER_HIGH:
            return d.hob_hcyl if hob else d.hcyl
        return d.select

    cdef void write_register(self, u64 offset, u8 value) noexcept nogil:
        cdef u32 n
        cdef Drive *d
        self.control &= ~HOB
        if offset == STATUS_COMMAND:
            self.command(value)
            return
        if self.drive().status & (BSY | DRQ):                  # what a command needs of them it has read
            return
        if offset == DEVICE_HEAD:
            for n in range(2):
                self.drives[n].select = value | 0xA0
            self.unit = 1 if value & SLAVE else 0
            return
        for n in range(2):
            d = &self.drives[n]
            if offset == ERROR_FEATURES:
                d.hob_feature, d.feature = d.feature, value
            elif offset == SECTOR_COUNT:
                d.hob_nsector, d.nsector = d.nsector, value
            elif offset == SECTOR_NUMBER:
                d.hob_sector, d.sector = d.sector, value
            elif offset == CYLINDER_LOW:
                d.hob_lcyl, d.lcyl = d.lcyl, value
            elif offset == CYLINDER_HIGH:
                d.hob_hcyl, d.hcyl = d.hcyl, value

    cdef void write_control(self, u8 value) noexcept nogil:
        cdef u8 old = self.control
        cdef u32 n
        self.control = value
        if value & SRST and not old & SRST:
            self.stop_io()
            for n in range(2):
                self.drives[n].status = BSY | DSC
                self.drives[n].error = 1
        elif old & SRST and not value & SRST:
            self.soft_reset(True)
        self.drive_irq()

    # --- state ------------------------------------------------------------------------------------------

    @property
    def held(self):
        """What the buffer has of the transfer in progress."""
        return bytes(self.buffer[:self.holding(self.phase, self.filled, self.block_end)])

    @held.setter
    def held(self, bytes data):
        memcpy(self.buffer, <const u8 *>data, len(data))

    cdef u32 holding(self, int phase, u32 filled, u32 block_end) noexcept nogil:
        return filled if phase == HOST_READS else block_end if phase == HOST_WRITES else 0

    def check_state(self, values):
        """What the transfer in progress says of itself leads to no access outside the buffer or the disk."""
        if self.request != NULL:
            raise StateError("ATA: a request of this machine is under way")
        for n, saved in enumerate(values["drives"]):
            if saved["total"] != self.drives[n].total or saved["present"] != bool(self.drives[n].present):
                raise StateError("ATA: the disks are not those of the saved machine")
        phase, unit, lba, left = values["phase"], values["unit"], values["lba"], values["left"]
        position, block_end, filled = values["position"], values["block_end"], values["filled"]
        if values["packet"]:
            self.check_packet(values)
            return
        if block_end % 512 or filled % 512 or position > block_end:
            raise StateError("ATA: the buffer's ends are none of sectors")
        if len(values["held"]) != self.holding(phase, filled, block_end):
            raise StateError("ATA: the buffer is not whole")
        if phase == IDLE and not values["dma_waiting"]:
            return
        total = self.drives[<u32>unit].total
        if not self.drives[<u32>unit].present or values["dma_waiting"] != (phase == DMA):
            raise StateError("ATA: a transfer without its drive or its bus master")
        if phase == DMA and values["dma_op"] == BLOCK_DISCARD:
            if left * 512 > BUFFER:
                raise StateError("ATA: a list of ranges longer than its buffer")
            return
        if phase == HOST_READS:
            good = position < block_end <= filled and (filled // 512 <= lba <= total if values["media"] else not left)
        elif phase == HOST_WRITES:                              # what is beyond the disk's end is seen when it comes to it
            good = position < block_end and values["media"] and block_end // 512 <= left
        else:
            good = bool(left)
        if not good:
            raise StateError("ATA: a transfer outside its buffer or the disk")

    def check_packet(self, values):
        """The same of PACKET."""
        phase, unit, position = values["phase"], values["unit"], values["position"]
        block_end, filled = values["block_end"], values["filled"]
        packets = self.packet_units[unit]
        if packets is None or len(values["held"]) != self.holding(phase, filled, block_end):
            raise StateError("ATA: a packet for no packet device, or its buffer is not whole")
        fits = (values["lba"] + values["left"]) * 512 <= packets.backend.size and not values["lba"] % 4 | values["left"] % 4
        if phase == HOST_READS:
            good = position < block_end <= filled
        elif phase == HOST_WRITES:
            good = position < block_end <= (1024 if values["listing"] else PACKET_SIZE)
        else:
            good = phase == DMA and values["dma_waiting"] and values["packet_dma"] and values["dma_op"] == BLOCK_READ
            good = good and bool(values["left"] if values["media"] else filled) and not values["listing"]
        if not fits or not good or values["dma_waiting"] != (phase == DMA):
            raise StateError("ATA: a packet's transfer outside its buffer or the medium")

    def settle(self):
        self.drive_irq()
