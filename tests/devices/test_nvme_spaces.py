"""Namespaces of NVMe controllers (nvme-ns) and subsystems (nvme-subsys), beside QEMU's where it is installed."""

from __future__ import annotations

import pathlib
import random
import struct
from typing import Any

import pytest

from tests.devices.nvme import ADMIN, DATA, SLOT, Driver
from tests.peers.oracle import QEMU
from vmrun.errors import BuildError, ConfigError
from vmrun.machine import blocks
from vmrun.testing import QTest, QtestCommands, QtestProgram

SIZE = 1 << 20
UUID = "01234567-89ab-cdef-0123-456789abcde"
ALONE: list[dict[str, Any]] = [
    {"driver": "nvme", "id": "n", "serial": "abc"},
    {"driver": "nvme-ns", "id": "a", "drive": "d0", "bus": "n", "nsid": 1},
    {
        **{"driver": "nvme-ns", "id": "b", "drive": "d1", "bus": "n", "nsid": 5, "uuid": f"{UUID}f"},
        **{"eui64": 0x1122334455667788, "logical_block_size": 4096, "physical_block_size": 4096},
    },
    {"driver": "nvme-ns", "id": "c", "drive": "d2", "bus": "n", "shared": False, "eui64-default": True},
]
SUBSYSTEM: list[dict[str, Any]] = [
    {"driver": "nvme-subsys", "id": "z", "nqn": "foo"},
    {"driver": "nvme", "id": "n", "serial": "abc", "subsys": "z"},
    {"driver": "nvme", "id": "o", "serial": "abc", "subsys": "z"},
    {"driver": "nvme-ns", "id": "a", "drive": "d0", "bus": "n", "uuid": f"{UUID}0"},
    {"driver": "nvme-ns", "id": "b", "drive": "d1", "bus": "o", "nsid": 5, "shared": False, "uuid": f"{UUID}1"},
    {"driver": "nvme-ns", "id": "c", "drive": "d2", "bus": "n", "detached": True, "uuid": f"{UUID}2"},
    {
        **{"driver": "nvme-ns", "id": "d", "drive": "d3", "bus": "o", "detached": True, "shared": False},
        **{"nsid": 3, "uuid": f"{UUID}3"},
    },
]
OWN: list[dict[str, Any]] = [
    {"driver": "nvme", "id": "n", "serial": "abc", "drive": "d0", "mdts": 3, "vsl": 2, "aerl": 1, "write-cache": "off"},
    {
        **{"driver": "nvme-ns", "id": "a", "drive": "d1", "bus": "n", "logical_block_size": 2048},
        **{"write-cache": "off", "physical_block_size": 2048, "discard_granularity": 65536},
        **{"mcl": 5, "mssrl": 3, "msrc": 2},
    },
    {"driver": "nvme-ns", "id": "b", "drive": "d2", "bus": "n", "eui64-default": True, "write-cache": "off"},
]
NUMBERS = (0, 1, 2, 3, 5, 6, 256, 257, 0xFFFFFFFE, 0xFFFFFFFF)


def images(directory: pathlib.Path) -> None:
    for n in range(4):
        (directory / f"{n}.img").write_bytes(random.Random(n).randbytes(SIZE))


def placed(devices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the controllers in slots from SLOT on."""
    names = [row["id"] for row in devices if row["driver"] == "nvme"]
    return [
        {**row, "addr": f"{SLOT + names.index(row['id']):02x}.0"} if row["driver"] == "nvme" else row
        for row in devices
    ]


def ours(directory: pathlib.Path, devices: list[dict[str, Any]]) -> QTest:
    images(directory)
    used = sorted({row["drive"] for row in devices if "drive" in row})
    drives = {id: {"file": str(directory / f"{id[1:]}.img"), "format": "raw", "discard": "unmap"} for id in used}
    return QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB", "drives": drives, "devices": placed(devices)})


def theirs(directory: pathlib.Path, devices: list[dict[str, Any]]) -> QtestProgram:
    """Its controller works on a timer of virtual time, so a processor must run: one that has halted."""
    images(directory)
    firmware = directory / "halt.bin"
    firmware.write_bytes((b"\xf4" * 0xFFF0 + b"\xfa\xf4\xeb\xfd").ljust(0x10000, b"\xf4"))
    command = [QEMU or "qemu-system-x86_64", "-M", "pc-i440fx-7.2", "-m", "64", "-accel", "tcg", "-nodefaults"]
    command += ["-display", "none", "-bios", str(firmware)]
    for n in range(4):
        command += ["-drive", f"if=none,id=d{n},format=raw,discard=unmap,file={directory}/{n}.img"]
    for row in placed(devices):
        given = {key: value for key, value in row.items() if key != "driver"}
        words = [f"{key}={('off', 'on')[value] if type(value) is bool else value}" for key, value in given.items()]
        command += ["-device", ",".join([row["driver"], *words])]
    return QtestProgram(command)


def shown(data: bytes) -> str:
    rows = {at: data[at : at + 16] for at in range(0, len(data), 16)}
    return " ".join(f"{at:03x}:{row.hex()}" for at, row in rows.items() if any(row))


def begun(q: QtestCommands, which: int) -> Driver:
    driver = Driver(q, which)
    driver.enable()
    driver.make_io()
    return driver


def attach(driver: Driver, nsid: int, select: int, controllers: list[int]) -> int:
    driver.q.memset(DATA, 4096)
    driver.q.write(DATA, struct.pack(f"<H{len(controllers)}H", len(controllers), *controllers))
    return driver.admin(0x15, nsid, prp1=DATA, cdw10=select)[0]


def listed(driver: Driver, cns: int = 2) -> list[int]:
    return [number for number in struct.unpack("<1024I", driver.identify(cns)[1]) if number]


def questions(q: QtestCommands, controllers: int) -> dict[str, Any]:
    """What controllers say of their namespaces, before and while these are attached elsewhere."""
    found: dict[str, Any] = {}
    for which in range(controllers):
        driver = begun(q, which)
        for cns in (0, 1, 2, 3, 5, 6, 7, 8, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x1A, 0x1B, 0x1C):
            for nsid in NUMBERS:
                for command_set in (0, 2, 3):
                    status, data = driver.identify(cns, nsid, command_set << 24)
                    data = data[:0x40] + data[0x48:] if cns == 1 else data  # the firmware's version
                    found[f"{which}: identify {cns:#x} {nsid:#x} {command_set}"] = status, shown(data)
        for first in (1, 2, 0xFFFF):
            for cns in (0x12, 0x13):
                status, data = driver.identify(cns | first << 16, 1)
                found[f"{which}: {cns:#x} from {first}"] = status, shown(data)
        for nsid in NUMBERS:
            for feature in (4, 5, 6, 11):
                found[f"{which}: get {feature} {nsid:#x}"] = driver.admin(0x0A, nsid, cdw10=feature)
            found[f"{which}: set 5 {nsid:#x}"] = driver.admin(9, nsid, cdw10=5, cdw11=5)
            for number in (1, 5):
                found[f"{which}: then 5 {nsid:#x} of {number}"] = driver.admin(0x0A, number, cdw10=5)
            for opcode in (0, 1, 2, 4, 5, 8, 9, 0x0C):
                q.memset(DATA, 4096)
                answer = driver.io(opcode, nsid, prp1=DATA, cdw11=4 if opcode == 9 else 0)
                found[f"{which}: do {opcode:#x} {nsid:#x}"] = answer
            for page in (2, 4):
                q.memset(DATA, 4096)
                status = driver.admin(2, nsid, prp1=DATA, cdw10=127 << 16 | page)[0]
                found[f"{which}: log {page} {nsid:#x}"] = status, shown(q.read(DATA, 512))
            for form in (0, 4, 0x20, 15):
                answer = driver.admin(0x80, nsid, cdw10=form)
                told = [shown(driver.identify(0, number)[1]) for number in (1, 2, 5)]
                found[f"{which}: format {nsid:#x} {form:#x}"] = answer, told
    rng = random.Random(5)
    drivers = [begun(q, which) for which in range(controllers)]
    for step in range(80):
        driver = rng.choice(drivers)
        nsid, select = rng.choice((1, 2, 3, 5, 6, 0)), rng.choice((0, 0, 1, 1, 2))
        chosen = rng.choice(([0], [1], [0, 1], [1, 0], [2], [], [0, 0], [40]))
        answer = attach(driver, nsid, select, chosen)
        found[f"attach {step}: {nsid} {select} {chosen}"] = answer, [listed(each) for each in drivers]
        if rng.random() < 0.3:
            q.memset(DATA, 4096)
            beyond = driver.admin(2, 0xFFFFFFFF, prp1=DATA, cdw10=127 << 16 | 4, cdw12=4096)
            found[f"beyond {step}"] = beyond  # nothing of the list has been read then
            status = driver.admin(2, 0xFFFFFFFF, prp1=DATA, cdw10=127 << 16 | 4)[0]
            found[f"changed {step}"] = status, shown(q.read(DATA, 512))
    return found


@pytest.mark.peer
@pytest.mark.parametrize("devices", [ALONE, SUBSYSTEM, OWN, ALONE[:1]], ids=["alone", "both", "own", "none"])
def test_controllers_say_of_their_namespaces_what_qemu_s_say(
    devices: list[dict[str, Any]], tmp_path: pathlib.Path
) -> None:
    if QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    answers = []
    for make in (ours, theirs):
        with make(tmp_path, devices) as q:
            answers.append(questions(q, sum(row["driver"] == "nvme" for row in devices)))
    mine, his = answers
    assert set(mine) == set(his) and len(mine) > 500
    differ = {name: (mine[name], his[name]) for name in mine if mine[name] != his[name]}
    # blocks given back at once are computed there when a namespace is attached: a format by another controller goes by
    assert {name: pair for name, pair in differ.items() if not name.startswith("1: identify 0x6 ")} == {}


def test_each_namespace_is_its_own_drive(tmp_path: pathlib.Path) -> None:
    with ours(tmp_path, ALONE) as q:
        driver = begun(q, 0)
        for nsid, image, shift in ((1, 0, 9), (5, 1, 12), (2, 2, 9)):
            assert driver.io(2, nsid, prp1=DATA, cdw10=3) == (0, 0)
            assert q.read(DATA, 1 << shift) == (tmp_path / f"{image}.img").read_bytes()[3 << shift : 4 << shift]
            q.memset(DATA, 4096, nsid)
            assert driver.io(1, nsid, prp1=DATA, cdw10=4) == (0, 0)
            assert driver.io(0, nsid) == (0, 0)
            assert (tmp_path / f"{image}.img").read_bytes()[4 << shift : 5 << shift] == bytes([nsid]) * (1 << shift)
        assert driver.io(2, 5, prp1=DATA, cdw10=SIZE >> 12)[0] == 0x4080
        assert driver.io(0, 0xFFFFFFFF) == (0, 0)


def test_blocks_are_copied(tmp_path: pathlib.Path) -> None:
    before = random.Random(0).randbytes(SIZE)
    with ours(tmp_path, ALONE) as q:
        driver = begun(q, 0)

        def copy(rows: list[tuple[int, int]], to: int, word: int = 0) -> tuple[int, int]:
            q.write(DATA, b"".join(struct.pack("<QQHHIQ", 0, first, count - 1, 0, 0, 0) for first, count in rows))
            return driver.io(0x19, 1, prp1=DATA, cdw10=to, cdw12=word | len(rows) - 1)

        assert copy([(10, 3), (100, 1), (0, 64)], 500, 1 << 30) == (0, 0)
        blocks_ = [*range(10, 13), 100, *range(64)]
        expected = b"".join(before[512 * n : 512 * n + 512] for n in blocks_)
        assert (tmp_path / "0.img").read_bytes() == before[:256000] + expected + before[256000 + len(expected) :]
        assert copy([(0, 129)], 500) == (0x4183, 0)
        assert copy([(0, 64), (0, 65)], 500) == (0x4183, 1)
        assert copy([(0, 1), (SIZE // 512 - 1, 2)], 500) == (0x4080, 1)
        assert copy([(0, 2)], SIZE // 512 - 1) == (0x4080, 0)
        assert copy([(0, 1)], 500, 0x100) == (0x410A, 0)
        assert driver.io(2, 1, prp1=DATA) == (0, 0)


def test_a_copy_of_many_pieces_is_whole(tmp_path: pathlib.Path) -> None:
    """Ranges of more than is moved at one go."""
    devices = [ALONE[0], {**ALONE[1], "mcl": 4096, "mssrl": 4096}]
    with ours(tmp_path, devices) as q:
        (tmp_path / "0.img").write_bytes(before := random.Random(9).randbytes(8 << 20))
        blocks.resize(q.machine, "d0", "", 8 << 20)
        driver = begun(q, 0)
        q.write(DATA, struct.pack("<QQHHIQ", 0, 7, 4095, 0, 0, 0))
        assert driver.io(0x19, 1, prp1=DATA, cdw10=9000) == (0, 0)
        assert (tmp_path / "0.img").read_bytes()[9000 * 512 :][: 4096 * 512] == before[7 * 512 :][: 4096 * 512]


def test_who_has_a_namespace_is_told_of_it(tmp_path: pathlib.Path) -> None:
    with ours(tmp_path, SUBSYSTEM) as q:
        first, second = begun(q, 0), begun(q, 1)
        assert second.admin(9, cdw10=0x0B, cdw11=0x100)[0] == 0
        number = second.post(ADMIN, 0x0C)
        assert attach(first, 2, 0, [0, 1]) == 0
        assert second.reap(ADMIN) == (0, 0x00040002, number)
        q.memset(DATA, 4096)
        assert second.admin(2, 0xFFFFFFFF, prp1=DATA, cdw10=1023 << 16 | 4)[0] == 0
        assert struct.unpack("<2I", q.read(DATA, 8)) == (2, 0)
        number = second.post(ADMIN, 0x0C)
        blocks.resize(q.machine, "d2", "", 2 * SIZE)
        assert second.reap(ADMIN) == (0, 0x00040002, number)
        for driver in (first, second):
            assert struct.unpack_from("<Q", driver.identify(0, 2)[1])[0] == 2 * SIZE // 512
            assert driver.io(2, 2, prp1=DATA, cdw10=2 * SIZE // 512 - 1) == (0, 0)


def test_both_controllers_write_and_read_one_namespace(tmp_path: pathlib.Path) -> None:
    with ours(tmp_path, SUBSYSTEM) as q:
        first, second = begun(q, 0), begun(q, 1)
        q.memset(DATA, 512, 0x5A)
        assert first.io(1, 1, prp1=DATA, cdw10=9) == (0, 0)
        assert second.io(2, 1, prp1=DATA + 512, cdw10=9) == (0, 0)
        assert q.read(DATA + 512, 512) == b"\x5a" * 512
        assert first.admin(0x80, 1, cdw10=4) == (0, 0)
        assert second.identify(0, 1)[1][26] == 4
        assert second.io(2, 1, prp1=DATA, cdw10=SIZE >> 12)[0] == 0x4080


def test_state_has_what_is_attached_and_how_it_is_formatted(tmp_path: pathlib.Path) -> None:
    with ours(tmp_path, SUBSYSTEM) as q:
        first = begun(q, 0)
        assert attach(first, 2, 0, [0]) == 0 and attach(first, 1, 1, [1]) == 0
        assert first.admin(0x80, 2, cdw10=4) == (0, 0) and first.admin(9, 1, cdw10=5, cdw11=7)[0] == 0
        devices = {id: q.machine.devices[id] for id in ("n", "o", "a", "b", "c", "d")}
        kept = {id: device.save() for id, device in devices.items()}
    with ours(tmp_path, SUBSYSTEM) as q:
        for id, state in kept.items():
            q.machine.devices[id].load(state)
        assert {id: q.machine.devices[id].save() for id in kept} == kept
        first, second = begun(q, 0), begun(q, 1)
        assert listed(first) == [1, 2] and listed(second) == [5]
        assert first.identify(0, 2)[1][26] == 4 and first.admin(0x0A, 1, cdw10=5) == (0, 7)


def test_a_reset_keeps_format_and_attachment(tmp_path: pathlib.Path) -> None:
    with ours(tmp_path, SUBSYSTEM) as q:
        first = begun(q, 0)
        assert attach(first, 2, 0, [0]) == 0 and first.admin(0x80, 2, cdw10=4) == (0, 0)
        q.machine.devices["n"].reset()
        first = begun(q, 0)
        assert listed(first) == [1, 2] and first.identify(0, 2)[1][26] == 4


def test_a_cache_that_a_guest_has_put_off_is_off_in_its_state(tmp_path: pathlib.Path) -> None:
    """A reset said that it was on, and so was that of a machine that went on from the state, unknown to the guest."""
    with ours(tmp_path, ALONE) as q:
        first = begun(q, 0)
        assert first.admin(0x0A, cdw10=6) == (0, 1)
        assert first.admin(9, cdw10=6, cdw11=0)[0] == 0
        kept = q.machine.devices["n"].save()
        q.machine.devices["n"].reset()
        assert begun(q, 0).admin(0x0A, cdw10=6) == (0, 0)
    with ours(tmp_path, ALONE) as q:
        q.machine.devices["n"].load(kept)
        assert begun(q, 0).admin(0x0A, cdw10=6) == (0, 0)
        assert not any(drive.write_cache for drive in q.machine.board.drives.values())


def test_a_state_from_before_there_were_namespaces(tmp_path: pathlib.Path) -> None:
    with ours(tmp_path, OWN[:1]) as q:
        device = q.machine.devices["n"]
        new = device.save()
        chip = {key: value for key, value in new["chip"].items() if key not in ("attached", "changed_spaces")}
        old = {key: value for key, value in new.items() if key != "space"} | {"version": 2}
        own = {"reads": 3, "writes": 4, "blocks_read": 5, "blocks_written": 6, "block_exponent": 12}
        device.load({**old, "chip": {**chip, "version": 1, **own}})
        assert {key: device.save()["space"][key] for key in own} == own
        driver = begun(q, 0)
        assert listed(driver) == [1] and driver.identify(0, 1)[1][26] == 4


REFUSED = [
    ([{**ALONE[1], "nsid": 257}], "invalid namespace id"),
    ([ALONE[1], {**ALONE[2], "nsid": 1}], "namespace id '1' already allocated"),
    ([{**ALONE[1], "detached": True}], "detached requires that the nvme device is linked to an nvme-subsys device"),
    ([{"driver": "nvme-ns", "id": "a", "bus": "n"}], "block backend not configured"),
    ([{**ALONE[1], "logical_block_size": 4096}], "logical_block_size > physical_block_size not supported"),
    ([{**ALONE[1], "uuid": "x"}], "is no UUID"),
    ([{**ALONE[1], "zoned": True}], "zones are not modelled"),
    ([{**ALONE[1], "ms": 8}], "ms"),
    ([{"driver": "nvme", "id": "m", "serial": "x", "subsys": "n"}], "is not an nvme-subsys"),
    ([{"driver": "nvme", "id": "m", "serial": "x", "subsys": "none"}], "none"),
    (
        [SUBSYSTEM[0], {"driver": "nvme", "id": "m", "serial": "x", "subsys": "z", "drive": "d0"}],
        "subsystem support is unavailable with legacy namespace",
    ),
    ([{"driver": "nvme", "id": "m"}], "serial property not set"),
]


@pytest.mark.parametrize(("more", "text"), REFUSED, ids=[text for _, text in REFUSED])
def test_what_cannot_be_is_said(more: list[dict[str, Any]], text: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises((BuildError, ConfigError), match=text), ours(tmp_path, [ALONE[0], *more]):
        pass


def test_an_unplugged_controller_takes_its_namespaces_along(tmp_path: pathlib.Path) -> None:
    """They go with the bus that they are on, for the others of the subsystem too."""
    with ours(tmp_path, SUBSYSTEM) as q:
        begun(q, 0)
        second = begun(q, 1)
        assert listed(second) == [1, 5] and listed(second, 0x10) == [1, 2, 3, 5]
        with q.machine.board.lock:
            q.machine.board.let_go(q.machine.devices["n"])
        assert listed(second) == [5] and listed(second, 0x10) == [3, 5]
        assert second.identify(0x13)[1][:6] == struct.pack("<3H", 1, 1, 0)
