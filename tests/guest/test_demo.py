"""`make demo` on a machine without a usable /dev/kvm."""

from __future__ import annotations

import glob
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.guest, pytest.mark.slow]
ROOT = pathlib.Path(__file__).resolve().parents[2]
# in a mount namespace of its own, /dev/kvm is a device that is not KVM
HIDE = 'mount --bind /dev/null /dev/kvm && exec "$@"'


def hidden() -> list[str]:
    """A command prefix that hides /dev/kvm; [] where there is none to hide. Skips where it cannot be hidden."""
    if not os.path.exists("/dev/kvm"):
        return []
    prefix = ["unshare", "-m", "sh", "-c", HIDE, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("/dev/kvm cannot be hidden here")
    return prefix


def test_demo_boots_firmware_disk_and_linux_without_kvm() -> None:
    command = [*hidden(), sys.executable, str(ROOT / "tools" / "demo.py")]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=500, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "kvm was refused, soft runs instead" in told
    assert "Booted from the IDE disk of a declared rhel6.3.0." in told
    assert "switched itself off" in told
    if glob.glob("/boot/vmlinuz-*") and shutil.which("gcc"):
        assert "user space is up." in told
        assert "Linux booted and switched itself off" in told
