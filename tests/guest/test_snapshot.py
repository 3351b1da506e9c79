"""Guests that are stopped at any moment, saved, and go on in a new process: they reach the end they would have reached.

`VMRUN_MOMENTS=50` says how many moments the long test takes.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import subprocess
import sys
from typing import Any

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel
from tests.guest.machines import Guest
from tests.guest.test_disk import BOOT_IMAGE, grub_disk
from vmrun.machine import snapshot
from vmrun.machine.machine import Machine

pytestmark = pytest.mark.guest

SCRIPT = """
echo HELLO
for i in 1 2 3; do busybox sleep 0.3; echo TICK $i; done
busybox md5sum /bin/busybox
echo DONE-ALL
"""
END = ["HELLO", "TICK 1", "TICK 2", "TICK 3", "DONE-ALL", "GUEST-DOWN"]

# A process that goes on: file, accelerator, console, where to save, seconds (0: to the end).
CHILD = """
import json, sys
from vmrun.machine import snapshot
path, accel, console, out, seconds = sys.argv[1:]
machine = snapshot.restore(path, accel=[accel])
snapshot.go_on(machine)
machine.loop.call_later(float(seconds) or 400.0, machine.loop.stop)
machine.loop.run()
machine.pause()
with machine.board.lock:
    text = machine.board.chardevs[console].output.peek(1 << 20).decode("latin-1")
if machine.outcome is None:
    snapshot.save(machine, out, "running")
print(json.dumps([machine.outcome and machine.outcome.reason, text]))
machine.close()
"""


def go_on(path: str, accel: str, console: str, out: str, seconds: float = 0.0) -> tuple[str | None, str]:
    """In a new process: (how it ended or None, what the guest wrote there)."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, path, accel, console, out, str(seconds)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    reason, text = json.loads(done.stdout)
    return reason, text


def run_for(machine: Machine, seconds: float) -> None:
    machine.loop.call_later(seconds, machine.loop.stop)
    machine.resume()
    machine.loop.run()


def boot_in_pieces(directory: pathlib.Path, first: float, rest: list[float], **keys: Any) -> str:
    """A stock Linux that is stopped after `first` seconds and again after each of `rest`; all that it wrote."""
    drawn = initramfs(directory, SCRIPT)
    with LinuxGuest(directory, "soft", machine="pc-i440fx-2.0", kernel=kernel(), initrd=drawn, **keys) as guest:
        run_for(guest.machine, first)
        text = guest.console()
        if guest.machine.outcome is not None:
            return text
        guest.machine.pause()
        path = str(directory / "0.vm")
        snapshot.save(guest.machine, path, "running")
    for n, seconds in enumerate([*rest, 0.0], 1):
        reason, more = go_on(path, "soft", "serial", str(directory / f"{n}.vm"), seconds)
        text += more
        os.unlink(path)
        path = str(directory / f"{n}.vm")
        if reason is not None:
            assert reason == "shutdown"
            break
    return text


def check(text: str) -> None:
    lines = text.replace("\r", "").splitlines()
    assert [line for line in lines if line in END] == END, text[-3000:]
    assert "  /bin/busybox" in text


@pytest.mark.slow
@pytest.mark.parametrize("cpus", [1, 2])
def test_linux_goes_on_twice_and_reaches_its_end(cpus: int, tmp_path: pathlib.Path) -> None:
    rng = random.Random(cpus)
    text = boot_in_pieces(tmp_path, rng.uniform(0.3, 2), [rng.uniform(0.3, 2)], cpus={"count": cpus})
    check(text)


@pytest.mark.long
def test_linux_is_stopped_at_many_moments_of_its_boot(tmp_path: pathlib.Path) -> None:
    """Each boot is cut at random; what the guest says is, all in all, what it says without."""
    rng = random.Random()
    left = int(os.environ.get("VMRUN_MOMENTS", "50"))
    while left > 0:
        cuts = [rng.uniform(0.05, 1.5) for _ in range(min(left, 5))]
        left -= len(cuts)
        directory = tmp_path / str(left)
        directory.mkdir()
        check(boot_in_pieces(directory, cuts[0], cuts[1:]))


def test_firmware_goes_on_on_either_accelerator(accel: str, tmp_path: pathlib.Path) -> None:
    """Stopped in the middle of its start, whichever moment that is."""
    with Guest(tmp_path, accel, machine="rhel6.3.0", memory="64MiB") as guest:
        assert guest.run_until(lambda: len(guest.output()) > 300), guest.output()
        guest.keep()
        text = guest.output()
        path = str(tmp_path / "0.vm")
        snapshot.save(guest.machine, path, "running")
    for n in range(1, 20):
        _, more = go_on(path, accel, "debug", str(tmp_path / f"{n}.vm"), 2.0)
        text += more
        path = str(tmp_path / f"{n}.vm")
        if "No bootable device" in text:
            break
    assert text.count("Found 1 cpu(s)") == text.count("No bootable device") == 1, text[-1500:]


@pytest.mark.long
@pytest.mark.kvm
def test_firmware_on_kvm_is_stopped_at_many_moments(tmp_path: pathlib.Path) -> None:
    """From its first instruction to "No bootable device": five cuts a start, what it says is said once."""
    rng = random.Random()
    left = int(os.environ.get("VMRUN_MOMENTS", "50"))
    while left > 0:
        path = str(tmp_path / f"{left}.vm")
        with Guest(tmp_path, "kvm", machine="rhel6.3.0", memory="64MiB") as guest:
            run_for(guest.machine, rng.uniform(0.01, 0.5))
            guest.keep()
            text = guest.output()
            if guest.machine.outcome is None:
                guest.machine.pause()
            snapshot.save(guest.machine, path, "running")
        left -= 1
        for n in range(4):
            _, more = go_on(path, "kvm", "debug", f"{path}.{n}", rng.uniform(0.05, 0.5))
            text += more
            path, left = f"{path}.{n}", left - 1
        for n in range(100):  # however little of the host it gets
            if "No bootable device" in text:
                break
            _, more = go_on(path, "kvm", "debug", f"{path}.{n}", 3.0)
            text += more
            path = f"{path}.{n}"
        assert text.count("Found 1 cpu(s)") == text.count("No bootable device") == 1, text[-1500:]


@pytest.mark.kvm
@pytest.mark.skipif(not BOOT_IMAGE.exists(), reason="grub-pc-bin is not installed")
@pytest.mark.parametrize(
    "way",
    [
        ("kvm", "soft"),
        pytest.param(("kvm", "kvm"), marks=pytest.mark.long),  # GRUB unpacks itself: minutes on a nested KVM
        pytest.param(("soft", "kvm"), marks=pytest.mark.long),
    ],
)
def test_grub_goes_on_on_another_accelerator(way: tuple[str, str], tmp_path: pathlib.Path) -> None:
    before, after = way
    grub_disk(tmp_path / "grub.img")
    serial = {"serial": {"type": "ringbuf", "size": 1 << 16}}
    devices = [{"id": "com1", "driver": "isa-serial", "chardev": "serial"}]
    # what both can give
    cpus = {"model": "qemu64", "features": {name: False for name in ("pni", "cx16", "popcnt", "abm", "sse4a", "svm")}}
    with Guest(
        tmp_path, before, machine="pc-i440fx-2.0", memory="64MiB", disks=["grub.img"], chardevs=serial, devices=devices,
        cpus=cpus,
    ) as guest:  # fmt: skip
        assert guest.run_until(lambda: "Booting from Hard Disk" in guest.output(), 240), guest.output()[-400:]
        guest.keep()
        text = guest.output("serial")
        path = str(tmp_path / "0.vm")
        snapshot.save(guest.machine, path, "running")
    for n in range(1, 60):
        _, more = go_on(path, after, "serial", str(tmp_path / f"{n}.vm"), 10.0 if after == "kvm" else 3.0)
        text += more
        path = str(tmp_path / f"{n}.vm")
        if "grub>" in text:
            break
    assert "grub>" in text, text[-800:]


@pytest.mark.long
@pytest.mark.kvm
@pytest.mark.skipif(not BOOT_IMAGE.exists(), reason="grub-pc-bin is not installed")
def test_grub_on_kvm_is_stopped_at_many_moments(tmp_path: pathlib.Path) -> None:
    """From a virtio disk, whose kicks leave the guest by themselves: cut at random from SeaBIOS's start to GRUB's
    prompt, then go on to it; its sentence is said once.
    """
    rng = random.Random()
    grub_disk(tmp_path / "grub.img")
    left = int(os.environ.get("VMRUN_MOMENTS", "50"))
    while left > 0:
        directory = tmp_path / str(left)
        directory.mkdir()
        with Guest(
            directory,
            "kvm",
            machine="pc-i440fx-2.0",
            memory="64MiB",
            drives={"d0": {"file": str(tmp_path / "grub.img"), "format": "raw"}},
            chardevs={"serial": {"type": "ringbuf", "size": 1 << 16}},
            devices=[
                {"id": "com1", "driver": "isa-serial", "chardev": "serial"},
                {"id": "disk", "driver": "virtio-blk-pci", "drive": "d0", "bootindex": 0},
            ],
        ) as guest:
            run_for(guest.machine, rng.uniform(0.05, 3))
            guest.keep()
            text = guest.output("serial")
            path = str(directory / "0.vm")
            snapshot.save(guest.machine, path, "running")
        left -= 1
        for n in range(1, 300):
            cut = left > 0 and n < 10
            left -= cut
            _, more = go_on(path, "kvm", "serial", str(directory / f"{n}.vm"), rng.uniform(0.05, 5) if cut else 20.0)
            text += more
            os.unlink(path)
            path = str(directory / f"{n}.vm")
            if "grub>" in text and "GRUB-IS-UP" in text:
                break
        assert text.count("GRUB-IS-UP") == 1 and "grub>" in text, text[-1500:]


def test_two_saves_of_a_machine_that_has_not_gone_on_are_equal(accel: str, tmp_path: pathlib.Path) -> None:
    with Guest(tmp_path, accel, machine="pc-i440fx-2.0", memory="64MiB") as guest:
        assert guest.run_until(lambda: len(guest.output()) > 300), guest.output()
        guest.keep()
        snapshot.save(guest.machine, str(tmp_path / "0.vm"), "running")
    machine = snapshot.restore(str(tmp_path / "0.vm"), accel=[accel])
    try:
        for name in ("a", "b"):
            snapshot.save(machine, str(tmp_path / name))
    finally:
        machine.close()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
