"""A guest that writes to its serial port as fast as it may: how fast its bytes come out of a pty and of a unix socket,
and how long a QMP round trip takes meanwhile (p50 and p99, beside those of an idle machine). vmrun-qemu and QEMU in
turn, both without KVM; the guest is a boot sector that waits for the transmitter before each byte.

    python benchmarks/serial.py [--runs N] [--json] [--bytes N]
"""

from __future__ import annotations

import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside

# mov dx, 3fdh; again: in al, dx; test al, 20h; jz again; mov dx, 3f8h; mov al, 'x'; out dx, al; jmp to the start
FLOOD = bytes.fromhex("bafd03 ec a820 74fb baf803 b078 ee ebf0")
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
        if serial == "pty":
            self.reader = os.open(self._pty(), os.O_RDWR | os.O_NOCTTY)
            import tty

            tty.setraw(self.reader)
        elif serial == "socket":
            self.reader = self._connected(line).detach()
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

    def milliseconds(self, count: int) -> float:
        """For `count` of the guest's bytes, after the first thousand."""
        self._read(1000)
        began = time.perf_counter_ns()
        self._read(count)
        return (time.perf_counter_ns() - began) / 1e6

    def _read(self, count: int) -> None:
        while count > 0:
            data = os.read(self.reader, min(count, 65536))
            if not data:
                raise SystemExit("the serial line is gone")
            count -= len(data)

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

        speed = beside.Table(f"{options.bytes} bytes of a serial port", "ms")
        for serial in ("pty", "socket"):
            sides = started("flood", serial)
            for side in sides.values():
                side.milliseconds(1000)  # the firmware is through
            found = beside.alternate(
                {name: lambda s=side: s.milliseconds(options.bytes) for name, side in sides.items()}, options.runs, 1
            )
            speed.add(f"through a {serial}", found["vmrun"], found.get("QEMU"), 1.0)
            for side in sides.values():
                side.close()
        tables.append(speed)
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
