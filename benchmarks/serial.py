"""A guest that writes to its serial port as fast as it may: how fast its bytes come out of a pty and of a unix socket,
and how long a QMP round trip takes meanwhile (p50 and p99, beside those of an idle machine). vmrun-qemu and QEMU in
turn, both without KVM; the guest is a boot sector that waits for the transmitter before each byte and counts: each byte
is the one before plus one, and the reader holds every one of them against that.

A round begins with nothing on its way: the machine stands still and the line is empty. It ends when the reader has its
bytes; then the machine stands still again, so that it takes nothing from the other side. Time by the clock has the
reader's work in it; the processor time is the program's own, user and system.

    python benchmarks/serial.py [--runs N] [--json] [--bytes N]
"""

from __future__ import annotations

import os
import pathlib
import re
import select
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside

# xor bl, bl; next: mov dx, 3fdh; again: in al, dx; test al, 20h; jz again; mov dx, 3f8h; mov al, bl; out dx, al;
# inc bl; jmp next
FLOOD = bytes.fromhex("30db bafd03 ec a820 74fb baf803 88d8 ee fec3 ebee")
COUNTING = bytes(range(256)) * 257  # 64 KiB from any of its first 256 places
HALT = bytes.fromhex("f4 ebfd")
TRIPS = 2000
QUERY = b'{"execute": "query-status"}\r\n'


class Side:
    """One program with that guest. `serial`: pty, socket or null."""

    def __init__(self, program: list[str], where: pathlib.Path, image: pathlib.Path, serial: str) -> None:
        control, line = where / "qmp", where / "line"
        for path in (control, line):
            path.unlink(missing_ok=True)
        back_end = {"pty": "pty", "null": "file:/dev/null", "socket": f"unix:{line},server=on,wait=off"}[serial]
        command = [*program, "-accel", "tcg", "-M", "pc-i440fx-2.0", "-m", "32", "-nodefaults", "-display", "none"]
        command += ["-qmp", f"unix:{control},server=on,wait=off", "-serial", back_end, "-S"]
        command += ["-drive", f"file={image},format=raw,if=ide"]
        self.output = (where / "said").open("w+b")
        self.child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output, env=beside.environment(where)
        )
        self.control = self._connected(control)
        self.lines = self.control.makefile("rb")
        self.lines.readline()
        self.trip(b'{"execute": "qmp_capabilities"}\r\n')
        self.reader = -1
        self.next: int | None = None  # what the guest says next
        if serial == "pty":
            self.reader = os.open(self._pty(), os.O_RDWR | os.O_NOCTTY)
            import tty

            tty.setraw(self.reader)
        elif serial == "socket":
            self.reader = self._connected(line).detach()
        if self.reader < 0:
            self.trip(b'{"execute": "cont"}\r\n')

    def _connected(self, path: pathlib.Path) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        for _ in range(1200):
            try:
                made.connect(str(path))
                return made
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"nobody listens on {path}")

    def _pty(self) -> str:
        for _ in range(1200):
            found = re.search(rb"/dev/pts/\d+", pathlib.Path(self.output.name).read_bytes())
            if found:
                return found[0].decode()
            time.sleep(0.05)
        raise SystemExit("no pty was told of")

    def trip(self, line: bytes) -> None:
        self.control.sendall(line)
        while b'"event"' in (answer := self.lines.readline()):
            pass
        if not answer:
            raise SystemExit("the monitor is gone")

    def trips(self) -> list[float]:
        """Of TRIPS round trips, µs, in order of length."""
        found = []
        for _ in range(TRIPS):
            began = time.perf_counter_ns()
            self.trip(QUERY)
            found.append((time.perf_counter_ns() - began) / 1000)
        return sorted(found)

    def round(self, count: int) -> tuple[float, float]:
        """Milliseconds for `count` of the guest's bytes: by the clock, and of the program's processor time."""
        while select.select([self.reader], [], [], 0.2)[0]:
            self._take(65536)
        used, began = self._used(), time.perf_counter_ns()
        self.trip(b'{"execute": "cont"}\r\n')
        while count > 0:
            count -= self._take(min(count, 65536))
        took = (time.perf_counter_ns() - began) / 1e6
        self.trip(b'{"execute": "stop"}\r\n')
        return took, (self._used() - used) * 1000

    def _take(self, most: int) -> int:
        """Read what there is, at most so much; each byte has to be the one before plus one."""
        data = os.read(self.reader, most)
        if not data:
            raise SystemExit("the serial line is gone")
        if self.next is None:
            self.next = data[0]
        if data != COUNTING[self.next : self.next + len(data)]:
            raise SystemExit("bytes of the serial line are lost or others")
        self.next = (data[-1] + 1) & 0xFF
        return len(data)

    def _used(self) -> float:
        """Seconds of processor time: clock_getcpuclockid(3) of the program."""
        return time.clock_gettime(~self.child.pid << 3 | 2)

    def close(self) -> None:
        if self.reader >= 0:
            os.close(self.reader)
        self.control.close()
        self.child.terminate()
        self.child.wait(60)
        self.output.close()


def main() -> int:
    parser = beside.parser(__doc__ or "", 9)
    parser.add_argument("--bytes", type=int, default=200_000, metavar="N", help="bytes of a round (default 200000)")
    options = parser.parse_args()
    tables = []
    with tempfile.TemporaryDirectory() as name:
        where = pathlib.Path(name)
        code = {"flood": FLOOD, "idle": HALT}
        programs = {"vmrun": [sys.executable, str(beside.ROOT / "bin" / "vmrun-qemu")]}
        if beside.has_qemu():
            programs["QEMU"] = [beside.QEMU]

        def started(kind: str, serial: str) -> dict[str, Side]:
            found = {}
            for side, program in programs.items():
                place = where / f"{side}-{kind}-{serial}"
                place.mkdir()
                image = place / "disk.img"
                image.write_bytes(code[kind].ljust(510, b"\0") + b"\x55\xaa" + bytes((1 << 20) - 512))
                found[side] = Side(program, place, image, serial)
            return found

        speed = beside.Table(f"{options.bytes} bytes of a serial port, by the clock", "ms")
        spent = beside.Table(f"{options.bytes} bytes of a serial port, processor time", "ms")
        for serial in ("pty", "socket"):
            sides = started("flood", serial)
            rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
            for side in sides.values():
                side.round(1000)  # the firmware is through
            for n in range(options.runs):
                for name, side in beside.turned(sides.items(), n):
                    rounds[name].append(side.round(options.bytes))
            for table, n in ((speed, 0), (spent, 1)):
                rows = {name: [pair[n] for pair in pairs] for name, pairs in rounds.items()}
                table.add(f"through a {serial}", rows["vmrun"], rows.get("QEMU"), 1.0)
            for side in sides.values():
                side.close()
        tables += [speed, spent]
        trips = beside.Table("QMP round trip", "µs")
        for kind, words in (("idle", "idle"), ("flood", "the guest floods its serial port")):
            sides = started(kind, "null")
            time.sleep(3)
            found_trips: dict[str, list[list[float]]] = {name: [] for name in sides}
            for n in range(options.runs + 1):
                for name, side in beside.turned(sides.items(), n):
                    found_trips[name].append(side.trips())
            for share, label in ((0.5, "p50"), (0.99, "p99")):
                rows = {
                    name: [batch[int(share * TRIPS)] for batch in batches[1:]] for name, batches in found_trips.items()
                }
                trips.add(f"{label}, {words}", rows["vmrun"], rows.get("QEMU"), 0.5 if label == "p50" else None)
            for side in sides.values():
                side.close()
        tables.append(trips)
    for table in tables:
        table.show(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
