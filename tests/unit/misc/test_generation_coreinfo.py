"""vmgenid and vmcoreinfo, with offsets from QEMU's specifications."""

import struct
import uuid

import pytest

from vmrun.errors import BuildError
from vmrun.machine import memorydump
from vmrun.monitor.table import find
from vmrun.testing import QTest

GUID = "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87"


def machine(**props):
    devices = [{"driver": "vmgenid", "id": "g", **props}, {"driver": "vmcoreinfo", "id": "c"}]
    return QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB", "devices": devices})


def files(q):
    chip = next(device for device in q.machine.devices.values() if device.driver == "fw_cfg_io").chip
    return {name: data for name, _, data in chip.listing()}


def test_the_page_has_the_number_little_endian_at_40():
    with machine(guid=GUID) as q:
        assert files(q)["etc/vmgenid_guid"] == (bytes(40) + uuid.UUID(GUID).bytes_le).ljust(4096, b"\0")
        assert files(q)["etc/vmgenid_addr"] == bytes(8)


def test_a_number_of_its_own_at_each_start():
    with machine() as one, machine() as other:
        assert files(one)["etc/vmgenid_guid"] != files(other)["etc/vmgenid_guid"]


def test_a_copy_has_another_number_and_hears_of_it():
    with machine() as one, machine() as other:
        device = one.machine.devices["g"]
        device.address[:] = struct.pack("<Q", 0x5028)
        other.write(0x5028, uuid.UUID(device.generation).bytes_le)
        other.outw(0xAFE2, 0x20)
        with other.machine.board.lock:
            other.machine.devices["g"].load(device.save())
        assert other.read(0x5028, 16) == uuid.UUID(other.machine.devices["g"].generation).bytes_le
        assert other.inw(0xAFE0) == 0x20


def test_the_same_number_is_no_news():
    with machine(guid=GUID) as q:
        device = q.machine.devices["g"]
        device.address[:] = struct.pack("<Q", 0x5028)
        q.write(0x5028, uuid.UUID(GUID).bytes_le)
        with q.machine.board.lock:
            device.load(device.save())
        assert q.inw(0xAFE0) == 0


def test_reset_forgets_where_it_is():
    with machine() as q:
        q.machine.devices["g"].address[:] = b"12345678"
        q.machine.cold_reset()
        assert files(q)["etc/vmgenid_addr"] == bytes(8)


def test_a_type_without_dma_cannot_have_one():
    with pytest.raises(BuildError, match="requires DMA write support"):
        QTest({"machine": "pc-i440fx-2.0", "memory": "64MiB", "devices": [{"driver": "vmgenid"}]})


def test_monitors_are_told_the_number():
    with machine(guid=GUID) as q:
        asker = type("", (), {"machine": q.machine})()
        assert find("query-vm-generation-id").handler(asker) == {"guid": GUID}


# --- the guest's note in dumps --------------------------------------------------------------------------------

NOTE = struct.pack("<III", 11, 8, 0) + b"VMCOREINFO\0\0" + b"OSREL=1\n"


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (struct.pack("<HHIQ", 1, 1, len(NOTE), 0x7000), NOTE),
        (struct.pack("<HHIQ", 1, 1, len(NOTE) + 100, 0x7000), NOTE),
        (struct.pack("<HHIQ", 1, 1, len(NOTE) - 4, 0x7000), b""),
        (struct.pack("<HHIQ", 1, 0, len(NOTE), 0x7000), b""),
        (struct.pack("<HHIQ", 1, 1, 0xFFFFFFFF, 0x7000), b""),
        (struct.pack("<HHIQ", 1, 1, len(NOTE), 0xFFFFFFFFFFFFFFF0), b""),
    ],
)
def test_a_dump_has_the_note_that_the_guest_points_to(told, kept):
    with machine() as q:
        q.write(0x7000, NOTE)
        q.machine.devices["c"].told[:] = told
        assert memorydump.notes(q.machine, []) == kept


def test_sga_is_a_rom_that_the_firmware_runs():
    with QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB", "devices": [{"driver": "sga"}]}) as q:
        assert files(q)["vgaroms/sgabios.bin"][:2] == b"\x55\xaa"
