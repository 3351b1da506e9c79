"""NVM Express (1.4): vmrun's controller beside QEMU's, given the same commands."""

from __future__ import annotations

import itertools
import pathlib
import random
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from accel.qtest import QtestAccelerator
from tests.devices.nvme import ADMIN, BAR, CC, CSTS, DATA, IO, QUEUES, SLOT, Driver
from tests.peers.oracle import QEMU
from vmrun.machine import blocks
from vmrun.testing import QTest, QtestProgram

SIZE = 8 << 20


def image(directory: pathlib.Path) -> pathlib.Path:
    path = directory / "disk.img"
    path.write_bytes(random.Random(7).randbytes(SIZE))
    return path


def ours(directory: pathlib.Path, machine: str = "pc-i440fx-7.2", **more: Any) -> QTest:
    drive = {"file": str(image(directory)), "format": "raw", "discard": "unmap"}
    device = {"id": "n", "driver": "nvme", "drive": "d", "serial": "abc", "addr": f"{SLOT:02x}.0", **more}
    return QTest({"machine": machine, "memory": "64MiB", "drives": {"d": drive}, "devices": [device]})


def theirs(directory: pathlib.Path, machine: str = "pc-i440fx-7.2") -> QtestProgram:
    """Its controller works on a timer of virtual time, so a processor must run: one that has halted."""
    firmware = directory / "halt.bin"
    firmware.write_bytes((b"\xf4" * 0xFFF0 + b"\xfa\xf4\xeb\xfd").ljust(0x10000, b"\xf4"))
    command = [QEMU or "qemu-system-x86_64", "-M", machine, "-m", "64", "-accel", "tcg", "-nodefaults"]
    command += ["-display", "none", "-bios", str(firmware)]
    command += ["-drive", f"if=none,id=d,format=raw,discard=unmap,file={image(directory)}"]
    return QtestProgram([*command, "-device", f"nvme,drive=d,serial=abc,addr={SLOT}"])


@pytest.fixture(params=["vmrun", pytest.param("qemu", marks=pytest.mark.peer)])
def d(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Driver]:
    if request.param == "qemu" and QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    with ours(tmp_path) if request.param == "vmrun" else theirs(tmp_path) as machine:
        driver = Driver(machine)
        driver.enable()
        driver.make_io()
        yield driver


@pytest.fixture
def alone(tmp_path: pathlib.Path) -> Iterator[Driver]:
    with ours(tmp_path) as machine:
        driver = Driver(machine)
        driver.enable()
        driver.make_io()
        yield driver


def content(directory: pathlib.Path) -> bytes:
    return (directory / "disk.img").read_bytes()


def test_blocks_are_read_over_a_list_of_pages(d: Driver, tmp_path: pathlib.Path) -> None:
    pages = [0x300000, 0x320000, 0x310000]
    d.q.write(0x2FF000, struct.pack("<2Q", pages[1], pages[2]))
    assert d.io(2, prp1=pages[0] + 512, prp2=0x2FF000, cdw10=5, cdw12=22) == (0, 0)
    found = d.q.read(pages[0] + 512, 3584) + d.q.read(pages[1], 4096) + d.q.read(pages[2], 4096)
    assert found == content(tmp_path)[5 * 512 :][: 23 * 512]


def test_blocks_are_written_and_flushed(d: Driver, tmp_path: pathlib.Path) -> None:
    data = random.Random(1).randbytes(8192)
    d.q.write(DATA, data)
    assert d.io(1, prp1=DATA, prp2=DATA + 4096, cdw10=100, cdw12=15) == (0, 0)
    assert d.io(0) == (0, 0)
    assert content(tmp_path)[51200:][:8192] == data


def test_a_scatter_gather_list_is_followed(d: Driver, tmp_path: pathlib.Path) -> None:
    parts = [(0x300010, 512), (0x310200, 1024), (0x320000, 512)]
    rows = [struct.pack("<QI3xB", addr, size, 0) for addr, size in parts]
    d.q.write(0x2FF000, b"".join(rows))
    word = struct.unpack("<QQ", struct.pack("<QI3xB", 0x2FF000, 48, 3 << 4))
    number = d.post(IO, 2, 1, 0x40, prp1=word[0], prp2=word[1], cdw10=8, cdw12=3)
    assert d.reap(IO) == (0, 0, number)
    assert b"".join(d.q.read(addr, size) for addr, size in parts) == content(tmp_path)[4096:6144]


def test_blocks_are_zeroed_and_given_back(d: Driver, tmp_path: pathlib.Path) -> None:
    assert d.io(8, cdw10=10, cdw12=9) == (0, 0)
    assert content(tmp_path)[5120:][:5120] == bytes(5120)
    d.q.write(DATA, struct.pack("<IIQIIQ", 0, 8, 1024, 0, 16, 2048))
    assert d.io(9, prp1=DATA, cdw10=1, cdw11=4) == (0, 0)
    assert content(tmp_path)[1024 * 512 :][:4096] == bytes(4096)
    assert content(tmp_path)[2048 * 512 :][:8192] == bytes(8192)


def test_blocks_are_compared(d: Driver, tmp_path: pathlib.Path) -> None:
    data = bytearray(content(tmp_path)[:1024])
    d.q.write(DATA, bytes(data))
    assert d.io(5, prp1=DATA, cdw12=1) == (0, 0)
    d.q.write(DATA + 700, bytes([data[700] ^ 1]))
    assert d.io(5, prp1=DATA, cdw12=1)[0] == 0x285


def test_events_are_told_when_somebody_waits(d: Driver) -> None:
    assert d.admin(9, cdw10=0x0B, cdw11=0xFF)[0] == 0
    number = d.post(ADMIN, 0x0C)
    other = d.post(ADMIN, 9, cdw10=4, cdw11=0x100)  # too hot above 256 K
    assert {d.reap(ADMIN), d.reap(ADMIN)} == {(0, 0, other), (0, 0x00020101, number)}


def test_a_controller_that_is_switched_off_forgets_its_queues(d: Driver) -> None:
    d.q.writel(BAR + CC, 0)
    assert not d.q.readl(BAR + CSTS) & 1
    d.enable()
    assert d.admin(0, cdw10=1)[0] == 0x4101


def test_more_commands_than_fit_at_once(d: Driver, tmp_path: pathlib.Path) -> None:
    """The ring goes round several times, answers are taken late."""
    seen = []
    for round_ in range(6):
        numbers = [d.post(IO, 2, 1, prp1=DATA + 512 * n, cdw10=round_ * 10 + n, cdw12=0) for n in range(10)]
        answers = [d.reap(IO) for _ in numbers]
        assert sorted(number for _, _, number in answers) == numbers
        assert {status for status, _, _ in answers} == {0}
        seen.append(d.q.read(DATA, 5120))
    assert b"".join(seen) == content(tmp_path)[: 60 * 512]


def questions(d: Driver) -> dict[str, Any]:
    """What a controller says of itself, and of commands that it cannot do."""
    found: dict[str, Any] = {}
    for cns, nsid in (
        *((1, 0), (0, 1), (2, 0), (3, 1), (0, 2), (0, 0), (0, 0xFFFFFFFF), (5, 1), (6, 0), (7, 0), (0x10, 0)),
        *((0x11, 1), (0x12, 1), (0x13, 1), (0x1C, 0), (8, 1), (9, 0), (0x15, 0), (0x18, 0), (2, 1), (2, 0xFFFFFFFF)),
    ):
        status, data = d.identify(cns, nsid)
        if cns == 1:
            data = data[:0x40] + data[0x48:]  # the firmware's version
        found[f"identify {cns:#x} {nsid:#x}"] = status, data.hex()
    for cns, nsid, commands in itertools.product(range(2, 0x20), (0, 1, 2, 300, 0xFFFFFFFF), range(3)):
        status, data = d.identify(cns, nsid, commands << 24)
        found[f"identify {cns:#x} {nsid:#x}, commands {commands}"] = status, b"" if status else data.rstrip(b"\0")
    for page, count in ((1, 64), (3, 512), (5, 4096), (0, 64), (4, 64), (0x81, 64), (2, 4), (1, 128)):
        d.q.memset(DATA, 4096)
        status = d.admin(2, 0xFFFFFFFF, prp1=DATA, cdw10=(count // 4 - 1) << 16 | page)[0]
        found[f"log {page:#x} {count}"] = status, d.q.read(DATA, count).hex()
    for feature in range(0x20):
        for select in (0, 1, 3):
            answer = d.admin(0x0A, 1, prp1=DATA, cdw10=feature | select << 8)
            found[f"get {feature:#x} {select}"] = answer[0] if feature == 14 else answer
    d.q.write(DATA, bytes(range(256)) * 2)
    for feature, nsid, value in ((5, 0, 1), (5, 2, 1), (5, 1, 0x10150), (5, 0xFFFFFFFF, 0x20160), (0x16, 0, 0)):
        found[f"set {feature:#x} of {nsid:#x}"] = d.admin(9, nsid, prp1=DATA, cdw10=feature, cdw11=value)
        for select in (0, 3) if feature == 0x16 else (0, 1, 2, 3):  # its default leaves the page alone on QEMU
            d.q.memset(DATA, 512, 0xEE)
            answer = d.admin(0x0A, 1, prp1=DATA, cdw10=feature | select << 8)
            found[f"then {feature:#x} of {nsid:#x}, {select}"] = answer, d.q.read(DATA, 512).hex()
            d.q.write(DATA, bytes(range(256)) * 2)
    for action, kind, other, count in itertools.product(range(12), (0, 1, 2), (0, 5), (0, 1)):
        found[f"virtualization {action} {kind} {other} {count}"] = d.admin(
            0x1C, cdw10=action | kind << 8 | other << 16, cdw11=count
        )
    for select, nsid, ids in itertools.product((0, 1, 2), (0, 1, 2, 300, 0xFFFFFFFF), ((), (0,), (1,), (0, 1))):
        d.q.memset(DATA, 4096)
        d.q.write(DATA, struct.pack(f"<{len(ids) + 1}H", len(ids), *ids))
        found[f"attachment {select} {nsid:#x} {ids}"] = d.admin(0x15, nsid, prp1=DATA, cdw10=select)
    for name, opcode, nsid, words in (
        ("no queue 0", 5, 0, {"prp1": 0x300000, "cdw10": 0x000F0000, "cdw11": 1}),
        ("twice", 5, 0, {"prp1": 0x300000, "cdw10": 0x000F0001, "cdw11": 1}),
        ("no queue 65", 5, 0, {"prp1": 0x300000, "cdw10": 0x000F0041, "cdw11": 1}),
        ("size 1", 5, 0, {"prp1": 0x300000, "cdw10": 0x3, "cdw11": 1}),
        ("size 2049", 5, 0, {"prp1": 0x300000, "cdw10": 0x08000003, "cdw11": 1}),
        ("vector 65", 5, 0, {"prp1": 0x300000, "cdw10": 0x000F0003, "cdw11": 0x410003}),
        ("scattered", 5, 0, {"prp1": 0x300000, "cdw10": 0x000F0003, "cdw11": 0}),
        ("not aligned", 5, 0, {"prp1": 0x300001, "cdw10": 0x000F0003, "cdw11": 1}),
        ("good", 5, 0, {"prp1": 0x300000, "cdw10": 0x000F0003, "cdw11": 1}),
        ("no completion queue", 1, 0, {"prp1": 0x310000, "cdw10": 0x000F0004, "cdw11": 0x00050001}),
        ("queue 0 of submissions", 1, 0, {"prp1": 0x310000, "cdw10": 0x000F0000, "cdw11": 0x00030001}),
        ("completion queue 0", 1, 0, {"prp1": 0x310000, "cdw10": 0x000F0003, "cdw11": 0x00000001}),
        ("not aligned either", 1, 0, {"prp1": 0x310001, "cdw10": 0x000F0003, "cdw11": 0x00030001}),
        ("scattered too", 1, 0, {"prp1": 0x310000, "cdw10": 0x000F0003, "cdw11": 0x00030000}),
        ("too small", 1, 0, {"prp1": 0x310000, "cdw10": 0x3, "cdw11": 0x00030001}),
        ("fine", 1, 0, {"prp1": 0x310000, "cdw10": 0x000F0003, "cdw11": 0x00030001}),
        ("again", 1, 0, {"prp1": 0x310000, "cdw10": 0x000F0003, "cdw11": 0x00030001}),
        ("still needed", 4, 0, {"cdw10": 3}),
        ("no such queue", 0, 0, {"cdw10": 9}),
        ("nor this", 4, 0, {"cdw10": 9}),
        ("the admin's", 4, 0, {"cdw10": 0}),
        ("the admin's other", 0, 0, {"cdw10": 0}),
        ("deleted", 0, 0, {"cdw10": 3}),
        ("deleted then", 4, 0, {"cdw10": 3}),
        ("abort", 8, 0, {"cdw10": 0x00010001}),
        ("abort of none", 8, 0, {"cdw10": 0x00010009}),
        ("queues too late", 9, 0, {"cdw10": 7, "cdw11": 0x00030003}),
        ("cache off", 9, 0, {"cdw10": 6, "cdw11": 0}),
        ("cache is off", 10, 0, {"cdw10": 6}),
        ("kept", 9, 0, {"cdw10": 0x80000001}),
        ("atomic", 9, 0, {"cdw10": 0x0A}),
        ("vectors", 9, 0, {"cdw10": 9}),
        ("firmware", 0x10, 0, {}),
        ("management", 0x0D, 0, {}),
        ("attachment", 0x15, 0, {}),
        ("unknown", 0x7F, 0, {}),
    ):
        found[name] = d.admin(opcode, nsid, **words)
    for name, opcode, nsid, words in (
        ("beyond", 2, 1, {"prp1": DATA, "cdw10": 0x7FFFFFFF}),
        ("no namespace 2", 2, 2, {"prp1": DATA}),
        ("nor 0", 2, 0, {"prp1": DATA}),
        ("nor all", 2, 0xFFFFFFFF, {"prp1": DATA}),
        ("nor 257", 2, 257, {"prp1": DATA}),
        ("flush 2", 0, 2, {}),
        ("flush all", 0, 0xFFFFFFFF, {}),
        ("flush 0", 0, 0, {}),
        ("what", 0x7F, 1, {}),
        ("too large", 2, 1, {"prp1": DATA, "prp2": DATA + 4096, "cdw12": 0xFFFF}),
        ("bad list", 2, 1, {"prp1": DATA, "prp2": DATA + 4096 + 4, "cdw12": 15}),
        ("bad entry", 2, 1, {"prp1": DATA, "prp2": 0x2FE000, "cdw12": 23}),
        ("verified", 0x0C, 1, {"cdw12": 3}),
        ("uncorrectable", 4, 1, {"cdw12": 0}),
        ("zeroes beyond", 8, 1, {"cdw10": SIZE // 512 - 1, "cdw12": 1}),
    ):
        d.q.write(0x2FE000, struct.pack("<2Q", 0x300008, 0x301000))
        found[name] = d.io(opcode, nsid, **words)
    return found


@pytest.mark.peer
def test_it_says_what_qemu_s_says(tmp_path: pathlib.Path) -> None:
    if QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    answers = []
    for make in (ours, theirs):
        with make(tmp_path) as machine:
            driver = Driver(machine)
            driver.enable()
            driver.make_io()
            answers.append(questions(driver))
    mine, his = answers
    assert {name: (mine[name], his[name]) for name in mine if mine[name] != his[name]} == {}


def test_a_time_stamp_goes_on_until_the_controller_is_reset(d: Driver) -> None:
    def stamp(select: int = 0) -> tuple[int, int]:
        d.q.memset(DATA, 8)  # QEMU gives no data for what a feature is by default
        assert d.admin(0x0A, prp1=DATA, cdw10=14 | select << 8) == (0, 0)
        word = struct.unpack("<Q", d.q.read(DATA, 8))[0]
        return word & (1 << 48) - 1, word >> 48

    d.q.write(DATA, struct.pack("<Q", 0xFFFF << 48 | 0x123456789A00))
    assert d.admin(9, prp1=DATA, cdw10=14) == (0, 0)
    if isinstance(d.q, QTest):
        d.q.clock_step(25_000_000)
    else:
        time.sleep(0.03)
    value, origin = stamp()
    assert 0x123456789A00 + 25 <= value < 0x123456789A00 + 60_000 and origin == 2
    assert stamp(1) == stamp(2) == (0, 0)
    d.enable()
    value, origin = stamp()
    assert value < 60_000 and origin == 0


@pytest.mark.peer
@pytest.mark.parametrize("machine", ["pc-i440fx-7.2", "pc-i440fx-5.2", "pc-i440fx-5.1"])
def test_configuration_space_is_qemu_s(tmp_path: pathlib.Path, machine: str) -> None:
    if QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    spaces = []
    for make in (ours, theirs):
        with make(tmp_path, machine) as q:
            for bar in range(0x10, 0x28, 4):
                q.pci_write(SLOT, 0, bar, 0xFFFFFFFF)
            spaces.append([f"{offset:02x} {q.pci_read(SLOT, 0, offset):08x}" for offset in range(0, 256, 4)])
    assert spaces[0] == spaces[1]


# --- what a hostile driver does -------------------------------------------------------------------------------


def test_queues_in_nowhere_end_the_controller(alone: Driver) -> None:
    assert alone.admin(5, prp1=0x400000, cdw10=0x000F0002, cdw11=1)[0] == 0
    assert alone.admin(1, prp1=0x7FFF00000000, cdw10=0x000F0002, cdw11=2 << 16 | 1)[0] == 0
    alone.q.writel(BAR + 0x1010, 5)
    assert alone.q.readl(BAR + CSTS) & 2


def test_a_list_that_leads_to_itself_ends(alone: Driver) -> None:
    alone.q.write(0x2FF000, struct.pack("<512Q", *([0x300000] * 511), 0x2FF000))
    assert alone.io(2, prp1=DATA, prp2=0x2FF000 + 4088, cdw12=0x3FF)[0] == 0  # the same page over and over
    row = struct.pack("<QI3xB", 0x2FF000, 16, 2 << 4)
    alone.q.write(0x2FF000, row)
    word = struct.unpack("<QQ", row)
    number = alone.post(IO, 2, 1, 0x40, prp1=word[0], prp2=word[1], cdw12=7)
    assert alone.reap(IO)[0] != 0 and number
    assert alone.io(2, prp1=DATA) == (0, 0)


def test_any_command_gets_an_answer(alone: Driver) -> None:
    rng = random.Random(3)
    for _ in range(600):
        queue = rng.choice([ADMIN, IO])
        opcode = rng.choice([0, 1, 2, 4, 5, 6, 8, 9, 10, 0x0C, 0x15, 0x80, 0x19, rng.getrandbits(8)])
        if queue == ADMIN and opcode in (0, 4, 0x0C, 0x7C):  # would end the test's own queue, or wait
            continue
        words = {f"cdw{n}": rng.choice([0, 1, 2, 0xFFFF, rng.getrandbits(32)]) for n in range(10, 16)}
        for name in ("prp1", "prp2"):
            words[name] = rng.choice([DATA, DATA + 8, 0x2FF000, 0, rng.getrandbits(64), 0xFFFFFFFFFFFFF000])
        flags = rng.choice([0, 0, 0, 0x40, 0x80, 0xC0, 1])
        number = alone.post(queue, opcode, rng.choice([0, 1, 1, 1, 2, 0xFFFFFFFF]), flags, **words)
        status, _, told = alone.reap(queue)
        assert told == number and 0 <= status < 0x8000
    assert alone.io(0)[0] == 0


def test_any_register_takes_anything(alone: Driver) -> None:
    rng = random.Random(5)
    for _ in range(3000):
        size = rng.choice(["b", "w", "l", "q"])
        offset = rng.choice([rng.randrange(0x50), 0x1000 + 4 * rng.randrange(140), rng.randrange(0x4000)])
        alone.q.ask(f"write{size} {BAR + offset:#x} {rng.choice([0, 1, rng.getrandbits(32)]):#x}")
        alone.q.ask(f"read{size} {BAR + offset:#x}")
    alone.q.pci_write(SLOT, 0, 0x40 + 2, 0, 2)
    driver = Driver(alone.q)
    driver.enable()
    driver.make_io()
    assert driver.io(2, prp1=DATA) == (0, 0)


def test_a_namespace_that_grows_is_told(alone: Driver, tmp_path: pathlib.Path) -> None:
    assert isinstance(alone.q, QTest)
    assert alone.admin(9, cdw10=0x0B, cdw11=0x100)[0] == 0
    number = alone.post(ADMIN, 0x0C)
    blocks.resize(alone.q.machine, "d", "", 2 * SIZE)
    assert alone.reap(ADMIN) == (0, 0x00040002, number)
    assert struct.unpack_from("<Q", alone.identify(0, 1)[1])[0] == 2 * SIZE // 512
    assert alone.io(2, prp1=DATA, cdw10=2 * SIZE // 512 - 1) == (0, 0)


def test_an_interrupt_reaches_the_pin_until_the_answer_is_taken(alone: Driver) -> None:
    assert isinstance(alone.q, QTest)
    chip = alone.q.machine.devices["n"].chip
    number = alone.post(IO, 2, 1, prp1=DATA)
    assert chip.raised & 1
    alone.q.writel(BAR + 0x0C, 1)
    assert alone.reap(IO)[2] == number
    alone.q.writel(BAR + 0x10, 1)
    assert not chip.raised & 1 and QUEUES


SHADOW, EVENTS = 0x104000, 0x105000


@pytest.fixture
def shared(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """Doorbells that need no exit, as on kvm; nothing rings them here but the test."""
    monkeypatch.setattr(QtestAccelerator, "doorbells", True)
    with ours(tmp_path, ioeventfd=True) as machine:
        machine.machine.board.iothread.start()
        driver = Driver(machine)
        driver.enable()
        yield driver


def bells(driver: Driver) -> dict[int, Any]:
    """Offset → notifier of the doorbells that need no exit just now."""
    (device,) = (each for each in driver.q.machine.devices.values() if each.driver == "nvme")
    return {offset: notifier for offset, _, _, notifier in device.registers.doorbells}


def test_doorbells_need_no_exit_while_the_driver_shares_them(shared: Driver) -> None:
    shared.make_io()
    assert not bells(shared)
    assert shared.admin(0x7C, prp1=SHADOW, prp2=EVENTS)[0] == 0
    assert sorted(bells(shared)) == [0x1008, 0x100C]
    assert shared.admin(0x00, cdw10=IO)[0] == 0  # the submission queue goes
    assert sorted(bells(shared)) == [0x100C]
    shared.q.writel(BAR + CC, 0)
    assert not bells(shared)


def test_a_signal_serves_what_the_shadow_says(shared: Driver) -> None:
    shared.make_io()
    shared.q.memset(SHADOW, 8192)
    assert shared.admin(0x7C, prp1=SHADOW, prp2=EVENTS)[0] == 0
    entry = struct.pack("<BBHI", 2, 0, 77, 1) + bytes(16) + struct.pack("<QQQI", DATA, 0, 5, 0) + bytes(12)
    shared.q.write(QUEUES[IO][0], entry)
    shared.q.writel(SHADOW + 8 * IO, 1)
    bells(shared)[0x1008].notify()
    assert shared.reap(IO)[::2] == (0, 77)
    assert shared.q.read(DATA, 512) == random.Random(7).randbytes(SIZE)[5 * 512 : 6 * 512]
    assert int.from_bytes(shared.q.read(EVENTS + 8 * IO, 4), "little") == 1  # told when the tail passes this


def test_a_signal_of_what_has_gone_or_is_nonsense_does_nothing(shared: Driver) -> None:
    shared.make_io()
    (device,) = (each for each in shared.q.machine.devices.values() if each.driver == "nvme")
    shared.q.memset(SHADOW, 8192, 0xFF)  # no place in any queue
    assert shared.admin(0x7C, prp1=SHADOW, prp2=EVENTS)[0] == 0
    every = [bell.notifier for bell in device.chip.bells]

    def ring() -> None:
        before = device.chip.rung
        for notifier in every:
            notifier.notify()
        if device.chip.shadow:
            deadline = time.monotonic() + 10
            while device.chip.rung < before + len(every):
                assert time.monotonic() < deadline

    ring()
    assert shared.admin(0x06, cdw10=1, prp1=DATA)[0] == 0
    shared.q.writel(BAR + CC, 0)
    ring()
    shared.enable()
    assert shared.admin(0x06, cdw10=1, prp1=DATA)[0] == 0
