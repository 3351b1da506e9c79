"""What the PS/2 keyboard sends for every key that QEMU has a name for, beside QEMU's, as the controller hands it on."""

from __future__ import annotations

import pathlib
import sys
import time

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from vmrun.core.keys import QCODES
from vmrun.monitor.client import QmpClient
from vmrun.testing import QtestProgram

pytestmark = [pytest.mark.peer, needs_qemu]

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "bin" / "vmrun-qemu"
DATA, STATUS = 0x60, 0x64
TRANSLATED, PLAIN = 0x41, 0x01  # the controller's command byte
# QEMU sends nothing for these in scan set 2. Menu is what who names it means; the Korean keys are Microsoft's list's.
OURS_ALONE = {"find", "lang1", "lang2", "menu"}


def sent(q: QtestProgram, theirs: bool) -> bytes:
    found = b""
    for _ in range(20):
        while q.inb(STATUS) & 1:
            found += bytes((q.inb(DATA),))
        if theirs:  # its clock runs
            time.sleep(0.001)
        if not q.inb(STATUS) & 1:
            break
    return found


def scene(q: QtestProgram, qmp: QmpClient, theirs: bool) -> dict[tuple[int, str], list[bytes]]:
    found: dict[tuple[int, str], list[bytes]] = {}
    for mode in (TRANSLATED, PLAIN):
        for port, value in ((STATUS, 0x60), (DATA, mode), (DATA, 0xF4)):
            q.outb(port, value)
            sent(q, theirs)
        for name in sorted(QCODES - {"unmapped"}):
            key = {"type": "qcode", "data": name}
            found[mode, name] = []
            for down in (True, False):
                qmp.execute("input-send-event", events=[{"type": "key", "data": {"down": down, "key": key}}])
                found[mode, name].append(sent(q, theirs))
    return found


def test_every_key_sends_what_qemus_does(tmp_path: pathlib.Path) -> None:
    halt = tmp_path / "halt.bin"  # QEMU takes no keys while it is stopped
    halt.write_bytes(bytes(0xFFF0) + b"\xfa\xf4\xeb\xfc".ljust(16, b"\0"))
    looks = []
    for name, command in (
        ("theirs", [str(QEMU), "-M", "pc-i440fx-7.2,smm=off", "-accel", "tcg", "-bios", str(halt)]),
        ("ours", [sys.executable, str(PROGRAM), "-M", "pc-i440fx-7.2", "-accel", "qtest"]),
    ):
        monitor = str(tmp_path / name)
        options = ["-m", "64", "-nodefaults", "-display", "none", "-qmp", f"unix:{monitor},server=on,wait=off"]
        with QtestProgram([*command, *options]) as q, QmpClient(monitor) as qmp:
            looks.append(scene(q, qmp, name == "theirs"))
    theirs, ours = looks
    different = {key: (theirs[key], ours[key]) for key in theirs if theirs[key] != ours[key]}
    assert {name for _, name in different} == OURS_ALONE, different
    assert all(value == [b"", b""] for value, _ in different.values())
    assert ours[TRANSLATED, "lang1"] == [b"\xf2", b""] and ours[PLAIN, "lang2"] == [b"\xf1", b""]
