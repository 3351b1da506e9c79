"""QMP on a machine without a processor: negotiation, errors, commands, events."""

from __future__ import annotations

import json
import os
import pathlib
import time
import types
from typing import Any

import pytest
from accel.api import Action

from tests.board import Driven
from vmrun.monitor import hmp, table
from vmrun.monitor.server import Monitors


class Talk:
    """One session; `ask` returns the answer, events are kept."""

    def __init__(self, pc: Driven) -> None:
        self.machine = pc.machine
        self.sent: list[dict[str, Any]] = []
        self.monitors = Monitors(self.machine)
        self.session = self.monitors.session("control", self._take)

    def _take(self, data: bytes) -> None:
        self.sent += [json.loads(line) for line in data.splitlines()]

    def raw(self, text: str) -> dict[str, Any]:
        before = len(self.sent)
        self.session.feed(text.encode() + b"\n")
        return next(message for message in self.sent[before:] if "event" not in message)

    def ask(self, name: str, **arguments: Any) -> dict[str, Any]:
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        return self.raw(json.dumps({"execute": name, "arguments": given}))

    def result(self, name: str, **arguments: Any) -> Any:
        answer = self.ask(name, **arguments)
        assert "return" in answer, answer
        return answer["return"]

    def hmp(self, line: str) -> str:
        return str(self.result("human-monitor-command", command_line=line))

    def events(self) -> list[dict[str, Any]]:
        return [message for message in self.sent if "event" in message]


@pytest.fixture
def pc(tmp_path: pathlib.Path):
    devices = [{"driver": "isa-serial", "id": "com", "chardev": "c"}]
    chardevs = {"c": {"type": "null"}}
    with Driven(tmp_path, machine="pc-i440fx-2.0", memory="16MiB", chardevs=chardevs, devices=devices) as pc:
        yield pc


@pytest.fixture
def talk(pc: Driven) -> Talk:
    talk = Talk(pc)
    talk.ask("qmp_capabilities")
    return talk


def test_the_greeting_has_a_version_and_the_capabilities(pc: Driven) -> None:
    greeting = Talk(pc).sent[0]["QMP"]
    assert set(greeting["version"]["qemu"]) == {"major", "minor", "micro"}
    assert greeting["capabilities"] == ["oob"]


def test_before_the_negotiation_there_is_no_command(pc: Driven) -> None:
    assert Talk(pc).ask("query-status")["error"]["class"] == "CommandNotFound"


def test_the_negotiation_is_made_once(talk: Talk) -> None:
    assert talk.ask("qmp_capabilities")["error"]["class"] == "CommandNotFound"


@pytest.mark.parametrize("id", [7, "x", None, {"a": [1]}, [], 1.5])
def test_an_answer_has_the_id_of_its_command(talk: Talk, id: object) -> None:
    answer = talk.raw(json.dumps({"execute": "query-name", "id": id}))
    assert answer["id"] == id
    assert talk.raw(json.dumps({"execute": "nothing", "id": id}))["id"] == id


def test_without_an_id_there_is_none(talk: Talk) -> None:
    assert "id" not in talk.ask("query-name")


@pytest.mark.parametrize(
    "request_, kind, words",
    [
        ("[]", "GenericError", "QMP input must be a JSON object"),
        ("5", "GenericError", "QMP input must be a JSON object"),
        ("{}", "GenericError", "QMP input lacks member 'execute'"),
        ('{"execute": 5}', "GenericError", "QMP input member 'execute' must be a string"),
        ('{"execute": "stop", "more": 1}', "GenericError", "QMP input member 'more' is unexpected"),
        ('{"execute": "stop", "arguments": 1}', "GenericError", "QMP input member 'arguments' must be an object"),
        ('{"execute": "x"}', "CommandNotFound", "The command x has not been found"),
        ('{"execute": "qom-list"}', "GenericError", "Parameter 'path' is missing"),
        ('{"execute": "stop", "arguments": {"a": 1}}', "GenericError", "Parameter 'a' is unexpected"),
        (
            '{"execute": "qom-list", "arguments": {"path": 1}}',
            "GenericError",
            "Invalid parameter type for 'path', expected: string",
        ),
        ('{"execute": "qom-list", "arguments": {"path": "/x"}}', "DeviceNotFound", "Device '/x' not found"),
        ('{"exec-oob": "stop"}', "GenericError", "QMP input member 'exec-oob' is unexpected"),
        ("{", "GenericError", None),
    ],
)
def test_errors_have_qemus_class_and_words(talk: Talk, request_: str, kind: str, words: str | None) -> None:
    error = talk.raw(request_ if request_ != "{" else "{\x01")["error"]
    assert error["class"] == kind
    assert words is None or error["desc"] == words


def test_stop_and_cont_tell_and_are_told(talk: Talk) -> None:
    assert talk.result("query-status") == {"running": False, "singlestep": False, "status": "prelaunch"}
    talk.result("cont")
    assert talk.result("query-status")["status"] == "running"
    talk.result("stop")
    assert talk.result("query-status")["status"] == "paused"
    assert [event["event"] for event in talk.events()] == ["RESUME", "STOP"]
    assert set(talk.events()[0]["timestamp"]) == {"seconds", "microseconds"}


def test_a_reset_is_answered_before_it_happens(talk: Talk) -> None:
    talk.result("system_reset")
    assert talk.events() == []
    talk.machine.loop.run_once(0)
    event = talk.events()[0]
    assert event["event"] == "RESET"
    assert event["data"] == {"guest": False, "reason": "host-qmp-system-reset"}


def test_a_reset_by_the_guest_says_so(talk: Talk) -> None:
    talk.machine.board.control.ask(1)
    talk.machine.loop.run_once(0)
    assert talk.events()[0]["data"] == {"guest": True, "reason": "guest-reset"}


def test_quit_tells_then_answers_then_ends(talk: Talk) -> None:
    talk.result("quit")  # SHUTDOWN is before the answer, as QEMU has it
    assert talk.events()[0]["event"] == "SHUTDOWN"
    assert talk.events()[0]["data"] == {"guest": False, "reason": "host-qmp-quit"}
    assert talk.machine.outcome is not None


def test_a_shutdown_that_leaves_the_machine_needs_a_reset_to_go_on(talk: Talk) -> None:
    talk.machine.policy["shutdown"] = "pause"
    talk.result("cont")
    talk.machine.board.control.ask(2)
    talk.machine.loop.run_once(0)
    assert talk.result("query-status")["status"] == "shutdown"
    assert talk.ask("cont")["error"]["desc"] == "Resetting the Virtual Machine is required"
    talk.result("system_reset")
    talk.machine.loop.run_once(0)
    talk.result("cont")


def test_events_wait_for_the_negotiation(pc: Driven) -> None:
    talk = Talk(pc)
    pc.machine.resume()
    assert talk.events() == []


# commands that need one of two parameters
TRAYS = ("eject", "blockdev-open-tray", "blockdev-close-tray", "blockdev-change-medium")
# … or something that this machine has not, or a descriptor
LACKING = (
    "migrate-pause", "query-balloon", "query-vm-generation-id", "x-exit-preconfig", "add-fd", "system_wakeup",
    "x-open-page", "nbd-server-stop",
)  # fmt: skip


def test_every_command_without_parameters_answers(talk: Talk) -> None:
    for command in table.load().values():
        if not command.required and command.name not in ("quit", "qmp_capabilities", *LACKING, *TRAYS):
            answer = talk.ask(command.name)
            assert "return" in answer, (command.name, answer)


@pytest.mark.parametrize("value", [None, True, -1, 1 << 70, "", "x" * 10_000, [], {}, [[]], 1.5])
def test_no_argument_of_any_kind_breaks_a_command(talk: Talk, value: object) -> None:
    for command in table.load().values():
        for name in [*command.required, *command.optional]:
            given = {**dict.fromkeys(command.required, value), name: value}
            answer = talk.raw(json.dumps({"execute": command.name, "arguments": given}))
            assert "return" in answer or "internal" not in answer["error"]["desc"], (command.name, answer)


def test_what_commands_return_is_what_the_schema_says(talk: Talk) -> None:
    for command in table.load().values():
        if not command.required and command.returns and command.name not in ("quit", *LACKING):
            table.check(talk.result(command.name), command.returns, command.name)


def test_the_schema_names_every_type_that_it_uses(talk: Talk) -> None:
    entries = talk.result("query-qmp-schema")
    names = {entry["name"] for entry in entries}
    assert len(names) == len(entries)
    for entry in entries:
        used = [entry[key] for key in ("arg-type", "ret-type", "element-type") if key in entry]
        if entry["meta-type"] == "object":
            used += [member["type"] for member in entry["members"]]
        assert set(used) <= names, entry


def test_an_object_is_found_by_the_end_of_its_path(talk: Talk) -> None:
    assert talk.result("qom-get", path="ioapic", property="type") == "ioapic"
    assert talk.result("qom-get", path="unattached/ioapic", property="realized") is True
    assert talk.result("qom-get", path="/machine/peripheral/com", property="irq") == 4


def test_a_device_s_properties_stay_as_they_are(talk: Talk) -> None:
    error = talk.ask("qom-set", path="/machine/peripheral/com", property="irq", value=3)["error"]
    assert error["class"] == "GenericError" and "after it was realized" in error["desc"]


def test_an_isa_device_cannot_be_plugged(talk: Talk) -> None:
    for name, arguments in (("device_add", {"driver": "isa-serial", "index": 1}), ("device_del", {"id": "com"})):
        assert talk.ask(name, **arguments)["error"]["desc"] == "Bus 'isa.0' does not support hotplugging"


def test_query_pci_shows_where_the_guest_put_a_region(talk: Talk, pc: Driven) -> None:
    pc.config(1, 1, 0x20, 0xC001)
    pc.config(1, 1, 4, 1)
    ide = next(d for d in talk.result("query-pci")[0]["devices"] if (d["slot"], d["function"]) == (1, 1))
    assert ide["class_info"] == {"class": 0x0101, "desc": "IDE controller"}
    assert ide["regions"] == [{"bar": 4, "type": "io", "address": 0xC000, "size": 16}]


@pytest.mark.parametrize(
    "line, words",
    [
        ("info status", "VM status: paused (prelaunch)\r\n"),
        ("info name", "driven\r\n"),
        ("nonsense", "unknown command: 'nonsense'\r\n"),
        ("info nonsense", "unknown command: 'info nonsense'\r\n"),
        ("i /b 0x71", "portb[0x0071] = 0x"),
        ("i /b 0x70.0x0f", "portb[0x0071] = 0x00\r\n"),
        ("xp/2xb 0xffff0", "00000000000ffff0: 0xea 0x5b"),
        ("device_add nosuch", "Error: 'nosuch' is not a valid device model name\r\n"),
        ("o /b", 'Try "help o" for more information'),
        ("stop now", "stop|s: extraneous characters at the end of line"),
        ("info qtree", 'dev: isa-serial, id "com"'),
        ("info qom-tree", "/com (isa-serial)\r\n"),
        ("info mtree", "address-space: memory\r\n"),
        ("info mtree -f", "): pc.bios"),
        ("info mtree -D", "[disabled]"),
        ("info mtree -o", "owners of regions are not modelled"),
        ("info mtree -f -d", "dispatch tables are not modelled"),
        ("info pci", "IDE controller: PCI device 8086:7010\r\n"),
        ("info cpus", "* CPU #0: thread_id="),
        ("info registers", "Error: accelerator qtest has no processor registers"),
        ("", ""),
    ],
)
def test_lines_of_the_monitor_for_people(talk: Talk, line: str, words: str) -> None:
    assert words in talk.hmp(line)
    if not words:
        assert talk.hmp(line) == ""


@pytest.mark.parametrize("command", [line.names[0] for line in hmp.LINES if line.names[0] != "quit"])
@pytest.mark.parametrize("rest", ["", " x", " /9zz 1", " / 5", " -1 -1 /", ' "', " 99999999999999999999999 1 1", " /b"])
def test_nothing_that_is_typed_raises(
    talk: Talk, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, command: str, rest: str
) -> None:
    monkeypatch.chdir(tmp_path)  # what saves something takes a word for a file's name
    given = {"command-line": command + rest}
    talk.session.feed(json.dumps({"execute": "human-monitor-command", "id": 1, "arguments": given}).encode())
    finish(talk)
    assert [message["id"] for message in talk.sent if "id" in message] == [1]
    assert "return" in talk.sent[-1] or "event" in talk.sent[-1]


def test_a_handler_that_fails_is_an_error_for_its_client_only(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    reported = []
    talk.machine.loop.on_error = lambda where, error: reported.append(where)
    monkeypatch.setattr(table.load()["query-name"], "handler", lambda monitor: 1 // 0)
    assert "internal error" in talk.ask("query-name")["error"]["desc"]
    assert reported == ["a monitor command"]
    talk.result("query-status")


def test_a_client_that_wants_oob_is_told_which_commands_have_it(pc: Driven) -> None:
    talk = Talk(pc)
    talk.ask("qmp_capabilities", enable=["oob"])
    assert talk.raw('{"exec-oob": "stop"}')["error"]["desc"] == "The command stop does not support OOB"


def test_a_reset_of_a_machine_that_stands_still_puts_it_before_its_start(talk: Talk) -> None:
    talk.machine.resume()
    talk.result("stop")
    talk.machine.reset("host-qmp-system-reset")
    assert talk.result("query-status")["status"] == "prelaunch"


def test_the_end_is_no_stop(talk: Talk) -> None:
    talk.machine.resume()
    talk.machine.finish("quit", "host-qmp-quit")
    assert [event["event"] for event in talk.events()] == ["RESUME", "SHUTDOWN"]


def test_with_no_shutdown_only_quit_ends_a_machine(talk: Talk) -> None:
    talk.machine.policy["shutdown"] = "pause"
    talk.machine.resume()
    talk.machine.finish("reset", "host-qmp-system-reset")
    assert talk.result("query-status")["status"] == "shutdown"
    assert talk.machine.outcome is None
    talk.machine.finish("quit", "host-qmp-quit")
    assert talk.machine.outcome is not None


@pytest.mark.parametrize(
    ("action", "told", "state"),
    [("shutdown", "poweroff", "shutdown"), ("pause", "pause", "guest-panicked"), ("none", "run", "running")],
)
def test_what_a_panic_does_can_be_chosen(talk: Talk, action: str, told: str, state: str) -> None:
    talk.machine.policy["panic"] = action
    talk.machine.resume()
    talk.machine._on_panic()
    (event,) = [event for event in talk.events() if event["event"] == "GUEST_PANICKED"]
    assert event["data"] == {"action": told}
    assert talk.machine.state == state


def test_system_wakeup_wakes_a_guest_that_sleeps(talk: Talk) -> None:
    machine = talk.machine
    machine.resume()
    assert talk.ask("system_wakeup")["error"]["desc"] == "Unable to wake up: guest is not in suspended state"
    machine.ask(Action.SUSPEND, "guest")
    machine.loop.run_once(0)
    assert machine.asleep and talk.result("query-status")["status"] == "suspended"
    assert talk.result("system_wakeup") == {}
    machine.loop.run_once(0)
    assert not machine.asleep and talk.result("query-status")["status"] == "running"
    assert [event["event"] for event in talk.events()][-2:] == ["SUSPEND", "WAKEUP"]


def test_cpu_definitions_say_what_a_name_stands_for(tmp_path: pathlib.Path) -> None:
    with Driven(tmp_path, machine="pc-i440fx-7.2") as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        rows = {row["name"]: row for row in talk.result("query-cpu-definitions")}
    assert rows["Haswell-noTSX"]["alias-of"] == "Haswell-v2"
    assert rows["Haswell"]["alias-of"] == "Haswell-v1"
    assert "alias-of" not in rows["Haswell-v1"]
    assert "default" not in rows
    assert (rows["base"]["static"], rows["qemu64"]["static"]) == (True, False)
    assert (rows["host"]["migration-safe"], rows["qemu64"]["migration-safe"]) == (False, True)
    assert rows["EPYC"]["unavailable-features"] == []  # no processor runs here, so nothing is lacking


def finish(talk: Talk) -> None:
    """Until no long command is under way."""
    for _ in range(20_000):
        if not talk.machine.works:
            return
        talk.machine.loop.run_once(0.001)
    raise AssertionError("it does not end")


def test_memory_is_saved_while_the_main_loop_goes_on(talk: Talk, pc: Driven, tmp_path: pathlib.Path) -> None:
    pc.write(0x1FFFE, b"\x11\x22\x33\x44")
    path = tmp_path / "memory"
    given = {"val": 0x10000, "size": 0x20000, "filename": str(path)}
    first = json.dumps({"execute": "pmemsave", "id": 1, "arguments": given})
    talk.session.feed(first.encode() + b'{"execute": "query-name", "id": 2}')
    assert not any(message.get("id") for message in talk.sent)
    finish(talk)
    assert [message["id"] for message in talk.sent if "id" in message] == [1, 2]
    data = path.read_bytes()
    assert len(data) == 0x20000 and data[0xFFFE:0x10002] == b"\x11\x22\x33\x44"


def test_more_than_the_memory_is_not_saved(talk: Talk, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "memory")
    for val, size in ((0, 99999999999), (1 << 32, 1), (-1, 4), (0, -1), (0xFFFFFFFF, 2)):
        assert "'size' expects a range" in talk.ask("pmemsave", val=val, size=size, filename=path)["error"]["desc"]
    assert "Error: Parameter 'size' expects" in talk.hmp(f'pmemsave 0xffffffff 2 "{path}"')
    assert not (tmp_path / "memory").exists()


def test_what_keeps_memory_from_a_file_is_said(talk: Talk, tmp_path: pathlib.Path) -> None:
    talk.session.feed(json.dumps({"execute": "human-monitor-command", "id": 1, "arguments": {
        "command-line": f'pmemsave 0 4096 "{tmp_path}/no/such"'}}).encode())  # fmt: skip
    finish(talk)
    (answer,) = [message for message in talk.sent if message.get("id") == 1]
    assert "No such file" in answer["return"]


def test_the_end_of_the_machine_does_not_wait_for_a_long_command(tmp_path: pathlib.Path) -> None:
    with Driven(tmp_path, machine="pc-i440fx-2.0", memory="16MiB") as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        talk.session.feed(json.dumps({"execute": "pmemsave", "arguments": {
            "val": 0, "size": (1 << 32) - 1, "filename": "/dev/null"}}).encode())  # fmt: skip
        (work,) = pc.machine.works
    assert work.ended


def test_the_path_of_a_processor_can_be_read(tmp_path: pathlib.Path) -> None:
    cpus = {"count": 4, "sockets": 1, "cores": 2, "threads": 2}
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="16MiB", cpus=cpus) as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        rows = talk.result("query-cpus-fast")
        assert [row["props"]["core-id"] for row in rows] == [0, 0, 1, 1]
        for row in rows:
            names = {prop["name"] for prop in talk.result("qom-list", path=row["qom-path"])}
            assert {"type", "core-id", "realized"} <= names
            for name, value in row["props"].items():
                assert talk.result("qom-get", path=row["qom-path"], property=name) == value
            assert talk.result("qom-get", path=row["qom-path"], property="type") == "qemu64-x86_64-cpu"


def test_a_machine_with_nothing_in_it_answers_a_line() -> None:
    from vmrun.machine.empty import build_empty

    machine = build_empty({"name": "nothing", "chardevs": {}})
    try:
        talk = Talk(types.SimpleNamespace(machine=machine))  # type: ignore[arg-type]
        talk.result("qmp_capabilities")
        assert talk.hmp("info status") == "VM status: paused (prelaunch)\r\n"
    finally:
        machine.close()


def test_a_dump_that_is_cut_off_says_so(talk: Talk) -> None:
    last = talk.hmp("xp /5000xb 0x1000").splitlines()[-1]
    assert last == "4096 of 5000 are shown; the next begins at 0x2000"
    assert "shown" not in talk.hmp("xp /16xb 0x1000")


def test_a_pipe_of_rules_is_waited_for_by_who_asked_alone(talk: Talk, tmp_path: pathlib.Path) -> None:
    """As QEMU's qmp-test: all in one piece, and the one out of band is answered first."""
    os.mkfifo(tmp_path / "pipe")
    other = Talk.__new__(Talk)
    other.machine, other.sent, other.monitors = talk.machine, [], talk.monitors
    other.session = talk.monitors.session("control", other._take)
    assert other.ask("qmp_capabilities", enable=["oob"]) == {"return": {}}
    rules = {"driver": "blkdebug", "node-name": "b", "config": str(tmp_path / "pipe"), "image": {"driver": "null-co"}}
    lines = [
        {"execute": "blockdev-add", "id": 1, "arguments": rules},
        {"execute": "query-name", "id": 2},
        {"exec-oob": "migrate-pause", "id": 3},
    ]
    other.session.feed("".join(map(json.dumps, lines)).encode())
    assert [message["id"] for message in other.sent if "id" in message] == [3]
    assert "status" in talk.result("query-status")
    (tmp_path / "pipe").write_text('[inject-error]\nevent = "read_aio"\n')
    end = time.monotonic() + 30
    while len([message for message in other.sent if "id" in message]) < 3 and time.monotonic() < end:
        talk.machine.loop.run_once(0.02)
    assert [message["id"] for message in other.sent if "id" in message] == [3, 1, 2]
    assert next(message for message in other.sent if message.get("id") == 1)["return"] == {}


def test_what_is_empty_has_two_lines_where_there_are_lines(pc: Driven) -> None:
    sent: list[bytes] = []
    session = Monitors(pc.machine).session("pretty", sent.append)
    session.feed(b'{"execute": "qmp_capabilities"}')
    assert sent[-1] == b'{\n    "return": {\n    }\n}\r\n'
    session.feed(b'{"execute": "query-named-block-nodes", "id": "{}"}')
    lines = sent[-1].split(b"\n")
    assert b'    "id": "{}"' in [line.rstrip(b",") for line in lines]
    assert b'    "return": [\n    ]' in sent[-1]


@pytest.mark.parametrize(("removed", "told"), [([], True), (["pm"], False)])
def test_a_guest_is_woken_by_power_management_alone(removed: list[str], told: bool, tmp_path: pathlib.Path) -> None:
    """-no-acpi takes it away."""
    with Driven(tmp_path, machine="pc-i440fx-2.0", memory="16MiB", remove=removed) as pc:
        talk = Talk(pc)
        talk.ask("qmp_capabilities")
        assert talk.result("query-current-machine") == {"wakeup-suspend-support": told}
