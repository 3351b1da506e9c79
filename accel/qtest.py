"""No processor at all: a test or another program drives ports, memory, interrupts and the clock.

Devices of vmrun's own stand in for everything that another accelerator would have inside.
"""

from __future__ import annotations

from accel.accelerator import Accelerator
from accel.api import IrqSink, PyIrqSink
from accel.run import CpuThread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from accel.run import IntAck


class QtestAccelerator(Accelerator):
    """`pins` holds the level of each processor input; `ack()` is the processor's acknowledge cycle."""

    name = "qtest"

    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self.pins: dict[str, int] = {}
        self.source: IntAck | None = None

    def cpu_input(self, name: str) -> IrqSink:
        def level(n: int, value: int) -> None:
            self.pins[name] = value

        self.pins[name] = 0
        return PyIrqSink(level)

    def set_int_ack(self, source: IntAck) -> None:
        self.source = source

    def create_vcpu(self, index: int, apic_id: int, cpuid: list[dict[str, int]]) -> CpuThread:
        return CpuThread(self.control, index)  # never launched

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass
