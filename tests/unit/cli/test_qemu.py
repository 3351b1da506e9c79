"""vmrun-qemu: what a command line becomes, and what the process does."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.importers.corpus_lines import EVERY
from vmrun.cli import qemu_lists
from vmrun.cli.qemu_machine import QemuError, Wanted
from vmrun.config.importers.line import parse_options, read_options
from vmrun.config.importers.qemuopts import LineError
from vmrun.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[3]
OURS = [sys.executable, str(ROOT / "bin" / "vmrun-qemu")]
QUIET = ["-accel", "qtest", "-nodefaults", "-display", "none"]


def wanted(line: str) -> Wanted:
    return Wanted(parse_options(read_options(line.split()), defaults=True))


def refused(line: str) -> str:
    with pytest.raises((QemuError, ConfigError)) as caught:
        wanted(line).resolved()
    return str(caught.value)


# --- what it becomes ----------------------------------------------------------------------------------------


def test_default_devices_are_there() -> None:
    found = wanted("-M rhel6.3.0")
    drivers = {device["driver"] for device in found.file["devices"]}
    assert {"ide-drive", "floppy", "isa-serial", "isa-parallel"} <= drivers
    assert found.resolved()[0]["machine"] == "rhel6.3.0"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("-nodefaults -vga qxl", "vmrun has no qxl-vga yet"),
        ("-nodefaults -spice port=5901", "vmrun does not have this yet"),
        ("-nodefaults -mtdblock /dev/null", "vmrun does not have this yet"),
        ("-nodefaults -machine smbus=off", "vmrun does not have smbus yet"),
    ],
)
def test_what_is_not_modelled_is_refused_by_its_option(line: str, what: str) -> None:
    said = refused(line)
    assert said.endswith(what) and said.startswith(line.split()[1])


def test_devices_of_the_board_stay_away_when_they_are_switched_off() -> None:
    assert wanted("-nodefaults -machine hpet=off,vmport=off").file["remove"] == ["hpet", "vmport"]
    assert wanted("-nodefaults -no-hpet").file["remove"] == ["hpet"]
    assert "remove" not in wanted("-M rhel6.3.0 -nodefaults -no-hpet").file  # it has none
    assert "remove" not in wanted("-nodefaults -machine hpet=on").file


def test_snapshot_keeps_every_image_as_it_is() -> None:
    drives = wanted("-nodefaults -snapshot -hda /dev/null -hdb /dev/zero").resolved()[0]["drives"]
    assert [drive["snapshot"] for drive in drives.values()] == [True, True]


def test_enable_kvm_means_kvm_and_nothing_else() -> None:
    assert wanted("-enable-kvm").file["accel"] == ["kvm"]
    assert wanted("-machine accel=kvm:tcg").file["accel"] == ["kvm", "soft"]
    assert wanted("-enable-kvm -no-kvm").file["accel"] == ["soft"]


def test_threads_of_tcgs_processors_are_taken() -> None:
    assert wanted("-accel tcg,thread=multi -smp 2").file["thread"] == "multi"
    assert "thread" not in wanted("-accel tcg").file
    with pytest.raises(LineError, match="Invalid 'thread' setting some"):
        wanted("-accel tcg,thread=some")


def test_the_name_stays_as_it_was_given() -> None:
    found = wanted("-name a_b,process=x")
    assert found.run["name"] == "a_b"
    assert "name" not in wanted("").file


def test_mon_stdio_puts_a_monitor_on_the_serial_ports_chardev() -> None:
    found = wanted("-nodefaults -serial mon:stdio")
    assert found.monitors == [("readline", "serial0", False)]
    assert found.chardevs == {"serial0": {"type": "stdio", "mux": True}}
    assert found.resolved()[0]["devices"][-1]["props"]["chardev"] == "serial0"


def test_nographic_has_serial_port_and_monitor_on_the_terminal() -> None:
    found = wanted("-nographic")
    assert found.monitors == [("readline", "serial0", False)]
    assert found.chardevs["serial0"] == {"type": "stdio", "mux": True}


def test_a_chardev_with_mux_serves_a_port_and_a_monitor() -> None:
    found = wanted("-nodefaults -chardev stdio,mux=on,id=c -serial chardev:c -mon c")
    assert found.monitors == [("readline", "c", False)]
    assert found.resolved()[0]["chardevs"]["c"]["mux"] is True


@pytest.mark.parametrize("words", ["-no-reboot -no-shutdown", "-action reboot=shutdown,shutdown=pause"])
def test_what_happens_at_events_has_two_spellings(words: str) -> None:
    assert wanted(words).actions == {"reboot": "shutdown", "shutdown": "pause", "panic": "shutdown"}


def test_relative_paths_are_those_of_the_directory_it_was_started_in(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    monkeypatch.chdir(tmp_path)
    config, _ = wanted("-nodefaults -hda disk.img -serial unix:s,server,nowait").resolved()
    assert config["drives"]["ide0-hd0"]["file"] == str(tmp_path / "disk.img")
    assert config["chardevs"]["serial0"]["path"] == str(tmp_path / "s")


@pytest.mark.parametrize("words", EVERY, ids=map(str, range(len(EVERY))))
def test_a_line_from_the_wild_becomes_a_machine_or_is_refused_in_one_line(words: list[str]) -> None:
    try:
        found = Wanted(parse_options(read_options(words), defaults=True))
        assert found.resolved()[0]["machine"]
    except QemuError as error:
        assert "\n" not in str(error).replace("machine type\nUse", "")
    except ConfigError as error:
        assert len(error.problems) == 1


ASKING = """
-machine help; -M ?; -M pc,help; -cpu ?; -device help; -device ?; -device isa-serial,?; -chardev ?; -netdev help
-accel help; -object help; -audiodev help; -display help; -vga help; -smp help; -boot help; -L help
-nic model=help; -drive format=help
"""


@pytest.mark.parametrize("line", [line.strip() for line in re.split("[;\n]", ASKING) if line.strip()])
def test_what_only_asks_is_answered(line: str) -> None:
    assert qemu_lists.lists(read_options(line.split())) is not None


def test_vmrun_qemu_is_a_command_of_vmrun_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vmrun", "qemu", "-foo"], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (1, "vmrun-qemu: -foo: invalid option\n")


# --- what the process does ------------------------------------------------------------------------------------


class Started:
    """vmrun-qemu with a QMP socket; `qmp` is connected and past its negotiation."""

    def __init__(self, directory: pathlib.Path, *args: str, **more: Any) -> None:
        self.path = str(directory / "qmp")
        command = [*OURS, *args, "-qmp", f"unix:{self.path},server=on,wait=off"]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env, text=True, **more
        )
        end = time.monotonic() + 60
        self.qmp = socket.socket(socket.AF_UNIX)
        self.qmp.settimeout(60)
        while True:
            try:
                self.qmp.connect(self.path)
                break
            except OSError:
                assert time.monotonic() < end and self.process.poll() is None
                time.sleep(0.02)
        self.lines = self.qmp.makefile("r")
        assert "QMP" in json.loads(self.lines.readline())
        self.ask("qmp_capabilities")

    def ask(self, name: str, **arguments: Any) -> Any:
        request = {"execute": name, **({"arguments": arguments} if arguments else {})}
        self.qmp.sendall(json.dumps(request).encode())
        while True:
            answer = json.loads(self.lines.readline())
            if "event" not in answer:
                return answer

    def events(self) -> list[dict[str, Any]]:
        """All until the end of the connection."""
        return [message for message in map(json.loads, self.lines) if "event" in message]

    def close(self) -> None:
        self.qmp.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(tmp_path: pathlib.Path) -> Iterator[Any]:
    found: list[Started] = []

    def begin(*args: str, **more: Any) -> Started:
        found.append(Started(tmp_path, *args, **more))
        return found[-1]

    yield begin
    for one in found:
        one.close()


def test_sigterm_is_told_to_clients_and_ends_with_0(start: Any) -> None:
    one = start(*QUIET)
    one.process.send_signal(signal.SIGTERM)
    last = one.events()[-1]
    assert (last["event"], last["data"]) == ("SHUTDOWN", {"guest": False, "reason": "host-signal"})
    assert one.process.wait(30) == 0
    assert "terminating on signal 15" in one.process.stderr.read()


def test_sigterm_ends_a_machine_that_waits_for_its_console_s_client(tmp_path: pathlib.Path) -> None:
    command = [*OURS, *QUIET, "-serial", f"unix:{tmp_path}/s,server"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    assert f"QEMU waiting for connection on: {tmp_path}/s,server=on" in process.stderr.readline()
    process.terminate()
    try:
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_machine_without_a_name_has_none(start: Any) -> None:
    assert start(*QUIET).ask("query-name") == {"return": {}}


def test_a_name_with_blanks_is_told_as_it_is(start: Any) -> None:
    assert start(*QUIET, "-name", "my little machine").ask("query-name") == {"return": {"name": "my little machine"}}


def test_a_chardev_that_nobody_uses_is_open_all_the_same(start: Any, tmp_path: pathlib.Path) -> None:
    one = start(*QUIET, "-chardev", f"socket,id=spare,path={tmp_path}/spare,server=on,wait=off")
    assert os.path.exists(tmp_path / "spare")
    assert {row["label"] for row in one.ask("query-chardev")["return"]} >= {"spare"}


def test_a_serial_port_on_an_inherited_descriptor(start: Any) -> None:
    ours, theirs = socket.socketpair()
    number = theirs.fileno()
    one = start(*QUIET, "-chardev", f"socket,id=c,fd={number}", "-serial", "chardev:c", pass_fds=[number])
    theirs.close()
    one.ask("human-monitor-command", **{"command-line": "o /b 0x3f8 0x41"})
    ours.settimeout(30)
    assert ours.recv(1) == b"A"
    ours.close()


def test_a_pty_is_told_on_standard_output_and_to_clients(start: Any) -> None:
    one = start(*QUIET, "-serial", "pty", stdout=subprocess.PIPE)
    said = re.fullmatch(r"char device redirected to (/dev/pts/\d+) \(label serial0\)\n", one.process.stdout.readline())
    assert said
    assert f"pty:{said[1]}" in [row["filename"] for row in one.ask("query-chardev")["return"]]


def test_pretty_qmp_has_a_line_for_each_member() -> None:
    text = '{"execute": "qmp_capabilities"}{"execute": "quit"}'
    done = subprocess.run(
        [*OURS, *QUIET, "-qmp-pretty", "stdio"], input=text, capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert '    "QMP": {' in done.stdout.splitlines()


def test_ctrl_a_c_turns_to_the_monitor_and_back(tmp_path: pathlib.Path) -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        os.execv(OURS[0], [*OURS, *QUIET[:3], "-nographic", "-S", "-serial", "mon:stdio"])
    try:
        for typed, shown in ((b"\x01c", b"(qemu) "), (b"info status\r", b"(prelaunch)"), (b"quit\r", b"")):
            os.write(terminal, typed)
            text, end = b"", time.monotonic() + 60
            while shown not in text and time.monotonic() < end:
                if select.select((terminal,), (), (), 0.1)[0]:
                    text += os.read(terminal, 4096)
            assert shown in text
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
        process = 0
    finally:
        if process:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        os.close(terminal)


def test_a_fifth_serial_port_is_nobodys() -> None:
    found = wanted("-nodefaults " + "-serial null " * 5)
    assert [device["driver"] for device in found.file["devices"]] == ["isa-serial"] * 4
    assert "4 serial ports" in found.warnings()[0]


def test_a_fourth_parallel_port_is_refused_as_qemu_does() -> None:
    with pytest.raises(LineError, match="too many parallel ports"):
        wanted("-nodefaults " + "-parallel null " * 4)


def test_a_default_interrupt_that_the_board_has_too_is_taken_with_a_word() -> None:
    """ne2k_isa's 9 is the power management's; QEMU takes it."""
    found = wanted("-nodefaults -device ne2k_isa")
    _, warnings = found.resolved()
    assert any("IRQ 9 by default" in warning for warning in warnings)
    assert "both have IRQ 9" in refused("-nodefaults -device ne2k_isa,irq=9")
