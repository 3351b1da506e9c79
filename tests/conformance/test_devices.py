"""What every device of every board must keep: saving, loading, resetting, and answering any access at all."""

from __future__ import annotations

import gc
import os
import pathlib
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.board import Driven
from tests.devices.test_tpm import Program
from vmrun.config.catalogue import load_catalogue
from vmrun.core.interfaces import TrustedModule
from vmrun.core.object import Device
from vmrun.errors import BackendError, StateError

TYPES = {"rhel6.3.0": "cirrus", "pc-i440fx-2.0": "std", "pc-i440fx-7.2": "virtio"}  # and the display of each
NEWEST = "pc-i440fx-7.2"
CARDS, OTHERS, SCREEN = "cards", "others", "screen"  # boards of the newest type with what the others have no room for
BOARDS = (*TYPES, CARDS, OTHERS, SCREEN)
EXTRA = [
    {"id": "lpt", "driver": "isa-parallel", "chardev": "c1"},
    {"id": "dbg", "driver": "isa-debugcon", "iobase": 0x402, "chardev": "c2"},
    {"id": "exit", "driver": "isa-debug-exit"},
    {"id": "panic", "driver": "pvpanic"},
    {"id": "panic-pci", "driver": "pvpanic-pci"},
    {"id": "dog", "driver": "i6300esb"},
    {"id": "isa-dog", "driver": "ib700"},
    {"id": "ports", "driver": "pci-serial-2x", "chardev1": "c3"},
    {"id": "shared", "driver": "ivshmem-plain", "memdev": "shm"},
    {"id": "edu", "driver": "edu"},
    {"id": "testdev", "driver": "pci-testdev"},
    {"id": "rng", "driver": "virtio-rng-pci"},
    {"id": "balloon", "driver": "virtio-balloon-pci", "free-page-reporting": True},
    {"id": "vblk", "driver": "virtio-blk-pci", "drive": "vd"},
    {"id": "bridge", "driver": "pci-bridge", "chassis_nr": 1},
    {"id": "nic0", "driver": "e1000"},
    {"id": "nic1", "driver": "rtl8139"},
    {"id": "nic2", "driver": "pcnet"},
    {"id": "nic3", "driver": "ne2k_pci"},
    {"id": "nic4", "driver": "ne2k_isa", "irq": 5},
    {"id": "nic5", "driver": "i82551"},
    {"id": "nic6", "driver": "i82557c"},
    {"id": "nic7", "driver": "e1000e"},
    {"id": "nic8", "driver": "vmxnet3"},
    {"id": "nic9", "driver": "virtio-net-pci"},
    {"id": "apart", "driver": "virtio-scsi-pci", "iothread": "io"},
    {"id": "vscsi", "driver": "virtio-scsi-pci"},
    {"id": "sd", "driver": "scsi-hd", "bus": "vscsi.0", "drive": "sd0"},
    {"id": "sr", "driver": "scsi-cd", "bus": "vscsi.0", "drive": "sr0"},
    {"id": "lsi", "driver": "lsi53c895a"},
    {"id": "sd1", "driver": "scsi-cd", "bus": "lsi.0"},
    {"id": "mega", "driver": "megasas"},
    {"id": "sd2", "driver": "scsi-cd", "bus": "mega.0"},
    {"id": "nvme", "driver": "nvme", "drive": "nv", "serial": "1"},
    {"id": "spaces", "driver": "nvme-subsys"},
    {"id": "nvme1", "driver": "nvme", "serial": "1", "subsys": "spaces"},
    {"id": "space", "driver": "nvme-ns", "bus": "nvme1", "drive": "nv1"},
    {"id": "esp", "driver": "am53c974"},
    {"id": "sd3", "driver": "scsi-cd", "bus": "esp.0"},
    {"id": "bmc0", "driver": "ipmi-bmc-sim"},
    {"id": "bmc1", "driver": "ipmi-bmc-sim"},
    {"id": "bmc2", "driver": "ipmi-bmc-sim"},
    {"id": "kcs", "driver": "isa-ipmi-kcs", "bmc": "bmc0"},
    {"id": "bt", "driver": "isa-ipmi-bt", "bmc": "bmc1"},
    {"id": "erst", "driver": "acpi-erst", "memdev": "records"},
    {"id": "kcs-card", "driver": "pci-ipmi-kcs", "bmc": "bmc2"},
]
NEWER = [{"id": "generation", "driver": "vmgenid"}, {"id": "coreinfo", "driver": "vmcoreinfo"}]
CARDS_OF = [
    {"id": "bridge", "driver": "i82801b11-bridge"},
    *(
        {"id": f"card{n}", "driver": driver, "bus": "bridge"}
        for n, driver in enumerate((
            "e1000-82540em", "e1000-82544gc", "e1000-82545em", "i82550", "i82557a", "i82557b", "i82558a", "i82558b",
            "i82559a", "i82559b", "i82559c", "i82559er", "i82562", "i82801", "pci-serial", "pci-serial-4x",
        ))
    ),
    *({"id": f"net-{way}", "driver": f"virtio-net-pci-{way}"} for way in ("transitional", "non-transitional")),
    *({"id": f"rng-{way}", "driver": f"virtio-rng-pci-{way}"} for way in ("transitional", "non-transitional")),
    *({"id": f"balloon-{way}", "driver": f"virtio-balloon-pci-{way}"} for way in ("transitional", "non-transitional")),
    {"id": "balloon-pci", "driver": "virtio-balloon"},
    {"id": "net-pci", "driver": "virtio-net"},
    {"id": "rng-pci", "driver": "virtio-rng"},
    {"id": "screen", "driver": "isa-cirrus-vga"},
    {"id": "bmc", "driver": "ipmi-bmc-sim"},
    {"id": "bt-card", "driver": "pci-ipmi-bt", "bmc": "bmc"},
]  # fmt: skip
SCREENS_OF = [
    {"id": "gpu", "driver": "virtio-gpu-pci"},
    {"id": "second", "driver": "secondary-vga"},
    {"id": "bochs", "driver": "bochs-display"},
]
OTHERS_OF = [
    *(
        {"id": f"disk{n}", "driver": driver, "drive": f"d{n}"}
        for n, driver in enumerate(("virtio-blk", "virtio-blk-pci-transitional", "virtio-blk-pci-non-transitional"))
    ),
    *(
        {"id": f"scsi{n}", "driver": driver}
        for n, driver in enumerate((
            "virtio-scsi", "virtio-scsi-pci-transitional", "virtio-scsi-pci-non-transitional", "dc390", "lsi",
            "lsi53c810", "megasas-gen2", "pvscsi",
        ))
    ),
    *({"id": f"cd{n}", "driver": "scsi-cd", "bus": f"scsi{n}.0"} for n in range(8)),
    {"id": "sd", "driver": "scsi-disk", "bus": "scsi0.0", "drive": "d3", "scsi-id": 5},
    {"id": "optical", "driver": "ide-cd", "bus": "ide.1"},
    {"id": "gpu", "driver": "virtio-gpu"},
    {"id": "module", "driver": "pc-dimm", "memdev": "dimm"},
    {"id": "kept", "driver": "nvdimm", "memdev": "pmem", "label-size": "128KiB"},
    {"id": "test", "driver": "pc-testdev"},
    {"id": "screen", "driver": "isa-vga"},
    {"id": "sga", "driver": "sga"},
    {"id": "crb", "driver": "tpm-crb", "tpmdev": "tpm0"},
    {"id": "tis", "driver": "tpm-tis", "tpmdev": "tpm1"},
]  # fmt: skip
CHARDEVS = {name: {"type": "null"} for name in ("c1", "c2", "c3")}


def board(directory: pathlib.Path, machine: str) -> Driven:
    if machine == CARDS:
        return Driven(directory, machine=NEWEST, memory="64MiB", display="none", devices=CARDS_OF)
    if machine == OTHERS:
        return others(directory)
    if machine == SCREEN:
        return Driven(directory, machine=NEWEST, memory="64MiB", display="vmware", devices=SCREENS_OF)
    for name in ("disk.img", "other.img", "third.img", "fourth.img", "fifth.img", "flash.img"):
        (directory / name).write_bytes(bytes(1 << 20))
    flash = {} if machine.startswith("rhel") else {"pflash": "flash.img"}
    return Driven(
        directory,
        machine=machine,
        memory="64MiB",
        display=TYPES[machine],
        disks=["disk.img"],
        drives={
            "vd": {"file": "other.img", "format": "raw"},
            "sd0": {"file": "third.img", "format": "raw"},
            "sr0": {"media": "cdrom"},
            "nv": {"file": "fourth.img", "format": "raw"},
            "nv1": {"file": "fifth.img", "format": "raw"},
        },
        serial="null",
        floppies=["empty"],
        devices=EXTRA + (NEWER if machine == "pc-i440fx-7.2" else []),
        chardevs=CHARDEVS,
        objects={
            "shm": {"type": "memory-backend-ram", "size": "1MiB"},
            "io": {"type": "iothread"},
            "records": {"type": "memory-backend-ram", "size": "64KiB"},
        },
        **flash,
    )


def others(directory: pathlib.Path) -> Driven:
    """With a program behind each TPM, and memory that is plugged in."""
    tpms = [f"tpm{n}" for n in range(2)]
    for name in tpms:
        Program(str(directory / name))
    for n in range(4):
        (directory / f"d{n}.img").write_bytes(bytes(1 << 20))
    return Driven(
        directory,
        machine=NEWEST,
        memory="64MiB",
        display="none",
        drives={f"d{n}": {"file": f"d{n}.img", "format": "raw"} for n in range(4)},
        devices=OTHERS_OF,
        chardevs={f"c-{name}": {"type": "socket", "path": str(directory / name)} for name in tpms},
        objects={
            "dimm": {"type": "memory-backend-ram", "size": "128MiB"},
            "pmem": {"type": "memory-backend-ram", "size": "64MiB"},
            **{name: {"type": "tpm-emulator", "chardev": f"c-{name}"} for name in tpms},
        },
        **{"memory-slots": {"count": 2, "maxmem": "1GiB", "nvdimm": True}},
    )


def devices_of(pc: Driven) -> list[Device]:
    """All whose state is the machine's: a TPM's is its program's."""
    return [device for device in pc.machine.devices.values() if not isinstance(device, TrustedModule)]


def test_every_driver_that_a_user_may_have_is_on_a_board(tmp_path: pathlib.Path) -> None:
    there = {row["driver"] for row in EXTRA + CARDS_OF + OTHERS_OF}  # aliases, which the device does not know of
    for name in BOARDS:
        (tmp_path / name).mkdir()
        with board(tmp_path / name, name) as pc:
            there |= {device.driver for device in pc.machine.devices.values()}
    known = load_catalogue()
    wanted = {name for name in known.modelled_names() if known.driver(name).user_creatable}
    assert sorted(wanted - there) == []


@pytest.mark.parametrize("machine", BOARDS)
def test_save_load_save_gives_the_same_state(machine: str, tmp_path: pathlib.Path) -> None:
    with board(tmp_path, machine) as pc:
        wrong = []
        for device in devices_of(pc):
            for _ in range(3):  # a clock may have moved on between
                state = device.save()
                if not state:
                    break
                device.load(state)
                if device.save() == state:
                    break
            else:
                wrong.append(device.driver)
        assert wrong == []


@pytest.mark.parametrize("machine", BOARDS)
def test_reset_gives_the_state_of_power_on(machine: str, tmp_path: pathlib.Path) -> None:
    # The clock and CMOS are on the battery; a master clear leaves a DMA channel's address and count (data sheet); the
    # test device has no reset line.
    kept = {"mc146818rtc", "i8257", "pc-testdev"}
    with board(tmp_path, machine) as pc:
        fresh = {device.path: device.save() for device in devices_of(pc)}
        rng = random.Random(3)
        for _ in range(3000):
            port = rng.randrange(0x1000)
            if port not in (0xCF9, 0x92, 0x64):
                pc.port(port, rng.choice([1, 2, 4]), rng.getrandbits(32))
        pc.machine.cold_reset()
        wrong = [
            device.driver
            for device in devices_of(pc)
            if device.save() != fresh[device.path] and device.driver not in kept
        ]
        assert wrong == []


@pytest.mark.parametrize("machine", TYPES)
def test_any_access_of_any_size_to_any_port_returns(machine: str, tmp_path: pathlib.Path) -> None:
    with board(tmp_path, machine) as pc:
        rng = random.Random(5)
        for port in range(0x10000):
            for size in (1, 2, 4):
                value = pc.port(port, size)
                assert 0 <= value < 1 << (8 * size)
            pc.port(port, rng.choice([1, 2, 4]), rng.getrandbits(32))


@pytest.mark.parametrize("machine", TYPES)
def test_any_access_to_device_memory_returns(machine: str, tmp_path: pathlib.Path) -> None:
    with board(tmp_path, machine) as pc:
        rng = random.Random(6)
        for base in (0xA0000, 0xC0000, 0xFEC00000, 0xFED00000, 0xFEE00000, 0xFFFFFF00, 0xFFFFFFFFFFFFFFF0):
            for _ in range(500):
                addr = base + rng.randrange(0x1000 if base < 0xFFFFFF00 else 8)
                size = rng.choice([1, 2, 4, 8])
                with pc.board.lock:
                    assert 0 <= pc.board.memory.read(addr, size) < 1 << (8 * size)
                    pc.board.memory.write(addr, size, rng.getrandbits(8 * size))


IMPOSSIBLE: tuple[Any, ...] = (
    object(), None, -1, 1 << 64, 1 << 200, True, "", "x", b"", b"x", [], [0], {}, {"a": 0}, 0.5,
)  # fmt: skip


def places(state: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value in a state, nested ones too."""
    if path:
        yield path
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def changed(state: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at `path`."""
    if not path:
        return value
    copy = dict(state) if isinstance(state, dict) else list(state)
    copy[path[0]] = changed(state[path[0]], path[1:], value)
    return copy


def at(state: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        state = state[key]
    return state


def some_value(rng: random.Random, now: Any) -> Any:
    """Another value of the same kind, near or far; sometimes of any kind."""
    if rng.random() < 0.05:
        return rng.choice(IMPOSSIBLE)
    if isinstance(now, bool):
        return not now
    if isinstance(now, int):
        return rng.choice([now ^ 1 << rng.randrange(8), now + 1, now - 1, rng.getrandbits(rng.randrange(1, 65)), 0, -1])
    if isinstance(now, bytes) and now:
        where = rng.randrange(len(now))
        return now[:where] + bytes([rng.randrange(256)]) + now[where + 1 :]
    if now is None:
        return rng.choice([0, 1, rng.getrandbits(40), -rng.getrandbits(40)])
    return rng.choice(IMPOSSIBLE)


def work(pc: Driven, rng: random.Random, accesses: int) -> None:
    """What a guest may do next, and time."""
    board = pc.machine.board
    for _ in range(accesses):
        port = rng.choice(PORTS)
        value = rng.getrandbits(32) if rng.random() < 0.5 else None
        pc.port(port, rng.choice([1, 2, 4]), value)
    with board.lock:
        for base in (0xA0000, 0xFEC00000, 0xFED00000, 0xFEE00000):
            board.memory.write(base + 4 * rng.randrange(256), 4, rng.getrandbits(32))
            board.memory.read(base + 4 * rng.randrange(256), 4)
        board.virtual.set_time(board.virtual.time() + rng.choice([1, 1000, 10**6, 10**9]))
        board.timers.run()


PORTS = [
    *range(0x10), 0x20, 0x21, 0x40, 0x41, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, *range(0x80, 0x90), 0x92, 0xA0,
    0xA1, 0xB2, *range(0xC0, 0xE0), *range(0x1F0, 0x1F8), 0x3F6, *range(0x378, 0x37B), *range(0x3C0, 0x3DB),
    *range(0x3F8, 0x400), 0x1CE, 0x1CF, 0x1D0, 0x510, 0x511, 0x514, 0x518, 0xAE00, 0xAE04, 0xAE10, 0xAF00, 0xAF04,
    0xAF05, 0xAFE0, 0xCF8, 0xCFC, *range(0xB000, 0xB010), *range(0xC000, 0xC010),
]  # fmt: skip


@pytest.mark.parametrize("machine", BOARDS)
def test_an_impossible_value_anywhere_is_refused_and_changes_nothing(machine: str, tmp_path: pathlib.Path) -> None:
    """Every field of every device, nested ones too, with values that fit nothing."""
    with board(tmp_path, machine) as pc:
        tried = 0
        for device in devices_of(pc):
            before = device.save()
            for path in places(before):
                for value in IMPOSSIBLE:
                    try:
                        device.check(changed(before, path, value))
                    except StateError:
                        tried += 1
                    else:
                        now = at(before, path)
                        # what may be there: empty queues, flags, idle timers
                        fits = type(value) is type(now) or value is None or now is None
                        assert fits, f"{device.driver}{path}: {value!r}"
                with pytest.raises(StateError):
                    device.load(changed(before, path, object()))
                assert device.save() == before, f"{device.driver}{path}"
        assert tried > 3000


@pytest.mark.parametrize("machine", BOARDS)
def test_changed_states_are_refused_unchanged_or_load_and_work(machine: str, tmp_path: pathlib.Path) -> None:
    """Thousands of states near a real one: none crashes, hangs or raises anything but StateError."""
    rng = random.Random(f"states of {machine}")
    with board(tmp_path, machine) as pc:
        work(pc, rng, 500)
        loaded = 0
        devices = [device for device in devices_of(pc) if device.save()]
        for n in range(int(os.environ.get("VMRUN_STATES", "1500"))):
            for drive in pc.machine.board.drives.values():
                drive.drain()
            device = devices[n % len(devices)]
            before = device.save()
            state = before
            for _ in range(rng.randrange(1, 4)):
                path = rng.choice(list(places(before)))
                try:
                    state = changed(state, path, some_value(rng, at(before, path)))
                except (KeyError, IndexError, TypeError, AttributeError):
                    continue  # an earlier change took away what this one is in
            with pc.machine.board.lock:
                try:
                    device.load(state)
                except StateError:
                    assert device.save() == before, f"{device.driver}: {state}"
                    continue
                loaded += 1
                device.check(device.save())
            work(pc, rng, 20)
        assert loaded > 100


def test_a_build_that_fails_leaves_nothing_open(tmp_path: pathlib.Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"")
    gc.collect()
    opened = set(os.listdir("/proc/self/fd"))
    with pytest.raises(BackendError):
        Driven(
            tmp_path,
            machine="rhel6.3.0",
            memory="64MiB",
            drives={"d": {"file": "disk.img", "format": "raw"}},
            devices=[{"id": "disk", "driver": "ide-drive", "bus": "ide.0", "drive": "d"}],
        )
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == opened
