"""A QMP round trip: a command goes out, its answer is read, the next one goes out. vmrun and QEMU in turn.

Both machines stand still before their first instruction; a plain blocking socket is the client. The row is the median
time of one trip; each figure behind it is the median of a batch.

    python benchmarks/qmp.py [--runs N] [--json]
"""

from __future__ import annotations

import json
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside

BATCH = 1000
COMMANDS = {
    "query-status": b'{"execute": "query-status"}\r\n',
    "query-version": b'{"execute": "query-version", "id": 7}\r\n',
    "an error": b'{"execute": "no-such-command"}\r\n',
}


class Client:
    def __init__(self, path: pathlib.Path, child: subprocess.Popen[bytes]) -> None:
        self.child = child
        self.socket = socket.socket(socket.AF_UNIX)
        for _ in range(600):
            try:
                self.socket.connect(str(path))
                break
            except OSError:
                time.sleep(0.05)
        self.lines = self.socket.makefile("rb")
        self.lines.readline()
        self.trip(b'{"execute": "qmp_capabilities"}\r\n')

    def trip(self, line: bytes) -> bytes:
        self.socket.sendall(line)
        return self.lines.readline()

    def batch(self, line: bytes) -> float:
        """Median of a batch of trips, µs."""
        times = []
        for _ in range(BATCH):
            began = time.perf_counter_ns()
            self.trip(line)
            times.append(time.perf_counter_ns() - began)
        return statistics.median(times) / 1000

    def close(self) -> None:
        self.socket.close()
        self.child.terminate()
        self.child.wait(20)


def main() -> int:
    options = beside.options(__doc__ or "", 15)
    with tempfile.TemporaryDirectory() as name:
        where = pathlib.Path(name)
        env = beside.environment(where)
        file = where / "m.json"
        text = {
            "schema": "vmrun/machine/1", "machine": "pc-i440fx-2.0", "accel": "qtest", "memory": "128MiB",
            "chardevs": {"mon": {"type": "socket", "path": str(where / "ours"), "server": True, "wait": False}},
            "monitors": {"mon": {"chardev": "mon", "mode": "control"}},
        }  # fmt: skip
        file.write_text(json.dumps(text))
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "env": env}
        sides = {}
        ours = subprocess.Popen(beside.up(file, "--paused"), **quiet)  # type: ignore[call-overload]
        sides["vmrun"] = Client(where / "ours", ours)
        if beside.has_qemu():
            command = [beside.QEMU, "-M", "pc-i440fx-2.0", "-accel", "tcg", "-nodefaults", "-display", "none", "-S"]
            theirs = subprocess.Popen([*command, "-qmp", f"unix:{where / 'theirs'},server=on,wait=off"], **quiet)  # type: ignore[call-overload]
            sides["QEMU"] = Client(where / "theirs", theirs)
        table = beside.Table("QMP round trip", "µs")
        try:
            for what, line in COMMANDS.items():
                found = beside.alternate(
                    {side: lambda c=client, x=line: c.batch(x) for side, client in sides.items()}, options.runs, 1
                )
                table.add(what, found["vmrun"], found.get("QEMU"), 1.0)
        finally:
            for client in sides.values():
                client.close()
        table.show(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
