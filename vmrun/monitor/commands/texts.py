"""What the monitor for people shows, as text; which virtio devices there are; the clock's lost ticks."""

from __future__ import annotations

from vmrun.monitor.table import command, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

struct("HumanReadableText", {"human-readable-text": "str"})
struct("VirtioInfo", {"path": "str", "name": "str"})


def _shown(monitor: Any, view: str) -> dict[str, str]:
    from vmrun.monitor.hmp import run

    return {"human-readable-text": str(run(monitor.machine, f"info {view}")).replace("\r\n", "\n")}


@command("x-query-irq", returns="HumanReadableText")
def query_irq(monitor: Any) -> dict[str, str]:
    """How often each interrupt was raised, as `info irq` shows it."""
    return _shown(monitor, "irq")


@command("x-query-numa", returns="HumanReadableText")
def query_numa(monitor: Any) -> dict[str, str]:
    """The NUMA nodes, as `info numa` shows them."""
    return _shown(monitor, "numa")


@command("x-query-ramblock", returns="HumanReadableText")
def query_ramblock(monitor: Any) -> dict[str, str]:
    """The blocks of memory, as `info ramblock` shows them."""
    return _shown(monitor, "ramblock")


@command("x-query-roms", returns="HumanReadableText")
def query_roms(monitor: Any) -> dict[str, str]:
    """The firmware's images and tables, as `info roms` shows them."""
    return _shown(monitor, "roms")


@command("rtc-reset-reinjection")
def rtc_reset_reinjection(monitor: Any) -> None:
    """Forget the clock's ticks that were lost and are to be given again: the guest's time was set otherwise."""
    with monitor.machine.board.lock:
        for device in monitor.machine.devices.values():
            if device.driver == "mc146818rtc":
                device.chip.coalesced = 0


@command("x-query-virtio", returns="[VirtioInfo]")
def query_virtio(monitor: Any) -> list[dict[str, str]]:
    """The virtio devices, the youngest first."""
    found = []
    for device in monitor.machine.devices.values():
        if "virtio-pci" in getattr(device, "parents", ()):
            kind = device.driver.removesuffix("-transitional").removesuffix("-non").removesuffix("-pci")
            found.append({"path": f"{device.path}/virtio-backend", "name": kind})
    return found
