"""A processor as clients of the object tree see it."""

from __future__ import annotations

from vmrun.core.object import Object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Processor(Object):
    """/machine/unattached/cpu[N]. `values`: its properties, all fixed."""

    def __init__(self, index: int, apic_id: int, cpus: dict[str, Any]) -> None:
        super().__init__(f"cpu[{index}]")
        self.driver = f"{cpus['model']}-x86_64-cpu"
        self.values: dict[str, Any] = {
            "realized": True,
            "hotplugged": False,
            "apic-id": apic_id,
            **place(index, cpus),
        }


def place(index: int, cpus: dict[str, Any]) -> dict[str, int]:
    """The socket, core and thread that processor `index` is."""
    cores, threads = int(cpus.get("cores", 1)), int(cpus.get("threads", 1))
    return {
        "socket-id": index // (cores * threads),
        "core-id": index // threads % cores,
        "thread-id": index % threads,
    }
