"""Everything that a guest can see of a machine, as plain data: what a lock file holds and what `diff` compares.

    section → key → value       {"pci": {"pci.0 03.0 net0": {...}}, "cpuid": {"cpu0 00000001": "…"}, …}

It is read from the very objects that would run, built without a processor. Devices that are not modelled yet are
shown as they are declared. Nothing of the host is in it: no path, no time, no accelerator's answer; images stand
there by name, size and digest.
"""

from __future__ import annotations

import hashlib
import os

from vmrun.config.catalogue import load_catalogue
from vmrun.config.write import collapse
from vmrun.core.interfaces import DiskGeometry, PciFunction
from vmrun.errors import BuildError, Problem
from vmrun.firmware import fwcfg
from vmrun.firmware.parts import present
from vmrun.machine.cpuid import REGISTERS, apic_ids, make_cpuid
from vmrun.machine.dry import build_dry
from vmrun.machine.nicnames import predict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from vmrun.config.catalogue import Catalogue
    from vmrun.config.sections import Cpus, MachineData
    from vmrun.machine.machine import Machine

    Sections = dict[str, dict[str, Any]]

OF_THE_HOST = ("host", "max")
# kinds of properties that name something of the host's side
BACKENDS = ("drive", "chardev", "netdev")
NOT_SEEN = ("id", "rerror", "werror", "audiodev", "share-rw", "failover_pair_id")
FILES = ("romfile",)
ROM_FOLDERS = ("genroms/", "vgaroms/")
SHORT, SHORT_TEXT = 32, 400  # bytes of a fw_cfg item that are shown as they are


def visible(config: MachineData, blank: int = 0) -> Sections:
    """The sections of a resolved machine (ResolvedMachine.data). Raises BuildError when it cannot be built.

    blank: bytes of every disk, in place of its image's size.
    """
    if config["cpus"]["model"] in OF_THE_HOST:
        model = config["cpus"]["model"]
        problem = Problem(
            "VR0963",
            f"`cpu: {model}` is whatever the host's processor is, so nothing can be said of it elsewhere",
            path="cpus.model",
            remedy="name a model; `vmrun init` shows the machine type's own",
        )
        raise BuildError(problems=[problem])
    catalogue = load_catalogue()
    machine = build_dry(_modelled(config, catalogue), blank)
    try:
        return {
            "machine": _machine(config),
            "pci": {**dict(_pci(machine)), **_planned_pci(config, catalogue)},
            "ports": dict(_space(machine.board.io, 4)),
            "memory": dict(_space(machine.board.memory, 16)),
            "irqs": dict(_irqs(machine, config)),
            "cpuid": dict(_cpuid(config)),
            "firmware": _firmware(machine),
            "fw_cfg": dict(_fw_cfg(machine, config)),
            "cmos": {f"{index:02x}": f"{value:02x}" for index, value in sorted(machine.firmware.cells.items())},
            "acpi": dict(_acpi(machine)),
            "smbios": _smbios(config),
            "disks": dict(_disks(machine, config)),
            "nics": predict(config, catalogue),
            "devices": dict(_devices(config, catalogue)),
        }
    finally:
        machine.close()


def _modelled(config: MachineData, catalogue: Catalogue) -> MachineData:
    """The machine without the devices that nothing can be built of, and without what hangs on them."""
    gone: set[str] = set()
    buses: set[str] = set()
    kept = []
    for device in config["devices"]:
        if catalogue.modelled(device["driver"]) is None or device["bus"] in buses:
            gone.add(device["id"])
            buses.update(device["provides"])
        else:
            kept.append(device)
    wires = [wire for wire in config["wires"] if not any(pin.partition(".")[0] in gone for pin in wire)]
    return {**config, "devices": kept, "wires": wires} if gone else config


def _machine(config: MachineData) -> dict[str, Any]:
    cpus = config["cpus"]
    topology = {key: cpus[key] for key in ("count", "maxcpus", "sockets", "cores", "threads")}
    ids = apic_ids(cpus)
    return {
        "type": config["machine"],
        "memory": config["memory"],
        "cpu model": cpus["model"],
        "apic ids": " ".join(str(ids[index]) for index in present(cpus)),
        "clock base": config["rtc"]["base"],
        "uuid": config["uuid"],
        "hw-version": config["hw-version"],
        **{f"cpus {key}": value for key, value in topology.items()},
    }


def _pci(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Each function with its configuration space at reset: the dwords that are not zero."""
    device: Any
    for device in machine.devices.values():
        if not isinstance(device, PciFunction):
            continue
        bus = device.parent_bus.name if device.parent_bus is not None else "pci.0"
        space = bytes(device.config.space)
        dwords = {
            f"{offset:02x}": space[offset : offset + 4][::-1].hex()
            for offset in range(0, 256, 4)
            if any(space[offset : offset + 4])
        }
        bars = {
            "rom" if bar.n == 6 else str(bar.n): f"{'io' if bar.flags & 1 else 'memory'} {bar.size:#x}"
            for bar in device.bars.values()
        }
        key = f"{bus} {device.devfn >> 3:02x}.{device.devfn & 7}"
        yield key, {"driver": device.driver, "bars": bars, "config": dwords}


def _planned_pci(config: MachineData, catalogue: Catalogue) -> dict[str, Any]:
    """Functions that are declared only: their place and driver are known, their configuration space is not."""
    return {
        f"{device['bus']} {device['addr']}": {"driver": device["driver"], "not modelled": True}
        for device in config["devices"]
        if device["addr"] is not None and catalogue.modelled(device["driver"]) is None
    }


def _space(space: Any, digits: int) -> Iterator[tuple[str, str]]:
    """Ranges by who answers there. Neighbours of one driver are one: how vmrun divides them is its own."""
    rows: list[tuple[int, int, str]] = []
    for piece in space.flat:
        owner = piece.region.owner
        what = owner.driver if owner is not None else piece.region.name
        what += f", {'rom' if piece.readonly else piece.region.kind_name}"
        if rows and rows[-1][1] == piece.start and rows[-1][2] == what:
            rows[-1] = (rows[-1][0], piece.start + piece.size, what)
        else:
            rows.append((piece.start, piece.start + piece.size, what))
    for start, end, what in rows:
        yield f"{start:0{digits}x}-{end - 1:0{digits}x}", what


def _irqs(machine: Machine, config: MachineData) -> Iterator[tuple[str, Any]]:
    lines: dict[str, list[str]] = {}
    for device in machine.devices.values():
        for pin in device.resources.get("irqs", ()):
            number = device.get_props().get(pin) if isinstance(pin, str) else pin
            if number is not None:
                lines.setdefault(f"irq {number}", []).append(device.driver)
        for pin in device.resources.get("dmas", ()):
            number = device.get_props().get(pin) if isinstance(pin, str) else pin
            if number is not None:
                lines.setdefault(f"dma {number}", []).append(device.driver)
    for source, target in collapse(sorted(config["wires"], key=_by_number)):
        lines.setdefault(f"wire {source}", []).append(target)
    for name in sorted(lines):
        yield name, ", ".join(sorted(lines[name]))


def _by_number(wire: list[str]) -> list[tuple[str, int]]:
    """Sorts irq[2] before irq[10]."""
    ends = (pin.removesuffix("]").partition("[") for pin in wire)
    return [(stem, int(number or "0")) for stem, _, number in ends]


def _cpuid(config: MachineData) -> Iterator[tuple[str, str]]:
    """CPUID of the model as it is meant, whatever this host's processor has; a register that the type leaves to the
    host says `host`. Processors differ in their APIC ids only, so the first one stands for all.
    """
    cpus = config["cpus"]
    left = left_to_host(cpus)
    for entry in make_cpuid(cpus, cpus["model-data"], 0, []).entries:
        function = entry["function"]
        key = f"{function:08x}.{entry.get('index', 0):x}"
        hosts = left.get(function, ())
        yield key, " ".join("host" if name in hosts else f"{entry[name]:08x}" for name in REGISTERS)


def left_to_host(cpus: Cpus) -> dict[int, tuple[str, ...]]:
    """Function → registers of CPUID that are the host's by the rules of the type and the settings of the file."""
    rules = cpus["model-data"]["rules"]
    given = {
        str(name).replace("_", "-"): value
        for layer in (rules["set"], cpus.get("compat", {}), cpus.get("features", {}))
        for name, value in layer.items()
    }
    found: dict[int, tuple[str, ...]] = {}
    if rules.get("vendor") == "host" and "vendor" not in given:
        found |= dict.fromkeys((0, 0x80000000), REGISTERS[1:])
    if given.get("phys-bits", rules.get("phys-bits")) == "host" or given.get("host-phys-bits") in (True, "on"):
        found[0x80000008] = ("eax",)
    if rules.get("kvm-features") == "host":
        found[0x40000001] = ("eax",)
    if given.get("pmu") in (True, "on"):
        found[0xA] = REGISTERS
    return found


def _firmware(machine: Machine) -> dict[str, Any]:
    found = {"bios": _image(machine.bios)}
    if machine.direct is not None:  # what else the guest begins with: the ROM above holds vmrun's tables alone
        kernel = machine.direct.kernel
        for name, data in (("kernel", kernel.data), *((f"initrd {n}", m.data) for n, m in enumerate(kernel.modules))):
            found[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        found["cmdline"] = {"text": kernel.words.decode(errors="replace")}
    for name, image in sorted({**machine.board.option_roms, **machine.firmware.roms}.items()):
        found[os.path.basename(name)] = _image(image)
    return found


def _image(image: Any) -> dict[str, Any]:
    return {"name": os.path.basename(image.name), "size": len(image.data), "sha256": image.sha256}


def _fw_cfg(machine: Machine, config: MachineData) -> Iterator[tuple[str, str]]:
    prepared = machine.firmware
    for key, data in sorted(prepared.items.items()):
        yield f"item {key:04x}", _bytes(data)
    for position, (name, data) in enumerate(prepared.files):
        if name == "etc/e820":  # an accelerator's own pages are in it, and none runs here
            data = fwcfg.e820(config, "kvm" in config["accel"], prepared.processor)
        if name.startswith(ROM_FOLDERS):  # the rest may be a path of the host
            folder, _, rest = name.partition("/")
            name = f"{folder}/{os.path.basename(rest)}"
        yield f"file {name}", f"{position}: {_bytes(data)}"


def _bytes(data: bytes) -> str:
    """Short data in hexadecimal, text as it is, the rest by its digest."""
    if len(data) <= SHORT_TEXT:
        plain = data.rstrip(b"\0").replace(b"\n", b" ")
        if plain and plain.isascii() and plain.decode("ascii").isprintable():
            return f"text {plain.decode('ascii')}"
    if len(data) <= SHORT:
        return data.hex() or "empty"
    return f"{len(data)} bytes sha256 {hashlib.sha256(data).hexdigest()}"


def _acpi(machine: Machine) -> Iterator[tuple[str, str]]:
    """The tables by signature, each with its length and digest; types whose firmware makes them have none here."""
    tables = dict(machine.firmware.files).get("etc/acpi/tables", b"")
    at, count = 0, dict[str, int]()
    while at + 8 <= len(tables):
        signature, size = tables[at : at + 4], int.from_bytes(tables[at + 4 : at + 8], "little")
        if not signature.isalnum() or not 8 <= size <= len(tables) - at:
            at += 8  # padding between tables
            continue
        name = signature.decode("ascii")
        count[name] = count.get(name, 0) + 1
        yield (name if count[name] == 1 else f"{name} {count[name]}"), _bytes(tables[at : at + size])
        at += size


def _smbios(config: MachineData) -> dict[str, Any]:
    given = {f"file's {key}": value for key, value in sorted(config["smbios"].items())}
    return {**dict(sorted(config["firmware"].get("smbios", {}).items())), **given}


def _disks(machine: Machine, config: MachineData) -> Iterator[tuple[str, Any]]:
    for entry in config["devices"]:
        drive = entry["props"].get("drive")
        if drive is None:
            continue
        spec = config["drives"].get(drive, {})
        found = {"bus": entry["bus"], "unit": entry["props"].get("unit"), "media": spec.get("media")}
        found["readonly"] = spec.get("readonly", False)
        found["serial"] = entry["props"].get("serial") or spec.get("serial")
        device: Any = machine.devices.get(entry["id"])
        if isinstance(device, DiskGeometry):
            found["bytes"] = device.backend.size
            found["geometry"] = "/".join(str(number) for number in device.geometry())
        yield entry["id"], found


def seen(name: str, prop: dict[str, Any]) -> bool:
    """Whether a property, given with its row of the catalogue, reaches the guest."""
    return name not in NOT_SEEN and prop.get("type") not in BACKENDS and bool(prop.get("visible", True))


def _devices(config: MachineData, catalogue: Catalogue) -> Iterator[tuple[str, Any]]:
    """The driver of each device and those of its properties that reach the guest."""
    for device in config["devices"]:
        entry = catalogue.driver(device["driver"])
        props = {}
        for name, value in device["props"].items():
            kind = entry.props.get(name, {}) if entry is not None else {}
            if not seen(name, kind):
                continue
            props[name] = os.path.basename(value) if name in FILES else value
        yield device["id"], {
            "driver": device["driver"],
            "bus": device["bus"],
            "addr": device["addr"],
            "props": props,
        }
