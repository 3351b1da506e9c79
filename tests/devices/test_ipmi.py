"""A simulated management controller behind its interfaces (IPMI v2.0 rev. 1.1), the same work on vmrun and on QEMU."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.devices.differences import DIFFERENCES
from tests.peers.oracle import QEMU
from vmrun.devices.ipmi.bmc import COMMANDS
from vmrun.testing import QTest, QtestCommands, QtestProgram

KCS, BT = 0xCA2, 0xE4
SECOND = 1_000_000_000
GET_DEVICE_ID, GET_ENABLES, SET_ENABLES = [0x18, 0x01], [0x18, 0x2F], [0x18, 0x2E]
INTERRUPT = 1 << 5


def machine(driver: str, **props: Any) -> QTest:
    controller = {"driver": "ipmi-bmc-sim", "id": "b", **props}
    return QTest(
        {
            "machine": "pc-i440fx-7.2",
            "memory": "64MiB",
            "devices": [controller, {"driver": driver, "id": "interface", "bmc": "b"}],
        }
    )


def qemu(driver: str, props: str = "") -> QtestProgram:
    command = [QEMU or "qemu-system-x86_64", "-M", "pc-i440fx-7.2", "-m", "64", "-accel", "tcg", "-S", "-nodefaults"]
    command += ["-display", "none", "-device", f"ipmi-bmc-sim,id=b{props}", "-device", f"{driver},bmc=b"]
    return QtestProgram(command)


@pytest.fixture(params=["vmrun", pytest.param("qemu", marks=pytest.mark.peer)])
def kcs(request: pytest.FixtureRequest) -> Iterator[QtestCommands]:
    if request.param == "qemu" and QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    with machine("isa-ipmi-kcs") if request.param == "vmrun" else qemu("isa-ipmi-kcs") as q:
        yield q


def both(driver: str) -> tuple[QTest, QtestProgram]:
    if QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    return machine(driver), qemu(driver)


def ask(q: QtestCommands, request: list[int]) -> list[int]:
    """A message through KCS (9.15)."""
    q.outb(KCS + 1, 0x61)
    for byte in request[:-1]:
        assert q.inb(KCS + 1) & 0xC0 == 0x80  # WRITE
        q.inb(KCS)
        q.outb(KCS, byte)
    q.outb(KCS + 1, 0x62)
    q.inb(KCS)
    q.outb(KCS, request[-1])
    answer = []
    while q.inb(KCS + 1) & 0xC0 == 0x40:  # READ
        answer.append(q.inb(KCS))
        q.outb(KCS, 0x68)
    assert q.inb(KCS + 1) & 0xC1 == 1
    q.inb(KCS)
    return answer


def test_the_controller_says_who_it_is(kcs: QtestCommands) -> None:
    assert ask(kcs, GET_DEVICE_ID) == [0x1C, 0x01, 0, 0x20, 0, 0, 0, 2, 7, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("request_", "code"),
    [([0x18], 0xC7), ([0x19, 1], 0xC2), ([0x1C, 1], 0xC1), ([0xB0, 0], 0xC1), ([0, 2], 0xC7), ([0x18, 0x22], 0x80)],
)
def test_what_it_cannot_do_has_a_code(kcs: QtestCommands, request_: list[int], code: int) -> None:
    assert ask(kcs, request_)[2:] == [code]


def test_an_event_of_the_system_is_in_the_log(kcs: QtestCommands) -> None:
    assert ask(kcs, [0x10, 0x02, 0x41, 4, 2, 0, 0x6F, 1, 2, 3])[2:] == [0]
    found = ask(kcs, [0x28, 0x43, 0, 0, 0xFF, 0xFF, 0, 0xFF])
    assert (found[2:8], found[12:]) == ([0, 0xFF, 0xFF, 0, 0, 2], [0x41, 0, 4, 2, 0, 0x6F, 1, 2, 3])


def test_a_request_that_is_given_up_leaves_the_interface_usable(kcs: QtestCommands) -> None:
    ask(kcs, GET_DEVICE_ID)
    kcs.outb(KCS + 1, 0x61)
    kcs.outb(KCS, 0x18)
    kcs.outb(KCS + 1, 0x60)
    assert kcs.inb(KCS + 1) & 0xC0 == 0xC0  # ERROR
    kcs.outb(KCS, 0)
    assert (kcs.inb(KCS + 1) & 0xC0, kcs.inb(KCS)) == (0x40, 0x01)  # aborted by a command
    kcs.outb(KCS, 0x68)
    kcs.inb(KCS)
    assert ask(kcs, GET_ENABLES)[2:] == [0, 8]


# --- everything, at random -------------------------------------------------------------------------------


def data_of(rng: random.Random, function: int, command: int, reservation: list[int]) -> list[int]:
    """For a command: often as long as it must be, and with a reservation that is right."""
    least = COMMANDS[function, command][0]
    count = rng.choice([0, 1, 2, 3, 8, 9, 10, 11, 12, 17, least, least, least, least + 1, least + 2, 20])
    usual = [0, 0, 0, 1, 2, 5, 0xFF, 0x0F, 0x80, 0x40, 0x90, 0x10]
    data = [rng.choice([*usual, rng.randrange(256)]) for _ in range(count)]
    if command in (0x27, 0x47) and count >= 6:
        data[:6] = [*reservation, *b"CLR", rng.choice([0xAA, 0xAA, 0])]
    if command in (0x23, 0x43) and function == 0x0A and count >= 6:
        number = rng.choice([[0, 0], [0, 0], [1, 0], [2, 0], [0xFF, 0xFF]])
        data[2:6] = [*number, rng.choice([0, 0, 1, 5, 16, 39, 40]), rng.choice([255, 16, 5])]
    return data


def alike(function: int, command: int, answer: list[int]) -> list[int]:
    """Without times, and without how many sensor records there are: QEMU counts those that are gone."""
    if function == 0x0A and command in (0x20, 0x40, 0x43, 0x48):
        keep = {0x20: (3, 6, 8), 0x40: (8, 8, 8), 0x43: (8, 12, 99), 0x48: (3, 3, 3)}[command]
        return answer[: keep[0]] + answer[keep[1] : keep[2]] + answer[-1:] * (command != 0x48)
    if (function, command) == (0x06, 0x35):
        return answer[:6] + answer[10:]
    return answer


@pytest.mark.peer
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_commands_have_the_same_answers(seed: int) -> None:
    rng = random.Random(seed)
    # off and on; a timer that goes; QEMU cannot add a sensor record, and reads on behind too short a request
    left_out = {(0x00, 0x02), (0x06, 0x22), (0x0A, 0x24), (0x0A, 0x11)}
    commands = sorted(COMMANDS.keys() - left_out)
    one, other = both("isa-ipmi-kcs")
    with one, other:
        for _ in range(250):
            function, command = rng.choice(commands)
            reserve = [0x28, 0x22 if command in (0x23, 0x27) else 0x42]
            request = [function << 2, command, *data_of(rng, function, command, ask(other, reserve)[3:5])]
            answers = [alike(function, command, ask(q, request)) for q in (one, other)]
            assert answers[0] == answers[1], bytes(request).hex(" ")
            assert one.inb(KCS + 1) == other.inb(KCS + 1)


def watch_interrupts(q: QtestCommands) -> None:
    for port, value in ((0x20, 0x11), (0x21, 8), (0x21, 4), (0x21, 1), (0x21, 0)):
        q.outb(port, value)


def interrupted(q: QtestCommands) -> int:
    q.outb(0x20, 0x0A)
    return q.inb(0x20) & INTERRUPT


@pytest.mark.peer
@pytest.mark.parametrize(("driver", "base", "registers"), [("isa-ipmi-kcs", KCS, 2), ("isa-ipmi-bt", BT, 3)])
@pytest.mark.parametrize("seed", [1, 5])
def test_random_accesses_to_an_interface_have_the_same_answers(
    driver: str, base: int, registers: int, seed: int
) -> None:
    rng = random.Random(f"{driver} {seed}")
    orders = [[0x68, 0x68, 0x18, 1, 0x2E, 3, 0, 8], [0x61, 0x62, 0x62, 0x60, 0x68, 0x99]]
    if registers == 3:
        orders = [[1, 2, 3, 4, 8, 0x10, 0x40, 0xFF], [4, 3, 0x18, 1, 0x31, 0x2E, 3, 0, 5, 0x36], [0, 1, 2, 3]]
    pair = both(driver)
    with pair[0], pair[1]:
        for q in pair:
            watch_interrupts(q)
            if registers == 2:
                ask(q, [*SET_ENABLES, 0x0B])  # QEMU's first access by itself finds a command that nobody gave
            else:
                for value in (4, 0x18, 7, 0x2E, 0x0B):
                    q.outb(BT + 1, value)
                q.outb(BT, 4)
                q.outb(BT, 1)
        ending = False
        for _ in range(300):
            register = rng.randrange(registers)
            if rng.random() < 0.45:
                register *= not ending  # QEMU takes an order behind WRITE_END for the last byte
                value = rng.choice(orders[register])
                pair[0].outb(base + register, value)
                pair[1].outb(base + register, value)
                ending = (registers, register, value) == (2, 1, 0x62)
                if (registers, register) == (3, 0) and value & 4:  # QEMU leaves the request there, a byte changed
                    pair[0].outb(BT, 1)
                    pair[1].outb(BT, 1)
            else:
                assert pair[0].inb(base + register) == pair[1].inb(base + register)
            assert interrupted(pair[0]) == interrupted(pair[1])


# --- the watchdog, whose time only vmrun's clock steps ----------------------------------------------------


def test_the_watchdog_warns_and_then_resets() -> None:
    with machine("isa-ipmi-kcs") as q:
        ask(q, [*SET_ENABLES, 0x0C])  # event log and buffer
        ask(q, [0x18, 0x24, 0x04, 0x31, 1, 0xFF, 20, 0])  # reset after 2 s, a message interrupt 1 s before
        ask(q, [0x18, 0x22])
        q.clock_step(SECOND // 2)
        assert ask(q, [0x18, 0x25])[3:] == [0x04, 0x31, 1, 0, 20, 0, 5, 0]
        assert ask(q, [0x18, 0x31])[3:] == [0]
        q.clock_step(SECOND * 6 // 10)
        assert ask(q, [0x18, 0x31])[3:] == [0x0A]  # an event, and the warning
        assert ask(q, [0x18, 0x35])[-9:] == [0x20, 0, 4, 0x23, 0, 0x6F, 0xC8, 0x3F, 0xFF]
        q.clock_step(SECOND)
        assert ask(q, [0x18, 0x25])[3:] == [0x04, 0x31, 1, 0x10, 20, 0, 0, 0]  # it has run out, for use 4
        assert ask(q, [0x28, 0x43, 0, 0, 0xFF, 0xFF, 0, 0xFF])[-3:] == [0xC1, 0x04, 0xFF]  # hard reset


def test_records_that_the_system_adds_are_kept(side: str) -> None:
    record = [0, 0, 0x51, 0x11, 3, 1, 2, 3]
    with machine("isa-ipmi-kcs") if side == "vmrun" else qemu("isa-ipmi-kcs") as q:
        answer = ask(q, [0x28, 0x24, *record])
        assert answer[2] == DIFFERENCES["ipmi-sdr"].of(side)
        if side == "qemu":
            return
        assert answer[3:] == [1, 0]
        assert ask(q, [0x28, 0x23, 0, 0, 1, 0, 0, 0xFF])[2:] == [0, 0xFF, 0xFF, 1, 0, *record[2:]]
        assert ask(q, [0x28, 0x23, 0, 0, 0, 0, 0, 5])[3:5] == [1, 0]  # behind the watchdog's


def test_files_give_sensors_and_inventory(tmp_path: pathlib.Path) -> None:
    sdr, fru = tmp_path / "sdr", tmp_path / "fru"
    sdr.write_bytes(bytes([0, 0, 0x51, 1, 20, 0x20, 0, 3, 0x23, 1, 0x63, 0, 1, 1, 0xFF, *bytes(10)]))
    fru.write_bytes(b"A" * 16 + b"B")
    with machine("isa-ipmi-kcs", sdrfile=str(sdr), frudatafile=str(fru), fruareasize=16) as q:
        assert ask(q, [0x10, 0x29, 3])[2:] == [0, 0xC0, 0xFF, 0, 0, 0]
        assert ask(q, [0x10, 0x29, 0])[2:] == [0xCB]
        assert ask(q, [0x28, 0x11, 1, 0, 0, 3])[2:] == [0, 3, 0x42, 0, 0]


def test_a_controller_has_one_interface() -> None:
    from vmrun.errors import BuildError

    devices = [{"driver": "ipmi-bmc-sim", "id": "b"}]
    devices += [{"driver": f"isa-ipmi-{kind}", "id": kind, "bmc": "b"} for kind in ("kcs", "bt")]
    with pytest.raises(BuildError, match="b has an interface already"):
        QTest({"machine": "pc-i440fx-7.2", "devices": devices})
