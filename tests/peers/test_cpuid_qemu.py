"""CPUID of declared models beside QEMU's: the same leaves, read by the same guest."""

from __future__ import annotations

import functools
import pathlib
import shutil
import subprocess
from typing import Any

import pytest

from accel.kvm.accelerator import KvmAccelerator
from vmrun.config.machinetypes import load_type
from vmrun.machine.cpuid import apic_ids, load_model, make_cpuid

QEMU = shutil.which("qemu-system-x86_64")
OK, REASON, _ = KvmAccelerator.probe()
pytestmark = [
    pytest.mark.peer,
    pytest.mark.kvm,
    pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed"),
    pytest.mark.skipif(not OK, reason=REASON),
]

# Real mode: for each (eax, ecx) of the table at f000:1000, cpuid; 16 bytes to port 402h; at the end port f4h.
DUMP = (
    "fa31c08ed0bc00708ec0be00102e668b046683f8ff74262e668b4c0483c6080fa266526651665366"
    "50b91000ba020489e558ee88e0ee83e90275f4ebd0e6f4f4"
)
LEAVES = [
    *((n, 0) for n in (0, 1, 2, 5, 6, 9, 0xA)),
    *((4, n) for n in range(5)),
    (7, 0),
    (7, 1),
    *((n, 0) for n in (3, 8, 0xC, 0xE, 0xF, 0x10, 0x12, 0x14, 0x15, 0x16, 0x19, 0x1B, 0x1D, 0x1F)),
    *((0xB, n) for n in range(3)),
    (0xD, 1),
    *((0xD, n) for n in range(2, 10)),
    (0x40000000, 0),
    (0x40000001, 0),
    *((0x80000000 + n, 0) for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 0xA, 0x1E)),
    *((0x8000001D, n) for n in range(5)),
    *((0xC0000000 + n, 0) for n in range(3)),
]
Row = tuple[int, int, int, int]


def rom() -> bytes:
    image = bytearray(b"\xf4" * 0x10000)
    code = bytes.fromhex(DUMP)
    image[: len(code)] = code
    table = b"".join(n.to_bytes(4, "little") for pair in LEAVES for n in pair) + b"\xff" * 8
    image[0x1000 : 0x1000 + len(table)] = table
    image[0xFFF0:0xFFF5] = bytes.fromhex("ea000000f0")
    return bytes(image)


def rows(data: bytes) -> dict[tuple[int, int], Row]:
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
    return {leaf: tuple(words[4 * n : 4 * n + 4]) for n, leaf in enumerate(LEAVES)}  # type: ignore[misc]


def show(leaf: tuple[int, int], found: dict[tuple[int, int], Row]) -> str:
    return f"{leaf[0]:x}.{leaf[1]}: " + " ".join(f"{n:08x}" for n in found[leaf])


def qemu(directory: pathlib.Path, machine: str, cpu: str, smp: str = "1") -> dict[tuple[int, int], Row]:
    (directory / "rom.bin").write_bytes(rom())
    out = directory / "out"
    command = [
        QEMU,
        "-M",
        machine,
        "-accel",
        "kvm",
        "-cpu",
        cpu,
        "-smp",
        smp,
        "-bios",
        str(directory / "rom.bin"),
    ]
    command += ["-nodefaults", "-display", "none", "-device", "isa-debug-exit,iobase=0xf4", "-m", "16"]
    command += ["-debugcon", f"file:{out}", "-global", "isa-debugcon.iobase=0x402"]
    subprocess.run([str(part) for part in command], timeout=30, capture_output=True, check=False)
    return rows(out.read_bytes())


@functools.cache
def host() -> list[dict[str, int]]:
    from tests.unit.kvm.pc import Pc

    guest = Pc()
    try:
        found: list[dict[str, int]] = guest.accel.supported_cpuid()
        return found
    finally:
        guest.close()


def ours(model: str, compat: dict[str, Any], **cpus: Any) -> dict[tuple[int, int], Row]:
    """What a guest of ours reads with the same ROM."""
    from tests.unit.kvm.pc import Pc

    settings = {"count": 1, "sockets": 1, "cores": 1, "threads": 1, "compat": compat, "features": {}, **cpus}
    found = make_cpuid(settings, load_model(model, "qemu"), apic_ids(settings)[0], host())
    guest = Pc()
    data = bytearray()
    try:
        guest.rom.write(0, rom())
        guest.port(0x402, write=lambda offset, size, value: data.append(value))
        assert guest.run(cpuid=found.entries) == 32, guest.control.take_reports()
    finally:
        guest.close()
    return rows(bytes(data))


def xsave() -> bool:
    """Whether KVM lets a guest have XSAVE."""
    return any(leaf["function"] == 1 and leaf["ecx"] >> 26 & 1 for leaf in host())


MODELS = ["qemu64", "kvm64", "486", "pentium3", "Conroe", "Nehalem", "Westmere", "Opteron_G1", "Opteron_G3"]
MODELS += [
    "SandyBridge",
    "Haswell",
    "Skylake-Client",
    "EPYC",
    "EPYC-Rome",
    "EPYC-Milan",
    "qemu32",
    "athlon",
    "phenom",
    "KnightsMill",
    "Snowridge-v2",
    "Dhyana",
]

# Types on either side of a change, and a model that it touches; each type is compared as a whole, before what the host
# lacks is taken out, in test_types_qemu.py.
ON_TYPES = [
    ("pc-i440fx-6.1", "EPYC-Rome"),
    ("pc-i440fx-6.0", "EPYC-Rome"),
    ("pc-i440fx-6.0", "qemu64"),
    ("pc-i440fx-4.0", "Haswell-noTSX"),
    ("pc-i440fx-3.1", "Skylake-Server"),
    ("pc-i440fx-3.0", "EPYC"),
    ("pc-i440fx-2.12", "EPYC"),
    ("pc-i440fx-2.11", "Skylake-Server"),
    ("pc-i440fx-2.8", "Haswell"),
    ("pc-i440fx-2.7", "Haswell"),
    ("pc-i440fx-2.6", "Opteron_G3"),
    ("pc-i440fx-2.4", "qemu64"),
    ("pc-i440fx-2.3", "Conroe"),
    ("pc-i440fx-2.2", "Opteron_G4"),
    ("pc-i440fx-2.1", "coreduo"),
    ("pc-i440fx-1.7", "SandyBridge"),
    ("pc-i440fx-1.6", "qemu64"),
    ("pc-i440fx-1.5", "Nehalem"),
    ("pc-i440fx-1.4", "n270"),
]


@pytest.mark.parametrize("model", MODELS)
def test_model_reads_as_in_qemu(model: str, tmp_path: pathlib.Path) -> None:
    theirs = qemu(tmp_path, "pc-i440fx-7.2", model)
    mine = ours(model, {})
    wrong = [leaf for leaf in LEAVES if mine[leaf] != theirs[leaf]]
    if not xsave():  # without it QEMU leaves leaf D to the kernel, we say zero
        wrong = [leaf for leaf in wrong if leaf[0] != 0xD]
    assert [show(leaf, mine) for leaf in wrong] == [show(leaf, theirs) for leaf in wrong]


@pytest.mark.parametrize(("name", "model"), [*(("pc-i440fx-2.0", model) for model in MODELS), *ON_TYPES])
def test_model_of_an_older_type_reads_as_in_qemu(name: str, model: str, tmp_path: pathlib.Path) -> None:
    section = load_type(name).to_dict()
    compat = {**section["cpu-compat"].get("*", {}), **section["cpu-compat"].get(model, {})}
    theirs = qemu(tmp_path, name, model)
    mine = ours(model, compat, **section["cpus"])
    wrong = [leaf for leaf in LEAVES if mine[leaf] != theirs[leaf] and leaf[0] != 0xD]
    assert [show(leaf, mine) for leaf in wrong] == [show(leaf, theirs) for leaf in wrong]


@pytest.mark.parametrize("name", ["pc-i440fx-7.2", "pc-i440fx-5.2"])
@pytest.mark.parametrize("smp", [(4, 1, 2, 2), (6, 2, 3, 1)])
@pytest.mark.parametrize("model", ["Haswell", "EPYC-Rome"])
def test_topology_reads_as_in_qemu(
    name: str, model: str, smp: tuple[int, int, int, int], tmp_path: pathlib.Path
) -> None:
    count, sockets, cores, threads = smp
    text = f"{count},sockets={sockets},cores={cores},threads={threads}"
    theirs = qemu(tmp_path, name, model, text)
    section = load_type(name).to_dict()
    compat = section.get("cpu-compat", {}).get("*", {})
    mine = ours(model, compat, count=count, sockets=sockets, cores=cores, threads=threads)
    wrong = [leaf for leaf in LEAVES if mine[leaf] != theirs[leaf] and leaf[0] != 0xD]
    assert [show(leaf, mine) for leaf in wrong] == [show(leaf, theirs) for leaf in wrong]
