"""i6300esb: the watchdog of Intel's 6300ESB, with two timers one after the other.

Ref: Intel 6300ESB I/O Controller Hub data sheet, 300641, chapter 16.
Not modelled: the interrupt between the stages, which QEMU has not either; the WDT_TOUT# pin.
Departures: the reboot flag is bit 9 of the reload register and bit 12 too, where Linux looks for it; QEMU has both. The
registers in configuration space are there for accesses of any size; QEMU's are for those of the data sheet's.
"""

from __future__ import annotations

from accel.api import Action, PyIoRegion
from accel.clock import PyTimer

from vmrun.bus.pci import PciDevice
from vmrun.core.registry import register
from vmrun.core.state import KEEP, U8, U32, Deadline, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

CONFIG, LOCK = 0x60, 0x68  # in configuration space
INTERRUPT_TYPE, FREQUENCY, NO_OUTPUT = 0x03, 0x04, 0x20  # of CONFIG
LOCKED, ENABLE, FREE_RUNNING = 1, 2, 4  # of LOCK
PRELOAD_1, PRELOAD_2, RELOAD = 0, 4, 12  # in the BAR
RELOADS, TIMED_OUT, TIMED_OUT_LINUX = 0x100, 0x200, 0x1000  # of RELOAD
UNLOCK_1, UNLOCK_2 = 0x80, 0x86
MOST = 0xFFFFF
PCI_CLOCK = 30  # ns
SLOW, FAST = 15, 5  # a tick is 2^15 or 2^5 clocks: about 1 ms or 1 us


@register("i6300esb", description="watchdog (PCI)")
class I6300esb(PciDevice):
    vendor_id = 0x8086
    device_id = 0x25AB
    class_code = 0x088000

    state = PciDevice.state.extend(
        "i6300esb", 1,
        U32("preload_1", MOST, most=MOST), U32("preload_2", MOST, most=MOST), U8("stage", 1, least=1, most=2),
        U8("unlock", most=2), Flag("timed_out", KEEP), Deadline("timer"),
    )  # fmt: skip

    def pci_realize(self, platform: Platform) -> None:
        self.preload_1 = self.preload_2 = MOST
        self.stage, self.unlock, self.timed_out = 1, 0, False
        self.timer = PyTimer(platform.timers, self._ran_out)
        self.add_bar(0, PyIoRegion("i6300esb", self._read, self._write, 1, 4), 16, "mem32")
        self.config.allow(CONFIG, 2, INTERRUPT_TYPE | FREQUENCY | NO_OUTPUT)
        self.config.allow(LOCK, 1, LOCKED | ENABLE | FREE_RUNNING)
        self.config.watch(LOCK, 1)

    def unrealize(self) -> None:
        self.timer.stop()
        super().unrealize()

    def pci_reset(self) -> None:
        self.config.set_word(CONFIG, 0)
        self.config.set_byte(LOCK, 0)

    def _clear(self) -> None:
        """It fired: all but what configuration space has of every function begins anew."""
        self.pci_reset()
        self.preload_1 = self.preload_2 = MOST
        self.stage, self.unlock = 1, 0
        self._lock()

    def settle(self) -> None:
        super().settle()
        self._lock()

    def _lock(self) -> None:
        """Once locked it can be neither stopped nor unlocked, until the next reset."""
        locked = self.config.get(LOCK, 1) & LOCKED
        self.config.allow(LOCK, 1, 0 if locked else LOCKED | ENABLE | FREE_RUNNING)

    def config_written(self, offset: int, size: int) -> None:
        if not offset <= LOCK < offset + size:
            return
        self._lock()
        if not self.config.get(LOCK, 1) & ENABLE:
            self.timer.stop()
        elif self.timer.deadline < 0:
            self._start(1)

    # --- registers ------------------------------------------------------------------------------------------

    def _read(self, offset: int, size: int) -> int:
        return TIMED_OUT | TIMED_OUT_LINUX if offset == RELOAD and size == 2 and self.timed_out else 0

    def _write(self, offset: int, size: int, value: int) -> None:
        """What changes something comes after 80h and 86h, each time."""
        if offset == RELOAD and value == UNLOCK_1:
            self.unlock = 1
        elif offset == RELOAD and value == UNLOCK_2 and self.unlock == 1:
            self.unlock = 2
        elif self.unlock == 2 and size > 1:
            self.unlock = 0
            if offset == RELOAD and size == 2:
                if value & RELOADS:
                    self._start(1)
                if value & (TIMED_OUT | TIMED_OUT_LINUX):
                    self.timed_out = False
            elif offset == PRELOAD_1 and size == 4:
                self.preload_1 = value & MOST
            elif offset == PRELOAD_2 and size == 4:
                self.preload_2 = value & MOST

    # --- time -----------------------------------------------------------------------------------------------

    def _start(self, stage: int) -> None:
        if not self.config.get(LOCK, 1) & ENABLE:
            return
        self.stage = stage
        ticks = self.preload_1 if stage == 1 else self.preload_2
        clocks = ticks << (FAST if self.config.get(CONFIG, 2) & FREQUENCY else SLOW)
        self.timer.schedule(self.platform.virtual.time() + max(clocks * PCI_CLOCK, 1))

    def _ran_out(self) -> None:
        if self.stage == 1:
            self._start(2)
            return
        if not self.config.get(CONFIG, 2) & NO_OUTPUT:
            self.timed_out = True
            self.platform.request(Action.WATCHDOG)
            self._clear()
        elif self.config.get(LOCK, 1) & FREE_RUNNING:
            self._start(1)
