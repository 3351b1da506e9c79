"""What reading a command line gathers, before it is a machine file."""

from __future__ import annotations

from vmrun.config.catalogue import load_catalogue
from vmrun.config.importers import qemuopts
from vmrun.config.scalar import parse_pci_addr, parse_size, pci_addr_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.config.catalogue import Catalogue, Driver
    from vmrun.config.importers.qemuopts import Option
    from vmrun.errors import Problem

    Handler = Callable[["Line", Option], None]
_BACKENDS = ("drive", "chardev", "netdev")


class Opt:
    """One row of the option table. handler None: taken and without effect here, `help` says why."""

    __slots__ = ("handler", "has_arg", "help", "name")

    def __init__(self, name: str, has_arg: bool, handler: Handler | None, help: str) -> None:
        self.name, self.has_arg, self.handler, self.help = name, has_arg, handler, help


class Line:
    """A command line while it is read. run is what the process shall do and no machine file says; texts has the
    option that each device came from, in the order of devices.
    """

    def __init__(self, defaults: bool) -> None:
        self.defaults = defaults
        self.catalogue: Catalogue = load_catalogue()
        self.file: dict[str, Any] = {}
        self.drives: dict[str, dict[str, Any]] = {}
        self.chardevs: dict[str, dict[str, Any]] = {}
        self.netdevs: dict[str, dict[str, Any]] = {}
        self.monitors: dict[str, dict[str, Any]] = {}
        self.globals: dict[str, dict[str, Any]] = {}
        self.devices: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.early: list[tuple[dict[str, Any], str]] = []  # devices that options other than -device make
        self.run: dict[str, Any] = {}
        self.warnings: list[Problem] = []
        self.given: dict[str, list[Option]] = {}
        self.blockdevs: dict[str, tuple[Option, dict[str, Any]]] = {}
        self.accel: list[str] = []
        self.elsewhere: list[tuple[Option, str]] = []  # accelerators that only other host systems have
        self.muxes: dict[str, str] = {}  # -chardev mux: its id → the chardev that is shared
        self.named: set[str] = set()  # drivers that -global names
        self.skipped: list[str] = []  # what QEMU adds by default and this reading leaves out
        self.sources: dict[str, Option] = {}  # 'drives.ID', 'chardevs.ID' and so on: the option it came from
        self.nodes: dict[int, dict[str, Any]] = {}  # NUMA nodes by id
        self.memory_of: dict[int, tuple[Option, str]] = {}  # node → the memory backend that it is made of
        self.backends: dict[str, int] = {}  # bytes of memory backends
        self.distances: dict[tuple[int, int], int] = {}
        self.places: list[tuple[Option, int, dict[str, int]]] = []  # -numa cpu: node, and where its processors are
        self.processors: list[tuple[Option, str, dict[str, Any]]] = []  # -device MODEL-x86_64-cpu, with what it gives
        self.lost: list[tuple[Option, str]] = []  # what a guest or a client could tell and no machine file says

    @property
    def old(self) -> bool:
        """Whether the machine is one of RHEL 6's qemu-kvm, which has other defaults."""
        return str(self.file.get("machine", "")).startswith("rhel6")

    def default(self, name: str) -> str:
        """A default of the machine's type; '' when the type is not known."""
        from vmrun.config.machinetypes import load_type, newest_type
        from vmrun.errors import ConfigError

        try:
            return str(load_type(str(self.file.get("machine") or newest_type()), ".").default(name) or "")
        except ConfigError:
            return ""

    def splits_at_whole_gib(self) -> bool:
        """Whether the type cuts RAM that reaches the PCI hole at 3 GiB, not where the hole begins."""
        from vmrun.config.machinetypes import load_type, newest_type
        from vmrun.errors import ConfigError

        try:
            table = load_type(str(self.file.get("machine") or newest_type()), ".").section("memory-map")
        except ConfigError:
            return False
        return "low-ram-split" in table and parse_size(table["low-ram-split"].value) == 3 << 30

    def prefers_cores(self) -> bool:
        """Whether a count of processors is as many cores, not sockets."""
        from vmrun.config.machinetypes import load_type, newest_type
        from vmrun.errors import ConfigError

        try:
            table = load_type(str(self.file.get("machine") or newest_type()), ".").section("cpus")
        except ConfigError:
            return False
        return "topology-fill" in table and table["topology-fill"].value == "cores"

    def has(self, name: str) -> bool:
        return name in self.given

    def warn(self, option: Option, message: str, part: str = "") -> None:
        self.warnings.append(option.warning(message, part))

    def no_equal(self, option: Option, part: str = "", host: bool = False) -> None:
        """host: it is only about how the host does its work, and no guest can tell."""
        what = f"'{part}' has" if part else "this has"
        if host:
            self.warn(option, f"{what} no effect here: it is about how the host does its work", part)
            return
        self.lost.append((option, part))
        self.warn(option, f"{what} no equal in a machine file", part)

    def has_mac(self, driver: str) -> bool:
        """Whether devices of that driver are network cards."""
        entry: Driver | None = self.catalogue.driver(driver)
        return entry is not None and "mac" in entry.props

    def drivers(self) -> set[str]:
        return {str(device["driver"]) for device in self.devices} | {str(entry["driver"]) for entry, _ in self.early}

    def spoken_for(self) -> set[str]:
        """Drivers that keep QEMU from adding a default device of their kind."""
        return self.drivers() | self.named

    def add(self, option: Option | None, device: dict[str, Any]) -> None:
        """A device that an option other than -device makes: QEMU creates it before those."""
        self.early.append((device, option.text if option is not None else ""))

    def put(self, option: Option, section: str, id: str, spec: dict[str, Any]) -> str:
        """A backend under its id. LineError when the id is taken."""
        table: dict[str, dict[str, Any]] = getattr(self, section)
        if id in table:
            raise option.wrong(f"Duplicate ID '{id}' for {section[:-1]}", id)
        table[id] = spec
        self.sources[f"{section}.{id}"] = option
        return id

    def vlan(self, number: int, member: tuple[Option, str, dict[str, Any]]) -> None:
        """A card (nic, device) or a network of -net's VLAN of that number."""
        self.run.setdefault("vlans", {}).setdefault(number, []).append(member)

    def value(self, option: Option, driver: str, key: str, given: Any) -> Any:
        """A property's value in a machine file, by the property's type where the driver is known."""
        entry: Driver | None = self.catalogue.driver(driver)
        prop = entry.props.get(key) if entry is not None else None
        kind = str(prop["type"]) if prop is not None else ""
        if key == "addr" and prop is None:
            place = parse_pci_addr(str(given))
            if place is None and isinstance(given, int):
                place = (given >> 3, given & 7)
            if place is None and entry is not None and entry.bus == "PCI":
                raise option.wrong(f"Property '{driver}.addr' doesn't take value '{given}'", str(given))
            return pci_addr_text(*place) if place is not None else str(given)
        if not isinstance(given, str):
            return given
        if kind == "bool":
            return qemuopts.boolean(option, key, given)
        if kind == "size":
            return qemuopts.size(option, key, given)
        if kind.startswith(("uint", "int")):
            return qemuopts.number(option, key, given)
        if kind in _BACKENDS or kind in ("mac", "enum", "link", "str"):
            return given
        return guess(given)


def guess(text: Any) -> Any:
    """What a value most likely is when no table tells: a number, on or off, else text."""
    if text in ("on", "off"):
        return text == "on"
    if (
        isinstance(text, str)
        and text.isascii()
        and text.isdecimal()
        and len(text) < 19
        and (text[0] != "0" or text == "0")
    ):
        return int(text)
    return text
