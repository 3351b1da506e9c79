"""Protection keys under Linux, on the soft processor of a model that has them."""

from __future__ import annotations

import pathlib
import shutil
import stat
import subprocess

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc"),
]
SOURCE = pathlib.Path(__file__).with_name("userland") / "keys.c"
SAID = ["key 1, byte 5", "write: 1 1", "read: 1 1", "by the kernel: -1", "child: 7", "code alone: 1"]


def test_linux_forbids_what_a_key_forbids(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "keys"
    subprocess.run(["gcc", "-static", "-O1", "-o", str(program), str(SOURCE)], check=True, timeout=60)
    initrd = initramfs(tmp_path, "/keys", {"keys": (stat.S_IFREG | 0o755, program.read_bytes())})
    cpus = {"model": "EPYC-Milan", "count": 2}
    with LinuxGuest(tmp_path, "soft", machine="pc-i440fx-7.2", kernel=kernel(), initrd=initrd, cpus=cpus) as guest:
        assert guest.run_to_end(200) == "shutdown"
        text = guest.console()
    lines = text.replace("\r", "").splitlines()
    assert [line for line in lines if line in SAID] == SAID, text[-3000:]
