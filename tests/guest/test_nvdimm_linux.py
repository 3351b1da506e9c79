"""Non-volatile modules as a stock Linux on soft uses them: a whole one, and one that it divides by labels. What is
written is in the module's file, and a second run finds it with nothing said anew.
"""

from __future__ import annotations

import pathlib
import stat
import struct
import uuid

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel
from tests.guest.screens import modules

pytestmark = [pytest.mark.guest, pytest.mark.slow]
PATIENCE = 120.0
SIZE, LABEL, SPACE = 32 << 20, 128 << 10, 16 << 20
UUID = "7f1b2a4e-93f5-4a5d-8b39-5a1f0c6d2e11"
LOOK = """
for n in /sys/bus/nd/devices/namespace*; do echo SPACE ${n##*/} $(cat $n/size $n/uuid 2>/dev/null); done
for n in /sys/bus/nd/devices/nmem*; do echo MODULE ${n##*/} $(cat $n/state); done
for b in /dev/pmem*; do echo FOUND ${b##*/} $(dd if=$b bs=16 count=1 2>/dev/null); done
"""
# the module with labels is divided; then each is written to, its page cache let go first
DIVIDE = f"""
for n in /sys/bus/nd/devices/namespace*; do
  if [ $(cat $n/size) = 0 ]; then
    echo {UUID} > $n/uuid; echo {SPACE} > $n/size; echo ${{n##*/}} > /sys/bus/nd/drivers/nd_pmem/bind
  fi
done
sleep 1
for b in /dev/pmem*; do echo "kept in ${{b##*/}} " | dd of=$b bs=16 conv=sync,fsync 2>/dev/null; done
"""


def empty_labels(bytes_of_area: int) -> bytes:
    """A label area as `ndctl init-labels` makes one: two index blocks, no labels (UEFI 2.10, 13.19.2)."""
    index, label = 256, 256
    slots = (bytes_of_area - 2 * index) // label
    area = b""
    for n, sequence in enumerate((3, 2)):
        where = n * index, index, (1 - n) * index, 2 * index
        head = struct.pack("<16s3xBI4QIHH", b"NAMESPACE_INDEX", 1, sequence, *where, slots, 1, 2)
        free = ((1 << slots) - 1).to_bytes(index - len(head) - 8, "little")
        low = high = 0
        for (word,) in struct.iter_unpack("<I", head + bytes(8) + free):
            low = low + word & 0xFFFFFFFF
            high = high + low & 0xFFFFFFFF
        area += head + struct.pack("<II", low, high) + free
    return area.ljust(bytes_of_area, b"\0")


class Guest(LinuxGuest):
    def __init__(self, directory: pathlib.Path, script: str) -> None:
        image = kernel()
        files = list(dict.fromkeys(file for name in ("nfit", "nd_pmem") for file in modules(image, name)))
        load = "".join(f"busybox insmod /{path.name} || echo NO-MODULE {path.name}\n" for path in files)
        extra = {path.name: (stat.S_IFREG | 0o644, path.read_bytes()) for path in files}
        backend = {"type": "memory-backend-file", "size": SIZE, "share": True}
        super().__init__(
            directory,
            "soft",
            "quiet",
            machine="pc-i440fx-7.2",
            kernel=image,
            initrd=initramfs(directory, load + "sleep 1\n" + script + "echo DONE\n", extra),
            objects={name: {**backend, "mem-path": str(directory / name)} for name in ("whole", "divided")},
            devices=[
                {"driver": "nvdimm", "id": "n0", "memdev": "whole"},
                {"driver": "nvdimm", "id": "n1", "memdev": "divided", "label-size": LABEL},
            ],
            **{"memory-slots": {"count": 2, "maxmem": "1GiB", "nvdimm": True}},
        )


def test_what_is_written_is_kept_with_its_labels(tmp_path: pathlib.Path) -> None:
    (tmp_path / "divided").write_bytes(bytes(SIZE - LABEL) + empty_labels(LABEL))
    with Guest(tmp_path, DIVIDE + LOOK) as pc:
        pc.run_until(lambda: "DONE" in pc.console(), PATIENCE)
        assert "DONE" in pc.console(), pc.console()[-2000:]
        assert pc.complaints() == []
    assert (tmp_path / "whole").read_bytes()[:12] == b"kept in pmem"
    labels = (tmp_path / "divided").read_bytes()[-LABEL:]
    assert uuid.UUID(UUID).bytes in labels or uuid.UUID(UUID).bytes_le in labels
    with Guest(tmp_path, LOOK) as pc:
        pc.run_until(lambda: "DONE" in pc.console(), PATIENCE)
        said = pc.console()
        assert f"SPACE namespace1.0 {SPACE} {UUID}" in said, said
        assert "FOUND pmem0 kept in pmem0" in said and "FOUND pmem1 kept in pmem1" in said, said
        assert "NO-MODULE" not in said
