"""-machine none with what stands beside a machine: viewers and networks."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.peers.qmp_session import ROOT


def answers(line: list[str], *requests: str) -> list[dict[str, object]]:
    text = "\n".join(['{"execute": "qmp_capabilities"}', *requests, '{"execute": "quit"}'])
    program = [sys.executable, str(ROOT / "bin" / "vmrun-qemu"), "-M", "none", "-display", "none", "-qmp", "stdio"]
    done = subprocess.run([*program, *line], input=text, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return [message for message in map(json.loads, done.stdout.splitlines()) if "QMP" not in message][1:]


def test_it_has_viewers_and_networks() -> None:
    usernet = {"execute": "human-monitor-command", "arguments": {"command-line": "info usernet"}}
    more = {"execute": "netdev_add", "arguments": {"type": "user", "id": "w"}}
    line = ["-vnc", "127.0.0.1:0,to=99", "-netdev", "user,id=v,hostfwd=:127.0.0.1:0-:22"]
    found = answers(line, '{"execute": "query-vnc"}', json.dumps(usernet), json.dumps(more))
    assert found[0]["return"]["enabled"] is True  # type: ignore[index]
    assert "HOST_FORWARD" in str(found[1]["return"])
    assert found[2] == {"return": {}}
