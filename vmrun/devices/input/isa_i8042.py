"""i8042: the keyboard controller at its two ports, with two ISA interrupts and the A20 gate."""

from __future__ import annotations

from vmrun.bus.isa import IsaDevice
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.input.hands import KeyboardHands, MouseHands
from vmrun.devices.input.i8042 import I8042

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform


@register("i8042", description="PS/2 keyboard controller with keyboard and mouse")
class IsaI8042(IsaDevice):
    """The user's hands reach keyboard and mouse through the machine's InputRouter."""

    user_creatable = False
    resources = {"ports": [["iobase", 1], ["iobase", 1, 4]], "irqs": ["kbd-irq", "mouse-irq"], "dmas": []}

    iobase = Prop("uint16", 0x60, doc="data port; the command port is 4 above", max=0xFFFB)
    kbd_irq = named("kbd-irq", "uint8", 1, doc="ISA interrupt of the keyboard", max=15)
    mouse_irq = named("mouse-irq", "uint8", 12, doc="ISA interrupt of the mouse", max=15)
    extended_state = named(
        "extended-state", "bool", True, doc="how QEMU migrates a pending byte; no effect", visible=False,
        idle="QEMU's saved state alone has it",
    )
    kbd_throttle = named(
        "kbd-throttle", "bool", False, doc="QEMU's delay between key events; no effect",
        idle="keys come as fast as the guest takes them",
    )

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.a20 = self.add_output("a20")[0]

    def realize(self, platform: Platform) -> None:
        self.chip = I8042(self.isa_irq(self.kbd_irq), self.isa_irq(self.mouse_irq), self.a20, platform.timers)
        self.hands = (KeyboardHands(self.chip.keyboard), MouseHands(self.chip.mouse))
        for hand in self.hands:
            platform.input.add(hand)
        self.input = platform.input
        self.map_io(self.chip, self.iobase, 1, "i8042-data")
        self.map_io(self.chip.command_port, self.iobase + 4, 1, "i8042-cmd")

    def unrealize(self) -> None:
        super().unrealize()
        if self.chip is not None:
            for hand in self.hands:
                self.input.remove(hand)
            self.chip.detach()
