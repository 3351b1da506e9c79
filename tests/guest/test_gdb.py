"""The real gdb on guests: a small one on each accelerator, a Debian kernel on soft."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import time
from typing import Any

import pytest

from tests.guest import kernels
from tests.guest.linux import LinuxGuest, initramfs
from tests.guest.linux import kernel as linux
from tests.guest.machines import Guest
from vmrun.monitor.server import Monitors

pytestmark = pytest.mark.guest
PATIENCE = 60.0
LAST = 40


def guest(directory: pathlib.Path, accel: str, **keys: Any) -> Guest:
    defines = (f"LAST={LAST}", "FLOAT") if accel == "soft" else (f"LAST={LAST}",)
    (directory / "kernel").write_bytes(kernels.build(*defines, bits=64, sources=("debugged.S",)))
    return Guest(
        directory, accel, machine="pc-i440fx-7.2", memory="32MiB", kernel=str(directory / "kernel"), firmware="none",
        devices=[{"driver": "isa-debug-exit", "id": "exit"}], **keys,
    )  # fmt: skip


def debug(guest: Guest, directory: pathlib.Path, *commands: str, patience: float = PATIENCE) -> str:
    """gdb's output when it has done all commands; the machine runs meanwhile."""
    gdb = shutil.which("gdb")
    if gdb is None:
        pytest.skip("no gdb: apt-get install gdb")
    monitors = Monitors(guest.machine)
    socket = directory / "gdb"
    monitors.listen({"path": str(socket)}, "gdb")
    words = [gdb, "-nx", "-batch", "-ex", "set confirm off", "-ex", "set pagination off"]
    if (directory / "kernel").exists():
        words += ["-ex", f"file {directory / 'kernel'}"]
    for command in (f"target remote {socket}", *commands):
        words += ["-ex", command]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < end:
            guest.machine.loop.run_once(0.1)
        if process.poll() is None:
            process.kill()
        assert process.stdout is not None
        return process.stdout.read().decode()
    finally:
        process.kill()
        process.wait()
        monitors.close()


def test_a_breakpoint_at_a_symbol_stops_there(accel: str, tmp_path: pathlib.Path) -> None:
    with guest(tmp_path, accel) as pc:
        text = debug(pc, tmp_path, "hbreak long_mode", "continue", "break work", "continue", "continue", "print $rip",
                     "print *(int*)&counter", "info registers cr0 efer", "x/i $pc", "kill")  # fmt: skip
    assert "$1 = (void (*)()) 0x" in text and "<work>" in text, text
    assert "$2 = 1\n" in text, text
    assert "=> 0x" in text and "incl" in text


def test_registers_of_all_kinds(accel: str, tmp_path: pathlib.Path) -> None:
    with guest(tmp_path, accel) as pc:
        text = debug(
            pc, tmp_path, "hbreak long_mode", "continue", "break work", "continue", "print/x $r15",
            "print/x $cr0 & 0x80000001", "print/x $cs", "print/x $efer & 0x500", "set $rbx = 0x1122334455667788",
            "set $xmm2.v2_int64[1] = 7", "set $fs_base = 0x1234000",
            "stepi", "print/x $rbx", "print $xmm2.v2_int64[1]", "print/x $fs_base", "print/x $mxcsr",
            "print/x $xmm1.v2_int64[0]", "print $st1", "print $ftag", "kill",
        )  # fmt: skip
    values = [line.partition(" = ")[2] for line in text.splitlines() if line.startswith("$")]
    assert values[:4] == ["0x123456789abcdef0", "0x80000001", "0x8", "0x500"], text
    assert values[4:8] == ["0x1122334455667788", "7", "0x1234000", "0x1f80"], text
    if accel == "soft":
        assert values[8:] == ["0x123456789abcdef0", "1", "4095"], text


def test_single_steps_go_from_instruction_to_instruction(accel: str, tmp_path: pathlib.Path) -> None:
    with guest(tmp_path, accel) as pc:
        text = debug(pc, tmp_path, "hbreak long_mode", "continue", "break work", "continue", "stepi", "stepi", "stepi",
                     "print $rip - (long)&work", "print $eax", "finish", "kill")  # fmt: skip
    assert "$1 = (void (*)()) 0x15" in text or "$1 = 21" in text or "0x15" in text, text
    assert "$2 = 1\n" in text


def test_watchpoints_stop_behind_the_write(accel: str, tmp_path: pathlib.Path) -> None:
    with guest(tmp_path, accel) as pc:
        text = debug(pc, tmp_path, "hbreak long_mode", "continue", "delete", "watch *(int*)&other", "continue",
                     "continue", "print *(int*)&other", "delete", "awatch *(int*)&counter", "continue",
                     "kill")  # fmt: skip
    if accel == "kvm" and "exited with code" in text:
        pytest.skip("this KVM emulates the guest, and that knows no watchpoints")
    assert "Hardware watchpoint 2: *(int*)&other" in text and "Old value = 1\nNew value = 3" in text, text
    assert "$1 = 3" in text
    assert "Hardware access (read/write) watchpoint 3" in text


def test_the_guests_own_int3_is_its_own(tmp_path: pathlib.Path) -> None:
    with guest(tmp_path, "soft") as pc:
        text = debug(pc, tmp_path, "hbreak long_mode", "continue", "break finish", "continue",
                     "print/x *(int*)&trapped", "print *(int*)&counter", "kill")  # fmt: skip
    assert "$1 = 0x77" in text and f"$2 = {LAST}" in text, text


def test_memory_is_written_and_the_monitor_answers(accel: str, tmp_path: pathlib.Path) -> None:
    with guest(tmp_path, accel) as pc:
        text = debug(pc, tmp_path, "hbreak long_mode", "continue", "break work", "continue", "set {int}&counter = 30",
                     "continue 5", "print *(int*)&counter", "monitor info status", "x/2xb &work", "detach")  # fmt: skip
        assert "$1 = 35" in text and "VM status: paused (debug)" in text, text
        assert "0xff\t0x04" in text, text  # incl, and not int3
        assert pc.run_to_end() == "exit"


def test_the_debugger_that_goes_leaves_no_trace(accel: str, tmp_path: pathlib.Path) -> None:
    with guest(tmp_path, accel) as pc:
        debug(pc, tmp_path, "hbreak long_mode", "continue", "break work", "continue", "disconnect")
        assert pc.run_to_end() == "exit"


def test_processors_are_threads(accel: str, tmp_path: pathlib.Path) -> None:
    with guest(tmp_path, accel, cpus={"count": 3}) as pc:
        text = debug(pc, tmp_path, "hbreak long_mode", "continue", "info threads", "thread 2", "print/x $eip", "kill")
    assert "* 1 " in text and "CPU#2" in text and "[Switching to thread 2 (Thread 2)]" in text, text


@pytest.mark.slow
def test_a_breakpoint_waits_for_the_boot_sector(tmp_path: pathlib.Path) -> None:
    """It is set before the firmware has read the sector to there."""
    code = bytes.fromhex("fa 31c0 8ed8 b93412 ebfe")  # cli; xor ax, ax; mov ds, ax; mov cx, 1234h; jmp $
    (tmp_path / "disk").write_bytes(code.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    disks = [{"file": str(tmp_path / "disk"), "format": "raw"}]
    with Guest(tmp_path, "soft", machine="pc-i440fx-7.2", memory="32MiB", disks=disks, paused=True) as machine:
        said = debug(machine, tmp_path, "break *0x7c00", "continue", "delete", "stepi 4", "p/x $rip", "p/x $ecx")
    assert "Breakpoint 1, 0x0000000000007c00" in said and "$1 = 0x7c08" in said and "$2 = 0x1234" in said, said


def test_a_debian_kernel_stops_at_a_breakpoint(tmp_path: pathlib.Path) -> None:
    """By its own symbols, which a first boot tells; `nokaslr` leaves them true."""
    chosen, found = linux(), {}
    show = "busybox grep -E ' (start_kernel|rest_init|linux_banner|jiffies)$' /proc/kallsyms"
    keys = {"machine": "pc-i440fx-7.2", "kernel": chosen}
    with LinuxGuest(tmp_path, "soft", "quiet nokaslr", initrd=initramfs(tmp_path, show), **keys) as pc:
        pc.run_to_end(240)
        for address, name in re.findall(r"^([0-9a-f]{16}) \w (\w+)$", pc.console(), re.M):
            found[name] = int(address, 16)
    start, rest, banner = found["start_kernel"], found["rest_init"], found["linux_banner"]
    with LinuxGuest(tmp_path, "soft", "quiet nokaslr", initrd=initramfs(tmp_path), **keys) as pc:
        text = debug(
            pc, tmp_path, "set architecture i386:x86-64", f"hbreak *{start:#x}", "continue", "print/x $rip", "delete",
            f"break *{rest:#x}", "continue", "print/x $rip", "print/x $cs", f"x/s {banner:#x}", "stepi", "detach",
            patience=240,
        )  # fmt: skip
        assert f"$1 = {start:#x}" in text and f"$2 = {rest:#x}" in text and "$3 = 0x10" in text, text
        assert "Linux version 6" in text, text
        pc.run_to_end(240)
        assert "GUEST-UP" in pc.console()
        assert pc.complaints() == []
