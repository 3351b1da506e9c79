"""A processor as clients of the object tree see it."""

from __future__ import annotations

from vmrun.core.object import Object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import Cpus, MachineData
    from vmrun.machine.assembly import Assembly
    from vmrun.machine.board import Board
    from vmrun.machine.machine import Machine


class Processor(Object):
    """/machine/unattached/cpu[N]. `values`: its properties, all fixed."""

    def __init__(self, index: int, apic_id: int, cpus: Cpus, hotplugged: bool = False) -> None:
        super().__init__(f"cpu[{index}]")
        self.index = index
        self.driver = f"{cpus['model']}-x86_64-cpu"
        self.values: dict[str, Any] = {
            "realized": True,
            "hotplugged": hotplugged,
            "apic-id": apic_id,
            **place(index, cpus),
        }
        self.hotpluggable = True


def find(machine: Machine, index: int) -> Processor:
    """The node of processor `index`, the newest of that number."""
    for parent in (machine.assembly.peripheral, machine.assembly.board_parts):
        for node in parent.children.values():
            if isinstance(node, Processor) and node.index == index:
                return node
    raise KeyError(index)


def place(index: int, cpus: Cpus) -> dict[str, int]:
    """The socket, core and thread that processor `index` is."""
    cores, threads = int(cpus.get("cores", 1)), int(cpus.get("threads", 1))
    return {
        "socket-id": index // (cores * threads),
        "core-id": index // threads % cores,
        "thread-id": index % threads,
    }


def numa_node(index: int, config: MachineData) -> dict[str, int]:
    """The NUMA node of processor `index`, when the machine has nodes."""
    found = next((n for n, node in enumerate(config.get("numa") or ()) if index in node["cpus"]), None)
    return {} if found is None else {"node-id": found}


def create(
    board: Board, assembly: Assembly, index: int, entries: list[dict[str, int]], *, id: str = "",
    hotplugged: bool = False, system: Any = None,
) -> Processor:
    """Processor `index` of those that the board has: a thread that waits, an APIC where the accelerator has none, a
    node of the tree. `id`: of one that was plugged in, before power-on or, `hotplugged`, while the machine runs.
    `system`: the bus of the APICs, where they are devices.
    """
    apic_id, cpus = board.possible_apic_ids[index], board.config["cpus"]
    board.accelerator.create_vcpu(index, apic_id, entries)
    node = Processor(index, apic_id, cpus, hotplugged)
    if id:
        assembly.peripheral.add_child(node, id)
    else:
        assembly.board_parts.add_child(node)
    if board.accelerator.own_apic:
        from vmrun.machine import apics

        with board.lock, board.memory.transaction():
            apics.add_apic(board, assembly.board_parts, system, index, entries, cpus.get("apic", {}))
    return node
