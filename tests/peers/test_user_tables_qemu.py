"""ACPI tables, SMBIOS structures and onboard devices of the user's: what comes of a command line, beside QEMU's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.peers.oracle import needs_qemu
from tests.peers.published import own, theirs
from vmrun.config.api import examine_file
from vmrun.config.importers.line import parse_options, read_options
from vmrun.errors import VmrunError
from vmrun.firmware import acpi
from vmrun.firmware.smbios_tables import ANCHOR, TABLES

pytestmark = [pytest.mark.peer, needs_qemu]
SLIC = b"SLIC\x30\0\0\0\1\0" + b"DELL  PE_SC3  " + b"\1\0\0\0DELL\2\0\0\0" + b"licence 4711"
STRUCTURE = b"\x0b\x05\x34\x12\x02one\0two\0\0"  # two OEM strings
BOARD = b"\x02\x08\x00\x02\x01\x02\x00\x00Maker\0Board\0\0"


def machine(here: Path, *words: str) -> dict[str, Any]:
    file = parse_options(read_options(["-m", "256", "-nodefaults", *words]), defaults=True).document
    (here / "m.json").write_text(json.dumps({"schema": "vmrun/machine/1", **file, "display": "none"}))
    resolved, problems = examine_file(str(here / "m.json"))
    assert resolved is not None, problems
    return dict(resolved.data)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    content = {"slic": SLIC, "short": SLIC[:40], "body": b"some words", "more": b"and others", "one": STRUCTURE}
    found = {}
    for name, data in {**content, "board": BOARD}.items():
        (tmp_path / name).write_bytes(data)
        found[name] = str(tmp_path / name)
    return found


@pytest.mark.parametrize("type_name", ["pc-i440fx-1.4", "pc-i440fx-2.0", "pc-i440fx-7.2"])
@pytest.mark.parametrize("asked", [
    ["file={slic}"],
    ["file={slic}", "sig=OEM1,data={body}:{more},rev=3,oem_id=ME,oem_table_id=MINE,oem_rev=7"],
    ["sig=X,data={body},asl_compiler_id=ABCDEF,asl_compiler_rev=9"],
    ["file={slic},oem_id=ANOTHER,oem_table_id=TABLE4711"],
    ["file={short},sig=ABCD"],
    ["data={body}"],
])  # fmt: skip
def test_acpi_tables(tmp_path: Path, files: dict[str, str], type_name: str, asked: list[str]) -> None:
    words = [word for text in asked for word in ("-acpitable", text.format(**files))]
    ours, his = own(machine(tmp_path, "-M", type_name, *words)), theirs(type_name, "-nodefaults", *words)
    assert ours.items[0x8000] == his.items[0x8000][: len(ours.items[0x8000])]
    if acpi.TABLES in his.files:
        assert list(ours.tables) == list(his.tables)
        for name in his.tables:
            most = {"DSDT": 0, "FACS": 0, "RSDT": 36}.get(name)  # a DSDT's code is our own, and moves what follows it
            assert ours.tables[name][:most] == his.tables[name][:most], name
        assert len(ours.tables["RSDT"]) == len(his.tables["RSDT"])


@pytest.mark.parametrize("type_name", ["pc-i440fx-2.0", "pc-i440fx-2.1", "pc-i440fx-7.2"])
@pytest.mark.parametrize("asked", [
    ["file={one}"], ["file={board}", "file={one}"], ["type=1,serial=x", "file={board}"],
    ["file={one}", "type=0,vendor=v"],
])  # fmt: skip
def test_smbios_files(tmp_path: Path, files: dict[str, str], type_name: str, asked: list[str]) -> None:
    words = [word for text in asked for word in ("-smbios", text.format(**files))]
    ours, his = own(machine(tmp_path, "-M", type_name, *words)), theirs(type_name, *words)
    assert [ours.files.get(name) for name in (TABLES, ANCHOR)] == [his.files.get(name) for name in (TABLES, ANCHOR)]
    fields = ours.items.get(0x8001, b"")
    assert fields == his.items[0x8001][: len(fields)]


def test_onboard_devices(tmp_path: Path) -> None:
    words = [
        *("-device", "virtio-net-pci,id=n,addr=7.0"),
        *("-smbios", "type=41,designation=LAN,kind=ethernet,instance=2,pcidev=n"),
        *("-smbios", "type=41,designation=Screen,kind=video", "-smbios", "type=41"),
    ]  # fmt: skip
    ours, his = own(machine(tmp_path, "-M", "pc-i440fx-7.2", *words)), theirs("pc-i440fx-7.2", *words)
    assert ours.files[TABLES] == his.files[TABLES]


@pytest.mark.parametrize(("words", "said"), [
    (["-acpitable", "sig=ABCD"], "requires one of 'data' or 'file'"),
    (["-acpitable", "file=/no"], "can't open file /no: No such file or directory"),
    (["-acpitable", "nix=1,data=/dev/null"], "nix"),
    (["-smbios", "file=/no"], "can't open file /no"),
    (["-smbios", "type=41,kind=toaster"], "invalid parameter value: toaster"),
    (["-smbios", "type=41,pcidev=nobody"], "there is no device 'nobody'"),
])  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path: Path, words: list[str], said: str) -> None:
    with pytest.raises((VmrunError, AssertionError), match=said):
        own(machine(tmp_path, "-M", "pc-i440fx-7.2", *words))
