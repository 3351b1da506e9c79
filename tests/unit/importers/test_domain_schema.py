"""Every element and attribute that libvirt's schema has for a domain is used, or named with its line."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from xml.etree import ElementTree

from vmrun.config.importers.libvirt import import_domain
from vmrun.errors import ConfigError

SCHEMAS = pathlib.Path("/usr/share/libvirt/schemas")
RNG = "{http://relaxng.org/ns/structure/1.0}"
BASE = {"name": "t", "memory": "65536", "vcpu": "2"}
# What says nothing about the machine: for people and managers, or what libvirt made of a domain that ran.
QUIET = {
    "title", "description", "metadata", "currentMemory", "genid", "iothreads", "alias", "emulator", "acpi", "apic",
    "pae", "vendor", "mirror", "backingStore", "audio", "name", "uuid",
}  # fmt: skip
QUIET_ATTRIBUTES = {
    "domain@type", "domain@id", "vcpu@placement", "cpu@match", "cpu@check", "memory@dumpCore", "model@fallback",
    "vcpu@id", "vcpu@enabled", "vcpu@hotpluggable", "vcpu@order", "disk@type", "disk@snapshot", "disk@model",
    "source@startupPolicy", "source@index", "target@tray", "loader@readonly", "loader@secure", "source@path",
}  # fmt: skip


def definitions() -> dict[str, list[ElementTree.Element]]:
    found: dict[str, list[ElementTree.Element]] = {}
    files = ("domaincommon", "basictypes", "cputypes", "storagecommon", "networkcommon", "nwfilter_params")
    for name in files:
        for each in ElementTree.parse(SCHEMAS / f"{name}.rng").getroot().iter(f"{RNG}define"):
            found.setdefault(each.get("name", ""), []).append(each)
    return found


# A text that is not there says nothing.
PLAIN = {"on_lockfailure", "memoryBacking/discard", "os/cmdline", "os/initrd", "os/kernel"}
# What makes no difference with a value that means nothing, or in itself.
KNOWN = {
    "devices/console/target/model@name", "devices/console/target@port", "devices/console@tty",
    "devices/interface/boot@loadparm",
    "devices/interface/driver@name", "devices/interface/mac@check", "devices/interface/mac@type",
    "devices/memballoon/stats@period", "devices/parallel/target@port", "devices/parallel/target@type",
    "devices/parallel@tty", "devices/serial/target/model@name", "devices/serial@tty", "devices/video/model@primary",
    "os/bios@useserial", "os/bootmenu@enable", "os/smbios@mode",
}  # fmt: skip

DEFINED = definitions()
Node = tuple[ElementTree.Element, ...]


def inside(node: ElementTree.Element, depth: int = 0) -> Iterator[ElementTree.Element]:
    """Elements and attributes that may stand in an element, through references."""
    for child in node:
        if child.tag in (f"{RNG}element", f"{RNG}attribute"):
            yield child
        elif child.tag == f"{RNG}ref" and depth < 12:
            for each in DEFINED.get(child.get("name", ""), ()):
                yield from inside(each, depth + 1)
        elif child.tag not in (f"{RNG}value", f"{RNG}data", f"{RNG}text"):
            yield from inside(child, depth)


def values(attribute: ElementTree.Element, depth: int = 0) -> list[str]:
    found = [value.text or "" for value in attribute.iter(f"{RNG}value")]
    for ref in attribute.iter(f"{RNG}ref"):
        for each in DEFINED.get(ref.get("name", ""), ()) if depth < 4 else ():
            found += values(each, depth + 1)
    return found


def paths() -> dict[tuple[str, ...], set[str]]:
    """Path of names from <domain> → the attributes that the last of them may have."""
    found: dict[tuple[str, ...], set[str]] = {}
    root = next(each for each in DEFINED["domain"] for each in inside(each) if each.get("name") == "domain")
    todo: list[tuple[tuple[str, ...], ElementTree.Element]] = [((), root)]
    seen: set[tuple[str, int]] = set()
    while todo:
        path, element = todo.pop()
        for child in inside(element):
            name = child.get("name")
            if name is None:
                continue
            if child.tag == f"{RNG}attribute":
                found.setdefault(path, set()).add(name)
            elif len(path) < 5 and (("/".join(path) + name), id(child)) not in seen:
                seen.add((("/".join(path) + name), id(child)))
                found.setdefault((*path, name), set())
                todo.append(((*path, name), child))
    return found


def text(path: tuple[str, ...], attribute: str = "", value: str = "zz9") -> str:
    """A domain with that element alone, on a line of its own."""
    rows = [f"<{key}>{amount}</{key}>" for key, amount in BASE.items() if path[:1] != (key,)]
    rows += ["<os><type machine='pc-i440fx-7.2'>hvm</type></os>"] if path[:1] != ("os",) else []
    rows += ["<features><acpi/></features>"] if path[:1] != ("features",) else []
    head = "".join(f"<{name}>" for name in path[:-1])
    tail = "".join(f"</{name}>" for name in reversed(path[:-1]))
    extra = f" {attribute}='{value}'" if attribute else ""
    return f"<domain type='kvm'>{''.join(rows)}{head}\n<{path[-1]}{extra}>\n</{path[-1]}>{tail}</domain>"


def spoken_of(path: tuple[str, ...], attribute: str = "") -> bool:
    """Whether the element, or its attribute, changes the machine or is named."""
    try:
        document, warnings = import_domain(text(path, attribute).encode(), "m.xml")
    except ConfigError as error:
        return all(problem.place is not None and problem.place.file == "m.xml" for problem in error.problems)
    lines = {warning.place.line for warning in warnings if warning.place is not None}
    if 2 in lines:
        return True
    if len(path) > 1 and 1 in lines:  # the element that it stands in is named
        return True
    without, before = import_domain((text(path) if attribute else text(path[:-1] or ("title",))).encode(), "m.xml")
    return document != without or len(before) != len(warnings)


def test_every_element_of_the_schema_is_used_or_named() -> None:
    found = paths()
    found.pop((), None)
    assert len(found) > 500
    silent = {path for path in found if not QUIET & set(path) and not spoken_of(path)}
    # an element without an attribute or a text says nothing yet; that it is known is enough
    empty = {
        path for path in silent if found[path] or any(other[: len(path)] == path for other in found if other != path)
    }
    assert {"/".join(path) for path in silent - empty} <= PLAIN


def test_every_attribute_of_the_schema_is_used_or_named() -> None:
    silent = []
    for path, attributes in paths().items():
        if QUIET & set(path):
            continue
        for name in attributes:
            if (
                f"{path[-1] if path else 'domain'}@{name}" not in QUIET_ATTRIBUTES
                and path
                and not spoken_of(path, name)
            ):
                silent.append(f"{'/'.join(path)}@{name}")
    assert sorted(silent) == sorted(KNOWN)


def test_io_threads_of_a_domain_are_objects_that_its_disks_name() -> None:
    disk = "<disk type='file' device='disk'><driver name='qemu' type='raw' iothread='3'/><source file='/a'/>"
    head = "<domain type='kvm'><name>t</name><memory>65536</memory><iothreads>2</iothreads>"
    ids = "<iothreadids><iothread id='3'/></iothreadids>"
    document, _ = import_domain(
        f"{head}{ids}<devices>{disk}<target dev='vda' bus='virtio'/></disk></devices></domain>".encode(), "m.xml"
    )
    assert document["objects"] == {name: {"type": "iothread"} for name in ("iothread3", "iothread1")}
    assert [entry["iothread"] for entry in document["devices"] if "iothread" in entry] == ["iothread3"]


def test_modules_limits_and_the_generation_of_a_domain_are_in_the_file() -> None:
    disk = "<disk type='file' device='disk'><source file='/a'/><target dev='vda' bus='virtio'/><iotune>"
    tune = "<read_bytes_sec>1000</read_bytes_sec><total_iops_sec>7</total_iops_sec><group_name>g</group_name>"
    module = "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>"
    head = "<domain type='kvm'><name>t</name><genid>de305d54-75b4-431b-adb2-eb6b9e546014</genid>"
    size = "<maxMemory slots='2' unit='MiB'>1024</maxMemory><memory>65536</memory>"
    document, problems = import_domain(
        f"{head}{size}<devices>{disk}{tune}</iotune></disk>{module}</devices></domain>".encode(), "m.xml"
    )
    assert document["objects"] == {"memdimm0": {"type": "memory-backend-ram", "size": 128 << 20}}
    by_driver = {device["driver"]: device for device in document["devices"]}
    assert by_driver["pc-dimm"] == {"driver": "pc-dimm", "id": "dimm0", "node": 0, "memdev": "memdimm0"}
    assert by_driver["vmgenid"]["guid"] == "de305d54-75b4-431b-adb2-eb6b9e546014"
    (drive,) = document["drives"].values()
    assert (drive["bps-rd"], drive["iops"], drive["throttle-group"]) == (1000, 7, "g")
    assert not [problem.message for problem in problems if "group_name" in problem.message]


def test_kept_modules_and_how_quick_memory_is_are_in_the_file() -> None:
    cells = (
        "<cell id='0' cpus='0-1' memory='64' unit='MiB'/><cell id='1' memory='64' unit='MiB'>"
        "<cache level='1' associativity='full' policy='writeback'><size value='10' unit='KiB'/>"
        "<line value='8' unit='B'/></cache></cell>"
        "<interconnects><latency initiator='0' target='1' type='read' value='7'/>"
        "<bandwidth initiator='0' target='1' type='read' value='2048' unit='KiB'/></interconnects>"
    )
    module = (
        "<memory model='nvdimm' access='shared'><source><path>/pmem</path>"
        "<alignsize unit='KiB'>2048</alignsize></source>"
        "<target><size unit='MiB'>64</size><node>1</node><label><size unit='KiB'>128</size></label></target>"
        "</memory>"
    )
    head = "<domain type='kvm'><name>t</name><maxMemory slots='2' unit='MiB'>1024</maxMemory><memory>131072</memory>"
    document, problems = import_domain(
        f"{head}<vcpu>2</vcpu><cpu><numa>{cells}</numa></cpu><devices>{module}</devices></domain>".encode(), "m.xml"
    )
    assert document["memory-slots"]["nvdimm"] is True
    kept = {"type": "memory-backend-file", "mem-path": "/pmem", "size": 64 << 20, "share": True, "align": 2 << 20}
    kept["prealloc"] = True  # as libvirt itself has it
    assert document["objects"]["memnvdimm0"] == kept
    (device,) = (device for device in document["devices"] if device["driver"] == "nvdimm")
    assert (device["node"], device["label-size"], device["memdev"]) == (1, 128 << 10, "memnvdimm0")
    assert [(row["data-type"], row.get("latency"), row.get("bandwidth")) for row in document["numa"][1]["access"]] == [
        ("read-latency", 7, None), ("read-bandwidth", None, "2MiB")
    ]  # fmt: skip
    (cache,) = document["numa"][1]["caches"]
    assert cache == {"level": 1, "size": "10KiB", "associativity": "complex", "policy": "write-back", "line": 8}
    assert not [problem.message for problem in problems if "numa" in problem.message or "memory" in problem.message]
