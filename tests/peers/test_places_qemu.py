"""Slots, SCSI ids, units and numbers of namespaces that a line leaves open are those that QEMU gives."""

from __future__ import annotations

import json
import pathlib
import random
import re
import subprocess
from typing import Any

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from vmrun.config.importers.line import parse_command_line
from vmrun.config.load import load_bytes
from vmrun.config.resolve import resolve

CARDS = ("virtio-rng-pci", "e1000", "virtio-net-pci", "virtio-balloon-pci", "rtl8139")
PLACE = {"addr", "scsi-id", "lun", "unit", "nsid", "index"}


def line(seed: int, image: str) -> list[str]:
    """Controllers, disks and cards in any order, with and without ids."""
    rng = random.Random(seed)
    count = iter(range(1000))

    def id() -> str:
        return f",id={rng.choice('zyxabc')}{next(count)}" if rng.random() < 0.6 else ""

    def drive() -> str:
        number = next(count)
        words.extend(("-drive", f"if=none,id=d{number},format=raw,readonly=on,file={image}"))
        return f"drive=d{number}"

    words: list[str] = ["-nodefaults"] if rng.random() < 0.5 else ["-net", "nic,model=rtl8139"]
    for _ in range(rng.randrange(2)):
        words += ["-drive", f"if=virtio,format=raw,readonly=on,file={image}"]
    for _ in range(rng.randrange(1, 4)):
        kind = rng.choice(("virtio-scsi-pci", "nvme,serial=q", "card", "ide-cd"))
        if kind == "card":
            words += ["-device", rng.choice(CARDS) + id()]
        elif kind == "ide-cd":
            words += ["-device", f"ide-cd,{drive()}{id()}"]
        else:
            words += ["-device", kind + id()]
            for _ in range(rng.randrange(1, 4)):
                words += ["-device", f"{'scsi-cd' if 'scsi' in kind else 'nvme-ns'},{drive()}{id()}"]
    for _ in range(rng.randrange(3)):
        words += ["-device", rng.choice(CARDS) + id()]
    return words


def his(words: list[str]) -> list[Any]:
    command = [QEMU or "", "-M", "pc-i440fx-7.2", *words, "-accel", "tcg", "-S"]
    command += ["-display", "none", "-monitor", "stdio"]
    done = subprocess.run(command, input="info qtree\nquit\n", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: list[Any] = []
    for text in done.stdout.splitlines():
        device = re.match(r'\s+dev: ([\w.-]+), id "(.*)"', text)
        value = re.match(r'\s+(addr|scsi-id|lun|unit|nsid|index|drive) = "?([\w.#-]*)', text)
        if device:
            found.append((device[1], device[2], {}))
        elif value and found:
            found[-1][2].setdefault(value[1], value[2])
    return found


def mine(words: list[str]) -> list[Any]:
    parsed = parse_command_line(["-M", "pc-i440fx-7.2", *words])
    problems: list[Any] = []
    machine = resolve(load_bytes(json.dumps(parsed.document).encode(), "m.json", problems), problems, "/", "m")
    assert machine is not None, problems
    rows = []
    for row in machine.data["devices"]:
        props = {name: str(value) for name, value in row["props"].items() if name in PLACE | {"drive"}}
        rows.append((row["driver"], row["id"], props | ({"addr": row["addr"]} if row.get("addr") else {})))
    return rows


def compared(rows: list[Any]) -> list[Any]:
    """Sorted rows of what the line names: driver, drive, place."""
    drivers = (*CARDS, "virtio-scsi-pci", "nvme", "nvme-ns", "scsi-cd", "ide-cd", "virtio-blk-pci", "isa-serial")
    found = []
    for driver, id, props in rows:
        if driver in drivers:
            place = tuple(sorted((name, value) for name, value in props.items() if name in PLACE))
            drive = props.get("drive", "") if driver in ("scsi-cd", "nvme-ns", "ide-cd") else ""
            found.append((driver, id if re.fullmatch(r"[a-z]\d+", id) else "", drive, place))
    return sorted(found)


@needs_qemu
@pytest.mark.parametrize("seed", range(12))
def test_a_line_s_open_places_are_qemu_s(seed: int, tmp_path: pathlib.Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    words = line(seed, str(image))
    assert compared(mine(words)) == compared(his(words)), " ".join(words)


def test_devices_are_in_the_slots_of_their_order() -> None:
    rows = {id: props.get("addr") for _, id, props in mine(
        ["-nodefaults", "-device", "e1000,id=z", "-device", "rtl8139,id=a", "-device", "virtio-rng-pci"]
    )}  # fmt: skip
    assert (rows["z"], rows["a"], rows["virtio-rng-pci-0"]) == ("02.0", "03.0", "04.0")


def test_what_is_in_order_is_left_open() -> None:
    parsed = parse_command_line(["-nodefaults", "-device", "e1000,id=a", "-device", "rtl8139,id=b"], defaults=False)
    assert [row.get("addr") for row in parsed.document["devices"]] == [None, None]


def test_ports_come_in_their_order() -> None:
    words = ["-nodefaults", "-chardev", "null,id=p", "-chardev", "null,id=q"]
    words += ["-device", "isa-serial,chardev=p,id=z", "-device", "isa-serial,chardev=q,id=a"]
    assert {id: props["index"] for _, id, props in mine(words) if id in ("a", "z")} == {"z": "0", "a": "1"}


def test_disks_of_an_adapter_whose_id_is_a_bus_come_in_their_order() -> None:
    words = ["-nodefaults", "-device", "virtio-scsi-pci,id=hba"]
    for name in ("root", "data"):
        words += ["-drive", f"if=none,id={name}-image,file.driver=null-co,file.size=1M,format=raw,readonly=on"]
        words += ["-device", f"scsi-hd,bus=hba.0,drive={name}-image,id={name}"]
    found = {id: props["scsi-id"] for _, id, props in mine(words) if id in ("root", "data")}
    assert found == {"root": "0", "data": "1"}
