"""Kernels of every kind, started without a firmware and through it: what each finds is what its protocol promises."""

from __future__ import annotations

import pathlib
import struct
from typing import Any

import pytest

from tests.guest import kernels
from tests.guest.kernels.extract import vmlinux
from tests.guest.linux import LinuxGuest, initramfs, kernel
from tests.guest.machines import Guest

pytestmark = pytest.mark.guest
SERIAL: dict[str, Any] = {
    "chardevs": {"serial": {"type": "ringbuf", "size": 1 << 16}},
    "devices": [{"id": "com1", "driver": "isa-serial", "chardev": "serial"}],
}
EXIT = [{"id": "exit", "driver": "isa-debug-exit"}]
MODULES = {"first": bytes(range(256)) * 20, "second": b"\x01\x02\x03"}
USABLE = ["0 9fc00 1", "9fc00 400 2", "f0000 10000 2"]


def boot(tmp_path: pathlib.Path, accel: str, image: bytes, **keys: Any) -> list[str]:
    """The lines of a kernel of our own (tests/guest/kernels)."""
    (tmp_path / "kernel").write_bytes(image)
    for name, data in MODULES.items():
        (tmp_path / name).write_bytes(data)
    devices = SERIAL["devices"] + EXIT
    keys = {"machine": "pc-i440fx-2.0", "memory": "64MiB", "cmdline": "one two", "kernel": "kernel", **keys}
    with Guest(tmp_path, accel, chardevs=SERIAL["chardevs"], devices=devices, **keys) as guest:
        assert guest.run_to_end() == "exit", guest.output() + guest.output("serial")
        return guest.output("serial").replace("\r", "").splitlines()


def value(lines: list[str], name: str) -> list[str]:
    return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


def check_state(lines: list[str], magic: str, paging: int = 0) -> None:
    """Magic number, and the processor and memory as every protocol wants them."""
    assert value(lines, "magic") == [magic]
    assert (value(lines, "protected"), value(lines, "interrupts")) == (["1"], ["0"])
    assert value(lines, "paging") == [str(paging)]
    assert value(lines, "bss") == ["0"]


def check_modules(lines: list[str], tmp_path: pathlib.Path) -> None:
    assert value(lines, "module") == ["[first words of its own]", "[second]"]
    assert value(lines, "size") == [f"{len(data):x}" for data in MODULES.values()]
    assert value(lines, "sum") == [f"{sum(data):x}" for data in MODULES.values()]
    assert set(value(lines, "misaligned")) == {"0"}


@pytest.mark.parametrize(("firmware", "flags"), [("none", 3), ("none", 0x10003), ("default", 3)])
def test_multiboot_kernel_gets_map_modules_and_command_line(
    firmware: str, flags: int, accel: str, tmp_path: pathlib.Path
) -> None:
    keys = {"firmware": "none"} if firmware == "none" else {}
    initrd = "first words of its own,second"
    lines = boot(tmp_path, accel, kernels.multiboot1(flags), initrd=initrd, **keys)
    check_state(lines, "2badb002")
    check_modules(lines, tmp_path)
    assert value(lines, "cmdline") == ["[kernel one two]"]
    assert value(lines, "memory")[:3] == USABLE
    assert value(lines, "lower") == ["27f"]


def test_multiboot2_kernel_gets_map_modules_command_line_and_rsdp(accel: str, tmp_path: pathlib.Path) -> None:
    initrd = "first words of its own,second"
    lines = boot(tmp_path, accel, kernels.multiboot2(), initrd=initrd, firmware="none")
    check_state(lines, "36d76289")
    check_modules(lines, tmp_path)
    assert value(lines, "cmdline") == ["[kernel one two]"]
    assert value(lines, "memory")[:3] == USABLE
    assert value(lines, "rsdp") == ["2052545020445352"]
    assert value(lines, "base") == ["200000"]


@pytest.mark.parametrize("bits", [32, 64])
def test_pvh_kernel_gets_map_module_command_line_and_rsdp(bits: int, accel: str, tmp_path: pathlib.Path) -> None:
    lines = boot(tmp_path, accel, kernels.pvh(bits), initrd="first", firmware="none")
    check_state(lines, "336ec578")
    assert value(lines, "version") == ["1"]
    assert value(lines, "cmdline") == ["[one two]"]
    assert value(lines, "sum") == [f"{sum(MODULES['first']):x}"]
    assert value(lines, "memory")[:3] == USABLE
    assert value(lines, "rsdp") == ["2052545020445352"]


def test_pvh_kernel_starts_through_the_firmware_of_a_type_that_has_its_rom(accel: str, tmp_path: pathlib.Path) -> None:
    lines = boot(tmp_path, accel, kernels.pvh(64), machine="pc-i440fx-7.2", initrd="first")
    check_state(lines, "336ec578")
    assert value(lines, "cmdline") == ["[one two]"]
    assert value(lines, "sum") == [f"{sum(MODULES['first']):x}"]
    assert value(lines, "memory")[:3] == USABLE
    assert value(lines, "rsdp") == ["2052545020445352"]


@pytest.mark.parametrize(
    ("name", "bits"),
    [("bzImage", 64), ("old bzImage", 32), ("zImage", 32), ("vmlinux", 64), ("vmlinux", 32)],
)
def test_linux_protocol_hands_over_boot_parameters(name: str, bits: int, accel: str, tmp_path: pathlib.Path) -> None:
    image = {
        "bzImage": lambda: kernels.bzimage(),
        "old bzImage": lambda: kernels.bzimage(0x206, bits=32),
        "zImage": lambda: kernels.bzimage(0x201, bits=32, low=True),
        "vmlinux": lambda: kernels.vmlinux(bits),
    }[name]()
    lines = boot(tmp_path, accel, image, initrd="first", firmware="none")
    check_state(lines, "53726448", paging=int(bits == 64))
    assert value(lines, "bits") == [f"{bits:x}"]
    assert value(lines, "loader") == ["ff"]
    assert value(lines, "cmdline") == ["[one two]"]
    assert value(lines, "sum") == [f"{sum(MODULES['first']):x}"]
    assert value(lines, "memory")[:3] == USABLE
    assert value(lines, "rsdp") == ["2052545020445352"]


def test_processor_without_long_mode_enters_a_bzimage_as_32_bit_code(accel: str, tmp_path: pathlib.Path) -> None:
    lines = boot(tmp_path, accel, kernels.bzimage(0x206, bits=32), firmware="none", cpus={"model": "qemu32"})
    assert value(lines, "bits") == ["20"]


def test_zimage_starts_through_the_firmware(tmp_path: pathlib.Path) -> None:
    """Its setup code is what runs first, in real mode: here it says Z and leaves."""
    image = bytearray(kernels.bzimage(0x201, bits=32, low=True))
    # mov dx, 3f8h; mov al, 'Z'; out dx, al; push 1000h; pop ds; mov al, [0]; … out 501h, al
    image[0x268:0x280] = bytes.fromhex("baf803b05aeebaf8036800101fa00000eeba0105b007eef4ebfd").ljust(24, b"\x90")[:24]
    lines = boot(tmp_path, "soft", bytes(image), machine="rhel6.3.0")
    first_byte = image[1024]
    assert "".join(lines).encode("latin-1").startswith(b"Z" + bytes([first_byte]))


@pytest.mark.parametrize("machine", ["rhel6.3.0", "pc-i440fx-2.0"])
def test_reset_starts_the_kernel_anew(machine: str, accel: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "kernel").write_bytes(kernels.pvh())
    keys = {"machine": machine, "memory": "32MiB", "kernel": "kernel", "firmware": "none", **SERIAL}
    with Guest(tmp_path, accel, **keys) as guest:
        assert guest.run_until(lambda: guest.output("serial").count("rsdp") == 1), guest.output("serial")
        guest.keep()
        guest.machine.ask(1, "host-qmp-system-reset")
        assert guest.run_until(lambda: guest.output("serial").count("rsdp") == 2), guest.output("serial")
        # cleared again, though the first run has left its mark there
        assert value(guest.output("serial").replace("\r", "").splitlines(), "bss") == ["0", "0"]


# --- stock kernels ----------------------------------------------------------------------------------------


def check_linux(tmp_path: pathlib.Path, cpus: int = 1, **keys: Any) -> str:
    """Boots to init and off again, on soft: this is where a stock kernel runs on every host."""
    initrd = initramfs(tmp_path, "ls /sys/firmware/acpi/tables")
    keys = {"machine": "pc-i440fx-2.0", "firmware": "none", "initrd": initrd, **keys}
    with LinuxGuest(tmp_path, "soft", cpus={"count": cpus}, **keys) as guest:
        assert guest.run_to_end(300) == "shutdown", guest.console()[-2000:]
        text = guest.console()
        assert guest.complaints() == []
    assert f"GUEST-UP {cpus}\n" in text
    return text


@pytest.mark.slow
@pytest.mark.parametrize(("machine", "cpus"), [("pc-i440fx-2.0", 1), ("rhel6.3.0", 4)])
def test_stock_bzimage_boots_without_a_firmware_and_finds_acpi(
    machine: str, cpus: int, tmp_path: pathlib.Path
) -> None:
    text = check_linux(tmp_path, cpus, machine=machine, kernel=kernel())
    assert {"APIC", "DSDT", "FACP"} <= set(text.split())
    assert "ACPI: RSDP 0x00000000000F0040" in text


@pytest.mark.slow
def test_stock_vmlinux_starts_through_its_pvh_note(tmp_path: pathlib.Path) -> None:
    (tmp_path / "vmlinux").write_bytes(vmlinux(kernel()))
    assert "ACPI: RSDP 0x00000000000F0040" in check_linux(tmp_path, kernel="vmlinux")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["bzImage", "vmlinux"])
def test_stock_kernel_starts_through_roms_that_use_dma(form: str, tmp_path: pathlib.Path) -> None:
    image = pathlib.Path(kernel()).read_bytes() if form == "bzImage" else vmlinux(kernel())
    (tmp_path / "kernel").write_bytes(image)
    check_linux(tmp_path, kernel="kernel", machine="pc-i440fx-7.2", firmware={})


@pytest.mark.slow
def test_stock_vmlinux_without_a_note_starts_at_its_64_bit_entry(tmp_path: pathlib.Path) -> None:
    image = vmlinux(kernel())
    note = image.index(struct.pack("<II", 4, 8) + struct.pack("<I", 18) + b"Xen\0")
    (tmp_path / "vmlinux").write_bytes(image[: note + 12] + b"Nex\0" + image[note + 16 :])
    check_linux(tmp_path, kernel="vmlinux")


@pytest.mark.slow
def test_stock_bzimage_starts_at_its_32_bit_entry(tmp_path: pathlib.Path) -> None:
    image = bytearray(pathlib.Path(kernel()).read_bytes())
    image[0x236] &= ~1  # XLF_KERNEL_64
    (tmp_path / "bzImage").write_bytes(image)
    check_linux(tmp_path, kernel="bzImage")


@pytest.mark.slow
def test_stock_kernel_runs_on_the_8259a_when_it_shall_not_use_acpi(tmp_path: pathlib.Path) -> None:
    initrd = initramfs(tmp_path, "cat /proc/interrupts")
    with LinuxGuest(
        tmp_path, "soft", "acpi=off", machine="rhel6.3.0", firmware="none", kernel=kernel(), initrd=initrd
    ) as guest:
        assert guest.run_until(lambda: "GUEST-DOWN" in guest.console(), 300), guest.console()[-2000:]
        assert "XT-PIC" in guest.console()
