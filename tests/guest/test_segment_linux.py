"""Two machines on a segment reach each other, a third hears nothing that is not for it; captures are clean."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import threading
from typing import Any

import pytest

from tests.guest.linux import LinuxGuest, kernel
from tests.guest.network import with_network

pytestmark = [pytest.mark.guest, pytest.mark.slow]

START = """
busybox ip link set eth0 up
busybox ip addr add 10.9.0.{n}/24 dev eth0
"""
LISTEN = START + """
busybox nc -l -p 4000 > /tmp/data
echo CAME $(busybox sha256sum < /tmp/data)
"""
SEND = START + """
n=0
while ! busybox ping -c 1 -W 1 10.9.0.2 >/dev/null && [ $n -lt 120 ]; do n=$((n + 1)); done
echo REACHED
busybox dd if=/dev/urandom of=/tmp/data bs=64k count=32 2>/dev/null
echo SENT $(busybox sha256sum < /tmp/data)
n=0
while ! busybox nc 10.9.0.2 4000 < /tmp/data && [ $n -lt 60 ]; do sleep 1; n=$((n + 1)); done
"""
IDLE = START + """
n=0
while [ ! -e /stop ] && [ $n -lt 25 ]; do sleep 1; n=$((n + 1)); done
echo RX $(cat /sys/class/net/eth0/statistics/rx_bytes)
"""


def test_two_machines_reach_each_other_on_a_segment(tmp_path: pathlib.Path) -> None:
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("no tshark")
    guests: list[Any] = []
    for n, script in ((1, SEND), (2, LISTEN), (3, IDLE)):
        directory = tmp_path / str(n)
        directory.mkdir()
        guests.append(
            LinuxGuest(
                directory, "soft", "quiet", machine="pc-i440fx-7.2", kernel=kernel(False), name=f"m{n}",
                initrd=with_network(directory, script.format(n=n)),
                segments={"lan": {"dir": str(tmp_path / "lan")}},
                netdevs={"net": {"type": "segment", "segment": "lan", "capture": str(tmp_path / f"{n}.pcap")}},
                devices=[{"id": "net0", "driver": "virtio-net-pci", "netdev": "net", "romfile": ""}],
            )  # fmt: skip
        )
    runs = [threading.Thread(target=guest.run_to_end, args=(300.0,)) for guest in guests]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    texts = [guest.console() for guest in guests]
    for guest in guests:
        guest.machine.close()
    assert "REACHED" in texts[0], texts[0][-2000:]
    sent = texts[0].partition("SENT ")[2].split()[0]
    assert f"CAME {sent}" in texts[1], texts[1][-2000:]
    third = int(texts[2].partition("RX ")[2].split()[0])
    assert third < 1 << 16  # of 2 MiB: what was sent to all
    for n in (1, 2, 3):
        path = str(tmp_path / f"{n}.pcap")
        done = subprocess.run(
            [tshark, "-r", path, "-d", "tcp.port==4000,data", "-Y", "_ws.malformed"],  # whatever the other port says
            capture_output=True, text=True, timeout=120,
        )
        assert done.returncode == 0 and done.stdout == "", done.stdout[:2000] + done.stderr
    assert (tmp_path / "1.pcap").stat().st_size > 2 << 20


