"""qom-list-types beside QEMU's: below each class and interface are the same of the types that both have."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.peers.oracle import QEMU, converse, needs_qemu
from tests.peers.qmp_session import ROOT

pytestmark = [pytest.mark.peer, needs_qemu]
LINE = ["-machine", "none", "-display", "none", "-qmp", "stdio"]
SIDES = [[QEMU or ""], [sys.executable, str(ROOT / "bin" / "vmrun-qemu")]]
# the class of all interfaces, of which vmrun names what objects of users have
LEFT_OUT = {"interface"}


def asked(rows: list[dict[str, Any]]) -> list[list[Any]]:
    return [[answer["return"] for answer in converse([*side, *LINE], rows)] for side in SIDES]


def test_types_lie_where_qemu_s_lie() -> None:
    everything: list[dict[str, Any]] = [
        {"execute": "qom-list-types", "arguments": {"abstract": True}},
        {"execute": "query-cpu-definitions"},
    ]
    (theirs, their_models), (ours, our_models) = asked(everything)
    both = {row["name"] for row in theirs} & {row["name"] for row in ours if not row.get("abstract")}
    assert len(both) > 300
    above = [row["name"] for row in theirs if row.get("abstract") or row.get("parent") == "interface"]
    wanted = [name for name in above if name not in LEFT_OUT]
    rows = [{"execute": "qom-list-types", "arguments": {"implements": name}} for name in wanted]
    sides = [[{row["name"] for row in answer} & both for answer in side] for side in asked(rows)]
    unlike = {name: sorted(his ^ own) for name, his, own in zip(wanted, *sides, strict=True) if his != own}
    assert unlike == {}
    aliases = [{row["name"]: row.get("alias-of") for row in side} for side in (their_models, our_models)]
    assert {name: aliases[0][name] for name in aliases[1] if name in aliases[0]} == {
        name: alias for name, alias in aliases[1].items() if name in aliases[0]
    }
