"""The devices that a command line desugars to are those that QEMU itself shows, host's side made harmless."""

from __future__ import annotations

import pathlib
import re
import subprocess
from collections import Counter

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from tests.unit.importers.corpus_lines import EVERY
from vmrun.config.importers.line import OPTIONS, parse_command_line
from vmrun.config.importers.screenopts import ADAPTERS

pytestmark = needs_qemu
# What says nothing of devices.
DROPPED = """
    enable-kvm no-kvm S daemonize pidfile vnc spice k display sdl kernel initrd append bios L cpu redir realtime no-hpet
    show-cursor full-screen localtime win2k-hack nodefconfig no-reboot no-shutdown s name uuid incoming qmp nographic
    rtc boot snapshot accel
"""
DROPPED_WORDS = " " + " ".join(DROPPED.split()) + " "
GONE = ("soundhw", "balloon", "usbdevice disk", "pci-assign", "vlan=", "device lsi")  # what QEMU 7.2 has no more
HARMLESS_TYPES = ("pc", "pc-i440fx-2.0", "pc-i440fx-2.8")


def harmless(words: list[str], image: str) -> list[str] | None:
    """The line with its machine and devices, and back ends that touch nothing; None when QEMU 7.2 cannot take it."""
    kept: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        if not word.startswith("-"):
            kept += ["-hda", f"{image}.hda"]
            at += 1
            continue
        name = word.lstrip("-")
        value = words[at + 1] if OPTIONS[name].has_arg else ""
        at += 1 + OPTIONS[name].has_arg
        if any(gone in f"{name} {value}" for gone in GONE):
            return None
        if f" {name} " in DROPPED_WORDS:
            continue
        if name in ("M", "machine"):
            kind = next((part for part in value.split(",") if "=" not in part), "pc")
            if kind not in HARMLESS_TYPES:
                return None
            kept += ["-machine", kind]
        elif name == "m":
            kept += ["-m", "64"]
        elif name in ("hda", "hdb", "hdc", "hdd", "cdrom", "fda"):
            kept += [f"-{name}", f"{image}.{name}"]
        elif name == "drive":
            if "pflash" in value:
                continue
            parts = [p for p in value.split(",") if p.startswith(("if=", "id=", "index=", "media=", "bus=", "unit="))]
            kept += ["-drive", ",".join([*parts, f"file={image}", "format=raw", "readonly=off", "file.locking=off"])]
        elif name == "netdev":
            id = re.search(r"id=([^,]+)", value)
            kept += ["-netdev", f"user,id={id.group(1) if id else 'n'}"]
        elif name == "net" and not value.startswith("nic"):
            kept += ["-net", "user"]
        elif name == "chardev":
            id = re.search(r"id=([^,]+)", value)
            kept += ["-chardev", f"null,id={id.group(1) if id else 'c'}"]
        elif name in ("serial", "parallel") and not value.startswith(("none", "chardev:")):
            kept += [f"-{name}", "null"]
        elif name in ("monitor", "mon") or (name == "global" and value.startswith("kvm-pit")):
            continue
        else:
            kept += [word] + ([value] if OPTIONS[name].has_arg else [])
    return kept


def qtree(words: list[str]) -> list[tuple[str, str]]:
    """(driver, id) of every device; raises when QEMU refuses."""
    command = [QEMU or "", *words, "-accel", "tcg", "-S", "-display", "none", "-monitor", "stdio"]
    done = subprocess.run(command, input="info qtree\nquit\n", capture_output=True, text=True, timeout=60)
    if done.returncode or "bus: main-system-bus" not in done.stdout:
        raise RuntimeError(done.stderr)
    return re.findall(r'dev: ([^,]+), id "([^"]*)"', done.stdout)


CASES = [(n, words) for n, words in enumerate(EVERY) if harmless(words, "x") is not None]


def test_enough_lines_are_compared() -> None:
    assert len(CASES) >= 20


@pytest.mark.parametrize("words", [words for _, words in CASES], ids=[str(n) for n, _ in CASES])
def test_the_devices_are_qemus(words: list[str], tmp_path: pathlib.Path) -> None:
    image = tmp_path / "image"
    line = harmless(words, str(image))
    assert line is not None
    for path in (image, *(pathlib.Path(word) for word in line if word.startswith(str(image)))):
        path.write_bytes(bytes(1474560))
    machine = next((line[at + 1] for at, word in enumerate(line) if word == "-machine"), "pc")
    # vmrun's own newest `pc` is another version than QEMU's; compare the same one
    line = [*line, "-machine", "pc-i440fx-2.0"] if machine == "pc" else line
    machine = "pc-i440fx-2.0" if machine == "pc" else machine
    board = Counter(driver for driver, _ in qtree(["-machine", machine, "-nodefaults", "-m", "64"]))
    shown = qtree(line)
    theirs = Counter(driver for driver, _ in shown) - board
    for driver in [driver for driver in theirs if driver.endswith("-device")]:
        del theirs[driver]  # the inner half of a virtio device
    document = parse_command_line(line, defaults=True).document
    ours = Counter(str(device["driver"]) for device in document.get("devices", []))
    ours.update([ADAPTERS[document["display"]]] if "display" in document else [])
    assert ours == theirs
    named = {device["id"]: device["driver"] for device in document.get("devices", []) if "id" in device}
    told = {id: driver for driver, id in shown if id}
    assert told.items() <= named.items()
