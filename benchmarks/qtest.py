"""Commands of the qtest protocol in a second, vmrun and QEMU in turn, over a unix socket.

'one by one' waits for each answer before the next command; 'in one piece' sends a batch and reads its answers. The
client is the same for both; its own share is in both figures.

    python benchmarks/qtest.py [--runs N] [--json]
"""

from __future__ import annotations

import pathlib
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside

SINGLE, BATCH = 2000, 20000
LINES = {"outb 0x80": b"outb 0x80 0x1\n", "inb 0x71": b"inb 0x71\n", "readl of RAM": b"readl 0x1000\n"}


class Peer:
    def __init__(self, command: list[str], env: dict[str, str], where: pathlib.Path) -> None:
        path = where / f"qtest{time.monotonic_ns()}"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(1)
            command = [*command, "-qtest", f"unix:{path}", "-qtest-log", "none"]
            self.child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            listener.settimeout(beside.PATIENCE)
            self.socket = listener.accept()[0]

    def single(self, line: bytes) -> float:
        """Thousands of commands a second, each waiting for its answer."""
        began = time.perf_counter()
        for _ in range(SINGLE):
            self.socket.sendall(line)
            while not self.socket.recv(256).endswith(b"\n"):
                pass
        return SINGLE / (time.perf_counter() - began) / 1000

    def batch(self, line: bytes) -> float:
        """The same with many on their way at once."""
        import threading

        began, left = time.perf_counter(), BATCH
        sender = threading.Thread(target=self.socket.sendall, args=(line * BATCH,))
        sender.start()
        while left:
            left -= self.socket.recv(1 << 16).count(b"\n")
        sender.join()
        return BATCH / (time.perf_counter() - began) / 1000

    def close(self) -> None:
        self.socket.close()
        self.child.terminate()
        self.child.wait(20)


def main() -> int:
    options = beside.options(__doc__ or "", 7)
    common = ["-M", "pc-i440fx-2.0", "-nodefaults", "-display", "none", "-m", "128"]
    with tempfile.TemporaryDirectory() as name:
        where = pathlib.Path(name)
        env = beside.environment(where)
        ours = [sys.executable, str(beside.ROOT / "bin" / "vmrun-qemu"), *common, "-accel", "qtest"]
        sides = {"vmrun": Peer(ours, env, where)}
        if beside.has_qemu():
            sides["QEMU"] = Peer([beside.QEMU, *common, "-accel", "tcg", "-S"], env, where)
        table = beside.Table("qtest", "1000 commands a second; more is better")
        try:
            for what, line in LINES.items():
                for way in ("single", "batch"):
                    found = beside.alternate(
                        {side: lambda p=peer, w=way, x=line: getattr(p, w)(x) for side, peer in sides.items()},
                        options.runs,
                        1,
                    )
                    kind = "one by one" if way == "single" else "in one piece"
                    table.add(f"{what}, {kind}", found["vmrun"], found.get("QEMU"), 1.0)
        finally:
            for peer in sides.values():
                peer.close()
        table.show(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
