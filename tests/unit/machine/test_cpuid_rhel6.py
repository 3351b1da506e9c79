"""CPU models of RHEL 6 against the table of qemu-kvm-0.12.1.2-2.491 (target-i386/cpuid.c), typed here."""

from __future__ import annotations

import pytest

from vmrun.config.cpumodels import model_names
from vmrun.machine.cpuid import load_model

# vendor, family/model/stepping, level, xlevel, 1.EDX, 1.ECX, 7.EBX, 80000001.EDX, 80000001.ECX
MODELS = [
    ("qemu64", "AMD", (6, 6, 3), 0x4, 0x8000000a, 0x78bfbfd, 0x802001, 0, 0x2191abfd, 0x65),
    ("phenom", "AMD", (16, 2, 3), 0x5, 0x8000001a, 0x78bfbfd, 0x802009, 0, 0xe3d1abfd, 0x65),
    ("core2duo", "Intel", (6, 15, 11), 0xa, 0x80000008, 0x78bfbfd, 0x209, 0, 0x20100800, 0x1),
    ("kvm64", "Intel", (15, 6, 1), 0x5, 0x80000008, 0x78bfbfd, 0x2001, 0, 0x2191abfd, 0),
    ("qemu32", "Intel", (6, 3, 3), 0x4, 0, 0x781abfd, 0x800001, 0, 0, 0),
    ("coreduo", "Intel", (6, 14, 8), 0xa, 0x80000008, 0x789fbff, 0x9, 0, 0x100000, 0),
    ("486", "Intel", (4, 0, 0), 0, 0, 0xb, 0, 0, 0, 0),
    ("pentium", "Intel", (5, 4, 3), 0x1, 0, 0x8001bf, 0, 0, 0, 0),
    ("pentium2", "Intel", (6, 5, 2), 0x2, 0, 0x183f9ff, 0, 0, 0, 0),
    ("pentium3", "Intel", (6, 7, 3), 0x2, 0, 0x383f9ff, 0, 0, 0, 0),
    ("athlon", "AMD", (6, 2, 3), 0x2, 0x80000008, 0x783fbff, 0, 0, 0xc1c1a3fd, 0),
    ("n270", "Intel", (6, 28, 2), 0x5, 0x8000000a, 0x789fbff, 0x209, 0, 0x191a3fd, 0),
    ("cpu64-rhel6", "AMD", (6, 13, 3), 0x4, 0x8000000a, 0x78bfbfd, 0x2001, 0, 0x2191abfd, 0x65),
    ("cpu64-rhel5", "AMD", (6, 6, 3), 0x4, 0x8000000a, 0x78bfbfd, 0x1, 0, 0xe191abfd, 0x4),
    ("Conroe", "Intel", (6, 15, 3), 0x4, 0x8000000a, 0x78bfbfd, 0x200201, 0, 0x20100800, 0x1),
    ("Penryn", "Intel", (6, 23, 3), 0x4, 0x8000000a, 0x78bfbfd, 0x282201, 0, 0x20100800, 0x1),
    ("Nehalem", "Intel", (6, 26, 3), 0x4, 0x8000000a, 0x78bfbfd, 0xb82201, 0, 0x20100800, 0x1),
    ("Westmere", "Intel", (6, 44, 1), 0xb, 0x8000000a, 0x78bfbfd, 0x2b82201, 0, 0x2191abfd, 0x1),
    ("SandyBridge", "Intel", (6, 42, 1), 0xd, 0x8000000a, 0x78bfbfd, 0x17b82203, 0, 0x20100800, 0x1),
    ("Haswell", "Intel", (6, 60, 1), 0xd, 0x8000000a, 0x78bfbfd, 0x17fa3203, 0xfb9, 0x20100800, 0x1),
    ("Broadwell", "Intel", (6, 61, 2), 0xd, 0x8000000a, 0x78bfbfd, 0x17fa3203, 0xc0fb9, 0x20100800, 0x101),
    ("Opteron_G1", "AMD", (15, 6, 1), 0x5, 0x80000008, 0x78bfbfd, 0x200001, 0, 0x2193fbfd, 0),
    ("Opteron_G2", "AMD", (15, 6, 1), 0x5, 0x80000008, 0x78bfbfd, 0x202001, 0, 0x2193fbfd, 0x5),
    ("Opteron_G3", "AMD", (15, 6, 1), 0x5, 0x80000008, 0x78bfbfd, 0xa02009, 0, 0x2193fbfd, 0xe5),
    ("Opteron_G4", "AMD", (21, 1, 2), 0xd, 0x8000001a, 0x78bfbfd, 0x16982203, 0, 0x2593fbfd, 0x109e5),
    ("Opteron_G5", "AMD", (21, 2, 0), 0xd, 0x8000001a, 0x78bfbfd, 0x36983203, 0, 0x2593fbfd, 0x2109e5),
]  # fmt: skip
VENDORS = {"AMD": "AuthenticAMD", "Intel": "GenuineIntel"}


@pytest.mark.parametrize("row", MODELS, ids=lambda row: row[0])
def test_model_of_rhel_6(row: tuple[object, ...]) -> None:
    name, vendor, signature, level, xlevel, *words = row
    model = load_model(str(name), "rhel6")
    found = [
        model["words"].get(word, 0) for word in ("1.edx", "1.ecx", "7.0.ebx", "80000001.edx", "80000001.ecx")
    ]
    assert found == words
    assert (model["vendor"], model["level"], model["xlevel"]) == (VENDORS[str(vendor)], level, xlevel)
    assert tuple(model["signature"].values()) == signature


def test_there_are_no_others() -> None:
    assert set(model_names("rhel6")) == {
        *(row[0] for row in MODELS), *(f"{row[0]}-v1" for row in MODELS), "host", "max", "default",
    }  # fmt: skip
