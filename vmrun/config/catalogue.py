"""What drivers there are: those that vmrun models (generated from the code) and those it does not model yet.

schema/devices.json comes from the device registry, schema/planned.json is kept by hand in the same form,
and schema/backends.json has the host's side: drives, chardevs, netdevs. config knows devices by these
tables alone.

A driver's resources: ports are [base, length], [base, length, offset] or [base, length, offset, condition],
where base and length are numbers or names of properties, and the ports are claimed only if the property
`condition` is true; irqs and dmas are numbers or names of properties. Its index ({prop, sets}) numbers ports
that come in a row (COM1, COM2, …): sets gives for each of some properties the values by index.
"""

from __future__ import annotations

import os

from vmrun.config.data import data_dir
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Compat tables name classes of devices too; these are the classes that every device of a bus belongs to.
_BUS_CLASSES = {"PCI": ("PCI", "pci-device"), "USB": ("USB", "usb-device"), "ISA": ("isa-device",)}
STRUCTURE = frozenset(("id", "driver", "bus", "addr", "in-kernel", "provides"))


def _is_property(prop: dict[str, Any]) -> bool:
    """Not part of where a device is; a memory module's `addr` is no place on a bus."""
    return prop["name"] not in STRUCTURE or (prop["name"] == "addr" and prop["type"] == "uint64")


class Driver:
    """One driver: its bus (None: on no bus), what buses it provides, and its properties by name."""

    __slots__ = (
        "bus",
        "classes",
        "data",
        "description",
        "index",
        "name",
        "plan",
        "planned",
        "props",
        "provides",
        "resources",
        "user_creatable",
    )

    def __init__(self, name: str, data: dict[str, Any], planned: bool) -> None:
        self.name = name
        self.data = data
        self.planned = planned
        self.plan: str = data.get("plan", "")  # the part of docs/planned.md that says what becomes of it
        self.bus: str | None = data.get("bus")
        self.description: str = data.get("description", "")
        self.provides: tuple[str, ...] = tuple(data.get("provides") or ())
        self.props: dict[str, dict[str, Any]] = {
            prop["name"]: prop for prop in data.get("props", ()) if _is_property(prop)
        }
        self.resources: dict[str, Any] = data.get("resources") or {}
        self.index: dict[str, Any] | None = data.get("index") or None
        self.user_creatable = bool(data.get("user_creatable", True))  # False: only boards have it
        self.classes: tuple[str, ...] = (
            *_BUS_CLASSES.get(self.bus or "", ()),
            *(data.get("parents") or ()),
            name,
        )


    def buses(self, id: str) -> dict[str, str]:
        """name → kind of the buses that a device called `id` provides, as QEMU names them: a bridge's PCI bus and an
        NVMe controller's have the device's own name.
        """
        return {id if kind in ("PCI", "nvme-bus") else f"{id}.{n}": kind for n, kind in enumerate(self.provides)}


class Catalogue:
    """Drivers and backends by name. files lists what was read, for the cache."""

    def __init__(self, devices: dict[str, Any], planned: dict[str, Any] | None, backends: dict[str, Any]) -> None:
        self._devices = devices
        self._planned = planned
        self._objects: dict[str, Any] | None = None
        self._drivers: dict[str, Driver] = {}
        self.chardevs: dict[str, Any] = backends["chardevs"]
        self.netdevs: dict[str, Any] = backends["netdevs"]
        self.drives: dict[str, Any] = backends["drives"]
        self.files: list[str] = []

    @property
    def planned(self) -> dict[str, Any]:
        """Drivers that QEMU has and vmrun does not model yet; read only when something asks for one."""
        if self._planned is None:
            self._planned = self._read("planned.json")
        return self._planned

    @property
    def objects(self) -> dict[str, Any]:
        """Kinds of the host's objects → their properties; read only when a machine has some."""
        if self._objects is None:
            self._objects = self._read("objects.json")
        return self._objects

    def driver(self, name: str) -> Driver | None:
        """The driver of that name, modelled or planned; None when nobody knows it."""
        found = self._drivers.get(name)
        if found is None:
            if name in self._devices:
                found = Driver(name, self._devices[name], False)
            elif name in self.planned:
                found = Driver(name, self.planned[name], True)
            else:
                return None
            self._drivers[name] = found
        return found

    def modelled(self, name: str) -> Driver | None:
        """The driver when vmrun models it; never reads the planned ones."""
        return self.driver(name) if name in self._devices else None

    def names(self) -> list[str]:
        """Every driver name, sorted, modelled and planned."""
        return sorted({*self._devices, *self.planned})

    def modelled_names(self) -> list[str]:
        return sorted(self._devices)

    def names_of_drives(self) -> set[str]:
        return {prop["name"] for prop in self.drives["props"]} - self.planned_of_drives()

    def planned_of_drives(self) -> set[str]:
        """A drive's options that are not modelled yet."""
        return {prop["name"] for prop in self.drives["props"] if prop.get("planned")}

    def choices_of_drives(self, name: str) -> list[str]:
        return next((prop.get("choices", []) for prop in self.drives["props"] if prop["name"] == name), [])

    def _read(self, name: str) -> Any:
        path = os.path.join(data_dir("schema"), name)
        self.files.append(path)
        return read_json(path)


_kept: dict[tuple[object, ...], Catalogue] = {}  # the one that was read last, for who resolves many machines


def load_catalogue(devices: str = "") -> Catalogue:
    """The installed catalogue, or one with another devices.json. Raises BuildError when the installation
    lacks it.
    """
    directory = data_dir("schema")
    path = devices or os.path.join(directory, "devices.json")
    backends = os.path.join(directory, "backends.json")
    stamp = (path, *_stamp(path), *_stamp(backends))
    kept = _kept.get(stamp)
    if kept is not None:
        return kept
    catalogue = Catalogue(read_json(path), None, read_json(backends))
    catalogue.files += [path, backends]
    _kept.clear()
    _kept[stamp] = catalogue
    return catalogue


def device_rows() -> dict[str, Any]:
    """The rows of what vmrun models, as the code has them."""
    rows: dict[str, Any] = read_json(os.path.join(data_dir("schema"), "devices.json"))
    return rows


def _stamp(path: str) -> tuple[int, int]:
    try:
        info = os.stat(path)
    except OSError:
        return 0, 0
    return info.st_mtime_ns, info.st_size


def read_json(path: str) -> Any:
    """A data file of our own; BuildError when the installation is damaged."""
    from vmrun.config.kept import read_own

    try:
        return read_own(path)
    except (OSError, ValueError) as error:
        raise BuildError(
            f"vmrun's own data file '{path}' cannot be read: {error}",
            code="VR0901",
            remedy="reinstall vmrun; in a source tree, `make schema` writes it",
        ) from None
