"""LSI 53C895A: SCRIPTS as firmware writes them do the same on vmrun's and on QEMU's; hostile ones harm nobody."""

from __future__ import annotations

import pathlib
import random
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.devices.scsi import image
from tests.peers.oracle import QEMU
from vmrun.testing import QTest, QtestProgram

PORTS, MEMORY, PROGRAMS = 0xC000, 0xE0000000, 0xE0002000
SCRIPT, MESSAGE, CDB, DATA, STATUS, BACK = 0x10000, 0x20000, 0x20010, 0x30000, 0x20020, 0x20030
DSTAT, ISTAT, DSP, DSPS, SIST0, SIST1, SIEN0, SIEN1, DIEN = 0x0C, 0x14, 0x2C, 0x30, 0x42, 0x43, 0x40, 0x41, 0x39
SIR, STO, UDC, MA = 0x04, 0x04, 0x04, 0x80
DATA_OUT, DATA_IN, COMMAND, STATUS_PHASE, MESSAGE_OUT, MESSAGE_IN = 0, 1, 2, 3, 6, 7
SELECT, WAIT_DISCONNECT, WAIT_RESELECT, INT = 0x41000000, 0x48000000, 0x50000000, 0x98080000


def move(phase: int, count: int, address: int) -> tuple[int, int]:
    return phase << 24 | count, address


def jump(address: int, phase: int) -> tuple[int, int]:
    """When the target wants this phase."""
    return 0x80000000 | phase << 24 | 1 << 19 | 1 << 17 | 1 << 16, address


def machine(side: str, path: pathlib.Path, driver: str = "lsi53c895a", kind: str = "scsi-hd") -> Any:
    if side == "vmrun":
        drive: dict[str, Any] = {"file": str(path), "format": "raw"}
        drive |= {"media": "cdrom", "readonly": True} if kind == "scsi-cd" else {}
        devices = [
            {"driver": driver, "id": "s", "addr": "05.0"},
            {"driver": kind, "id": "u", "drive": "d0", "scsi-id": 3, "lun": 0},
        ]
        return QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB", "drives": {"d0": drive}, "devices": devices})
    command = [QEMU or "", "-M", "pc-i440fx-7.2", "-m", "64", "-accel", "tcg", "-S", "-nodefaults", "-display", "none"]
    command += ["-drive", f"if=none,id=d0,file={path},format=raw", "-device", f"{driver},id=s,addr=5"]
    return QtestProgram([*command, "-device", f"{kind},drive=d0,scsi-id=3,lun=0"])


class Chip:
    def __init__(self, q: Any) -> None:
        self.q = q
        for bar, where in ((0, PORTS), (1, MEMORY), (2, PROGRAMS)):
            q.pci_write(5, 0, 0x10 + 4 * bar, where)
        q.pci_write(5, 0, 4, 7, 2)
        q.outb(PORTS + SIEN0, 0x8F)
        q.outb(PORTS + SIEN1, 0x04)
        q.outb(PORTS + DIEN, 0x7F)

    def run(self, *program: tuple[int, ...], at: int = SCRIPT) -> tuple[int, int, int, int]:
        """(DSTAT without DFE, SIST0, SIST1, DSPS) when the program has ended."""
        q = self.q
        q.write(at, b"".join(struct.pack(f"<{len(row)}I", *row) for row in program))
        q.outl(PORTS + DSP, at)
        for _ in range(3000):
            if q.inb(PORTS + ISTAT) & 3:
                break
            if hasattr(q, "settle"):
                q.settle()
            else:
                time.sleep(0.001)
        else:
            raise AssertionError("the program does not end")
        first, second = q.inb(PORTS + SIST0), q.inb(PORTS + SIST1)
        return q.inb(PORTS + DSTAT) & 0x7F, first, second, q.inl(PORTS + DSPS)

    def command(self, cdb: bytes, data: bytes | int = 0, target: int = 3, message: bytes = b"\x80") -> tuple[Any, ...]:
        """(how it ended, status, data): a program that follows the target from phase to phase."""
        q = self.q
        q.write(MESSAGE, message)
        q.write(CDB, cdb)
        q.writeb(STATUS, 0xEE)
        size = data if isinstance(data, int) else len(data)
        if isinstance(data, int):
            q.memset(DATA, max(size, 1), 0xDD)
        else:
            q.write(DATA, data)
        # select, say who, give the command; then where the target leads
        end, data_in, data_out, away = SCRIPT + 0x48, SCRIPT + 0x70, SCRIPT + 0x80, SCRIPT + 0x90
        program = [
            (SELECT | target << 16, SCRIPT + 0xF0),
            move(MESSAGE_OUT, len(message), MESSAGE),
            move(COMMAND, len(cdb), CDB),
            jump(data_in, DATA_IN),
            jump(data_out, DATA_OUT),
            jump(end, STATUS_PHASE),
            jump(away, MESSAGE_IN),
            (INT, 0xBAD),
            (INT, 0xBAD),
            move(STATUS_PHASE, 1, STATUS),                      # end
            move(MESSAGE_IN, 1, BACK),
            (0x60000040, 0),                                    # clear ACK
            (WAIT_DISCONNECT, 0),
            (INT, 0x600D),
            move(DATA_IN, size or 1, DATA),                     # data_in
            (0x80880000, (SCRIPT + 0x18 - (SCRIPT + 0x80)) & 0xFFFFFF),
            move(DATA_OUT, size or 1, DATA),                    # data_out
            (0x80880000, (SCRIPT + 0x18 - (SCRIPT + 0x90)) & 0xFFFFFF),
            move(MESSAGE_IN, 1, BACK),                          # away: save pointers, or disconnect
            jump(away, MESSAGE_IN),
            (WAIT_DISCONNECT, 0),
            (WAIT_RESELECT, 0),
            move(MESSAGE_IN, 1, BACK),                          # who is back
            jump(SCRIPT + 0xB0, MESSAGE_IN),
            (0x80880000, (SCRIPT + 0x18 - (SCRIPT + 0xC8)) & 0xFFFFFF),
        ]
        ended = self.run(*program)
        return ended, q.readb(STATUS), q.read(DATA, size) if isinstance(data, int) and size else b""


@pytest.fixture(params=["vmrun", pytest.param("qemu", marks=pytest.mark.peer)])
def chip(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Chip]:
    with machine(request.param, image(tmp_path / "d.img")) as q:
        yield Chip(q)


@pytest.fixture
def ours(tmp_path: pathlib.Path) -> Iterator[Chip]:
    with machine("vmrun", image(tmp_path / "d.img")) as q:
        yield Chip(q)


GOOD = (SIR, 0, 0, 0x600D)


@pytest.mark.peer
@pytest.mark.parametrize("driver", ["lsi53c895a", "lsi53c810"])
def test_registers_and_configuration_are_qemus(driver: str, tmp_path: pathlib.Path) -> None:
    found = []
    for side in ("vmrun", "qemu"):
        with machine(side, image(tmp_path / f"{side}.img"), driver) as q:
            words = {f"config {n:#x}": q.pci_read(5, 0, n) for n in range(0, 256, 4)}
            Chip(q)
            known = [n for n in range(0xE0) if n not in (0x27, 0x44, 0x45, 0x49, 0x4C, 0x51)]
            known = [n for n in known if n not in range(0x53, 0x56) and n not in (0x5A, 0x5B) and not 0xBC <= n < 0xC0]
            known = [n for n in known if not 0xD0 <= n < 0xD4]  # those that QEMU does not have
            found.append(words | {f"port {n:#x}": q.inb(PORTS + n) for n in known})
    assert {key: (found[0][key], found[1][key]) for key in found[0] if found[0][key] != found[1][key]} == {}


@pytest.mark.parametrize("message", [b"\x80", b"\xc0", b"\xc0\x20\x07"], ids=["stays", "may-leave", "tagged"])
def test_a_program_reads_and_writes(chip: Chip, message: bytes) -> None:
    assert chip.command(bytes(6), message=message)[:2] == (GOOD, 2)  # power on is told first
    ended, status, data = chip.command(bytes((3, 0, 0, 0, 18, 0)), 18)
    assert (ended, status, data[2], data[12]) == (GOOD, 0, 6, 0x29)
    assert chip.command(bytes((0x12, 0, 0, 0, 36, 0)), 36)[2][8:28] == b"QEMU    QEMU HARDDIS"
    block = random.Random(1).randbytes(2048)
    write, read = (struct.pack(">BBIBHB", code, 0, 9, 0, 4, 0) for code in (0x2A, 0x28))
    assert chip.command(write, block, message=message)[:2] == (GOOD, 0)
    assert chip.command(read, 2048, message=message) == (GOOD, 0, block)


def test_nobody_at_a_target_is_a_time_out(chip: Chip) -> None:
    assert chip.run((SELECT | 5 << 16, SCRIPT), move(MESSAGE_OUT, 1, MESSAGE), (INT, 1))[1:3] == (0, STO)


def test_a_cause_is_gone_when_it_has_been_read(ours: Chip) -> None:
    """Also behind an interrupt on the fly that waits: drivers read until nothing is left, and clear that one first."""
    assert ours.run((0x98180000, 1), (INT, 2)) == (SIR, 0, 0, 2)
    assert ours.q.inb(PORTS + ISTAT) & 7 == 4  # INTF alone
    assert not ours.q.inb(PORTS + DSTAT) & 0x7F
    ours.q.outb(PORTS + ISTAT, 4)
    assert not ours.q.inb(PORTS + ISTAT) & 7


def test_who_takes_the_bus_before_a_selection_is_who_is_waited_for_then(ours: Chip) -> None:
    """The next selection is lost to the disk, which is back: the program, as Linux's, waits for a reselection."""
    ours.command(bytes(6))
    ours.command(bytes((3, 0, 0, 0, 18, 0)), 18)
    q = ours.q
    q.write(MESSAGE, b"\xc0")
    q.write(CDB, bytes((0x35, *bytes(9))))
    begin = [(SELECT | 3 << 16, 0), move(MESSAGE_OUT, 1, MESSAGE), move(COMMAND, 10, CDB)]
    assert ours.run(*begin, move(MESSAGE_IN, 1, BACK), (WAIT_DISCONNECT, 0), (INT, 1)) == (SIR, 0, 0, 1)
    assert q.readb(BACK) == 4  # it disconnects
    q.settle()
    lost = [(SELECT | 3 << 16, SCRIPT + 0x10), (INT, 0xBAD), (WAIT_RESELECT, SCRIPT), move(MESSAGE_IN, 1, BACK)]
    end = [move(STATUS_PHASE, 1, STATUS), move(MESSAGE_IN, 1, BACK + 1), (WAIT_DISCONNECT, 0), (INT, 0x600D)]
    assert ours.run(*lost, *end) == GOOD
    assert q.read(BACK, 2) == b"\x80\x00" and not q.readb(STATUS)


def test_less_data_than_the_program_wants_is_a_mismatch(chip: Chip) -> None:
    chip.command(bytes(6))
    chip.command(bytes((3, 0, 0, 0, 18, 0)), 18)
    ended, status, data = chip.command(bytes((0x25, *bytes(9))), 64)
    assert ended[1] == MA and data[:8] == struct.pack(">II", 2047, 512) and data[8:] == b"\xdd" * 56
    assert chip.q.inl(PORTS + 0x24) & 0xFFFFFF == 56


def test_what_a_short_answer_left_is_what_the_manual_says(ours: Chip) -> None:
    """RBC: what is left of the move, below its opcode; UA: where it would go on; SBC: what came; ESA: a table's row."""
    ours.command(bytes(6))
    ours.command(bytes((3, 0, 0, 0, 18, 0)), 18)
    ours.command(bytes((0x25, *bytes(9))), 64)
    q = ours.q
    assert [q.inl(PORTS + n) for n in (0xC8, 0xCC)] == [DATA_IN << 24 | 56, DATA + 8]
    assert q.inl(PORTS + 0xD8) & 0xFFFFFF == 8
    q.outb(PORTS + ISTAT, 0x40)
    q.outb(PORTS + ISTAT, 0)
    q.write(BACK + 0x10, struct.pack("<4I", 1, MESSAGE, 10, CDB))
    q.write(BACK + 0x20, struct.pack("<2I", 64, DATA))
    q.write(MESSAGE, b"\x80")
    q.write(CDB, bytes((0x25, *bytes(9))))
    q.outl(PORTS + 0x10, BACK + 0x10)  # DSA
    table = [(0x10000000 | phase << 24, at) for phase, at in ((MESSAGE_OUT, 0), (COMMAND, 8), (DATA_IN, 16))]
    assert ours.run((SELECT | 3 << 16, SCRIPT + 0xF0), *table, (INT, 1))[1] == MA
    assert [q.inl(PORTS + n) for n in (0xC8, 0xCC, 0xD0)] == [56, DATA + 8, BACK + 0x20]


def test_arithmetic_and_branches(chip: Chip) -> None:
    """SCRATCHA gets what the reference says, carry and comparisons included."""
    program = [
        (0x78340000 | 0xF0 << 8, 0),                            # SCRATCHA0 = f0
        (0x7E340000 | 0x20 << 8, 0),                            # += 20: 10, carry
        (0x7F350000 | 0x01 << 8, 0),                            # SCRATCHA1 += 1 + carry: 2
        (0x7A350000 | 0x81 << 8, 0),                            # |= 81: 83
        (0x7B350000 | 0xFF << 8, 0),                            # ^= ff: 7c
        (0x7C350000 | 0x3C << 8, 0),                            # &= 3c: 3c
        (0x72350000, 0),                                        # SFBR = it
        (0x6A360000, 0),                                        # SCRATCHA2 = SFBR
        (0x80040000 | 1 << 19 | 0x3C, SCRIPT + 0x50),           # jump if SFBR is 3c
        (INT, 0xBAD),
        (0x88080000, SCRIPT + 0x60),                            # call
        (INT, 0x600D),
        (0x78370000 | 0x55 << 8, 0),
        (0x90080000, 0),                                        # return
    ]
    assert chip.run(*program) == GOOD
    assert chip.q.inl(PORTS + 0x34) == 0x553C3C10


def test_memory_is_moved_loaded_and_stored(chip: Chip) -> None:
    chip.q.write(DATA, b"0123456789abcdef")
    program = [
        (0xC0000010, DATA, DATA + 0x100),
        (0xE1340004, DATA),                                     # load SCRATCHA
        (0xE0340004, DATA + 0x200),                             # store it
        (INT, 0x600D),
    ]
    assert chip.run(*program) == GOOD
    assert chip.q.read(DATA + 0x100, 16) == b"0123456789abcdef" and chip.q.read(DATA + 0x200, 4) == b"0123"


def test_a_program_reaches_the_chips_own_registers_by_their_addresses(ours: Chip) -> None:
    ours.q.write(DATA, b"wxyz")
    program = [(0xC0000004, DATA, MEMORY + 0x5C), (0xC0000004, MEMORY + 0x5C, DATA + 8), (INT, 0x600D)]
    assert ours.run(*program) == GOOD and ours.q.read(DATA + 8, 4) == b"wxyz"


def test_programs_run_from_the_chips_memory(chip: Chip) -> None:
    assert chip.run((INT, 0x600D), at=PROGRAMS) == GOOD


@pytest.mark.parametrize(
    "program",
    [
        [(0x80080000, SCRIPT)],
        [(0xC0FFFFFF, DATA, DATA + 1), (0x80080000, SCRIPT)],
        [(0xC0FFFFFF, MEMORY, MEMORY), (0x80080000, SCRIPT)],
    ],
    ids=["a circle", "endless copies", "copies of its own registers"],
)
def test_a_program_without_an_end_is_disconnected(ours: Chip, program: list[tuple[int, ...]]) -> None:
    ended = ours.run(*program)
    assert ended[1] == UDC or program[0][1] == MEMORY  # who writes all registers ends as they say


def test_a_target_that_is_disconnected_unexpectedly_gives_up_its_command(ours: Chip) -> None:
    ours.q.write(MESSAGE, b"\x80")
    ours.q.write(CDB, bytes((0x12, 0, 0, 0, 36, 0)))
    begin = [(SELECT | 3 << 16, 0), move(MESSAGE_OUT, 1, MESSAGE), move(COMMAND, 6, CDB)]
    for _ in range(65):  # one more than there is room for
        assert ours.run(*begin, (0x80080000, SCRIPT + 0x18))[:3] == (0, UDC, 0)
    assert ours.command(bytes((0x12, 0, 0, 0, 36, 0)), 36)[0] == GOOD


def test_a_program_that_writes_its_own_start_register_does_not_nest(ours: Chip) -> None:
    ours.q.write(DATA, struct.pack("<I", SCRIPT))
    assert ours.run((0xC0000004, DATA, MEMORY + DSP), (INT, 1))[1] == UDC


def test_garbage_programs_harm_nobody(ours: Chip) -> None:
    chosen, q = random.Random(5), ours.q
    heads = [SELECT | 3 << 16, 0x42000000, WAIT_RESELECT, 0x06000001, 0x02000006, 0x01000200, 0x00000200, 0x03000001]
    heads += [0x07000001, 0x80080000, 0x98080000, 0x78340000, 0xC0000010, 0xE1340004, 0x11000000, 0x21000100]
    for n in range(400):
        rows = []
        for _ in range(12):
            head = chosen.choice(heads) if chosen.random() < 0.8 else chosen.getrandbits(32)
            if chosen.random() < 0.3:
                head ^= 1 << chosen.randrange(32)
            where = chosen.choice([SCRIPT, MESSAGE, CDB, DATA, MEMORY, chosen.getrandbits(32)])
            rows.append(struct.pack("<II", head, where))
        q.write(SCRIPT, b"".join(rows))
        q.write(MESSAGE, bytes((chosen.choice([0x80, 0xC0, 1, 6, 12, 13, 0x20, 7]), *chosen.randbytes(4))))
        q.write(CDB, bytes((chosen.choice([0, 3, 0x12, 0x28, 0x2A, 0x25, 0x1A, 0x15]), *chosen.randbytes(9))))
        q.outl(PORTS + DSP, SCRIPT)
        for _ in range(4):
            q.outb(PORTS + chosen.randrange(256), chosen.getrandbits(8))
        if n % 20 == 0:
            device = q.machine.devices["s"]
            q.settle()
            state = device.save()
            device.load(state)
            q.outb(PORTS + ISTAT, 0x40)
            q.outb(PORTS + ISTAT, 0)
    q.settle()
    q.outb(PORTS + ISTAT, 0x40)
    q.outb(PORTS + ISTAT, 0)
    again = Chip(q)
    for _ in range(3):
        ended = again.command(bytes(6))
    assert ended[0] == GOOD


def test_a_command_under_way_is_repeated_after_a_restore(ours: Chip) -> None:
    """Saved between two pieces of its data, it ends as BUSY."""
    ours.command(bytes(6))
    ours.command(bytes((3, 0, 0, 0, 18, 0)), 18)
    q = ours.q
    q.write(MESSAGE, b"\x80")
    q.write(CDB, struct.pack(">BBIBHB", 0x28, 0, 0, 0, 4, 0))
    begin = [(SELECT | 3 << 16, 0), move(MESSAGE_OUT, 1, MESSAGE), move(COMMAND, 10, CDB), move(DATA_IN, 512, DATA)]
    ours.run(*begin, (INT, 1))
    device = q.machine.devices["s"]
    device.load(device.save())
    ended = ours.run(move(STATUS_PHASE, 1, STATUS), move(MESSAGE_IN, 1, BACK), (WAIT_DISCONNECT, 0), (INT, 0x600D))
    assert ended == GOOD and q.readb(STATUS) == 8
