"""MachineSpec: a machine file as written, split into its parts, before anything has been filled in."""

from __future__ import annotations

from vmrun.config.node import Node
from vmrun.errors import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import MachineData

BOARD, FILE, SHORT = "board", "file", "short form"
_STRUCTURE = ("id", "driver", "in-kernel", "bus", "addr", "provides")


class Frozen:
    """Base of classes whose attributes are set once, by their constructor."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} does not change")


class DeviceSpec(Frozen):
    """One device as written. props are its other keys; origin says who named it: the board, the file, a
    short form.
    """

    __slots__ = ("addr", "bus", "driver", "id", "in_kernel", "node", "origin", "path", "props", "provides")
    id: str
    driver: Node | None
    in_kernel: str
    bus: Node | None
    addr: Node | None
    provides: dict[str, str]
    props: dict[str, Node]
    node: Node
    path: str
    origin: str

    def __init__(self, node: Node, path: str, origin: str, id: str = "") -> None:
        put = object.__setattr__
        fields: dict[str, Node] = node.value
        given = fields.get("id")
        kernel = fields.get("in-kernel")
        provides = fields.get("provides")
        put(self, "id", str(given.value) if given is not None else id)
        put(self, "driver", fields.get("driver"))
        put(self, "in_kernel", str(kernel.value) if kernel is not None else "")
        put(self, "bus", fields.get("bus"))
        put(self, "addr", fields.get("addr"))
        put(
            self,
            "provides",
            {name: str(kind.value) for name, kind in provides.value.items()} if provides is not None else {},
        )
        put(self, "props", {key: child for key, child in fields.items() if key not in _STRUCTURE})
        put(self, "node", node)
        put(self, "path", path)
        put(self, "origin", origin)

    def with_addr(self) -> DeviceSpec:
        """The same of a driver whose `addr` is an ordinary property."""
        made = DeviceSpec(self.node, self.path, self.origin, self.id)
        if self.addr is not None:
            object.__setattr__(made, "addr", None)
            object.__setattr__(made, "props", {**self.props, "addr": self.addr})
        return made

    @property
    def place(self) -> Place:
        return self.node.place

    def place_of(self, prop: str) -> Place:
        """Where a property is given, or the device when it is not."""
        node = self.props.get(prop)
        return node.place if node is not None else self.node.place


class MachineSpec(Frozen):
    """A machine file as written: its sections by name, and its lists and mappings ready to walk."""

    __slots__ = ("chardevs", "devices", "drives", "globals", "monitors", "netdevs", "root", "type_name")
    root: Node
    type_name: Node
    devices: tuple[DeviceSpec, ...]
    drives: dict[str, Node]
    chardevs: dict[str, Node]
    netdevs: dict[str, Node]
    monitors: dict[str, Node]
    globals: dict[str, Node]

    def __init__(self, root: Node) -> None:
        put = object.__setattr__
        put(self, "root", root)
        put(self, "type_name", root.value["machine"])
        devices = root.get("devices")
        put(
            self,
            "devices",
            tuple(
                DeviceSpec(node, f"devices[{index}]", FILE)
                for index, node in enumerate(devices.value if devices is not None else ())
            ),
        )
        for name in ("drives", "chardevs", "netdevs", "monitors", "globals"):
            section = root.get(name)
            put(self, name, dict(section.value) if section is not None else {})

    def get(self, *path: str) -> Node | None:
        """The node under a path of keys; None when any step is absent."""
        node: Node | None = self.root
        for key in path:
            node = node.get(key) if node is not None else None
        return node

    def value(self, *path: str) -> Any:
        """The bare value under a path of keys; None when absent."""
        node = self.get(*path)
        return node.value if node is not None else None


class ResolvedMachine(Frozen):
    """A machine with nothing left open: what `vmrun resolve` prints and the only thing the builder reads.

    data is plain (JSON types only) and must not be changed; places maps paths such as 'devices.com1.iobase'
    to the (file, line, column) that said so; warnings are the problems that do not stop a machine.
    """

    __slots__ = ("data", "files", "missing", "places", "warnings")
    data: MachineData
    places: dict[str, tuple[str, int, int]]
    warnings: tuple[Any, ...]
    files: tuple[str, ...]
    missing: tuple[str, ...]

    def __init__(
        self,
        data: MachineData,
        places: dict[str, tuple[str, int, int]] | None = None,
        warnings: tuple[Any, ...] = (),
        files: tuple[str, ...] = (),
        missing: tuple[str, ...] = (),
    ) -> None:
        put = object.__setattr__
        put(self, "data", data)
        put(self, "places", places or {})
        put(self, "warnings", warnings)
        put(self, "files", files)
        put(self, "missing", missing)

    def __getitem__(self, key: str) -> Any:
        return self.to_dict()[key]

    @property
    def name(self) -> str:
        return str(self.data["name"])

    def place(self, *path: str) -> Place | None:
        """Where the deepest known part of a path was written, or else `machine`; None when no file said it."""
        steps = list(path)
        while steps:
            found = self.places.get(".".join(steps))
            if found is not None:
                return Place(*found)
            steps.pop()
        type_name = self.places.get("machine")
        return Place(*type_name) if type_name is not None else None

    def to_dict(self) -> dict[str, Any]:
        """The plain form (JSON types)."""
        return {**self.data}

    @classmethod
    def from_dict(cls, data: MachineData) -> ResolvedMachine:
        return cls(data)
