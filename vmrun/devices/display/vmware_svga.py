"""vmware-svga: VMware's SVGA II, 2D: a VGA until a driver enables the picture that it describes by registers.

    BAR 0  ports: index at 0, value at 1     BAR 1  video memory     BAR 2  the ring of commands

Ref: as svga_fifo.pyx. What registers hold at power-on, and what they take, is QEMU's: one picture, 32 bits a pixel, at
most 2368 by 1770; a reset sets all of them back.
Departures: what is written to video memory is shown without an UPDATE; a command that is not whole yet, and the words
behind the writer, stay in the ring; BUSY stays set while there is work; a pointer is offered whoever looks.
"""

from __future__ import annotations

from accel.api import PyIoRegion
from accel.ram import RamBlock
from accel.space import Region

from vmrun.bus.pci import PciDevice
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import U32, Bytes, Flag, Part
from vmrun.core.surface import Scanout
from vmrun.devices.display.either import EitherScanout, EitherText
from vmrun.devices.display.legacy_vga import LegacyVga, video_memory
from vmrun.devices.display.linear_scanout import LinearScanout
from vmrun.devices.display.pointer import HardwarePointer
from vmrun.devices.display.svga_fifo import SHAPE_SIZE, SvgaFifo
from vmrun.devices.display.textscreen import TextScreen
from vmrun.devices.display.vga import Vga
from vmrun.devices.display.vga_scanout import VgaScanout
from vmrun.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.ram import DirtyLog

    from vmrun.core.console import Console
    from vmrun.core.platform import Platform
    from vmrun.core.surface import Surface

INDEX_PORT, VALUE_PORT, BIOS_PORT, PORTS = 0, 1, 2, 16
ID_0, ID_1, ID_2 = 0x90000000, 0x90000001, 0x90000002
(ID, ENABLE, WIDTH, HEIGHT, MAX_WIDTH, MAX_HEIGHT, DEPTH, BITS_PER_PIXEL, PSEUDOCOLOR, RED_MASK, GREEN_MASK, BLUE_MASK,
 BYTES_PER_LINE, FB_START, FB_OFFSET, VRAM_SIZE, FB_SIZE, CAPABILITIES, MEM_START, MEM_SIZE, CONFIG_DONE, SYNC, BUSY,
 GUEST_ID, CURSOR_ID, CURSOR_X, CURSOR_Y, CURSOR_ON, HOST_BITS_PER_PIXEL, SCRATCH_SIZE) = range(30)  # fmt: skip
NUM_DISPLAYS, PITCHLOCK = 31, 32
SCRATCH, SCRATCH_WORDS = 1024 + 768, 0x8000  # behind the palette
RECT_FILL, RECT_COPY, CURSOR, CURSOR_BYPASS, CURSOR_BYPASS_2 = 0x01, 0x02, 0x20, 0x40, 0x80
OFFERED, HAS_PITCHLOCK = RECT_FILL | RECT_COPY | CURSOR | CURSOR_BYPASS | CURSOR_BYPASS_2, 0x20000
HIDE, SHOW = 0, 1
PLAIN = {GUEST_ID: "guest", CURSOR_ID: "cursor_id", CURSOR_X: "cursor_x", CURSOR_Y: "cursor_y"}  # attributes
LARGEST, FIRST = (2368, 1770), (640, 480)
BITS = 32
RING_SIZE = 0x10000
TURNS = 16  # at the ring, of whoever looks
BIOS_ANSWER = 0xCAFE  # QEMU's


class SvgaScreen(Scanout):
    """The picture that the registers describe."""

    def __init__(self, card: VmwareSvga) -> None:
        self.card = card
        self.linear = LinearScanout(card.vram, card.platform.lock, card.mode)

    @property
    def active(self) -> bool:
        return self.card.running

    def update(self, surface: Surface, full: bool, log: DirtyLog | None = None) -> None:
        """See Scanout.update. What waits in the ring is done first, in turns; more than that is for the next look."""
        for _ in range(TURNS):
            with self.card.platform.lock:
                if self.card.work():
                    break
        self.linear.update(surface, full, log)


@register("vmware-svga", description="VMware SVGA II display")
class VmwareSvga(LegacyVga, HardwarePointer, PciDevice):
    """Owns `vga` and `fifo` (the chips), `console` (what either shows)."""

    vram: RamBlock
    console: Console
    selected: int
    interface: int  # the version of the registers that the driver chose
    guest: int
    cursor_id: int
    cursor_x: int
    cursor_y: int
    enabled: bool
    configured: bool
    cursor_on: bool
    busy: bool
    vendor_id = subsystem_vendor_id = 0x15AD
    device_id = subsystem_id = 0x0405
    class_code = 0x030000
    hotpluggable = False
    state = PciDevice.state.extend(
        "vmware-svga", 1, Part("vga"), U32("selected"), U32("interface", ID_2), U32("width", most=LARGEST[0]),
        U32("height", most=LARGEST[1]), U32("locked", most=0xFFFC), U32("guest"), U32("cursor_id"), U32("cursor_x"),
        U32("cursor_y"), Flag("enabled"), Flag("configured"), Flag("cursor_on"), Flag("busy"),
        Bytes("scratch", 4 * SCRATCH_WORDS), Bytes("shape", most=SHAPE_SIZE),
    )  # fmt: skip

    vgamem_mb = Prop("uint32", 16, "video memory", unit="MiB", min=1, max=256)
    romfile = Prop("str", "vgabios-vmware.bin", "video BIOS; empty for none")
    rombar = Prop("uint32", 1, "0: the video BIOS is no ROM BAR but a file that the firmware finds", max=1)
    vmwgfx = Prop("bool", False, "registers PITCHLOCK and NUM_DISPLAYS, which Linux's vmwgfx wants and QEMU has not")
    global_vmstate = named("global-vmstate", "bool", False, "naming of saved state in QEMU", visible=False,
        idle="QEMU's saved state alone has it",
    )

    def pci_realize(self, platform: Platform) -> None:
        self.config.set_byte(0x0D, 0x40)  # latency timer
        self.vram = video_memory(self.name, self.vgamem_mb)
        ring = RamBlock(f"{self.name}.fifo", RING_SIZE)
        self.ram_blocks += [self.vram, ring]
        self.vga, self.fifo = Vga(self.vram, platform.virtual), SvgaFifo(self.vram, ring)
        self.waiting_pointer = []
        self.width = self.height = self.locked = 0
        self.scratch = bytearray(4 * SCRATCH_WORDS)
        self.enabled = self.configured = False
        ports = PyIoRegion("vmware-svga", self._read, self._write, 1, 4, 4)
        self.add_bar(0, Region.device("vmware-svga", ports, PORTS), PORTS, "io")
        memory = Region.ram("vga.vram", self.vram)
        self.add_bar(1, memory, self.vram.size, "mem32-pref")
        self.add_bar(2, Region.ram("vmware-svga.fifo", ring), RING_SIZE, "mem32-pref")
        screen = SvgaScreen(self)
        either = EitherScanout(VgaScanout(self.vga, platform.lock), screen)
        text = EitherText(TextScreen(self.vga, platform.lock), screen)
        self.console = platform.add_console(self, either, text=text)
        self.map_legacy(platform)
        self.map_linear(platform, memory)
        self.vga.reset()

    # --- registers: the device lock is held ---------------------------------------------------------------------

    def _read(self, offset: int, size: int) -> int:
        if size != 4:
            return 0
        if offset == INDEX_PORT:
            return self.selected
        if offset == VALUE_PORT:
            return self._register(self.selected)
        return BIOS_ANSWER if offset == BIOS_PORT else 0xFFFFFFFF

    def _write(self, offset: int, size: int, value: int) -> None:
        if size != 4:
            return
        if offset == INDEX_PORT:
            self.selected = value
        elif offset == VALUE_PORT:
            self._set(self.selected, value)

    def _register(self, index: int) -> int:
        if SCRATCH <= index < SCRATCH + SCRATCH_WORDS:
            at = 4 * (index - SCRATCH)
            return int.from_bytes(self.scratch[at : at + 4], "little")
        if index == BUSY and self.busy:
            self.work()
        width, height = self.size
        found = {
            ID: self.interface, ENABLE: int(self.enabled), WIDTH: width, HEIGHT: height, MAX_WIDTH: LARGEST[0],
            MAX_HEIGHT: LARGEST[1], DEPTH: 24, BITS_PER_PIXEL: BITS, RED_MASK: 0xFF0000, GREEN_MASK: 0xFF00,
            BLUE_MASK: 0xFF, BYTES_PER_LINE: self.pitch,
            FB_START: self._address(1), VRAM_SIZE: self.vram.size, FB_SIZE: self.vram.size,
            CAPABILITIES: OFFERED | (HAS_PITCHLOCK if self.vmwgfx else 0), PITCHLOCK: self.locked,
            NUM_DISPLAYS: int(self.vmwgfx),
            MEM_START: self._address(2), MEM_SIZE: RING_SIZE,
            CONFIG_DONE: int(self.configured), SYNC: int(self.busy), BUSY: int(self.busy),
            GUEST_ID: self.guest, CURSOR_ID: self.cursor_id, CURSOR_X: self.cursor_x, CURSOR_Y: self.cursor_y,
            CURSOR_ON: int(self.cursor_on), HOST_BITS_PER_PIXEL: BITS, SCRATCH_SIZE: SCRATCH_WORDS,
        }  # fmt: skip
        return found.get(index, 0)

    def _set(self, index: int, value: int) -> None:
        if SCRATCH <= index < SCRATCH + SCRATCH_WORDS:
            at = 4 * (index - SCRATCH)
            self.scratch[at : at + 4] = value.to_bytes(4, "little")
        elif index == ID:
            if value in (ID_0, ID_1, ID_2):
                self.interface = value
        elif index == ENABLE:
            self.enabled = bool(value)
        elif index == WIDTH and value <= LARGEST[0]:
            self.width = value
        elif index == HEIGHT and value <= LARGEST[1]:
            self.height = value
        elif index == BITS_PER_PIXEL and value != BITS:
            self.configured = False  # the VGA is shown
        elif index == PITCHLOCK and self.vmwgfx:
            self.locked = value & 0xFFFC  # whole pixels
        elif index == CONFIG_DONE:
            self.configured = bool(value)
        elif index == SYNC:
            self.busy = True
            self.work()
        elif index in PLAIN:
            setattr(self, PLAIN[index], value)
        elif index == CURSOR_ON:
            self.cursor_on = value == SHOW or self.cursor_on and value != HIDE
            self.pointer_changed(True, None, self._where())
        if not self.running:
            self.fifo.finish()  # before the driver lays the ring anew
        self._derive()

    def _derive(self) -> None:
        self.fifo.width, self.fifo.height = self.size
        self.fifo.pitch = self.pitch

    def _address(self, bar: int) -> int:
        return int(self.config.get(0x10 + 4 * bar, 4)) & ~0xF

    def _where(self) -> tuple[int, int] | None:
        return (self.cursor_x, self.cursor_y) if self.cursor_on else None

    # --- the picture ----------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """The driver has the screen."""
        return bool(self.enabled and self.configured)

    @property
    def size(self) -> tuple[int, int]:
        return self.width or FIRST[0], self.height or FIRST[1]

    @property
    def pitch(self) -> int:
        """Bytes from line to line."""
        return max(self.locked, self.size[0] * BITS // 8)

    def mode(self) -> tuple[int, int, int, int, int, bool]:
        """What is shown, for the scanout."""
        width, height = self.size
        return width, height, BITS // 8, self.pitch, 0, False

    def work(self) -> bool:
        """Do what is in the ring, or a part of it; True when nothing is left."""
        done = not self.running or bool(self.fifo.run())
        if done:
            self.busy = False
        if self.fifo.defined:
            self.fifo.defined = False
            self.pointer_changed(False, self.fifo.pointer(), self._where())
        return done

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> bytes:
        data: bytes = self.fifo.shape
        return data

    @shape.setter
    def shape(self, data: bytes) -> None:
        self.fifo.shape = data

    def check_state(self, values: dict[str, Any]) -> None:
        if values["interface"] not in (ID_0, ID_1, ID_2):
            raise StateError(f"vmware-svga: {values['interface']:#x} is no version of its registers")
        if not self.fifo.check_shape(values["shape"]):
            raise StateError("vmware-svga: a pointer that cannot be")

    def before_save(self) -> None:
        super().before_save()
        self.fifo.finish()

    def settle(self) -> None:
        super().settle()
        self.fifo.forget()
        self._derive()

    def unrealize(self) -> None:
        self.platform.remove_console(self.console)
        super().unrealize()
