"""<os firmware='efi'>: the firmware that libvirt would choose of those that describe themselves on this host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vmrun.config.importers import libvirt_firmware
from vmrun.config.importers.libvirt import import_domain

DOMAIN = """<domain type='kvm'><name>e</name><memory>524288</memory><vcpu>1</vcpu>
<os firmware='{kind}'><type arch='x86_64' machine='{machine}'>hvm</type>{more}</os>
<features><acpi/>{features}</features></domain>"""


def describe(directory: Path, name: str, kind: str = "uefi", machines: str = "pc-i440fx-*", *features: str) -> None:
    flash = {"executable": {"filename": f"/{name}.fd", "format": "raw"}, "nvram-template": {"filename": "/vars.fd"}}
    given: dict[str, Any] = {
        "interface-types": [kind], "features": features,
        "targets": [{"architecture": "x86_64", "machines": [machines]}],
        "mapping": {"device": "flash", **flash} if kind == "uefi" else {"device": "memory", "filename": f"/{name}.bin"},
    }  # fmt: skip
    directory.mkdir(exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(given))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    first, last = tmp_path / "etc", tmp_path / "share"
    monkeypatch.setattr(libvirt_firmware, "DIRECTORIES", (str(first), str(tmp_path / "none"), str(last)))
    describe(last, "10-q35", "uefi", "pc-q35-*")
    describe(last, "20-secure", "uefi", "pc-*", "requires-smm", "secure-boot")
    describe(last, "30-plain")
    describe(last, "40-bios", "bios")
    (last / "05-broken.json").write_text("{")
    (last / "06-list.json").write_text("[]")
    (last / "07-odd.json").write_text('{"interface-types": ["uefi"], "targets": ["x86_64"]}')
    (last / "08-none.json").write_text('{"interface-types": null}')
    (last / "09-deep.json").write_text("[" * 60000)
    return first, last


def taken(
    kind: str = "efi", machine: str = "pc-i440fx-7.2", more: str = "", features: str = ""
) -> tuple[list[Any], list[str]]:
    """(files of the firmware, what is said)."""
    text = DOMAIN.format(kind=kind, machine=machine, more=more, features=features)
    document, problems = import_domain(text.encode(), "d.xml")
    files = [drive["file"] for drive in document.get("drives", {}).values()]
    return files or [document.get("firmware", {}).get("bios")], [problem.message for problem in problems]


def test_the_first_that_fits_is_taken_with_a_file_of_variables(places: tuple[Path, Path]) -> None:
    files, said = taken()
    assert files == ["/30-plain.fd", "e_VARS.fd"]
    assert [text for text in said if "copy /vars.fd there" in text and "e_VARS.fd" in text]
    assert taken(machine="pc")[0] == files
    assert taken(more="<nvram template='/t.fd'>/n.fd</nvram>")[0] == ["/30-plain.fd", "/n.fd"]
    assert taken("bios")[0] == ["/40-bios.bin"]


def test_features_and_smm_decide(places: tuple[Path, Path]) -> None:
    assert taken(features="<smm state='on'/>")[0][0] == "/20-secure.fd"
    off = "<firmware><feature enabled='no' name='secure-boot'/></firmware>"
    assert taken(features="<smm state='on'/>", more=off)[0][0] == "/30-plain.fd"
    secure = off.replace("'no'", "'yes'")
    files, said = taken(more=secure)
    assert files == [None]
    assert [text for text in said if "no firmware of this host fits pc-i440fx-7.2; write `pflash: [CODE.fd" in text]


def test_a_description_of_the_administrator_s_hides_the_package_s(places: tuple[Path, Path]) -> None:
    describe(places[0], "30-plain", "uefi", "pc-q35-*")
    describe(places[0], "99-own")
    assert taken()[0][0] == "/99-own.fd"
