"""The host's side: drives, chardevs and netdevs with every option filled in, and who uses which."""

from __future__ import annotations

import json
import os
import re

from vmrun.config.node import Node, plain
from vmrun.config.props import convert
from vmrun.config.work import Dev, Work, absolute, not_yet
from vmrun.core.iolimits import NAMES, checked
from vmrun.core.values import ADDRESSES
from vmrun.errors import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IN_FLASH = "flash"  # firmware.bios of a machine whose firmware is no ROM
# QEMU's netdev types that vmrun has not, and what does the same.
ELSEWHERE = {
    "vhost-user": "a process that serves rings has no equal here: `stream`, `segment` and `passt` carry frames to one",
    "vhost-vdpa": "hardware that serves rings has no equal here: a `tap` joined to its interface",
    "l2tpv3": "the host's kernel speaks it: `ip l2tp`, and a `tap` on the same bridge",
    "netmap": "a `tap`, or a `segment` between machines",
    "af-xdp": "a `tap` on the same bridge as the interface",
}
_SECTIONS = {"drive": "drives", "chardev": "chardevs", "netdev": "netdevs"}


def resolve_backends(work: Work) -> None:
    """Fill work.drives, chardevs and netdevs from the spec's."""
    for id, node in work.spec.drives.items():
        _drive(work, id, node)
    for id, node in work.spec.chardevs.items():
        _typed(work, "chardev", id, node, work.catalogue.chardevs, work.chardevs)
    for id, node in work.spec.netdevs.items():
        _typed(work, "netdev", id, node, work.catalogue.netdevs, work.netdevs)
    _shared_images(work)
    _node_names(work)


def _drive(work: Work, id: str, node: Node) -> None:
    path = f"drives.{id}"
    before = len(work.problems)
    table = {prop["name"]: prop for prop in work.catalogue.drives["props"]}
    values = _options(work, node, table, path, "drive", f"drive '{id}'")
    file = values.get("file")
    if values.get("format") is None:
        suffix = os.path.splitext(file or "")[1].lower()
        values["format"] = work.catalogue.drives["suffixes"].get(suffix, "auto")
    for key, known in (
        ("media", work.catalogue.drives["media"]),
        ("format", work.catalogue.drives["formats"]),
    ):
        value = values[key]
        given = node.get(key) or node
        if value not in known:
            work.wrong(
                "VR0606",
                f"'{key}' of drive '{id}' is '{value}'",
                given.place,
                f"{path}.{key}",
                nearest=work.near(value, known),
                remedy=f"one of: {', '.join(sorted(known))}",
            )
        elif known[value].get("planned"):
            what = f"drive format '{value}'" if key == "format" else f"a drive with media '{value}'"
            work.problems.append(not_yet(what, given.place, f"{path}.{key}", "VR0804"))
    if values.get("cache") is None:
        values["cache"] = str(work.machine_type.default("cache") or "writeback")
    if values.get("aio") == "native" and values["cache"] not in ("none", "directsync"):
        given = node.get("aio") or node
        work.wrong(
            "VR0612",
            f"'aio' of drive '{id}' is 'native', which goes past the host's page cache, "
            f"and its cache is '{values['cache']}'",
            given.place,
            f"{path}.aio",
            remedy="add `cache: none`, or take `aio: threads`",
        )
    try:
        checked(values)
    except ValueError as error:
        first = next(name for name in NAMES if values.get(name) is not None and node.get(name) is not None)
        place = node.value[first].place
        remedy = "a burst (-max) is no less than its rate, and a total stands without its parts"
        work.wrong("VR0612", f"limits of drive '{id}': {error}", place, f"{path}.{first}", remedy=remedy)
    if len(work.problems) > before:
        work.idle_backends.add(("drive", id))
    work.drives[id] = {key: value for key, value in values.items() if value is not None}
    work.note(path, node.key_place)


def _typed(work: Work, kind: str, id: str, node: Node, types: dict[str, Any], into: dict[str, dict[str, Any]]) -> None:
    path = f"{kind}s.{id}"
    before = len(work.problems)
    given = node.value["type"]
    name = str(given.value)
    entry = types.get(name)
    if entry is None:
        modelled = sorted(known for known in types if not types[known].get("planned"))
        work.wrong(
            "VR0601",
            f"there is no {kind} type '{name}'",
            given.place,
            f"{path}.type",
            nearest=work.near(name, types),
            remedy=ELSEWHERE.get(name) or f"one of: {', '.join(modelled or sorted(types))}",
        )
        work.idle_backends.add((kind, id))
        return
    table = {prop["name"]: prop for prop in entry["props"]}
    if entry.get("planned"):
        code = "VR0802" if kind == "chardev" else "VR0803"
        work.problems.append(not_yet(f"{kind} type '{name}'", given.place, f"{path}.type", code))
    values = _options(work, node, table, path, f"{kind} type '{name}'", f"{kind} '{id}'", planned=entry.get("planned"))
    if kind == "chardev" and name == "ringbuf":
        _ring(work, id, node, values, path)
    if kind == "chardev" and name == "socket":
        _socket(work, id, node, values, path)
    if kind == "netdev" and name == "segment":
        _segment(work, id, node, path)
    if kind == "netdev" and values.get("vhost"):
        work.warn(
            "VR0643",
            f"vhost of netdev '{id}': vmrun serves the rings itself, the host's kernel does not",
            node.value["vhost"].place,
            f"{path}.vhost",
            "leave it out: it has no effect",
        )
    if len(work.problems) > before:
        work.idle_backends.add((kind, id))
    into[id] = {"type": name, **{key: value for key, value in values.items() if value is not None}}
    work.note(path, node.key_place)


def _segment(work: Work, id: str, node: Node, path: str) -> None:
    given = node.get("segment")
    known = work.spec.get("segments")
    names = list(known.value) if known is not None else []
    if given is not None and given.value not in names:
        work.wrong(
            "VR0603",
            f"netdev '{id}' names segment '{given.value}', which does not exist",
            given.place,
            f"{path}.segment",
            nearest=work.near(str(given.value), names),
            remedy=f"segments here: {', '.join(names)}" if names else f"add `segments: {{{given.value}: {{}}}}`",
        )


def _options(
    work: Work, node: Node, table: dict[str, Any], path: str, what: str, whose: str, planned: bool = False
) -> dict[str, Any]:
    values = {name: prop.get("default") for name, prop in table.items()}
    for name, child in node.value.items():
        if name == "type" and "type" not in table:
            continue
        prop = table.get(name)
        if prop is None:
            work.wrong(
                "VR0607",
                f"{what} has no option '{name}'",
                child.key_place,
                f"{path}.{name}",
                nearest=work.near(name, table),
                remedy=f"its options: {', '.join(sorted(table))}" if table else "it has no options",
            )
            continue
        kind = "str" if prop["type"] == "path" else prop["type"]
        value = convert(child, {**prop, "type": kind}, what, f"{path}.{name}", work.problems)
        if value is None:
            continue
        if prop.get("planned") and not planned and value != prop.get("default"):
            work.problems.append(not_yet(f"'{name}' of a {what}", child.key_place, f"{path}.{name}", "VR0804"))
        if kind == "object":
            from vmrun.config.objects import check_named

            check_named(work, child, prop, whose, f"{path}.{name}")
        if prop["type"] == "path":
            if not value:
                work.wrong("VR0605", f"'{name}' of {whose} is empty", child.place, f"{path}.{name}")
                continue
            if not (kind == "str" and path.startswith("drives.") and value.startswith(ADDRESSES)):
                value = absolute(work, value)
        values[name] = value
        work.note(f"{path}.{name}", child.place)
    for name, prop in table.items():
        if prop.get("required") and name not in node.value:
            work.wrong("VR0605", f"{whose} needs '{name}'", node.place, path, remedy=f"add `{name}:` ({prop['doc']})")
    for name, prop in table.items():
        if prop.get("planned") and not planned and name not in node.value:
            values.pop(name)
    return values


def beside(work: Work, name: str) -> str:
    """The path of a firmware or option ROM that the file names: a path is one from the file's directory, a mere name
    a file that lies there. Any other name is looked for where the host has its firmware.
    """
    if not name or os.path.isabs(name):
        return name
    path = absolute(work, name)
    if "/" in name or name.startswith("~") or os.path.isfile(path):
        return path
    work.missing.append(path)
    return name


def _ring(work: Work, id: str, node: Node, values: dict[str, Any], path: str) -> None:
    size = values["size"]
    if size < 2 or size & (size - 1):
        work.wrong(
            "VR0404",
            f"'size' of chardev '{id}' is {size}, not a power of two",
            (node.get("size") or node).place,
            f"{path}.size",
            nearest=str(1 << max(1, size.bit_length() - 1)),
        )


def _socket(work: Work, id: str, node: Node, values: dict[str, Any], path: str) -> None:
    unix, tcp = values.get("path") is not None, values.get("port") is not None
    if values.get("fd") is not None:
        return
    if unix and (tcp or values.get("host") is not None):
        extra = node.get("port") or node.get("host") or node
        work.wrong(
            "VR0608",
            f"chardev '{id}' has both a unix path and a TCP address",
            extra.key_place,
            path,
            remedy="give path, or host and port",
        )
    elif not unix and not tcp:
        work.wrong(
            "VR0608",
            f"chardev '{id}' says no address",
            node.place,
            path,
            remedy="give path (unix), or host and port (TCP)",
        )
    elif tcp and values.get("host") is None:
        values["host"] = "localhost"


# Where the same address is no file of this host: each drive has zeroes of its own, or a server that sees to it.
_NO_FILES = ("null-co:", "null-aio:", "nbd:", "nbd+", "http://", "https://", "fat:")


def _is_a_file(name: str) -> bool:
    """Whether the same name is the same image."""
    if not name.startswith("json:"):
        return not name.startswith(_NO_FILES)
    try:
        node = json.loads(name[5:])
        while isinstance(inner := node.get("image", node.get("file")), dict):
            node = inner
    except (ValueError, AttributeError, RecursionError):
        return True  # whoever opens it says what is wrong
    protocol = inner if isinstance(inner, str) else str(node.get("filename", f"{node.get('driver')}:"))
    return not protocol.startswith(_NO_FILES)


def _shared_images(work: Work) -> None:
    owners: dict[str, str] = {}
    for id, drive in work.drives.items():
        file = drive.get("file")
        if file is None or not _is_a_file(file):
            continue
        other = owners.setdefault(file, id)
        apart = all(each.get("readonly") or each.get("snapshot") for each in (drive, work.drives[other]))
        if other != id and not apart:
            work.wrong(
                "VR0609",
                f"drives '{other}' and '{id}' are the same image",
                Place(*work.places.get(f"drives.{id}.file", work.places[f"drives.{id}"])),
                f"drives.{id}.file",
                also=[(Place(*work.places[f"drives.{other}"]), f"drive '{other}' is here")],
                remedy="an image can be shared only if every drive with it is readonly",
            )


_NODE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,30}")


def _node_names(work: Work) -> None:
    """Names of images are monitors' as the drives' own are: each is one alone."""
    owners: dict[str, str] = {}
    for id, drive in work.drives.items():
        name = drive.get("node-name")
        if name is None:
            continue
        if not _NODE_NAME.fullmatch(name):
            long = len(name) > 31 and _NODE_NAME.fullmatch(name[:31])
            problem = "Node name too long" if long else f"Invalid node-name: '{name}'"
            remedy = "a letter, then letters, digits and any of . _ -, 31 in all"
        elif name in work.drives:
            problem, remedy = f"node-name={name} is conflicting with a device id", "give the image another name"
        elif owners.setdefault(name, id) != id:
            problem, remedy = f"Duplicate nodes with node-name='{name}'", f"drive '{owners[name]}' has it; give another"
        else:
            continue
        place = Place(*work.places.get(f"drives.{id}.node-name", work.places[f"drives.{id}"]))
        work.wrong("VR0612", problem, place, f"drives.{id}.node-name", remedy=remedy)


_DISK_BUSES = ("IDE", "SCSI")
_EMPTY = ("ide-cd", "scsi-cd")  # may be without a drive, or without a medium


def check_references(work: Work) -> None:
    """Every backend a device names must exist and have one user; backends without a user get a warning."""
    users: dict[tuple[str, str], tuple[str, Place]] = {}
    ids = {dev.id for dev in work.devices}
    for dev in work.devices:
        if dev.entry is None:
            continue
        for name, prop in dev.entry.props.items():
            kind = prop["type"]
            node = dev.spec.props.get(name)
            if kind == "link" and node is not None and not dev.idle and node.value not in ids:
                _no_such(work, dev, name, "device", str(node.value), node, list(ids))
            if kind == "object" and node is not None and not dev.idle and type(node.value) is str:
                from vmrun.config.objects import check_named

                check_named(work, node, prop, dev.label, f"{dev.spec.path}.{name}", dev.driver)
            if kind in _SECTIONS and node is not None:
                _use(work, dev, name, kind, node, users)
        drive = dev.spec.props.get("drive") if dev.entry.bus in _DISK_BUSES else None
        spec = work.drives.get(str(drive.value)) if drive is not None else None
        if drive is not None and spec is not None and spec.get("media") == "disk" and spec.get("file") is None and (
            dev.driver not in _EMPTY
        ):
            spot = work.places.get(f"drives.{drive.value}")
            place = Place(*spot) if spot is not None else drive.place
            text = f"drive '{drive.value}' has no file, and {dev.label} needs a medium"
            work.wrong("VR0605", text, place, f"drives.{drive.value}", remedy="add `file: IMAGE`")
        if (
            dev.entry.bus in _DISK_BUSES and not dev.idle and "drive" in dev.entry.props
            and dev.props.get("drive") is None and dev.driver not in _EMPTY
        ):
            work.wrong(
                "VR0605",
                f"{dev.label} has no drive",
                dev.spec.place,
                dev.spec.path,
                remedy="add `drive:` with the id of one under `drives`",
            )
    _objects_use(work, users)
    for id, node in work.spec.monitors.items():
        target = node.get("chardev")
        if target is not None:
            _use_backend(work, "chardev", target, f"monitors.{id}.chardev", f"monitor '{id}'", users)
    for kind, section in _SECTIONS.items():
        for id in getattr(work, section):
            if (kind, id) not in users and (kind, id) not in work.idle_backends:
                work.warn(
                    "VR0611",
                    f"no device uses {kind} '{id}'",
                    Place(*work.places[f"{section}.{id}"]),
                    f"{section}.{id}",
                    f"add a device with `{kind}: {id}`, or remove it",
                )


def check_flash(work: Work) -> None:
    """A machine has one firmware."""
    flashes = [dev for dev in work.devices if dev.driver == "cfi.pflash01"]
    for dev in flashes:
        if work.machine_type.section("memory-map").get("low-rom-ram-backed") is not None and plain(
            work.machine_type.section("memory-map")["low-rom-ram-backed"]
        ):
            text = f"{work.machine_type.name} has no flash: its firmware is copied to RAM below 1 MiB, 128 KiB of it"
            work.wrong("VR0718", text, dev.spec.place, dev.spec.path, remedy="use a pc-i440fx type")
        elif dev.props.get("below") is None and dev is not flashes[0]:
            work.wrong(
                "VR0718",
                f"{dev.label} and {flashes[0].label} both end at 4 GiB",
                dev.spec.place,
                dev.spec.path,
                also=[(flashes[0].spec.place, "the other is here")],
                remedy=f"add `below: {flashes[0].id}`",
            )
    own = work.spec.get("firmware")
    bios = own if own is not None and own.value == "none" else work.spec.get("firmware", "bios")
    if flashes and bios is not None and bios.value != IN_FLASH:
        work.wrong(
            "VR0718",
            "`firmware.bios` and a flash: which of them is the firmware?",
            bios.place,
            "firmware.bios",
            also=[(flashes[0].spec.place, "the flash is here")],
            remedy="remove one of them",
        )


def _objects_use(work: Work, users: dict[tuple[str, str], tuple[str, Place]]) -> None:
    """What objects name, and hubs: a chardev has one user, a netdev's filters are none."""
    for id, values in work.objects.items():
        for prop in work.catalogue.objects[values["type"]]:
            name, kind = prop["name"], prop["type"]
            node = work.spec.get("objects", id, name)
            if kind not in _SECTIONS or node is None or not node.value:
                continue
            user, path = f"{values['type']} '{id}'", f"objects.{id}.{name}"
            _use_backend(work, kind, node, path, user, users if kind == "chardev" else {})
    for id, node in work.spec.netdevs.items():
        target = node.get("netdev")
        if target is not None and work.netdevs.get(id, {}).get("type") == "hubport":
            _use_backend(work, "netdev", target, f"netdevs.{id}.netdev", f"hubport '{id}'", users)


def _use(
    work: Work, dev: Dev, name: str, kind: str, node: Node, users: dict[tuple[str, str], tuple[str, Place]]
) -> None:
    if type(node.value) is str:
        _use_backend(work, kind, node, f"{dev.spec.path}.{name}", dev.label, users)


def _use_backend(
    work: Work, kind: str, node: Node, path: str, user: str, users: dict[tuple[str, str], tuple[str, Place]]
) -> None:
    id = str(node.value)
    table = getattr(work.spec, _SECTIONS[kind])
    if id not in table:
        if (kind, id) in work.idle_backends:
            return
        work.wrong(
            "VR0603",
            f"{user} names {kind} '{id}', which does not exist",
            node.place,
            path,
            nearest=work.near(id, table),
            remedy=f"{_SECTIONS[kind]} here: {', '.join(table) or 'none'}",
            facts={"driver": user.partition(" ")[0], "property": path.rpartition(".")[2], "id": id},
        )
        return
    other = users.get((kind, id))
    if other is not None and (getattr(work, _SECTIONS[kind]).get(id) or {}).get("mux") is not True:
        work.wrong(
            "VR0604",
            f"{user} and {other[0]} both use {kind} '{id}'",
            node.place,
            path,
            also=[(other[1], f"{other[0]} uses it here")],
            remedy=f"give each its own {kind}" + (", or share this one with `mux: true`" if kind == "chardev" else ""),
        )
        return
    users[(kind, id)] = (user, node.place)


def _no_such(work: Work, dev: Dev, prop: str, what: str, id: str, node: Node, known: list[str]) -> None:
    work.wrong(
        "VR0603",
        f"{dev.label} names {what} '{id}', which does not exist",
        node.place,
        f"{dev.spec.path}.{prop}",
        nearest=work.near(id, known),
        facts={"driver": dev.driver, "property": prop, "id": id},
    )
