"""vmrun.Machine and vmrun.AsyncMachine: machines as a program has them."""

from __future__ import annotations

import asyncio
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

import vmrun
from vmrun.errors import MonitorError, VmrunError
from vmrun.monitor import runtime
from vmrun.screen import ScreenTimeout


def machine(tmp_path: pathlib.Path, code: str, **keys: Any) -> dict[str, Any]:
    """A machine whose firmware is the code given, in hex, at the reset vector's target."""
    image = bytearray(b"\xf4" * 0x10000)
    body = bytes.fromhex(code)
    image[0 : len(body)] = body
    image[0xFFF0:0xFFF5] = bytes.fromhex("ea000000f0")  # jmp f000:0000
    (tmp_path / "bios.bin").write_bytes(image)
    document: dict[str, Any] = {
        "schema": "vmrun/machine/1",
        "name": "handled",
        "machine": "pc-i440fx-2.0",
        "accel": "soft",
        "memory": "16MiB",
        "serial": "stdio",
        "firmware": {"bios": str(tmp_path / "bios.bin")},
        "devices": [{"driver": "isa-debug-exit", "iobase": 0x501, "iosize": 2}],
    }
    return {**document, **keys}


# prints "login: ", then reads a byte, prints it plus one, for ever; on 'q' it writes to port 501h
LOGIN = (
    "0e1f"  # push cs; pop ds
    "be4000"  # mov si, 40h
    "baf803"  # mov dx, 3f8h
    "ac" "84c0" "7403" "ee" "ebf8"  # lodsb; test al, al; jz; out dx, al; jmp
    "bafd03" "ec" "a801" "74fb"  # mov dx, 3fdh; in al, dx; test al, 1; jz
    "baf803" "ec" "3c71" "7404"  # mov dx, 3f8h; in al, dx; cmp al, 'q'; jz
    "40" "ee" "ebec"  # inc ax; out dx, al; jmp
    "ba0105" "b003" "ee" "f4"  # mov dx, 501h; mov al, 3; out dx, al; hlt
).ljust(128, "0") + b"login: \0".hex()  # fmt: skip
CRASH = "2e0f011e4000" "0f0b".ljust(116, "0") + "0" * 16  # lidt cs:[40h], which is zeros; ud2


@pytest.fixture(autouse=True)
def own_directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))


def test_a_console_is_expected_and_typed_on(tmp_path: pathlib.Path) -> None:
    with vmrun.Machine.start(machine(tmp_path, LOGIN)) as lab:
        assert lab.expect(["nothing", "login: "]) == 1
        lab.send("ab")
        lab.expect("b(c)")
        assert lab.before == "" and lab.match is not None and lab.match[1] == "c"
        assert lab.status() == "running"
        lab.send(b"\x01")  # the terminal's escape goes through
        lab.expect(b"\x02")


def test_the_end_has_a_reason_and_a_code(tmp_path: pathlib.Path) -> None:
    with vmrun.Machine.start(machine(tmp_path, LOGIN), options=["--pass-exit-code"]) as lab:
        lab.expect("login: ")
        lab.send("q")
        ended = lab.wait(30)
        assert ended.code == 7 and ended.reason == "failed"
    with vmrun.Machine.start(machine(tmp_path, LOGIN)) as lab:
        assert lab.quit().reason == "quit"


def test_it_is_held_and_goes_on_and_is_reset(tmp_path: pathlib.Path) -> None:
    with vmrun.Machine.start(machine(tmp_path, LOGIN)) as lab:
        lab.expect("login: ")
        lab.pause()
        assert lab.status() == "paused"
        lab.resume()
        lab.reset()
        lab.expect("login: ")
        assert lab.wait_event("RESET")["data"]["reason"] == "host-qmp-system-reset"


@pytest.mark.parametrize(
    ("code", "how", "reason"),
    [
        (LOGIN, {"timeout": 0.3}, "deadline"),
        (LOGIN, {"timeout": 30, "silence": 0.3}, "silence"),
        (CRASH, {"timeout": 60}, "triple-fault"),
    ],
)
def test_a_wait_in_vain_says_why(tmp_path: pathlib.Path, code: str, how: dict[str, Any], reason: str) -> None:
    with vmrun.Machine.start(machine(tmp_path, code)) as lab, pytest.raises(vmrun.WaitFailed) as told:
        lab.expect("never", **how)
    assert told.value.reason == reason
    assert "waited in vain for 'never'" in str(told.value)


def test_a_wait_for_a_guest_that_is_off_says_so(tmp_path: pathlib.Path) -> None:
    with vmrun.Machine.start(machine(tmp_path, LOGIN)) as lab:
        lab.expect("login: ")
        lab.send("q")
        with pytest.raises(vmrun.WaitFailed) as told:
            lab.expect("never")
        assert told.value.reason == "off"


def test_what_keeps_a_machine_from_starting_is_said(tmp_path: pathlib.Path) -> None:
    with pytest.raises(VmrunError, match="there is no machine type 'nothing'|nothing"):
        vmrun.Machine.start({"schema": "vmrun/machine/1", "machine": "nothing"})


def test_a_command_line_of_qemu_s_is_started(tmp_path: pathlib.Path) -> None:
    machine(tmp_path, LOGIN)
    words = ["-machine", "pc-i440fx-2.0", "-m", "16", "-nodefaults", "-display", "none", "-serial", "stdio"]
    with vmrun.Machine.start(command_line=[*words, "-bios", str(tmp_path / "bios.bin")]) as lab:
        lab.expect("login: ")
        assert lab.qmp("query-version")["qemu"]["major"] == 7


def test_one_that_runs_is_taken_by_its_name(tmp_path: pathlib.Path) -> None:
    with vmrun.Machine.start(machine(tmp_path, LOGIN)) as lab:
        with vmrun.Machine.attach("handled") as same:
            assert same.pid == lab.pid and same.status() == "running"
        assert lab.status() == "running"
    with pytest.raises(VmrunError, match="no machine 'handled' runs"):
        vmrun.Machine.attach("handled")


def test_errors_of_commands_are_the_monitor_s_words(tmp_path: pathlib.Path) -> None:
    words = "The command nothing has not been found"
    with vmrun.Machine.start(machine(tmp_path, LOGIN)) as lab, pytest.raises(MonitorError, match=words):
        lab.qmp("nothing")


def test_asyncio_has_the_same(tmp_path: pathlib.Path) -> None:
    async def both() -> None:
        one = await vmrun.AsyncMachine.start(machine(tmp_path, LOGIN, name="one"))
        async with one, await vmrun.AsyncMachine.start(machine(tmp_path, LOGIN, name="two")) as two:
            await asyncio.gather(one.expect("login: "), two.expect("login: "))
            await asyncio.gather(one.send("a"), two.send("c"))
            await asyncio.gather(one.expect("b"), two.expect("d"))
            assert (await two.quit()).reason == "quit"
            with pytest.raises(vmrun.WaitFailed):
                await one.expect("never", timeout=0.2)

    asyncio.run(both())


def test_asyncio_reads_screens_and_waits_for_them(tmp_path: pathlib.Path) -> None:
    async def look() -> None:
        keys = {"machine": "pc-i440fx-7.2", "accel": "soft", "memory": "32MiB", "display": "std", "serial": "null"}
        document = {"schema": "vmrun/machine/1", "name": "seen", **keys}
        async with await vmrun.AsyncMachine.start(document) as lab:
            found, status = await asyncio.gather(lab.screen.wait_for("No bootable device."), lab.status())
            assert found[0] == "No bootable device." and status == "running"
            assert "SeaBIOS" in await lab.screen.text()
            picture = await lab.screen.picture()
            assert (picture.width, picture.height) == (720, 400)
            await lab.screen.save(str(tmp_path / "screen.png"))
            await lab.screen.wait_for_image(str(tmp_path / "screen.png"), tolerance=0.01)
            assert "SeaBIOS" in (await lab.screen.wait_still(0.2)).text
            with pytest.raises(ScreenTimeout, match="never"):
                await lab.screen.wait_for("never", 0.2)
            waiting = asyncio.create_task(lab.screen.wait_for("never", 3600))
            await asyncio.sleep(0.3)
            waiting.cancel()  # its thread ends with it, or asyncio.run() would wait for it
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(asyncio.wait_for(look(), 120))


def test_nothing_is_left_of_ten_machines_in_turn(tmp_path: pathlib.Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with vmrun.Machine.start(machine(tmp_path, LOGIN)) as lab:
            lab.expect("login: ")
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(tmp_path / "run" / "vmrun") == []


def test_the_module_is_not_imported_for_a_start() -> None:
    script = "import sys, vmrun.cli.up, vmrun.cli.qemu; sys.exit('vmrun.handle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

def test_what_an_ended_machine_left_is_cleared_away(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vmrun.cli.main import main
    from vmrun.monitor import runtime

    with vmrun.Machine.start(machine(tmp_path, LOGIN)) as lab:
        where = runtime.directory()
        gone = subprocess.Popen(["true"])
        gone.wait()
        for name in (f"old.{gone.pid}.qmp", f"old.{gone.pid}.log", f"a.b.{gone.pid}.serial0", "somebody's"):
            pathlib.Path(where, name).write_bytes(b"")
        assert main(["gc"]) == 0
        assert sorted(os.listdir(where)) == sorted(["somebody's", os.path.basename(lab.core.path)])
        os.unlink(os.path.join(where, "somebody's"))


def test_kill_ends_a_machine_whose_guest_hears_nothing(tmp_path: pathlib.Path) -> None:
    from vmrun.cli.main import main

    with vmrun.Machine.start(machine(tmp_path, LOGIN)) as lab:
        assert main(["kill", "handled"]) == 0
        assert lab.wait(10).reason == "quit"


@pytest.mark.long
def test_nothing_is_left_of_a_hundred_machines_and_ten_run_at_once(tmp_path: pathlib.Path) -> None:
    def memory() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    gone = len(os.listdir("/proc/self/fd"))
    for n in range(100):
        with vmrun.Machine.start(machine(tmp_path, LOGIN)) as lab:
            lab.expect("login: ")
            assert [one.pid for one in runtime.running()] == [lab.pid]
            assert lab.quit().reason == "quit"
        if n == 9:
            before = memory()
    assert len(os.listdir("/proc/self/fd")) == gone
    assert os.listdir(tmp_path / "run" / "vmrun") == []
    assert memory() - before < 4 << 20
    many = [vmrun.Machine.start(machine(tmp_path, LOGIN, name=f"lab{n}")) for n in range(10)]
    try:
        for lab in many:
            lab.expect("login: ")
        assert len(runtime.running()) == 10
    finally:
        for lab in many:
            lab.close()
