"""What guests of the network's tests have in common: drivers, DHCP, 16 MiB each way to the host with digests."""

from __future__ import annotations

import hashlib
import pathlib
import random
import socket
import stat
import threading
from typing import Any

from tests.guest.linux import LinuxGuest, initramfs, kernel

SIZE = 16 << 20
I386 = pathlib.Path(__file__).resolve().parents[2] / "build" / "i386"  # tools/fetch-i386.sh
VIRTIO = (
    "drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci", "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
)  # fmt: skip
LEASE = """#!/bin/busybox sh
[ "$1" = bound ] || exit 0
/bin/busybox ip addr add $ip/$mask dev $interface
/bin/busybox ip route add default via $router dev $interface
echo LEASE $interface $ip $router $dns
"""
UP = """
busybox mkdir -p /tmp
busybox ip link set lo up
for n in /sys/class/net/eth*; do
  i=${{n##*/}}
  busybox ip link set $i up
  busybox udhcpc -q -n -f -t 10 -T 2 -i $i -s /lease 2>/dev/null || echo NO-LEASE $i
done
"""
BOTH_WAYS = """
busybox nc 10.0.2.2 {source} < /dev/null > /tmp/data
echo CAME $(busybox sha256sum < /tmp/data)
busybox nc 10.0.2.2 {sink} < /tmp/data
echo WENT
"""


def with_network(
    directory: pathlib.Path, script: str, modules: tuple[str, ...] = VIRTIO, cloud: bool = False, pae: bool = False
) -> str:
    """An initramfs that loads the drivers, and has a script for DHCP's client. A module is a path below the kernel's
    own, perhaps with parameters behind it; `pae`: for Debian's 32-bit kernel."""
    root = pathlib.Path("/lib/modules") / kernel(cloud).partition("vmlinuz-")[2] / "kernel"
    extra: dict[str, tuple[int, bytes]] = {"lease": (stat.S_IFREG | 0o755, LEASE.encode())}
    if pae:
        extra["bin/busybox"] = (stat.S_IFREG | 0o755, (I386 / "busybox").read_bytes())
    load = ""
    for module in modules:
        path, _, parameters = module.partition(" ")
        name = path.rpartition("/")[2]
        file = I386 / "modules" / f"{name}.ko" if pae else root / f"{path}.ko"
        extra[f"{name}.ko"] = (stat.S_IFREG | 0o644, file.read_bytes())
        load += f"busybox insmod /{name}.ko {parameters} || echo NO-MODULE {name}\n"
    return initramfs(directory, load + script, extra)


class Peer:
    """The host's end of both transfers: `source` and `sink` are ports, `digest` of what is sent, `got` of what came."""

    def __init__(self, size: int = SIZE) -> None:
        self.data = random.Random(size).randbytes(size)
        self.digest, self.got = hashlib.sha256(self.data).hexdigest(), ""
        self.listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.source, self.sink = (listener.getsockname()[1] for listener in self.listeners)
        for listener, serve in zip(self.listeners, (self._send, self._take), strict=True):
            threading.Thread(target=self._serve, args=(listener, serve), daemon=True).start()

    @staticmethod
    def _serve(listener: socket.socket, serve: Any) -> None:
        try:
            while True:
                client, _ = listener.accept()
                with client:
                    serve(client)
        except OSError:
            pass

    def _send(self, client: socket.socket) -> None:
        client.sendall(self.data)

    def _take(self, client: socket.socket) -> None:
        digest = hashlib.sha256()
        while piece := client.recv(1 << 16):
            digest.update(piece)
        self.got = digest.hexdigest()

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()


def run(
    directory: pathlib.Path,
    script: str,
    card: dict[str, Any],
    patience: float = 300.0,
    modules: tuple[str, ...] = VIRTIO,
    **keys: Any,
) -> tuple[str, list[str]]:
    """The console's text, and what the kernel complained of, of a guest with one card on a user network."""
    netdevs = keys.pop("netdevs", {"lan": {"type": "user"}})
    cards = keys.pop("cards", None) or [{"id": "net0", "netdev": "lan", "romfile": "", **card}]
    initrd = with_network(directory, script, modules)
    with LinuxGuest(
        directory, "soft", "quiet", kernel=kernel(False), initrd=initrd, netdevs=netdevs, devices=cards, **keys
    ) as guest:
        guest.run_to_end(patience)
        return guest.console(), guest.complaints()
