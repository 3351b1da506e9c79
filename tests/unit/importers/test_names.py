"""Names and values that QEMU takes: each means what QEMU means by it, or is named with what becomes of it."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
from typing import Any

import pytest

from vmrun.config.catalogue import load_catalogue
from vmrun.config.importers.line import OPTIONS, Parsed, parse_command_line
from vmrun.config.importers.qemuopts import LineError
from vmrun.config.load import load_bytes
from vmrun.config.resolve import resolve
from vmrun.errors import ERROR

ROOT = pathlib.Path(__file__).resolve().parents[3]
QEMU = "qemu-system-x86_64"


def parsed(line: str) -> Parsed:
    return parse_command_line(line.split(), defaults=False)


def document(line: str) -> dict[str, Any]:
    return parsed(line).document


def errors(line: str) -> list[tuple[str, str]]:
    problems: list[Any] = []
    resolve(load_bytes(json.dumps(document(line)).encode(), "m.json", problems), problems, "/", "m")
    return [(problem.code, problem.message) for problem in problems if problem.severity == ERROR]


@pytest.mark.parametrize(
    ("line", "features"),
    [
        ("kvm64,+kvm_pv_eoi,+kvm_pv_unhalt,+lahf_lm", {"kvm-pv-eoi": True, "kvm-pv-unhalt": True, "lahf-lm": True}),
        ("486,level=0xF", {"level": 15}),
        ("qemu64,model_id=A_b,phys_bits=36", {"model-id": "A_b", "phys-bits": 36}),
        ("qemu64,fpu=on,-fpu", {"fpu": False}),
        ("qemu64,-fpu,fpu=on", {"fpu": False}),
        ("qemu64,-fpu,+fpu", {"fpu": False}),
        ("qemu64,fpu=y,sse=no", {"fpu": True, "sse": False}),
        ("qemu64,tsc-freq=1G", {"tsc-frequency": 10**9}),
        ("qemu64,vendor=GenuineIntel", {"vendor": "GenuineIntel"}),
    ],
)
def test_features_of_a_processor(line: str, features: dict[str, Any]) -> None:
    assert document(f"-cpu {line}")["cpus"]["features"] == features


def test_an_empty_feature_is_none() -> None:
    assert document("-cpu SandyBridge,")["cpus"] == {"model": "SandyBridge"}


@pytest.mark.parametrize("sign", ["+", "-"])
def test_two_ways_to_say_a_feature_are_warned_of(sign: str) -> None:
    warning = parsed(f"-cpu qemu64,{sign}fpu,fpu=on").warnings[0].message
    assert f'Don\'t mix both "{sign}fpu" and "fpu=on"' in warning


@pytest.mark.parametrize(
    "feature", ["hv_relaxed", "hv-spinlocks=0x1fff", "hv_vendor_id=x", "+hv-time", "hv-passthrough"]
)
def test_hyper_v_is_known_and_to_come(feature: str) -> None:
    assert [code for code, _ in errors(f"-cpu qemu64,{feature}")] == ["VR0806"]


def test_hyper_v_that_is_off_is_what_there_is() -> None:
    assert errors("-cpu qemu64,hv-relaxed=off") == []


def test_qemus_properties_of_processors_are_known() -> None:
    text = subprocess.run([QEMU, "-device", "qemu64-x86_64-cpu,help"], capture_output=True, text=True).stdout
    skip = r"(?:apic|core|die|node|socket|thread)-id|memory|feature-words|filtered-features|start-powered-off|"
    skip += r"unavailable-features|crash-information|legacy-cache|level-func7"
    wrong = []
    for name, kind in re.findall(r"(?m)^  ([\w.-]+)=<([^>]*)>", text):
        if re.fullmatch(skip, name):
            continue
        value = {"bool": "on", "string": "abcdefghijkl", "str": "abcdefghijkl"}.get(kind, "1")
        wrong += [message for code, message in errors(f"-cpu qemu64,{name}={value}") if code == "VR0708"]
    assert len(re.findall(r"(?m)^  [\w.-]+=<", text)) > 300
    assert wrong == []


def test_every_driver_of_qemus_is_known() -> None:
    text = subprocess.run([QEMU, "-device", "help"], capture_output=True, text=True).stdout
    names = re.findall(r'(?m)^name "([^"]+)"', text) + re.findall(r', alias "([^"]+)"', text)
    assert len(names) > 250
    catalogue = load_catalogue()
    assert [name for name in names if not name.endswith("-x86_64-cpu") and catalogue.driver(name) is None] == []


def test_every_planned_driver_has_a_part_of_the_page() -> None:
    page = (ROOT / "docs" / "planned.md").read_text()
    titles = {title.lower().replace("'", "").replace(" ", "-") for title in re.findall(r"(?m)^## (.*)$", page)}
    plans = {entry["plan"] for entry in json.loads((ROOT / "schema" / "planned.json").read_text()).values()}
    assert plans <= titles


def test_every_option_of_qemus_is_known() -> None:
    text = subprocess.run([QEMU, "-help"], capture_output=True, text=True).stdout
    named = set(re.findall(r"(?m)^(?:-[\w-]+ or |-\w+/)?-{1,2}([A-Za-z][\w-]*)", text)) - {"audio-help"}
    assert len(named) > 100
    assert named - set(OPTIONS) == set()


HOST = [
    "aio=io_uring",
    "detect-zeroes=on",
    "file.locking=off",
    "discard=on",
    "discard=unmap",
    "iops=5",
    "copy-on-read=on",
]


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ("bps=1000000,iops_rd=5,iops_rd_max=50", {"bps": 1000000, "iops-rd": 5, "iops-rd-max": 50}),
        (
            "throttling.bps-write=2M,throttling.iops-size=4096,iops=9",
            {"bps-wr": 2 << 20, "iops-size": 4096, "iops": 9},
        ),
    ],
)
def test_limits_of_a_disk_have_two_spellings(options: str, limits: dict[str, int]) -> None:
    (drive,) = document(f"-drive if=none,id=d,file=x,format=raw,{options}")["drives"].values()
    assert {key: value for key, value in drive.items() if key not in ("file", "format")} == limits


def test_text_that_looks_like_a_number_stays_text() -> None:
    found = document("-drive if=none,id=d,file=x,format=raw -device nvme,drive=d,serial=0001")
    assert found["devices"][0]["serial"] == "0001"


@pytest.mark.parametrize("option", HOST)
def test_what_only_the_host_sees_of_a_disk_ends_no_start(option: str) -> None:
    found = parsed(f"-drive file=x,format=raw,{option}")
    assert found.lost == []
    assert len(found.warnings) <= 1


@pytest.mark.parametrize("option", ["aio=x", "discard=x", "werror=x", "rerror=enospc", "cache=x", "detect-zeroes=x"])
def test_what_qemu_refuses_of_a_disk_is_refused(option: str) -> None:
    with pytest.raises(LineError, match=r"-drive file=x,format=raw,"):
        parsed(f"-drive file=x,format=raw,{option}")


@pytest.mark.parametrize("kind", ["sd", "mtd", "xen"])
def test_interfaces_that_a_pc_lacks(kind: str) -> None:
    with pytest.raises(LineError, match=f"machine type does not support if={kind},bus=0,unit=0"):
        parsed(f"-drive if={kind},file=x")


@pytest.mark.parametrize(
    "line",
    [
        "-drive if=pflash,unit=0,id=a,readonly=on,file=x -drive if=pflash,id=b,file=y",
        "-blockdev driver=file,filename=x,node-name=a,read-only=on -machine pflash0=a "
        "-drive if=pflash,unit=1,id=b,file=y",
    ],
)
def test_flash_is_two_devices_one_below_the_other(line: str) -> None:
    found = document(line)
    assert {id: (drive["file"], drive.get("readonly", False)) for id, drive in found["drives"].items()} == {
        "a": ("x", True), "b": ("y", False),
    }  # fmt: skip
    devices = [{key: device.get(key) for key in ("driver", "drive", "below")} for device in found["devices"]]
    assert sorted(devices, key=lambda device: str(device["drive"])) == [
        {"driver": "cfi.pflash01", "drive": "a", "below": None},
        {"driver": "cfi.pflash01", "drive": "b", "below": "system.flash0"},
    ]


def test_the_second_flash_needs_the_first() -> None:
    with pytest.raises(LineError, match="pflash1 requires pflash0"):
        parsed("-drive if=pflash,unit=1,file=y")


def test_the_default_place_of_a_sugar_gives_way_to_a_global() -> None:
    found = document("-debugcon file:x -global isa-debugcon.iobase=0x402")
    assert found["globals"] == {"isa-debugcon": {"iobase": 0x402}}
    assert "iobase" not in found["devices"][0]


def test_a_machine_says_its_processors() -> None:
    assert document("-machine smp.cpus=8,smp.sockets=2")["cpus"] == {"count": 8, "sockets": 2}
    assert document("-machine memory.size=64M")["memory"] == "64MiB"


def test_a_network_card_without_a_machine() -> None:
    assert document("-nic user")["devices"][0]["driver"] == "e1000"
    assert document("-nic model=pcnet")["netdevs"] == {"user0": {"type": "user"}}


@pytest.mark.parametrize(
    "text", ["{'driver':'isa-debug-exit','id':'a'}", """{"driver": 'isa-debug-exit', "id": "a"}"""]
)
def test_json_has_either_quotes(text: str) -> None:
    assert parse_command_line(["-device", text], False).document["devices"] == [{"id": "a", "driver": "isa-debug-exit"}]


def test_the_menus_time_and_the_floppys_check() -> None:
    assert document("-boot menu=on,splash-time=5000 -no-fd-bootchk")["boot"] == {
        "menu": True, "splash-time": 5000, "floppy-check": False,
    }  # fmt: skip


def test_an_empty_order() -> None:
    assert document("-boot order=")["boot"] == {"order": ""}
    assert errors("-boot order=") == []


def test_an_empty_drive() -> None:
    assert errors("-drive if=none,id=d0") == []
    assert [code for code, _ in errors("-drive if=none,id=d0 -device ide-hd,drive=d0,bus=ide.0,unit=0")] == ["VR0605"]


def test_the_same_image_with_snapshots() -> None:
    assert errors("-drive file=/x,format=raw,snapshot=on -drive file=/x,format=raw,snapshot=on") == []


def test_processors_of_no_node_are_in_the_first() -> None:
    problems: list[Any] = []
    text = json.dumps(document("-smp 4 -m 64 -numa node,cpus=0-1,mem=32 -numa node,cpus=2,mem=32")).encode()
    found = resolve(load_bytes(text, "m.json", problems), problems, "/", "m")
    assert found is not None
    assert [node["cpus"] for node in found.data["numa"]] == [[0, 1, 3], [2]]
    assert [p.message for p in problems if p.code == "VR0711"] == ["in no NUMA node: CPU 3; node 0 takes them"]


@pytest.mark.parametrize(
    ("given", "name", "whose"),
    [
        ("pc-i440fx-7.1+pve0", "pc-i440fx-7.1", "Proxmox's"),
        ("pc-i440fx-focal", "pc-i440fx-4.2", "Ubuntu's"),
        ("pc-i440fx-bionic-hpb", "pc-i440fx-2.11", "Ubuntu's"),
        ("pc-i440fx-rhel7.6.0", "pc-i440fx-rhel7.6.0", "Red Hat's"),
    ],
)
def test_a_distributions_own_word_is_named(given: str, name: str, whose: str) -> None:
    found = parsed(f"-M {given}")
    assert found.document["machine"] == name
    assert whose in found.warnings[0].message


def test_proxmoxs_number() -> None:
    assert "Proxmox's own word" in parsed("-id 100").warnings[0].message


@pytest.mark.parametrize(
    "line", ["-d int", "-trace x"]
)
def test_what_is_not_logged_is_said(line: str) -> None:
    assert "nothing is written" in parsed(line).warnings[0].message


@pytest.mark.parametrize(
    "line", ["-sandbox off", "-overcommit mem-lock=off,cpu-pm=off", "-d none", "-msg timestamp=on"]
)
def test_what_asks_for_nothing_is_taken(line: str) -> None:
    assert parsed(line).warnings == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-smp 2,cores=4", r"sockets \(0\) \* dies \(1\) \* cores \(4\) \* threads \(1\) != maxcpus \(2\)"),
        ("-smp 6,sockets=4", r"sockets \(4\) \* dies \(1\) \* cores \(1\) \* threads \(1\) != maxcpus \(6\)"),
        ("-chardev ringbuf,id=a,size=3", "size of ringbuf chardev must be power of two"),
        ("-device pci-testdev,addr=20", "Property 'pci-testdev.addr' doesn't take value '20'"),
        ("-object foo,id=a", "Parameter 'qom-type' does not accept value 'foo'"),
        ("-smbios type=99", "Don't know how to build fields for SMBIOS type 99"),
        ("-drive file=x,index=1,bus=1", "index cannot be used with bus and unit"),
    ],
)
def test_what_qemu_refuses(line: str, message: str) -> None:
    with pytest.raises(LineError, match=message):
        parse_command_line(line.split(), defaults=True)


@pytest.mark.parametrize(
    "line",
    ["-cpu qemu64,,", "-m 64,slots=0,maxmem=64M", "-smp 4,cores=2", "-smp 1,threads=0", "-drive file=x,index=0,bus=0"],
)
def test_what_qemu_takes(line: str) -> None:
    assert parse_command_line(line.split(), defaults=True).lost == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("format=raw,l2-cache-size=1M", "Block format 'raw' does not support the option 'l2-cache-size'"),
        ("format=raw,overlap-check=all", "Block format 'raw' does not support the option 'overlap-check'"),
        ("nosuch=1,format=qcow2", "Block format 'qcow2' does not support the option 'nosuch'"),
    ],
)
def test_a_format_s_options_are_taken_for_that_format(options: str, text: str) -> None:
    with pytest.raises(LineError, match=re.escape(text)):
        parsed(f"-drive if=virtio,file=a.img,{options}")


@pytest.mark.parametrize(
    "options", ["format=qcow2,pass-discard-request=on", "format=raw,stats-account-invalid=on,stats-intervals.0=60"]
)
def test_options_about_the_host_s_work_are_taken(options: str) -> None:
    assert errors(f"-nodefaults -drive if=virtio,file=/dev/zero,{options}") == []
