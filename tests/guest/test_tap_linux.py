"""Stock Linux behind a tap, in a network namespace of the test's own; needs the right to make one."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.guest.network import with_network

pytestmark = [pytest.mark.guest, pytest.mark.slow]

SCRIPT = """
busybox ip link set eth0 up
busybox ip addr add 10.8.0.2/24 dev eth0
n=0
while ! busybox ping -c 1 -W 1 10.8.0.1 >/dev/null && [ $n -lt 60 ]; do n=$((n + 1)); done
echo REACHED
busybox nc 10.8.0.1 {source} < /dev/null > /tmp/data
echo CAME $(busybox sha256sum < /tmp/data)
busybox nc 10.8.0.1 {sink} < /tmp/data
n=0
while [ $n -lt {flows} ]; do busybox nc 10.8.0.1 {source} < /dev/null > /dev/null; n=$((n + 1)); done
grep virtio0 /proc/interrupts
echo OFFLOADS $(cat /sys/class/net/eth0/device/features)
"""
INSIDE = """
import pathlib, subprocess, sys, time, threading, hashlib, socket
from tests.guest.linux import LinuxGuest, kernel
from tests.guest.network import Peer, with_network
from tests.guest import test_tap_linux as own
directory, queues = pathlib.Path(sys.argv[1]), int(sys.argv[2])
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
peer = Peer(own.MOVED[queues])
ports = []
for port in (peer.source, peer.sink):   # the peer listens on the loopback: relay what comes in by the tap
    ports.append(port)
several = ["multi_queue"] if queues > 1 else []
subprocess.run(["ip", "tuntap", "add", "dev", "tap0", "mode", "tap", *several], check=True)
subprocess.run(["ip", "addr", "add", "10.8.0.1/24", "dev", "tap0"], check=True)
subprocess.run(["ip", "link", "set", "tap0", "up"], check=True)
def relay(port):
    with socket.create_server(("10.8.0.1", port)) as server:
        while True:
            client, _ = server.accept()
            other = socket.create_connection(("127.0.0.1", port))
            def pump(a, b):
                while data := a.recv(1 << 16):
                    b.sendall(data)
                try:
                    b.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
            threading.Thread(target=pump, args=(client, other), daemon=True).start()
            threading.Thread(target=pump, args=(other, client), daemon=True).start()
for port in ports:
    threading.Thread(target=relay, args=(port,), daemon=True).start()
script = own.SCRIPT.format(source=peer.source, sink=peer.sink, flows=24 if queues > 1 else 0)
guest = LinuxGuest(
    directory, "soft", "quiet", machine="pc-i440fx-7.2", kernel=kernel(False), initrd=with_network(directory, script),
    netdevs={"net": {"type": "tap", "ifname": "tap0", "queues": queues}}, cpus={"count": queues},
    devices=[{"id": "net0", "driver": "virtio-net-pci", "netdev": "net", "romfile": "", "mq": queues > 1}],
)
with guest:
    guest.run_to_end(300)
    print(guest.console())
    print("HEADERS", guest.machine.board.netdevs["net"].can)
print("DIGEST", peer.digest, peer.got)
"""


MOVED = {1: 16 << 20, 2: 256 << 10}  # bytes, by the number of queues


def inside(directory: pathlib.Path, queues: int) -> str:
    """What the guest said, in a namespace of its own."""
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun") or shutil.which("ip") is None:
        pytest.skip("no right to make a tap")
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", INSIDE, str(directory), str(queues)],
        cwd=pathlib.Path(__file__).parents[2], capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert "REACHED" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    digest, got = done.stdout.rpartition("DIGEST ")[2].split()
    assert digest == got and f"CAME {digest}" in done.stdout
    assert "HEADERS 15" in done.stdout  # checksums and segments are the kernel's
    return done.stdout


def test_linux_moves_16_mib_each_way_by_a_tap(tmp_path: pathlib.Path) -> None:
    inside(tmp_path, 1)


def test_two_processors_use_a_pair_of_queues_each(tmp_path: pathlib.Path) -> None:
    """The kernel spreads flows over the tap's queues; each has interrupts of its own in the guest."""
    rows = [row.split() for row in inside(tmp_path, 2).splitlines() if "virtio0-" in row]
    counts = {row[-1]: sum(map(int, row[1:3])) for row in rows}
    assert {"virtio0-input.0", "virtio0-input.1", "virtio0-output.0", "virtio0-output.1"} <= set(counts), counts
    assert counts["virtio0-input.0"] > 10 and counts["virtio0-input.1"] > 10, counts


__all__ = ["SCRIPT", "with_network"]
