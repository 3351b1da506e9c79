"""KVM as the builder sees it (accel.accelerator): the kernel's VM, its chips and its processors."""

from __future__ import annotations

from accel.accelerator import Accelerator
from accel.api import DeviceLock, IrqSink, Notifier
from accel.errors import AccelFailure
from accel.kvm.irq import PINS, KvmIrqchip, KvmMsiSink, MsiRegion
from accel.kvm.vcpu import CpuPin, KvmVcpu
from accel.kvm.vm import KvmVm
from accel.run import CpuThread, IntAck, MsiSink, RunControl
from accel.space import AddressSpace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.accelerator import Outcome
    from accel.cpuport import InterruptSource
    from accel.ram import RamBlock

# Left alone by a reset: what the processor is, not what it does.
_KEPT_MSRS = frozenset({0x3A, 0x10A, 0x8B, 0xCE, 0x345, *range(0x480, 0x493)})
# Of the processor's state, but not in the kernel's list: MTRRs, machine-check status and banks.
_MORE_MSRS = (
    *range(0x200, 0x210), 0x250, 0x258, 0x259, *range(0x268, 0x270), 0x2FF, 0x17A, 0x17B, *range(0x400, 0x428)
)  # fmt: skip
# IA32_MISC_ENABLE after power-on: fast strings; the kernel's own value depends on its version.
_MISC_ENABLE = 0x1A0
# The time-stamp counter starts again from nothing, whatever it has counted while the machine was built.
_TSC = 0x10


# Where the local APICs are, and where bus masters write messages to them.
MSI_BASE, MSI_SIZE = 0xFEE00000, 0x100000


MAX_APIC_ID = 254  # 255 is everybody


class KvmAccelerator(Accelerator):
    """configure_accelerator → kvm_init: open /dev/kvm, create the VM, listen to memory."""

    name = "kvm"
    doorbells = True

    @classmethod
    def probe(cls) -> Outcome:
        """Creates a VM and lets its processor write to a port."""
        from accel.kvm.trial import first_steps

        try:
            first_steps(cls)
        except AccelFailure as exc:
            return False, str(exc), exc.remedy
        return True, "", ""

    @classmethod
    def weakness(cls) -> str:
        from accel.kvm.trial import kernel_steps

        try:
            return kernel_steps(cls)
        except AccelFailure as exc:
            return str(exc)

    @classmethod
    def dead_ends(cls) -> str:
        from accel.kvm.trial import dead_ends

        try:
            return dead_ends(cls)
        except AccelFailure:
            return ""  # the machine's own attempt will tell

    def __init__(
        self,
        memory: AddressSpace,
        io: AddressSpace,
        lock: DeviceLock,
        control: RunControl,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(memory, io, lock, control, options)
        mode = str(self.options.get("kernel_irqchip", "on"))
        self.closed = False
        self.vm = KvmVm(memory, io, lock, control)
        try:
            self.vm.kvm_arch_init(
                self.options.get("identity_map", 0xFEFFC000), self.options.get("tss", 0xFEFFD000)
            )
            self.irqchip = KvmIrqchip(self.vm, mode, PINS)
            self.vm.register_memory_listener()
        except BaseException:
            self.vm.close()
            raise
        self.in_kernel = IN_KERNEL[mode]
        self.has_local_apic = mode != "off"
        self.own_apic = mode == "off"  # the local APICs are devices, which the builder makes
        self.parked: dict[int, Any] = {}  # processors that were taken out
        self.pins: dict[str, CpuPin] = {}
        self.ack: IntAck | None = None
        self.eoi: IrqSink | None = None
        learning = self.irqchip if mode == "split" else None
        self.msi: MsiSink = KvmMsiSink(self.vm, learning) if self.has_local_apic else MsiSink()
        if self.has_local_apic:
            self.memory_regions.append((MSI_BASE, MSI_SIZE, MsiRegion(self.msi, MSI_BASE)))
        self.guest_clock: int | None = None
        # KVM's time-stamp counters go on while the machine stands still: what a save said, and which were loaded
        self.tsc: dict[int, int] = {}
        self.tsc_loaded: set[int] = set()
        self.msrs: list[int] = []

    # --- processors -----------------------------------------------------------------------------------------

    def supported_cpuid(self) -> list[dict[str, int]]:
        found: list[dict[str, int]] = self.vm.supported_cpuid()
        return found

    def create_vcpu(self, index: int, apic_id: int, cpuid: list[dict[str, int]]) -> CpuThread:
        """qemu_init_vcpu: start the thread, wait until it says 'created'."""
        most = self.vm.extension_named("max_vcpus")
        if index >= most > 0:
            raise AccelFailure(
                f"cannot create processor {index}", f"KVM runs at most {most} in a machine here"
            )
        if apic_id > MAX_APIC_ID:
            raise AccelFailure(
                f"cannot create processor {index}",
                f"its APIC id is {apic_id}, and interrupts reach ids up to {MAX_APIC_ID}",
                "use fewer processors, or counts of cores and threads that are powers of two",
            )
        if index in self.parked:
            back = self.parked.pop(index)
            back.frozen = False
            self.add_vcpu(back)
            made: CpuThread = back
            return made
        self.irqchip.create()
        cpu = KvmVcpu(self.vm, self.irqchip, index, apic_id, cpuid)
        cpu.connect(self.ack if index == 0 else None, self.eoi)
        cpu.launch()
        if index == 0:
            self.msrs = sorted({*self.vm.msr_indices(), *_MORE_MSRS} - _KEPT_MSRS)
            fresh = cpu.save(self.msrs)
            self.msrs = list(fresh["msrs"])
            parts = ("xsave", "fpu", "xcrs", "debugregs")
            self.power_on = {part: fresh[part] for part in parts if part in fresh}
            self.power_on["msrs"] = {**fresh["msrs"], _TSC: 0, _MISC_ENABLE: 1}
            for pin in self.pins.values():
                pin.attach(cpu)
        cpu.take_power_on(self.power_on)
        cpu.set_msrs({_MISC_ENABLE: 1})
        self.add_vcpu(cpu)
        return cpu

    def park_vcpu(self, index: int) -> None:
        """KVM has no way to give a processor back."""
        cpu = self.vcpu(index)
        self.vcpus.remove(cpu)
        cpu.reset()
        cpu.frozen = True
        self.parked[cpu.index] = cpu

    def reset_vcpus(self) -> None:
        self.guest_clock = None
        self.tsc.clear()
        self.tsc_loaded.clear()
        for cpu in self.vcpus:
            cpu.reset()

    def start(self) -> None:
        if self.guest_clock is not None and self.options.get("kvmclock", True):
            self.vm.set_clock(self.guest_clock)
        self.guest_clock = None
        for index in self.tsc_loaded:
            self.vcpu(index).set_msrs({_TSC: self.tsc[index]})
        self.tsc.clear()
        self.tsc_loaded.clear()
        self.irqchip.thaw_pit()
        self.control.start()

    def stop(self) -> None:
        was_running = self.control.running
        self.control.stop()
        self.vm.drain()
        self.irqchip.freeze_pit()
        if was_running and self.has_local_apic and self.options.get("kvmclock", True):
            self.guest_clock = self.vm.get_clock()
            for cpu in self.vcpus:
                cpu.kvmclock_ctrl()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.control.close()
        for cpu in (*self.vcpus, *self.parked.values()):
            cpu.release()
        self.vcpus.clear()
        self.parked.clear()
        self.vm.close()

    def save_vcpu(self, index: int) -> dict[str, Any]:
        state: dict[str, Any] = self.vcpu(index).save(self.msrs)
        if _TSC in state["msrs"] and not self.control.running:
            state["msrs"][_TSC] = self.tsc.setdefault(index, state["msrs"][_TSC])
        return state

    def load_vcpu(self, index: int, state: dict[str, Any]) -> list[int]:
        refused = list(self.vcpu(index).load(state))
        tsc = state.get("msrs", {}).get(_TSC)
        if tsc is not None:
            self.tsc[index] = tsc
            self.tsc_loaded.add(index)
        return refused

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
        self.vcpu(index).watch(step, software, hardware)
        self.vcpu(index).frozen = frozen

    def debug_stops(self) -> list[tuple[int, str, int]]:
        found = [(cpu.index, cpu.debug_stop()) for cpu in self.vcpus]
        return [(index, *stop) for index, stop in found if stop is not None]

    # --- interrupts -----------------------------------------------------------------------------------------

    def irq_sink(self, count: int = PINS) -> IrqSink:
        return self.irqchip.gsis if self.irqchip.mode == "on" else IrqSink()

    def cpu_input(self, name: str) -> IrqSink:
        if name not in self.pins:
            self.pins[name] = CpuPin(self.vcpus[0] if self.vcpus else None, name)
        return self.pins[name]

    def set_int_ack(self, source: IntAck) -> None:
        self.ack = source
        if self.vcpus:
            self.vcpus[0].connect(ack=source)

    def set_message_bus(self, bus: MsiSink) -> None:
        """Where messages between APICs of ours go."""
        self.msi = bus

    def attach_apic(self, index: int, source: InterruptSource, lint: IrqSink) -> None:
        """The 8259A's interrupts go to LINT0 of the first processor's."""
        cpu: Any = self.vcpu(index)
        cpu.attach_apic(source)
        apic: Any = source
        apic.port = cpu.port
        apic.pic = self.ack or IntAck()
        if index == 0:
            pin: Any = self.cpu_input("intr")
            pin.lead_to(lint)

    def set_eoi_handler(self, sink: IrqSink) -> None:
        self.eoi = sink
        if self.own_apic:
            bus: Any = self.msi  # that of the local APICs
            bus.set_eoi_handler(sink)
        for cpu in self.vcpus:
            cpu.connect(eoi=sink)

    def msi_sink(self) -> MsiSink:
        return self.msi

    def add_irqfd(self, gsi: int, fd: int, resample_fd: int = -1) -> bool:
        return bool(self.irqchip.irqfd(gsi, fd, resample_fd, True))

    def remove_irqfd(self, gsi: int, fd: int) -> None:
        self.irqchip.irqfd(gsi, fd, -1, False)

    def add_msi_route(self, addr: int, data: int) -> int:
        return int(self.irqchip.add_msi_route(addr, data))

    def update_msi_route(self, gsi: int, addr: int, data: int) -> None:
        self.irqchip.update_msi_route(gsi, addr, data)

    def remove_msi_route(self, gsi: int) -> None:
        self.irqchip.remove_msi_route(gsi)

    # --- exits that need not happen -------------------------------------------------------------------------

    def add_ioeventfd(
        self, space: AddressSpace, addr: int, size: int, notifier: Notifier, match: int | None = None
    ) -> bool:
        return bool(self.vm.ioeventfd(space, addr, size, notifier, match, True))

    def remove_ioeventfd(
        self, space: AddressSpace, addr: int, size: int, notifier: Notifier, match: int | None = None
    ) -> None:
        self.vm.ioeventfd(space, addr, size, notifier, match, False)

    def add_coalesced(self, space: AddressSpace, addr: int, size: int) -> bool:
        return bool(self.vm.coalesced(space, addr, size, True))

    def remove_coalesced(self, space: AddressSpace, addr: int, size: int) -> None:
        self.vm.drain()
        self.vm.coalesced(space, addr, size, False)

    def drain(self) -> int:
        return int(self.vm.drain())

    def want_registers(self) -> None:
        self.vm.want_registers = True

    # --- memory and time ------------------------------------------------------------------------------------

    def log_dirty(self, block: RamBlock, on: bool) -> None:
        if on:
            self.vm.memory_listener.log_start(block)
        else:
            self.vm.memory_listener.log_stop(block)

    def sync_dirty(self, block: RamBlock) -> None:
        self.vm.memory_listener.sync(block)

    def get_clock(self) -> int:
        return self.guest_clock if self.guest_clock is not None else int(self.vm.get_clock())

    def set_clock(self, value: int) -> None:
        self.guest_clock = value


IN_KERNEL = {
    "on": frozenset({"kvm-apic", "kvm-ioapic", "kvm-i8259", "kvm-pit"}),
    "split": frozenset({"kvm-apic"}),
    "off": frozenset[str](),
}
