"""Every pc-i440fx type that QEMU has too: the whole board at power-on, and each CPU model, beside QEMU's.

QEMU is started once for each type, on KVM where there is one: only there do its CPU models get what they get on KVM.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.board import Driven
from tests.peers.oracle import QEMU, Qemu, needs_qemu
from tests.peers.test_cpuid_qemu import host
from tests.peers.test_ide_identify import identify_differences
from vmrun.config import cpumodels
from vmrun.config.machinetypes import load_type, type_names
from vmrun.machine import cpuid

pytestmark = [needs_qemu, pytest.mark.peer]

KVM = os.access("/dev/kvm", os.R_OK | os.W_OK)
# RAM that is cut below 4 GiB, processors to come: what a type makes of both is in CMOS, e820, SMBIOS and fw_cfg.
SETTINGS: dict[str, Any] = {"memory": "5GiB", "serial": "null", "cpus": {"count": 2, "maxcpus": 4}}
FUNCTIONS = [(0, 0), (1, 0), (1, 1), (1, 3), (2, 0)]
CELLS = [n for n in range(0x0E, 0x80) if n not in (0x32, 0x37)]  # what is before and these two is the time
# fw_cfg's DMA, A20, reset, the FADT's SMI port, ACPI's bitmap of processors and its events
PORTS = [0x514, 0x515, 0x518, 0x51B, 0x92, 0xB2, 0xCF9, 0xAF00, 0xAF04, 0xAFE0]
WIDE_PORTS = [0xAE00, 0xAE04, 0xAE08, 0xAE0C, 0xAE10]  # ACPI's registers for plugging PCI functions
APART = ("1.4", "1.7", "2.0", "2.6", "2.7", "2.8", "5.1", "7.2")  # some types on both sides of changes
ACPI = ("etc/acpi/tables", "etc/acpi/rsdp", "etc/table-loader")  # test_acpi_qemu.py takes them apart
NUMBERS = ("level", "xlevel", "family", "model", "stepping", "model-id")
FLAGS = ("l3-cache", "cpuid-0xb", "legacy-cache", "x-vendor-cpuid-only", "full-cpuid-auto-level", "pmu")


def common_types() -> list[str]:
    if QEMU is None:
        return []
    text = subprocess.run([QEMU, "-M", "help"], capture_output=True, text=True, check=True).stdout
    theirs = set(re.findall(r"^pc-i440fx-[0-9.]+", text, re.M))
    return [name for name in type_names() if name in theirs]


class Pair:
    """The same machine twice, both standing still."""

    def __init__(self, name: str, ours: Driven, theirs: Qemu) -> None:
        self.name, self.ours, self.theirs = name, ours, theirs
        self.type: dict[str, Any] = load_type(name).to_dict()

    def their_config(self, slot: int, function: int) -> list[int]:
        lines = []
        for offset in range(0, 256, 4):
            lines += [f"outl 0xcf8 {0x80000000 | slot << 11 | function << 8 | offset:#x}", "inl 0xcfc"]
        return [int(answer, 0) for answer in self.theirs.ask_all(lines)[1::2]]

    def config_differences(self, slot: int, function: int) -> list[str]:
        return [
            f"{offset:02x}: ours {mine:08x}, QEMU's {other:08x}"
            for offset, other in zip(range(0, 256, 4), self.their_config(slot, function), strict=True)
            if (mine := self.ours.config(slot, function, offset)) != other
        ]

    def our_fw_cfg(self, key: int, count: int) -> bytes:
        self.ours.outw(0x510, key)
        return bytes(self.ours.inb(0x511) for _ in range(count))

    def our_files(self) -> dict[str, tuple[int, int]]:
        count = int.from_bytes(self.our_fw_cfg(0x19, 4), "big")
        data = self.our_fw_cfg(0x19, 4 + 64 * count)[4:]
        rows = [data[n : n + 64] for n in range(0, len(data), 64)]
        return {
            row[8:].split(b"\0")[0].decode(): (int.from_bytes(row[4:6], "big"), int.from_bytes(row[:4], "big"))
            for row in rows
        }


@pytest.fixture(scope="module", params=common_types())
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory: pathlib.Path = tmp_path_factory.mktemp("types")
    devices = [{"id": "v", "driver": "VGA", "bus": "pci.0", "addr": "02.0"}]
    devices += [{"id": "disk", "driver": "ide-hd", "bus": "ide.0", "unit": 0, "drive": "d"}]
    for image in ("ours.img", "theirs.img"):
        (directory / image).write_bytes(bytes(1 << 20))
    drives = {"d": {"file": "ours.img", "format": "raw"}}
    args = ["-m", "5G", "-smp", "2,maxcpus=4", "-cpu", "qemu64,vendor=AuthenticAMD", "-device", "isa-serial"]
    args += ["-drive", f"file={directory / 'theirs.img'},format=raw,if=none,id=d"]
    args += ["-device", "ide-hd,drive=d,bus=ide.0,unit=0", "-device", "VGA,addr=02.0"]
    with (
        Driven(directory, machine=request.param, devices=devices, drives=drives, **SETTINGS) as ours,
        Qemu(f"{request.param},smm=off", *args, accel="kvm" if KVM else "tcg") as theirs,
    ):
        yield Pair(request.param, ours, theirs)


# --- the board ----------------------------------------------------------------------------------------


def test_configuration_space_at_power_on(pair: Pair) -> None:
    found = {f"{slot:02x}.{function}": pair.config_differences(slot, function) for slot, function in FUNCTIONS}
    assert {where: wrong for where, wrong in found.items() if wrong} == {}


def test_cmos(pair: Pair) -> None:
    lines = [line for n in CELLS for line in (f"outb 0x70 {n:#x}", "inb 0x71")]
    theirs = [int(answer, 0) & 0xFF for answer in pair.theirs.ask_all(lines)[1::2]]
    ours = []
    for n in CELLS:
        pair.ours.outb(0x70, n)
        ours.append(pair.ours.inb(0x71))
    wrong = [(hex(n), a, b) for n, a, b in zip(CELLS, ours, theirs, strict=True) if a != b]
    assert wrong == []


def test_ports_of_the_board(pair: Pair) -> None:
    theirs = {hex(port): pair.theirs.inb(port) for port in PORTS}
    assert {hex(port): pair.ours.inb(port) for port in PORTS} == theirs
    theirs = {hex(port): pair.theirs.inl(port) for port in WIDE_PORTS}
    assert {hex(port): pair.ours.inl(port) for port in WIDE_PORTS} == theirs


def test_fw_cfg_lists_the_same_files_in_the_same_order(pair: Pair) -> None:
    theirs, ours = pair.theirs.files(), pair.our_files()
    if KVM and "etc/e820" in theirs:  # KVM's pages are a row more; ours runs on no KVM
        key, size = theirs["etc/e820"]
        theirs["etc/e820"] = key, size - 20
    assert list(ours.items()) == list(theirs.items())


def test_fw_cfg_items_and_files_are_the_same(pair: Pair) -> None:
    theirs, ours = pair.theirs.files(), pair.our_files()
    for name in theirs:
        if name in ACPI or name.startswith("genroms/"):
            continue
        found = pair.theirs.file(name)
        if KVM and name == "etc/e820":
            place = pair.type["memory-map"]["kvm"]["identity-map"]
            assert found[:20] == place.to_bytes(8, "little") + (0x4000).to_bytes(8, "little") + b"\2\0\0\0"
            found = found[20:]
        assert pair.our_fw_cfg(*ours[name]) == found, name
    for key in (*range(0x19), *range(0x8000, 0x8008)):
        assert pair.our_fw_cfg(key, 300) == pair.theirs.fw_cfg(key, 300), hex(key)


def test_a_disk_says_of_itself_what_qemus_does(pair: Pair) -> None:
    assert identify_differences((pair.ours, pair.theirs)) == []


# --- processors ---------------------------------------------------------------------------------------


@pytest.mark.kvm
@pytest.mark.skipif(not KVM, reason="no /dev/kvm")
def test_every_cpu_model_has_qemus_features(pair: Pair) -> None:
    """Before what the host lacks is taken out: each bit with a name, levels, signature, name, and kinds of leaves."""
    (rows,) = pair.theirs.qmp(("query-cpu-definitions", {}))
    models = [row["name"] for row in rows if row["name"] not in ("host", "max")]
    assert set(models) == set(cpumodels.model_names("qemu")) - {"host", "max", "default"}
    answers = pair.theirs.qmp(
        *(("query-cpu-model-expansion", {"type": "full", "model": {"name": name}}) for name in models)
    )
    wrong = []
    for name, answer in zip(models, answers, strict=True):
        theirs, ours = answer["model"]["props"], features_of(pair.type, name)
        wrong += [(name, what, ours[what], theirs[what]) for what in ours if ours[what] != theirs[what]]
    assert wrong == []


@pytest.mark.kvm
@pytest.mark.skipif(not KVM, reason="no /dev/kvm")
def test_every_cpu_model_lacks_what_qemus_lacks_on_this_host(pair: Pair) -> None:
    names = cpuid.features()["names"]
    untold = {name for word in names if word.startswith("msr.") for name in names[word]}  # MSRs, and VMX's below
    (rows,) = pair.theirs.qmp(("query-cpu-definitions", {}))
    wrong = []
    for row in rows:
        if row["name"] in ("host", "max"):
            continue
        theirs = {name for name in row["unavailable-features"] if name not in untold and not name.startswith("vmx-")}
        ours = set(cpuid.missing_features(row["name"], {"machine": pair.name, "cpus": pair.type["cpus"]}, OfKvm()))
        if ours != theirs:
            wrong.append((row["name"], sorted(ours - theirs), sorted(theirs - ours)))
    assert wrong == []


class OfKvm:
    """An accelerator, as far as CPUID asks for one."""

    has_local_apic = True

    def supported_cpuid(self) -> list[dict[str, int]]:
        return host()


def features_of(machine_type: dict[str, Any], name: str) -> dict[str, Any]:
    """A model on a type, before filtering, in the names of QEMU's properties."""
    frozen = machine_type.get("cpu-compat", {})
    compat = {**frozen.get("*", {}), **frozen.get(name, {})}
    model = cpumodels.load_model(name, "qemu", [])
    assert model is not None
    maker = cpuid._Maker({**machine_type["cpus"], "compat": compat}, model, 0, {}, True)
    maker.collect()
    found: dict[str, Any] = {bit: maker.has(bit) for bit in cpuid.features()["bits"]}
    own = {"level": maker.level, "xlevel": maker.xlevel, "model-id": model["model-id"], **model["signature"]}
    defaults = {flag: flag != "pmu" for flag in FLAGS} | {"legacy-cache": not model.get("caches")}
    found |= {what: maker.settings.get(what, own[what]) for what in NUMBERS} | {"level": maker.level}
    found |= {flag: maker.flag(flag, defaults[flag]) for flag in FLAGS}
    return found | {"xlevel": maker.xlevel}


# --- the timers' and interrupt controllers' registers, which only a QEMU without KVM has -----------------


@pytest.mark.parametrize("name", [name for name in common_types() if name.split("-")[-1] in APART])
def test_memory_mapped_registers(name: str, tmp_path: pathlib.Path) -> None:
    hpet, ioapic, index = 0xFED00000, 0xFEC00000, (0, 1, 2, 0x10, 0x3F)
    with Driven(tmp_path, machine=name, kernel_irqchip="off", **SETTINGS) as ours, Qemu(f"{name},smm=off") as theirs:
        for offset in (0, 4, 0x10, 0x14, 0x20, 0x24, 0x100, 0x104, 0x108, 0x10C, 0x120, 0x124, 0x160):
            assert ours.read(hpet + offset, 4) == theirs.read(hpet + offset, 4), hex(offset)
        for register in index:
            ours.write(ioapic, bytes([register, 0, 0, 0]))
            theirs.ask(f"writel {ioapic:#x} {register}")
            assert ours.read(ioapic + 0x10, 4) == theirs.read(ioapic + 0x10, 4), hex(register)


# --- last, because it changes the machines ------------------------------------------------------------


@pytest.mark.parametrize("value", [0xFFFFFFFF, 0x5A5A5A5A])
def test_writable_bits_of_configuration_space(pair: Pair, value: int) -> None:
    found = {}
    for slot, function in FUNCTIONS:
        lines = []
        for offset in range(0, 256, 4):
            pair.ours.config(slot, function, offset, value)
            where = 0x80000000 | slot << 11 | function << 8 | offset
            lines += [f"outl 0xcf8 {where:#x}", f"outl 0xcfc {value:#x}"]
        pair.theirs.ask_all(lines)
        found[f"{slot:02x}.{function}"] = pair.config_differences(slot, function)
    assert {where: wrong for where, wrong in found.items() if wrong} == {}
