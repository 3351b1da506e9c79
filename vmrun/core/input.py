"""From the user's hands to the devices: keys by QEMU's names, movement, positions, buttons.

    router.add(sink)                    # a keyboard, mouse or tablet, at realize
    router.key("ret", True)             # a viewer, with the device lock held by nobody: the router takes it
    router.move(3, -1); router.position(0x4000, 0x7fff); router.button("left", True); router.sync()

An event goes to the sink that was activated last among those that take its kind, as qemu-kvm does it: a tablet that a
driver has just enabled takes over from the mouse.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.api import DeviceLock

BUTTONS = ("left", "middle", "right", "wheel-up", "wheel-down", "side", "extra", "wheel-left", "wheel-right")
AXIS_END = 0x7FFF  # positions run from 0 to this


class InputSink:
    """What a device that takes input offers. All methods are called with the device lock held.

    `kinds`: "key", "rel" (movement), "abs" (positions); buttons go with rel and abs. `title` is what a person
    reads in `info mice`.
    """

    kinds: frozenset[str] = frozenset()
    title = ""

    def key(self, qcode: str, down: bool) -> None:
        """A key by QEMU's name (QKeyCode). Unknown names are ignored."""

    def move(self, dx: int, dy: int) -> None:
        """Right and down are positive."""

    def position(self, x: int, y: int) -> None:
        """0 … AXIS_END on both axes."""

    def button(self, name: str, down: bool) -> None:
        """One of BUTTONS. A turn of the wheel is a press and a release."""

    def sync(self) -> None:
        """What came since the last call belongs together: send it."""

    def unrepeated(self) -> None:
        """The key that is down now does not repeat, however long it stays down."""

    def leds(self) -> int | None:
        """The lamps that the guest has lit: bit 0 scroll lock, 1 num lock, 2 caps lock; None without any."""
        return None

    def hungry(self) -> bool:
        """True when the guest has read what came before, so that another key is sure to arrive."""
        return True


class InputRouter:
    """One for a machine. Everything runs on the main thread."""

    def __init__(self, lock: DeviceLock) -> None:
        self.lock = lock
        self.sinks: list[InputSink] = []  # the one activated last comes first
        self.held: dict[str, None] = {}  # keys that are down, in the order they were pressed
        self.buttons: dict[str, None] = {}
        self._touched: list[InputSink] = []
        self._at = (0, 0)

    def add(self, sink: InputSink) -> None:
        """A new device takes its turn behind those that are there."""
        self.sinks.append(sink)

    def remove(self, sink: InputSink) -> None:
        if sink in self.sinks:
            self.sinks.remove(sink)

    def activate(self, sink: InputSink) -> None:
        """From now on it comes first (a driver enabled it, or the user chose it)."""
        self.sinks.remove(sink)
        self.sinks.insert(0, sink)

    def taker(self, kind: str) -> InputSink | None:
        """Who gets events of that kind now."""
        return next((sink for sink in self.sinks if kind in sink.kinds), None)

    @property
    def absolute(self) -> bool:
        """True when positions are wanted rather than movement: the pointer's device that comes first says so."""
        found = next((sink for sink in self.sinks if sink.kinds & {"rel", "abs"}), None)
        return found is not None and "abs" in found.kinds

    # --- events -----------------------------------------------------------------------------------------

    def key(self, qcode: str, down: bool) -> None:
        if down:
            self.held[qcode] = None
        else:
            self.held.pop(qcode, None)
        self._give("key", "key", qcode, down)

    def unrepeated(self) -> None:
        """The key pressed last does not repeat: whoever pressed it lets go of it soon, be the host busy or not."""
        self._give("key", "unrepeated")

    def move(self, dx: int, dy: int) -> None:
        self._give("rel", "move", dx, dy)

    def position(self, x: int, y: int) -> None:
        """Nothing happens while no device wants positions."""
        self._at = (min(max(x, 0), AXIS_END), min(max(y, 0), AXIS_END))
        self._give("abs", "position", *self._at)

    def place(self, axis: str, value: int) -> None:
        """A position on one axis, "x" or "y"; the other stays."""
        x, y = (value, self._at[1]) if axis == "x" else (self._at[0], value)
        self.position(x, y)

    def button(self, name: str, down: bool) -> None:
        if name not in BUTTONS:
            raise ValueError(f"no button is called {name}: {', '.join(BUTTONS)}")
        if down:
            self.buttons[name] = None
        else:
            self.buttons.pop(name, None)
        self._give("abs" if self.absolute else "rel", "button", name, down)

    def sync(self) -> None:
        """Send what came since the last call."""
        with self.lock:
            for sink in self._touched:
                sink.sync()
        self._touched.clear()

    def release_all(self) -> None:
        """Let go of all keys and buttons (a viewer went away with them held down)."""
        for qcode in reversed(list(self.held)):
            self.key(qcode, False)
        for name in list(self.buttons):
            self.button(name, False)
        self.sync()

    def leds(self) -> int | None:
        """Those of the keyboard that gets the keys; None without one."""
        sink = self.taker("key")
        if sink is None:
            return None
        with self.lock:
            return sink.leds()

    def hungry(self) -> bool:
        """True when another key is sure to arrive; True as well when nobody takes keys."""
        sink = self.taker("key")
        if sink is None:
            return True
        with self.lock:
            return sink.hungry()

    def _give(self, kind: str, method: str, *values: Any) -> None:
        sink = self.taker(kind)
        if sink is None:
            return
        with self.lock:
            getattr(sink, method)(*values)
        if sink not in self._touched:
            self._touched.append(sink)
