"""Guests of 16 and 32 bits on the soft processor: Debian's 32-bit kernel, memtest86+ in both its forms."""

from __future__ import annotations

import pathlib
import re
import stat

import pytest

from tests.guest.linux import LinuxGuest, initramfs
from tests.guest.machines import Guest

pytestmark = [pytest.mark.guest, pytest.mark.slow]
FETCHED = pathlib.Path(__file__).resolve().parents[2] / "build" / "i386"      # tools/fetch-i386.sh


@pytest.mark.skipif(not (FETCHED / "busybox").exists(), reason="tools/fetch-i386.sh found no 32-bit kernel")
def test_a_32_bit_kernel_with_pae_boots_and_switches_off(tmp_path: pathlib.Path) -> None:
    busybox = {"bin/busybox": (stat.S_IFREG | 0o755, (FETCHED / "busybox").read_bytes())}
    initrd = initramfs(tmp_path, "echo MACHINE $(uname -m)", busybox)
    with LinuxGuest(
        tmp_path, "soft", machine="rhel6.3.0", kernel=str(FETCHED / "vmlinuz"), initrd=initrd, cpus={"count": 2}
    ) as guest:
        reason = guest.run_to_end(400)
        text = guest.console()
        wrong = guest.complaints()
    assert reason == "shutdown", text[-3000:]
    assert not wrong, text[-3000:]
    assert "GUEST-UP 2\nMACHINE i686\n" in text


MEMTEST = pathlib.Path("/boot/memtest86+ia32.bin")


@pytest.mark.skipif(not MEMTEST.exists(), reason="memtest86+ is not installed")
def test_memtest_finds_no_error_in_its_ten_tests(tmp_path: pathlib.Path) -> None:
    """All of a pass but the bit fade test, which mostly waits. Memory is the least it moves itself about in."""
    text = ""

    def ready(guest: Guest) -> bool:
        nonlocal text
        text = guest.screen()
        return "Test #10" in text or re.search(r"Errors: +[1-9]", text) is not None

    with Guest(tmp_path, "soft", machine="rhel6.3.0", memory="5MiB", kernel=str(MEMTEST), display="std") as guest:
        done = guest.run_until(lambda: ready(guest), 600)
    assert done, text
    assert "Bit fade" in text
    assert "Errors: 0" in text
