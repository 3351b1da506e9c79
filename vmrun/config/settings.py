"""The parts of a machine that are no devices: memory, CPUs, clock, boot, firmware, accelerator."""

from __future__ import annotations

from vmrun.config import modules
from vmrun.config.backends import IN_FLASH, beside
from vmrun.config.cpumodels import SETTINGS, families, feature_names, load_model, model_names, planned
from vmrun.config.devices import inherited
from vmrun.config.machinetypes import merge
from vmrun.config.node import Node, plain
from vmrun.config.props import shown
from vmrun.config.scalar import parse_size, size_text
from vmrun.config.work import Work, absolute, not_yet
from vmrun.core.values import FIRST_YEAR, LAST_YEAR, seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GIB = 1 << 30
_HIGH = 1 << 32
PCI_HOLE = 2 << 30  # bytes kept for 64-bit BARs behind all memory: pci-hole64-size of i440FX-pcihost
_LEAST = 1 << 20
_TOPOLOGY = ("sockets", "cores", "threads")
_SIZES = frozenset((
    "low-ram-limit", "low-ram-split", "high-ram", "base", "size", "end", "isa-window", "identity-map", "tss",
    "below-4g", "above-4g", "data-size",
))  # fmt: skip


def memory(work: Work) -> tuple[int, dict[str, Any]]:
    """(bytes of RAM, memory map with every size as a number and the RAM's two parts computed)."""
    node = work.spec.get("memory")
    limits = work.machine_type.section("limits")
    amount = parse_size(node.value if node is not None else work.machine_type.default("memory")) or 0
    least = min(_limit(limits, "memory-min", _LEAST), _LEAST)  # older types say more; no guest sees it
    step = _limit(limits, "memory-step", 4096)
    if node is not None:
        if type(node.value) is not int:
            least = min(least, step)  # who names a unit means it
        if amount < least:
            work.wrong(
                "VR0701",
                f"memory is {size_text(amount)}; the least is {size_text(least)}",
                node.place,
                "memory",
                nearest=f"{amount}MiB" if type(node.value) is int and amount >= 2 else "",
                remedy="a number without a unit means bytes",
            )
        elif amount % step:
            work.wrong(
                "VR0701",
                f"memory is {amount} bytes, not a multiple of {size_text(step)}",
                node.place,
                "memory",
                nearest=str(-(-amount // step) * step),
            )
        elif amount > 1 << 46:
            work.wrong("VR0701", f"memory is {size_text(amount)}; the most is 64TiB", node.place, "memory")
        work.note("memory", node.place)
    layout = merged(work, "memory-map")
    if not _map_fits(work, layout):
        layout = _numbers(plain(work.machine_type.root.get("memory-map") or work.spec.root.at({})))
    limit, split = int(layout.get("low-ram-limit", 0xE0000000)), int(layout.get("low-ram-split", 0xE0000000))
    below = split if amount >= limit else amount
    for key, value in (("below-4g", below), ("above-4g", amount - below)):
        given = work.spec.get("memory-map", key)
        if given is not None and parse_size(given.value) != value:
            work.wrong(
                "VR0702",
                f"'{key}' is {given.value}, but the memory of this machine makes it {value}",
                given.place,
                f"memory-map.{key}",
                remedy="remove this line; it is computed",
            )
        layout[key] = value
    return amount, layout


# part of the memory map → (least, greatest, step)
_MAP = {
    ("low-ram-limit",): (1 << 20, _HIGH, 4096),
    ("low-ram-split",): (1 << 20, _HIGH, 4096),
    ("high-ram",): (_HIGH, 1 << 46, 4096),
    ("option-roms", "base"): (0xC0000, 0xFF000, 2048),
    ("option-roms", "size"): (2048, 0x40000, 2048),
    ("bios", "end"): (1 << 20, _HIGH, 4096),
    ("bios", "isa-window"): (4096, 0x40000, 4096),
    ("pci-hole", "base"): (0, 0, 1),  # the i440FX answers for all that nobody else does
    ("pci-hole", "size"): (_HIGH, _HIGH, 1),
    ("kvm", "identity-map"): (4096, _HIGH - 4096, 4096),
    ("kvm", "tss"): (4096, _HIGH - 3 * 4096, 4096),
}


def _map_fits(work: Work, layout: dict[str, Any]) -> bool:
    """Whether what the machine's own file says of the memory map can be; else there is a problem."""
    before = len(work.problems)
    for path, (least, most, step) in _MAP.items():
        node = work.spec.get("memory-map", *path)
        value = parse_size(node.value) if node is not None else None
        where = ".".join(("memory-map", *path))
        if node is None or value is None:
            continue
        work.note(where, node.place)
        if not least <= value <= most or value % step:
            wanted = f"a multiple of {step:#x} from {least:#x} to {most:#x}"
            if least == most:
                wanted = f"{least:#x} as on every i440FX"
            work.wrong("VR0717", f"'{path[-1]}' is {value:#x}, not {wanted}", node.place, where)
    limit, split = (int(layout.get(key, 0xE0000000)) for key in ("low-ram-limit", "low-ram-split"))
    node = work.spec.get("memory-map", "low-ram-split") or work.spec.get("memory-map", "low-ram-limit")
    if split > limit and node is not None and len(work.problems) == before:
        work.wrong(
            "VR0717",
            f"'low-ram-split' {split:#x} is above 'low-ram-limit' {limit:#x}",
            node.place,
            "memory-map",
            remedy="RAM that reaches the limit is cut at the split",
        )
    roms = layout.get("option-roms", {})
    node = work.spec.get("memory-map", "option-roms")
    if node is not None and int(roms.get("base", 0)) + int(roms.get("size", 0)) > 1 << 20:
        work.wrong("VR0717", "the option ROMs' area ends above 1 MiB", node.place, "memory-map.option-roms")
    return len(work.problems) == before


def cpus(work: Work) -> dict[str, Any]:
    """Count, topology (product at least maxcpus), model, features, and the type's frozen values for that
    model.
    """
    values = merged(work, "cpus")
    spec = work.spec.value("cpus") or {}
    given = {key: spec[key].value for key in ("count", *_TOPOLOGY, "maxcpus") if key in spec}
    sound = _topology(work, given, str(values.get("topology-fill", "sockets")), values)
    count, limit = values.get("count", 1), _limit(work.machine_type.section("limits"), "cpus", 255)
    most = values.get("maxcpus", count)
    if most > limit:
        node = spec.get("maxcpus") or spec.get("count") or work.spec.root
        work.wrong(
            "VR0703",
            f"{most} CPUs; {work.machine_type.name} has at most {limit}",
            node.place,
            "cpus",
        )
    if sound and "plugged" in spec:
        values["plugged"] = _plugged(work, spec["plugged"], values)
    if sound and "present" in spec:
        there = values["present"]
        if 0 not in there or max(there) >= values["maxcpus"] or sorted(set(there)) != there:
            fault = "`present` has CPU 0 and others below maxcpus, ascending"
            work.wrong("VR0704", fault, spec["present"].place, "cpus.present")
    if "smm" in spec and values["smm"] and not plain(work.machine_type.section("cpus")["smm"]):
        message = "the board offers no system-management mode yet"
        work.warn("VR0805", message, spec["smm"].place, "cpus.smm", "leave it out: firmware without it does the same")
    _model(work, values, spec)
    frozen: dict[str, Any] = {}
    for name in ("*", values["model"]):
        table = work.machine_type.section("cpu-compat").get(name)
        if table is not None:
            frozen.update(plain(table))
    values["compat"] = {**frozen, **values.get("compat", {})}
    values.setdefault("features", {})
    if apic := {**_apic(work), **values.get("apic", {})}:
        values["apic"] = apic
    for key in spec:
        work.note(f"cpus.{key}", spec[key].place)
    order = ("count", *_TOPOLOGY, "maxcpus", "model", "features", "compat")
    return {**{key: values[key] for key in order if key in values}, **values}


def _plugged(work: Work, node: Any, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Each processor that is plugged in beside the first `count`, with its `id`."""
    limits = {"socket-id": "sockets", "core-id": "cores", "thread-id": "threads"}
    found: dict[int, dict[str, Any]] = {}
    for n, row in enumerate(node.value):
        at, path = {key: child.value for key, child in row.value.items()}, f"cpus.plugged[{n}]"
        odd = next((key for key, of in limits.items() if at[key] >= values[of]), None)
        if odd is not None:
            fault = f"Invalid CPU {odd}: {at[odd]} must be in range 0:{values[limits[odd]] - 1}"
            work.wrong("VR0704", fault, row.value[odd].place, path)
            continue
        index = (at["socket-id"] * values["cores"] + at["core-id"]) * values["threads"] + at["thread-id"]
        if index < values["count"] or index in found:
            work.wrong("VR0704", f"CPU[{index}] is there already", row.place, path)
            continue
        found[index] = {**at, "id": str(at.get("id") or f"cpu-{index}")}
    ids = [row["id"] for row in found.values()]
    if len(set(ids)) != len(ids):
        work.wrong("VR0704", "two plugged CPUs have one id", node.place, "cpus.plugged")
    return list(found.values())


def _apic(work: Work) -> dict[str, Any]:
    """What the type and the machine's globals make different of the processors' own APICs, which no file lists."""
    entry = work.catalogue.modelled("apic")
    if entry is None:
        return {}
    return {name: value for name, value in inherited(work, entry).items() if value != entry.props[name].get("default")}


def _topology(work: Work, given: dict[str, int], fill: str, values: dict[str, Any]) -> bool:
    """Fill in what is missing of count = sockets · cores · threads: sockets first or cores first, as the type says, and
    threads last. False (and a problem) when it does not fit.
    """
    node = work.spec.get("cpus")
    count = given.get("count", 0)
    sockets, cores, threads = (given.get(key, 0) for key in _TOPOLOGY)
    most = given.get("maxcpus", 0)
    total = most or count or (sockets or 1) * (cores or 1) * (threads or 1)
    if fill == "cores" and not cores:
        sockets, threads = sockets or 1, threads or 1
        cores = max(1, total // (sockets * threads))
    elif not sockets:
        cores, threads = cores or 1, threads or 1
        sockets = max(1, total // (cores * threads))
    elif not cores:
        threads = threads or 1
        cores = max(1, total // (sockets * threads))
    threads = threads or max(1, total // (sockets * cores))
    most = most or max(count, sockets * cores * threads)
    count = count or most
    values |= {"count": count, "sockets": sockets, "cores": cores, "threads": threads, "maxcpus": most}
    product = sockets * cores * threads
    fault = ""
    if most < count:
        fault = f"maxcpus {most} is less than count {count}"
    elif product != most:
        fault = f"{sockets} sockets × {cores} cores × {threads} threads are {product} CPUs, not {most}"
    if fault and node is not None:
        work.wrong(
            "VR0704",
            fault,
            node.place,
            "cpus",
            remedy="make the product equal maxcpus (count when not given), or leave some out",
        )
    return not fault


def _model(work: Work, values: dict[str, Any], spec: dict[str, Node]) -> None:
    """Put the model's data in; say when a model or feature does not exist. Models are data of their own,
    and what this installation has no table of is not questioned.
    """
    default = str(work.machine_type.default("cpu") or "qemu64")
    model, family = str(values.get("model", default)), str(values.get("family", ""))
    if model == "default":
        model = default
    values["model"] = model
    data = load_model(model, family, work.files)
    if data is not None:
        values["model-data"] = data
    elif names := model_names(family):
        node = spec.get("model")
        fallback = work.machine_type.section("defaults").get("cpu") or work.spec.type_name
        work.wrong(
            "VR0705",
            f"there is no CPU model '{model}'",
            (node or fallback).place,
            "cpus.model",
            nearest=work.near(model, names),
        )
    elif "family" in spec:
        names = families(work.files)
        work.wrong(
            "VR0705",
            f"there is no set of CPU models '{family}'",
            spec["family"].place,
            "cpus.family",
            remedy=f"one of: {', '.join(names)}" if names else "",
            nearest=work.near(family, names),
        )
    features = spec.get("features")
    if features is None:
        return
    bits = feature_names(work.files)
    for name, child in features.value.items():
        path = f"cpus.features.{name}"
        if planned(name):
            if child.value not in (False, "off"):
                work.problems.append(not_yet(f"CPU feature '{name}'", child.key_place, path, "VR0806", "processors"))
        elif bits and name not in bits and name not in SETTINGS:
            near = work.near(name, (*bits, *SETTINGS))
            work.wrong("VR0708", f"there is no CPU feature '{name}'", child.key_place, path, nearest=near)
        elif name in bits and type(child.value) is not bool:
            work.wrong(
                "VR0404",
                f"CPU feature '{name}' is {shown(child.value)}, not true or false",
                child.place,
                path,
            )


def clock(work: Work) -> dict[str, Any]:
    """What the machine's time runs by: mode; where they are given shift (2^shift ns an instruction) and sleep."""
    values = {"mode": "host", **_given(work, "clock")}
    node, thread = work.spec.get("clock"), work.spec.get("thread")
    assert node is not None
    if values["mode"] != "instructions":
        for key in ("shift", "sleep"):
            child = work.spec.get("clock", key)
            if child is not None:
                work.wrong(
                    "VR0721", f"'{key}' is for a clock of instructions, and this one is the host's",
                    child.place, f"clock.{key}", remedy="add `mode: instructions`, or leave it out",
                )  # fmt: skip
        return values
    if "soft" not in accelerators(work):
        asked = work.spec.get("accel") or node
        work.wrong(
            "VR0721", f"{', '.join(accelerators(work))} does not say how many instructions a processor executes",
            asked.place, "accel", remedy="`accel: soft`, or no `clock: {mode: instructions}`",
        )  # fmt: skip
    if thread is not None and thread.value == "multi":
        work.warn(
            "VR1010", "'thread: multi' changes nothing: processors that count instructions take turns on one thread",
            thread.place, "thread", "leave it out",
        )  # fmt: skip
    return values


def rtc(work: Work) -> dict[str, Any]:
    counted = _given(work, "clock").get("mode") == "instructions"
    values = {"base": "utc", "clock": "vm" if counted else "host", "driftfix": "none", **_given(work, "rtc")}
    node = work.spec.get("rtc", "base")
    if node is not None and values["base"] not in ("utc", "localtime") and seconds(values["base"]) is None:
        work.wrong(
            "VR0713",
            f"'{values['base']}' is no date that the clock can start at",
            node.place,
            "rtc.base",
            remedy=f"a date of the years {FIRST_YEAR} to {LAST_YEAR}, as in 2026-11-23T10:00:00",
        )
    return values


def boot(work: Work) -> dict[str, Any]:
    """Boot order and friends; reboot-timeout in milliseconds, -1 for never."""
    order = work.machine_type.default("boot-order") or "cad"
    values = {"order": order, "menu": False, "strict": False, "reboot-timeout": -1, **_given(work, "boot")}
    for key in ("order", "once"):
        letters = str(values.get(key, ""))
        node = work.spec.get("boot", key)
        if len(set(letters)) != len(letters) and node is not None:
            work.wrong("VR0706", f"'{letters}' names a boot device twice", node.place, f"boot.{key}")
    return values


def address_space(
    work: Work, amount: int, layout: dict[str, Any], values: dict[str, Any], slots: dict[str, Any] | None
) -> None:
    """Say when the processors cannot address all of the memory that there can be. values: what cpus() gave; slots: what
    memory_slots() gave. What the host's processor decides is not questioned.
    """
    node = work.spec.get("memory")
    own = {**values["compat"], **values["features"]}
    bits = own.get("phys-bits", values.get("model-data", {}).get("rules", {}).get("phys-bits"))
    if type(bits) is not int or bits <= 0 or own.get("host-phys-bits") is True:
        return
    above = int(layout["above-4g"])
    end = int(layout.get("high-ram") or _HIGH) + above
    if slots and not _has(values, "lm", "80000001.edx", 29):
        # with 32 bits nothing behind 4 GiB is for the processors
        bits = 36 if _has(values, "pse36", "1.edx", 17) else 64
    if slots and int(slots["reserved-end"]) + PCI_HOLE > 1 << bits:
        place, last = work.spec.get("memory-slots"), int(slots["reserved-end"]) + PCI_HOLE - 1
        assert place is not None
        work.wrong(
            "VR0701",
            f"modules of memory, and PCI devices behind them, can reach {last:#x}, "
            f"but the processors address {size_text(1 << bits)}: phys-bits too low ({bits})",
            place.place,
            "memory-slots",
            remedy="a smaller `maxmem`, or raise `phys-bits` under cpus.features",
        )
    elif node is not None and above and end > 1 << bits:
        work.wrong(
            "VR0701",
            f"memory is {size_text(amount)}, but the processors address {size_text(1 << bits)} (phys-bits {bits})",
            node.place,
            "memory",
            remedy="give less, or raise `phys-bits` under cpus.features",
        )


def _has(values: dict[str, Any], name: str, word: str, bit: int) -> bool:
    """Whether the processors have a feature, by the bit of their model or by what the file or the type says of it."""
    model = values.get("model-data", {})
    plain = bool(model.get("host")) or bool(int(model.get("words", {}).get(word, 0)) >> bit & 1)
    for layer in (model.get("set", {}), values["compat"], values["features"]):
        plain = bool(layer.get(name, plain))
    return plain


def firmware(work: Work) -> dict[str, Any]:
    """`firmware: none` is short for `firmware: {bios: none}`."""
    values = merged(work, "firmware")
    own = work.spec.get("firmware")
    for key, child in own.value.items() if own is not None and type(own.value) is dict else ():
        work.note(f"firmware.{key}", child.place)
    if values["bios"] == "none" and work.spec.get("kernel") is None:
        place = own.place if own is not None else work.spec.type_name.place
        work.wrong("VR0710", "there is no firmware and no kernel", place, "firmware", remedy="add `kernel:`")
    if any(dev.driver == "cfi.pflash01" for dev in work.devices):
        values["bios"] = IN_FLASH
    elif work.spec.get("firmware", "bios") is not None and values["bios"] != "none":
        values["bios"] = beside(work, str(values["bios"]))
    values["dirs"] = [absolute(work, str(directory)) for directory in values.get("dirs", [])]
    if "files" in values:
        values["files"] = {name: _fw_cfg_file(work, name, given) for name, given in values["files"].items()}
    if "roms" in values:
        values["roms"] = [{**rom, "file": beside(work, str(rom["file"]))} for rom in values["roms"]]
        for n, rom in enumerate(work.spec.get("firmware", "roms").value):  # type: ignore[union-attr]
            work.note(f"firmware.roms.{n}", rom.place)
    if "acpi-tables" in values:
        values["acpi-tables"] = [_acpi_table(work, n, given) for n, given in enumerate(values["acpi-tables"])]
    return values


def _acpi_table(work: Work, n: int, given: dict[str, Any]) -> dict[str, Any]:
    path, node = f"firmware.acpi-tables.{n}", work.spec.get("firmware", "acpi-tables").value[n]  # type: ignore[union-attr]
    work.note(path, node.place)
    if ("file" in given) == ("data" in given):
        work.wrong("VR0605", "an ACPI table needs either 'file' or 'data'", node.place, path)
    return given | {key: [absolute(work, name) for name in given[key]] for key in ("file", "data") if key in given}


def _fw_cfg_file(work: Work, name: str, given: dict[str, Any]) -> dict[str, Any]:
    node = work.spec.get("firmware", "files", name)
    assert node is not None
    path = f"firmware.files.{name}"
    work.note(path, node.key_place)
    if len(given) != 1:
        work.wrong("VR0605", f"fw_cfg file '{name}' needs either 'file' or 'string'", node.key_place, path)
    return {**given, "file": absolute(work, str(given["file"]))} if "file" in given else given


def accelerators(work: Work) -> list[str]:
    node = work.spec.get("accel")
    value = plain(node) if node is not None else work.machine_type.default("accel") or ["kvm", "soft"]
    names = value if isinstance(value, list) else [value]
    return list(dict.fromkeys(names))


def kernel(work: Work) -> dict[str, Any]:
    """kernel, initrd, cmdline (None when not given); with a kernel also what a multiboot kernel is told that the files
    are called, which is what was written: nothing of the host's directories gets into the guest.
    """
    values: dict[str, Any] = {}
    names: dict[str, Any] = {}
    for key in ("kernel", "initrd"):
        node = work.spec.get(key)
        values[key] = None
        if node is not None:
            text = names[key] = str(node.value)
            listed = key == "initrd"
            values[key] = modules.moved(text, lambda path: absolute(work, path)) if listed else absolute(work, text)
            work.note(key, node.place)
    values["cmdline"] = work.spec.value("cmdline") or None
    line = work.spec.get("cmdline")
    if line is not None:
        work.note("cmdline", line.place)
    if values["kernel"] is not None:
        values["kernel-names"] = {**names, **_given(work, "kernel-names")}
    for key in ("initrd", "cmdline"):
        node = work.spec.get(key)
        if node is not None and values["kernel"] is None:
            work.wrong("VR0707", f"'{key}' without a kernel", node.key_place, key, remedy="add `kernel:`")
    return values


def merged(work: Work, section: str) -> dict[str, Any]:
    """A section of the type with the file's put over it; sizes written as text become bytes."""
    base = work.machine_type.root.get(section)
    own = work.spec.get(section)
    if own is not None and own.value == "none":
        own = own.at({"bios": own})
    node = merge(base, own) if base is not None and own is not None else base or own
    value = _numbers(plain(node)) if node is not None else {}
    assert isinstance(value, dict)
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: (parse_size(child) if key in _SIZES and isinstance(child, str) else _numbers(child))
            for key, child in value.items()
        }
    return value


def _given(work: Work, section: str) -> dict[str, Any]:
    node = work.spec.get(section)
    if node is None:
        return {}
    for key, child in node.value.items():
        work.note(f"{section}.{key}", child.place)
    value = plain(node)
    assert isinstance(value, dict)
    return value


def memory_slots(work: Work, amount: int, layout: dict[str, Any]) -> dict[str, Any]:
    """{"memory-slots": {count, maxmem, base, size, reserved-end, node}}: the range kept free for modules, and where all
    that is reserved ends as the firmware is told; {} when the file has none.
    """
    node = work.spec.get("memory-slots")
    if node is None or not node.value:
        return {}
    limits = work.machine_type.section("limits")
    most = _limit(limits, "memory-slots", 0)
    count = int(node.value["count"].value)
    maxmem = parse_size(node.value["maxmem"].value) or 0

    def wrong(name: str, message: str, remedy: str = "") -> dict[str, Any]:
        work.wrong("VR0719", message, node.value[name].place, f"memory-slots.{name}", remedy=remedy)
        return {}

    if not most:
        return wrong("count", f"{work.machine_type.name} has no memory slots", "take pc-i440fx-2.1 or newer")
    if count > most:
        return wrong("count", f"{count} memory slots; {work.machine_type.name} has at most {most}")
    if maxmem <= amount:
        return wrong(
            "maxmem",
            f"maxmem is {size_text(maxmem)}, no more than the {size_text(amount)} it starts with",
            "`maxmem` counts `memory:` too",
        )
    if maxmem % 4096 or maxmem > 1 << 46:
        return wrong("maxmem", f"maxmem is {maxmem}: a multiple of 4KiB, up to 64TiB")
    base = -(-(int(layout.get("high-ram") or _HIGH) + int(layout["above-4g"])) // GIB) * GIB
    size = maxmem - amount + count * _limit(limits, "memory-slot-padding", 0)
    end = base + size if _flag(limits, "memory-reserved-end") else base
    found = {"base": base, "size": size, "reserved-end": -(-end // GIB) * GIB}
    for name, value in found.items():
        given = node.value.get(name)
        if given is not None and parse_size(given.value) != value:
            return wrong(name, f"'{name}' is {given.value}, but this machine makes it {value}", "remove it")
    given = {name: node.value[name].value for name in ("nvdimm", "nvdimm-persistence") if name in node.value}
    kinds = {name: value for name, value in given.items() if value}
    if "nvdimm-persistence" in kinds and "nvdimm" not in kinds:
        return wrong("nvdimm-persistence", "there are no non-volatile modules", "add `nvdimm: true`")
    work.note("memory-slots", node.place)
    return {"memory-slots": {"count": count, "maxmem": maxmem, **found, **kinds}}


def _flag(limits: dict[str, Node], name: str) -> bool:
    node = limits.get(name)
    return node is None or bool(node.value)


def one_node(work: Work, memory: int, cpus: dict[str, Any]) -> dict[str, Any]:
    """Machines with memory slots and no nodes of their own have one: guests need it for modules that come."""
    if not _flag(work.machine_type.section("limits"), "memory-slots-node"):
        return {}
    return {"numa": [{"cpus": list(range(int(cpus.get("maxcpus", cpus["count"])))), "memory": memory}]}


def _limit(limits: dict[str, Node], name: str, default: int) -> int:
    node = limits.get(name)
    return (parse_size(node.value) or default) if node is not None else default


def memory_backing(work: Work) -> dict[str, Any]:
    """How the host keeps the memory; a path is the file's directory's."""
    node = work.spec.get("memory-backing")
    if node is None or not node.value:
        return {}
    found = {name: value.value for name, value in node.value.items()}
    if "mem-path" in found:
        found["mem-path"] = absolute(work, str(found["mem-path"]))
    return {"memory-backing": found}


def policies(work: Work) -> dict[str, Any]:
    """What becomes of events: `on`, as the file has it."""
    node = work.spec.get("on")
    return {"on": plain(node)} if node is not None and node.value else {}
