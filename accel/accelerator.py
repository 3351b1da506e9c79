"""What the builder sees of an accelerator, whichever it is: kvm, soft or qtest.

The order of calls is the flow of a machine's life:

    ok, reason, remedy = find("kvm").probe()            # by doing: runs a processor for a moment
    control = RunControl(notifier)                      # accel.run: run state, requests, wake-up
    accel = find("kvm")(memory, io, lock, control, options)     # open, check, create the VM, listen to memory
    accel.in_kernel                                     # {'kvm-ioapic', …}: variants for the board
    wiring.sinks["cpus.intr"] = accel.cpu_input("intr")         # also "a20", "smi", "nmi"
    … devices are created and realized; RAM appears in `memory`, the accelerator hears of it …
    accel.set_int_ack(pic)                              # only when the 8259A is not in the kernel
    accel.create_vcpu(index, apic_id, cpuid)            # a thread; returns when the processor says 'created'
    accel.reset_vcpus()                                 # with every system reset, after the devices
    accel.start()                                       # processors run
    … main loop: control.notifier → control.requests() → stop(), act, start(), or control.answer(cpu) …
    accel.stop(); accel.close()

The first create_vcpu makes the in-kernel interrupt chip and timer; by then memory is in place, which is the
cheap order. Memory may go on changing afterwards.

`options`: kernel_irqchip "on" | "split" | "off" (default "on"), tss, identity_map (addresses of the memory
map), kvmclock (bool: the kernel's clock stands still while the machine is stopped).

Raises accel.errors.AccelFailure: create, create_vcpu and, when the layout cannot be had, the memory listener.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.api import DeviceLock, IoRegion, IrqSink, Notifier
    from accel.clock import Clock, TimerQueue
    from accel.cpuport import InterruptSource
    from accel.ram import RamBlock
    from accel.run import CpuThread, IntAck, MsiSink, RunControl
    from accel.space import AddressSpace

    Outcome = tuple[bool, str, str]

MODULES = {
    "kvm": "accel.kvm.accelerator:KvmAccelerator",
    "soft": "accel.soft.accelerator:SoftAccelerator",
    "qtest": "accel.qtest:QtestAccelerator",
}


def find(name: str) -> type[Accelerator]:
    """The class of accelerator `name`. KeyError for a name that does not exist."""
    module, _, cls = MODULES[name].partition(":")
    found: type[Accelerator] = getattr(__import__(module, fromlist=[cls]), cls)
    return found


class Accelerator:
    """Base: every method does nothing, which is right for an accelerator without processors of its own."""

    name = "none"
    in_kernel: frozenset[str] = frozenset()  # drivers of devices that the accelerator has inside
    irqchip: Any = None  # that chip, where it has one
    has_local_apic = False  # an APIC per processor exists; MSIs and SMP start-up work
    own_apic = False  # … but as a device that the builder makes for each processor and attaches
    own_threads = True  # each processor has a thread of its own
    doorbells = False  # guests' writes to a region's doorbells signal their notifiers, without an exit

    @classmethod
    def probe(cls) -> Outcome:
        """(works here, why not, what to do about it), found out by doing."""
        return True, "", ""

    @classmethod
    def weakness(cls) -> str:
        """What it cannot execute of what a stock kernel does, found out by doing; '' when nothing."""
        return ""

    @classmethod
    def dead_ends(cls) -> str:
        """Instructions of stock kernels that end a guest, found out by doing; '' when there are none."""
        return ""

    def __init__(
        self,
        memory: AddressSpace,
        io: AddressSpace,
        lock: DeviceLock,
        control: RunControl,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.memory, self.io, self.lock, self.control = memory, io, lock, control
        self.options = dict(options or {})
        self.vcpus: list[Any] = []  # CpuThread, of the accelerator's own kind, by ascending index
        # (address, size, region) that the builder maps into `memory`: where bus masters write their MSIs
        self.memory_regions: list[tuple[int, int, IoRegion]] = []

    # --- processors -----------------------------------------------------------------------------------------

    def supported_cpuid(self) -> list[dict[str, int]]:
        """Leaves the accelerator can show: dicts of function, index, flags, eax, ebx, ecx, edx."""
        return []

    def create_vcpu(self, index: int, apic_id: int, cpuid: list[dict[str, int]]) -> CpuThread:
        """Start a processor's thread, wait for 'created'. `cpuid`: entries as supported_cpuid gives them."""
        raise NotImplementedError

    def vcpu(self, index: int) -> Any:
        """The processor of that index, of those that are there. IndexError."""
        found = next((cpu for cpu in self.vcpus if cpu.index == index), None)
        if found is None:
            raise IndexError(f"there is no processor {index}")
        return found

    def add_vcpu(self, cpu: Any) -> None:
        """To `vcpus`, in its place."""
        self.vcpus.append(cpu)
        self.vcpus.sort(key=lambda one: one.index)

    def park_vcpu(self, index: int) -> None:
        """Take a processor out; create_vcpu() of its index brings it back, as new. The machine is stopped."""

    def reset_vcpus(self) -> None:
        """As after power-on: the first at the reset vector, the others waiting for INIT; stopped."""

    def start(self) -> None:
        """Resume the processors and the guest's clock."""
        self.control.start()

    def stop(self) -> None:
        """Return when every processor is out of the guest. Not with the device lock held."""
        self.control.stop()

    def sleep(self) -> None:
        """S3, when stopped: virtual time goes on without processors, until stop() or, to wake them, start()."""

    def close(self) -> None:
        """End all threads and close everything; safe to call twice."""
        self.control.close()

    def save_vcpu(self, index: int) -> dict[str, Any]:
        """State in KVM's own layouts: regs, sregs, msrs, lapic, xsave, … The machine is stopped."""
        raise NotImplementedError

    def load_vcpu(self, index: int, state: dict[str, Any]) -> list[int]:
        """The MSRs that were refused."""
        raise NotImplementedError

    def report(self, index: int) -> dict[str, Any]:
        """Registers, bytes at RIP and so on, for a person. The machine is stopped."""
        raise NotImplementedError

    # --- a debugger -------------------------------------------------------------------------------------------

    def watch(
        self,
        index: int,
        step: bool = False,
        software: bool = False,
        hardware: tuple[tuple[int, int, int], ...] = (),
        frozen: bool = False,
    ) -> None:
        """What ends the next start() of processor `index` with REQUEST_DEBUG: one instruction (`step`, interrupts
        held back), an int3, one of up to four `hardware` points: (0 execution, 1 write or 3 access; address; bytes).
        `frozen`: it stays where it is. The machine is stopped. AccelFailure: not here.
        """
        raise NotImplementedError

    def debug_stops(self) -> list[tuple[int, str, int]]:
        """(processor, "step" | "software" | "hardware", point hit) of those that stopped so, taken."""
        return []

    # --- interrupts -----------------------------------------------------------------------------------------

    def irq_sink(self, count: int) -> IrqSink:
        """Inputs 0 … count-1 are the GSIs of the chip inside the accelerator. One sink per machine."""
        raise NotImplementedError

    def cpu_input(self, name: str) -> IrqSink:
        """Pin of the first processor: "intr" (from the 8259A), "nmi", "smi", "a20"."""
        from accel.api import IrqSink

        return IrqSink()

    def set_int_ack(self, source: IntAck) -> None:
        """Who answers the interrupt acknowledge cycle when the 8259A is a device of ours."""

    def set_eoi_handler(self, sink: IrqSink) -> None:
        """Split irqchip: sink.set_irq(vector, 1) for each broadcast end of interrupt."""

    def msi_sink(self) -> MsiSink:
        """Takes message-signalled interrupts without the GIL."""
        from accel.run import MsiSink

        return MsiSink()

    def set_message_bus(self, bus: MsiSink) -> None:
        """With `own_apic`, before the devices: where messages between APICs go. msi_sink() gives it from now on."""

    def attach_apic(self, index: int, source: InterruptSource, lint: IrqSink) -> None:
        """With `own_apic`: processor `index` takes its interrupts from `source`, whose LINT pins are `lint`."""

    def signal_msi(self, addr: int, data: int) -> int:
        """1 delivered, 0 masked, -1 refused."""
        return int(self.msi_sink().signal(addr, data))

    def add_irqfd(self, gsi: int, fd: int, resample_fd: int = -1) -> bool:
        """A write to eventfd `fd` raises `gsi` in the kernel. False: not offered, deliver by hand."""
        return False

    def remove_irqfd(self, gsi: int, fd: int) -> None:
        pass

    def add_msi_route(self, addr: int, data: int) -> int:
        """A GSI for irqfd that stands for this message; -1: not offered."""
        return -1

    def update_msi_route(self, gsi: int, addr: int, data: int) -> None:
        pass

    def remove_msi_route(self, gsi: int) -> None:
        pass

    # --- exits that need not happen -------------------------------------------------------------------------

    def add_ioeventfd(
        self, space: AddressSpace, addr: int, size: int, notifier: Notifier, match: int | None = None
    ) -> bool:
        """Guest writes of `size` (0: any) at `addr` signal `notifier`, no region. False: not offered."""
        return False

    def remove_ioeventfd(
        self, space: AddressSpace, addr: int, size: int, notifier: Notifier, match: int | None = None
    ) -> None:
        pass

    def add_coalesced(self, space: AddressSpace, addr: int, size: int) -> bool:
        """Writes in the zone wait for the next exit or drain(). False: not offered."""
        return False

    def remove_coalesced(self, space: AddressSpace, addr: int, size: int) -> None:
        pass

    def drain(self) -> int:
        """Dispatch queued writes now; how many there were. Called every few ms while a zone exists."""
        return 0

    def want_registers(self) -> None:
        """A device answers in registers (RunControl.get_register): make that cheap. Before start()."""

    # --- memory ---------------------------------------------------------------------------------------------

    def log_dirty(self, block: RamBlock, on: bool) -> None:
        """Begin or end noting the pages of `block` that processors write."""

    def sync_dirty(self, block: RamBlock) -> None:
        """Bring what was written since the last call into block.note_dirty."""

    # --- time -----------------------------------------------------------------------------------------------

    @property
    def clock(self) -> Clock | None:
        """The machine's virtual clock when the accelerator drives it."""
        return None

    def run_timers(self, timers: TimerQueue) -> bool:
        """True: the accelerator runs the expired timers of this queue; False: the main loop shall."""
        return False

    def get_clock(self) -> int:
        """The guest's paravirtual clock, ns; 0 when there is none."""
        return 0

    def set_clock(self, value: int) -> None:
        pass
