"""The examples: each resolves, but for the one that shows what is still to come, which names exactly that."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrun.config.catalogue import Catalogue
from vmrun.config.resolve import check_file

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".yaml", ".toml"))
NOT_YET = EXAMPLES / "desktop.yaml"
TYPES = {EXAMPLES / "old-pc.yaml"}


@pytest.mark.parametrize("path", [p for p in FILES if p != NOT_YET and p not in TYPES], ids=lambda p: p.name)
def test_example_resolves(path: Path, catalogue: Catalogue) -> None:
    machine, problems = check_file(str(path), catalogue=catalogue)
    assert problems == []
    assert machine is not None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_example_begins_with_a_line_for_editors(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    schema = "../schema/machine-type.schema.json" if path in TYPES else "machine.schema.json"
    assert first.endswith((f"schema={schema}", f"schema {schema}"))



@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_example_is_in_the_list(path: Path) -> None:
    assert f"`{path.name}`" in (EXAMPLES / "README.md").read_text()


def test_desktop_names_exactly_what_is_to_come_each_with_its_line(catalogue: Catalogue) -> None:
    _, problems = check_file(str(NOT_YET), catalogue=catalogue)
    lines = NOT_YET.read_text().splitlines()
    told = []
    for problem in problems:
        assert problem.place is not None
        subject = lines[problem.place.line - 1][problem.place.col - 1 :]
        told.append(
            (
                problem.code,
                problem.message.removesuffix(" is not modelled yet"),
                subject.split()[0].strip(",}"),
            )
        )
    assert told == [
        ("VR0801", "'qxl-vga'", "qxl-vga:"),
        ("VR0805", "the SPICE server", "spice:"),
        ("VR0801", "'qxl-vga'", "qxl"),
        ("VR0801", "'piix3-usb-uhci'", "piix3-usb-uhci"),
        ("VR0801", "'usb-ehci'", "usb-ehci"),
        ("VR0801", "'virtio-serial-pci'", "virtio-serial-pci"),
        ("VR0801", "'virtserialport'", "virtserialport"),
        ("VR0801", "'usb-tablet'", "usb-tablet"),
        ("VR0801", "'AC97'", "AC97"),
        ("VR0801", "'usb-redir'", "usb-redir"),
        ("VR0801", "'usb-redir'", "usb-redir"),
        ("VR0801", "'usb-redir'", "usb-redir"),
        ("VR0805", "including QEMU's -readconfig files", "include:"),
    ]
