"""Which commands QEMU's monitors have and vmrun's not: those that docs/monitor.md explains, and no other."""

from __future__ import annotations

import pathlib
import re
import sys

import pytest

from tests.peers.oracle import QEMU, converse, needs_qemu

pytestmark = [pytest.mark.peer, needs_qemu]
ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "monitor.md"
LINE = ["-M", "pc-i440fx-7.2", "-accel", "tcg", "-S", "-display", "none", "-nodefaults", "-qmp", "stdio"]


def explained(title: str) -> set[str]:
    section = PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    cells = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def typed(line: str) -> dict[str, object]:
    return {"execute": "human-monitor-command", "arguments": {"command-line": line}}


def names(text: str) -> set[str]:
    found = (re.match(r"(?:info )?([\w?|-]+)", line) for line in text.splitlines())
    return {name for match in found if match for name in match.group(1).split("|")}


def test_what_is_not_there_is_explained() -> None:
    asked = [{"execute": "query-commands"}, typed("help"), typed("help info")]
    program = [sys.executable, str(ROOT / "bin" / "vmrun-qemu")]
    his, ours = (converse([*command, *LINE], asked) for command in ([QEMU or ""], program))
    commands = [{row["name"] for row in side[0]["return"]} for side in (his, ours)]
    assert commands[0] - commands[1] == explained("QMP")
    for n, title in ((1, "The monitor for people"), (2, "`info`")):
        assert names(his[n]["return"]) - names(ours[n]["return"]) == explained(title), title


def test_events_that_are_never_sent_are_explained() -> None:
    asked = [{"execute": "query-qmp-schema"}]
    program = [sys.executable, str(ROOT / "bin" / "vmrun-qemu")]
    found = []
    for command in ([QEMU or ""], program):
        rows = converse([*command, *LINE], asked)[0]["return"]
        found.append({row["name"] for row in rows if row["meta-type"] == "event"})
    assert found[0] - found[1] == explained("Events")
    assert found[1] - found[0] == {"TRIPLE_FAULT"}  # vmrun's own
