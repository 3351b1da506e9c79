"""Processors of the soft accelerator that run at once, each on a thread of the host: userland/parallel.c in a guest."""

from __future__ import annotations

import pathlib
import shutil
import stat
import subprocess

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel

pytestmark = [pytest.mark.guest, pytest.mark.slow]

SOURCE = pathlib.Path(__file__).parent / "userland" / "parallel.c"
RULES = (
    "inc", "add", "incw", "incb", "dec", "xadd", "adc", "xor", "neg", "skewed", "split", "bts", "xchg", "cmpxchg16b",
    "fence", "order", "unmapped", "code",
)  # fmt: skip


def program(directory: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: apt-get install gcc")
    built = directory / "parallel"
    subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", str(built), str(SOURCE)], check=True, timeout=120)
    return {"parallel": (stat.S_IFREG | 0o755, built.read_bytes())}


@pytest.mark.parametrize(("cpus", "translate"), [(4, "on"), (4, "always"), (2, "off")])
def test_what_holds_between_processors_holds(cpus: int, translate: str, tmp_path: pathlib.Path) -> None:
    """Instructions with LOCK, fences, the order of stores, pages taken away, code changed under another."""
    initrd = initramfs(tmp_path, "/parallel check 4", program(tmp_path))
    with LinuxGuest(
        tmp_path, "soft", machine="pc-i440fx-2.0", kernel=kernel(), initrd=initrd, cmdline="quiet loglevel=4",
        cpus={"count": cpus}, thread="multi", translate=translate,
    ) as guest:
        assert len(set(guest.machine.accelerator.control.thread_ids())) == cpus
        reason = guest.run_to_end(600)
        text = guest.console()
        wrong = guest.complaints()
    assert reason == "shutdown", text[-2000:]
    assert [line for line in text.splitlines() if line.endswith(" ok")] == [f"{rule} ok" for rule in RULES], text
    assert not wrong
