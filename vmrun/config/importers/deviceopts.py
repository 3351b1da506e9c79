"""The primitives: -device, -global, -set, -object, -readconfig."""

from __future__ import annotations

import os

from vmrun.config.catalogue import load_catalogue
from vmrun.config.importers.qemuopts import CPU_TYPE, LineError, Option, number, settings, size
from vmrun.config.importers.state import Line, Opt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Configuration files that come with QEMU: a machine file includes them by name.
KNOWN_CONFIGS = ("ich9-ehci-uhci.cfg",)
_ALIASES = {
    "lsi": "lsi53c895a",
    "virtio-blk": "virtio-blk-pci",
    "virtio-net": "virtio-net-pci",
    "virtio-serial": "virtio-serial-pci",
    "virtio-balloon": "virtio-balloon-pci",
    "virtio-scsi": "virtio-scsi-pci",
    "virtio-rng": "virtio-rng-pci",
    "e1000-82540em": "e1000",
}
_GROUPS = (
    "drive",
    "chardev",
    "device",
    "netdev",
    "net",
    "rtc",
    "global",
    "mon",
    "machine",
    "spice",
    "smp-opts",
    "memory",
    "boot-opts",
    "name",
    "object",
)
_OBJECT_WORDS = """
authz-list authz-list-file authz-pam authz-simple can-bus can-host-socketcan colo-compare cryptodev-backend
cryptodev-backend-builtin cryptodev-vhost-user dbus-vmstate filter-buffer filter-dump filter-mirror filter-redirector
filter-replay filter-rewriter input-barrier input-linux iothread main-loop memory-backend-epc memory-backend-file
memory-backend-memfd memory-backend-ram pr-manager-helper qtest rng-builtin rng-egd rng-random secret secret_keyring
sev-guest thread-context throttle-group tls-cipher-suites tls-creds-anon tls-creds-psk tls-creds-x509 x-remote-object
x-vfio-user-server cryptodev-backend-lkcf
"""
_OBJECTS = frozenset(_OBJECT_WORDS.split())
_AS_OPTION = {"smp-opts": "smp", "memory": "m", "boot-opts": "boot"}
_MOST = 1 << 20


def device(line: Line, option: Option) -> None:
    given = settings(option, "driver", json=True)
    driver = str(given.pop("driver", ""))
    if driver in ("?", "help") or "help" in given or "?" in given:
        line.run["help"] = f"device {option.value}"
        return
    if not driver or "=" in driver:
        raise option.wrong("Parameter 'driver' is missing")
    if driver.endswith(CPU_TYPE):
        line.processors.append((option, driver, given))
        return
    driver = _ALIASES.get(driver, driver)
    vlan = given.pop("vlan", None)
    if line.catalogue.driver(driver) is None:
        from vmrun.config.near import nearest

        near = nearest(driver, line.catalogue.names())
        line.warn(option, f"vmrun knows no driver '{driver}'" + (f"; the nearest is '{near}'" if near else ""), driver)
    entry: dict[str, Any] = {"id": str(given.pop("id"))} if "id" in given else {}
    entry["driver"] = driver
    for key, value in given.items():
        entry[key] = str(value) if key == "bus" else line.value(option, driver, key, value)
    if "id" in entry and any(entry["id"] == other.get("id") for other in line.devices):
        json = str(option.value).startswith("{")
        message = f"Duplicate device ID '{entry['id']}'" if json else f"Duplicate ID '{entry['id']}' for device"
        raise option.wrong(message, entry["id"])
    line.devices.append(entry)
    line.texts.append(option.text)
    if vlan is not None:
        line.vlan(number(option, "vlan", vlan), (option, "device", entry))


def global_(line: Line, option: Option) -> None:
    text = str(option.value)
    name, equals, value = text.partition("=")
    driver, dot, key = name.rpartition(".")
    if text.startswith("driver=") or ",value=" in text:
        given = settings(option)
        driver, key, value = (str(given.get(part, "")) for part in ("driver", "property", "value"))
    elif not equals or not dot:
        raise option.wrong("Invalid parameter; DRIVER.PROPERTY=VALUE is expected", text)
    if not driver or not key:
        raise option.wrong("Parameter 'driver' and 'property' are needed", text)
    line.named.add(driver)
    if value == "" and key.startswith("drive"):
        return  # an empty link is none
    if line.catalogue.driver(driver) is None:
        line.warn(option, f"vmrun knows no driver '{driver}'", driver)
        return
    line.globals.setdefault(driver, {})[key] = line.value(option, driver, key, value)


def set_(line: Line, option: Option) -> None:
    """GROUP.ID.ARG=VALUE, done after the options it is about."""
    name, equals, value = str(option.value).partition("=")
    parts = name.split(".", 2)
    if len(parts) != 3 or not equals:
        raise option.wrong(f'can\'t parse: "{option.value}"', str(option.value))
    group, id, key = parts
    tables: dict[str, dict[str, Any]] = {
        "drive": line.drives,
        "chardev": line.chardevs,
        "netdev": line.netdevs,
        "mon": line.monitors,
    }
    tables["device"] = {str(entry["id"]): entry for entry in line.devices if "id" in entry}
    if group not in tables:
        raise option.wrong(f"There is no option group '{group}'", group)
    if id not in tables[group]:
        raise option.wrong(f'there is no {group} "{id}" defined', id)
    entry = tables[group][id]
    entry[key] = line.value(option, str(entry.get("driver", "")), key, value)


def object_kinds() -> list[str]:
    """Those that can be made."""
    return sorted(load_catalogue().objects)


def _rules(given: dict[str, Any]) -> None:
    """rules.0.match and so on become a list."""
    found: dict[str, dict[str, Any]] = {}
    for name in [name for name in given if name.startswith("rules.")]:
        _, number, key = (name.split(".", 2) + [""])[:3]
        found.setdefault(number, {})[key] = given.pop(name)
    if found:
        given["rules"] = [found[number] for number in sorted(found, key=lambda text: (len(text), text))]


def object_(line: Line, option: Option) -> None:
    given = settings(option, "qom-type", json=True)
    if not given.get("qom-type"):
        raise option.wrong("Parameter 'qom-type' is missing")
    if str(given["qom-type"]).startswith("memory-backend-") and "id" in given and "size" in given:
        line.backends[str(given["id"])] = size(option, "size", given["size"])
    if str(given["qom-type"]) not in _OBJECTS:
        raise option.wrong(f"Parameter 'qom-type' does not accept value '{given['qom-type']}'", str(given["qom-type"]))
    if given["qom-type"] == "authz-list":
        _rules(given)
    if given["qom-type"] in line.catalogue.objects:
        line.run.setdefault("objects", []).append((option.shown(), dict(given)))
        line.sources[f"objects.{given.get('id')}"] = option
    else:
        line.no_equal(option, str(given["qom-type"]))


def add_fd(line: Line, option: Option) -> None:
    """A descriptor that the process was started with, for a set that /dev/fdset/N opens."""
    given = settings(option)
    for key in ("fd", "set"):
        if key not in given:
            raise option.wrong(f"{key} option is required and must be non-negative", key)
    fd = number(option, "fd", given["fd"])
    if fd < 3:
        raise option.wrong("fd cannot be a standard I/O stream", "fd")
    line.run.setdefault("fdsets", []).append([number(option, "set", given["set"]), fd, given.get("opaque")])


def config_file(line: Line, option: Option) -> list[Option]:
    """The options that a -readconfig stands for: the groups of QEMU's INI. LineError names the line."""
    path = str(option.value)
    if os.path.basename(path) in KNOWN_CONFIGS and not line.defaults:
        line.file.setdefault("include", []).append(os.path.basename(path))
        return []
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST + 1)
    except OSError as error:
        raise option.wrong(f"Cannot read config file {path}: {error.strerror}", path) from None
    if len(text) > _MOST:
        raise option.wrong(f"config file {path} is larger than 1 MiB", path)
    found: list[Option] = []
    parts: list[str] = []
    group = ""

    def end() -> None:
        if group:
            name = _AS_OPTION.get(group, group)
            found.append(Option(name, ",".join(parts), option.index, f"{option.text} (-{name} {','.join(parts)})"))

    for at, raw in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        row = raw.strip()
        if not row or row[0] == "#":
            continue
        if row[0] == "[" and row[-1] == "]":
            end()
            group, _, id = row[1:-1].strip().partition(" ")
            if group not in _GROUPS:
                raise LineError(f"{path}:{at}: There is no option group '{group}'", option.index)
            parts = [f"id={id.strip().strip(chr(34))}"] if id else []
            continue
        key, equals, value = (part.strip() for part in row.partition("="))
        if not equals or not group or len(value) < 2 or value[0] != '"' or value[-1] != '"':
            raise LineError(f"{path}:{at}: parse error", option.index)
        first = {"device": "driver", "chardev": "backend", "netdev": "type", "net": "type"}.get(group)
        body = value[1:-1].replace(",", ",,")
        parts.insert(0, body) if key == first else parts.append(f"{key}={body}")
    end()
    return found


def finish(line: Line) -> None:
    for option in line.given.get("set", ()):
        set_(line, option)


OPTIONS = (
    Opt("device", True, device, "a device: devices"),
    Opt("global", True, global_, "a property of every device of a driver: globals"),
    Opt("set", True, None, "change an option given before"),
    Opt("object", True, object_, "an object of the host's side"),
    Opt("add-fd", True, add_fd, "a descriptor for a set: /dev/fdset/N opens it"),
)
