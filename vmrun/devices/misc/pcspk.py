"""Port 61h: the speaker, the gate of the timer's channel 2, its output and the refresh toggle.

Ref: Intel 82371SB PIIX3 (290550) 2.5.5, NMISC. Not modelled: sound (it comes with the sound cards), NMI sources.
"""

from __future__ import annotations

from accel.api import PyIoRegion

from vmrun.bus.isa import IsaDevice
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import U8, Table
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

GATE2, SPEAKER, REFRESH, OUT2 = 0x01, 0x02, 0x10, 0x20


@register("isa-pcspk", description="PC speaker and timer gate at port 61h")
class PcSpeaker(IsaDevice):
    user_creatable = False
    resources = {"ports": [["iobase", 1]]}

    state = Table("pcspk", 1, U8("speaker", only=(0, SPEAKER)), U8("refresh", only=(0, REFRESH)))

    iobase = Prop("uint32", 0x61, "port", max=0xFFFF)
    pit = Prop("link", "pit", "the timer whose channel 2 it gates", visible=False)
    audiodev = Prop("str", "", "where the sound goes; not modelled yet", visible=False)
    migrate = Prop(
        "bool", True, "saved with the machine in QEMU", visible=False, idle="QEMU's saved state alone has it",
    )

    def realize(self, platform: Platform) -> None:
        if self.audiodev:
            raise BuildError(f"sound is not modelled yet: nothing plays on audiodev '{self.audiodev}'")
        self.timer: Any = platform.device(self.pit)
        self.speaker = 0
        self.refresh = 0
        self.map_io(PyIoRegion("pcspk", self._read, self._write, 1, 1), self.iobase, 1)

    def _read(self, offset: int, size: int) -> int:
        # Each look finds the refresh request toggled: software only waits for it to change.
        self.refresh ^= REFRESH
        gate = GATE2 if self.timer.get_gate(2) else 0
        return gate | self.speaker | self.refresh | (OUT2 if self.timer.get_out(2) else 0)

    def _write(self, offset: int, size: int, value: int) -> None:
        self.speaker = value & SPEAKER
        self.timer.set_gate(2, value & GATE2)
