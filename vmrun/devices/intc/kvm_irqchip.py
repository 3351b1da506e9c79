"""The interrupt controllers and the timer that KVM has in its kernel, as devices of the board.

They take the same properties and wires as the devices they stand for. The kernel leads one GSI to both
interrupt controllers, so the inputs of `kvm-i8259` and `kvm-ioapic` that carry the same GSI end in the same
place (accel.kvm.irq.GsiSink), which passes each change on once. Their outputs never move: the kernel
interrupts the processors, and the timer's tick reaches GSI 0, by themselves.

Ref: Intel 8259A (231468), 82093AA (290566), 8254 (231164); Linux Documentation/virt/kvm/api.rst.
Not modelled: other port or memory addresses than the PC's, since the kernel knows no others; the phase of a
counter over a pause or a saved state.
"""

from __future__ import annotations

from accel.api import IrqFan, PyIrqSink

from vmrun.bus.isa import IsaDevice
from vmrun.core.object import Device
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.errors import BuildError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

IOAPIC_PINS = 24
HPET_LEGACY = 1  # KVM_PIT_FLAGS_HPET_LEGACY: the timer's output is disconnected


def _irqchip(device: Device, platform: Platform) -> Any:
    """The accelerator's interrupt chip. BuildError when it has none."""
    accelerator = platform.accelerator
    if device.driver not in accelerator.in_kernel:
        raise BuildError(
            f"{device.path}: {device.driver} needs KVM with kernel_irqchip: on, this is {accelerator.name}"
        )
    return accelerator.irqchip


def _fixed(device: Device, name: str, allowed: tuple[int, ...]) -> None:
    value = device.get_props()[name]
    if value not in allowed:
        choices = " or ".join(f"{n:#x}" for n in allowed)
        raise BuildError(f"{device.path}.{name}: KVM has its {device.driver} at {choices}, not at {value:#x}")


def _checked(device: Device, state: dict[str, Any], fields: dict[str, int]) -> dict[str, int]:
    """The named fields of `state`, each between 0 and its limit. StateError names the first that is not."""
    for name, limit in fields.items():
        value = state.get(name)
        if not isinstance(value, int) or not 0 <= value <= limit:
            raise StateError(f"{device.path}: {name} is {value!r}, not a number up to {limit:#x}")
    return {name: int(state[name]) for name in fields}


class _InKernel(Device):
    """A chip whose state is the kernel's; `chip` is its name there."""

    accel = "kvm"
    chip = ""
    irqchip: Any = None

    def reset(self) -> None:
        from accel.kvm.irq import RESET

        self.irqchip.set_chip(self.chip, RESET[self.chip])

    def save(self) -> dict[str, Any]:
        return dict(self.irqchip.get_chip(self.chip))


@register("kvm-ioapic", description="I/O APIC in KVM's kernel")
class KvmIoapic(_InKernel):
    """Pin 2 is GSI 0, the timer; pin 0 leads nowhere."""

    base = Prop("uint32", default=0xFEC00000, doc="address of the register window")
    gsi_base = Prop("uint32", default=0, doc="GSI of pin 0; the kernel's is always 0")
    chip = "ioapic"

    def realize(self, platform: Platform) -> None:
        self.irqchip = _irqchip(self, platform)
        _fixed(self, "base", (0xFEC00000,))
        _fixed(self, "gsi_base", (0,))
        inputs = IrqFan(f"{self.id or self.driver}.in", IOAPIC_PINS)
        for pin in range(1, IOAPIC_PINS):
            inputs.connect(pin, self.irqchip.gsis, 0 if pin == 2 else pin)
        self.add_input("in", inputs)

    def load(self, state: dict[str, Any]) -> None:
        fields = {"base_address": 0xFFFFFFFF, "ioregsel": 0xFF, "id": 0xFFFFFFFF, "irr": 0xFFFFFF}
        taken: dict[str, Any] = _checked(self, state, fields)
        table = state.get("redirtbl")
        if not isinstance(table, list) or len(table) != IOAPIC_PINS:
            raise StateError(f"{self.path}: redirtbl has not {IOAPIC_PINS} entries")
        if any(not isinstance(entry, int) or not 0 <= entry < 1 << 64 for entry in table):
            raise StateError(f"{self.path}: redirtbl has an impossible entry")
        self.irqchip.set_chip("ioapic", {**taken, "redirtbl": list(table)})


@register("kvm-i8259", description="8259A interrupt controller in KVM's kernel")
class KvmI8259(_InKernel, IsaDevice):
    """The master's input 2 is the cascade, which the kernel has wired itself."""

    iobase = Prop("uint16", default=0x20, doc="first I/O port")
    elcr_addr = Prop("uint16", default=0x4D0, doc="port of the edge/level register")
    elcr_mask = Prop("uint8", default=0xF8, doc="inputs that may be level-triggered")
    master = Prop("bool", default=True, doc="the one that interrupts the processor")
    resources = {"ports": [["iobase", 2], ["elcr_addr", 1]]}

    def realize(self, platform: Platform) -> None:
        self.irqchip = _irqchip(self, platform)
        _fixed(self, "iobase", (0x20,) if self.master else (0xA0,))
        _fixed(self, "elcr_addr", (0x4D0,) if self.master else (0x4D1,))
        self.chip = "pic0" if self.master else "pic1"
        inputs = IrqFan(f"{self.id or self.driver}.in", 8)
        for pin in range(8):
            if not self.master or pin != 2:
                inputs.connect(pin, self.irqchip.gsis, pin + (0 if self.master else 8))
        self.add_input("in", inputs)
        self.add_output("int")

    def reset(self) -> None:
        from accel.kvm.irq import RESET

        self.irqchip.set_chip(self.chip, {**RESET[self.chip], "elcr_mask": self.elcr_mask})

    def load(self, state: dict[str, Any]) -> None:
        names = ("last_irr", "irr", "imr", "isr", "irq_base", "special_mask", "elcr", "elcr_mask")
        fields = dict.fromkeys(names, 0xFF) | {"priority_add": 7, "init_state": 3}
        flags = (
            "read_reg_select",
            "poll",
            "auto_eoi",
            "rotate_on_auto_eoi",
            "special_fully_nested_mode",
            "init4",
        )
        self.irqchip.set_chip(self.chip, _checked(self, state, fields | dict.fromkeys(flags, 1)))


@register("kvm-pit", description="8254 timer in KVM's kernel")
class KvmPit(_InKernel, IsaDevice):
    """Channel 0 ticks on GSI 0. The kernel answers port 61h's speaker bits as well."""

    iobase = Prop("uint16", default=0x40, doc="first I/O port")
    irq = Prop("uint8", default=0, doc="ISA interrupt of channel 0")
    lost_tick_policy = Prop(
        "enum",
        default="delay",
        doc="ticks that the guest missed",
        choices=("delay", "discard"),
        visible=False,
    )
    resources = {"ports": [["iobase", 4]]}
    chip = "pit"

    def realize(self, platform: Platform) -> None:
        self.irqchip = _irqchip(self, platform)
        _fixed(self, "iobase", (0x40,))
        self.irqchip.want_pit = True
        self.irqchip.reinject = self.lost_tick_policy == "delay"
        self.add_output("irq")
        self.add_input("enable", PyIrqSink(self._enable))

    def _enable(self, n: int, level: int) -> None:
        """Low while an HPET has taken over the timer's interrupt."""
        state = self.irqchip.get_chip("pit")
        state["flags"] = state["flags"] & ~HPET_LEGACY | (0 if level else HPET_LEGACY)
        self.irqchip.set_chip("pit", state)

    def channel(self, n: int) -> dict[str, int]:
        """count, mode, gate and so on of a channel, as the kernel has them now."""
        found: dict[str, int] = self.irqchip.get_chip("pit")["channels"][n]
        return found

    def get_gate(self, n: int) -> int:
        return self.channel(n)["gate"]

    def get_out(self, n: int) -> int:
        """The idle level of OUT: the kernel answers port 61h itself and tells nobody else."""
        return 0

    def set_gate(self, n: int, level: int) -> None:
        """Drive a channel's gate (port 61h bit 0, where the kernel does not answer it)."""
        state = self.irqchip.get_chip("pit")
        state["channels"][n]["gate"] = 1 if level else 0
        self.irqchip.set_chip("pit", state)

    def save(self) -> dict[str, Any]:
        state = self.irqchip.get_chip("pit")
        saved: dict[str, Any] = {"flags": state["flags"]}
        for n, channel in enumerate(state["channels"]):
            saved |= {f"{name}{n}": value for name, value in channel.items() if name != "count_load_time"}
        return saved

    def load(self, state: dict[str, Any]) -> None:
        names = (
            "count_latched",
            "status_latched",
            "read_state",
            "write_state",
            "rw_mode",
            "gate",
            "bcd",
            "mode",
        )
        fields = {"count": 0x10000, "latched_count": 0xFFFF, "status": 0xFF, "write_latch": 0xFF}
        fields |= dict.fromkeys(names, 0xFF) | {"gate": 1, "bcd": 1}
        wanted = {f"{name}{n}": limit for n in range(3) for name, limit in fields.items()}
        taken = _checked(self, state, wanted | {"flags": 3})
        channels = [
            {**{name: taken[f"{name}{n}"] for name in fields}, "count_load_time": 0} for n in range(3)
        ]
        self.irqchip.set_chip("pit", {"channels": channels, "flags": taken["flags"]})
