"""The user's hands on the PS/2 keyboard and mouse: input sinks over the chips (vmrun.core.input)."""

from __future__ import annotations

from vmrun.core.input import InputSink
from vmrun.devices.input.keycodes import KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.devices.input.ps2kbd import Ps2Keyboard
    from vmrun.devices.input.ps2mouse import Ps2Mouse

MOUSE_BITS = {"left": 1, "right": 2, "middle": 4, "side": 8, "extra": 16}
WHEEL = {"wheel-up": -1, "wheel-down": 1}


class KeyboardHands(InputSink):
    kinds = frozenset(("key",))
    title = "QEMU PS/2 Keyboard"

    def __init__(self, keyboard: Ps2Keyboard) -> None:
        self.keyboard = keyboard

    def key(self, qcode: str, down: bool) -> None:
        if qcode in KEYS:
            self.keyboard.key(qcode, down)

    def unrepeated(self) -> None:
        self.keyboard.unrepeated()

    def leds(self) -> int | None:
        return int(self.keyboard.leds)

    def hungry(self) -> bool:
        return not self.keyboard.waiting


class MouseHands(InputSink):
    """Movement adds up until `sync`, which makes one packet of it."""

    kinds = frozenset(("rel",))
    title = "QEMU PS/2 Mouse"

    def __init__(self, mouse: Ps2Mouse) -> None:
        self.mouse = mouse
        self.dx = self.dy = self.dz = self.buttons = 0

    def move(self, dx: int, dy: int) -> None:
        self.dx += dx
        self.dy += dy

    def button(self, name: str, down: bool) -> None:
        if name in WHEEL:
            self.dz += WHEEL[name] if down else 0
        elif name in MOUSE_BITS:
            bit = MOUSE_BITS[name]
            self.buttons = self.buttons | bit if down else self.buttons & ~bit

    def sync(self) -> None:
        far = 1 << 20
        dx, dy, dz = (min(max(value, -far), far) for value in (self.dx, self.dy, self.dz))
        self.dx = self.dy = self.dz = 0
        self.mouse.move(dx, dy, dz, self.buttons)
