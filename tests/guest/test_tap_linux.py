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
echo OFFLOADS $(cat /sys/class/net/eth0/device/features)
"""
INSIDE = """
import pathlib, subprocess, sys, time, threading, hashlib, socket
from tests.guest.linux import LinuxGuest, kernel
from tests.guest.network import Peer, with_network
from tests.guest import test_tap_linux as own
directory = pathlib.Path(sys.argv[1])
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
peer = Peer()
ports = []
for port in (peer.source, peer.sink):   # the peer listens on the loopback: relay what comes in by the tap
    ports.append(port)
subprocess.run(["ip", "tuntap", "add", "dev", "tap0", "mode", "tap"], check=True)
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
script = own.SCRIPT.format(source=peer.source, sink=peer.sink)
guest = LinuxGuest(
    directory, "soft", "quiet", machine="pc-i440fx-7.2", kernel=kernel(False), initrd=with_network(directory, script),
    netdevs={"net": {"type": "tap", "ifname": "tap0", "script": "no", "downscript": "no"}},
    devices=[{"id": "net0", "driver": "virtio-net-pci", "netdev": "net", "romfile": ""}],
)
with guest:
    guest.run_to_end(300)
    print(guest.console())
    print("HEADERS", guest.machine.board.netdevs["net"].can)
print("DIGEST", peer.digest, peer.got)
"""


def test_linux_moves_16_mib_each_way_by_a_tap(tmp_path: pathlib.Path) -> None:
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun") or shutil.which("ip") is None:
        pytest.skip("no right to make a tap")
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", INSIDE, str(tmp_path)],
        cwd=root, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert "REACHED" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    digest, got = done.stdout.rpartition("DIGEST ")[2].split()
    assert digest == got and f"CAME {digest}" in done.stdout
    assert "HEADERS 15" in done.stdout  # checksums and segments are the kernel's


__all__ = ["SCRIPT", "with_network"]
