"""A domain imports to the machine that libvirt would start: the same as the import of libvirt's own command line."""

from __future__ import annotations

import os
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.peers.libvirt_oracle import Libvirt
from vmrun.config.importers.cleaning import clean
from vmrun.config.importers.export import command_line
from vmrun.config.importers.libvirt import export_domain, import_domain
from vmrun.config.importers.line import parse_command_line
from vmrun.config.importers.texts import commands

DOMAINS = sorted((pathlib.Path(__file__).parents[1] / "unit" / "importers" / "domains").glob("*.xml"))
NAMES = [path.stem for path in DOMAINS]


@pytest.fixture(scope="module")
def libvirt() -> Iterator[Libvirt]:
    with tempfile.TemporaryDirectory() as directory:
        pathlib.Path(directory).chmod(0o755)
        daemon = Libvirt(pathlib.Path(directory))
        yield daemon
        daemon.close()


def domain_text(path: pathlib.Path) -> str:
    """Without cards where a network device of the host cannot be made, as libvirt does even to convert."""
    text = path.read_text()
    return text if os.getuid() == 0 else re.sub(r"<interface[^>]*?(?:/>|>.*?</interface>)", "", text, flags=re.S)


def imported(words: list[str]) -> dict[str, Any]:
    return parse_command_line(words, defaults=False).machine()


def settled(document: dict[str, Any], uuid: bool) -> dict[str, Any]:
    """Without what the program that runs the machine needs for itself, and with drives by their devices."""
    own = ("paused", "monitors", "netdevs", "spice", "vnc")
    found = {key: dict(value) if key == "on" else value for key, value in document.items() if key not in own}
    if not uuid:
        found.pop("uuid", None)
    for key, said in (("poweroff", "pause"), ("reboot", "shutdown"), ("crash", "pause")):
        if found.get("on", {}).get(key) == said:
            del found["on"][key]  # libvirt has -no-shutdown and says by its monitor what comes then
    if found.get("on") == {}:
        del found["on"]
    backing = dict(found.pop("memory-backing", {}))
    if "qemu/ram" in str(backing.get("mem-path")):
        del backing["mem-path"]  # in libvirt's own directory
    if backing.get("dump") is False:
        del backing["dump"]
    if backing:  # without libvirt's own default
        found["memory-backing"] = backing
    found["cpus"] = dict(document.get("cpus", {}))
    if found["cpus"].get("model") == "qemu64" and "features" not in found["cpus"]:
        del found["cpus"]["model"]  # what a PC has anyhow
    if found.get("rtc") == {"base": "utc"}:
        del found["rtc"]
    found["chardevs"] = {id: spec for id, spec in document.get("chardevs", {}).items() if id != "charmonitor"}
    drives = {}
    devices = {}
    for device in document.get("devices", ()):
        entry = {key: value for key, value in device.items() if key not in ("audiodev", "x-pci-domain")}
        id = str(entry.pop("id", entry["driver"]))
        spec = dict(document.get("drives", {}).get(entry.pop("drive", None), {}))
        usual = {"readonly": False, "aio": "threads", "discard": "ignore", "rerror": "report", "werror": "enospc"}
        for key, value in usual.items():
            if spec.get(key) == value:
                del spec[key]
        for key in [key for key in spec if key.startswith(("bps", "iops"))]:
            del spec[key]  # which libvirt sets by its monitor
        for key in ("media", "readonly") if "file" not in spec else ():
            spec.pop(key, None)
        if spec.get("media") == "cdrom":
            spec.pop("media")
        # with write-cache at the device that is all of it
        spec["cache"] = {"directsync": "none", "writethrough": "writeback"}.get(spec.get("cache"), spec.get("cache"))
        if spec["cache"] is None:
            del spec["cache"]
        if "netdev" in entry:  # libvirt converts cards without their places
            for key in ("bus", "addr", "multifunction", "bootindex", "rombar", "romfile", *([] if uuid else ["mac"])):
                entry.pop(key, None)
        if spec:
            drives[id] = spec
        if entry.get("driver") == "isa-parallel":
            entry.pop("index", None)
        devices[id] = entry
    found["drives"], found["devices"] = drives, devices
    return found


@pytest.mark.parametrize("path", DOMAINS, ids=NAMES)
def test_a_domain_is_the_machine_that_libvirt_starts(libvirt: Libvirt, path: pathlib.Path) -> None:
    text = domain_text(path)
    theirs = imported(commands(clean(libvirt.command_line(text)))[0].argv())
    ours, _ = import_domain(text.encode(), path.name)
    uuid = "<uuid>" in text
    assert settled(ours, uuid) == settled(theirs, uuid)


@pytest.mark.parametrize("path", DOMAINS, ids=NAMES)
def test_what_is_exported_is_the_same_machine_for_libvirt(libvirt: Libvirt, path: pathlib.Path) -> None:
    ours, _ = import_domain(domain_text(path).encode(), path.name)
    domain = export_domain(ours, command_line(ours)[0])
    theirs = imported(commands(clean(libvirt.command_line(domain)))[0].argv())
    assert settled(theirs, "uuid" in ours) == settled(ours, "uuid" in ours)
