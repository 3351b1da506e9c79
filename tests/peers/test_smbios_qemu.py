"""SMBIOS, e820 and everything else in fw_cfg but ACPI: vmrun's beside QEMU's, byte for byte, for every type."""

from __future__ import annotations

from typing import Any

import pytest

from tests.peers.oracle import needs_qemu
from tests.peers.published import CASES, CUT, LACKING, TYPES, config, own, theirs, theirs_in
from vmrun.errors import BuildError
from vmrun.firmware import acpi
from vmrun.firmware.smbios_tables import ANCHOR, TABLES

pytestmark = [pytest.mark.peer, needs_qemu]
UUID = "00112233-4455-6677-8899-aabbccddeeff"

# what the user says → QEMU's arguments
SAID: dict[str, tuple[dict[str, Any], list[str]]] = {
    "everything": (
        {
            "type0": {"vendor": "V", "version": "1", "date": "01/02/2003", "release": "4.5", "uefi": True},
            "type1": {"manufacturer": "Foo", "serial": "abc", "sku": "K", "family": "F"},
            "type2": {
                **{"manufacturer": "A", "product": "B", "version": "C"},
                **{"serial": "D", "asset": "E", "location": "F"},
            },
            "type3": {"manufacturer": "A", "version": "B", "serial": "C", "asset": "D", "sku": "E"},
            "type4": {
                **{"sock_pfx": "S", "manufacturer": "A", "version": "B", "serial": "C", "asset": "D", "part": "E"},
                **{"max-speed": 3000, "current-speed": 2500},
            },
            "type11": {"values": ["one", "two"]},
            "type17": {
                **{"loc_pfx": "L", "bank": "A", "manufacturer": "B", "serial": "C", "asset": "D", "part": "E"},
                "speed": 1600,
            },
        },
        [
            *("-smbios", "type=0,vendor=V,version=1,date=01/02/2003,release=4.5,uefi=on"),
            *("-smbios", "type=1,manufacturer=Foo,serial=abc,sku=K,family=F"),
            *("-smbios", "type=2,manufacturer=A,product=B,version=C,serial=D,asset=E,location=F"),
            *("-smbios", "type=3,manufacturer=A,version=B,serial=C,asset=D,sku=E"),
            "-smbios",
            "type=4,sock_pfx=S,manufacturer=A,version=B,serial=C,asset=D,part=E,max-speed=3000,current-speed=2500",
            *("-smbios", "type=11,value=one,value=two"),
            *("-smbios", "type=17,loc_pfx=L,bank=A,manufacturer=B,serial=C,asset=D,part=E,speed=1600"),
        ],
    ),
    "little": (
        {"type0": {"vendor": "V"}, "type2": {"serial": "x"}, "type1": {"product": ""}, "type11": {"values": [""]}},
        [
            *("-smbios", "type=0,vendor=V", "-smbios", "type=2,serial=x"),
            *("-smbios", "type=1,product=", "-smbios", "type=11,value="),
        ],
    ),
    "ports": (
        {
            "type8": {
                "ports": [
                    {"internal_reference": "I", "external_reference": "E", "connector_type": 3, "port_type": 5},
                    {"external_reference": "F"},
                ]
            }
        },
        [
            *("-smbios", "type=8,internal_reference=I,external_reference=E,connector_type=3,port_type=5"),
            *("-smbios", "type=8,external_reference=F"),
        ],
    ),
    "ids": (
        {"type0": {"release": "1.30"}, "type1": {"uuid": UUID}, "type4": {"processor-id": 0x1234567890}},
        [
            *("-smbios", "type=0,release=1.30", "-smbios", f"type=1,uuid={UUID}"),
            *("-smbios", "type=4,processor-id=0x1234567890"),
        ],
    ),
}


@pytest.mark.parametrize("type_name", TYPES)
def test_what_a_type_publishes_equals_qemus(type_name: str) -> None:
    compare(own(config(type_name, "full")), theirs_in(type_name, "full"))


@pytest.mark.parametrize(("type_name", "case"), [
    (name, case) for name in ("pc-i440fx-2.0", "pc-i440fx-7.2") for case in CASES
    if case not in ("plain", "full") and (name, case) not in LACKING
])  # fmt: skip
def test_what_other_machines_publish_equals_qemus(type_name: str, case: str) -> None:
    ours, his = own(config(type_name, case)), theirs_in(type_name, case)
    if (type_name, case) in CUT:  # QEMU's tables end in the middle there; ours are whole, and twice as long
        his.sizes[acpi.TABLES] = ours.sizes[acpi.TABLES]
    compare(ours, his)


@pytest.mark.parametrize("memory", [4, 3583, 3584, 20 << 10])
@pytest.mark.parametrize("type_name", ["pc-i440fx-1.7", "pc-i440fx-2.6", "pc-i440fx-7.2"])
def test_every_size_of_memory_is_laid_out_as_in_qemu(type_name: str, memory: int) -> None:
    machine = with_memory(config(type_name), memory << 20)
    compare(own(machine), theirs(type_name, "-m", str(memory)))


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("type_name", ["pc-i440fx-2.1", "pc-i440fx-2.2", "pc-i440fx-7.2"])
def test_what_the_user_says_stands_where_qemu_puts_it(type_name: str, said: str) -> None:
    ours, his = own({**config(type_name), "smbios": SAID[said][0]}), theirs(type_name, *SAID[said][1])
    assert ours.files[TABLES] == his.files[TABLES]
    assert ours.files[ANCHOR] == his.files[ANCHOR]
    assert ours.items[2] == his.items[2][:16]


def test_tables_too_large_for_their_entry_point_are_refused() -> None:
    with pytest.raises(BuildError, match="at most 65535"):
        own({**config("pc-i440fx-7.2"), "smbios": {"type1": {"serial": "x" * 70000}}})


def with_memory(machine: dict[str, Any], size: int) -> dict[str, Any]:
    layout = machine["memory-map"]
    below = layout["low-ram-split"] if size >= layout["low-ram-limit"] else size
    return {**machine, "memory": size, "memory-map": {**layout, "below-4g": below, "above-4g": size - below}}


def compare(ours: Any, his: Any) -> None:
    assert list(ours.sizes) == list(his.sizes)
    sizes = {name: size for name, size in ours.sizes.items() if not name.startswith("genroms/")}
    assert sizes == {name: his.sizes[name] for name in sizes}
    for name, data in his.files.items():
        if name not in (acpi.TABLES, acpi.RSDP):  # test_acpi_qemu.py looks into these
            assert ours.files[name] == data, name
    for key, data in his.items.items():
        assert ours.items.get(key, b"").ljust(len(data), b"\0")[: len(data)] == data, hex(key)
