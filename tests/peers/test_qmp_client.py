"""QEMU's own client, unchanged, with `vmrun up` and vmrun-qemu; and the schema beside QEMU's."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from qemu import qmp

from tests.peers.oracle import QEMU, converse, needs_qemu, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.peer


@pytest.fixture(params=["vmrun up", "vmrun-qemu"])
def served(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A paused machine and its QMP socket."""
    path = str(tmp_path / "qmp")
    if request.param == "vmrun up":
        file = tmp_path / "m.json"
        text: dict[str, Any] = {"schema": "vmrun/machine/1", "name": "lab", "machine": "pc-i440fx-2.0"}
        text["chardevs"] = {"c": {"type": "socket", "path": path, "server": True, "wait": False}}
        text["monitors"] = {"m": {"chardev": "c", "mode": "control"}}
        file.write_text(json.dumps(text))
        command = [sys.executable, str(ROOT / "bin/vmrun"), "up", "--accel", "qtest", "--paused", str(file)]
    else:
        command = [sys.executable, str(ROOT / "bin/vmrun-qemu"), "-M", "pc-i440fx-2.0", "-accel", "qtest", "-S"]
        command += ["-name", "lab", "-nodefaults", "-display", "none", "-qmp", f"unix:{path},server=on,wait=off"]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    try:
        assert wait_for(lambda: os.path.exists(path), 60)
        yield process, path
    finally:
        process.kill()
        process.wait()


def test_the_official_client_works_unchanged(served: tuple[subprocess.Popen[bytes], str]) -> None:
    process, path = served

    async def talk() -> list[Any]:
        client = qmp.QMPClient("test")
        await client.connect(path)
        found: list[Any] = [await client.execute("query-status"), await client.execute("query-name")]
        with client.listener(("RESUME", "STOP")) as events:
            await client.execute("cont")
            await client.execute("stop")
            found += [(await events.get())["event"], (await events.get())["event"]]
        with pytest.raises(qmp.ExecuteError) as refused:
            await client.execute("qom-get", {"path": "/nowhere", "property": "type"})
        found.append(refused.value.error.error.class_)
        await client.execute("quit")
        try:
            await client.disconnect()
        except EOFError:
            pass  # the machine was gone before the client said goodbye
        return found

    found = asyncio.run(asyncio.wait_for(talk(), 60))
    assert found[0]["status"] == "prelaunch"
    assert found[1:] == [{"name": "lab"}, "RESUME", "STOP", "DeviceNotFound"]
    assert process.wait(30) == 0


@pytest.mark.parametrize("people", [False, True])
def test_qmp_shell_works_unchanged(served: tuple[subprocess.Popen[bytes], str], people: bool) -> None:
    _, path = served
    shell = pathlib.Path(sys.executable).parent / "qmp-shell"
    typed = "info status\n" if people else "query-status\nqom-get path=/machine property=type\nnothing\n"
    done = subprocess.run(
        [shell, *(["-H"] if people else []), path], input=typed, capture_output=True, text=True, timeout=60
    )
    assert "Connected to QEMU 7.2.0" in done.stdout
    wanted = ["VM status: paused (prelaunch)"] if people else [
        '"status": "prelaunch"', '"return": "pc-i440fx-2.0-machine"', "The command nothing has not been found",
    ]  # fmt: skip
    assert [words for words in wanted if words not in done.stdout] == []


def test_qmp_shell_shows_what_it_sends_prettily(served: tuple[subprocess.Popen[bytes], str]) -> None:
    _, path = served
    typed = "query-status\nhuman-monitor-command command-line=help\nobject-add qom-type=iothread id=t0\n"
    typed += "query-iothreads\n"
    shell = pathlib.Path(sys.executable).parent / "qmp-shell"
    done = subprocess.run([shell, "-p", "-v", path], input=typed, capture_output=True, text=True, timeout=60)
    assert '    "execute": "query-status"\n' in done.stdout and '        "status": "prelaunch"\n' in done.stdout
    assert '"id": "t0"' in done.stdout and '"poll-max-ns"' in done.stdout


def test_the_older_client_walks_the_tree_sets_and_pulls_events(served: tuple[subprocess.Popen[bytes], str]) -> None:
    """As QEMU's scripts qom-list, qom-tree, qom-get, qom-set and qom-fuse do, which are no package of their own."""
    from qemu.qmp.legacy import QEMUMonitorProtocol, QMPError

    _, path = served
    client = QEMUMonitorProtocol(path)
    assert client.connect()["QMP"]["version"]["qemu"]["major"] == 7
    client.settimeout(30)
    client.cmd("object-add", **{"qom-type": "iothread", "id": "t0"})
    seen, links, failed = 0, [], []

    def walk(node: str) -> None:
        nonlocal seen
        for row in client.cmd("qom-list", path=node):
            below = f"{node.rstrip('/')}/{row['name']}"
            if row["type"].startswith("child<"):
                walk(below)
                continue
            seen += 1
            try:
                value = client.cmd("qom-get", path=node, property=row["name"])
            except QMPError as error:
                failed.append((below, str(error)))
                continue
            if row["type"].startswith("link<") and value:
                links.append(value)

    walk("/")
    assert seen > 100 and failed == []
    for link in links:  # as links of a file system: there is something at each
        assert client.cmd("qom-get", path=link, property="type") or True
    client.cmd("qom-set", path="/objects/t0", property="poll-max-ns", value=77)
    assert client.cmd("qom-get", path="/objects/t0", property="poll-max-ns") == 77
    client.cmd("cont")
    event = client.pull_event(wait=30.0)
    assert event is not None and event["event"] == "RESUME"
    assert client.cmd_obj({"execute": "query-name", "id": "an-id"})["id"] == "an-id"
    client.close()


def test_junk_and_broken_connections_leave_the_machine_running(served: tuple[subprocess.Popen[bytes], str]) -> None:
    import socket

    _, path = served
    for junk in (b"", b"\0\1\2\xff" * 1000, b"{" * 5000, b'{"execute": "', b"GET / HTTP/1.0\r\n\r\n"):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            peer.sendall(junk)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(30)
        peer.connect(path)
        peer.sendall(b'{"execute": "qmp_capabilities"}\n')
        data = b""
        while data.count(b"\n") < 2:
            data += peer.recv(4096)
    assert json.loads(data.splitlines()[1]) == {"return": {}}


# --- beside QEMU ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    """QEMU's schema: name → entry."""
    command = [QEMU or "", "-M", "none", "-display", "none", "-nodefaults", "-qmp", "stdio"]
    (answer,) = converse(command, [{"execute": "query-qmp-schema"}])
    return {entry["name"]: entry for entry in answer["return"]}


def members(schema: dict[str, Any], name: str) -> dict[str, tuple[str, bool]]:
    """Argument → (kind of its type, optional)."""
    return {
        member["name"]: (kind(schema, member["type"]), "default" in member)
        for member in schema[name].get("members", ())
    }


def kind(schema: dict[str, Any], name: str) -> str:
    entry = schema[name]
    if entry["meta-type"] == "array":
        return f"[{kind(schema, entry['element-type'])}]"
    if entry["meta-type"] == "builtin":
        return str(entry["json-type"])
    return str(entry["meta-type"])


@needs_qemu
def test_commands_and_events_take_what_qemu_s_take(theirs: dict[str, Any]) -> None:
    from vmrun.monitor import schema, table

    table.load()
    ours = {entry["name"]: entry for entry in schema.describe()}
    wrong = {}
    for name, entry in ours.items():
        if entry["meta-type"] not in ("command", "event"):
            continue
        if name.startswith("x-") or name == "TRIPLE_FAULT":
            continue  # vmrun's own say so
        if name not in theirs:
            wrong[name] = "QEMU has no such"
            continue
        mine, other = members(ours, entry["arg-type"]), members(theirs, theirs[name]["arg-type"])
        if mine != other:
            wrong[name] = f"{mine} here, {other} there"
        if entry["meta-type"] == "command":
            mine_back, their_back = kind(ours, entry["ret-type"]), kind(theirs, theirs[name]["ret-type"])
            if mine_back != their_back:
                wrong[name] = f"returns {mine_back} here, {their_back} there"
    assert wrong == {}


# Each command of the foundation, with arguments that have an answer, and some that have none.
ASKED: list[tuple[str, dict[str, Any]]] = [
    *((f"query-{what}", {}) for what in ("status", "version", "commands", "name", "uuid", "kvm", "pci", "target")),
    *((f"query-{what}", {}) for what in ("machines", "cpu-definitions", "cpus-fast", "chardev")),
    *(("qom-list", {"path": path}) for path in ("/", "/machine", "/machine/peripheral", "com", "/nowhere")),
    *(("qom-get", {"path": "com", "property": name}) for name in ("type", "iobase", "realized", "chardev", "nothing")),
    ("qom-get", {"path": "/machine/peripheral/com", "property": "parent_bus"}),
    ("qom-set", {"path": "com", "property": "iobase", "value": 5}),
    ("qom-list-types", {}),
    ("qom-list-types", {"implements": "isa-device", "abstract": True}),
    *(("qom-list-properties", {"typename": name}) for name in ("isa-serial", "nothing")),
    *(("device-list-properties", {"typename": name}) for name in ("isa-serial", "nothing")),
    *(("device_add", {"driver": driver, "id": "x"}) for driver in ("isa-serial", "nothing", "i440FX")),
    ("device_add", {"driver": "isa-serial", "bus": "nothing"}),
    *(("device_del", {"id": id}) for id in ("com", "nothing")),
    *(("human-monitor-command", {"command-line": f"info {what}"}) for what in ("status", "kvm", "name", "uuid")),
    *(("human-monitor-command", {"command-line": line}) for line in ("stop now", "nothing", "info nothing", "")),
    ("human-monitor-command", {"command-line": "info status", "cpu-index": 9}),
    ("stop", {}),
    ("system_powerdown", {}),
    ("nothing", {}),
]
ADDED = {"description", "default-value"}  # vmrun tells more of properties than QEMU does


def answers(program: list[str]) -> dict[int, dict[str, Any]]:
    """Every answer to ASKED by a machine with a serial port, by the number in the list."""
    args = ["-M", "pc-i440fx-2.0", "-accel", "tcg", "-S", "-nodefaults", "-display", "none", "-smp", "2", "-m", "64"]
    args += ["-vga", "std", "-chardev", "null,id=c", "-device", "isa-serial,id=com,chardev=c", "-name", "x"]
    requests: list[dict[str, Any]] = [
        {"execute": name, "arguments": given, "id": n} for n, (name, given) in enumerate(ASKED)
    ]
    found = converse([*program, *args, "-qmp", "stdio"], requests, {**os.environ, "PYTHONPATH": str(ROOT)})
    return {message["id"]: message for message in found}


def shape(value: Any) -> Any:
    """Members and their types; those of a list's items together."""
    if isinstance(value, dict):
        return {key: shape(child) for key, child in value.items() if key not in ADDED}
    if isinstance(value, list):
        found: dict[str, Any] = {}
        for child in map(shape, value):
            found |= child if isinstance(child, dict) else {child: child}
        return [found]
    return type(value).__name__


@needs_qemu
@pytest.mark.parametrize("machine", ["pc-i440fx-2.0", "pc-i440fx-4.1"])
def test_cpu_models_are_aliases_where_qemu_s_are(machine: str) -> None:
    def aliases(program: list[str]) -> dict[str, str]:
        args = ["-M", machine, "-accel", "tcg", "-S", "-nodefaults", "-display", "none", "-qmp", "stdio"]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        (answer,) = converse([*program, *args], [{"execute": "query-cpu-definitions"}], env)
        return {row["name"]: row["alias-of"] for row in answer["return"] if "alias-of" in row}

    assert aliases([sys.executable, str(ROOT / "bin/vmrun-qemu")]) == aliases([QEMU or ""])


@needs_qemu
def test_answers_have_the_shape_of_qemu_s() -> None:
    ours, theirs = answers([sys.executable, str(ROOT / "bin/vmrun-qemu")]), answers([QEMU or ""])
    wrong = []
    for n, asked in enumerate(ASKED):
        mine, other = ours[n], theirs[n]
        if "error" in other or asked[0] == "human-monitor-command":
            same = mine == other
        else:
            rows = [shape(mine), shape(other)]
            for row in rows:
                if isinstance(row["return"], list):
                    row["return"][0].pop("unavailable-features", None)  # a list of names on both sides, or empty
            same = rows[0] == rows[1]
        if not same:
            wrong.append((asked, mine, other))
    assert wrong == []
