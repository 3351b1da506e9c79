"""Local APICs of our own: one for each processor of an accelerator that has none inside."""

from __future__ import annotations

from vmrun.core import registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.object import Device, Object
    from vmrun.machine.board import Board

MODULE = "vmrun.devices.intc.apic"
X2APIC, TSC_DEADLINE = 1 << 21, 1 << 24  # CPUID 1, ECX


def apic_system() -> Any:
    """The bus that APICs, I/O APIC and MSIs share. Made before the devices, which ask for it."""
    cls: Any = registry.find("apic", MODULE)
    return cls.new_system()


def add_apic(
    board: Board, parent: Object, system: Any, index: int, cpuid: list[dict[str, int]], values: dict[str, Any]
) -> Device:
    """The APIC of processor `index`, realized and connected to it. values: properties that the type freezes."""
    features = next((leaf["ecx"] for leaf in cpuid if leaf["function"] == 1), 0)
    cls: Any = registry.find("apic", MODULE)
    apic = cls("")
    parent.add_child(apic, f"lapic[{index}]")
    apic.system, apic.bsp = system, index == 0
    apic.set_props({**values, "id": board.possible_apic_ids[index]})
    apic.realize(board)
    apic.realized = True
    apic.lapic.x2apic_allowed = bool(features & X2APIC)
    apic.lapic.deadline_allowed = bool(features & TSC_DEADLINE)
    board.accelerator.attach_apic(index, apic.lapic, apic.inputs["lint"])
    board.devices[apic.name] = apic
    device: Device = apic
    return device


def remove_apic(board: Board, parent: Object, index: int) -> None:
    """That of processor `index`."""
    apic = board.devices.pop(f"lapic[{index}]", None)
    if apic is not None:
        apic.unrealize()
        parent.children.pop(apic.name)
