"""The soft accelerator as the builder sees it (accel.accelerator): processors made of nothing but code.

It has no chips inside. The machine gives each processor its local APIC (`attach_apic`); without one the 8259A reaches
the first processor directly.
"""

from __future__ import annotations

import os

from accel.accelerator import Accelerator
from accel.api import IrqSink, Notifier
from accel.errors import AccelFailure
from accel.run import CpuThread, MsiSink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.accelerator import Outcome
    from accel.api import DeviceLock
    from accel.clock import Clock, TimerQueue
    from accel.cpuport import InterruptSource
    from accel.ram import RamBlock
    from accel.run import IntAck, RunControl
    from accel.soft.processor import SoftPin
    from accel.space import AddressSpace, FlatRange

MAX_CPUS = 255
# Translation to host code. Tests set the variables: `always`, to the least room, so that all of it is gone over often.
TRANSLATE = os.environ.get("VMRUN_SOFT_TRANSLATE", "on")
THREAD = os.environ.get("VMRUN_SOFT_THREAD", "single")
HOT = 40  # executions of a block before it is translated
ROOM = int(os.environ.get("VMRUN_SOFT_ROOM", 48 << 20))  # bytes of code


class Layout:
    """Memory listener: what processors keep of the layout is dropped when it changes."""

    def __init__(self, accelerator: SoftAccelerator) -> None:
        self.accelerator = accelerator
        self.changed = False

    def region_add(self, piece: FlatRange) -> None:
        self.changed = True

    region_del = region_add

    def commit(self) -> None:
        if not self.changed or self.accelerator.closed:
            return
        self.changed = False
        control, machine = self.accelerator.control, self.accelerator.machine
        if not control.running and not machine.threads:
            machine.flush()
            return
        control.inhibit()
        try:
            machine.drop_now()
        finally:
            control.allow()


class SoftAccelerator(Accelerator):
    name = "soft"
    has_local_apic = True
    own_apic = True  # the local APICs are devices, which the builder makes

    @classmethod
    def probe(cls) -> Outcome:
        try:
            from accel.soft.fpu import fpu_available
        except ImportError:
            return False, "this build of vmrun does not have it", "build vmrun with its compiled modules"
        found: Outcome = fpu_available()
        if found[0]:
            return found
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if limit != resource.RLIM_INFINITY:  # which the kernel holds against memory that is a file, too
            reason = f"files have at most {limit} bytes here (RLIMIT_FSIZE), memory for code, too"
            return False, reason, "raise the limit: ulimit -f unlimited"
        return found

    @classmethod
    def weakness(cls) -> str:
        """What makes guests slow here."""
        from accel.soft.room import available

        return "" if available() else "the host gives no executable memory for translated code: all is interpreted"

    def __init__(
        self,
        memory: AddressSpace,
        io: AddressSpace,
        lock: DeviceLock,
        control: RunControl,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(memory, io, lock, control, options)
        works, reason, remedy = self.probe()
        if not works:
            raise AccelFailure(reason, "", remedy)
        from accel.soft.machine import Machine

        mode = (options or {}).get("translate", TRANSLATE)
        hot = 0 if mode == "always" else HOT
        room = ROOM if mode in ("on", "always") else 0
        given = options or {}
        exact = given.get("clock") == "instructions"
        threads = given.get("thread", THREAD) == "multi" and not exact
        self.machine = Machine(
            memory, io, lock, hot, room, exact, given.get("started", -1), threads,
            given.get("shift", 0), not given.get("sleep", True),
        )
        self.own_threads = threads
        self.parked: dict[int, Any] = {}  # processors that were taken out
        self.pins: dict[str, SoftPin] = {}
        self.ack: IntAck | None = None
        self.messages = MsiSink()
        self.closed = False
        self.layout = Layout(self)
        memory.add_listener(self.layout)

    # --- processors -----------------------------------------------------------------------------------------

    def supported_cpuid(self) -> list[dict[str, int]]:
        from accel.soft.features import supported_cpuid

        return supported_cpuid()

    def create_vcpu(self, index: int, apic_id: int, cpuid: list[dict[str, int]]) -> CpuThread:
        from accel.soft.vcpu import SoftCpu

        if index >= MAX_CPUS:
            raise AccelFailure(f"cannot create processor {index}", f"the soft accelerator has at most {MAX_CPUS}")
        for hole in range(len(self.vcpus) + len(self.parked), index):
            self.create_vcpu(hole, apic_id, cpuid)  # the machine's table has no holes
            self.park_vcpu(hole)
        if index in self.parked:
            back: Any = self.parked.pop(index)
            back.take_cpuid(cpuid)
            self.add_vcpu(back)
            kept: CpuThread = back
            return kept
        cpu: Any = SoftCpu(self.control, index, self.machine, cpuid)
        if index == 0:
            cpu.ack = self.ack
            for pin in self.pins.values():
                pin.cpu = cpu
        if index == 0 or self.machine.threads:
            cpu.launch()
        else:
            cpu.leader = self.vcpus[0]
        self.add_vcpu(cpu)
        made: CpuThread = cpu
        return made

    def attach_apic(self, index: int, source: InterruptSource, lint: IrqSink) -> None:
        """The 8259A's interrupts go to LINT0 of the first processor's."""
        cpu: Any = self.vcpu(index)
        cpu.source = source
        apic: Any = source
        apic.port = cpu.port
        apic.pic = self.ack
        if index == 0 and "intr" in self.pins:
            self.pins["intr"].lint = lint

    def park_vcpu(self, index: int) -> None:
        cpu = self.vcpu(index)
        self.vcpus.remove(cpu)
        cpu.reset()  # it waits to be started, and nobody can
        self.parked[cpu.index] = cpu

    def reset_vcpus(self) -> None:
        for cpu in self.vcpus:
            cpu.reset()
        self.machine.drop_now()

    def start(self) -> None:
        clock: Any = self.machine.clock  # the virtual one, which can be held
        with self.lock:
            clock.start()
        self.control.start()

    def stop(self) -> None:
        self.control.stop()
        clock: Any = self.machine.clock
        with self.lock:
            clock.stop()
        self.machine.off = False

    def sleep(self) -> None:
        """One thread for all moves the clock and runs the timers, and nothing else."""
        self.machine.off = True
        self.start()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.control.close()
        self.memory.remove_listener(self.layout)
        self.vcpus.clear()
        self.parked.clear()

    def save_vcpu(self, index: int) -> dict[str, Any]:
        state: dict[str, Any] = self.vcpu(index).save()
        return state

    def load_vcpu(self, index: int, state: dict[str, Any]) -> list[int]:
        return list(self.vcpu(index).load(state))

    def report(self, index: int) -> dict[str, Any]:
        found: dict[str, Any] = self.vcpu(index).describe()
        return found

    def watch(
        self,
        index: int,
        step: bool = False,
        software: bool = False,
        hardware: tuple[tuple[int, int, int], ...] = (),
        frozen: bool = False,
    ) -> None:
        self.vcpu(index).watch(step, software, hardware, frozen)

    def debug_stops(self) -> list[tuple[int, str, int]]:
        found = [(cpu.index, cpu.debug_stop()) for cpu in self.vcpus]
        return [(index, *stop) for index, stop in found if stop is not None]

    # --- interrupts -----------------------------------------------------------------------------------------

    def cpu_input(self, name: str) -> IrqSink:
        from accel.soft.processor import SoftPin

        if name not in self.pins:
            self.pins[name] = SoftPin(self.vcpus[0] if self.vcpus else None, name)
        return self.pins[name]

    def set_int_ack(self, source: IntAck) -> None:
        self.ack = source
        if self.vcpus:
            self.vcpus[0].ack = source

    def set_message_bus(self, bus: MsiSink) -> None:
        """Where MSIs go: the bus of the local APICs."""
        self.messages = bus

    def set_eoi_handler(self, sink: IrqSink) -> None:
        bus: Any = self.messages  # that of the local APICs
        bus.set_eoi_handler(sink)

    def msi_sink(self) -> MsiSink:
        return self.messages

    # --- memory and time ------------------------------------------------------------------------------------

    def log_dirty(self, block: RamBlock, on: bool) -> None:
        """A block notes the pages that get a write tag in a TLB; those that have one already are forgotten."""
        if on:
            self.sync_dirty(block)

    def sync_dirty(self, block: RamBlock) -> None:
        """A page with a write tag was noted when it got it; the next write has to ask again."""
        self.control.inhibit()
        try:
            self.machine.flush_now()
        finally:
            self.control.allow()

    @property
    def clock(self) -> Clock:
        """Moved by the processors' thread alone, where there is but one; else the host's time."""
        clock: Clock = self.machine.clock
        return clock

    def run_timers(self, timers: TimerQueue) -> bool:
        if self.machine.threads:
            return False
        timers.drive(Notifier())
        self.machine.timers = timers
        return True

    def get_clock(self) -> int:
        return int(self.machine.clock.time())
