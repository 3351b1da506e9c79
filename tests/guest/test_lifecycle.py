"""What guests ask of their machine, on each accelerator: small kernels that a machine without firmware starts."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.guest.linux import LinuxGuest, initramfs
from tests.guest.linux import kernel as linux
from tests.guest.machines import Guest
from tests.unit.firmware.kernels import elf

pytestmark = pytest.mark.guest

BASE = 0x200000
EXIT_FINE = "66ba0105 b000 ee f4"  # mov dx, 501h; mov al, 0; out dx, al; hlt


def kernel(directory: pathlib.Path, accel: str, code: str, **keys: Any) -> Guest:
    (directory / "kernel").write_bytes(elf([(BASE, bytes.fromhex(code), 4096)], bits=32, pvh=BASE))
    keys.setdefault("machine", "pc-i440fx-7.2")
    devices = [{"driver": "isa-debug-exit", "id": "exit"}, *keys.pop("devices", [])]
    return Guest(
        directory, accel, memory="32MiB", kernel=str(directory / "kernel"), firmware="none", devices=devices, **keys
    )


def test_vmport_answers_a_real_guest(accel: str, tmp_path: pathlib.Path) -> None:
    # eax = magic; ecx = 10 (version); in eax, 5658h; then eax and the low bytes of ebx and ecx to the debug console
    code = "b868584d56 b90a000000 66ba5856 ed 66ba0204 ee 88d8 ee 88c8 ee" + EXIT_FINE
    with kernel(tmp_path, accel, code) as guest:
        assert guest.run_to_end() == "exit"
        assert guest.output() == "\x06\x68\x02"


def test_vmport_leaves_a_guest_alone_that_does_not_say_the_magic_word(accel: str, tmp_path: pathlib.Path) -> None:
    code = "b811111111 b90a000000 bb22000000 66ba5856 ed 66ba0204 ee 88d8 ee 88c8 ee" + EXIT_FINE
    with kernel(tmp_path, accel, code) as guest:
        assert guest.run_to_end() == "exit"
        assert guest.output() == "\xff\x22\x0a"


def test_a_guest_whose_panic_is_passed_over_goes_on(accel: str, tmp_path: pathlib.Path) -> None:
    # mov dx, 505h; mov al, 1; out dx, al; then 'k' to the debug console
    code = "66ba0505 b001 ee 66ba0204 b06b ee" + EXIT_FINE
    with kernel(tmp_path, accel, code, devices=[{"driver": "pvpanic", "id": "panic"}]) as guest:
        guest.machine.policy["panic"] = "none"
        assert guest.run_to_end() == "exit"
        assert guest.output() == "k"


# mov dx, 604h; mov ax, SLP_TYP 1 | SLP_EN; out dx, ax; then, if nothing came of it, 'x' to the debug console
SLEEP = "66ba0406 66b80024 66ef 66ba0204 b078 ee" + EXIT_FINE
# in real mode: 'w' to the debug console; exit
WOKEN = "ba0204 b077 ee ba0105 b000 ee f4"
VECTOR = 0x1000
PM_ENABLE, RTC_EN, TMR_EN = 0x602, 0x400, 0x001


def asleep(guest: Guest) -> Guest:
    """Runs until the guest sleeps; where it will wake up lies in the FACS."""
    ram = guest.machine.board.ram
    ram.write(guest.machine.direct.low.facs + 12, VECTOR.to_bytes(4, "little"))
    ram.write(VECTOR, bytes.fromhex(WOKEN))
    assert guest.run_until(lambda: guest.machine.state == "suspended")
    return guest


def port(guest: Guest, number: int, size: int, value: int) -> None:
    with guest.machine.board.lock:
        guest.machine.board.io.write(number, size, value)


def wake_by_button(guest: Guest) -> None:
    guest.machine.powerdown()


def wake_by_wish(guest: Guest) -> None:
    from accel.api import Action

    guest.machine.ask(Action.WAKEUP, "other")


def wake_by_alarm(guest: Guest) -> None:
    """At every second, in both halves of the day."""
    port(guest, PM_ENABLE, 2, RTC_EN)
    for index, value in ((1, 0xFF), (3, 0xFF), (5, 0xFF), (0x0B, 0x22)):
        port(guest, 0x70, 1, index)
        port(guest, 0x71, 1, value)


def wake_by_timer(guest: Guest) -> None:
    port(guest, PM_ENABLE - 2, 2, TMR_EN)
    port(guest, PM_ENABLE, 2, TMR_EN)


@pytest.mark.parametrize(
    ("wake", "status"),
    [(wake_by_button, 0x8100), (wake_by_wish, 0x8100), (wake_by_alarm, 0x8400), (wake_by_timer, 0x8001)],
)
def test_what_wakes_a_guest_from_s3(accel: str, tmp_path: pathlib.Path, wake: Any, status: int) -> None:
    with kernel(tmp_path, accel, SLEEP) as guest:
        told: list[str] = []
        guest.machine.listen(lambda name, **data: told.append(name))
        asleep(guest)
        wake(guest)
        assert guest.run_to_end() == "exit"
        assert guest.output() == "w"
        assert told == ["RESUME", "SUSPEND", "WAKEUP"]
        with guest.machine.board.lock:
            assert guest.machine.board.io.read(0x600, 2) & 0x8501 & status == status


def test_an_alarm_that_is_not_enabled_to_wake_does_not(accel: str, tmp_path: pathlib.Path) -> None:
    with asleep(kernel(tmp_path, accel, SLEEP)) as guest:
        wake_by_alarm(guest)
        port(guest, PM_ENABLE, 2, 0)
        assert not guest.run_until(lambda: guest.machine.state != "suspended", 2.5)


def test_going_on_does_not_bring_a_guest_past_its_sleep(accel: str, tmp_path: pathlib.Path) -> None:
    with asleep(kernel(tmp_path, accel, SLEEP)) as guest:
        assert not guest.machine.resume()
        assert not guest.run_until(lambda: guest.machine.outcome is not None, 0.3)
        assert guest.output() == ""


@pytest.mark.kvm
def test_writes_of_the_cmos_index_cost_no_exit_and_the_last_one_counts(tmp_path: pathlib.Path) -> None:
    # ecx = 1000; loop: mov al, cl; out 70h, al; loop; mov al, 5fh; out 70h, al; mov al, 77h; out 71h, al;
    # then cell 5f: in al, 71h to the debug console
    code = "b9e8030000 88c8 e670 e2fa b05f e670 b077 e671 e471 66ba0204 ee" + EXIT_FINE
    with kernel(tmp_path, "kvm", code) as guest:
        assert guest.run_to_end() == "exit"
        assert guest.output() == "w"
        assert guest.machine.accelerator.vcpus[0].io_exits < 100


# Linux goes to sleep; the alarm is three seconds from now
LINUX_SLEEPS = """
echo STATES $(cat /sys/power/state)
echo 0 > /sys/class/rtc/rtc0/wakealarm
echo +3 > /sys/class/rtc/rtc0/wakealarm
echo GOING
echo deep > /sys/power/mem_sleep
echo mem > /sys/power/state && echo BACK-AGAIN on $(cat /sys/devices/system/cpu/online)
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_linux_sleeps_and_is_woken_by_the_clock(tmp_path: pathlib.Path, count: int) -> None:
    told: list[str] = []
    settings = {"machine": "pc-i440fx-7.2", "memory": "256MiB", "cpus": {"count": count}}
    with LinuxGuest(tmp_path, "soft", kernel=linux(), initrd=initramfs(tmp_path, LINUX_SLEEPS), **settings) as guest:
        guest.machine.listen(lambda name, **data: told.append(name))
        assert guest.run_to_end(400) == "shutdown", guest.console()[-2000:]
        text = guest.console()
    online = "0" if count == 1 else f"0-{count - 1}"
    assert f"BACK-AGAIN on {online}\n" in text and "ACPI: PM: Waking up from system sleep state S3" in text
    assert told[:3] == ["RESUME", "SUSPEND", "WAKEUP"]
