"""vmrun ps, stop and monitor with a machine that runs."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from vmrun.monitor.client import QmpClient

ROOT = pathlib.Path(__file__).parents[3]


class Host:
    """A user's runtime directory and what runs in it."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.env = {**os.environ, "XDG_RUNTIME_DIR": str(directory), "PYTHONPATH": str(ROOT)}
        self.children: list[subprocess.Popen[bytes]] = []

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vmrun", *words]
        return subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=60)

    def up(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        file = self.directory / f"{name}.json"
        file.write_text(json.dumps({"schema": "vmrun/machine/1", "machine": "rhel6.3.0", "memory": "16MiB"}))
        command = [sys.executable, "-m", "vmrun", "up", "--accel", "qtest", *words, str(file)]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        child = subprocess.Popen(command, env=self.env, cwd=ROOT, **quiet)  # type: ignore[call-overload]
        self.children.append(child)
        end = time.monotonic() + 60
        while not self.answers(self.directory / "vmrun" / f"{name}.{child.pid}.qmp"):
            assert child.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        return child

    @staticmethod
    def answers(path: pathlib.Path) -> bool:
        """A socket that is there does not listen yet, for a moment."""
        with socket.socket(socket.AF_UNIX) as one:
            return one.connect_ex(str(path)) == 0


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    for child in host.children:
        child.kill()
        child.wait()


def test_ps_lists_what_runs(host: Host) -> None:
    assert host.run("ps", "--json").stdout == "[]\n"
    child = host.up("lab", "--paused")
    (row,) = json.loads(host.run("ps", "--json").stdout)
    assert (row["name"], row["pid"], row["status"], row["machine"]) == ("lab", child.pid, "prelaunch", "rhel6.3.0")


def test_the_directory_is_the_user_s_alone(host: Host) -> None:
    host.up("lab")
    assert (host.directory / "vmrun").stat().st_mode & 0o777 == 0o700
    (host.directory / "vmrun").chmod(0o755)
    done = host.run("ps")
    assert done.returncode == 3 and "only this user" in done.stderr


def test_stop_force_ends_a_machine_and_its_socket(host: Host) -> None:
    child = host.up("lab")
    assert host.run("stop", "--force", "lab").returncode == 0
    assert child.wait(30) == 0
    assert list((host.directory / "vmrun").iterdir()) == []


def test_stop_gives_up_in_time_when_the_guest_does_not_listen(host: Host) -> None:
    host.up("lab")
    done = host.run("stop", "--timeout", "0.2", "lab")
    assert done.returncode == 4 and "still runs" in done.stderr


def test_monitor_runs_a_line_and_tells_a_failure(host: Host) -> None:
    host.up("lab", "--paused")
    assert host.run("monitor", "lab", "info", "status").stdout == "VM status: paused (prelaunch)\n"
    assert host.run("monitor", "lab", "nonsense").returncode == 1
    assert json.loads(host.run("monitor", "--qmp", "lab", "query-name").stdout) == {"name": "lab"}
    assert host.run("monitor", "--qmp", "lab", "qom-get", '{"path": "/x", "property": "y"}').returncode == 1


def test_two_of_a_name_are_told_apart_by_their_process(host: Host) -> None:
    first, _ = host.up("lab"), host.up("lab")
    done = host.run("stop", "--force", "lab")
    assert done.returncode == 3 and str(first.pid) in done.stderr
    assert host.run("stop", "--force", str(first.pid)).returncode == 0


def test_what_does_not_run_is_said_with_what_does(host: Host) -> None:
    host.up("lab")
    done = host.run("monitor", "lob", "stop")
    assert done.returncode == 3 and "did you mean 'lab'?" in done.stderr


def test_a_socket_of_a_dead_machine_is_cleared_away(host: Host) -> None:
    child = host.up("lab")
    child.kill()
    child.wait()
    assert host.run("ps", "--json").stdout == "[]\n"
    assert list((host.directory / "vmrun").iterdir()) == []


def test_a_console_on_a_socket_is_talked_to(host: Host) -> None:
    path = host.directory / "console"
    host.up("lab", "--set", f"serial=unix:{path},server,nowait", "--paused")
    command = [sys.executable, "-m", "vmrun", "console", "lab"]
    process = subprocess.Popen(
        command, env=host.env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None and b"Ctrl-]" in process.stderr.readline()
    assert host.run("monitor", "lab", "o /b 0x3f8 0x41").returncode == 0
    assert process.stdout is not None and process.stdout.read(1) == b"A"
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_machine_without_a_console_says_how_to_get_one(host: Host) -> None:
    host.up("lab")
    done = host.run("console", "lab")
    assert done.returncode == 3 and "serial: pty" in done.stderr


def test_a_screenshot_is_a_picture(host: Host) -> None:
    host.up("lab", "--set", "display=std")
    file = host.directory / "shot.png"
    assert host.run("screenshot", "lab", str(file)).stdout == f"{file}\n"
    assert file.read_bytes()[:4] == b"\x89PNG"
    assert host.run("monitor", "lab", f"screendump {host.directory}/shot.ppm").returncode == 0
    assert (host.directory / "shot.ppm").read_bytes()[:2] == b"P6"


def test_a_wait_in_vain_says_why_and_leaves_a_picture(host: Host) -> None:
    host.up("lab", "--set", "display=std")
    done = host.run("wait", "lab", "login:", "--timeout", "0.3", "--save", str(host.directory))
    assert done.returncode == 1
    assert "waited in vain for 'login:': 0.3 s are over" in done.stderr
    assert (host.directory / "lab-screen.png").read_bytes()[:4] == b"\x89PNG"


def test_a_wait_for_a_picture_ends_when_the_screen_looks_like_it(host: Host) -> None:
    host.up("lab", "--set", "display=std")
    file = str(host.directory / "shot.png")
    assert host.run("screenshot", "lab", file).returncode == 0
    assert host.run("wait", "lab", "--image", file, "--timeout", "20").returncode == 0
    assert host.run("wait", "lab", "--still", "0.3").returncode == 0
    assert host.run("wait", "lab", "login:", "--gone").returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["--image", "/nowhere.png"], 3, "/nowhere.png: No such file or directory"),
        (["--image", __file__], 3, "not a PNG picture"),
        (["--regex", "("], 2, "no regular expression"),
        (["--image", __file__, "--region", "1,2,3"], 2, "--region is X,Y,WIDTH,HEIGHT"),
        ([], 2, "wait for what? One of TEXT, --image and --still"),
    ],
)
def test_what_cannot_be_waited_for_is_told(host: Host, words: list[str], code: int, why: str) -> None:
    host.up("lab", "--set", "display=std")
    done = host.run("wait", "lab", *words)
    assert (done.returncode, why in done.stderr) == (code, True), done.stderr


def test_without_a_display_there_is_no_screenshot(host: Host) -> None:
    host.up("lab")
    done = host.run("screenshot", "lab", str(host.directory / "x.png"))
    assert done.returncode == 3 and "no console to take a screendump from" in done.stderr


def test_stop_says_what_ends_a_guest_that_does_not_listen(host: Host) -> None:
    host.up("lab")
    done = host.run("stop", "--timeout", "5.5", "lab")
    assert "lab has not shut down yet; `vmrun stop --force lab` ends it at once" in done.stderr
    assert (done.returncode, "lab still runs after 5.5 seconds" in done.stderr) == (4, True)


def test_a_machine_that_does_not_answer_is_ended_by_force(host: Host) -> None:
    child = host.up("lab")
    os.kill(child.pid, signal.SIGSTOP)
    done = host.run("stop", "--force", "lab")
    assert done.returncode == 0, done.stderr
    assert "does not answer; SIGTERM" in done.stderr and "SIGKILL" in done.stderr
    assert child.wait(30) == -signal.SIGKILL


def test_a_signal_right_after_the_end_changes_nothing(host: Host) -> None:
    for _ in range(5):
        child = host.up("lab")
        (path,) = (host.directory / "vmrun").glob("lab.*.qmp")
        with QmpClient(str(path)) as qmp:
            qmp.execute("quit")
            while child.poll() is None:
                child.terminate()
        assert child.returncode == 0


def test_a_machine_is_paused_resumed_and_reset(host: Host) -> None:
    host.up("lab")
    assert host.run("pause", "lab").returncode == 0
    assert host.run("monitor", "lab", "info", "status").stdout == "VM status: paused\n"
    assert host.run("reset", "lab").returncode == 0
    assert host.run("resume", "lab").returncode == 0
    assert host.run("monitor", "lab", "info", "status").stdout == "VM status: running\n"
    assert host.run("pause", "lob").returncode == 3


def test_a_machine_in_the_background_is_attached_to_and_read(host: Host) -> None:
    file = host.directory / "back.json"
    content = {"schema": "vmrun/machine/1", "machine": "rhel6.3.0", "memory": "16MiB", "serial": "stdio"}
    file.write_text(json.dumps(content))
    done = host.run("up", "--accel", "qtest", "--detach", str(file))
    assert done.returncode == 0, done.stderr
    assert "back runs in the background" in done.stdout
    (row,) = json.loads(host.run("ps", "--json").stdout)
    assert row["status"] == "running"
    assert host.run("monitor", "back", "o /b 0x3f8 0x41").returncode == 0
    command = [sys.executable, "-m", "vmrun", "attach", "back"]
    process = subprocess.Popen(
        command, env=host.env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None and b"Ctrl-]" in process.stderr.readline()
    assert host.run("monitor", "back", "o /b 0x3f8 0x42").returncode == 0
    assert process.stdout is not None and process.stdout.read(1) == b"B"
    process.communicate(timeout=60)
    log = host.run("logs", "back").stdout
    assert "AB" in log and "vmrun: back: rhel6.3.0" in log
    assert host.run("stop", "--force", "back").returncode == 0
    assert "AB" in host.run("logs", "--follow", "back").stdout  # after its end, too
    assert [path.name for path in (host.directory / "vmrun").iterdir() if path.suffix != ".log"] == []


def test_what_keeps_a_machine_from_the_background_is_said(host: Host) -> None:
    file = host.directory / "back.json"
    file.write_text(json.dumps({"schema": "vmrun/machine/1", "machine": "rhel6.3.0", "kernel": "no/such"}))
    done = host.run("up", "--accel", "qtest", "--detach", str(file))
    assert done.returncode not in (0, None) and "no/such" in done.stderr
    assert host.run("ps", "--json").stdout == "[]\n"


def test_a_screen_needs_a_display(host: Host) -> None:
    file = host.directory / "lab.json"
    file.write_text(json.dumps({"schema": "vmrun/machine/1", "machine": "rhel6.3.0", "memory": "16MiB"}))
    done = host.run("up", "--accel", "qtest", "--screen", str(file))
    assert done.returncode == 3 and "no display for --screen" in done.stderr


def test_a_screen_that_is_not_on_a_terminal_is_printed_in_the_end(host: Host) -> None:
    file = host.directory / "lab.json"
    content = {"schema": "vmrun/machine/1", "machine": "rhel6.3.0", "memory": "16MiB", "display": "std"}
    file.write_text(json.dumps(content))
    done = host.run("up", "--accel", "qtest", "--screen", "--timeout", "0.2", str(file))
    assert done.returncode == 4 and done.stdout == "[blank]\n"


def test_what_was_left_is_known_although_another_process_has_the_number(host: Host) -> None:
    where = host.directory / "vmrun"
    where.mkdir(mode=0o700)
    with subprocess.Popen(["sleep", "60"]) as other:
        made = [where / f"old.{other.pid}{suffix}" for suffix in (".qmp", ".log", ".com1")]
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(made[0]))
        for path in made:
            path.touch()
            os.utime(path, (1e9, 1e9))
        new = where / f"new.{other.pid}.log"  # as if it were one of ours on its way
        new.touch()
        assert host.run("ps", "--json").stdout == "[]\n" and not made[0].exists()
        assert host.run("gc").returncode == 0
        other.kill()
    assert list(where.iterdir()) == [new]


def test_a_machine_that_answers_is_kept_although_the_clock_was_set(host: Host) -> None:
    child = host.up("lab")
    (path,) = (host.directory / "vmrun").glob("*.qmp")
    os.utime(path, (1e9, 1e9))
    (row,) = json.loads(host.run("ps", "--json").stdout)
    assert row["pid"] == child.pid and path.exists()
