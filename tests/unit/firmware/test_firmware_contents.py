"""CMOS cells, fw_cfg items and files, SMBIOS fields and boot paths of the RHEL 6 types and others."""

from __future__ import annotations

import pathlib
import struct
from typing import Any

import pytest
from vmrun.devices.misc.fw_cfg_chip import FwCfg

from tests.board import Driven
from tests.unit.firmware.board import board
from vmrun import firmware
from vmrun.errors import BuildError
from vmrun.firmware import bootorder, cmos, fwcfg, smbios
from vmrun.firmware.parts import Processor

RHEL6 = [f"rhel6.{n}.0" for n in range(7)]
GIB = 1 << 30


class Clock:
    def __init__(self) -> None:
        self.cells: dict[int, int] = {}

    def set_cmos(self, index: int, value: int) -> None:
        self.cells[index] = value


def prepared(machine: dict[str, Any], **more: Any) -> tuple[FwCfg, Clock, firmware.Prepared]:
    chip, clock = FwCfg(16), Clock()
    return chip, clock, firmware.prepare(None, chip, clock, machine, **more)


# --- CMOS ------------------------------------------------------------------------------------------------


def test_memory_cells_of_256_mib() -> None:
    cells = cmos.memory(board("rhel6.3.0", memory=256 << 20))
    assert {n: cells[n] for n in (0x15, 0x16, 0x17, 0x18, 0x30, 0x31, 0x34, 0x35)} == {
        **{0x15: 0x80, 0x16: 0x02, 0x17: 0xFF, 0x18: 0xFF, 0x30: 0xFF, 0x31: 0xFF, 0x34: 0x00, 0x35: 0x0F}
    }


def test_memory_above_4_gib_has_a_fourth_byte_on_rhel_6_only() -> None:
    machine = board("rhel6.6.0", memory=1 << 44)
    assert cmos.memory(machine)[0x5E] == ((1 << 44) - 0xE0000000) >> 40
    assert 0x5E not in cmos.memory(board("pc-i440fx-2.0", memory=1 << 44))


def test_rhel_6_fills_memory_up_to_3_5_gib_before_it_splits() -> None:
    assert board("rhel6.6.0", memory=4 * GIB)["memory-map"]["below-4g"] == 0xE0000000
    assert board("pc-i440fx-2.0", memory=4 * GIB)["memory-map"]["below-4g"] == 0xC0000000


@pytest.mark.parametrize(
    ("order", "first", "third"), [("cad", 0x12, 0x30), ("c", 0x02, 0), ("nd", 0x34, 0), ("dcn", 0x23, 0x40)]
)
def test_boot_letters(order: str, first: int, third: int) -> None:
    assert cmos.boot(order) == {0x3D: first, 0x38: third}


def test_boot_once_comes_first_and_ends_with_the_guest_s_first_reset(tmp_path: pathlib.Path) -> None:
    with Driven(tmp_path, machine="rhel6.3.0", memory="16MiB", boot={"order": "c", "once": "d"}) as pc:
        rtc: Any = next(d for d in pc.machine.devices.values() if d.driver == "mc146818rtc")
        assert rtc.get_cmos(0x3D) == 0x03
        pc.machine.reset()
        assert rtc.get_cmos(0x3D) == 0x02
        pc.machine.reset()
        assert rtc.get_cmos(0x3D) == 0x02


def test_rhel_6_knows_the_geometry_of_drives_named_by_place() -> None:
    disks = (
        {"id": "a", "driver": "ide-drive", "bus": "ide.0", "unit": 0, "drive": "drive-ide0-0-0"},
        {"id": "b", "driver": "ide-drive", "bus": "ide.0", "unit": 1, "drive": "other"},
    )
    cells = cmos.disks(board("rhel6.3.0", devices=disks), lambda drive: 500 << 20)
    assert cells[0x12] == 0xF0 and cells[0x19] == 47 and 0x1A not in cells
    assert (cells[0x1B] | cells[0x1C] << 8, cells[0x1D], cells[0x23]) == (1015, 16, 63)


def test_disk_without_image_is_left_out() -> None:
    disks = ({"id": "a", "driver": "ide-drive", "bus": "ide.0", "unit": 0},)
    assert cmos.disks(board("rhel6.3.0", devices=disks), lambda drive: 0) == {0x12: 0, 0x39: 0}


# --- fw_cfg ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RHEL6)
def test_rhel_6_has_no_acpi_e820_or_hpet_from_the_machine(name: str) -> None:
    chip, _, done = prepared(board(name))
    names = [file for file, _, _ in chip.listing()]
    foreign = ("etc/acpi", "etc/table-loader", "etc/e820", "etc/smbios")
    assert not [file for file in names if file.startswith(foreign)]
    assert fwcfg.HPET not in done.items and chip.get(fwcfg.ID) == b"\1\0\0\0"


@pytest.mark.parametrize("name", RHEL6)
def test_rhel_6_sleep_states_follow_the_type(name: str) -> None:
    enabled = name in ("rhel6.0.0", "rhel6.1.0")
    expected = bytes([0x80, 0, 0, 0x81, 0x82, 0x80] if enabled else [0x80, 0, 0, 0x01, 0x02, 0x80])
    assert fwcfg.files(board(name))["etc/system-states"] == expected


def test_contiguous_apic_ids_give_a_smaller_limit() -> None:
    cpus = {"count": 6, "sockets": 2, "cores": 3}
    limits = [fwcfg.items(board(name, cpus=cpus))[fwcfg.MAX_CPUS] for name in ("rhel6.3.0", "rhel6.4.0")]
    assert limits == [b"\x06\0", b"\x07\0"]


def test_numa_item_has_a_node_for_each_apic_id() -> None:
    assert fwcfg.items(board("rhel6.3.0", cpus={"count": 4}))[fwcfg.NUMA] == bytes(8 * 5)


def test_kvm_pages_are_reserved_first() -> None:
    rows = e820("pc-i440fx-2.0", Processor("GenuineIntel"), kvm=True)
    assert rows == [(0xFEFFC000, 0x4000, 2), (0, 3 * GIB, 1), (4 * GIB, 2 * GIB, 1)]


@pytest.mark.parametrize(
    ("name", "processor", "reserved"),
    [
        ("pc-i440fx-7.1", Processor("AuthenticAMD", phys_bits=40), [(0xFD00000000, 0x300000000, 2)]),
        ("pc-i440fx-7.0", Processor("AuthenticAMD", phys_bits=40), []),
        ("pc-i440fx-7.2", Processor("AuthenticAMD", phys_bits=36), []),
        ("pc-i440fx-7.2", Processor("GenuineIntel", phys_bits=40), []),
    ],
)
def test_amd_keeps_the_end_of_the_first_tib(name: str, processor: Processor, reserved: list[Any]) -> None:
    assert e820(name, processor) == [*reserved, (0, 3 * GIB, 1), (4 * GIB, 2 * GIB, 1)]


def e820(name: str, processor: Processor, *, kvm: bool = False) -> list[Any]:
    return list(struct.iter_unpack("<QQI", fwcfg.e820(board(name, memory=5 * GIB), kvm, processor)))


def test_files_by_name_or_by_priority() -> None:
    names = ("bootorder", "etc/e820", "genroms/kvmvapic.bin", "etc/boot-fail-wait", "etc/x")
    files = dict.fromkeys(names, b"")
    assert [name for name, _ in fwcfg.in_order(files, "name")] == sorted(files)
    assert [name for name, _ in fwcfg.in_order(files, "priority")] == [
        *("etc/boot-fail-wait", "etc/e820", "genroms/kvmvapic.bin", "etc/x", "bootorder")
    ]


def test_directory_is_in_the_order_of_the_type() -> None:
    chip, _, done = prepared(board("pc-i440fx-2.0"), files={"etc/pvpanic-port": b"\5\5"})
    assert [name for name, _, _ in chip.listing()] == [name for name, _ in done.files]


def test_tables_follow_the_guest_when_it_selects_them() -> None:
    class Config:
        base = 1

        def get(self, offset: int, size: int) -> int:
            return self.base if (offset, size) == (0x40, 4) else 0

    class Pm:
        config = Config()

    class Machine:
        def device(self, id: str) -> Pm:
            return pm

    pm = Pm()
    chip, clock = FwCfg(16), Clock()
    firmware.prepare(Machine(), chip, clock, board("pc-i440fx-2.0"))
    key = next(key for name, key, _ in chip.listing() if name == "etc/acpi/tables")
    pm.config.base = 0xB001
    chip.store(0, 2, key)
    data = bytes(chip.load(1, 1) for _ in range(8192))
    fadt = data.index(b"FACP")
    assert struct.unpack_from("<I", data, fadt + 56)[0] == 0xB000


def test_what_lies_above_4_gib_is_found_in_the_devices_bars() -> None:
    class Bar:
        def __init__(self, mapped: int | None, size: int) -> None:
            self.mapped, self.size = mapped, size

    class Card:
        bars = {0: Bar(9 * GIB, 0x1000), 2: Bar(5 * GIB, 0x4000), 4: Bar(3 * GIB, 0x1000), 5: Bar(None, 0x10)}

    class Machine:
        def device(self, id: str) -> object:
            if id == "gone":
                raise BuildError("there is no device 'gone'")
            return Card() if id == "card" else object()

    card = {"id": "card", "driver": "VGA", "bus": "pci.0", "addr": "02.0"}
    gone = {"id": "gone", "driver": "e1000", "bus": "pci.0", "addr": "03.0"}  # taken out since the start
    machine = board("pc-i440fx-7.2", devices=(gone, card))
    assert firmware.placed_above_4g(Machine(), machine) == (5 * GIB, 9 * GIB + 0xFFF)
    assert firmware.placed_above_4g(Machine(), board("pc-i440fx-7.2")) is None


def test_missing_rom_of_the_type_is_a_warning() -> None:
    machine = board("rhel6.3.0", firmware={"option-roms": ["no-such-rom.bin"]})
    _, _, done = prepared(machine)
    assert "no-such-rom.bin" in done.warnings[0] and "genroms/no-such-rom.bin" not in dict(done.files)


def test_missing_rom_of_a_card_is_an_error() -> None:
    card = {"id": "v", "driver": "VGA", "bus": "pci.0", "addr": "02.0", "rombar": 0, "romfile": "no-such.bin"}
    with pytest.raises(BuildError, match=r"no-such\.bin"):
        prepared(board("rhel6.0.0", devices=(card,)))


def test_video_bios_of_rhel6_0_comes_as_a_file() -> None:
    card = {"id": "v", "driver": "VGA", "bus": "pci.0", "addr": "02.0", "romfile": "vgabios-stdvga.bin"}
    assert "vgaroms/vgabios-stdvga.bin" in dict(prepared(board("rhel6.0.0", devices=(card,)))[2].files)
    assert "vgaroms/vgabios-stdvga.bin" not in dict(prepared(board("rhel6.1.0", devices=(card,)))[2].files)


# --- SMBIOS ----------------------------------------------------------------------------------------------


def entries(data: bytes) -> list[tuple[int, int, bytes]]:
    """(type, offset, value) of each field."""
    (count,) = struct.unpack_from("<H", data)
    found, offset = [], 2
    for _ in range(count):
        size, form, kind, where = struct.unpack_from("<HBBH", data, offset)
        assert form == 0
        found.append((kind, where, data[offset + 6 : offset + size]))
        offset += size
    assert offset == len(data)
    return found


def test_rhel_6_says_what_it_is() -> None:
    assert entries(smbios.fields(board("rhel6.3.0")) or b"") == [
        (1, 4, b"Red Hat\0"),
        (1, 5, b"KVM\0"),
        (1, 6, b"RHEL 6.3.0 PC\0"),
        (1, 0x1A, b"Red Hat Enterprise Linux\0"),
    ]


def test_rhel_6_puts_the_users_fields_first() -> None:
    found = entries(smbios.fields(board("rhel6.3.0", smbios={"type1": {"product": "Mine"}})) or b"")
    assert found[0] == (1, 5, b"Mine\0") and (1, 5, b"KVM\0") in found


def test_pc_2_0_replaces_its_own_by_the_users_fields() -> None:
    found = entries(smbios.fields(board("pc-i440fx-2.0", smbios={"type1": {"product": "Mine"}})) or b"")
    assert [value for _, where, value in found if where == 5] == [b"Mine\0"]


def test_fields_cannot_say_more_than_types_0_and_1() -> None:
    with pytest.raises(BuildError, match=r"smbios\.type3: the firmware of pc-i440fx-2\.0"):
        smbios.fields(board("pc-i440fx-2.0", smbios={"type3": {"serial": "x"}}))


def test_types_that_hand_over_tables_have_no_fields() -> None:
    assert smbios.fields(board("pc-i440fx-2.1")) is None


# --- boot order ------------------------------------------------------------------------------------------


def test_boot_paths_in_the_order_of_their_index() -> None:
    devices = (
        {"id": "d0", "driver": "ide-drive", "bus": "ide.0", "unit": 0, "drive": "x", "bootindex": 2},
        {"id": "d1", "driver": "ide-drive", "bus": "ide.1", "unit": 1, "drive": "y", "bootindex": 1},
        {"id": "n", "driver": "e1000", "bus": "pci.0", "addr": "03.0", "bootindex": 3},
        {"id": "b", "driver": "virtio-blk-pci", "bus": "pci.0", "addr": "1f.2", "bootindex": 4},
        {"id": "f", "driver": "rtl8139", "bus": "pci.0", "addr": "05.0", "bootindex": -1},
    )
    assert bootorder.bootorder(board("rhel6.3.0", devices=devices)).decode().rstrip("\0").split("\n") == [
        "/pci@i0cf8/ide@1,1/drive@1/disk@1",
        "/pci@i0cf8/ide@1,1/drive@0/disk@0",
        "/pci@i0cf8/ethernet@3/ethernet-phy@0",
        "/pci@i0cf8/scsi@1f,2/disk@0,0",
    ]


def test_strict_boot_ends_with_halt() -> None:
    devices = ({"id": "n", "driver": "e1000", "bus": "pci.0", "addr": "03.0", "bootindex": 1},)
    data = bootorder.bootorder(board("rhel6.3.0", devices=devices, boot={"strict": True}))
    assert data.endswith(b"\nHALT\0")


def test_no_bootindex_no_list() -> None:
    assert bootorder.bootorder(board("rhel6.3.0")) == b""
