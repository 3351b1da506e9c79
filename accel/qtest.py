"""No processor at all: a test or another program drives ports, memory, interrupts and the clock.

Devices of vmrun's own stand in for everything that another accelerator would have inside: the interrupt controllers,
the timer, and a local APIC for each processor. Virtual time stands still until somebody moves it.
"""

from __future__ import annotations

from accel.accelerator import Accelerator
from accel.api import IrqSink, PyIrqSink
from accel.clock import SteppedClock
from accel.run import CpuThread, MsiSink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from accel.clock import Clock, TimerQueue
    from accel.cpuport import InterruptSource
    from accel.run import IntAck


class QtestAccelerator(Accelerator):
    """`pins` holds the level of each processor input; `source` answers the processor's acknowledge cycle."""

    name = "qtest"
    own_apic = True

    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self.pins: dict[str, int] = {}
        self.source: IntAck | None = None
        self.stepped = SteppedClock()
        self.lint: IrqSink | None = None
        self.bus: MsiSink | None = None

    # --- processors -----------------------------------------------------------------------------------------

    def create_vcpu(self, index: int, apic_id: int, cpuid: list[dict[str, int]]) -> CpuThread:
        return CpuThread(self.control, index)  # never launched

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass

    # --- interrupts -----------------------------------------------------------------------------------------

    def cpu_input(self, name: str) -> IrqSink:
        def level(n: int, value: int) -> None:
            self.pins[name] = value
            if name == "intr" and self.lint is not None:  # the 8259A's output is LINT0 of the first processor
                self.lint.drive(0, value)

        self.pins[name] = 0
        return PyIrqSink(level)

    def set_int_ack(self, source: IntAck) -> None:
        self.source = source

    def set_message_bus(self, bus: MsiSink) -> None:
        self.bus = bus

    def msi_sink(self) -> MsiSink:
        return self.bus if self.bus is not None else MsiSink()

    def attach_apic(self, index: int, source: InterruptSource, lint: IrqSink) -> None:
        if index == 0:
            self.lint = lint

    # --- time -----------------------------------------------------------------------------------------------

    @property
    def clock(self) -> Clock | None:
        return self.stepped

    def run_timers(self, timers: TimerQueue) -> bool:
        return True  # by whoever steps the clock
