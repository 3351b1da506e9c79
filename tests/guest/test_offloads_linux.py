"""What cards send when a stock Linux leaves work to them: every frame on the wire is a right one, and the data arrives.

One guest has pairs of cards, each pair on a hub of its own, the second card of it in a network namespace. Data goes by
IPv4 and IPv6, with a VLAN's tag and without, through TCP with and without options, in packets that IP cuts.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

from tests.guest.network import VIRTIO, run
from tests.guest.test_nics_linux import MODULES

pytestmark = [pytest.mark.guest, pytest.mark.slow]

VLAN = ("net/llc/llc", "net/802/stp", "net/802/garp", "net/802/mrp", "net/8021q/8021q")
PAIRS = ["e1000"]
SCRIPT = """
busybox mkdir -p /tmp
busybox mkfifo /tmp/open
exec 9<>/tmp/open                     # a server whose input has ended hangs up
busybox dd if=/dev/urandom of=/tmp/data bs=1 count=3 2>/dev/null
busybox dd if=/dev/urandom of=/tmp/more bs=77777 count=2 2>/dev/null
busybox cat /tmp/more >> /tmp/data
want=$(busybox sha256sum < /tmp/data)
side() {{  # namespace's prefix, interface, last part of its addresses
  $1 busybox ip link set lo up
  $1 busybox sh -c "echo 0 > /proc/sys/net/ipv6/conf/$2/accept_dad"
  $1 busybox ip link set $2 up
  $1 busybox ip addr add 10.9.0.$3/24 dev $2
  $1 busybox ip -6 addr add fd00::$3/64 dev $2
  $1 busybox ip link add link $2 name tag type vlan id 5
  $1 busybox sh -c "echo 0 > /proc/sys/net/ipv6/conf/tag/accept_dad"
  $1 busybox ip link set tag up
  $1 busybox ip addr add 10.9.5.$3/24 dev tag
  $1 busybox ip -6 addr add fd05::$3/64 dev tag
}}
n=0
while [ $n -lt {count} ]; do
  busybox unshare -n busybox sleep 1000 &
  far=$!
  busybox sleep 0.2
  busybox ip link set eth$((n + 1)) netns $far
  there="busybox nsenter -t $far -n"
  side "" eth$n 1
  side "$there" eth$((n + 1)) 2
  i=0
  until busybox ping -c 1 -W 1 fd05::2 > /dev/null || [ $i = 20 ]; do i=$((i + 1)); done
  for options in 1 0; do
    echo $options > /proc/sys/net/ipv4/tcp_timestamps
    for to in 10.9.0.2 10.9.5.2 fd00::2 fd05::2; do
      $there busybox nc -l -p 5001 <&9 > /tmp/came &
      busybox sleep 0.3
      busybox nc $to 5001 < /tmp/data
      wait $!
      [ "$want" = "$(busybox sha256sum < /tmp/came)" ] && echo RIGHT $n $to $options || echo WRONG $n $to $options
    done
  done
  for to in 10.9.0.2 10.9.5.2 fd00::2 fd05::2; do
    busybox ping -c 2 -i 0.1 -s 5003 $to | busybox grep -q "2 packets received" || echo LOST $n $to
  done
  busybox kill $far
  busybox ip link del tag
  busybox ip addr flush dev eth$n
  busybox ip link set eth$n down
  n=$((n + 2))
done
"""
BROKEN = " or ".join(["_ws.malformed", *(f"{name}.checksum.status == 0" for name in ("ip", "tcp", "udp", "icmpv6"))])
CHECKED = [word for name in ("ip", "tcp", "udp") for word in ("-o", f"{name}.check_checksum:TRUE")]
# What comes to our port is nobody's protocol; the other port, any at all, may be a known one's (34980: EtherCAT).
CHECKED += ["-d", "tcp.port==5001,data"]


def seen(capture: pathlib.Path, what: str) -> list[str]:
    words = [shutil.which("tshark") or "tshark", "-r", str(capture), *CHECKED, "-Y", what]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_linux_leaves_work_to_every_card_and_each_frame_is_right(tmp_path: pathlib.Path) -> None:
    netdevs, cards = {}, []
    for n, driver in enumerate(driver for driver in PAIRS for _ in range(2)):
        netdevs[f"lan{n}"] = {"type": "hubport", "hubid": n // 2, "capture": str(tmp_path / f"{n}.pcap")}
        cards.append({"id": f"net{n}", "driver": driver, "netdev": f"lan{n}", "romfile": ""})
    modules = (*VLAN, *(name for driver in PAIRS for name in MODULES.get(driver, VIRTIO)))
    text, wrong = run(
        tmp_path, SCRIPT.format(count=len(cards)), {}, modules=modules, machine="pc-i440fx-7.2",
        netdevs=netdevs, cards=cards,
    )  # fmt: skip
    assert "WRONG" not in text and "LOST" not in text and text.count("RIGHT") == 8 * len(PAIRS), text[-3000:]
    assert wrong == []
    if shutil.which("tshark") is None:
        return
    for n in range(0, len(cards), 2):
        capture = tmp_path / f"{n}.pcap"
        assert seen(capture, BROKEN) == [], cards[n]["driver"]
        for what in ("vlan and tcp.len > 1000 and ip", "vlan and tcp.len > 1000 and ipv6", "vlan and ipv6.fraghdr"):
            assert seen(capture, what), (cards[n]["driver"], what)
