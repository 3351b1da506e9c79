"""Resolving: what is filled in, where values come from, and that nothing appears that nobody named."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmrun.config.catalogue import Catalogue
from vmrun.config.resolve import check_file
from vmrun.config.spec import ResolvedMachine
from vmrun.config.write import yaml_text

from .conftest import HEAD, Check, Resolve, device

BOARD = [
    "ioapic",
    "i440fx",
    "pmc",
    "piix3",
    "pic0",
    "pic1",
    "fw_cfg",
    "rtc",
    "pit",
    "pcspk",
    "dma1",
    "dma2",
    "fdc",
    "i8042",
    "vmport",
    "port92",
    "ide",
    "pm",
    "vmmouse",
]


def ids(machine: ResolvedMachine) -> list[str]:
    return [entry["id"] for entry in machine["devices"]]


def test_least_machine_is_the_board_and_nothing_else(resolve: Resolve) -> None:
    assert ids(resolve("")) == BOARD


def test_least_machine_has_no_backends(resolve: Resolve) -> None:
    machine = resolve("")
    assert (machine["drives"], machine["chardevs"], machine["netdevs"], machine["monitors"]) == (
        {},
        {},
        {},
        {},
    )


def test_hpet_is_on_the_board_of_pc_i440fx_2_0(resolve: Resolve) -> None:
    machine = resolve("machine: pc-i440fx-2.0\n", head="schema: vmrun/machine/1\n")
    hpet = device(machine, "hpet")["props"]
    assert (hpet["base"], hpet["hpet-intcap"], hpet["timers"]) == (0xFED00000, 4, 3)


def test_name_is_the_files_name(resolve: Resolve) -> None:
    assert resolve("", name="my-pc.yaml").name == "my-pc"


def test_memory_defaults_to_the_types(resolve: Resolve) -> None:
    assert resolve("")["memory"] == 128 << 20


@pytest.mark.parametrize(
    ("machine_type", "memory", "below", "above"),
    [
        ("rhel6.3.0", "3583MiB", 3583 << 20, 0),
        ("rhel6.3.0", "3584MiB", 0xE0000000, 0),
        ("rhel6.3.0", "5GiB", 0xE0000000, (5 << 30) - 0xE0000000),
        ("pc-i440fx-2.0", "3583MiB", 3583 << 20, 0),
        ("pc-i440fx-2.0", "3584MiB", 0xC0000000, 0x20000000),
        ("pc-i440fx-2.0", "5GiB", 0xC0000000, (5 << 30) - 0xC0000000),
    ],
)
def test_ram_is_split_where_the_type_says(
    resolve: Resolve, machine_type: str, memory: str, below: int, above: int
) -> None:
    head = f"schema: vmrun/machine/1\nmachine: {machine_type}\n"
    layout = resolve(f"memory: {memory}\n", head=head)["memory-map"]
    assert (layout["below-4g"], layout["above-4g"]) == (below, above)


# Where a property's value comes from


def test_own_value_wins_over_globals(resolve: Resolve) -> None:
    machine = resolve(
        "globals: {pvpanic: {events: 1}}\ndevices:\n  - {id: a, driver: pvpanic, events: 2}\n"
        "  - {id: b, driver: pvpanic, ioport: 0x600}\n"
    )
    assert device(machine, "a")["props"]["events"] == 2
    assert device(machine, "b")["props"]["events"] == 1


def test_globals_win_over_compat_values(resolve: Resolve) -> None:
    plain = resolve("display: std\n")
    changed = resolve("display: std\nglobals: {VGA: {mmio: true}}\n")
    assert device(plain, "video0")["props"]["mmio"] is False  # RHEL 6's VGA has no second BAR
    assert device(changed, "video0")["props"]["mmio"] is True


def test_compat_value_wins_over_the_drivers_default(resolve: Resolve) -> None:
    assert device(resolve(""), "pm")["props"]["disable_s3"] == 1
    old = resolve("", head="schema: vmrun/machine/1\nmachine: rhel6.1.0\n")
    assert device(old, "pm")["props"]["disable_s3"] == 0


def test_compat_value_of_a_class_reaches_its_drivers(resolve: Resolve) -> None:
    machine = resolve("", head="schema: vmrun/machine/1\nmachine: pc-i440fx-2.0\n")
    assert device(machine, "fw_cfg")["props"]["acpi-mr-restore"] is False  # frozen for class fw_cfg


def test_compat_value_reaches_the_in_kernel_variant(resolve: Resolve) -> None:
    machine = resolve("globals: {kvm-pit: {lost_tick_policy: discard}}\n")
    pit = device(machine, "pit")
    assert pit["in-kernel"] == "kvm-pit"
    assert pit["in-kernel-props"] == {"iobase": 0x40, "lost_tick_policy": "discard"}


def test_file_changes_a_board_device_by_its_id(resolve: Resolve) -> None:
    machine = resolve("devices:\n  - {id: pm, disable_s3: 0}\n")
    assert device(machine, "pm")["props"]["disable_s3"] == 0
    assert ids(machine) == BOARD


def test_cpu_values_frozen_for_all_models_and_for_one_are_brought_together(resolve: Resolve) -> None:
    machine = resolve("cpus: {model: Penryn}\n")
    assert machine["cpus"]["compat"] == {
        "sep": False,
        "tsc-deadline": False,
        "kvm-pv-eoi": False,
        "pmu": True,
        "level": 2,
    }


def test_data_of_the_cpu_model_is_in_the_plain_form(resolve: Resolve) -> None:
    data = resolve("")["cpus"]["model-data"]
    assert (data["name"], data["words"]["1.edx"]) == ("cpu64-rhel6", 0x78BFBFD)
    assert data["rules"]["vendor"] == "host"


def test_data_of_the_cpu_model_is_not_in_the_written_file(resolve: Resolve) -> None:
    assert "model-data" not in yaml_text(resolve("").to_dict())


def test_cpu_model_default_is_the_types(resolve: Resolve) -> None:
    assert resolve("cpus: {model: default}\n")["cpus"]["model"] == "cpu64-rhel6"


def test_version_of_a_cpu_model_brings_its_changes(resolve: Resolve) -> None:
    machine = resolve(
        "cpus: {model: Skylake-Server-v3}\n", head="schema: vmrun/machine/1\nmachine: pc-i440fx-2.0\n"
    )
    assert machine["cpus"]["model-data"]["set"]["rtm"] is False


@pytest.mark.parametrize(
    ("body", "code", "place", "near"),
    [
        ("cpus: {model: Penrin}\n", "VR0705", "m.yaml:3:15", "Penryn"),
        ("cpus: {model: IvyBridge}\n", "VR0705", "m.yaml:3:15", ""),  # a model of QEMU, not of RHEL 6
        ("cpus: {features: {ssse4: true}}\n", "VR0708", "m.yaml:3:19", "ssse3"),
        ("cpus: {features: {avx: 1}}\n", "VR0404", "m.yaml:3:24", ""),
    ],
)
def test_cpu_models_and_features_that_do_not_exist(
    check: Check, body: str, code: str, place: str, near: str
) -> None:
    (problem,) = check(body)
    assert (problem.code, str(problem.place), problem.nearest) == (code, place, near)


# Places


def test_display_gets_slot_two_before_anything_else(resolve: Resolve) -> None:
    machine = resolve("display: std\ndevices:\n  - {id: a, driver: test-nic}\n")
    assert device(machine, "video0")["addr"] == "02.0"
    assert device(machine, "a")["addr"] == "03.0"


def test_slots_are_given_by_id_around_those_taken(resolve: Resolve) -> None:
    machine = resolve(
        "devices:\n  - {id: c, driver: test-nic}\n  - {id: a, driver: test-nic}\n"
        "  - {id: b, driver: test-nic, addr: 03.0}\n"
    )
    assert [device(machine, name)["addr"] for name in "abc"] == ["02.0", "03.0", "04.0"]


def test_pci_bus_has_room_for_thirty_devices_beside_the_board(check: Check, resolve: Resolve) -> None:
    def lines(count: int) -> str:
        return "devices:\n" + "".join(f"  - {{id: n{n:02}, driver: test-nic}}\n" for n in range(count))

    assert device(resolve(lines(30)), "n29")["addr"] == "1f.0"
    (problem,) = check(lines(31))
    assert problem.code == "VR0510"
    assert "'n30'" in problem.message


@pytest.mark.parametrize("addr", ['"5"', "5", '"05.0"', "0x5", '"0x5"', '"0x05.0x0"', "05"])
def test_pci_address_is_read_in_every_spelling(resolve: Resolve, addr: str) -> None:
    machine = resolve(f"devices:\n  - {{id: n, driver: test-nic, addr: {addr}}}\n")
    assert device(machine, "n")["addr"] == "05.0"


def test_disks_fill_both_ide_channels_in_order(resolve: Resolve) -> None:
    machine = resolve("disks: [a.img, b.img, c.img]\n")
    places = [
        (device(machine, name)["bus"], device(machine, name)["props"]["unit"])
        for name in ("ide0-0-0", "ide0-0-1", "ide0-1-0")
    ]
    assert places == [("ide.0", 0), ("ide.0", 1), ("ide.1", 0)]


def test_drive_without_bus_takes_the_first_free_unit(resolve: Resolve) -> None:
    machine = resolve(
        "drives: {x: {file: x}, y: {file: y}, z: {file: z}}\ndevices:\n"
        "  - {id: hd1, driver: ide-drive, bus: ide.0, unit: 1, drive: x}\n"
        "  - {id: hd2, driver: ide-drive, drive: y}\n  - {id: hd3, driver: ide-drive, drive: z}\n"
    )
    found = [
        (device(machine, f"hd{n}")["bus"], device(machine, f"hd{n}")["props"]["unit"]) for n in (1, 2, 3)
    ]
    assert found == [("ide.0", 1), ("ide.0", 0), ("ide.1", 0)]


def test_serial_ports_have_the_standard_places(resolve: Resolve) -> None:
    machine = resolve("serial: [pty, null, pty, pty]\n")
    props = [device(machine, f"serial{n}")["props"] for n in range(4)]
    assert [(p["iobase"], p["irq"]) for p in props] == [(0x3F8, 4), (0x2F8, 3), (0x3E8, 4), (0x2E8, 3)]


def test_serial_port_at_the_second_place_is_com2(resolve: Resolve) -> None:
    machine = resolve(
        "devices:\n  - {id: a, driver: isa-serial, iobase: 0x2f8}\n  - {id: b, driver: isa-serial}\n"
        "  - {id: c, driver: isa-serial}\n"
    )
    assert [device(machine, name)["props"]["index"] for name in "abc"] == [1, 0, 2]
    assert device(machine, "a")["props"]["irq"] == 3


def test_serial_none_leaves_a_port_out(resolve: Resolve) -> None:
    machine = resolve("serial: [none, pty]\n")
    assert ids(machine) == [*BOARD, "serial1"]
    assert device(machine, "serial1")["props"]["iobase"] == 0x2F8


def test_mac_addresses_are_of_the_machines_name_and_the_cards_id(resolve: Resolve) -> None:
    cards = "devices:\n  - {id: b, driver: test-nic}\n  - {id: a, driver: test-nic}\n"
    machine, other = resolve(cards), resolve("name: other\n" + cards)
    macs = [device(one, name)["props"]["mac"] for one in (machine, other) for name in "ab"]
    assert len(set(macs)) == 4 and all(mac.startswith("52:54:00:") for mac in macs)
    more = resolve(cards + "  - {id: 0, driver: test-nic}\n".replace("0,", "z0,"))
    assert device(more, "a")["props"]["mac"] == macs[0]
    taken = resolve(cards + f"  - {{id: c, driver: test-nic, mac: {macs[0]}}}\n")
    assert device(taken, "a")["props"]["mac"] not in macs


def test_devices_without_ids_are_named_by_driver(resolve: Resolve) -> None:
    machine = resolve(
        "devices:\n  - {driver: isa-parallel}\n  - {driver: isa-serial}\n  - {driver: isa-serial}\n"
    )
    assert ids(machine)[len(BOARD) :] == ["isa-parallel-0", "isa-serial-0", "isa-serial-1"]


# Sharing


@pytest.mark.parametrize(
    "body",
    [
        "serial: [pty, pty, pty, pty]\n",
        "devices: [{id: c, driver: isa-debugcon, iobase: 0x514}]\n",
        "parallel: [pty, pty, pty]\n",
        "devices:\n  - {id: e, driver: isa-debug-exit, iobase: 0xf4, iosize: 4}\n"
        "  - {id: c, driver: isa-debugcon, iobase: 0xf8}\n",
        "devices:\n  - {id: a, driver: test-nic, addr: 05.0, multifunction: true}\n"
        "  - {id: b, driver: test-nic, addr: 05.7}\n",
        "drives: {a: {file: x, readonly: true}, b: {file: x, readonly: true}}\n"
        "devices:\n  - {id: h1, driver: ide-drive, drive: a}\n  - {id: h2, driver: ide-drive, drive: b}\n",
    ],
    ids=[
        "serial interrupts",
        "ports of fw_cfg's DMA where it has none",
        "parallel interrupt",
        "neighbouring ports",
        "functions of a slot",
        "readonly image",
    ],
)
def test_what_may_be_shared_is_no_clash(check: Check, body: str) -> None:
    assert check(body) == []


# CPUs


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("{count: 4}", (4, 4, 1, 1, 4)),
        ("{count: 4, cores: 2}", (4, 2, 2, 1, 4)),
        ("{count: 8, sockets: 2, threads: 2}", (8, 2, 2, 2, 8)),
        ("{sockets: 2, cores: 3}", (6, 2, 3, 1, 6)),
        ("{count: 2, maxcpus: 8}", (2, 8, 1, 1, 8)),
        ("{count: 255}", (255, 255, 1, 1, 255)),
    ],
)
def test_cpu_topology_is_filled_in(resolve: Resolve, given: str, expected: tuple[int, ...]) -> None:
    cpus = resolve(f"cpus: {given}\n")["cpus"]
    assert tuple(cpus[key] for key in ("count", "sockets", "cores", "threads", "maxcpus")) == expected


@pytest.mark.parametrize(
    ("given", "newer", "older"),
    [
        ("{count: 4}", (4, 1, 4, 1, 4), (4, 4, 1, 1, 4)),
        ("{count: 4, sockets: 2}", (4, 2, 2, 1, 4), (4, 2, 2, 1, 4)),
        ("{count: 6, cores: 3}", (6, 2, 3, 1, 6), (6, 2, 3, 1, 6)),
        ("{count: 8, threads: 2}", (8, 1, 4, 2, 8), (8, 4, 1, 2, 8)),
        ("{maxcpus: 8}", (8, 1, 8, 1, 8), (8, 8, 1, 1, 8)),
        ("{count: 4, maxcpus: 8, sockets: 2}", (4, 2, 4, 1, 8), (4, 2, 4, 1, 8)),
        ("{count: 6, sockets: 3, cores: 1}", (6, 3, 1, 2, 6), (6, 3, 1, 2, 6)),
    ],
)
def test_cores_come_before_sockets_from_pc_i440fx_6_2_on(
    resolve: Resolve, given: str, newer: tuple[int, ...], older: tuple[int, ...]
) -> None:
    for name, expected in (("pc-i440fx-6.2", newer), ("pc-i440fx-6.1", older)):
        cpus = resolve(f"machine: {name}\ncpus: {given}\n", head="schema: vmrun/machine/1\n")["cpus"]
        assert tuple(cpus[key] for key in ("count", "sockets", "cores", "threads", "maxcpus")) == expected


@pytest.mark.parametrize(
    "given",
    ["{count: 3, sockets: 2}", "{count: 4, maxcpus: 2}", "{count: 4, sockets: 1, cores: 1, threads: 1}"],
)
def test_cpu_topology_that_does_not_add_up_is_refused(check: Check, given: str) -> None:
    (problem,) = check(f"cpus: {given}\n")
    assert problem.code == "VR0704"


# Backends


def test_short_forms_are_exactly_the_long_ones(resolve: Resolve) -> None:
    short = resolve(
        "serial: unix:/tmp/s,server,nowait\n"
        "disks: [a.img]\ndebugcon: {chardev: 'file:/tmp/log', iobase: 0x402}\n"
    )
    long = resolve(
        "chardevs:\n  serial0: {type: socket, path: /tmp/s, server: true, wait: false}\n"
        "  debugcon: {type: file, path: /tmp/log}\n"
        "drives: {drive-ide0-0-0: {file: a.img}}\ndevices:\n"
        "  - {id: serial0, driver: isa-serial, index: 0, chardev: serial0}\n"
        "  - {id: debugcon, driver: isa-debugcon, iobase: 0x402, chardev: debugcon}\n"
        "  - {id: ide0-0-0, driver: ide-drive, bus: ide.0, unit: 0, drive: drive-ide0-0-0}\n"
    )
    assert short.to_dict() == long.to_dict()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("pty", {"type": "pty"}),
        ("'file:log'", {"type": "file", "path": "log", "append": False}),
        (
            "tcp:localhost:4444,server,nowait",
            {
                "type": "socket",
                "host": "localhost",
                "port": 4444,
                "server": True,
                "wait": False,
                "nodelay": False,
                "reconnect": 0,
                "telnet": False,
            },
        ),
        (
            "tcp::4444",
            {
                "type": "socket",
                "host": "localhost",
                "port": 4444,
                "server": False,
                "wait": True,
                "nodelay": False,
                "reconnect": 0,
                "telnet": False,
            },
        ),
    ],
)
def test_words_for_character_devices(
    resolve: Resolve, word: str, expected: dict[str, Any], tmp_path: Path
) -> None:
    if "path" in expected:
        expected = {**expected, "path": str(tmp_path / expected["path"])}
    found = resolve(f"serial: {word}\n")["chardevs"]["serial0"]
    assert {name: value for name, value in found.items() if not name.startswith("log")} == expected


def test_cache_mode_is_the_types_default(resolve: Resolve) -> None:
    old = resolve("disks: [a.img]\n")
    new = resolve("disks: [a.img]\n", head="schema: vmrun/machine/1\nmachine: pc-i440fx-2.0\n")
    assert old["drives"]["drive-ide0-0-0"]["cache"] == "writethrough"
    assert new["drives"]["drive-ide0-0-0"]["cache"] == "writeback"


def test_disk_driver_is_the_types(resolve: Resolve) -> None:
    new = resolve("disks: [a.img]\n", head="schema: vmrun/machine/1\nmachine: pc-i440fx-2.0\n")
    assert device(new, "ide0-0-0")["driver"] == "ide-hd"


def test_relative_paths_begin_at_the_files_directory(resolve: Resolve, tmp_path: Path) -> None:
    machine = resolve("disks: [sub/a.img]\nkernel: bzImage\n")
    assert machine["drives"]["drive-ide0-0-0"]["file"] == str(tmp_path / "sub/a.img")
    assert machine["kernel"] == str(tmp_path / "bzImage")


def test_backend_without_user_is_a_warning(check: Check) -> None:
    (problem,) = check("chardevs: {c: {type: pty}}\n")
    assert (problem.code, problem.severity, str(problem.place)) == ("VR0611", "warning", "m.yaml:3:12")


# Not modelled yet


@pytest.mark.parametrize(
    ("body", "code", "place"),
    [
        ("devices:\n  - {driver: usb-ehci}\n", "VR0801", "m.yaml:4:14"),
        ("chardevs: {c: {type: spiceport, name: x}}\n", "VR0802", "m.yaml:3:22"),
        ("disks: [a.qed]\n", "VR0804", "m.yaml:3:9"),
        ("drives: {d: {file: a, format: qed}}\n", "VR0804", "m.yaml:3:31"),
        ("spice: {port: 5900}\n", "VR0805", "m.yaml:3:1"),
        ("include: [x.cfg]\n", "VR0805", "m.yaml:3:1"),
        ("display: qxl\n", "VR0801", "m.yaml:3:10"),
        ("display: qxl\n", "VR0801", "m.yaml:3:10"),
        ("serial: msmouse\n", "VR0802", "m.yaml:3:9"),
    ],
)
def test_what_is_to_come_is_named_with_its_line(check: Check, body: str, code: str, place: str) -> None:
    (problem,) = check(body)
    assert (problem.code, str(problem.place)) == (code, place)
    assert problem.message.endswith("is not modelled yet")


def test_a_display_that_is_not_modelled_is_never_replaced(check: Check) -> None:
    (problem,) = check("display: qxl\n")
    assert problem.message == "'qxl-vga' is not modelled yet"


# The same output whatever the order, and from its own output


LINES = [
    "  - {id: hd1, driver: ide-drive, drive: x}\n",
    "  - {id: hd0, driver: ide-drive, drive: y}\n",
    "  - {id: a, driver: test-nic}\n",
    "  - {id: b, driver: test-nic, addr: 03.0}\n",
    "  - {id: vga, driver: VGA}\n",
    "  - {driver: isa-serial}\n",
    "  - {driver: isa-serial, chardev: c}\n",
    "  - {id: lpt, driver: isa-parallel}\n",
    "  - {id: pm, disable_s4: 0}\n",
]
AROUND = "drives: {x: {file: x.img}, y: {file: y.img}}\nchardevs: {c: {type: pty}}\ndevices:\n"


@pytest.mark.parametrize("seed", range(5))
def test_order_in_the_file_does_not_matter(resolve: Resolve, seed: int) -> None:
    shuffled = random.Random(seed).sample(LINES, len(LINES))
    straight = resolve(AROUND + "".join(LINES)).to_dict()
    assert resolve(AROUND + "".join(shuffled)).to_dict() == straight


@pytest.mark.parametrize("machine_type", ["rhel6.0.0", "rhel6.3.0", "rhel6.6.0", "pc-i440fx-2.0"])
def test_resolving_the_output_changes_nothing(
    resolve: Resolve, catalogue: Catalogue, tmp_path: Path, machine_type: str
) -> None:
    head = f"schema: vmrun/machine/1\nname: full\nmachine: {machine_type}\n"
    machine = resolve(
        AROUND + "".join(LINES) + "cpus: {count: 4, model: qemu64, features: {sse3: false}}\nmemory: 5GiB\n"
        "rtc: {base: '2012-06-20', driftfix: slew}\n"
        "boot: {order: dc, menu: true}\nkernel: k\ncmdline: 'a: \"b\" # é'\n"
        "uuid: 5E0B1F4C-51C9-4FB5-9CA2-8D7F50E6FD2B\n"
        "smbios: {type1: {serial: '007'}}\npaused: true\naccel: qtest\n"
        "debugcon: tcp:localhost:5555\nfirmware: {dirs: [roms], bios: ./my.bin}\n",
        head=head,
    )
    again_path = tmp_path / "again.yaml"
    again_path.write_text(yaml_text(machine.to_dict(), "resolved"), encoding="utf-8")
    again, problems = check_file(str(again_path), catalogue=catalogue)
    assert problems == []
    assert again is not None
    assert again.to_dict() == machine.to_dict()


def test_plain_form_is_json(resolve: Resolve) -> None:
    data = resolve(AROUND + "".join(LINES)).to_dict()
    assert json.loads(json.dumps(data)) == data
    assert ResolvedMachine.from_dict(json.loads(json.dumps(data))).to_dict() == data


def test_places_lead_back_to_the_file(resolve: Resolve) -> None:
    machine = resolve("display: std\ndevices:\n  - {id: com, driver: isa-serial,\n     irq: 5}\n")
    assert str(machine.place("devices", "com", "irq")) == "m.yaml:6:11"
    assert str(machine.place("devices", "com", "iobase")) == "m.yaml:5:5"
    assert str(machine.place("devices", "rtc", "irq")).startswith("machines/_parts/i440fx-piix3.yaml:")


def test_resolved_machine_is_frozen(resolve: Resolve) -> None:
    with pytest.raises(AttributeError):
        resolve("").data = {}  # type: ignore[misc]


# Pieces of machine files in any combination: errors or a machine that resolves to itself, never an exception

KEYS = st.sampled_from(
    [
        "id",
        "driver",
        "bus",
        "addr",
        "unit",
        "drive",
        "chardev",
        "irq",
        "iobase",
        "index",
        "mac",
        "provides",
        "multifunction",
        "x",
    ]
)
WORDS = st.sampled_from(
    [
        "a",
        "b",
        "rtc",
        "pm",
        "ide",
        "isa-serial",
        "test-nic",
        "VGA",
        "ide-drive",
        "pvpanic",
        "isa-debugcon",
        "usb-ehci",
        "nope",
        "PIIX3",
        "pci.0",
        "isa.0",
        "ide.0",
        "a.0",
        "05.0",
        "01.1",
        "5",
        "0",
        "1",
        "2",
        "4",
        "0x3f8",
        "0x60",
        "65535",
        "-1",
        "true",
        "on",
        "x",
        "c",
        "52:54:00:12:34:56",
        "{a.0: PCI}",
        "[]",
        "null",
        "~",
        '""',
    ]
)
DEVICES = st.lists(st.dictionaries(KEYS, WORDS, max_size=6), max_size=5)
SECTIONS = st.dictionaries(
    st.sampled_from(
        [
            "memory",
            "cpus",
            "display",
            "serial",
            "disks",
            "accel",
            "boot",
            "wires",
            "firmware",
            "globals",
            "uuid",
            "kernel",
        ]
    ),
    st.one_of(
        WORDS,
        st.sampled_from(
            [
                "[pty, null]",
                "{count: 2}",
                "std",
                "stdio",
                "[a.img]",
                "{order: c}",
                "{VGA: {mmio: true}}",
                "{bios: b}",
                '[{from: "pm.smi", to: "gsi[5]"}]',
            ]
        ),
    ),
    max_size=4,
)


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(DEVICES, SECTIONS)
def test_any_combination_has_a_defined_outcome(
    tmp_path: Path, catalogue: Catalogue, devices: list[dict[str, str]], sections: dict[str, str]
) -> None:
    lines = [
        "  - {" + ", ".join(f"{key}: {value}" for key, value in entry.items()) + "}\n" for entry in devices
    ]
    text = HEAD + AROUND + "".join(lines) + "".join(f"{key}: {value}\n" for key, value in sections.items())
    path = tmp_path / "m.yaml"
    path.write_text(text)
    machine, problems = check_file(str(path), catalogue=catalogue)
    assert (machine is None) == any(problem.severity == "error" for problem in problems)
    if machine is not None:
        path.write_text(yaml_text(machine.to_dict()))
        again, _ = check_file(str(path), catalogue=catalogue)
        assert again is not None
        assert again.to_dict() == machine.to_dict()


# --- NUMA -----------------------------------------------------------------------------------------------


def test_without_cpus_nodes_take_turns_by_socket(resolve: Resolve) -> None:
    text = "memory: 1GiB\ncpus: {sockets: 3, cores: 2}\nnuma: [{memory: 256MiB}, {memory: 768MiB}]\n"
    assert resolve(text)["numa"] == [
        {"cpus": [0, 1, 4, 5], "memory": 256 << 20},
        {"cpus": [2, 3], "memory": 768 << 20},
    ]
