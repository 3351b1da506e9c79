"""CPUID of declared models: constants from the published tables of RHEL 6 and QEMU 7.2."""

from __future__ import annotations

from typing import Any

import pytest

from vmrun.errors import ConfigError
from vmrun.machine import cpuid
from vmrun.machine.cpuid import apic_ids, load_model, make_cpuid, model_names

RHEL6 = [
    "qemu64", "phenom", "core2duo", "kvm64", "qemu32", "coreduo", "486", "pentium", "pentium2", "pentium3",
    "athlon", "n270", "cpu64-rhel6", "cpu64-rhel5", "Conroe", "Penryn", "Nehalem", "Westmere", "SandyBridge",
    "Haswell", "Broadwell", "Opteron_G1", "Opteron_G2", "Opteron_G3", "Opteron_G4", "Opteron_G5",
]  # fmt: skip
INTEL_HOST = [
    {"function": 0, "index": 0, "flags": 0, "eax": 0xD, "ebx": 0x756E6547, "ecx": 0x6C65746E,
     "edx": 0x49656E69},
    *(
        {"function": f, "index": i, "flags": 0, "eax": 0xFFFFFFFF, "ebx": 0xFFFFFFFF, "ecx": 0xFFFFFFFF,
         "edx": 0xFFFFFFFF}
        for f, i in ((1, 0), (7, 0), (0xD, 1), (6, 0), (0x80000001, 0), (0x40000001, 0))
    ),
    {"function": 0xD, "index": 0, "flags": 1, "eax": 0x7, "ebx": 0, "ecx": 0, "edx": 0},
    {"function": 0xD, "index": 2, "flags": 1, "eax": 256, "ebx": 576, "ecx": 0, "edx": 0},
    {"function": 0x80000008, "index": 0, "flags": 0, "eax": 0x302E, "ebx": 0, "ecx": 0, "edx": 0},
]  # fmt: skip

OLD = {"full-cpuid-auto-level": False}  # as types up to 2.7


def leaves(
    model: str, family: str = "rhel6", host: Any = (), **cpus: Any
) -> dict[tuple[int, int], tuple[int, ...]]:
    settings = {"count": 1, "cores": 1, "threads": 1, "compat": {}, "features": {}, **cpus}
    found = make_cpuid(settings, load_model(model, family), apic_ids(settings)[0], list(host))
    return {(e["function"], e["index"]): (e["eax"], e["ebx"], e["ecx"], e["edx"]) for e in found.entries}


def text(*words: int) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in words)


def test_every_model_of_rhel_6_is_there() -> None:
    assert set(RHEL6) <= set(model_names("rhel6"))


@pytest.mark.parametrize("family", ["rhel6", "qemu"])
def test_every_model_gives_leaves(family: str) -> None:
    for name in model_names(family):
        found = leaves(name, family, INTEL_HOST)
        assert (0, 0) in found
        assert all(0 <= value <= 0xFFFFFFFF for row in found.values() for value in row)


def test_cpu64_rhel6_has_its_signature_and_words() -> None:
    found = leaves("cpu64-rhel6")
    assert found[1, 0][0] == 0x6D3
    assert found[1, 0][3] == 0x78BFBFD
    assert found[1, 0][2] == 0x2001 | 1 << 31
    assert found[0x80000001, 0][3] == 0x2191ABFD
    assert found[0, 0][0] == 4
    assert found[0x80000000, 0][0] == 0x8000000A


def test_cpu64_rhel6_has_no_svm_leaf_without_nesting() -> None:
    found = leaves("cpu64-rhel6")
    assert found[0x80000001, 0][2] == 0x65 & ~4
    assert found[0x8000000A, 0] == (0, 0, 0, 0)


def test_3dnow_is_taken_from_every_rhel_6_model() -> None:
    assert leaves("phenom")[0x80000001, 0][3] == 0xE3D1ABFD & ~(3 << 30)


def test_model_name_is_read_in_three_leaves() -> None:
    found = leaves("cpu64-rhel6")
    name = b"".join(text(*found[0x80000002 + n, 0]) for n in range(3))
    assert name.rstrip(b"\0") == b"QEMU Virtual CPU version (cpu64-rhel6)"


def test_vendor_is_the_hosts_unless_given() -> None:
    _, ebx, ecx, edx = leaves("cpu64-rhel6", host=INTEL_HOST)[0, 0]
    assert text(ebx, edx, ecx) == b"GenuineIntel"
    _, ebx, ecx, edx = leaves("cpu64-rhel6", host=INTEL_HOST, features={"vendor": "AuthenticAMD"})[0, 0]
    assert text(ebx, edx, ecx) == b"AuthenticAMD"


def test_kvm_signature_leaf_of_rhel_6_has_no_maximum() -> None:
    assert leaves("cpu64-rhel6")[0x40000000, 0] == (0, 0x4B4D564B, 0x564B4D56, 0x4D)
    assert leaves("qemu64", "qemu")[0x40000000, 0][0] == 0x40000001


def test_kvm_features_of_rhel_6_are_all_the_hosts_but_the_frozen_ones() -> None:
    found = leaves("cpu64-rhel6", host=INTEL_HOST, compat={"kvm-pv-eoi": False})
    assert found[0x40000001, 0][0] == 0xFFFFFFFF & ~(1 << 6)


def test_sep_is_cleared_when_the_type_says_so() -> None:
    assert leaves("cpu64-rhel6", compat={"sep": False})[1, 0][3] == 0x78BFBFD & ~(1 << 11)


@pytest.mark.parametrize(
    ("model", "compat", "features", "limits"),
    [
        ("phenom", {}, {"xstore": True}, (5, 0x8000001A, 0xC0000001)),
        ("486", {}, {"xstore": True, "xlevel2": 0xC0000002}, (1, 0, 0xC0000002)),
        ("486", {}, {"min-xlevel2": 0xC0000003}, (1, 0, 0xC0000003)),
        ("486", OLD, {"xstore": True, "arat": True, "avx512vbmi": True, "3dnow": True}, (1, 0, 0)),
        ("Nehalem", OLD | {"min-level": 2}, {}, (2, 0x80000008, 0)),
        ("Nehalem", OLD | {"min-level": 2}, {"smap": True}, (7, 0x80000008, 0)),
        ("486", OLD, {"erms": True, "level": 3}, (3, 0, 0)),
        ("max", {}, {"level": 4, "invtsc": True}, (4, 0x80000007, 0)),
    ],
)
def test_features_raise_the_highest_leaf(
    model: str, compat: dict[str, Any], features: dict[str, Any], limits: tuple[int, int, int]
) -> None:
    found = leaves(model, "qemu", compat=compat, features=features)
    assert tuple(found.get((leaf, 0), (0,))[0] for leaf in (0, 0x80000000, 0xC0000000)) == limits


def test_vias_leaves_tell_signature_and_features() -> None:
    found = leaves("phenom", "qemu", features={"xstore": True, "phe": True, "xlevel2": 0xFFFFFFFF})
    assert found[0xC0000001, 0] == (found[1, 0][0], 0, 0, 1 << 2 | 1 << 10)
    assert max(leaf for leaf, _ in found) == 0xC0000004


def test_level_frozen_by_the_type_wins() -> None:
    assert leaves("Conroe", compat={"level": 2})[0, 0][0] == 2


def test_users_features_win_over_the_type() -> None:
    found = leaves(
        "cpu64-rhel6", compat={"sep": False}, features={"sep": True, "sse4.1": True, "cx16": False}
    )
    assert found[1, 0][3] == 0x78BFBFD
    assert found[1, 0][2] == 0x1 | 1 << 19 | 1 << 31


@pytest.mark.parametrize("name", ["sse4_1", "sse4-1", "sse4.1"])
def test_feature_is_known_under_its_spellings(name: str) -> None:
    assert leaves("cpu64-rhel6", features={name: True})[1, 0][2] >> 19 & 1


def test_feature_the_host_lacks_is_named_and_left_out() -> None:
    host = [{**e, "ecx": 0 if e["function"] == 1 else e["ecx"]} for e in INTEL_HOST]
    result = make_cpuid({"features": {"avx": True}}, load_model("cpu64-rhel6", "rhel6"), 0, host)
    assert {"avx", "cx16", "pni"} <= set(result.missing)
    assert next(e for e in result.entries if e["function"] == 1)["ecx"] == 1 << 31


def test_x2apic_needs_an_apic_in_the_kernel() -> None:
    model = load_model("qemu64")
    inside = make_cpuid({}, model, 0, INTEL_HOST)
    outside = make_cpuid({}, model, 0, INTEL_HOST, kernel_apic=False)
    assert next(e for e in inside.entries if e["function"] == 1)["ecx"] >> 21 & 1
    assert not next(e for e in outside.entries if e["function"] == 1)["ecx"] >> 21 & 1


def test_caches_are_the_published_ones() -> None:
    found = leaves("Haswell", "qemu")
    assert found[2, 0] == (1, 0, 0x4D, 0x2C307D)
    assert found[4, 0] == (0x121, 0x1C0003F, 0x3F, 1)
    assert found[4, 2] == (0x143, 0x3C0003F, 0xFFF, 1)
    assert found[4, 3] == (0x163, 0x3C0003F, 0x3FFF, 6)
    assert found[0x80000005, 0] == (0x01FF01FF, 0x01FF01FF, 0x40020140, 0x40020140)


def test_l3_cache_off_takes_it_from_all_leaves() -> None:
    found = leaves("Haswell", "qemu", compat={"l3-cache": False})
    assert found[2, 0][2] == 0
    assert found[4, 3] == (0, 0, 0, 0)
    assert found[0x80000006, 0][3] == 0


def test_two_threads_of_two_cores_are_told_in_leaf_b() -> None:
    found = leaves("Haswell", "qemu", count=4, cores=2, threads=2)
    assert found[0xB, 0][:3] == (1, 2, 0x100)
    assert found[0xB, 1][:3] == (2, 4, 0x201)
    assert found[1, 0][1] >> 16 & 0xFF == 4
    assert found[1, 0][3] >> 28 & 1


def test_rhel_6_tells_cores_in_leaf_4_and_has_no_leaf_b() -> None:
    found = leaves("Westmere", count=4, cores=4)
    assert found[4, 0][0] == 0x121 | 3 << 26
    assert found[0xB, 0] == (0, 0, 0, 0)


def test_address_sizes_are_the_hosts_on_rhel_6_and_40_bits_on_qemu() -> None:
    assert leaves("cpu64-rhel6", host=INTEL_HOST)[0x80000008, 0][0] == 0x302E
    assert leaves("qemu64", "qemu", host=INTEL_HOST)[0x80000008, 0][0] == 0x3028


def test_xsave_area_follows_the_features() -> None:
    found = leaves("SandyBridge", "qemu", host=INTEL_HOST)
    assert found[0xD, 0][0] == 7
    assert found[0xD, 0][2] == 832
    assert found[0xD, 2] == (256, 576, 0, 0)
    assert leaves("Westmere", "qemu", host=INTEL_HOST)[0xB, 0][0] == 0
    assert (0xD, 2) not in leaves("Westmere", "qemu", host=INTEL_HOST)


@pytest.mark.parametrize(
    "cpus, ids",
    [
        ({"maxcpus": 4, "cores": 1, "threads": 1}, [0, 1, 2, 3]),
        ({"maxcpus": 6, "cores": 3, "threads": 1}, [0, 1, 2, 4, 5, 6]),
        ({"maxcpus": 6, "cores": 3, "threads": 1, "apic-ids": "contiguous"}, [0, 1, 2, 3, 4, 5]),
        ({"maxcpus": 8, "cores": 2, "threads": 2}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"maxcpus": 12, "cores": 2, "threads": 3}, [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14]),
    ],
)
def test_apic_ids_follow_the_topology(cpus: dict[str, Any], ids: list[int]) -> None:
    assert apic_ids(cpus) == ids


def test_version_and_alias_are_the_same_model() -> None:
    assert load_model("Haswell-v2")["set"] == load_model("Haswell-noTSX")["set"]
    assert load_model("Haswell-noTSX")["set"]["hle"] is False
    assert load_model("Haswell-IBRS")["set"]["spec-ctrl"] is True


def test_version_1_changes_nothing() -> None:
    assert leaves("Haswell-v1", "qemu") == leaves("Haswell", "qemu")


@pytest.mark.parametrize("name", ["Pentium9", "Haswell-v99", "../qemu/Haswell", "families"])
def test_unknown_model_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no CPU model"):
        load_model(name)


def test_host_model_shows_what_the_host_has() -> None:
    found = leaves("host", "qemu", host=INTEL_HOST)
    _, ebx, ecx, edx = found[0, 0]
    assert text(ebx, edx, ecx) == b"GenuineIntel"
    names = cpuid.features()["names"]["7.0.ebx"]
    assert found[7, 0][1] == sum(1 << bit for bit, name in enumerate(names) if name)


def of_host(host: Any, **cpus: Any) -> dict[tuple[int, int], tuple[int, ...]]:
    return leaves("host", "qemu", host=host, **cpus)


def row(function: int, *words: int, index: int = 0) -> dict[str, int]:
    registers = dict(zip(("eax", "ebx", "ecx", "edx"), words, strict=True))
    return {"function": function, "index": index, "flags": 1, **registers}


def test_host_model_hides_what_cannot_move_unless_told() -> None:
    host = [*INTEL_HOST, row(0x80000007, 0, 0, 0, 0x100)]
    assert of_host(host)[0x80000007, 0][3] == 0
    assert of_host(host, features={"migratable": False})[0x80000007, 0][3] == 0x100


def test_host_model_takes_topoext_only_when_asked() -> None:
    assert not of_host(INTEL_HOST)[0x80000001, 0][2] & 1 << 22
    assert of_host(INTEL_HOST, features={"topoext": True})[0x80000001, 0][2] & 1 << 22


def test_host_model_has_the_hosts_counters() -> None:
    host = [*INTEL_HOST, row(0xA, 0x07300402, 0, 0, 0x603)]
    assert of_host(host)[0xA, 0] == (0x07300402, 0, 0, 0x603)
    assert leaves("Haswell", "qemu", host=host)[0xA, 0] == (0, 0, 0, 0)


def test_caches_of_the_host_are_shown_where_the_type_says_so() -> None:
    l2 = row(4, 0x1C004143, 0x01C0003F, 0x3FF, 0, index=0)  # shared by two, eight cores in the package
    host = [*INTEL_HOST, row(2, 0x00FEFF01, 0xF0, 0, 0), l2]
    assert of_host(host)[2, 0] == (1, 0, 0x4D, 0x2C307D)
    found = of_host(host, compat={"host-cache-info": True}, cores=4, threads=1)
    assert found[2, 0] == (0x00FEFF01, 0xF0, 0, 0)
    assert found[4, 0] == (0x0C004143, 0x01C0003F, 0x3FF, 0)
    alone = of_host(host, compat={"host-cache-info": True})
    assert alone[4, 0][0] == 0x1C000143  # two processors cannot share it when there is one


@pytest.mark.parametrize(
    ("key", "leaf", "register", "bit"),
    [("add-x2apic", 1, 2, 21), ("mask-svm", 0x80000001, 2, 2), ("add-kvm-pv-eoi", 0x40000001, 0, 6)],
)
def test_what_kvm_does_to_every_model_is_left_out_where_the_type_says_so(
    key: str, leaf: int, register: int, bit: int
) -> None:
    model = "Opteron_G3"  # has svm, not x2apic
    usual = leaves(model, "qemu")[leaf, 0][register] >> bit & 1
    without = leaves(model, "qemu", **{key: False})[leaf, 0][register] >> bit & 1
    assert (usual, without) == ((0, 1) if key == "mask-svm" else (1, 0))


def test_a_model_that_has_x2apic_keeps_it_where_kvm_adds_none() -> None:
    assert leaves("SandyBridge", "qemu", **{"add-x2apic": False})[1, 0][2] >> 21 & 1


def test_words_that_hang_on_a_feature_go_with_it() -> None:
    assert leaves("EPYC", "qemu", features={"svm": True})[0x8000000A, 0] == (1, 0x10, 0, 9)
    assert leaves("EPYC", "qemu")[0x8000000A, 0] == (0, 0, 0, 0)


# What QEMU 7.2's own processor shows: no host has a say there.
@pytest.mark.parametrize(
    ("model", "mask", "size", "one"),
    [
        ("SandyBridge", 0x7, 0x340, (1, 0x340, 0, 0)),
        ("Skylake-Client", 0x7, 0x340, (7, 0x340, 0, 0)),
        ("Denverton", 0x1B, 0x440, (7, 0x2C0, 0, 0)),  # MPX without AVX: a hole where AVX would be
    ],
)
def test_xsave_area_of_a_model(model: str, mask: int, size: int, one: tuple[int, ...]) -> None:
    found = leaves(model, "qemu")
    assert (found[0xD, 0][0], found[0xD, 0][2]) == (mask, size)
    assert found[0xD, 1] == one


def test_base_has_nothing_but_what_is_asked_for() -> None:
    found = leaves("base", "qemu", features={"level": 1, "fpu": True})
    assert found[1, 0][2:] == (0, 1)


def test_base_has_no_versions() -> None:
    with pytest.raises(ConfigError, match="no CPU model"):
        load_model("base-v1")


# Leaves 2 and 4 of models with caches of their own, on pc-i440fx-6.0, as QEMU 7.2 gives them.
@pytest.mark.parametrize(
    ("model", "two", "third"),
    [
        ("EPYC", (1, 0, 0x4B, 0x2CFF80), (0x163, 0x3C0003F, 0x1FFF, 6)),
        ("EPYC-Rome", (1, 0, 0x4D, 0x2C3080), (0x163, 0x3C0003F, 0x3FFF, 6)),
        ("Haswell", (1, 0, 0x4D, 0x2C307D), (0x163, 0x3C0003F, 0x3FFF, 6)),
    ],
)
def test_caches_of_an_amd_model_are_in_intels_leaves_until_6_0(
    model: str, two: tuple[int, ...], third: tuple[int, ...]
) -> None:
    found = leaves(model, "qemu", compat={"x-vendor-cpuid-only": False})
    assert found[2, 0] == two
    assert found[4, 3] == third


def test_same_input_gives_the_same_leaves() -> None:
    assert leaves("Opteron_G5", host=INTEL_HOST) == leaves("Opteron_G5", host=INTEL_HOST)


def test_feature_table_has_no_name_in_two_words_but_kvmclock() -> None:
    bits = cpuid.features()["bits"]
    assert [name for name, places in bits.items() if len(places) > 1] == ["kvmclock"]


@pytest.mark.parametrize("family", ["rhel6", "qemu"])
@pytest.mark.parametrize(("cores", "threads"), [(65, 1), (100, 1), (127, 2), (255, 1), (1, 255), (64, 2)])
def test_more_cores_than_a_field_takes_are_a_machine_too(family: str, cores: int, threads: int) -> None:
    found = leaves("qemu64", family, count=cores * threads, cores=cores, threads=threads)
    assert all(0 <= value <= 0xFFFFFFFF for row in found.values() for value in row)
