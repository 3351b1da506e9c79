"""Saved machines without a guest: what comes back, and which files are refused."""

from __future__ import annotations

import json
import os
import pathlib
import random
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.board import Driven
from vmrun.config.resolve import resolve_file
from vmrun.errors import StateError
from vmrun.machine import crossing, hotplug, snapfile, snapshot
from vmrun.machine.builder import build
from vmrun.machine.machine import Machine
from vmrun.machine.snapfile import Reader, Writer

# a clock that counts the machine's time: the host's goes on between the save and the look
STILL: dict[str, Any] = {"rtc": {"base": "2012-06-20T00:00:00", "clock": "vm"}}
KEYS: dict[str, Any] = {"machine": "rhel6.3.0", "memory": "32MiB", "display": "std", "serial": "null", **STILL}


@pytest.fixture
def pc(tmp_path: pathlib.Path) -> Iterator[Driven]:
    (tmp_path / "disk.img").write_bytes(bytes(range(256)) * 4096)
    with Driven(tmp_path, disks=["disk.img"], **KEYS) as pc:
        yield pc


@pytest.fixture
def saved(pc: Driven, tmp_path: pathlib.Path) -> str:
    """A file of a machine in which something happened."""
    for port, value in ((0x70, 0x30), (0x71, 0x5A), (0x3C4, 2), (0x3C5, 5), (0x3FB, 0x83), (0x80, 0x12), (0x92, 2)):
        pc.outb(port, value)
    pc.machine.board.ram.write(0x123456, b"something of the guest's")
    pc.machine.board.virtual.set_time(123_456_789)
    path = str(tmp_path / "pc.vm")
    snapshot.save(pc.machine, path)
    BEFORE.update(memory=bytes(memoryview(pc.machine.board.ram)), states=states_of(pc.machine))
    pc.machine.close()  # the image is one machine's at a time
    return path


BEFORE: dict[str, Any] = {}


def states_of(machine: Machine) -> dict[str, Any]:
    return {id: device.save() for id, device in machine.devices.items()}


def again(path: str) -> Machine:
    return snapshot.restore(path, accel=["qtest"])


def test_everything_comes_back(saved: str) -> None:
    machine = again(saved)
    try:
        assert states_of(machine) == BEFORE["states"]
        assert machine.board.ram.read(0x123456, 24) == b"something of the guest's"
        assert bytes(memoryview(machine.board.ram)) == BEFORE["memory"]
        assert machine.board.virtual.time() == 123_456_789
        assert machine.restored == "paused"
        snapshot.go_on(machine)
        assert machine.state == "paused"
    finally:
        machine.close()


def test_two_saves_of_a_restored_machine_are_equal(saved: str, tmp_path: pathlib.Path) -> None:
    machine = again(saved)
    try:
        for name in ("a", "b"):
            snapshot.save(machine, str(tmp_path / name))
    finally:
        machine.close()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == pathlib.Path(saved).read_bytes()


def test_memory_of_zeros_takes_no_room(pc: Driven, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "pc.vm")
    snapshot.save(pc.machine, path)
    assert os.path.getsize(path) < 1 << 20


def test_what_was_in_memory_before_is_gone(saved: str) -> None:
    with Reader(saved) as reader:
        machine = again(saved)
        try:
            machine.board.ram.write(0x800000, b"of another life")
            snapshot.load(machine, reader)
            assert machine.board.ram.read(0x800000, 15) == bytes(15)
        finally:
            machine.close()


def test_a_file_cut_anywhere_is_refused(saved: str, tmp_path: pathlib.Path) -> None:
    data = pathlib.Path(saved).read_bytes()
    rng = random.Random(1)
    ends = {*range(120), *range(len(data) - 120, len(data)), *(rng.randrange(len(data)) for _ in range(300))}
    short = tmp_path / "short.vm"
    for end in ends:
        short.write_bytes(data[:end])
        with pytest.raises(StateError):
            Reader(str(short))
    short.write_bytes(data + b"\0")
    with pytest.raises(StateError):
        Reader(str(short))


def test_a_file_with_a_changed_bit_is_refused(saved: str, tmp_path: pathlib.Path) -> None:
    data = bytearray(pathlib.Path(saved).read_bytes())
    rng = random.Random(2)
    odd = tmp_path / "odd.vm"
    for where in [*range(24), *(rng.randrange(len(data)) for _ in range(200))]:
        bit = 1 << rng.randrange(8)
        data[where] ^= bit
        odd.write_bytes(data)
        with pytest.raises(StateError):
            Reader(str(odd))
        data[where] ^= bit


def test_a_file_that_cannot_be_written_leaves_nothing(pc: Driven, tmp_path: pathlib.Path) -> None:
    before = sorted(os.listdir(tmp_path))
    path = tmp_path / "pc.vm"
    outgoing = snapshot.Outgoing(pc.machine, "paused")
    with pytest.raises(StateError, match="given up"):
        outgoing.write(str(path), lambda: True)
    with pytest.raises(StateError, match="cannot be written"):
        outgoing.write(str(tmp_path / "nowhere" / "pc.vm"))
    assert sorted(os.listdir(tmp_path)) == before


def test_what_is_no_file_is_written_to_and_stays(tmp_path: pathlib.Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(StateError):  # nobody reads it
        Writer(str(pipe))
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with Writer(str(pipe)) as file:
        file.manifest({})
    assert os.read(reader, len(snapfile.MAGIC)) == snapfile.MAGIC
    os.close(reader)
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_file_is_replaced_only_by_a_whole_one(pc: Driven, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "pc.vm"
    path.write_bytes(b"the one before")
    with pytest.raises(StateError):
        snapshot.Outgoing(pc.machine, "paused").write(str(path), lambda: True)
    assert path.read_bytes() == b"the one before"


def rewritten(path: str, change: Any) -> str:
    """The same file with its manifest and states changed."""
    with Reader(path) as reader:
        manifest, state = reader.manifest, reader.state()
        pieces = list(reader.pieces())
    change(manifest, state)
    with Writer(f"{path}.changed") as file:
        file.manifest(manifest)
        for number, offset, data in pieces:
            file.piece(number, offset, data)
        file.state(state)
    return f"{path}.changed"


def other_firmware(manifest: dict[str, Any], state: dict[str, Any]) -> None:
    manifest["firmware"]["bios"] = "0" * 64


def other_format(manifest: dict[str, Any], state: dict[str, Any]) -> None:
    manifest["format"] = 99


def no_device(manifest: dict[str, Any], state: dict[str, Any]) -> None:
    del state["devices"]["pit"]


def wrong_field(manifest: dict[str, Any], state: dict[str, Any]) -> None:
    state["devices"]["pit"]["state"]["counters"][1]["count"] = 0


def no_processor(manifest: dict[str, Any], state: dict[str, Any]) -> None:
    state["processors"] = []


def other_memory(manifest: dict[str, Any], state: dict[str, Any]) -> None:
    manifest["blocks"][0]["size"] *= 2


def odd_run(manifest: dict[str, Any], state: dict[str, Any]) -> None:
    manifest["run"]["state"] = "elsewhere"


def no_machine(manifest: dict[str, Any], state: dict[str, Any]) -> None:
    manifest["machine"] = {"accel": []}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_firmware, "bios is another image"),
        (other_format, "format 99"),
        (no_device, "other devices: pit"),
        (wrong_field, r"pit.*count is 0"),
        (no_processor, "0 processors"),
        (other_memory, "memory was another"),
        (odd_run, "how the machine was"),
        (no_machine, "describes no machine"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(saved: str, change: Any, told: str) -> None:
    with pytest.raises(StateError, match=told):
        again(rewritten(saved, change))


def test_a_machine_of_another_description_is_named(saved: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "other").mkdir()
    refused = pytest.raises(StateError, match="`devices` differs")
    with Driven(tmp_path / "other", **{**KEYS, "memory": "64MiB"}) as other, Reader(saved) as reader, refused:
        snapshot.load(other.machine, reader)


def test_devices_that_came_and_went_are_there_and_gone(tmp_path: pathlib.Path) -> None:
    """A card put in, one taken out, one that the guest was asked to let go of."""
    path = str(tmp_path / "pc.vm")
    with Driven(
        tmp_path,
        **{**KEYS, "machine": "pc-i440fx-2.0"},
        devices=[{"driver": "pci-testdev", "id": id} for id in ("stays", "goes")],
    ) as pc:
        machine = pc.machine
        come = machine.plug({"driver": "edu", "id": "comes"})
        machine.unplug(machine.devices["goes"])
        pc.outl(0xAE08, 1 << (machine.devices["goes"].devfn >> 3))  # the guest's ejection
        machine.loop.run_once()
        machine.unplug(machine.devices["stays"])
        pc.config(come.devfn >> 3, 0, 0x10, 0xE0000000)
        pc.config(come.devfn >> 3, 0, 4, 2)
        pc.write(0xE0000004, b"\1\0\0\0")
        snapshot.save(machine, path)
        before = states_of(machine)
    after = again(path)
    try:
        assert states_of(after) == before
        assert after.devices["comes"].hotplugged and after.devices["stays"].leaving and "goes" not in after.devices
        assert not after.devices["stays"].hotplugged
        with after.board.lock:
            assert after.board.memory.read(0xE0000004, 4) == 0xFFFFFFFE  # edu gives the complement back
        snapshot.save(after, str(tmp_path / "again.vm"))
    finally:
        after.close()


def test_processors_that_came_are_there(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "pc.json"
    cpus = {"count": 1, "maxcpus": 4}
    keys = {"schema": "vmrun/machine/1", "name": "pc", "machine": "pc-i440fx-2.7", "memory": "32MiB", "cpus": cpus}
    path.write_text(json.dumps(keys | STILL))
    machine = build(resolve_file(str(path)).data, accel=["soft"])
    try:
        machine.plug_processor("second", 3)
        machine.plug_processor("third", 1)
        snapshot.save(machine, str(tmp_path / "pc.vm"))
        before = states_of(machine)
    finally:
        machine.close()
    machine = snapshot.restore(str(tmp_path / "pc.vm"), accel=["soft"])
    try:
        assert states_of(machine) == before
        assert [*machine.assembly.peripheral.children] == ["second", "third"]
        assert machine.board.processors == [0, 1, 3]
        machine.plug_processor("fourth", 2)
    finally:
        machine.close()


def test_processors_that_went_are_gone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "pc.json"
    plugged = [{"id": "own", "socket-id": 3, "core-id": 0, "thread-id": 0}]
    cpus = {"count": 2, "maxcpus": 4, "sockets": 4, "plugged": plugged}
    keys = {"schema": "vmrun/machine/1", "name": "pc", "machine": "pc-i440fx-2.7", "memory": "32MiB", "cpus": cpus}
    path.write_text(json.dumps(keys | STILL))
    machine = build(resolve_file(str(path)).data, accel=["soft"])
    try:
        assert machine.board.processors == [0, 1, 3]
        hotplug.processor_gone(machine, 1)
        snapshot.save(machine, str(tmp_path / "pc.vm"))
        before = states_of(machine)
    finally:
        machine.close()
    machine = snapshot.restore(str(tmp_path / "pc.vm"), accel=["soft"])
    try:
        assert states_of(machine) == before and machine.board.processors == [0, 3]
    finally:
        machine.close()


def test_a_frame_that_promises_more_than_there_may_be_is_refused(tmp_path: pathlib.Path) -> None:
    """A small file must not ask for all of the host's memory."""
    import zstandard

    path = str(tmp_path / "bomb.vm")
    with Writer(path) as file:
        file.manifest({})
        bomb = zstandard.ZstdCompressor(level=19).compress(bytes(64 << 20))
        file._section(snapfile.BLOCK, snapfile.PIECE_HEAD.pack(0, 0, b"\1" + bytes(31)) + bomb)
        file.state({})
    with Reader(path) as reader, pytest.raises(StateError, match="not as large"):
        list(reader.pieces())


HOSTILE = [b"[" * 100_000, b'{"$": 3}', b'{"$": "?"}', b'{"#": [[1]]}', b'{"#": 1}', b"NaN", b"\xff"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_states_are_refused(text: bytes) -> None:
    with pytest.raises(StateError):
        snapfile.decode(text, "x.vm")


def test_plain_values_come_back_as_they_were() -> None:
    values = {"a": [1, -1, None, True, "é", b"\0\xff", {5: b"x", -3: {}}], "b": 1 << 63, "": {}}
    assert snapfile.decode(snapfile.encode(values), "x.vm") == values


# --- between accelerators -------------------------------------------------------------------------------------


def test_floating_point_state_of_before_becomes_an_area() -> None:
    fpu = {
        "fpr": [bytes([n] * 10 + [0] * 6) for n in range(8)],
        "xmm": [bytes([n + 16] * 16) for n in range(16)],
        "fcw": 0x27F,
        "fsw": 0x3800,
        "ftwx": 0x81,
        "last_opcode": 0x123,
        "last_ip": 0x1122334455667788,
        "last_dp": 0x99,
        "mxcsr": 0x1FA0,
    }
    area = crossing.xsave_of(fpu)
    assert struct.unpack_from("<HHBxHQQI", area) == (0x27F, 0x3800, 0x81, 0x123, 0x1122334455667788, 0x99, 0x1FA0)
    assert area[32 + 16 * 3 : 48 + 16 * 3] == fpu["fpr"][3]  # type: ignore[index]
    assert area[160 + 16 * 15 : 416] == bytes([31] * 16)
    assert (struct.unpack_from("<Q", area, 512)[0], any(area[576:])) == (3, False)


def test_state_that_only_kvm_has_is_refused_by_name() -> None:
    area = bytearray(4096)
    struct.pack_into("<Q", area, 512, 0x27)
    area[576 + 5] = 1
    crossing.check_extended(bytes(area))
    area[1088] = 1
    with pytest.raises(StateError, match="avx512f"):
        crossing.check_extended(bytes(area))


def test_an_apic_survives_the_crossing() -> None:
    state = {
        "of": "apic", "version": 1, "base": 0xFEE00900, "id": 3, "tpr_value": 0x20, "ldr": 0x08000000,
        "dfr": 0xFFFFFFFF, "svr": 0x1FF, "esr": 0, "errors": 0, "icr": 0x3000000000C4500, "initial_count": 1000,
        "divide": 3, "deadline": 0, "start": -400 * 16, "extint": 0,
        "lvt": [0x200EF, 0x10000, 0x10000, 0x700, 0x400, 0xFE],
        "irr": [0, 1, 2, 3, 4, 5, 6, 7], "isr": [7] * 8, "tmr": [9] * 8, "timer": 600 * 16,
    }  # fmt: skip
    processor = {"sregs": {"apic_base": 0xFEE00900}, "msrs": {}}
    assert crossing.apic_of(crossing.page_of(state), processor) == state


def leaf(function: int, **registers: int) -> dict[str, int]:
    return {"function": function, "index": 0, "flags": 0, "eax": 0, "ebx": 0, "ecx": 0, "edx": 0, **registers}


def test_features_that_the_host_lacks_are_named() -> None:
    saved = [[leaf(1, ecx=1 << 19 | 1 << 20, edx=1)]]
    with pytest.raises(StateError, match=r"sse4\.2"):
        crossing.same_cpuid(saved[0], 0, [leaf(1, ecx=1 << 19, edx=1)])
    assert crossing.same_cpuid(saved[0], 0, [leaf(1, ecx=0xFFFFFFFF, edx=3)]) == saved[0]


def test_states_of_an_xsave_area_that_lie_elsewhere_are_refused_but_by_soft() -> None:
    saved, own = ([{**leaf(0xD, eax=8, ebx=at), "index": 9, "flags": 1}] for at in (2432, 2688))
    with pytest.raises(StateError, match="state 9 at 2432 .* here at 2688"):
        crossing.same_cpuid(saved, 0, own)
    assert crossing.same_cpuid(saved, 0, own, any_layout=True) == crossing.same_cpuid(saved, 0, saved) == saved


@pytest.mark.parametrize("rows", [None, 7, [{}], [None], [leaf(1, eax=1 << 32)], [{**leaf(1), "eax": "x"}]])
def test_odd_cpuid_is_refused(rows: Any) -> None:
    with pytest.raises(StateError):
        crossing.same_cpuid(rows, 0, [leaf(1)])


# --- disks ----------------------------------------------------------------------------------------------------


def test_a_transfer_under_way_is_over_before_the_state_is_taken(pc: Driven, tmp_path: pathlib.Path) -> None:
    """READ DMA of 256 sectors, saved at once: what was restored has the data, the interrupt and an idle drive."""
    bus_master = 0xC000
    slot = next(device for device in pc.machine.devices.values() if device.driver == "piix3-ide").devfn
    for offset, value in ((0x20, bus_master), (4, 5)):
        pc.outl(0xCF8, 0x80000000 | slot << 8 | offset)
        pc.outl(0xCFC, value)
    pc.write(0x8000, struct.pack("<II", 0x100000, 0) + struct.pack("<II", 0x110000, 0x80000000))  # twice 64 KiB
    pc.outl(bus_master + 4, 0x8000)
    pc.outb(bus_master, 8)
    for port, value in ((0x1F2, 0), (0x1F3, 0), (0x1F4, 0), (0x1F5, 0), (0x1F6, 0xE0), (0x1F7, 0xC8)):
        pc.outb(port, value)
    pc.outb(bus_master, 9)
    path = str(tmp_path / "pc.vm")
    snapshot.save(pc.machine, path)
    pc.machine.close()
    machine = again(path)
    try:
        assert machine.board.ram.read(0x100000, 1 << 17) == bytes(range(256)) * 512
        ide: Any = next(device for device in machine.devices.values() if device.driver == "piix3-ide")
        channel = ide.channels[0]
        assert (channel.phase, channel.drives[0]["status"], channel.pending) == (0, 0x50, True)
        assert machine.board.io.read(bus_master + 2, 1) & 5 == 4
    finally:
        machine.close()


def test_a_request_that_failed_and_waits_is_no_state_to_save(pc: Driven, tmp_path: pathlib.Path) -> None:
    class Parked:
        has_parked = True

        def drain(self) -> None:
            pass

        def close(self) -> None:
            pass

    pc.machine.board.drives["odd"] = Parked()  # type: ignore[assignment]
    with pytest.raises(StateError, match="drive odd failed and waits"):
        snapshot.save(pc.machine, str(tmp_path / "pc.vm"))
