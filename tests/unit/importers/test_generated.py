"""Machines of all sorts go out as a command line, as a shell line and as a domain, and come in as what they were."""

from __future__ import annotations

import os
import shlex
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from vmrun.config.importers.cleaning import clean
from vmrun.config.importers.export import command_line, long_form
from vmrun.config.importers.libvirt import export_domain, import_domain
from vmrun.config.importers.line import parse_command_line
from vmrun.config.importers.texts import commands
from vmrun.config.load import load_bytes
from vmrun.config.machinetypes import type_names
from vmrun.config.resolve import resolve
from vmrun.config.write import file_text
from vmrun.errors import ERROR

NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,6}", fullmatch=True)
PATHS = st.text("ab,='\" $\\;", min_size=1, max_size=6).map(lambda text: f"/x/{text}z")
CHARDEVS = st.one_of(
    st.just({"type": "null"}),
    st.just({"type": "pty"}),
    st.fixed_dictionaries({"type": st.just("stdio")}, optional={"signal": st.booleans()}),
    st.fixed_dictionaries({"type": st.just("file"), "path": PATHS}, optional={"append": st.booleans()}),
    st.fixed_dictionaries({"type": st.just("ringbuf")}, optional={"size": st.sampled_from([64, 4096])}),
    st.fixed_dictionaries(
        {"type": st.just("socket"), "path": PATHS},
        optional={"server": st.booleans(), "wait": st.booleans(), "reconnect": st.integers(0, 9)},
    ),
    st.fixed_dictionaries(
        {"type": st.just("socket"), "host": st.sampled_from(["localhost", "::1"]), "port": st.integers(1, 65535)},
        optional={"telnet": st.booleans(), "nodelay": st.booleans()},
    ),
)
DRIVES = st.fixed_dictionaries(
    {"file": PATHS},
    optional={
        "format": st.just("raw"), "cache": st.sampled_from(["none", "writethrough"]), "readonly": st.booleans(),
        "serial": st.text("AB,1", min_size=1, max_size=4), "werror": st.sampled_from(["stop", "report"]),
    },
)  # fmt: skip
SETTINGS = st.fixed_dictionaries(
    {"machine": st.sampled_from(type_names()), "memory": st.integers(16, 512).map(lambda n: f"{n}MiB")},
    optional={
        "name": NAMES,
        "accel": st.lists(st.sampled_from(["kvm", "soft", "qtest"]), min_size=1, max_size=3, unique=True),
        "kernel_irqchip": st.sampled_from(["on", "off", "split"]),
        "paused": st.booleans(),
        "uuid": st.uuids().map(str),
        "rtc": st.fixed_dictionaries(
            {}, optional={
                "base": st.sampled_from(["utc", "localtime", "2010-02-03T04:05:06"]),
                "clock": st.sampled_from(["host", "vm"]), "driftfix": st.sampled_from(["none", "slew"]),
            }
        ),
        "boot": st.fixed_dictionaries({}, optional={"order": st.sampled_from(["c", "dc"]), "menu": st.booleans()}),
        "display": st.sampled_from(["none", "std"]),
        "cpus": st.sampled_from([{"count": 2}, {"sockets": 2, "cores": 2, "count": 4}, {"model": "qemu64"}]),
        "smbios": st.sampled_from(
            [
                {"type1": {"manufacturer": "A, B", "serial": "1=2"}},
                {"type0": {"release": "4.5", "uefi": True}, "type4": {"sock_pfx": "S", "max-speed": 3000}},
                {"type2": {"location": "L"}, "type11": {"values": ["a,b", "c=d"]}, "type17": {"speed": 1600}},
            ]
        ),
        "serial": st.sampled_from(["stdio", "pty", "null"]),
    },
)  # fmt: skip


@st.composite
def machines(draw: st.DrawFn) -> dict[str, Any]:
    machine = dict(draw(SETTINGS))
    if draw(st.booleans()):
        cmdline = draw(st.text("a=,' ", min_size=1, max_size=8))
        machine |= {"kernel": "/boot/k", "initrd": draw(PATHS), "cmdline": cmdline}
    drives, devices, chardevs = {}, [], {}
    for number in range(draw(st.integers(0, 3))):
        drives[f"d{number}"] = {**draw(DRIVES), "file": f"/d{number}"}
        disk = {"driver": "ide-hd", "bus": f"ide.{number // 2}", "unit": number % 2, "drive": f"d{number}"}
        devices.append(disk | draw(st.sampled_from([{}, {"id": f"disk{number}", "bootindex": number}])))
    for number, driver in enumerate(draw(st.lists(st.sampled_from(["isa-debugcon", "isa-serial"]), max_size=2))):
        chardevs[f"c{number}"] = draw(CHARDEVS)
        place = {"iobase": 0x400 + 16 * number}
        devices.append({"driver": driver, "id": f"p{number}", "chardev": f"c{number}", **place})
        if driver == "isa-serial":
            devices[-1]["irq"] = 10 + number
    if draw(st.booleans()):
        devices.append({"driver": "isa-debug-exit", "iobase": 0x501})
    if draw(st.booleans()):
        chardevs["m"] = draw(CHARDEVS)
        mode = draw(st.sampled_from([{}, {"mode": "readline"}, {"mode": "control"}]))
        machine["monitors"] = {"mon0": {"chardev": "m", **mode}}
    for key, value in (("drives", drives), ("devices", devices), ("chardevs", chardevs)):
        if value:
            machine[key] = value
    return {"schema": "vmrun/machine/1", **machine}


def resolved(document: dict[str, Any]) -> Any:
    problems: list[Any] = []
    found = resolve(load_bytes(file_text(document).encode(), "m.yaml"), problems, "/", "m")
    assert found is not None
    return found.to_dict(), [problem.message for problem in problems if problem.severity == ERROR]


@settings(max_examples=int(os.environ.get("VMRUN_EXAMPLES", "30")))
@given(machines())
def test_a_machine_goes_out_and_in_as_what_it_was(machine: dict[str, Any]) -> None:
    before, faults = resolved(machine)
    document, _ = long_form(load_bytes(file_text(machine).encode(), "m.yaml"), os.sep)
    words, lost = command_line(document)
    assert lost == []
    domain, _ = import_domain(export_domain(document, words).encode(), "m.xml")
    for document in (
        parse_command_line(words, defaults=False).document,
        parse_command_line(
            commands(clean(f"qemu-system-x86_64 {shlex.join(words)}\n"))[0].argv(), defaults=False
        ).document,
        domain,
    ):
        after, again = resolved(document)
        assert sorted(again) == sorted(faults)
        for drive in before["drives"].values():  # what QEMU is told has no `auto`
            drive["format"] = "raw" if drive["format"] == "auto" else drive["format"]
        assert {**after, "name": ""} == {**before, "name": ""}
