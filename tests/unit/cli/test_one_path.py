"""validate, lock, tree and up tell the same of a machine that cannot start: code, line and exit code; and what validate
calls fine is built.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import HEAD, Run
from tests.unit.firmware import kernels
from vmrun.config.api import examine_file
from vmrun.errors import ERROR, VmrunError
from vmrun.machine.builder import build
from vmrun.machine.examine import examine

LONG = "x" * 100_000

# name → (file behind the two first lines, place and code, exit code)
FAULTS: dict[str, tuple[str, str, int]] = {
    "an image that is not there": ("disks: [no.img]", "m.yaml:3:9: error VR0620", 3),
    "an image that is a directory": ("disks: [dir]", "m.yaml:3:9: error VR0621", 3),
    "an empty image": ("disks: [empty.img]", "m.yaml:3:9: error VR0623", 3),
    "an image of another format": ("disks: [q.img]", "m.yaml:3:9: error VR0628", 3),
    "an image without its header": ("disks: [text.qcow2]", "m.yaml:3:9: error VR0628", 3),
    "a kernel that is not there": ("kernel: no", "m.yaml:3:9: error VR0620", 3),
    "a kernel that is none": ("kernel: text", "m.yaml:3:9: error VR0630", 3),
    "a cut kernel": ("kernel: cut", "m.yaml:3:9: error VR0630", 3),
    "a kernel larger than the memory": ("kernel: large\nmemory: 32MiB", "m.yaml:3:9: error VR0715", 1),
    "an initrd that is not there": ("kernel: good\ninitrd: no", "m.yaml:4:9: error VR0620", 3),
    "an initrd without room": ("kernel: good\ninitrd: huge\nmemory: 32MiB", "m.yaml:4:9: error VR0715", 1),
    "two initrds": ("kernel: good\ninitrd: text,text", "m.yaml:4:9: error VR0605", 1),
    "a long command line": (f"kernel: good\ncmdline: {'x' * 3000}", "m.yaml:4:10: error VR0714", 1),
    "a firmware that is not there": ("firmware: {bios: no.bin}", "m.yaml:3:18: error VR0620", 3),
    "a firmware of 3 GB": ("firmware: {bios: ./sparse}", "m.yaml:3:18: error VR0632", 3),
    "a firmware of zeros": ("firmware: {bios: ./zeros}", "m.yaml:3:18: error VR0632", 3),
    "a ROM that is none": ("devices: [{driver: VGA, romfile: ./text}]", "m.yaml:3:34: error VR0632", 3),
    "SMBIOS fields": (f"smbios: {{type1: {{serial: {LONG}}}}}", "m.yaml:3:17: error VR0716", 1),
    "a memory map": ("memory-map: {low-ram-limit: 0x10}", "m.yaml:3:29: error VR0717", 1),
    "a split above the limit": ("memory-map: {low-ram-limit: 1GiB}", "m.yaml:3:29: error VR0717", 1),
    "year 1": ('rtc: {base: "0001-01-01T00:00:00"}', "m.yaml:3:13: error VR0713", 1),
    "month 99": ('rtc: {base: "9999-99-99"}', "m.yaml:3:13: error VR0713", 1),
    "a wire to itself": ('wires: [{from: "gsi[3]", to: "gsi[3]"}]', "m.yaml:3:9: error VR0523", 1),
    "wires in a circle": (
        'wires: [{from: "isa.0.irq[3]", to: "gsi[5]"}, {from: "gsi[5]", to: "isa.0.irq[3]"}]',
        "m.yaml:3:47: error VR0523", 1,
    ),
    "a wire from a pin that is not there": ('wires: [{from: "pit.nix", to: "gsi[5]"}]', "m.yaml:3:8: error VR0521", 1),
    "a wire to a pin beyond the last": ('wires: [{from: "rtc.irq", to: "gsi[24]"}]', "m.yaml:3:8: error VR0521", 1),
    "a wire to a second INTR": ('wires: [{from: "rtc.irq", to: "cpus.intr[1]"}]', "m.yaml:3:8: error VR0521", 1),
    "more memory than the host has": ("memory: 63TiB", "m.yaml:3:9: error VR0633", 3),
    "a pipe that is not there": ("serial: {type: pipe, path: no}", "m.yaml:3:28: error VR0620", 3),
    "a socket that nobody has": ("serial: {type: socket, path: no}", "m.yaml:3:30: error VR0620", 3),
    "a ring of 1 TiB": (
        "chardevs: {r: {type: ringbuf, size: 1TiB}}\nserial: r", "m.yaml:3:37: error VR0404", 1,
    ),
}  # fmt: skip


@pytest.fixture
def here(vmrun: Run) -> Run:
    Path("dir").mkdir()
    Path("empty.img").touch()
    Path("text").write_text("this is text " * 100)
    Path("text.qcow2").write_text("this is text " * 100)
    Path("q.img").write_bytes(b"QFI\xfb" + bytes(508))
    Path("zeros").write_bytes(bytes(0x20000))
    good = kernels.linux()
    Path("good").write_bytes(good)
    cut = bytearray(good)
    cut[0x1F4:0x1F8] = (1 << 16).to_bytes(4, "little")
    Path("cut").write_bytes(cut)
    Path("large").write_bytes(kernels.linux(init=64 << 20))
    for name, size in (("sparse", 3 << 30), ("huge", 30 << 20)):
        with open(name, "wb") as file:
            file.truncate(size)
    return vmrun


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", ["validate", "lock", "tree", "up"])
def test_a_fault_is_told_alike_by_all_commands(here: Run, command: str, fault: str) -> None:
    body, said, code = FAULTS[fault]
    Path("m.yaml").write_text(f"{HEAD}{body}\n")
    options = ["--accel", "soft", "--timeout", "5", "--quiet"] if command == "up" else []
    found, out, err = here(command, *options, "m.yaml")
    told, other = (out, err) if command == "validate" else (err, out)
    assert (found, told.partition("\n")[0].startswith(f"{said}:")) == (code, True), told[:300]
    assert other == "" and told.endswith("m.yaml: 1 error\n") == (command == "validate")


def test_without_files_the_rest_is_looked_at(here: Run) -> None:
    Path("m.yaml").write_text(f"{HEAD}kernel: no\nsmbios: {{type1: {{serial: {LONG}}}}}\n")
    code, out, _ = here("validate", "--no-files", "m.yaml")
    assert code == 1 and "VR0716" in out and "VR0620" not in out


def test_a_chip_of_kvm_s_kernel_cannot_be_moved(here: Run) -> None:
    body = "devices: [{id: ioapic, driver: ioapic, base: 0xfec10000}]\n"
    Path("m.yaml").write_text(HEAD + body)
    code, out, _ = here("validate", "m.yaml")
    assert code == 1 and out.startswith("m.yaml:3:46: error VR0411: KVM has its kvm-ioapic at 0xfec00000")
    for other in ('kernel_irqchip: "off"\n', "accel: soft\n"):
        Path("m.yaml").write_text(HEAD + body + other)
        assert here("validate", "m.yaml") == (0, "m.yaml: fine\n", "")


def test_processors_that_the_tables_have_no_room_for_are_told_where_they_are_asked_for(here: Run) -> None:
    Path("m.yaml").write_text(f"{HEAD}cpus: {{count: 255, cores: 3}}\n".replace("rhel6.3.0", "pc-i440fx-2.0"))
    code, out, _ = here("validate", "m.yaml")
    assert code == 1 and out.startswith("m.yaml:3:7: error VR0910: the highest APIC id is 338")


def test_a_firmware_beside_the_file_is_found(here: Run) -> None:
    Path("sub").mkdir()
    Path("sub/own.bin").write_bytes(bytes(0x1FFF0) + b"\xea" + bytes(15))
    Path("sub/m.yaml").write_text(f"{HEAD}firmware: {{bios: own.bin}}\n")
    assert here("validate", "sub/m.yaml") == (0, "sub/m.yaml: fine\n", "")


# --- machines that nobody thought of ------------------------------------------------------------------------------

NUMBERS = (0, 1, 2, 3, 4, 7, 8, 15, 16, 64, 255, 256, 1000, 4096, 65535, 65536, 1 << 20, 0xE0000000, 0xFFFFFFFF)
TEXTS = ("", "x", "utc", "default", "none", "host", "486", "qemu64", "07.0", "1f.7", "0", "52:54:00:12:34:56", "d0")
DRIVERS = ("VGA", "isa-serial", "isa-parallel", "isa-debugcon", "isa-debug-exit", "pvpanic", "ide-hd", "vmport", "hpet",
           "ioapic", "isa-i8259", "isa-pit", "mc146818rtc", "fw_cfg_io", "piix3-ide", "PIIX4_PM", "i8042")  # fmt: skip
BOARD = ("ioapic", "pic0", "pic1", "pit", "rtc", "hpet", "fw_cfg", "ide", "pm", "i440fx", "kbd", "port92", "dma")
PINS = ("gsi[3]", "gsi[23]", "gsi[24]", "isa.0.irq[5]", "isa.0.irq[16]", "pit.irq", "pci.0.pirq[0]", "rtc.irq",
        "cpus.intr", "pic0.int", "ioapic.in[2]", "pic0.in[9]", "cpus.reset", "hpet.irq[31]")  # fmt: skip


TYPES = ("rhel6.0.0", "rhel6.6.0", "pc-i440fx-2.0", "pc-i440fx-7.2")
COUNTS = (1, 2, 3, 63, 64, 127, 128, 254, 255)
DATES = ("1970-01-01", "1969-12-31", "2038-01-19T03:14:08", "2200-12-31", "2000-02-30")
TEXT_FIELDS = ("vendor", "serial", "version", "sock_pfx", "max-speed", "release", "uuid")
SECTIONS: dict[str, Callable[[random.Random], Any]] = {
    "memory": lambda draw: f"{draw.choice([1, 2, 3, 64, 3583, 3584, 4096])}MiB",
    "cpus": lambda draw: {
        draw.choice(["count", "cores", "threads", "sockets", "maxcpus"]): draw.choice(COUNTS) for _ in range(2)
    },
    "rtc": lambda draw: {"base": draw.choice(DATES)},
    "smbios": lambda draw: {f"type{draw.choice([0, 1, 2, 3, 4, 11, 17])}": {draw.choice(TEXT_FIELDS): odd(draw)}},
    "memory-map": lambda draw: {
        draw.choice(["low-ram-limit", "low-ram-split", "high-ram"]): draw.choice(NUMBERS),
        draw.choice(["option-roms", "pci-hole"]): {draw.choice(["size", "base"]): draw.choice(NUMBERS)},
        "bios": {draw.choice(["isa-window", "end"]): draw.choice(NUMBERS)},
    },
    "wires": lambda draw: [{"from": draw.choice(PINS), "to": draw.choice(PINS)}],
    "remove": lambda draw: draw.sample(BOARD, draw.choice([1, 2])),
    "boot": lambda draw: {"order": draw.choice(["c", "cad", "n", "p"]), "menu": True},
    "numa": lambda draw: [{"memory": "64MiB", "cpus": [0]}, {"memory": "64MiB"}],
}


def odd(draw: random.Random) -> Any:
    return draw.choice((draw.choice(NUMBERS), draw.choice(TEXTS), draw.random() < 0.5))


def machine(seed: int, catalogue: dict[str, Any]) -> dict[str, Any]:
    """A machine file that the schema may take, with some odd values."""
    draw = random.Random(seed)
    found: dict[str, Any] = {"schema": "vmrun/machine/1", "machine": draw.choice(TYPES)}
    found["drives"] = {"d0": {"file": "disk.img"}, "d1": {"file": "disk2.img", "readonly": draw.random() < 0.5}}
    found["chardevs"] = {"c0": {"type": "null"}, "c1": {"type": "ringbuf", "size": draw.choice([2, 64, 65536])}}
    for section in draw.sample(sorted(SECTIONS), draw.choice([0, 1, 2])):
        found[section] = SECTIONS[section](draw)
    devices = []
    for n in range(draw.choice([0, 1, 2, 3])):
        driver = draw.choice(DRIVERS)
        props = [prop for prop in catalogue[driver]["props"] if prop["name"] not in ("id", "romfile")]
        device = {"driver": driver, "id": f"x{n}"}
        if draw.random() < 0.3:
            device["id"] = draw.choice(BOARD)
        for prop in draw.sample(props, min(len(props), draw.choice([0, 1, 2]))):
            if prop["type"] in ("drive", "chardev"):
                device[prop["name"]] = draw.choice(["d0", "d1"] if prop["type"] == "drive" else ["c0", "c1"])
            else:
                device[prop["name"]] = draw.random() < 0.5 if prop["type"] == "bool" else odd(draw)
        devices.append(device)
    return {**found, "devices": devices}


@pytest.mark.parametrize("part", range(8))
def test_what_validate_calls_fine_is_built_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    import json

    from vmrun.config.data import data_dir

    catalogue = json.loads(Path(data_dir("schema"), "devices.json").read_text())
    monkeypatch.chdir(tmp_path)
    for name in ("disk.img", "disk2.img"):
        Path(name).write_bytes(bytes(1 << 20))
    wrong, fine = [], 0
    for seed in range(part * 60, part * 60 + 60):
        text = json.dumps(machine(seed, catalogue))
        Path("m.json").write_text(text)
        resolved, problems = examine_file("m.json")
        if resolved is None:
            continue
        said = [problem for problem in examine(resolved) if problem.severity == ERROR]
        if any(problem.place is None or not problem.place.line for problem in said):
            wrong.append((seed, "no line", said, text))
        try:
            build(resolved.data, accel=["qtest"]).close()
        except VmrunError as error:
            if not said:
                wrong.append((seed, "not found", error, text))
        else:
            fine += 1
            if [problem for problem in said if problem.code != "VR0411"]:  # what only KVM refuses
                wrong.append((seed, "built", said, text))
    assert wrong == []
    assert fine > 3  # else the machines are too odd to say anything
