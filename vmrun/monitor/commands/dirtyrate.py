"""How much memory the guest writes: some of its pages are looked at twice.

Of each GiB so many pages, wherever they are; those that are others after the time stand for the rest. Nothing is
counted while the guest runs, so it is as fast as ever; what is written twice, or to what it was before, is not seen.
"""

from __future__ import annotations

from random import Random
from time import monotonic, sleep
from zlib import crc32

from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, enums, struct
from vmrun.monitor.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.ram import RamBlock

PAGE = 4096
SECONDS, SAMPLES = (1, 60), (128, 16384)  # that may be asked for
USUAL = 512  # samples in each GiB

enums["DirtyRateStatus"] = ("unstarted", "measuring", "measured")
enums["DirtyRateMeasureMode"] = ("page-sampling", "dirty-ring", "dirty-bitmap")
struct("DirtyRateVcpu", {"id": "int", "dirty-rate": "int"})
struct(
    "DirtyRateInfo",
    {
        **{"dirty-rate?": "int", "status": "DirtyRateStatus", "start-time": "int", "calc-time": "int"},
        **{"sample-pages": "int", "mode": "DirtyRateMeasureMode", "vcpu-dirty-rate?": "[DirtyRateVcpu]"},
    },
)


@command("calc-dirty-rate", {"calc-time": "int", "sample-pages?": "int", "mode?": "DirtyRateMeasureMode"})
def calc_dirty_rate(monitor: Any, calc_time: int, sample_pages: int = USUAL, mode: str = "page-sampling") -> None:
    """Measure how much memory the guest writes in the next so many seconds, by samples of its pages; query-dirty-rate
    tells what came of it.
    """
    from vmrun.machine.snapshot import blocks

    machine = monitor.machine
    if machine.dirty_rate.get("status") == "measuring":
        raise QmpError("the dirty rate is already being measured.")
    for name, value, (least, most) in (("calc-time", calc_time, SECONDS), ("sample-pages", sample_pages, SAMPLES)):
        if not least <= value <= most:
            raise QmpError(f"{name} is out of range[{least}, {most}].")
    if mode != "page-sampling":
        raise QmpError(f"mode '{mode}' is not there: use page-sampling")
    found = machine.dirty_rate = {
        **{"status": "measuring", "start-time": int(monotonic()), "calc-time": calc_time},
        **{"sample-pages": sample_pages, "mode": mode},
    }

    def done(rate: Any, error: QmpError | None) -> None:
        found["status"] = "measured" if error is None else "unstarted"
        if error is None:
            found["dirty-rate"] = rate

    held = [block for block in blocks(machine).values() if block.size >= PAGE]
    Work(machine, lambda work: _measure(work, held, calc_time, sample_pages)).start(done)


def _measure(work: Work, held: list[RamBlock], seconds: int, samples: int) -> int:
    """MiB that are written in a second."""
    random = Random()
    pages: list[tuple[Any, int]] = []
    for block in held:
        count = block.size // PAGE
        wanted = min(count, max(1, block.size * samples >> 30))
        pages += [(block, page * PAGE) for page in random.sample(range(count), wanted)]
    began = monotonic()
    before = [crc32(block.read(offset, PAGE)) for block, offset in pages]
    while not work.ended and monotonic() - began < seconds:
        sleep(0.02)
    changed = sum(
        crc32(block.read(offset, PAGE)) != known for (block, offset), known in zip(pages, before, strict=True)
    )
    whole = sum(block.size for block in held)
    return int(whole * changed / max(1, len(pages)) / max(monotonic() - began, 0.001)) >> 20


@command("query-dirty-rate", returns="DirtyRateInfo")
def query_dirty_rate(monitor: Any) -> dict[str, Any]:
    """What the last measurement came to, or that it goes on."""
    none = {"status": "unstarted", "mode": "page-sampling", "start-time": 0, "calc-time": 0, "sample-pages": 0}
    return {**none, **monitor.machine.dirty_rate}
