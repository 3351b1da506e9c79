"""Resident memory of an idle machine of 256 MiB, vmrun beside QEMU with KVM.

SeaBIOS has found no bootable device and halts. RSS counts all pages of the process, PSS a share of those that other
processes have as well (libraries), 'private' only its own; the guest's own memory, of which the same firmware touches
as much on both sides, is in all of them.

    python benchmarks/memory.py [--runs N] [--json]
"""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside

MEMORY = 256
CONSOLE = 0x402
SETTLE = 1.0  # seconds from the firmware's last words to the measurement
KINDS = {"RSS": ("Rss",), "PSS": ("Pss",), "private": ("Private_Clean", "Private_Dirty")}


def resident(command: list[str], env: dict[str, str], fifo: pathlib.Path) -> dict[str, float]:
    """MiB by kind."""
    with beside.Watched(command, env, fifo) as watched:
        watched.wait_for(b"No bootable device")
        time.sleep(SETTLE)
        lines = pathlib.Path(f"/proc/{watched.child.pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return {kind: sum(sizes[name] for name in names) for kind, names in KINDS.items()}


def main() -> int:
    options = beside.options(__doc__ or "", 3)
    why = beside.hindrance()
    if why:
        return beside.nothing("memory", why, options.json)
    if not beside.has_qemu():
        print("memory: QEMU is not installed; vmrun alone", file=sys.stderr)
    table = beside.Table("idle machine of 256 MiB", "MiB")
    with tempfile.TemporaryDirectory() as name:
        where = pathlib.Path(name)
        fifo = where / "fifo"
        os.mkfifo(fifo)
        env = beside.environment(where)
        for display in ("none", "std"):
            file = beside.machine(
                where / f"{display}.json",
                MEMORY,
                display=display,
                chardevs={"out": {"type": "file", "path": str(fifo)}},
                devices=[{"driver": "isa-debugcon", "iobase": CONSOLE, "chardev": "out"}],
            )
            commands = {"vmrun": beside.up(file)}
            if beside.has_qemu():
                commands["QEMU"] = beside.qemu(
                    MEMORY,
                    *("-vga", display, "-chardev", f"file,id=out,path={fifo}"),
                    *("-device", f"isa-debugcon,iobase={CONSOLE:#x},chardev=out"),
                )
            found: dict[str, list[dict[str, float]]] = {who: [] for who in commands}
            resident(commands["vmrun"], env, fifo)  # from here on the machine is in the cache
            for n in range(options.runs):
                for who, command in beside.turned(commands.items(), n):
                    found[who].append(resident(command, env, fifo))
            for kind in KINDS:
                rows = {who: [run[kind] for run in runs] for who, runs in found.items()}
                what = f"{'no display' if display == 'none' else 'standard VGA'}, {kind}"
                table.add(what, rows["vmrun"], rows.get("QEMU"), 1.0)
    table.show(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
