"""What the devices of a libvirt domain say of their rings, places and memory reaches the machine."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.importers.test_domain import ACPI, imported, told
from vmrun.config.importers.libvirt import import_domain
from vmrun.errors import ConfigError

RINGS = "iommu='on' ats='on' packed='on' page_per_vq='on'"
WITH_RINGS = {
    "virtio-net-pci": f"<interface type='user'><model type='ViRtIo'/><driver {RINGS}/></interface>",
    "virtio-blk-pci": f"<disk><driver {RINGS}/><source file='/a'/><target dev='vda'/></disk>",
    "virtio-rng-pci": f"<rng model='virtio'><backend model='builtin'/><driver {RINGS}/></rng>",
    "virtio-scsi-pci": f"<controller type='scsi' model='virtio-scsi'><driver {RINGS}/></controller>",
    "virtio-serial-pci": f"<controller type='virtio-serial'><driver {RINGS}/></controller>",
    "virtio-keyboard-pci": f"<input type='keyboard' bus='virtio'><driver {RINGS}/></input>",
    "virtio-vga": f"<video><model type='virtio'/><driver {RINGS}/></video>",
}


def devices(xml: str, more: str = ACPI) -> dict[str, dict[str, Any]]:
    """Of each id the device; of one without, its driver."""
    return {str(device.get("id", device["driver"])): device for device in imported(xml, more)["devices"]}


def places(xml: str) -> dict[str, tuple[str, str]]:
    return {id: (found["bus"], found["addr"]) for id, found in devices(xml).items() if "addr" in found}


@pytest.mark.parametrize("driver", WITH_RINGS)
def test_rings(driver: str) -> None:
    found = next(each for each in devices(WITH_RINGS[driver]).values() if each["driver"] == driver)
    assert [found.get(key) for key in ("iommu_platform", "ats", "packed", "page-per-vq")] == [True] * 4
    assert told(WITH_RINGS[driver], ACPI) == []


def test_rings_of_what_has_none_are_named() -> None:
    assert [text for _, text in told("<watchdog><driver packed='on'/></watchdog>", ACPI)] == [
        "<driver> has no equal in a machine file"
    ]


def test_an_acpi_index() -> None:
    card = "<interface type='user'><model type='e1000'/><acpi index='7'/></interface>"
    assert devices(card)["net0"]["acpi-index"] == 7


def test_cards_of_the_host_have_no_stand_in() -> None:
    xml = "<interface type='hostdev'><source><address type='pci' bus='0x03' slot='0x07'/></source></interface>"
    assert "devices" not in imported(xml, ACPI)
    assert [text for _, text in told(xml, ACPI)] == ["type='hostdev' of <interface> has no equal in a machine file"]


def test_receive_side_scaling_is_named_unless_off() -> None:
    card = "<interface type='user'><model type='virtio'/><driver rss='{}'/></interface>"
    assert [text for _, text in told(card.format("on"), ACPI)] == [
        "rss='on' of <driver> has no equal in a machine file"
    ]
    assert told(card.format("off"), ACPI) == []


def test_a_source_of_random_numbers_that_is_not_there_takes_its_device_with_it() -> None:
    xml = "<rng model='virtio'><backend model='egd' type='tcp'><source mode='connect' host='h' service='1'/>"
    xml += "<protocol type='raw'/></backend></rng>"
    assert "devices" not in imported(xml, ACPI)
    assert len(told(xml, ACPI)) == 1


def test_the_white_space_of_a_serial_number_stays() -> None:
    disk = "<disk><source file='/a'/><target dev='hda'/><serial>  A B</serial></disk>"
    assert devices(disk)["ide0-0-0"]["serial"] == "  A B"


def test_a_lun_is_booted_from_as_a_disk_is() -> None:
    xml = "<controller type='scsi' model='virtio-scsi'/><disk type='block' device='lun'><source dev='/dev/x'/>"
    found = import_words(xml + "<target dev='sda' bus='scsi'/></disk>")
    assert "bootindex=1" in next(word for word in found if word.startswith("scsi-block"))


def import_words(xml: str, more: str = ACPI) -> list[str]:
    """The options of a domain, for what vmrun does not model."""
    from tests.unit.importers.test_domain import domain
    from vmrun.config.importers.libvirt import _Domain
    from vmrun.config.importers.xmltree import parse_xml

    return _Domain(parse_xml(domain(xml, more, os="<boot dev='hd'/>").encode(), "m.xml"), "m.xml").words


def test_a_vnc_socket_without_a_path() -> None:
    words = import_words("<graphics type='vnc'><listen type='socket'/></graphics>")
    assert words[words.index("-vnc") + 1] == "vnc=unix:vnc.sock"


@pytest.mark.parametrize(
    ("listen", "where"),
    [
        ("<listen type='address' address='::1'/>", "[::1]:0"),
        ("<listen type='address' address='127.0.0.2'/>", "127.0.0.2:0"),
        ("<listen type='socket' socket='/a=b.sock'/>", "unix:/a=b.sock"),
    ],
)
def test_where_vnc_listens(listen: str, where: str) -> None:
    found = imported(f"<graphics type='vnc' port='5900'>{listen}</graphics><video><model type='vga'/></video>", ACPI)
    assert found["vnc"]["listen"] == where


def test_a_name_with_commas_and_equals_signs() -> None:
    xml = "<domain type='qemu'><name>a=1,b</name><memory>65536</memory><os><type machine='pc'>hvm</type></os></domain>"
    assert import_domain(xml.encode(), "m.xml")[0]["name"] == "a-1-b"


@pytest.mark.parametrize(
    ("emulator", "arch", "model"),
    [
        ("qemu-system-i386", "i686", "qemu32"),
        ("qemu-system-x86_64", "i686", None),
        ("", "i686", "qemu32"),
        ("", "x86_64", None),
    ],
)
def test_the_processor_of_an_emulator(emulator: str, arch: str, model: str | None) -> None:
    at = f"<devices><emulator>/usr/bin/{emulator}</emulator></devices>" if emulator else ""
    os = f"<os><type machine='pc' arch='{arch}'>hvm</type></os>"
    xml = f"<domain type='qemu'><name>t</name><memory>65536</memory>{os}{at}</domain>"
    assert import_domain(xml.encode(), "m.xml")[0]["cpus"].get("model") == model


def test_a_table_of_the_firmware_and_the_hole_of_pci() -> None:
    hole = "<controller type='pci' model='pci-root'><pcihole64 unit='GiB'>4</pcihole64></controller>"
    found = imported(hole, ACPI, os="<acpi><table type='slic'>/s.bin</table></acpi>")
    assert found["firmware"]["acpi-tables"] == [{"sig": "SLIC", "file": ["/s.bin"]}]
    assert "i440FX-pcihost.pci-hole64-size=4294967296" in import_words(hole)


@pytest.mark.parametrize("kind", ["unix", "tcp", "udp"])
def test_a_raw_protocol_says_nothing(kind: str) -> None:
    where = "<source path='/s'/>" if kind == "unix" else "<source mode='connect' host='h' service='1'/>"
    port = f"<serial type='{kind}'>{where}<protocol type='{{}}'/></serial>"
    assert told(port.format("raw"), ACPI) == []
    assert [text for _, text in told(port.format("tls"), ACPI)] == [
        "type='tls' of <protocol> has no equal in a machine file"
    ]


# --- places -------------------------------------------------------------------------------------------------------


def disks(count: int, first: int = 0) -> str:
    names = [f"vd{chr(97 + n // 26 - 1) if n >= 26 else ''}{chr(97 + n % 26)}" for n in range(first, first + count)]
    return "".join(f"<disk><source file='/{name}'/><target dev='{name}'/></disk>" for name in names)


def test_the_last_slot_is_for_a_bridge() -> None:
    assert places(disks(28))["virtio-disk27"] == ("pci.0", "1d.0")
    assert not any(bus != "pci.0" for bus, _ in places(disks(29)).values())
    found = places(disks(30))  # one slot more would be the last: a bridge takes the first
    assert found["pci.1"] == ("pci.0", "02.0")
    assert found["virtio-disk0"] == ("pci.0", "03.0")
    assert found["virtio-disk29"] == ("pci.1", "01.0")


def test_many_disks_are_behind_bridges() -> None:
    found = places(disks(100))
    assert {bus for bus, _ in found.values()} == {"pci.0", "pci.1", "pci.2", "pci.3"}
    assert len(set(found.values())) == len(found) == 103


def test_a_bus_that_is_named_is_made_with_those_before_it() -> None:
    disk = "<disk><source file='/a'/><target dev='vda'/><address type='pci' bus='0x03' slot='0x05'/></disk>"
    found = places(disk)
    assert found["virtio-disk0"] == ("pci.3", "05.0")
    assert [found[f"pci.{n}"] for n in (1, 2, 3)] == [("pci.0", f"{n:02x}.0") for n in (2, 3, 4)]


@pytest.mark.parametrize(
    "xml",
    [
        "<disk><source file='/a'/><target dev='vda'/><address type='pci' bus='0x100' slot='0x05'/></disk>",
        "<controller type='pci' index='99999999' model='pci-bridge'/>",
    ],
)
def test_there_are_256_buses(xml: str) -> None:
    with pytest.raises(ConfigError, match="there is no bus"):
        imported(xml, ACPI)


PORT = "<channel type='pty'><target type='virtio' name='{}'/>{}</channel>"
WHERE = "<address type='virtio-serial' controller='{}' bus='0' {}/>"


def ports(xml: str) -> list[tuple[str, int]]:
    return [(each["bus"], each["nr"]) for each in devices(xml).values() if each["driver"] == "virtserialport"]


def test_ports_are_on_the_first_controller_with_room() -> None:
    xml = "<controller type='virtio-serial' index='0' ports='3'/>" + "".join(PORT.format(n, "") for n in range(4))
    assert ports(xml) == [
        ("virtio-serial0.0", 1),
        ("virtio-serial0.0", 2),
        ("virtio-serial1.0", 1),
        ("virtio-serial1.0", 2),
    ]


def test_ports_that_are_named_are_kept_for_those_that_name_them() -> None:
    xml = PORT.format("a", "") + PORT.format("b", WHERE.format(0, "port='1'")) + PORT.format("c", WHERE.format(2, ""))
    assert ports(xml) == [("virtio-serial0.0", 2), ("virtio-serial0.0", 1), ("virtio-serial2.0", 1)]
    assert {id for id in devices(xml) if id.startswith("virtio-serial")} == {"virtio-serial0", "virtio-serial2"}


@pytest.mark.parametrize("where", [WHERE.format("x", ""), WHERE.format(0, "port='x'")])
def test_a_port_that_is_no_number(where: str) -> None:
    with pytest.raises(ConfigError, match="no number"):
        imported(PORT.format("a", where), ACPI)


def test_a_place_on_pci_that_is_not_said_is_the_next() -> None:
    disk = "<disk><source file='/a'/><target dev='vda'/><address type='pci'/></disk>"
    assert places(disk)["virtio-disk0"] == ("pci.0", "02.0")


def test_usb_devices_that_no_port_is_left_for_are_behind_hubs_of_eight() -> None:
    found = devices("<controller type='usb' model='piix3-uhci'/>" + "<input type='tablet' bus='usb'/>" * 9)
    inputs = [str(found[f"input{n}"]["port"]) for n in range(9)]
    assert found["hub0"]["port"] == 1 and inputs == ["2", *(f"1.{n}" for n in range(1, 9))]
    found = devices("<controller type='usb' model='piix3-uhci'/>" + "<input type='tablet' bus='usb'/>" * 10)
    assert [str(found[f"input{n}"]["port"]) for n in range(10)] == [*(f"1.{n}" for n in range(1, 9)), "2.1", "2.2"]


def test_seven_disks_are_on_an_adapter_for_scsi() -> None:
    disk = "<disk><source file='/{0}'/><target dev='{0}' bus='scsi'/></disk>"
    found = devices("".join(disk.format(name) for name in ("sda", "sdg", "sdh", "sdi")))
    places = [(found[id]["bus"], found[id]["scsi-id"]) for id in ("scsi0-0-0", "scsi0-0-6", "scsi1-0-0", "scsi1-0-1")]
    assert places == [("scsi0.0", 0), ("scsi0.0", 6), ("scsi1.0", 0), ("scsi1.0", 1)]


def test_a_qxl_card_has_libvirts_memory_where_none_is_said() -> None:
    card = devices("<video><model type='qxl'/></video>")["video0"]
    assert [card[key] for key in ("ram_size", "vram_size", "vram64_size_mb", "vgamem_mb")] == [1 << 26, 1 << 26, 0, 16]


def test_sound_on_usb_has_a_port() -> None:
    assert (found := devices("<sound model='usb'/>")["sound0"])["driver"] == "usb-audio" and found["port"] == 1


@pytest.mark.parametrize(("model", "at"), [("ne2k_isa", "02.0"), ("usb-net", "02.0"), ("e1000e", "03.0")])
def test_a_card_that_is_not_on_pci_takes_no_place_there(model: str, at: str) -> None:
    xml = f"<interface type='user'><model type='{model}'/></interface><interface type='user'/>"
    assert places(xml)["net1"] == ("pci.0", at)


def test_a_usb_bus_that_is_no_number() -> None:
    with pytest.raises(ConfigError, match="bus of <address> is 'x'"):
        imported("<hub type='usb'><address type='usb' bus='x' port='1'/></hub>", ACPI)


@pytest.mark.parametrize(
    ("xml", "more", "what"),
    [("<hub type='usb'/>" * 2049, "", "2048 devices"), ("", "<cell memory='1024'/>" * 129, "128 NUMA nodes")],
)
def test_there_is_an_end(xml: str, more: str, what: str) -> None:
    with pytest.raises(ConfigError, match=f"more than {what}"):
        imported(xml, f"{ACPI}<cpu><numa>{more}</numa></cpu>")


# --- memory -------------------------------------------------------------------------------------------------------

CELLS = "<cpu><numa>{}</numa></cpu>"
HOT = "<maxMemory slots='4' unit='MiB'>1024</maxMemory>"


def test_cells_are_of_whole_mebibytes_and_make_the_memory() -> None:
    cell = CELLS.format("<cell id='0' cpus='0' memory='20002'/><cell id='1' memory='1025' unit='KiB'/>")
    found = imported("", ACPI + cell)
    assert [node["memory"] for node in found["numa"]] == ["20MiB", "2MiB"]
    assert found["memory"] == "22MiB"


def test_modules_are_of_two_mebibytes() -> None:
    module = "<memory model='dimm'><target><size>65535</size><node>0</node></target>"
    module += "<address type='dimm' slot='2' base='0x100000000'/></memory>"
    more = ACPI + HOT + CELLS.format("<cell id='0' cpus='0' memory='65536'/>")
    found = imported(module, more)
    assert found["devices"] == [
        {"driver": "pc-dimm", "node": 0, "memdev": "memdimm2", "id": "dimm2", "slot": 2, "addr": 1 << 32}
    ]
    assert found["objects"]["memdimm2"]["size"] == 64 << 20
    assert told(module, more) == []


def test_shared_memory() -> None:
    cell = CELLS.format("<cell id='0' cpus='0' memory='65536' memAccess='{}'/>")
    assert "memory-backend-memfd,id=ram-node0,share=on,size=67108864" in import_words("", ACPI + cell.format("shared"))
    assert "memory-backend-ram,id=ram-node0,size=67108864" in import_words("", ACPI + cell.format("private"))
    whole = "<memoryBacking><source type='memfd'/><access mode='shared'/><discard/></memoryBacking>"
    assert "memory-backend-memfd,id=pc.ram,share=on,size=67108864" in import_words("", ACPI + whole)
    assert told("", ACPI + whole) == []


@pytest.mark.parametrize(
    ("tune", "nodes"),
    [
        ("<memory mode='strict' nodeset='0-7,^3'/>", "host-nodes=0-2,,4-7,policy=bind"),
        ("<memory nodeset='0'/><memnode cellid='0' mode='preferred' nodeset='3'/>", "host-nodes=3,policy=preferred"),
        ("<memnode cellid='1' nodeset='3'/>", ""),
    ],
)
def test_memory_of_nodes_of_the_host(tune: str, nodes: str) -> None:
    more = f"{ACPI}<numatune>{tune}</numatune>" + CELLS.format("<cell id='0' cpus='0' memory='65536'/>")
    assert f"memory-backend-ram,id=ram-node0,size=67108864{',' * bool(nodes)}{nodes}" in import_words("", more)


def test_a_machine_file_says_where_its_memory_is() -> None:
    whole = "<memoryBacking><access mode='shared'/></memoryBacking><numatune><memory nodeset='0-1'/></numatune>"
    found = imported("", ACPI + whole)
    assert found["memory-backing"] == {"share": True, "policy": "bind", "host-nodes": "0-1"}
    assert "memory-backing" not in imported("", ACPI + CELLS.format("<cell id='0' cpus='0' memory='65536'/>"))


def test_a_node_that_no_host_has() -> None:
    with pytest.raises(ConfigError, match="nodes beyond 1023"):
        imported("", f"{ACPI}<numatune><memory nodeset='0-99999999'/></numatune>")


def test_memory_without_processors_has_the_nearest() -> None:
    cells = "<cell id='0' cpus='0' memory='65536'/><cell id='1' memory='65536'/>"
    rows = "".join(f"<latency initiator='0' target='{n}' type='access' value='{5 + n}'/>" for n in (0, 1))
    more = ACPI + CELLS.format(cells + f"<interconnects>{rows}</interconnects>")
    assert "node,nodeid=1,initiator=0,memdev=ram-node1" in import_words("", more)


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("protocol='nbd' name='x'><host name='h'/>", "nbd:h:10809:exportname=x"),
        ("protocol='nbd'><host name='h' port='7' transport='tcp'/>", "nbd:h:7"),
        ("protocol='nbd'><host name='::1'/>", "nbd:[::1]:10809"),
        ("protocol='nbd' name='x'><host transport='unix' socket='/run/n'/>", "nbd:unix:/run/n:exportname=x"),
        ("protocol='https' name='/d/x.img'><host name='h'/>", "https://h/d/x.img"),
        ("protocol='http' name='d/x.img'><host name='h' port='8080'/>", "http://h:8080/d/x.img"),
        ("protocol='http' name='x' query='a=b'><host name='h'/>", "http://h/x?a=b"),
        ("protocol='nbd' name='x'><host name='::1'/><reconnect delay='10'/>",
         'json:{"driver":"nbd","server":{"type":"inet","host":"::1","port":"10809"},"export":"x","reconnect-delay":"10"}'),
        ("protocol='nbd'><host transport='unix' socket='/run/n'/><reconnect delay='10'/>",
         'json:{"driver":"nbd","server":{"type":"unix","path":"/run/n"},"reconnect-delay":"10"}'),
        ("protocol='https' name='x'><host name='h'/><ssl verify='no'/><readahead size='65536'/><timeout seconds='6'/>"
         "<cookies><cookie name='a'>1</cookie><cookie name='b'>2</cookie></cookies>",
         'json:{"driver":"https","url":"https://h/x","readahead":"65536","timeout":"6","sslverify":false,'
         '"cookie":"a=1; b=2"}'),
    ],
)
def test_images_of_servers(source: str, file: str) -> None:
    xml = f"<disk type='network'><source {source}</source><target dev='vda' bus='virtio'/></disk>"
    assert [drive["file"] for drive in imported(xml, ACPI)["drives"].values()] == [file]
    assert told(xml, ACPI) == []


def test_images_of_other_servers_are_named() -> None:
    xml = "<disk type='network'><source protocol='rbd' name='x'><host name='h'/></source><target dev='vda'/></disk>"
    assert "protocol='rbd' of <source> has no equal in a machine file" in [text for _, text in told(xml, ACPI)]


def test_limits_of_a_disk() -> None:
    tune = "<iotune><read_bytes_sec>7</read_bytes_sec><what>1</what></iotune>"
    xml = f"<disk><source file='/a'/><target dev='vda'/>{tune}</disk>"
    assert [drive["bps-rd"] for drive in imported(xml, ACPI)["drives"].values()] == [7]
    assert [text for _, text in told(xml, ACPI)] == ["<what> has no equal in a machine file"]


@pytest.mark.parametrize(("said", "removable"), [("", False), (" removable='on'", True)])
def test_a_usb_stick_may_be_removable(said: str, removable: bool) -> None:
    xml = f"<disk><source file='/a'/><target dev='sda' bus='usb'{said}/></disk>"
    assert devices(xml)["usb-disk0"]["removable"] is removable


def test_speeds_and_caches_of_memory() -> None:
    """HMAT: each node has what is said of it as a target."""
    cache = (
        "<cache level='1' associativity='full' policy='writethrough'>"
        "<size value='8' unit='KiB'/><line value='64'/></cache>"
    )
    between = (
        "<interconnects><latency initiator='0' target='0' type='access' value='5'/>"
        "<latency initiator='0' target='1' cache='1' type='read' value='9'/>"
        "<bandwidth initiator='0' target='0' type='access' value='204800' unit='KiB'/></interconnects>"
    )
    cells = f"<cell id='0' cpus='0' memory='64' unit='MiB'>{cache}</cell><cell id='1' memory='64' unit='MiB'/>"
    near, far = imported("", f"{ACPI}<cpu><numa>{cells}{between}</numa></cpu>")["numa"]
    memory = {"initiator": 0, "hierarchy": "memory"}
    assert near["access"] == [
        {**memory, "data-type": "access-latency", "latency": 5},
        {**memory, "data-type": "access-bandwidth", "bandwidth": "200MiB"},
    ]
    assert far["access"] == [
        {"initiator": 0, "hierarchy": "first-level", "data-type": "read-latency", "latency": 9}
    ]
    assert near["caches"] == [
        {"level": 1, "size": "8KiB", "associativity": "complex", "policy": "write-through", "line": 64}
    ]
    assert far["initiator"] == 0 and "caches" not in far


def test_memory_without_processors_is_nearest_to_whom_it_takes_least() -> None:
    between = (
        "<interconnects><bandwidth initiator='0' target='2' type='access' value='9000000' unit='KiB'/>"
        "<latency initiator='0' target='2' type='access' value='7'/>"
        "<latency initiator='1' target='2' type='access' value='5'/></interconnects>"
    )
    cpus = ("cpus='0'", "cpus='1'", "")
    cells = "".join(f"<cell id='{n}' {each} memory='64' unit='MiB'/>" for n, each in enumerate(cpus))
    numa = f"<cpu><numa>{cells}{between}</numa></cpu>"
    assert imported("", f"<vcpu>2</vcpu>{ACPI}{numa}")["numa"][2]["initiator"] == 1
