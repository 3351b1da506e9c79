"""A stock Linux moves bytes to and from the host through a network card on a user network: soft beside TCG.

Milliseconds for each transfer as the host sees it, from the connection to its end; the guest's nc, its kernel and its
processor are in it, as they are for users. `ping`: the guest's round trip to the host, in microseconds, by the
guest's own clock.

    python benchmarks/net.py [--runs N] [--size MIB] [--card virtio-net-pci] [--json]
"""

from __future__ import annotations

import os
import pathlib
import re
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import beside
from beside import linux

MEMORY = 256
DRIVERS = {
    "virtio-net-pci": (
        "drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_legacy_dev",
        "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci", "net/core/failover",
        "drivers/net/net_failover", "drivers/net/virtio_net",
    ),
    "e1000": ("drivers/net/ethernet/intel/e1000/e1000",),
}  # fmt: skip
SCRIPT = """
for m in {names}; do busybox insmod /$m.ko; done
busybox ip link set lo up
busybox ip link set eth0 up
busybox ip addr add 10.0.2.15/24 dev eth0
sleep 1
busybox ping -c 1 10.0.2.2 >/dev/null
busybox ping -c 40 -i 0.02 10.0.2.2 | busybox tail -n 1
busybox nc 10.0.2.2 {source} < /dev/null > /dev/null
busybox dd if=/dev/zero bs=64k count={blocks} 2>/dev/null | busybox nc 10.0.2.2 {sink}
"""


class Peer:
    def __init__(self, size: int) -> None:
        self.size, self.spent = size, {"in": 0.0, "out": 0.0}
        self.servers = {"in": socket.create_server(("127.0.0.1", 0)), "out": socket.create_server(("127.0.0.1", 0))}
        for way, server in self.servers.items():
            threading.Thread(target=self._serve, args=(way, server), daemon=True).start()

    def port(self, way: str) -> int:
        return int(self.servers[way].getsockname()[1])

    def _serve(self, way: str, server: socket.socket) -> None:
        block = bytes(1 << 16)
        while True:
            client, _ = server.accept()
            start, left = time.monotonic(), self.size
            with client:
                if way == "in":
                    while left > 0:
                        left -= client.send(block[: min(left, 1 << 16)])
                    client.shutdown(socket.SHUT_WR)
                    client.recv(1)  # until the guest has it all and closes
                else:
                    while data := client.recv(1 << 18):
                        left -= len(data)
                    if left:
                        raise SystemExit(f"{left} bytes are missing")
                self.spent[way] = (time.monotonic() - start) * 1000


def initrd(where: pathlib.Path, card: str, kernel: str, peer: Peer) -> str:
    root = pathlib.Path("/lib/modules") / kernel.partition("vmlinuz-")[2] / "kernel"
    extra = {}
    for module in DRIVERS[card]:
        extra[module.rpartition("/")[2] + ".ko"] = (stat.S_IFREG | 0o644, (root / f"{module}.ko").read_bytes())
    names = " ".join(name.removesuffix(".ko") for name in extra)
    ports = {"source": peer.port("in"), "sink": peer.port("out"), "blocks": peer.size >> 16}
    return linux.initramfs(where, SCRIPT.format(names=names, **ports), extra)


def command(side: str, card: str, where: pathlib.Path, kernel: str, initramfs: str) -> list[str]:
    if side == "TCG":
        words = ["-serial", "stdio", "-kernel", kernel, "-initrd", initramfs, "-append", "console=ttyS0 quiet"]
        net = ["-netdev", "user,id=lan", "-device", f"{card},netdev=lan,romfile="]
        return beside.qemu(MEMORY, *words, *net, accel="tcg")
    keys: dict[str, Any] = {
        "kernel": kernel, "initrd": initramfs, "cmdline": "console=ttyS0 quiet", "serial": "stdio", "display": "none",
        "netdevs": {"lan": {"type": "user"}},
        "devices": [{"id": "net0", "driver": card, "netdev": "lan", "romfile": ""}],
    }  # fmt: skip
    return beside.up(beside.machine(where / "net.json", MEMORY, accel="soft", **keys))


def main() -> None:
    parser = beside.parser(__doc__ or "", 3)
    parser.add_argument("--size", type=int, default=32, metavar="MIB", help="of each transfer (default 32)")
    parser.add_argument("--card", choices=tuple(DRIVERS), default="virtio-net-pci")
    args = parser.parse_args()
    why = beside.hindrance("soft")
    if why:
        raise SystemExit(why)
    sides = ("soft", "TCG") if beside.has_qemu() else ("soft",)
    rows: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        where, env = pathlib.Path(name), beside.environment(pathlib.Path(name))
        env["XDG_RUNTIME_DIR"] = name
        kernel, peer = linux.kernel(False), Peer(args.size << 20)
        initramfs = initrd(where, args.card, kernel, peer)
        for n in range(args.runs):
            for side in beside.turned(sides, n):
                done = subprocess.run(
                    command(side, args.card, where, kernel, initramfs), env=env, stdin=subprocess.DEVNULL,
                    capture_output=True, text=True, timeout=600,
                )  # fmt: skip
                found = re.search(r"= [\d.]+/([\d.]+)/", done.stdout)
                if found is None:
                    raise SystemExit(f"{side}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
                for what, value in (
                    (f"{args.size} MiB to the guest, ms", peer.spent["in"]),
                    (f"{args.size} MiB from the guest, ms", peer.spent["out"]),
                    ("ping, µs", float(found[1]) * 1000),
                ):
                    rows.setdefault(what, {}).setdefault(side, []).append(value)
    table = beside.Table(f"{args.card}, user network", "ms, µs", "TCG")
    for what, row in rows.items():
        table.add(what, row["soft"], row.get("TCG"), 0.67 if args.card.startswith("virtio") else 1.0)
    table.show(args.json)


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C")
    main()
