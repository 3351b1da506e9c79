"""ACPI tables of every type: iasl reads and recompiles vmrun's, and they say what QEMU's say.

Byte for byte: FACS, FADT, MADT, HPET, WAET. The DSDT is compared as a name space (every object, its kind, its
arguments), by the values of all its data, and by the answers of its methods under acpiexec; the code inside the
methods is vmrun's own, and docs/firmware.md lists where it differs.
"""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.peers.asl import Source, disassemble, needs_iasl, recompile, split, with_checksum
from tests.peers.oracle import Qemu, needs_qemu
from tests.peers.published import (
    CASES,
    CUT,
    NAMED,
    WITH_TABLES,
    Published,
    config,
    own,
    theirs,
    theirs_in,
)
from vmrun.firmware import acpi, aml
from vmrun.firmware.dsdt_cpus import madt_entry

pytestmark = [pytest.mark.peer, needs_iasl]
needs_acpiexec = pytest.mark.skipif(shutil.which("acpiexec") is None, reason="acpiexec is not installed")
UNREAD = ("FACS", "SSDT")  # one has no header to disassemble by, the other an id that iasl takes from nobody: QEMUVGID
# What iasl warns of in QEMU's tables too: the keyword Processor, a root bridge with both _HID and _ADR, and halves of a
# memory module's 64-bit addresses.
KNOWN = ("3168 -", "3073 -", "3128 -")
CODE = {"SSDT"}  # like the DSDT: names and values are QEMU's, the code is not
PAGE = Path(__file__).parents[2] / "docs" / "firmware.md"


def built(type_name: str, case: str) -> dict[str, bytes]:
    return split(acpi.build(config(type_name, case)).tables)


def test_iasl_disassembles_and_recompiles_the_tables_of_all_types(tmp_path: Path) -> None:
    found: dict[bytes, str] = {}
    for type_name in WITH_TABLES:
        for case in CASES:
            if case == "memory-slots" and (type_name, case) in CUT:
                continue
            if case == "management":  # QEMU's _STR of a controller is no Unicode buffer; it is compared with QEMU's
                continue
            for name, table in built(type_name, case).items():
                if name not in UNREAD:
                    found.setdefault(table, f"{name}-{type_name}-{case}")
    assert len(found) > 40
    wrong = {}
    for table, name in found.items():
        disassemble(table, tmp_path, name)
        said = recompile(tmp_path, name)
        complaints = [line for line in said if line.startswith(("Error", "Warning"))]
        complaints = [line for line in complaints if not any(known in line for known in KNOWN)]
        if complaints or not any(line.startswith("Compilation successful. 0 Errors") for line in said):
            wrong[name] = complaints
    assert wrong == {}


@needs_qemu
@pytest.mark.parametrize("type_name", WITH_TABLES)
def test_tables_say_what_qemus_say(type_name: str, tmp_path: Path) -> None:
    compare(type_name, "full", tmp_path)


@needs_qemu
@pytest.mark.parametrize(("type_name", "case"), [
    (name, case) for name in NAMED for case in CASES if case not in ("plain", "full") and (name, case) not in CUT
])  # fmt: skip
def test_tables_of_other_machines_say_what_qemus_say(type_name: str, case: str, tmp_path: Path) -> None:
    compare(type_name, case, tmp_path)


def compare(type_name: str, case: str, directory: Path) -> None:
    ours, his = own(config(type_name, case)), theirs_in(type_name, case)
    for name in (acpi.TABLES, acpi.RSDP, acpi.LOADER):
        assert ours.sizes[name] == his.sizes[name], name
    mine, qemus = ours.tables, his.tables
    assert list(mine) == list(qemus)
    for name in mine:
        if name not in ("DSDT", "RSDT", *CODE):  # what RSDT points to lies behind the DSDT
            assert mine[name] == qemus[name], name
    for name in ("DSDT", *(CODE & mine.keys())):
        assert mine[name][10:36] == qemus[name][10:36]  # all but length and checksum
        texts = (disassemble(tables[name], directory, f"{name}{n}") for n, tables in enumerate((mine, qemus)))
        a, b = (Source(text).names for text in texts)
        assert len(a) > 100 or name != "DSDT"
        assert {key: a.get(key) for key in a | b if a.get(key) != b.get(key)} == {}


# --- what differs, and is written down -------------------------------------------------------------------


@needs_qemu
def test_every_difference_to_qemu_is_in_the_documentation(tmp_path: Path) -> None:
    """A machine as it is, beside QEMU's as it is: with its system management mode."""
    section = PAGE.read_text().split("## Where the ACPI tables differ from QEMU's")[1].split("\n## ")[0]
    patterns = re.findall(r"^\| `([^`]+)` \|", section, re.M)
    found: set[str] = set()
    for type_name in NAMED:
        his = theirs(type_name, *CASES["full"][1], smm="on")
        found |= differences(own(config(type_name, "full")), his, tmp_path)
    unexplained = {name for name in found if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}
    gone = {pattern for pattern in patterns if not fnmatch.filter(found, pattern)}
    assert (unexplained, gone) == (set(), set())


def differences(ours: Published, his: Published, directory: Path) -> set[str]:
    mine, qemus = ours.tables, his.tables
    found = {f"table {name}" for name in mine.keys() ^ qemus.keys()}
    for name in mine.keys() & qemus.keys():
        if name not in ("DSDT", "RSDT", "FACP") and mine[name] != qemus[name]:
            found.add(name)
    bytes_of_both = enumerate(zip(mine["FACP"], qemus["FACP"], strict=True))
    found |= {f"FADT byte {n}" for n, (one, other) in bytes_of_both if one != other}
    a, b = (Source(disassemble(tables["DSDT"], directory, f"dsdt{n}")) for n, tables in enumerate((mine, qemus)))
    found |= {f"DSDT {name}" for name in a.names | b.names if a.names.get(name) != b.names.get(name)}
    both = a.methods.keys() & b.methods.keys()
    return found | {f"code of {name}" for name in both if a.methods[name] != b.methods[name]}


# --- the loader's script -----------------------------------------------------------------------------------


@needs_qemu
@pytest.mark.parametrize("type_name", ["pc-i440fx-2.0", "pc-i440fx-7.2"])
def test_loader_script_has_the_same_commands(type_name: str) -> None:
    with Qemu(type_name, "-m", "256") as qemu:
        theirs = qemu.file(acpi.LOADER)
    script = acpi.build(config(type_name)).loader
    assert [row[:2] for row in commands(script)] == [row[:2] for row in commands(theirs)]
    assert [row[2] for row in commands(script)[:2]] == [row[2] for row in commands(theirs)[:2]]


def commands(script: bytes) -> list[tuple[int, bytes, bytes]]:
    """(command, file, the rest) of each; offsets behind the DSDT depend on its length."""
    rows = [script[start : start + 128] for start in range(0, len(script), 128)]
    return [(row[0], row[4:60].rstrip(b"\0"), row[60:]) for row in rows if row[0]]


# --- what methods answer -----------------------------------------------------------------------------------

# \TEST(n): row n of _PRT. Methods whose code differs from QEMU's must still give the same answers.
PROBE = aml.method("\\TEST", 1, aml.give(aml.value_at(aml.call("\\_SB.PCI0._PRT"), aml.ARG0)))
ROUTING = [
    *(f"\\TEST {n:x}" for n in range(0, 128, 5)),
    "\\TEST 4",
    *(f"\\_SB.IQST {n:x}" for n in (0, 5, 0x80, 0xFF)),
    *(f"\\_SB.IQCR {n:x}" for n in (0, 11, 0x7F, 0x80)),
    "\\_SB.HPET._STA",
    "\\_SB.LNKS._STA",
    "\\_SB.LNKS._CRS",
]
BITMAP = [*(f"\\_SB.CPST {n}" for n in range(4)), *(f"\\_SB.CP0{n}._MAT" for n in range(4)), "\\_SB.PRSC"]
REGISTERS = [
    *(f"\\_SB.CPUS.C00{n}._STA" for n in range(4)),
    *(f"\\_SB.CPUS.C00{n}._MAT" for n in range(4)),
    "\\_SB.CPUS.COST 1 2 3 4",
    "\\_SB.CPUS.CSCN",
    "\\_SB.PCI0.PRES._INI",
]


def evaluate(dsdt: bytes, directory: Path, name: str, evaluated: list[str]) -> list[str]:
    """What each method returns, as acpiexec prints it."""
    body = dsdt[36:] + PROBE
    path = directory / f"{name}.aml"
    path.write_bytes(with_checksum(dsdt[:4] + (36 + len(body)).to_bytes(4, "little") + dsdt[8:36] + body))
    answers: list[str] = []
    for start in range(0, len(evaluated), 10):
        batch = ";".join(f"execute {command}" for command in evaluated[start : start + 10])
        call = ["acpiexec", "-di", "-b", batch, str(path)]
        done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
        answers += re.sub(r"0x[0-9a-f]{8,}", "ADDRESS", done.stdout).split("Evaluating ")[1:]
    # Notifications are handed out by threads, in any order.
    return [" ".join(sorted(answer.split("ACPI: No outstanding")[0].split("\n"))) for answer in answers]


@needs_qemu
@needs_acpiexec
@pytest.mark.parametrize(("type_name", "processors"), [("pc-i440fx-2.6", BITMAP), ("pc-i440fx-7.2", REGISTERS)])
def test_methods_give_the_answers_of_qemus(type_name: str, processors: list[str], tmp_path: Path) -> None:
    evaluated = [*ROUTING, *processors]
    answers = evaluate(built(type_name, "full")["DSDT"], tmp_path, "own", evaluated)
    assert len(answers) == len(evaluated)
    assert not [answer for answer in answers if "failed" in answer]
    assert answers == evaluate(theirs_in(type_name, "full").tables["DSDT"], tmp_path, "qemu", evaluated)


def test_a_processor_whose_id_needs_it_is_told_of_as_x2apic() -> None:
    assert madt_entry(3, 254, True) == bytes([0, 8, 3, 254, 1, 0, 0, 0])
    assert madt_entry(200, 0x120, False) == bytes([9, 16, 0, 0, 0x20, 1, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0])
