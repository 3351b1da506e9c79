"""vmmouse: VMware's mouse, which gives positions, behind the backdoor port (vmport).

Ref: open-vm-tools, vmmouse_defs.h and vmmouse_proto.h; Linux, drivers/input/mouse/vmmouse.c. A driver that has asked
for positions gets four words for each movement from the port; a packet of the PS/2 mouse, which it ignores, is its
interrupt.
Not modelled: restriction of the port to the kernel (unknown commands answer as such), more than one driver.
"""

from __future__ import annotations

import struct

from vmrun.bus.isa import IsaDevice
from vmrun.core.input import InputSink
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import U16, Bytes, Flag, Table
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

DATA, STATUS, COMMAND = 39, 40, 41  # numbers of the backdoor's commands
READ_ID, DISABLE, RELATIVE, ABSOLUTE = 0x45414552, 0xF5, 0x4C455252, 0x53424152
VERSION = 0x3442554A
OFF = 0xFFFF  # the status of a mouse that no driver has
ROOM, WORD = 1024, 4  # words that may wait, their size
MOST = 6  # words at once: the registers below
REGISTERS = ("eax", "ebx", "ecx", "edx", "esi", "edi")
BUTTONS = {"left": 0x20, "right": 0x10, "middle": 0x08}
MOVED = 0x10000  # with the buttons: what follows is movement
WHEEL = {"wheel-up": -1, "wheel-down": 1}
FAR = 1 << 20


class Hand(InputSink):
    """The pointer, as long as a driver wants it from here."""

    title = "vmmouse"

    def __init__(self, mouse: VmMouse) -> None:
        self.mouse = mouse
        self.at = (0, 0)
        self.moved = (0, 0)
        self.wheel = self.buttons = 0

    @property
    def kinds(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset(("abs",) if self.mouse.absolute else ("rel",))

    def position(self, x: int, y: int) -> None:
        self.at = (x, y)

    def move(self, dx: int, dy: int) -> None:
        self.moved = tuple(min(max(a + b, -FAR), FAR) for a, b in zip(self.moved, (dx, dy), strict=True))  # type: ignore

    def button(self, name: str, down: bool) -> None:
        bit = BUTTONS.get(name, 0)
        self.buttons = self.buttons | bit if down else self.buttons & ~bit
        self.wheel += WHEEL.get(name, 0) if down else 0

    def sync(self) -> None:
        if self.mouse.absolute:
            self.mouse.put(self.buttons, self.at[0] << 1, self.at[1] << 1, self.wheel)
        else:
            self.mouse.put(self.buttons | MOVED, *self.moved, self.wheel)
        self.moved, self.wheel = (0, 0), 0


@register("vmmouse", description="VMware mouse with positions")
class VmMouse(IsaDevice):
    user_creatable = False
    resources: dict[str, Any] = {"ports": [], "irqs": [], "dmas": []}

    state = Table("vmmouse", 1, U16("status", OFF), Flag("absolute"), Flag("wanted"), Bytes("queue", most=ROOM * WORD))

    i8042 = Prop("link", "i8042", "whose mouse interrupts for it", visible=False)
    vmport = Prop("str", "vmport", "the port that it is behind; without one nobody finds it", visible=False)

    def realize(self, platform: Platform) -> None:
        self.input = platform.input
        self.status, self.absolute, self.wanted, self.queue = OFF, False, False, b""
        self.hand = Hand(self)
        self.chip: Any = platform.device(self.i8042).chip
        try:
            port: Any = platform.device(self.vmport)
        except BuildError:
            if self.vmport != "vmport":
                raise
            return  # a machine without the port (`remove: [vmport]`)
        port.commands |= {DATA: self.data, STATUS: self.tell, COMMAND: self.command}

    def unrealize(self) -> None:
        self._leave()
        super().unrealize()

    # --- commands: the processor's registers in and out, EAX returned -----------------------------------------

    def tell(self, registers: Any) -> int:
        return self.status << 16 | len(self.queue) // WORD

    def command(self, registers: Any) -> int:
        word = registers["ebx"]
        if word == DISABLE:
            self._off()
        elif word == READ_ID:
            if len(self.queue) < ROOM * WORD:
                self.queue += struct.pack("<I", VERSION)
                self.status = 0
        elif word in (RELATIVE, ABSOLUTE):
            self.absolute, self.wanted = word == ABSOLUTE, True
            self.settle()
        return int(registers["eax"])

    def data(self, registers: Any) -> int:
        """The number of words in EBX; a driver that asks for more than there are is out of step, and is told so."""
        count = registers["ebx"]
        if not 0 < count <= min(MOST, len(self.queue) // WORD):
            self._off()
            return int(registers["eax"])
        words = struct.unpack(f"<{count}I", self.queue[: count * WORD])
        self.queue = self.queue[count * WORD :]
        for name, word in zip(REGISTERS[1:], words[1:], strict=False):
            registers[name] = word
        return int(words[0])

    # --- the user -----------------------------------------------------------------------------------------------

    def put(self, buttons: int, x: int, y: int, wheel: int) -> None:
        if len(self.queue) + 4 * WORD > ROOM * WORD:
            return
        words = (value & 0xFFFFFFFF for value in (buttons, x, y, wheel))
        self.queue += struct.pack("<4I", *words)
        self.chip.mouse.move(1, 0, 0, 0)

    def _off(self) -> None:
        self.status, self.wanted = OFF, False
        self.settle()

    def _leave(self) -> None:
        self.input.remove(self.hand)

    def settle(self) -> None:
        """The pointer is ours while a driver wants it."""
        self._leave()
        if self.wanted and self.status != OFF:
            self.input.add(self.hand)
            self.input.activate(self.hand)
