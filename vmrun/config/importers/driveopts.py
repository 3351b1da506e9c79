"""Options about disks: -drive, -hda and its kin, -blockdev; each becomes a drive and the device that shows it."""

from __future__ import annotations

from vmrun.config.importers import nodes
from vmrun.config.importers.qemuopts import boolean, number, settings, size
from vmrun.config.importers.state import Line, Opt, guess
from vmrun.core.iolimits import checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.importers.qemuopts import Option

_KEPT = ("file", "format", "media", "cache", "aio", "werror", "rerror", "discard")
_CHOICES = {
    "aio": ("threads", "native", "io_uring"),
    "discard": ("ignore", "off", "unmap", "on"),
    "werror": ("ignore", "stop", "report", "enospc"),
    "rerror": ("ignore", "stop", "report"),
    "cache": ("none", "off", "writeback", "writethrough", "directsync", "unsafe"),
    "detect-zeroes": ("off", "on", "unmap"),
}
# Options that a drive has where vmrun does them.
_NEW = {"detect-zeroes": "detect-zeroes", "file.locking": "locking"}
_AS_IS = {"detect-zeroes": ("off",), "file.locking": ("auto",)}
# QEMU's two spellings of each limit → the machine file's
_LIMITS = {"iops_size": "iops-size", "throttling.iops-size": "iops-size"} | {
    old.format(unit=unit, which=which, long=long) + ending.replace("-", mark): f"{unit}{new}{ending}"
    for unit in ("bps", "iops")
    for which, long, new in (("", "-total", ""), ("_rd", "-read", "-rd"), ("_wr", "-write", "-wr"))
    for ending in ("", "-max", "-max-length")
    for old, mark in (("{unit}{which}", "_"), ("throttling.{unit}{long}", "-"))
}
_FLAGS = ("readonly", "read-only", "snapshot", "copy-on-read")
_GEOMETRY = {"cyls": "cyls", "heads": "heads", "secs": "secs", "trans": "bios-chs-trans"}
_BUSES = ("ide", "scsi", "floppy", "pflash", "virtio", "none", "sd", "mtd", "xen")
_PLACE: tuple[str, ...] = ("bus", "unit", "index")
_PER_BUS = {"ide": 2, "scsi": 7}


def drive(line: Line, option: Option) -> None:
    add(line, option, settings(option))


def hd(line: Line, option: Option) -> None:
    chs = line.given.pop("hdachs", None) if option.name == "hda" else None
    given = {"file": str(option.value), "index": str("abcd".index(option.name[2])), "media": "disk"}
    if chs is not None:
        given |= dict(zip(("cyls", "heads", "secs", "trans"), str(chs[-1].value).split(","), strict=False))
    add(line, option, given)


def cdrom(line: Line, option: Option) -> None:
    add(line, option, {"file": str(option.value), "index": "2", "media": "cdrom"})


def floppy(line: Line, option: Option) -> None:
    add(line, option, {"file": str(option.value), "if": "floppy", "index": str("ab".index(option.name[2]))})


def special(line: Line, option: Option) -> None:
    line.no_equal(option)


def add(line: Line, option: Option | None, given: dict[str, Any], order: int = -1) -> None:
    """One drive, and its device unless if=none."""
    source = option or _NOBODY
    kind = given.pop("if", "ide")
    if kind not in _BUSES:
        raise source.wrong(f"unsupported bus type '{kind}'", kind)
    media = given.get("media", "disk")
    if media not in ("disk", "cdrom"):
        raise source.wrong(f"'{media}' invalid media", media)
    place: dict[str, int] = {key: number(source, key, given.pop(key)) for key in _PLACE if key in given}
    if "index" in place and (place.get("bus", 0) or "unit" in place):
        raise source.wrong("index cannot be used with bus and unit", "index")
    addr, own = given.pop("addr", None), str(given.pop("id", ""))
    props = {"serial": given.pop("serial")} if "serial" in given and kind != "none" else {}
    props |= {name: guess(given.pop(key)) for key, name in _GEOMETRY.items() if key in given}
    root = nodes.root(line, source, given)
    if root and (given.get("snapshot", "off") not in ("off", "no", "false") or line.has("snapshot")):
        line.no_equal(source, "node-name" if "node-name" in root else min(root))
    spec = _spec(line, source, given)
    if kind == "floppy":
        spec["media"] = "floppy"
    if kind == "pflash":
        bus, unit = _place(line, source, kind, place)
        id = line.put(source, "drives", own or f"pflash{unit}", {"format": "raw", **spec})
        _rooted(line, id, root)
        line.add(option, _flash(id, unit))
        return
    if kind in ("sd", "mtd", "xen"):
        bus, unit = place.get("bus", 0), place.get("unit", place.get("index", 0))
        raise source.wrong(f"machine type does not support if={kind},bus={bus},unit={unit}", kind)
    if kind == "none":
        _rooted(line, line.put(source, "drives", own or f"none{len(line.drives)}", spec), root)
        return
    bus, unit = _place(line, source, kind, place)
    stem = {"disk": "hd", "cdrom": "cd"}[media]
    names = {"virtio": f"virtio{unit}", "floppy": f"floppy{unit}"}
    id = line.put(source, "drives", own or names.get(kind, f"{kind}{bus}-{stem}{unit}"), spec)
    _rooted(line, id, root)
    device = _device(line, kind, media, bus, unit)
    device |= {"drive": id, **props}
    if addr is not None:
        device["addr"] = line.value(source, device["driver"], "addr", addr)
    line.add(option, device)


def _rooted(line: Line, id: str, root: dict[str, Any]) -> None:
    if root:
        line.run.setdefault("blockdevs", []).append({"drive": id, **root})


def _flash(drive: str, unit: int) -> dict[str, Any]:
    name = f"system.flash{unit}"
    device = {"driver": "cfi.pflash01", "id": name, "name": name, "drive": drive}
    return {**device, "below": "system.flash0"} if unit else device


def pflash(line: Line, option: Option) -> None:
    add(line, option, {"file": str(option.value), "if": "pflash"})


def _device(line: Line, kind: str, media: str, bus: int, unit: int) -> dict[str, Any]:
    if kind == "ide":
        driver = "ide-drive" if line.old else {"disk": "ide-hd", "cdrom": "ide-cd"}[media]
        return {"driver": driver, "bus": f"ide.{bus}", "unit": unit}
    if kind == "virtio":
        return {"driver": "virtio-blk-pci"}
    if kind == "floppy":
        return {"driver": "floppy", "unit": unit}
    host = {"driver": "lsi53c895a", "id": f"lsi{bus}", "provides": {f"scsi.{bus}": "SCSI"}}
    if (host, "") not in line.early:
        line.add(None, host)
    driver = {"disk": "scsi-hd", "cdrom": "scsi-cd"}[media]
    return {"driver": driver, "bus": f"scsi.{bus}", "scsi-id": unit}


def _place(line: Line, option: Option, kind: str, place: dict[str, int]) -> tuple[int, int]:
    """(bus, unit), the first free ones where not given. LineError when taken or out of range."""
    per = _PER_BUS.get(kind, 0)
    taken = line.run.setdefault("places", {}).setdefault(kind, set())
    bus, unit = place.get("bus", 0), place.get("unit", -1)
    if "index" in place:
        bus, unit = divmod(place["index"], per) if per else (0, place["index"])
    if unit < 0:
        unit = 0
        while (bus, unit) in taken:
            unit += 1
            if per and unit >= per:
                bus, unit = bus + 1, 0
    most = {"ide": 2, "floppy": 1, "scsi": 4, "virtio": 1, "pflash": 1}[kind]
    if per and unit >= per or kind in ("floppy", "pflash") and unit > 1:
        raise option.wrong(f"unit {unit} too big (max is {(per or 2) - 1})", "unit")
    if bus >= most or bus < 0:
        raise option.wrong(f"machine type does not support if={kind},bus={bus},unit={unit}")
    if (bus, unit) in taken:
        raise option.wrong(f"drive with bus={bus}, unit={unit} (index={bus * (per or 1) + unit}) exists")
    taken.add((bus, unit))
    return bus, unit


def _spec(line: Line, option: Option, given: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = nodes.inline(line, option, given)
    kind = str(given.get("format", given.get("driver", "")))
    for key, value in given.items():
        if kind == "raw" and key in nodes.TABLES:
            raise option.wrong(f"Block format 'raw' does not support the option '{key}'", key)
        if key == "cache" and value == "off":
            spec["cache"] = "none"
        elif key in ("file", "file.filename", "file.file.filename"):
            if value:
                spec["file"] = str(value)
        elif key == "driver":
            spec["format"] = value
        elif key in _CHOICES and value not in _CHOICES[key]:
            raise _refused(option, key, value)
        elif key in line.catalogue.planned_of_drives() and value not in ("off", "ignore"):
            line.no_equal(option, key, host=True)
        elif key in _FLAGS:
            spec["readonly" if key == "read-only" else key] = boolean(option, key, value)
        elif key == "auto-read-only":
            boolean(option, key, value)  # a drive writes, or is read-only: QEMU's refuse the same files
        elif key == "force-share":
            if boolean(option, key, value):
                if not boolean(option, "read-only", str(given.get("read-only", given.get("readonly", "off")))):
                    raise option.wrong("force-share=on can only be used with read-only images", key)
                line.no_equal(option, key, host=True)
        elif key == "serial":
            spec[key] = str(value)
        elif key == "aio" and value not in line.catalogue.choices_of_drives(key):
            line.no_equal(option, f"aio={value}", host=True)
        elif key == "discard":
            spec[key] = {"on": "unmap", "off": "ignore"}.get(value, value)
        elif key in _KEPT or key in _NEW and _NEW[key] in line.catalogue.names_of_drives():
            spec[_NEW.get(key, key)] = value
        elif key in _LIMITS:
            spec[_LIMITS[key]] = size(option, key, value)
        elif key in ("group", "throttling.group"):
            spec["throttle-group"] = value
        elif key == "node-name":
            spec[key] = value
        elif key in ("boot", "file.driver") or key in _AS_IS and value in _AS_IS[key]:
            continue  # extboot of old, which every BIOS since does by itself
        elif key.startswith(
            (
                "bps",
                "iops",
                "detect-zeroes",
                "cache.",
                "l2-cache",
                "file.",
                "refcount",
                "lazy",
                "overlap",
                "cache-",
                "rbd",
                "copy",
                "password",
                "backing",
                "pass-discard-",
                "stats-account-",
                "stats-intervals.",
            )
        ):
            line.no_equal(option, key, host=not key.startswith(("backing", "password", "rbd")))
        else:
            raise option.wrong(f"Block format '{kind or 'raw'}' does not support the option '{key}'", key)
    try:
        if not checked(spec):
            spec.pop("throttle-group", None)  # a group is its drives' that have limits of their own
    except ValueError as error:
        raise option.wrong(str(error)) from None
    if "file" in spec and spec["file"].startswith(("file:", "fat:", "nbd:", "rbd:", "http:", "https:", "gluster:")):
        head, _, rest = spec["file"].partition(":")
        if head == "file":
            spec["file"] = rest
        elif head in ("nbd", "http", "https", "fat"):
            if head == "fat":
                spec.setdefault("format", "raw")
        else:
            line.warn(option, f"the protocol '{head}:' has no equal in a machine file", head)
    return spec


def _refused(option: Option, key: str, value: str) -> Exception:
    said = {"aio": "invalid aio option", "discard": "Invalid discard option", "cache": "invalid cache option"}
    said |= {"werror": f"'{value}' invalid write error action", "rerror": f"'{value}' invalid read error action"}
    return option.wrong(said.get(key, f"Parameter '{key}' does not accept value '{value}'"), value)


def blockdev(line: Line, option: Option) -> None:
    given = settings(option, "driver", json=True)
    name = given.pop("node-name", "")
    if not name:
        raise option.wrong("'node-name' must be specified for the root node")
    if "driver" not in given:
        raise option.wrong("Parameter 'driver' is missing")
    if name in line.blockdevs:
        raise option.wrong(f"Duplicate nodes with node-name='{name}'", name)
    line.blockdevs[name] = (option, given)
    line.run.setdefault("blockdevs", []).append({"node-name": name, **given})


def _policies(line: Line) -> None:
    """werror and rerror of a device are its drive's in a machine file."""
    for device in line.devices:
        spec = line.drives.get(str(device.get("drive")))
        for key in ("werror", "rerror"):
            if key in device and spec is not None:
                value = str(device.pop(key))
                if value != "auto":
                    spec[key] = value


def finish(line: Line) -> None:
    """Block nodes that devices name become drives; -snapshot; the drives that QEMU has by default."""
    named = {spec["node-name"]: id for id, spec in line.drives.items() if "node-name" in spec}
    for name in named.keys() & line.blockdevs.keys():
        raise line.blockdevs[name][0].wrong(f"Duplicate nodes with node-name='{name}'", name)
    for device in line.devices:
        name = device.get("drive")
        if name in named and name not in line.drives and name not in line.blockdevs:
            device["drive"] = named[name]
        if name in line.blockdevs and name not in line.drives:
            line.drives[name] = nodes.drive(line, name)
            if device["driver"] in ("ide-cd", "scsi-cd"):
                line.drives[name].setdefault("media", "cdrom")
    for unit, (option, name) in sorted(line.run.pop("flash", {}).items()):
        if name in line.blockdevs:
            line.drives[name] = nodes.drive(line, name)
        elif name not in line.drives:
            raise option.wrong(f"Cannot find device='' nor node-name='{name}'", name)
        _place(line, option, "pflash", {"unit": unit})
        line.add(option, _flash(name, unit))
    flashes = line.run.get("places", {}).get("pflash", set())
    if flashes and (0, 0) not in flashes:
        raise _NOBODY.wrong("pflash1 requires pflash0")
    for device in line.devices:
        for key in ("drive", "driveA", "driveB"):
            if device["driver"] in ("floppy", "isa-fdc") and device.get(key) in line.drives:
                line.drives[device[key]]["media"] = "floppy"
        if device["driver"] == "isa-fdc":
            device["id"] = "fdc"  # the board's
    for key in ("driveA", "driveB"):
        if (name := line.globals.get("isa-fdc", {}).get(key)) in line.drives:
            line.drives[name]["media"] = "floppy"
    _policies(line)
    if line.has("snapshot"):
        for spec in line.drives.values():
            spec["snapshot"] = True
    if line.has("nodefaults"):
        return
    drivers = line.spoken_for()
    if not drivers & {"ide-drive", "ide-cd", "ide-hd", "scsi-cd", "scsi-hd"} or _only_sugar_disks(line):
        _default(line, "a CD-ROM drive (ide1-cd0)", {"index": "2", "media": "cdrom", "readonly": "on"})
    if not drivers & {"floppy", "isa-fdc"}:
        _default(line, "a floppy drive", {"if": "floppy", "index": "0"})


def _only_sugar_disks(line: Line) -> bool:
    """-hda and its kin leave the default CD-ROM in place when its place is free; -device disks do not."""
    told = {str(device["driver"]) for device in line.devices}
    free = (1, 0) not in line.run.get("places", {}).get("ide", set())
    return free and not told & {"ide-drive", "ide-cd", "ide-hd", "scsi-cd", "scsi-hd"}


def _default(line: Line, what: str, given: dict[str, Any]) -> None:
    if line.defaults:
        add(line, None, given)
    else:
        line.skipped.append(what)


def _nobody() -> Option:
    from vmrun.config.importers.qemuopts import Option

    return Option("drive", "", 0, "default drive")


_NOBODY = _nobody()
OPTIONS = (
    Opt("drive", True, drive, "a disk; with if=none only its image: drives, devices"),
    *(Opt(f"hd{letter}", True, hd, f"IDE disk {'abcd'.index(letter)}: drives, devices") for letter in "abcd"),
    Opt("hdachs", True, None, "geometry of the first IDE disk"),
    Opt("cdrom", True, cdrom, "CD-ROM in IDE place 2: drives, devices"),
    Opt("fda", True, floppy, "floppy disk A: drives, devices"),
    Opt("fdb", True, floppy, "floppy disk B: drives, devices"),
    Opt("blockdev", True, blockdev, "an image by nodes: drives"),
    Opt("snapshot", False, None, "writes go to temporary overlays: drives.*.snapshot"),
    Opt("pflash", True, pflash, "firmware in flash: drives, devices"),
    Opt("mtdblock", True, special, "a flash image"),
    Opt("sd", True, special, "an SD card"),
    Opt("fsdev", True, special, "a shared directory"),
    Opt("virtfs", True, special, "a shared directory"),
    Opt("iscsi", True, special, "iSCSI session parameters"),
)
