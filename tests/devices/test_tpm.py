"""A TPM behind its two interfaces (TCG PC Client Platform TPM Profile), the same accesses on vmrun and on QEMU."""

from __future__ import annotations

import pathlib
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.devices.fromline import ours as own_machine
from tests.devices.fromline import tables
from tests.devices.fromline import theirs as qemus
from tests.peers.asl import Source, disassemble, needs_iasl, with_checksum
from tests.peers.oracle import QEMU
from vmrun.testing import QTest, QtestCommands, QtestProgram

BASE = 0xFED40000
ACCESS, INTERRUPTS, CAPABILITY, STATUS, FIFO, INTERFACE, VENDOR = 0, 8, 0x14, 0x18, 0x24, 0x30, 0xF00
GET_RANDOM = struct.pack(">HIIH", 0x8001, 12, 0x17B, 8)
ANSWER = struct.pack(">HIIH", 0x8001, 20, 0, 8) + b"12345678"
# order → (bytes of its argument, answer): capabilities, init, established, locality, reset of established, buffer size
ORDERS = {
    **{1: (0, b"\xff" * 8), 2: (4, bytes(4)), 4: (0, bytes(8)), 5: (4, bytes(4)), 11: (4, bytes(4))},
    17: (4, struct.pack(">IIII", 0, 4096, 0, 4096)),
}
SWTPM = shutil.which("swtpm")


class Program:
    """Stands where swtpm is: answers orders, and every command with ANSWER."""

    def __init__(self, path: str, answer: bytes = ANSWER) -> None:
        self.answer = answer
        self.commands: list[bytes] = []
        self.localities: list[int] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        orders, _ = self.listener.accept()
        data, fds, _, _ = socket.recv_fds(orders, 4, 1)
        assert int.from_bytes(data, "big") == 16
        orders.sendall(bytes(4))
        self.data = socket.socket(fileno=fds[0])
        threading.Thread(target=self._commands, daemon=True).start()
        while True:
            head = orders.recv(4)
            if len(head) < 4:
                return
            order = int.from_bytes(head, "big")
            size, answer = ORDERS.get(order, (0, bytes(4)))
            argument = orders.recv(size) if size else b""
            if order == 5:
                self.localities.append(argument[0])
            orders.sendall(answer)
            if order == 3:
                return

    def _commands(self) -> None:
        while True:
            try:
                command = self.data.recv(4096)
            except ConnectionResetError:  # the machine is killed when the test ends
                return
            if not command:
                return
            self.commands.append(command)
            first = len(self.commands) == 1  # the one by which it is asked whether it is a TPM 2
            self.data.sendall(struct.pack(">HII", 0x8001, 10, 0) if first else self.answer)


def machine(path: str, driver: str) -> QTest:
    return QTest(
        {
            "machine": "pc-i440fx-7.2",
            "memory": "64MiB",
            "chardevs": {"c": {"type": "socket", "path": path}},
            "objects": {"t": {"type": "tpm-emulator", "chardev": "c"}},
            "devices": [{"driver": driver, "id": "tpm", "tpmdev": "t"}],
        }
    )


@pytest.fixture
def program(tmp_path: pathlib.Path) -> Program:
    return Program(str(tmp_path / "tpm"))


@pytest.fixture
def tis(tmp_path: pathlib.Path, program: Program) -> Iterator[QTest]:
    with machine(str(tmp_path / "tpm"), "tpm-tis") as q:
        yield q


def until(q: QtestCommands, seen: Callable[[], bool]) -> bool:
    """Let the machine's loop run until it is so; False when it never is."""
    deadline = time.monotonic() + 60
    while not seen():
        if time.monotonic() > deadline:
            return False
        if isinstance(q, QTest):
            loop = q.machine.loop
            loop.call_later(0.01, loop.stop)
            loop.run()
    return True


def give_command(q: QtestCommands, locality: int = 0, command: bytes = GET_RANDOM) -> None:
    place = BASE + 0x1000 * locality
    q.writeb(place + ACCESS, 0x02)
    q.writel(place + STATUS, 0x40)
    for byte in command:
        q.writeb(place + FIFO, byte)
    q.writel(place + STATUS, 0x20)


def response(q: QtestCommands, locality: int = 0) -> bytes:
    place = BASE + 0x1000 * locality
    assert until(q, lambda: bool(q.readl(place + STATUS) & 0x10))
    found = b""
    while q.readl(place + STATUS) & 0x10:
        found += bytes([q.readb(place + FIFO)])
    return found


def test_a_command_goes_in_and_its_response_comes_out(tis: QTest, program: Program) -> None:
    give_command(tis)
    assert response(tis) == ANSWER
    assert program.commands[-1] == GET_RANDOM
    assert program.localities == [0]


def test_the_response_can_be_read_again(tis: QTest) -> None:
    give_command(tis)
    response(tis)
    tis.writel(BASE + STATUS, 0x02)
    assert response(tis) == ANSWER


def test_a_higher_locality_seizes_the_tpm(tis: QTest, program: Program) -> None:
    tis.writeb(BASE, 0x02)
    tis.writeb(BASE + 0x1000, 0x08)
    assert tis.readb(BASE) & 0x30 == 0x10
    assert tis.readb(BASE + 0x1000) & 0x30 == 0x20
    assert tis.readl(BASE + STATUS) == 0xFFFFFFFF
    tis.writeb(BASE, 0x10)
    assert tis.readb(BASE) & 0x10 == 0
    give_command(tis, 1)
    assert response(tis, 1) == ANSWER
    assert program.localities == [1]


def test_who_waits_gets_it_when_it_is_given_up(tis: QTest) -> None:
    tis.writeb(BASE, 0x02)
    tis.writeb(BASE + 0x2000, 0x02)
    assert tis.readb(BASE) & 0x04
    tis.writeb(BASE, 0x20)
    assert tis.readb(BASE + 0x2000) & 0x22 == 0x20


def test_nothing_goes_off_before_it_is_whole(tis: QTest, program: Program) -> None:
    give_command(tis, command=GET_RANDOM[:-1])
    assert tis.readl(BASE + STATUS) & 0x08
    for _ in range(5000):
        tis.writeb(BASE + FIFO, 0)
    assert len(tis.machine.devices["tpm"].buffer) == len(GET_RANDOM)
    assert len(program.commands) == 1


@pytest.mark.parametrize("answer", [b"\x80\x01\xff\xff\xff\xff\0\0\0\0", b"\x80\x01\0\0\0\0\0\0\0\0"])
def test_a_program_that_talks_nonsense_is_a_failing_tpm(answer: bytes, tmp_path: pathlib.Path) -> None:
    Program(str(tmp_path / "tpm"), answer)
    with machine(str(tmp_path / "tpm"), "tpm-tis") as q:
        for _ in range(2):
            give_command(q)
            assert response(q) == struct.pack(">HII", 0x8001, 10, 0x101)


def test_an_interrupt_tells_of_the_response(tis: QTest) -> None:
    tis.ask("irq_intercept_in ioapic")
    tis.writeb(BASE, 0x02)
    tis.writel(BASE + INTERRUPTS, 0x80000001)
    give_command(tis)
    assert until(tis, lambda: bool(tis.readl(BASE + STATUS) & 0x10))
    tis.readb(BASE)
    assert tis.irqs.get(5) == 1
    tis.writel(BASE + 0x10, 1)
    assert tis.irqs.get(5) == 0


def test_crb_runs_a_command_in_its_buffer(tmp_path: pathlib.Path, program: Program) -> None:
    with machine(str(tmp_path / "tpm"), "tpm-crb") as q:
        q.write(BASE + 0x80, GET_RANDOM)
        q.writel(BASE + 0x4C, 1)
        assert q.readl(BASE + 0x4C) == 0  # nobody has the locality
        q.writel(BASE + 0x08, 1)
        q.writel(BASE + 0x40, 1)
        q.writel(BASE + 0x4C, 1)
        q.write(BASE + 0x80, b"late")
        assert until(q, lambda: q.readl(BASE + 0x4C) == 0)
        assert q.read(BASE + 0x80, len(ANSWER)) == ANSWER
        assert program.commands[-1] == GET_RANDOM


# --- saved and restored -----------------------------------------------------------------------------------


def swtpm(directory: pathlib.Path, name: str) -> str:
    """The socket of a TPM that has just been made."""
    path, state = str(directory / name), directory / f"{name}-state"
    state.mkdir()
    command = [SWTPM or "", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--ctrl", f"type=unixio,path={path}"]
    process: Any = subprocess.Popen([*command, "--daemon", "--terminate"])
    assert process.wait(60) == 0
    return path


STARTUP, EXTEND = struct.pack(">HIIH", 0x8001, 12, 0x144, 0), bytes.fromhex(
    "8002 00000041 00000182 00000010 00000009 40000009 0000 00 0000 00000001 000b" + "5a" * 32
)
READ_PCR = bytes.fromhex("8001 00000014 0000017e 00000001 000b 03 000001")  # number 16


@pytest.mark.skipif(SWTPM is None, reason="swtpm is not installed")
def test_a_restored_machine_has_its_tpm_as_it_was(tmp_path: pathlib.Path) -> None:
    with machine(swtpm(tmp_path, "first"), "tpm-tis") as q:
        for command in (STARTUP, EXTEND):
            give_command(q, command=command)
            assert response(q)[6:10] == bytes(4), command.hex()
        q.writeb(0xFED45000, 0x42)  # a request to the firmware
        give_command(q, command=READ_PCR)
        before = response(q)
        q.writel(BASE + STATUS, 0x02)  # the response is there to be read again
        saved = q.machine.devices["tpm"].save()
    with machine(swtpm(tmp_path, "second"), "tpm-tis") as q:
        q.machine.devices["tpm"].load(saved)
        assert response(q) == before
        assert q.readb(0xFED45000) == 0x42
        give_command(q, command=READ_PCR)
        after = response(q)
        assert after[-32:] == before[-32:] != bytes(32)


def test_a_program_that_keeps_its_state_to_itself_is_said(tis: QTest, tmp_path: pathlib.Path) -> None:
    from vmrun.errors import StateError
    from vmrun.machine import snapshot

    tis.machine.pause()
    ORDERS[12] = (12, struct.pack(">IIII", 9, 0, 0, 0))
    with pytest.raises(StateError, match="CMD_GET_STATEBLOB: 0x9"):
        snapshot.save(tis.machine, str(tmp_path / "saved"))


def test_a_command_under_way_is_waited_for_by_whoever_saves(tis: QTest) -> None:
    from vmrun.errors import StateError

    give_command(tis)
    with pytest.raises(StateError, match="a moment later"):
        tis.machine.devices["tpm"].save()


# --- beside QEMU ----------------------------------------------------------------------------------------------


def walk(q: QtestCommands, driver: str) -> list[int]:
    """What the registers say on the way from power-on through a command."""
    if driver == "tpm-crb":
        found = [q.readl(BASE + at) for at in (0, 0x0C, 0x30, 0x34, 0x44, 0x4C, 0x58, 0x5C, 0x60, 0x64, 0x68, 0x6C)]
        for at, value in ((0x08, 1), (0x40, 1)):
            q.writel(BASE + at, value)
            found += [q.readl(BASE + at) for at in (0, 0x0C, 0x44)]
        return found
    places = [(n, at) for n in (0, 1, 4) for at in (ACCESS, 8, 0xC, 0x10, CAPABILITY, STATUS, INTERFACE, VENDOR, 0xF04)]
    found = [q.readl(BASE + 0x1000 * n + at) for n, at in places]
    for n, at, value in ((0, ACCESS, 2), (1, ACCESS, 2), (0, STATUS, 0x40), (2, ACCESS, 8), (2, ACCESS, 0x20)):
        q.writeb(BASE + 0x1000 * n + at, value)
        found += [q.readb(BASE + 0x1000 * n) for n in range(5)]
        found += [q.readl(BASE + 0x1000 * n + STATUS) for n in range(3)]
    q.writeb(BASE + 0x1000, 0x20)
    give_command(q)
    found += [int.from_bytes(response(q)[:12], "big")]
    q.writel(BASE + STATUS, 0x40)
    return [*found, q.readl(BASE + STATUS)]


@pytest.mark.peer
@pytest.mark.skipif(QEMU is None or SWTPM is None, reason="qemu-system-x86_64 or swtpm is not installed")
@pytest.mark.parametrize("driver", ["tpm-tis", "tpm-crb"])
def test_registers_say_what_qemus_say(driver: str, tmp_path: pathlib.Path) -> None:
    found = []
    for side in ("vmrun", "qemu"):
        path, state = str(tmp_path / side), tmp_path / f"{side}-state"
        state.mkdir()
        command = [SWTPM or "", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--ctrl", f"type=unixio,path={path}"]
        process: Any = subprocess.Popen([*command, "--daemon", "--terminate"])
        assert process.wait(60) == 0
        if side == "vmrun":
            with machine(path, driver) as q:
                found.append(walk(q, driver))
        else:
            line = [QEMU or "", "-M", "pc-i440fx-7.2", "-m", "64", "-accel", "tcg", "-S", "-nodefaults"]
            line += ["-display", "none"]
            line += ["-chardev", f"socket,id=c,path={path}", "-tpmdev", "emulator,id=t,chardev=c"]
            with QtestProgram([*line, "-device", f"{driver},tpmdev=t"]) as other:
                found.append(walk(other, driver))
    assert [(n, hex(a), hex(b)) for n, (a, b) in enumerate(zip(*found, strict=True)) if a != b] == []


@pytest.mark.peer
@needs_iasl
@pytest.mark.parametrize("device", ["tpm-tis,ppi=on", "tpm-crb,ppi=on", "tpm-tis,ppi=off"])
def test_physical_presence_has_qemus_names_and_answers(device: str, tmp_path: pathlib.Path) -> None:
    """The DSDT's names, and what _DSM returns under acpiexec, whose memory is all zeros but for what is written."""
    if QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    found = []
    for name, make in (("own", own_machine), ("qemu", qemus)):
        Program(str(tmp_path / name))
        words = ["-M", "pc-i440fx-7.2,smm=off", "-m", "64", "-chardev", f"socket,id=c,path={tmp_path / name}"]
        with make(*words, "-tpmdev", "emulator,id=t,chardev=c", "-device", f"{device},tpmdev=t") as q:
            found.append(dict(tables(q))["DSDT"])
    texts = [Source(disassemble(table, tmp_path, name)) for name, table in zip(("own", "qemu"), found, strict=True)]
    a, b = (source.names for source in texts)
    assert {key: (a.get(key), b.get(key)) for key in a | b if a.get(key) != b.get(key)} == {}
    (place,) = (name for name in a if name.endswith((".TPM", "\\_SB.TPM", "_SB.TPM")) and a[name].startswith("Device"))
    if "ppi=off" in device or shutil.which("acpiexec") is None:
        return
    uuids = [uuid.UUID(text).bytes_le for text in (
        "3dddfaa6-361b-4eb4-a424-8d10089d1653", "376054ed-cc13-4675-901c-4756d7f2d45d")]  # fmt: skip
    asks = [(which, revision, function, package) for which in uuids for revision in (1, 2) for function in range(10)
            for package in ("[5 6]", "[300 6]")]  # fmt: skip
    answers = []
    for name, table in zip(("own", "qemu"), found, strict=True):
        path = tmp_path / f"{name}.exec.aml"
        path.write_bytes(with_checksum(table))
        said = []
        for start in range(0, len(asks), 10):
            batch = ";".join(
                f"execute \\{place}._DSM ({' '.join(f'{byte:02X}' for byte in which)}) {revision} {function} {package}"
                for which, revision, function, package in asks[start : start + 10]
            )
            call = ["acpiexec", "-di", "-b", batch, str(path)]
            done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
            said += re.sub(r"0x[0-9a-f]{8,}", "ADDRESS", done.stdout).split("Evaluating ")[1:]
        answers.append([" ".join(answer.split("ACPI: No outstanding")[0].split()) for answer in said])
    assert len(answers[0]) == len(asks)
    assert answers[0] == answers[1]
    assert any('"1.3"' in answer for answer in answers[0])
    assert "Exception" not in " ".join(answers[0]) and "failed" not in " ".join(answers[0])
