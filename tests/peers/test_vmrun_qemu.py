"""vmrun-qemu beside qemu-system-x86_64: messages, exit codes, lists, signals."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from tests.peers.oracle import QEMU, needs_qemu, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
OURS = [sys.executable, str(ROOT / "bin" / "vmrun-qemu")]
pytestmark = pytest.mark.peer


def run(command: list[str], *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *args], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, env=env
    )


WRONG = [
    "-foo",
    "-m",
    "-m 4x",
    "-m 1,foo=2",
    "-machine foo",
    "-cpu foo",
    "-device foo",
    "-device isa-serial,foo=1",
    "-device ide-hd",
    "-device isa-serial,id=a -device isa-serial,id=a",
    "-device foo,help",
    "-drive if=none,id=x,file=/no/such/place",
    "-drive if=foo",
    "-chardev foo,id=x",
    "-mon chardev=nobody",
    "-qmp unix:/no/such/place/x,server=on,wait=off",
    "-accel foo",
    "-accel",
    "-name",
    "-uuid zz",
    "-boot order=q",
    "-vga foo",
    "-display foo",
    "-pidfile /no/such/place/x",
    "/no/such/place",
]


@needs_qemu
@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_said_as_qemu_says_it(line: str) -> None:
    args = ["-display", "none", "-nodefaults", "-S", *line.split()]
    ours, theirs = run(OURS, *args), run([QEMU or ""], *args)
    assert ours.returncode == theirs.returncode
    expected = theirs.stderr.replace("qemu-system-x86_64:", "vmrun-qemu:")
    # QEMU does not name the option every time
    said = ours.stderr.splitlines()[0].replace(f"{line}: ", "", 0 if f"{line}: " in expected else 1)
    assert said == expected.splitlines()[0]
    assert ours.stdout == ""


STARTS = [
    "-pflash FLASH",
    "-drive if=pflash,format=raw,unit=0,file=FLASH,readonly=on",
    "-M pc,pflash0=f -blockdev driver=file,filename=FLASH,node-name=f",
    "-vnc :40,to=9000,websocket=on,lossy=on,sasl=off,ipv4=on",
    "-d int,guest_errors -D LOG",
]


@needs_qemu
@pytest.mark.parametrize("line", STARTS)
def test_what_starts_there_starts_here(line: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "flash").write_bytes(bytes(1 << 18))
    words = line.replace("FLASH", str(tmp_path / "flash")).replace("LOG", str(tmp_path / "log")).split()
    words += ["-accel", "tcg", "-S", "-qmp", "stdio", *(["-display", "none"] if "-vnc" not in words else [])]
    said = '{"execute": "qmp_capabilities"} {"execute": "quit"}'
    for program in ([QEMU], OURS):
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([*program, *words], input=said, capture_output=True, text=True, timeout=60, env=env)
        assert done.returncode == 0, done.stderr


def test_who_it_runs_as_is_changed_for_good_or_told_why_not(tmp_path: pathlib.Path) -> None:
    stop = '{"execute": "qmp_capabilities"} {"execute": "quit"}'
    words = ["-runas", "65534:65534", "-S", "-display", "none", "-accel", "tcg", "-qmp", "stdio", "-nodefaults"]
    command = [sys.executable, "-c", f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from vmrun.cli import qemu
code = qemu.main(sys.argv[1:], "vmrun-qemu")
print(os.getresuid(), os.getgroups(), file=sys.stderr)
os._exit(code)
"""]  # fmt: skip
    done = subprocess.run([*command, *words], input=stop, capture_output=True, text=True, timeout=60)
    if os.geteuid():
        assert "-runas 65534:65534: Operation not permitted" in done.stderr
    elif done.returncode:
        assert "-runas 65534:65534: this user may not read the modules in " in done.stderr
    else:
        assert done.stderr.splitlines()[-1] == "(65534, 65534, 65534) [65534]"
    nobody = subprocess.run([*command, "-runas", "no such user"], capture_output=True, text=True, timeout=60)
    assert 'User "no such user" does not exist' in nobody.stderr or os.geteuid()


def test_the_version_is_told_in_qemu_s_form() -> None:
    done = run(OURS, "-version")
    assert re.match(r"QEMU emulator version \d+\.\d+\.\d+ \(", done.stdout)
    assert done.returncode == 0


DEVICE_LINE = re.compile(r'name "[^"]+"(, bus [\w-]+)?(, alias "[^"]+")?(, desc "[^"]+")?')


@pytest.mark.parametrize("program", ["vmrun", pytest.param("qemu", marks=needs_qemu)])
def test_the_list_of_devices_has_one_form(program: str) -> None:
    done = run(OURS if program == "vmrun" else [QEMU or ""], "-device", "help")
    assert done.returncode == 0
    for line in done.stdout.splitlines():
        assert not line or line.endswith(" devices:") or DEVICE_LINE.fullmatch(line), line


@needs_qemu
def test_devices_stand_where_qemu_lists_them_and_on_its_buses() -> None:
    def found(text: str) -> dict[str, tuple[str, str]]:
        category, rows = "", {}
        for line in text.splitlines():
            if line.endswith(" devices:"):
                category = line
            elif line:
                name, bus = re.match(r'name "([^"]+)"(?:, bus ([\w-]+))?', line).groups()  # type: ignore[union-attr]
                rows[name] = category, bus
        return rows

    ours, theirs = found(run(OURS, "-device", "help").stdout), found(run([QEMU or ""], "-device", "help").stdout)
    for name in ("ide-drive", "scsi-disk"):  # RHEL 6's names
        ours.pop(name)
    assert ours == {name: theirs.get(name) for name in ours}


@needs_qemu
@pytest.mark.parametrize("driver", ["isa-serial", "isa-debugcon", "isa-parallel"])
def test_properties_of_a_device_are_of_qemu_s_type(driver: str) -> None:
    def found(text: str) -> dict[str, str]:
        return dict(re.findall(r"^  ([\w-]+)=<([^>]+)>", text, re.M))

    ours = found(run(OURS, "-device", f"{driver},help").stdout)
    theirs = found(run([QEMU or ""], "-device", f"{driver},help").stdout)
    assert ours and {name: theirs.get(name) for name in ours} == ours


@pytest.mark.parametrize("what", ["machine", "cpu", "accel", "chardev"])
def test_help_is_a_list_and_no_error(what: str) -> None:
    done = run(OURS, f"-{what}", "help")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_a_clean_end(number: int, tmp_path: pathlib.Path) -> None:
    pidfile = tmp_path / "pid"
    args = ["-accel", "qtest", "-nodefaults", "-display", "none", "-pidfile", str(pidfile)]
    args += ["-qmp", f"unix:{tmp_path}/qmp,server=on,wait=off"]
    # a shell's background jobs are born with SIGINT ignored
    process = subprocess.Popen(
        [*OURS, *args],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    try:
        assert wait_for(lambda: (tmp_path / "qmp").exists(), 60)
        assert int(pidfile.read_text()) == process.pid
        process.send_signal(number)
        assert process.wait(30) == 0
        assert not pidfile.exists()
    finally:
        process.kill()


def test_a_daemon_leaves_when_it_is_up_and_goes_on(tmp_path: pathlib.Path) -> None:
    pidfile = tmp_path / "pid"
    args = ["-accel", "qtest", "-nodefaults", "-display", "none", "-daemonize", "-pidfile", str(pidfile)]
    done = run(OURS, *args, "-qmp", f"unix:{tmp_path}/qmp,server=on,wait=off")
    assert done.returncode == 0
    pid = int(pidfile.read_text())
    try:
        assert (tmp_path / "qmp").exists()
    finally:
        os.kill(pid, signal.SIGTERM)
    assert wait_for(lambda: not pidfile.exists(), 30)


def test_a_daemon_that_cannot_start_says_so_and_fails(tmp_path: pathlib.Path) -> None:
    done = run(OURS, "-daemonize", "-machine", "foo")
    assert done.returncode == 1
    assert "unsupported machine type" in done.stderr


def test_the_line_monitor_is_on_standard_input_when_asked_for() -> None:
    args = ["-accel", "qtest", "-S", "-nodefaults", "-display", "none", "-monitor", "stdio"]
    done = subprocess.run([*OURS, *args], input="info status\nquit\n", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "VM status: paused (prelaunch)" in done.stdout


def test_an_empty_machine_answers(tmp_path: pathlib.Path) -> None:
    text = '{"execute": "qmp_capabilities"}{"execute": "query-machines"}{"execute": "quit"}'
    done = subprocess.run(
        [*OURS, "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "rhel6.3.0" in done.stdout


NODES = "-object memory-backend-ram,id=a,size=32M -object memory-backend-ram,id=b,size=32M "
NODES += "-numa node,cpus=0,memdev=a -numa node,cpus=1,memdev=b"


@needs_qemu
@pytest.mark.parametrize("nodes", ["", NODES])
def test_nodes_of_memory_are_told_alike(nodes: str) -> None:
    line = '"human-monitor-command", "arguments": {"command-line": "info numa"}'
    asks = ['"qmp_capabilities"', '"query-cpus-fast"', line]
    text = "".join(f'{{"execute": {ask}}}\n' for ask in [*asks, '"quit"'])
    told = []
    for command in ([QEMU], OURS):
        words = ["-S", "-nodefaults", "-display", "none", "-m", "64", "-smp", "2", *nodes.split(), "-qmp", "stdio"]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([*command, *words], input=text, capture_output=True, text=True, timeout=60, env=env)
        answers = [json.loads(row)["return"] for row in done.stdout.splitlines() if '"return"' in row]
        told.append(([cpu["props"] for cpu in answers[1]], answers[2]))
    assert told[0] == told[1]
