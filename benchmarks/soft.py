"""The soft accelerator beside QEMU's TCG in turn: booting Linux, SeaBIOS, computing, and what a kernel does.

Both run the same board, kernel and programs. Figures are CPU time of the whole process, of which the least of the runs
counts, so that a busy host disturbs little; 'native' is the same program on the host. Checksums are compared.

    python benchmarks/soft.py [--runs N] [--only WORD] [--json]
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pathlib
import re
import resource
import shutil
import stat
import statistics
import subprocess
import sys
import tempfile
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside
from beside import linux

MEMORY = 512
CONSOLE = 0x402
# The CPU models of the two sides have different mitigations, which would be what is measured.
CMDLINE = "console=ttyS0 quiet mitigations=off"
CLANG = ("-O2", "-march=x86-64", "-fno-math-errno", "-static")
INTEGER = ("dhrystone", "sha256", "quicksort", "bytecode", "memory", "chase")
FLOAT = ("nbody", "packed")
SYSTEM = ("syscalls", "faults", "forks", "execs")
KERNELS = INTEGER + FLOAT + SYSTEM
COMPILER = "gcc"
CC1 = "-quiet -fpreprocessed -march=x86-64"
SOURCE, LEVELS = "kernels.c", ("-O2", "-O0")
BOOTS = ("boot quiet", "boot verbose")
FIRMWARE = ("SeaBIOS", "SeaBIOS VGA")
STARTED = ", program started too"        # the firmware's rows begin at its first word, these before the program does
SIDES = ("soft", "TCG")
MEANS = (
    ("integer", INTEGER),
    ("floating point", FLOAT),
    ("all eight", INTEGER + FLOAT),
    ("the kernel's work", SYSTEM),
)


def spent(pid: int) -> float:
    """Seconds of CPU that the process has used, all threads."""
    tasks = pathlib.Path(f"/proc/{pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


class Guest:
    """A process with the guest's serial port on its pipes."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.command = command
        self.child = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.seen = b""

    def until(self, words: bytes) -> bytes:
        """What came before them. SystemExit when the process ends first."""
        assert self.child.stdout
        while words not in self.seen:
            data = os.read(self.child.stdout.fileno(), 65536)
            if not data:
                raise SystemExit(
                    f"{' '.join(self.command)}\nended before {words.decode()!r}:\n" + self.seen.decode("latin-1")
                )
            self.seen += data
        before, _, self.seen = self.seen.partition(words)
        return before

    def say(self, line: str) -> None:
        assert self.child.stdin
        self.child.stdin.write(line.encode() + b"\n")
        self.child.stdin.flush()

    def spent(self) -> float:
        return spent(self.child.pid)

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *exc: object) -> None:
        self.child.kill()
        self.child.communicate()


class Bench:
    """Files, commands and figures: rounds[what][side], seconds of each round."""

    def __init__(self, where: pathlib.Path) -> None:
        self.where = where
        self.env = beside.environment(where)
        self.sides = SIDES if beside.has_qemu() else SIDES[:1]
        self.rounds: dict[str, dict[str, list[float]]] = {}
        self.sums: dict[str, str] = {}

    def note(self, what: str, side: str, seconds: float) -> None:
        self.rounds.setdefault(what, {}).setdefault(side, []).append(seconds)

    def turn(self, n: int) -> None:
        """The order of the sides in round n."""
        sides = SIDES if beside.has_qemu() else SIDES[:1]
        self.sides = tuple(beside.turned(sides, n))

    def medians(self) -> dict[str, dict[str, float]]:
        return {
            what: {side: statistics.median(row[side]) for side in ("native", *SIDES) if side in row}
            for what, row in self.rounds.items()
        }

    def compare(self, what: str, side: str, checksum: str) -> None:
        if self.sums.setdefault(what, checksum) != checksum:
            raise SystemExit(f"{what}: {side} computes {checksum}, not {self.sums[what]}")

    def linux_command(self, side: str, kernel: str, initrd: str, cmdline: str) -> list[str]:
        if side == "TCG":
            words = ("-serial", "stdio", "-kernel", kernel, "-initrd", initrd, "-append", cmdline)
            return beside.qemu(MEMORY, *words, accel="tcg")
        keys: dict[str, Any] = {"kernel": kernel, "initrd": initrd, "cmdline": cmdline, "serial": "stdio"}
        return beside.up(beside.machine(self.where / "linux.json", MEMORY, accel="soft", display="none", **keys))

    def boot(self, what: str) -> None:
        cmdline = "console=ttyS0" + (" quiet" if "quiet" in what else "")
        initrd = linux.initramfs(self.where)
        for side in self.sides:
            with Guest(self.linux_command(side, linux.kernel(), initrd, cmdline), self.env) as guest:
                guest.until(b"GUEST-UP")
                self.note(what, side, guest.spent())

    def firmware(self, what: str) -> None:
        """From its first word, and from the program's start, to the attempt to boot, with no disk there is."""
        display = "std" if "VGA" in what else "none"
        device = {"driver": "isa-debugcon", "iobase": CONSOLE, "chardev": "out"}
        fifo = self.where / "fifo"
        if not fifo.exists():
            os.mkfifo(fifo)
        chardevs = {"out": {"type": "file", "path": str(fifo)}}
        file = beside.machine(
            self.where / f"{display}.json", MEMORY, accel="soft", display=display, chardevs=chardevs, devices=[device]
        )
        commands = {
            "soft": beside.up(file),
            "TCG": beside.qemu(
                MEMORY,
                *("-vga", display, "-chardev", f"file,id=out,path={fifo}"),
                *("-device", f"isa-debugcon,iobase={CONSOLE:#x},chardev=out"),
                accel="tcg",
            ),
        }
        for side in self.sides:
            with beside.Watched(commands[side], self.env, fifo) as watched:
                pid = watched.child.pid
                watched.wait_for(b"SeaBIOS")
                began = spent(pid)
                watched.wait_for(b"No bootable device")
                self.note(what, side, spent(pid) - began)
                self.note(what + STARTED, side, spent(pid))

    def compile(self) -> tuple[str, str]:
        """The program, and the archive whose init it is."""
        program = self.where / "kernels"
        source = pathlib.Path(beside.__file__).with_name("kernels.c")
        subprocess.run(["gcc", *CLANG, "-o", str(program), str(source)], check=True)
        initrd = self.where / "kernels.cpio"
        initrd.write_bytes(linux.archive({"init": (stat.S_IFREG | 0o755, program.read_bytes())}))
        return str(program), str(initrd)

    def compute(self, names: list[str], program: str, initrd: str) -> None:
        for line in subprocess.run([program, *names], capture_output=True, text=True, check=True).stdout.splitlines():
            what, seconds, checksum = line.split()
            self.note(what, "native", float(seconds))
            self.compare(what, "native", checksum)
        for side in self.sides:
            with Guest(self.linux_command(side, linux.kernel(), initrd, CMDLINE), self.env) as guest:
                guest.until(b"ready")
                for name in names:
                    began = guest.spent()
                    guest.say(name)
                    guest.until(b"done ")
                    self.note(name, side, guest.spent() - began)
                    self.compare(name, side, guest.until(b"\n").decode().strip())

    def compiler(self) -> str:
        """An archive whose init compiles the benchmarks' own program with the host's compiler, and tells the sum."""
        done = subprocess.run(["gcc", "-print-prog-name=cc1"], capture_output=True, text=True, check=True)
        cc1 = done.stdout.strip()
        found = subprocess.run(["ldd", cc1], capture_output=True, text=True, check=True).stdout
        files: dict[str, tuple[int, bytes]] = {}
        for path in (cc1, *re.findall(r"(/\S+) \(0x", found)):
            name = "cc1" if path == cc1 else path.lstrip("/").removeprefix("usr/")
            for n in range(1, name.count("/") + 1):
                files.setdefault("/".join(name.split("/")[:n]), (stat.S_IFDIR | 0o755, b""))
            files[name] = (stat.S_IFREG | 0o755, pathlib.Path(path).read_bytes())
        source = pathlib.Path(beside.__file__).with_name(SOURCE)
        text = subprocess.run(["gcc", "-E", "-P", str(source)], capture_output=True, check=True).stdout
        (self.where / "source.i").write_bytes(text)
        files["source.i"] = (stat.S_IFREG | 0o644, text)
        self.cc1 = cc1
        script = "busybox stty -echo; echo ready; read line; cd /\n"
        compiles = " && ".join(f"/cc1 {CC1} {level} source.i -o {level[1:]}.s" for level in LEVELS)
        script += f"{compiles}\necho done $(busybox cat *.s | busybox md5sum); read line"
        own = self.where / COMPILER  # the boots' archive has the same name
        own.mkdir()
        path: str = linux.initramfs(own, script, files)
        return path

    def compile_in_guests(self, initrd: str) -> None:
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        for level in LEVELS:
            command = [self.cc1, *CC1.split(), level, "source.i", "-o", f"{level[1:]}.s"]
            subprocess.run(command, cwd=self.where, check=True)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.note(COMPILER, "native", ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime)
        made = b"".join((self.where / f"{level[1:]}.s").read_bytes() for level in sorted(LEVELS))
        self.compare(COMPILER, "native", hashlib.md5(made).hexdigest())
        for side in self.sides:
            with Guest(self.linux_command(side, linux.kernel(), initrd, CMDLINE), self.env) as guest:
                guest.until(b"ready")
                began_at = guest.spent()
                guest.say("go")
                guest.until(b"done ")
                self.note(COMPILER, side, guest.spent() - began_at)
                self.compare(COMPILER, side, guest.until(b" ").decode().strip())

    # --- the tables -----------------------------------------------------------------------------------------

    def ratio(self, what: str, side: str, to: str) -> float | None:
        """The median of the rounds' ratios."""
        row = self.rounds.get(what, {})
        return beside.compare(row[side], row[to])[0] if side in row and to in row else None

    def spread(self, what: str) -> str:
        """Of soft to TCG, with a ? where it is not to be believed."""
        row = self.rounds.get(what, {})
        if not all(side in row for side in SIDES):
            return ""
        middle, low, high = beside.compare(*(row[side] for side in SIDES))
        doubt = "" if beside.believed(len(row[SIDES[0]]), middle, low, high) else " ?"
        return f"   {low:.2f} … {high:.2f}{doubt}"

    def mean(self, names: tuple[str, ...], side: str, to: str) -> float | None:
        """Geometric, of the ratios there are."""
        ratios = [r for r in (self.ratio(name, side, to) for name in names) if r]
        return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None

    def show(self) -> None:
        sides = ("native", *SIDES)
        ratios = (("soft", "native"), ("TCG", "native"), ("soft", "TCG"))
        heads = [f"{side:>11}" for side in sides] + [f"{side + '/' + to:>13}" for side, to in ratios]
        print(f"{'CPU seconds, medians of rounds':<30}" + "".join(heads) + "   spread")
        for what, row in self.medians().items():
            cells = [f"{row[side]:>11.3f}" if side in row else f"{'-':>11}" for side in sides]
            of_rounds = "".join(cell(self.ratio(what, *pair)) for pair in ratios)
            print(f"{what:<30}" + "".join(cells) + of_rounds + self.spread(what))
        for title, names in MEANS:
            means = [self.mean(names, *pair) for pair in ratios]
            if means[0]:
                print(f"{'geometric mean, ' + title:<63}" + "".join(cell(mean) for mean in means))


def cell(ratio: float | None) -> str:
    return f"{'-':>13}" if ratio is None else f"{ratio:>13.2f}"


def main() -> int:
    parser = beside.parser(__doc__ or "", 3)
    parser.add_argument("--only", metavar="WORD", help="only what has WORD in its name (boot, SeaBIOS, sha256 …)")
    options = parser.parse_args()
    wanted = [what for what in BOOTS + FIRMWARE + KERNELS + (COMPILER,) if not options.only or options.only in what]
    if not wanted:
        parser.error(f"nothing is called {options.only!r}: {', '.join(BOOTS + FIRMWARE + KERNELS + (COMPILER,))}")
    why = beside.hindrance("soft")
    if not why and shutil.which("gcc") is None:
        why = "no gcc"
    try:
        linux.kernel()
    except linux.Missing as missing:
        why = why or str(missing)
    if why:
        return beside.nothing("soft", why, options.json)
    if not beside.has_qemu():
        print("soft: QEMU is not installed; vmrun alone", file=sys.stderr)
    kernels = [what for what in wanted if what in KERNELS]
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(pathlib.Path(name))
        program, initrd = bench.compile() if kernels else ("", "")
        compiler = bench.compiler() if COMPILER in wanted else ""
        for n in range(options.runs):
            bench.turn(n)
            for what in wanted:
                if what in BOOTS:
                    bench.boot(what)
                elif what in FIRMWARE:
                    bench.firmware(what)
            if kernels:
                bench.compute(kernels, program, initrd)
            if compiler:
                bench.compile_in_guests(compiler)
    if options.json:
        print(json.dumps({"benchmark": "soft", "unit": "s", "runs": options.runs, "rows": bench.medians()}))
    else:
        bench.show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
