"""ACPI tables of pc-i440fx-2.0: iasl reads and recompiles vmrun's, and they say what QEMU's say.

Byte for byte: FACS, FADT, MADT, HPET, WAET, and the loader's commands. The DSDT is compared as a name
space (every object, its kind, its arguments), by the values of all its data, and by the answers of its
methods under acpiexec; the code inside the methods is vmrun's own.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.peers.qemu import Qemu, needs_qemu
from tests.unit.firmware.board import board
from vmrun.firmware import acpi, aml

IASL = shutil.which("iasl")
pytestmark = [pytest.mark.peer, pytest.mark.skipif(IASL is None, reason="iasl is not installed")]

ISA = {"bus": "isa.0"}
FDC = {"id": "fdc", "driver": "isa-fdc", **ISA}  # QEMU's board always has one
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "plain": ({"devices": (FDC,)}, ["-m", "256"]),
    "5-gib": ({"devices": (FDC,), "memory": 5 << 30}, ["-m", "5G"]),
    "processors": (
        {"devices": (FDC,), "cpus": {"count": 2, "sockets": 4, "maxcpus": 4}},
        ["-m", "256", "-smp", "2,maxcpus=4"],
    ),
    "topology": (
        {"devices": (FDC,), "cpus": {"count": 12, "sockets": 2, "cores": 3, "threads": 2}},
        ["-m", "256", "-smp", "12,sockets=2,cores=3,threads=2"],
    ),
    "64-processors": ({"devices": (FDC,), "cpus": {"count": 64, "sockets": 64}}, ["-m", "256", "-smp", "64"]),
    "devices": (
        {
            "devices": (
                FDC,
                {"id": "v", "driver": "VGA", "bus": "pci.0", "addr": "02.0"},
                {"id": "n", "driver": "e1000", "bus": "pci.0", "addr": "03.0"},
                {"id": "s1", "driver": "isa-serial", "iobase": 0x3F8, "irq": 4, **ISA},
                {"id": "s2", "driver": "isa-serial", "iobase": 0x2F8, "irq": 3, **ISA},
                {"id": "p", "driver": "isa-parallel", "iobase": 0x378, "irq": 7, **ISA},
                {"id": "pv", "driver": "pvpanic", "ioport": 0x505, **ISA},
            )
        },
        [
            *("-m", "256", "-device", "VGA,addr=2,romfile=", "-device", "e1000,addr=3,romfile="),
            *("-serial", "null", "-serial", "null", "-parallel", "null", "-device", "pvpanic"),
        ],
    ),
}


def split(data: bytes) -> dict[str, bytes]:
    """Tables by signature from the file of tables."""
    found, offset = {}, 0
    while offset < len(data) and data[offset]:
        (size,) = struct.unpack_from("<I", data, offset + 4)
        found[data[offset : offset + 4].decode()] = data[offset : offset + size]
        offset += size
    return found


def disassemble(table: bytes, directory: Path, name: str) -> str:
    path = directory / f"{name}.aml"
    total = bytearray(table)
    total[9] = 0
    total[9] = -sum(total) & 0xFF
    path.write_bytes(total)
    done = subprocess.run(
        [IASL or "iasl", "-d", path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return (directory / f"{name}.dsl").read_text()


def name_space(source: str) -> dict[str, str]:
    """Path → declaration (methods with their number of arguments), and for names their whole value."""
    found: dict[str, str] = {}
    stack: list[str] = []
    lines = [re.sub(r"/\*.*?\*/|//.*", "", line).rstrip() for line in source.splitlines()]
    start = next(n for n, line in enumerate(lines) if line.startswith("DefinitionBlock"))
    pending: str | None = None
    inside_method = 0
    n = start + 1
    while n < len(lines):
        line = lines[n].strip()
        opened = re.match(r"(Scope|Device|Processor|Method|ThermalZone|Field) \(([^,)]+)(.*)\)", line)
        if line == "{":
            stack.append(pending or "?")
            inside_method += pending is not None and pending.startswith("method ")
            pending = None
        elif line.startswith("}"):
            inside_method -= stack.pop().startswith("method ") if stack else 0
        elif opened:
            kind, what, rest = opened.groups()
            pending = f"method {what}" if kind == "Method" else "" if kind == "Field" else what
            if kind in ("Device", "Processor", "Method"):
                found[place(stack, what)] = f"{kind}{rest}"
            elif kind == "Field":
                parts = []
                while lines[n + 1].strip() != "}":
                    n += 1
                    parts.append(lines[n].strip())
                n += 1
                pending = None
                found[place(stack, what) + " fields"] = " ".join([rest, *parts])
        elif line.startswith(("Name (", "OperationRegion (", "Mutex (")):
            value = [line]
            while sum(
                part.count("(") + part.count("{") - part.count(")") - part.count("}") for part in value
            ):
                n += 1
                value.append(lines[n].strip())
            if not inside_method:
                what = line.split("(")[1].split(",")[0].rstrip(")")
                found[place(stack, what)] = re.sub(r"\s+", " ", " ".join(value))
        n += 1
    return found


def place(stack: list[str], what: str) -> str:
    path = ""
    for step in [*[s for s in stack if s and s != "?" and not s.startswith("method ")], what]:
        path = step.lstrip("\\") if step.startswith("\\") else f"{path}.{step}".lstrip(".")
    return path


@pytest.mark.parametrize("case", CASES)
def test_iasl_disassembles_and_recompiles_every_table(case: str, tmp_path: Path) -> None:
    built = acpi.build(board("pc-i440fx-2.0", **CASES[case][0]))
    for name, table in split(built.tables).items():
        if name == "FACS":
            continue
        disassemble(table, tmp_path, name)
        done = subprocess.run(
            [IASL or "iasl", "-p", tmp_path / f"{name}.again", tmp_path / f"{name}.dsl"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "Compilation successful. 0 Errors" in done.stdout + done.stderr or done.returncode == 0, (
            done.stdout
        )


@needs_qemu
@pytest.mark.parametrize("case", CASES)
def test_tables_say_what_qemus_say(case: str, tmp_path: Path) -> None:
    settings, args = CASES[case]
    with Qemu("pc-i440fx-2.0", *args) as qemu:
        # what SeaBIOS does before it fetches the tables: power management registers at 0x600
        qemu.pci_write(1, 3, 0x40, 0x601)
        qemu.pci_write(1, 3, 0x80, 1, 1)
        theirs = {name: qemu.file(name) for name in (acpi.TABLES, acpi.RSDP, acpi.LOADER)}
    built = acpi.build(board("pc-i440fx-2.0", **settings))
    assert {name: len(data) for name, data in built.files().items()} == {n: len(d) for n, d in theirs.items()}
    own_tables, their_tables = split(built.tables), split(theirs[acpi.TABLES])
    assert list(own_tables) == list(their_tables)
    for name in ("FACS", "FACP", "APIC", "HPET", "WAET"):
        assert own_tables[name] == their_tables[name], name
    assert own_tables["DSDT"][8:36] == their_tables["DSDT"][8:36]
    own, their = (
        name_space(disassemble(tables["DSDT"], tmp_path, name))
        for name, tables in (("own", own_tables), ("qemu", their_tables))
    )
    assert len(own) > 300
    assert {key: own.get(key) for key in own | their if own.get(key) != their.get(key)} == {}


@needs_qemu
def test_loader_script_has_the_same_commands() -> None:
    with Qemu("pc-i440fx-2.0", "-m", "256") as qemu:
        theirs = qemu.file(acpi.LOADER)
    own = acpi.build(board("pc-i440fx-2.0", devices=(FDC,))).loader
    assert [row[:2] for row in commands(own)] == [row[:2] for row in commands(theirs)]
    assert [row[2] for row in commands(own)[:2]] == [row[2] for row in commands(theirs)[:2]]


# \TEST(n): row n of _PRT. Methods whose code differs from QEMU's must still give the same answers.
PROBE = aml.method("\\TEST", 1, aml.give(aml.value_at(aml.call("\\_SB.PCI0._PRT"), aml.ARG0)))
EVALUATED = [
    *(f"\\TEST {n:x}" for n in range(128)),
    *(f"\\_SB.IQST {n:x}" for n in (0, 5, 0x80, 0xFF)),
    *(f"\\_SB.IQCR {n:x}" for n in (0, 11, 0x7F, 0x80)),
    *(f"\\_SB.CPST {n}" for n in range(4)),
    *(f"\\_SB.CP0{n}._MAT" for n in range(4)),
    "\\_SB.HPET._STA",
    "\\_SB.LNKS._STA",
    "\\_SB.LNKS._CRS",
]


def evaluate(dsdt: bytes, directory: Path, name: str) -> list[str]:
    """What each of EVALUATED returns, as acpiexec prints it."""
    body = dsdt[36:] + PROBE
    table = bytearray(dsdt[:4] + struct.pack("<I", 36 + len(body)) + dsdt[8:36] + body)
    table[9] = 0
    table[9] = -sum(table) & 0xFF
    path = directory / f"{name}.aml"
    path.write_bytes(table)
    answers: list[str] = []
    for start in range(0, len(EVALUATED), 10):
        batch = ";".join(f"execute {command}" for command in EVALUATED[start : start + 10])
        call = ["acpiexec", "-di", "-b", batch, str(path)]
        done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
        answers += re.sub(r"0x[0-9a-f]{8,}", "ADDRESS", done.stdout).split("Evaluating ")[1:]
    return [answer.split("ACPI: No outstanding")[0].strip() for answer in answers]


@needs_qemu
@pytest.mark.skipif(shutil.which("acpiexec") is None, reason="acpiexec is not installed")
def test_methods_give_the_answers_of_qemus(tmp_path: Path) -> None:
    settings, args = CASES["processors"]
    with Qemu("pc-i440fx-2.0", *args) as qemu:
        theirs = split(qemu.file(acpi.TABLES))["DSDT"]
    own = split(acpi.build(board("pc-i440fx-2.0", **settings)).tables)["DSDT"]
    answers = evaluate(own, tmp_path, "own")
    assert len(answers) == len(EVALUATED)
    assert not [answer for answer in answers if "failed" in answer]
    assert answers == evaluate(theirs, tmp_path, "qemu")


def commands(script: bytes) -> list[tuple[int, bytes, bytes]]:
    """(command, file, the rest) of each; offsets behind the DSDT depend on its length."""
    rows = [script[start : start + 128] for start in range(0, len(script), 128)]
    return [(row[0], row[4:60].rstrip(b"\0"), row[60:]) for row in rows if row[0]]
