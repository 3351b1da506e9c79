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
from vmrun.core.state import U8, U32, Record, Rows, Table, Words
from vmrun.errors import BuildError

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
        raise BuildError(
            f"KVM has its {device.driver} at {choices}, not at {value:#x}",
            code="VR0411",
            path=f".{name}",
            remedy="leave it where it is, or set `kernel_irqchip: off`",
        )


PIC_FLAGS = (
    "read_reg_select",
    "poll",
    "auto_eoi",
    "rotate_on_auto_eoi",
    "special_fully_nested_mode",
    "init4",
)
PIT_BYTES = (
    "count_latched",
    "status_latched",
    "status",
    "read_state",
    "write_state",
    "write_latch",
    "rw_mode",
    "mode",
)


def _from_ioapic(chip: dict[str, Any]) -> dict[str, Any]:
    """The state of our own I/O APIC, for the kernel's."""
    return {
        "registers": {
            "base_address": 0xFEC00000,
            "ioregsel": chip["select"],
            "id": chip["id"],
            "irr": chip["irr"],
            "redirtbl": chip["table"],
        }
    }


def _from_i8259(chip: dict[str, Any]) -> dict[str, Any]:
    same = (
        "irr",
        "imr",
        "isr",
        "elcr",
        "priority_add",
        "poll",
        "special_mask",
        "auto_eoi",
        "rotate_on_auto_eoi",
        "init4",
    )
    return {
        "registers": {
            **{name: chip[name] for name in same},
            "last_irr": chip["last"],
            "irq_base": chip["vector_base"],
            "init_state": chip["init_step"],
            "read_reg_select": chip["read_isr"],
            "special_fully_nested_mode": chip["special_nested"],
            "elcr_mask": 0xFF,
        }
    }


def _from_i8254(chip: dict[str, Any]) -> dict[str, Any]:
    channels = []
    for row in chip["counters"]:
        latched = 0 if not row["latched"] else 3 if row["latched"] == 2 else 4 if row["latch_high"] else 1
        channels.append(
            {
                **{name: row[name] for name in ("count", "mode", "bcd", "gate", "status", "status_latched")},
                "latched_count": row["latch"],
                "count_latched": latched,
                "read_state": row["rw"] + row["read_high"],
                "write_state": row["rw"] + row["write_high"],
                "write_latch": row["write_low"],
                "rw_mode": row["rw"],
            }
        )
    return {"registers": {"flags": 0, "channels": channels}}


class _InKernel(Device):
    """A chip whose state is the kernel's; `kernel_name` is its name there."""

    accel = "kvm"
    kernel_name = ""
    irqchip: Any = None
    controls_interrupts = True

    @property
    def registers(self) -> dict[str, Any]:
        return dict(self.irqchip.get_chip(self.kernel_name))

    @registers.setter
    def registers(self, values: dict[str, Any]) -> None:
        self.irqchip.set_chip(self.kernel_name, values)

    def check_place(self) -> None:
        """BuildError when the chip is not where the kernel has it; the error's path is the property's name."""

    def reset(self) -> None:
        from accel.kvm.irq import RESET

        self.registers = RESET[self.kernel_name]


@register("kvm-ioapic", description="I/O APIC in KVM's kernel")
class KvmIoapic(_InKernel):
    """Pin 2 is GSI 0, the timer; pin 0 leads nowhere."""

    user_creatable = False
    base = Prop("uint32", default=0xFEC00000, doc="address of the register window")
    gsi_base = Prop("uint32", default=0, doc="GSI of pin 0; the kernel's is always 0")
    kernel_name = "ioapic"
    state = Table(
        "kvm-ioapic",
        1,
        Record(
            "registers",
            U32("base_address"),
            U32("ioregsel", most=0xFF),
            U32("id"),
            U32("irr", most=0xFFFFFF),
            Words("redirtbl", IOAPIC_PINS, (1 << 64) - 1),
        ),
        readers={("ioapic", 1): _from_ioapic},
    )

    def check_place(self) -> None:
        _fixed(self, "base", (0xFEC00000,))
        _fixed(self, "gsi_base", (0,))

    def realize(self, platform: Platform) -> None:
        self.irqchip = _irqchip(self, platform)
        self.check_place()
        inputs = IrqFan(f"{self.id or self.driver}.in", IOAPIC_PINS)
        for pin in range(1, IOAPIC_PINS):
            inputs.connect(pin, self.irqchip.gsis, 0 if pin == 2 else pin)
        self.add_input("in", inputs, IOAPIC_PINS)


@register("kvm-i8259", description="8259A interrupt controller in KVM's kernel")
class KvmI8259(_InKernel, IsaDevice):
    """The master's input 2 is the cascade, which the kernel has wired itself."""

    user_creatable = False
    state = Table(
        "kvm-i8259",
        1,
        Record(
            "registers",
            *map(U8, ("last_irr", "irr", "imr", "isr", "irq_base", "special_mask", "elcr", "elcr_mask")),
            U8("priority_add", most=7),
            U8("init_state", most=3),
            *(U8(name, most=1) for name in PIC_FLAGS),
        ),
        readers={("i8259", 1): _from_i8259},
    )

    iobase = Prop("uint16", default=0x20, doc="first I/O port")
    elcr_addr = Prop("uint16", default=0x4D0, doc="port of the edge/level register")
    elcr_mask = Prop("uint8", default=0xF8, doc="inputs that may be level-triggered")
    master = Prop("bool", default=True, doc="the one that interrupts the processor")
    resources = {"ports": [["iobase", 2], ["elcr_addr", 1]]}

    def check_place(self) -> None:
        _fixed(self, "iobase", (0x20,) if self.master else (0xA0,))
        _fixed(self, "elcr_addr", (0x4D0,) if self.master else (0x4D1,))

    def realize(self, platform: Platform) -> None:
        self.irqchip = _irqchip(self, platform)
        self.check_place()
        self.kernel_name = "pic0" if self.master else "pic1"
        inputs = IrqFan(f"{self.id or self.driver}.in", 8)
        for pin in range(8):
            if not self.master or pin != 2:
                inputs.connect(pin, self.irqchip.gsis, pin + (0 if self.master else 8))
        self.add_input("in", inputs, 8)
        self.add_output("int")

    def reset(self) -> None:
        super().reset()
        self.registers = {**self.registers, "elcr_mask": self.elcr_mask}


@register("kvm-pit", description="8254 timer in KVM's kernel")
class KvmPit(_InKernel, IsaDevice):
    """Channel 0 ticks on GSI 0. The kernel answers port 61h's speaker bits as well."""

    user_creatable = False
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
    kernel_name = "pit"
    # The kernel's count_load_time is its own clock's: a restored counter begins anew.
    state = Table(
        "kvm-pit",
        1,
        Record(
            "registers",
            U8("flags", most=3),
            Rows(
                "channels",
                3,
                U32("count", most=0x10000),
                U32("latched_count", most=0xFFFF),
                *map(U8, PIT_BYTES),
                U8("gate", most=1),
                U8("bcd", most=1),
            ),
        ),
        readers={("i8254", 1): _from_i8254},
    )

    def check_place(self) -> None:
        _fixed(self, "iobase", (0x40,))

    def realize(self, platform: Platform) -> None:
        self.irqchip = _irqchip(self, platform)
        self.check_place()
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

    @property
    def registers(self) -> dict[str, Any]:
        return dict(self.irqchip.get_chip("pit"))

    @registers.setter
    def registers(self, values: dict[str, Any]) -> None:
        channels = [{"count_load_time": 0, **channel} for channel in values["channels"]]
        self.irqchip.set_chip("pit", {**values, "channels": channels})
