"""Every machine type from end to end through its monitors: the whole object tree, each command for people with odd
words, every driver's properties. After QEMU's qom-test, test-hmp and device-introspect-test.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest

from tests.board import Driven
from tests.conformance.test_devices import BOARDS, board
from tests.unit.monitor.test_qmp import Talk
from vmrun.config.catalogue import load_catalogue
from vmrun.config.machinetypes import type_names
from vmrun.monitor import hmp, info

ODD = ("", "x", "-1", "0", "/9999999x 1", "-f -a", '"', "a=b,c", "9" * 40, "%s%n", "\xe4", "0 0 0 0 0", ",,,", "../x")
# they end the machine, or write where they are told to
LEFT_OUT = {"quit", "system_powerdown", "system_reset", "stop", "cont", "migrate", "savevm", "screendump"}
# type in the list of properties → what its value is
KINDS: dict[str, Any] = {"bool": bool, "str": (str, type(None)), "string": str, "size": int}
NUMBER = re.compile(r"u?int\d*$")


def talk_to(pc: Driven) -> Talk:
    talk = Talk(pc)
    talk.ask("qmp_capabilities")
    return talk


def walk(talk: Talk) -> tuple[int, list[tuple[str, str, Any]]]:
    """How many properties there are, and those that cannot be read or are of another type than they say."""
    count, wrong, left = 0, [], ["/"]
    while left:
        path = left.pop()
        rows = talk.result("qom-list", path=path)
        names = [row["name"] for row in rows]
        if len(names) != len(set(names)):
            wrong.append((path, "twice", sorted(name for name in set(names) if names.count(name) > 1)))
        for row in rows:
            count += 1
            answer = talk.ask("qom-get", path=path, property=row["name"])
            if "return" not in answer:
                wrong.append((path, row["name"], answer["error"]["desc"]))
                continue
            value, kind = answer["return"], row["type"]
            if kind.startswith("child<"):
                below = f"{path.rstrip('/')}/{row['name']}"
                left.append(below)
                fits = value == below
            elif kind.startswith("link<"):
                fits = isinstance(value, str) and (not value or "return" in talk.ask("qom-list", path=value))
            else:
                fits = type(value) is int if NUMBER.match(kind) else isinstance(value, KINDS.get(kind, object))
            if not fits:
                wrong.append((path, row["name"], (kind, value)))
    return count, wrong


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.long] if n % 5 else []) for n, name in enumerate(type_names())
])  # fmt: skip
def test_each_object_of_a_type_can_be_read(name: str, tmp_path: pathlib.Path) -> None:
    with Driven(tmp_path, machine=name, memory="64MiB", cpus={"count": 2}) as pc:
        count, wrong = walk(talk_to(pc))
        assert wrong == []
        assert count > 300


@pytest.mark.parametrize("name", BOARDS)
def test_each_object_of_a_board_with_many_cards_can_be_read(name: str, tmp_path: pathlib.Path) -> None:
    with board(tmp_path, name) as pc:
        assert walk(talk_to(pc))[1] == []


@pytest.mark.parametrize("name", ["pc-0.10", "rhel6.0.0", "pc-i440fx-5.2", *BOARDS])
def test_lines_of_the_monitor_take_odd_words(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pc = board(tmp_path, name) if name in BOARDS else Driven(tmp_path, machine=name, memory="64MiB")
    with pc:
        lines = [names for line in hmp.LINES for names in line.names if line.names[0] not in LEFT_OUT]
        lines += [f"info {name}" for name in info.VIEWS]
        for line in lines:
            for odd in ODD:
                hmp.run(pc.machine, f"{line} {odd}")


def test_every_driver_tells_its_properties(tmp_path: pathlib.Path) -> None:
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="64MiB") as pc:
        talk = talk_to(pc)
        types = {row["name"]: row for row in talk.result("qom-list-types", abstract=True)}
        drivers = [name for name in load_catalogue().modelled_names() if name in types]
        assert len(drivers) > 90
        for name, row in types.items():
            assert row["parent"] in types or row["parent"] == "object", row
            listed = talk.ask("qom-list-properties", typename=name)
            assert "return" in listed, (name, listed)
        for name in drivers:
            rows = talk.result("device-list-properties", typename=name)
            assert len({row["name"] for row in rows}) == len(rows), name
            assert talk.hmp(f"device_add {name},help").strip(), name
        assert "error" in talk.ask("device-list-properties", typename="nothing")
