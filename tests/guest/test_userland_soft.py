"""Debian's programs in a guest on the soft processor print what they print on the host, byte for byte."""

from __future__ import annotations

import base64
import os
import pathlib
import subprocess

import pytest

from tests.guest.linux import LinuxGuest, kernel
from tests.guest.packing import ENVIRONMENT, WORK, userland

AVX = "avx2" in pathlib.Path("/proc/cpuinfo").read_text().split()
pytestmark = [pytest.mark.guest, pytest.mark.slow]

SCRIPT = """
cd /work
export {environment}
/usr/bin/bash /src/work.sh /src > /tmp/out 2> /tmp/err
busybox echo BEGIN-OUT; busybox base64 /tmp/out; busybox echo END-OUT
busybox echo BEGIN-ERR; busybox base64 /tmp/err; busybox echo END-ERR
/usr/bin/openssl speed -seconds 1 -evp sha256 2> /dev/null
echo SPEED $?
"""


def part(text: str, name: str) -> bytes:
    return base64.b64decode(text.partition(f"BEGIN-{name}\n")[2].partition(f"END-{name}")[0])


# The second has AVX2, FMA and BMI, which glibc's string functions and openssl choose.
@pytest.mark.parametrize(("machine", "model"), [("pc-i440fx-2.0", ""), ("pc-i440fx-7.2", "Skylake-Client")])
def test_a_userland_prints_the_same_bytes_as_on_the_host(machine: str, model: str, tmp_path: pathlib.Path) -> None:
    if model and not AVX:
        pytest.skip("the host has no AVX")
    tree = userland(tmp_path)
    environment = " ".join(f"{name}={value}" for name, value in ENVIRONMENT.items())
    initrd = tree.write(tmp_path / "userland.cpio", SCRIPT.format(environment=environment))
    place = tmp_path / "work"
    place.mkdir()
    host = subprocess.run(
        ["/usr/bin/bash", str(WORK / "work.sh"), str(WORK)], cwd=place, env=ENVIRONMENT, timeout=300, check=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ).stdout
    with LinuxGuest(
        tmp_path, "soft", machine=machine, memory="1GiB", kernel=kernel(), initrd=initrd,
        cmdline="quiet loglevel=4 mitigations=off", cpus={"count": 2, **({"model": model} if model else {})},
    ) as guest:
        reason = guest.run_to_end(600)
        text = guest.console()
        assert not guest.complaints()
    assert reason == "shutdown", text[-2000:]
    out = part(text, "OUT")
    assert out.decode() == host.decode(), part(text, "ERR").decode()[-2000:]
    assert "SPEED 0\n" in text
    assert os.path.getsize(initrd) > 1 << 20
