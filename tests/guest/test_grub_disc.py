"""A disc that grub-mkrescue makes starts from drives of each kind, and GRUB reads files from it."""

from __future__ import annotations

import pathlib
import subprocess
from typing import Any

import pytest

from tests.guest.machines import Guest

pytestmark = pytest.mark.guest
CONFIG = """
serial --unit=0 --speed=115200
terminal_output serial
echo started from $root
cat /greeting
sha256sum /blob
"""
KINDS = [
    pytest.param(
        "pc-i440fx-7.2", [{"id": "cd", "driver": "ide-cd", "bus": "ide.1", "unit": 0, "drive": "d0"}], id="ide"
    ),
    pytest.param(
        "pc-i440fx-7.2",
        [{"id": "s", "driver": "virtio-scsi-pci"}, {"id": "cd", "driver": "scsi-cd", "drive": "d0", "bootindex": 0}],
        id="virtio-scsi",
    ),
    pytest.param(
        "pc-i440fx-2.0",
        [{"id": "s", "driver": "lsi53c895a"}, {"id": "cd", "driver": "scsi-cd", "drive": "d0", "bootindex": 0}],
        id="lsi",
        marks=pytest.mark.long,
    ),
]


def disc(directory: pathlib.Path) -> tuple[pathlib.Path, str]:
    """The image, and the digest of its largest file."""
    import hashlib
    import random

    root = directory / "root"
    (root / "boot" / "grub").mkdir(parents=True)
    (root / "boot" / "grub" / "grub.cfg").write_text(CONFIG)
    (root / "greeting").write_text("hello from the disc\n")
    blob = random.Random(4).randbytes(300_000)
    (root / "blob").write_bytes(blob)
    path = directory / "grub.iso"
    made = subprocess.run(
        ["grub-mkrescue", "-d", "/usr/lib/grub/i386-pc", "-o", path, root], capture_output=True, text=True, timeout=120
    )
    assert made.returncode == 0, made.stderr
    return path, hashlib.sha256(blob).hexdigest()


@pytest.mark.parametrize(("machine", "devices"), KINDS)
def test_grub_starts_from_a_disc_and_reads_it(
    machine: str, devices: list[dict[str, Any]], tmp_path: pathlib.Path
) -> None:
    path, digest = disc(tmp_path)
    serial = {"id": "com1", "driver": "isa-serial", "chardev": "serial"}
    with Guest(
        tmp_path, "soft", machine=machine, memory="128MiB", devices=[serial, *devices],
        drives={"d0": {"file": str(path), "media": "cdrom", "readonly": True, "format": "raw"}},
        chardevs={"serial": {"type": "ringbuf", "size": 65536}},
    ) as guest:  # fmt: skip
        guest.run_until(lambda: digest in guest.output("serial"), 240)
        text = guest.output("serial")
    assert "started from hd" in text and "hello from the disc" in text and digest in text, text[-2000:]
