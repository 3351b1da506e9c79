"""From process start to the guest's first instruction, vmrun and QEMU in turn: `vmrun up`, and vmrun-qemu with QEMU's
own line, on KVM and on each one's processor of its own.

The guest is a firmware image whose first instructions write a byte to a debug console, a pipe to this script, and
then to isa-debug-exit. 'to the first exit' ends when that byte is here; 'to the end' is the life of the whole
process, without the console. Nothing is subtracted. vmrun's machine is in its cache of resolved machines, as it is
from the second run of a file on; a line's first run is one that differs from all before; 'cold' is without any cache.

    python benchmarks/startup.py [--runs N] [--json]
"""

from __future__ import annotations

import itertools
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside

MEMORY = 128
CONSOLE = 0x402
# mov dx, 402h; mov al, '!'; out dx, al; mov dx, 501h; out dx, al; hlt
GUEST = "ba0204 b021 ee ba0105 ee f4"


def image() -> bytes:
    """The reset vector has 16 bytes: a jump to the code, which is at F000:0000."""
    rom = bytearray(bytes.fromhex(GUEST).ljust(0x10000, b"\xf4"))
    rom[0xFFF0:0xFFF5] = bytes.fromhex("ea000000f0")
    return bytes(rom)


def pair(words: list[str], env: dict[str, str], numbers: Iterator[int] | None = None) -> dict[str, Callable[[], float]]:
    """The same line by both; `numbers`: with another amount of memory each time."""

    def run(program: list[str]) -> Callable[[], float]:
        return lambda: beside.timed([*program, *words, *(["-m", str(next(numbers))] if numbers else [])], env, [67])

    ours = run([os.path.join(sys.prefix, "bin", "vmrun-qemu")])
    return {"vmrun": ours, **({"QEMU": run([beside.QEMU])} if beside.has_qemu() else {})}


def main() -> int:
    options = beside.options(__doc__ or "", 20)
    why = beside.hindrance()
    if why:
        return beside.nothing("startup", why, options.json)
    with tempfile.TemporaryDirectory() as name:
        where = pathlib.Path(name)
        bios, fifo = where / "bios.bin", where / "fifo"
        bios.write_bytes(image())
        os.mkfifo(fifo)
        env = beside.environment(where)
        firmware = {"bios": str(bios)}
        plain = beside.machine(where / "plain.json", MEMORY, firmware=firmware, devices=[beside.exit_device()])
        talks = beside.machine(
            where / "talks.json",
            MEMORY,
            firmware=firmware,
            chardevs={"out": {"type": "file", "path": str(fifo)}},
            devices=[beside.exit_device(), {"driver": "isa-debugcon", "iobase": CONSOLE, "chardev": "out"}],
        )
        exit_words = ["-bios", str(bios), "-device", f"isa-debug-exit,iobase={beside.EXIT_PORT:#x}"]
        qemu = beside.qemu(MEMORY, *exit_words)
        qemu_talks = [
            *qemu, "-chardev", f"file,id=out,path={fifo}", "-device", f"isa-debugcon,iobase={CONSOLE:#x},chardev=out"
        ]  # fmt: skip
        whole = {"vmrun": lambda: beside.timed(beside.up(plain), env, [0])}
        first = {"vmrun": lambda: beside.until_byte(beside.up(talks), env, fifo)}
        if beside.has_qemu():
            whole["QEMU"] = lambda: beside.timed(qemu, env, [67])
            first["QEMU"] = lambda: beside.until_byte(qemu_talks, env, fifo)
        else:
            print("startup: QEMU is not installed; vmrun alone", file=sys.stderr)

        numbers = itertools.count(MEMORY + 1)
        lines: dict[str, dict[str, Callable[[], float]]] = {}
        for title, accel in (("vmrun-qemu, to the end, KVM", "kvm"), ("vmrun-qemu, to the end, soft and TCG", "tcg")):
            words = ["-accel", accel, "-M", "pc-i440fx-2.0", "-nodefaults", "-display", "none", *exit_words]
            lines[title] = pair([*words, "-m", str(MEMORY)], env)
            if accel == "kvm":
                lines["… first run of a line"] = pair(words, env, numbers)

        def cold() -> float:
            shutil.rmtree(where / "cache", ignore_errors=True)
            return beside.timed(beside.up(plain), env, [0])

        found = beside.alternate(first, options.runs)
        lives = beside.alternate({**whole, "cold": cold}, options.runs, 1)
        warm = beside.alternate(whole, options.runs)
        python = beside.alternate(
            {"python": lambda: beside.timed([sys.executable, "-S", "-c", "pass"], env, [0])}, options.runs
        )
        table = beside.Table("start-up", "ms")
        table.add("to the first exit", found["vmrun"], found.get("QEMU"), 1.0)
        table.add("to the end of the process", warm["vmrun"], warm.get("QEMU"), 1.0)
        table.add("… first run of a file (cold)", lives["cold"], lives.get("QEMU"), 1.5)
        for title, sides in lines.items():
            rounds = beside.alternate(sides, options.runs)
            table.add(title, rounds["vmrun"], rounds.get("QEMU"), 1.0 if "first" not in title else 1.5)
        table.add("… of which `python -S -c pass`", python["python"], None, None)
        table.show(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
