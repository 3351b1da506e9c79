"""The object tree as QOM clients see it: paths, types, properties."""

from __future__ import annotations

import vmrun.backends.objects as objects
from vmrun.core.object import Device, Object
from vmrun.core.props import NAMING, props_of
from vmrun.core.userobject import UserObject
from vmrun.core.values import RANGES
from vmrun.errors import BuildError
from vmrun.machine.processor import Processor, numa_node
from vmrun.monitor.errors import QmpError, no_device
from vmrun.monitor.typetree import ABSTRACT, drivers, every

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# vmrun's property types in QOM's words
TYPES = {"size": "size", "enum": "str", "pci-addr": "int32", "mac": "str", "drive": "str", "chardev": "str"}
TYPES |= {"netdev": "str", "link": "str", "object": "str"}
_KIND = {bool: "bool", int: "int", str: "string", list: "X86CPUFeatureWordInfo"}
DEVICE = (("parent_bus", "link<bus>"), ("realized", "bool"), ("hotplugged", "bool"), ("hotpluggable", "bool"))
# what a machine tells beside its parts
MACHINE = {
    **{"usb": "bool", "graphics": "bool", "hpet": "bool", "acpi": "OnOffAuto", "smm": "OnOffAuto"},
    **{"vmport": "OnOffAuto", "mem-merge": "bool", "dump-guest-core": "bool", "kernel": "string"},
    **{"initrd": "string", "append": "string", "smp": "SMPConfiguration", "memory": "MemorySizeConfiguration"},
    **{"memory-backend": "link<memory-backend>", "rtc-time": "struct tm", "pit": "OnOffAuto"},
}
FEATURE_LEAVES = {
    **{(1, 0): ("edx", "ecx"), (7, 0): ("ebx", "ecx", "edx"), (7, 1): ("eax",), (6, 0): ("eax",)},
    **{(0xD, 1): ("eax",), (0x80000001, 0): ("edx", "ecx"), (0x80000007, 0): ("edx",), (0x80000008, 0): ("ebx",)},
    **{(0x8000000A, 0): ("edx",), (0x40000001, 0): ("eax", "edx")},
}
BUSES = {"I2C": "i2c-bus", "floppy": "floppy-bus"}  # kinds that are called otherwise here


class Bus(Object):
    """A bus as it is seen below the device that provides it."""

    def __init__(self, owner: Object, name: str, bus: Any) -> None:
        super().__init__(name)
        self.parent, self.bus = owner, bus
        self.driver = BUSES.get(bus.kind, bus.kind)


# Properties of a processor that clients ask for and nothing here depends on: as QEMU's processors begin.
_NOT_MODELLED = {
    **{name: True for name in ("kvm", "tcg-cpuid", "vmware-cpuid-freq", "fill-mtrr-mask", "check")},
    **{name: False for name in ("kvm-pv-enforce-cpuid", "start-powered-off", "enforce", "kvm-no-smi-migration")},
    **{name: 0 for name in ("die-id", "host-phys-bits-limit", "tsc-frequency", "ucode-rev")},
    **{"x-hv-max-vps": -1, "level-func7": 0, "memory": "/machine/unattached/system[0]"},
}


_HV_VALUES = ("hv-vendor-id", "hv-spinlocks")


class Tree:
    """The tree of one machine: /machine is its root object; /objects and /chardevs stand beside it."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine

    def tops(self) -> dict[str, Object]:
        """What stands in the root."""
        return {"objects": self.machine.board.objects, "machine": self.machine.root, "chardevs": self._chardevs()}

    def _chardevs(self) -> Object:
        top = Object("chardevs")
        for name, spec in self.machine.config["chardevs"].items():
            child = Object(name)
            child.driver = f"chardev-{spec['type']}"
            top.add_child(child)
        return top

    def resolve(self, path: str) -> Object | None:
        """An absolute path, or the end of one that fits exactly one object. None for the root. DeviceNotFound."""
        parts = [part for part in path.split("/") if part]
        if path.startswith("/"):
            if not parts:
                return None
            top = self.tops().get(parts[0])
            found = [self._follow(top, parts[1:]) if top is not None else None]
        else:
            tops = self.tops().values()
            found = [self._follow(node, parts) for top in tops for node in self._walk(top)] if parts else []
        hits = {node.path: node for node in found if node is not None}
        if len(hits) != 1:
            raise no_device(path)
        return hits.popitem()[1]

    def _below(self, node: Object) -> dict[str, Object]:
        """An object's children, and the buses of a device."""
        buses = node.buses if isinstance(node, Device) else {}
        return {**node.children, **{name: Bus(node, name, bus) for name, bus in buses.items()}}

    def _walk(self, node: Object) -> Iterator[Object]:
        yield node
        for child in self._below(node).values():
            yield from self._walk(child)

    def _follow(self, node: Object, parts: list[str]) -> Object | None:
        for part in parts:
            below = self._below(node).get(part) or self._numbered(node, part)
            if below is None and part == "virtio-backend" and "virtio-pci" in getattr(node, "parents", ()):
                continue  # QEMU's are two objects
            if below is None:
                return None
            node = below
        return node

    def _numbered(self, node: Object, part: str) -> Object | None:
        """/machine/unattached/device[N], as QEMU numbers what nobody named: the processors first."""
        if node is not self.machine.assembly.board_parts or part[:7] != "device[" or part[-1] != "]":
            return None
        every = sorted(node.children.values(), key=lambda child: not isinstance(child, Processor))
        number = part[7:-1]
        return every[int(number)] if number.isdecimal() and int(number) < len(every) else None

    # --- properties -----------------------------------------------------------------------------------------

    def properties(self, path: str) -> list[dict[str, Any]]:
        node = self.resolve(path)
        found = [{"name": "type", "type": "string"}]
        if node is None:
            return found + [{"name": name, "type": f"child<{self.type_of(top)}>"} for name, top in self.tops().items()]
        if node is self.machine.root:
            found += [{"name": name, "type": kind} for name, kind in MACHINE.items()]
        if isinstance(node, Device):
            found += [{"name": name, "type": kind} for name, kind in DEVICE]
            rows = [described(prop) for prop in declared(type(node))]
            more: dict[str, Any] = getattr(node, "qom_values", dict)()
            known = {row["name"] for row in rows}
            found += rows
            found += [
                {"name": name, "type": _KIND.get(type(value), "struct")}
                for name, value in more.items()
                if name not in known
            ]
        if isinstance(node, UserObject):
            found += [described(prop) for prop in declared(type(node))]
        if isinstance(node, Processor):
            values = {**self.features(), **self.processor(node)}
            found += [{"name": "parent_bus", "type": "link<bus>"}]
            found += [
                {"name": name, "type": "strList" if name == "unavailable-features" else _KIND[type(value)]}
                for name, value in values.items()
            ]
        if isinstance(node, Bus):
            found += [{"name": "realized", "type": "bool"}]
            found += [{"name": name, "type": f"link<{device.driver}>"} for name, device in self._plugged(node).items()]
        below = self._below(node).items()
        return found + [{"name": name, "type": f"child<{self.type_of(child)}>"} for name, child in below]

    def _plugged(self, node: Bus) -> dict[str, Device]:
        """The devices of a bus, by the names of its links."""
        found = [device for device in self.machine.devices.values() if device.parent_bus is node.bus]
        return {f"child[{n}]": device for n, device in enumerate(found)}

    def type_of(self, node: Object | None) -> str:
        if node is None:
            return "container"
        if node is self.machine.root:
            return f"{self.machine.config['machine']}-machine"
        return node.driver if node.driver != "object" else "container"

    def get(self, path: str, name: str) -> Any:
        node = self.resolve(path)
        if name == "type":
            return self.type_of(node)
        if node is None and name in self.tops():
            return f"/{name}"
        if node is self.machine.root and name in MACHINE:
            return self._machine(name)
        if node is not None and name in (below := self._below(node)):
            return below[name].path
        if isinstance(node, Bus):
            if name == "realized":
                return True
            if name in (plugged := self._plugged(node)):
                return plugged[name].path
        if isinstance(node, Processor):
            values = {**self.features(), **self.processor(node)}
            if name in values:
                return values[name]
            if name == "parent_bus":
                return ""
        if isinstance(node, UserObject):
            values = node.shown()
            if name in values:
                return "" if values[name] is None else values[name]
        if isinstance(node, Device):
            known = props_of(type(node))
            more: dict[str, Any] = getattr(node, "qom_values", dict)()  # what a device tells beside its properties
            if name in more:
                return more[name]
            if name in known and name != "id":
                return as_read(known[name].type, node.get_props()[name])
            bus = node.parent_bus
            fixed = {
                "parent_bus": "" if bus is None else f"{bus_owner(self.machine, bus)}/{bus.name}",
                "realized": node.realized,
                "hotplugged": node.hotplugged,
                "hotpluggable": node.hotpluggable,
            }
            if name in fixed:
                return fixed[name]
        raise QmpError(f"Property '{self.type_of(node)}.{name}' not found")

    def features(self) -> dict[str, Any]:
        """Every feature of the machine's processors by name, what identifies them, how they are set."""
        from vmrun.machine import cpuid

        cpus, accelerator = self.machine.config["cpus"], self.machine.accelerator
        host, kernel_apic = accelerator.supported_cpuid(), accelerator.has_local_apic
        found = cpuid.describe_whole(cpus, cpus["model-data"], host, kernel_apic=kernel_apic)
        return found | {name: found[of] for name, of in cpuid.features()["aliases"].items()}

    def processor(self, node: Processor) -> dict[str, Any]:
        from vmrun.config.cpumodels import PLANNED

        given = self.machine.config["cpus"].get("features", {})
        return {
            **{name: given.get(name, value) for name, value in _NOT_MODELLED.items()},
            **{name: False for name in sorted(PLANNED) if name.startswith("hv-") and name not in _HV_VALUES},
            "lapic": f"/machine/unattached/lapic[{node.index}]" if self.machine.accelerator.own_apic else "",
            "node-id": numa_node(node.index, self.machine.config).get("node-id", -1),
            **node.values,
            "hotpluggable": True,
            "filtered-features": self._filtered(),
            "feature-words": self._words(node.index),
        }

    def _filtered(self) -> list[dict[str, Any]]:
        """X86CPUFeatureWordInfo of what the processors were to have, and the accelerator has not."""
        from vmrun.machine import cpuid

        table = cpuid.features()
        words = dict.fromkeys((word for word in table["names"] if not word.startswith("msr.")), 0)
        for name in self.machine.missing_features:
            for word, bit in table["bits"].get(name, ()):
                if word in words:
                    words[word] |= 1 << bit
        rows = []
        for word, features in words.items():
            leaf, *index, register = word.split(".")
            row: dict[str, Any] = {"cpuid-input-eax": int(leaf, 16), "cpuid-register": register.upper()}
            row |= {"cpuid-input-ecx": int(index[0], 16)} if index else {}
            rows.append({**row, "features": features})
        return rows

    def _words(self, index: int) -> list[dict[str, Any]]:
        """X86CPUFeatureWordInfo of the leaves that a processor has."""
        entries = self.machine.cpuid.get(index, [])
        rows = []
        for entry in entries:
            if (entry["function"], entry["index"]) in FEATURE_LEAVES:
                for register in FEATURE_LEAVES[entry["function"], entry["index"]]:
                    row = {"cpuid-input-eax": entry["function"], "cpuid-register": register.upper()}
                    if entry["flags"] & 1:
                        row["cpuid-input-ecx"] = entry["index"]
                    rows.append({**row, "features": entry[register]})
        return rows

    def _machine(self, name: str) -> Any:
        config, board = self.machine.config, self.machine.board
        cpus = config["cpus"]
        if name == "smp":
            kept = {key: int(cpus.get(key, 1)) for key in ("sockets", "cores", "threads")}
            return {"cpus": len(board.processors), "dies": 1, **kept, "maxcpus": int(cpus["maxcpus"])}
        if name == "memory":
            return {"size": board.ram_size, "max-size": board.ram_size, "slots": 0}
        if name == "rtc-time":
            clock = next((device for device in board.devices.values() if device.driver == "mc146818rtc"), None)
            return clock_time(clock, board)
        if name == "memory-backend":
            return f"/objects/{config['memory-backend']}" if config.get("memory-backend") else ""
        text = {"kernel": "kernel", "initrd": "initrd", "append": "append"}
        if name in text:
            return str(config.get(text[name]) or "")
        values = {"usb": False, "graphics": bool(board.consoles), "hpet": "hpet" in self._drivers()}
        return values.get(name, MACHINE[name] == "bool")

    def _drivers(self) -> set[str]:
        return {device.driver for device in self.machine.devices.values()}

    def set(self, path: str, name: str, value: Any) -> None:
        """No property of a device that the guest sees may change; what can is set by commands of its own."""
        node = self.resolve(path)
        self.get(path, name)
        if isinstance(node, UserObject) and name in node.changeable:
            try:
                node.set_props({name: value})
            except BuildError:
                raise QmpError(f"Invalid parameter type for '{name}'") from None
            node.changed(name)
            return
        changes = getattr(node, "qom_changes", None)  # name → function: what a device lets be changed while it runs
        if changes is not None and name in changes():
            try:
                changes()[name](value)
            except BuildError as error:
                raise QmpError(error.problems[0].message) from None
            return
        if isinstance(node, Device) and name in props_of(type(node)):
            raise QmpError(
                f"Attempt to set property '{name}' on {_label(node)} (type '{node.driver}') after it was realized"
            )
        raise QmpError("Insufficient permission to perform this operation")


def as_read(kind: str, value: Any) -> Any:
    """A property's value as QOM has it: slot and function are one number, numbers that nobody gave are -1."""
    if kind == "pci-addr" and value:
        slot, _, function = str(value).partition(".")
        return int(slot, 16) << 3 | int(function or "0", 16)
    if value is not None:
        return value
    if kind in ("pci-addr", "int32"):
        return -1
    return 0xFFFFFFFF if kind in RANGES or kind == "size" else ""


def clock_time(clock: Any, board: Any) -> dict[str, int]:
    """The date and time of the guest's clock chip, as C's struct tm."""
    import time

    moment = time.gmtime(clock.seconds() if clock is not None else None)
    return {
        **{"tm_year": moment.tm_year - 1900, "tm_mon": moment.tm_mon - 1, "tm_mday": moment.tm_mday},
        **{"tm_hour": moment.tm_hour, "tm_min": moment.tm_min, "tm_sec": moment.tm_sec},
    }


def _label(node: Device) -> str:
    anonymous = node.parent is None or node.parent.name != "peripheral"
    return "anonymous device" if anonymous else f"device '{node.name}'"


def bus_owner(machine: Any, bus: Any) -> str:
    return next((d.path for d in machine.devices.values() if bus in d.buses.values()), "")


def declared(cls: type) -> list[Any]:
    return [prop for name, prop in props_of(cls).items() if name != "id"]


def described(prop: Any) -> dict[str, Any]:
    """ObjectPropertyInfo of a Prop, as an object has it."""
    return {key: value for key, value in describe(prop).items() if key != "default-value"}


def describe(prop: Any) -> dict[str, Any]:
    """ObjectPropertyInfo of a Prop, as a type has it."""
    row = {"name": prop.name, "type": TYPES.get(prop.type, prop.type)}
    if prop.doc:
        row["description"] = prop.doc
    if prop.default is not None and prop.type not in NAMING:
        row["default-value"] = prop.default
    return row


# --- types -------------------------------------------------------------------------------------------------


def type_properties(name: str) -> list[dict[str, Any]]:
    """Properties of a driver that a machine file or a command line may set. DeviceNotFound."""
    from vmrun.core import registry

    row = drivers().get(name)
    if row is None:
        if name in every():
            raise QmpError("Parameter 'typename' expects a non-abstract device type")
        raise no_device(name)
    return [describe(prop) for prop in declared(registry.find(name, row["module"]))]


def help_of(driver: str) -> str:
    """What `-device driver,help` and `device_add driver,help` print. DeviceNotFound."""
    lines = [f"{driver} options:"]
    for row in sorted(type_properties(driver), key=lambda row: str(row["name"])):
        head = f"  {row['name']}=<{row['type']}>"
        text = row.get("description", "")
        if "default-value" in row:
            value = row["default-value"]
            shown = str(value).lower() if isinstance(value, bool) else value if value != "" else '""'
            text += f" (default: {shown})"
        lines.append(f"{head:<24} - {text}" if text else head)
    return "\n".join(lines) + "\n"


def all_properties(name: str) -> list[dict[str, Any]]:
    """Those that qom-list-properties tells: of devices, objects and machines. DeviceNotFound."""
    first = [{"name": "type", "type": "string"}]
    fixed = first + [{"name": word, "type": kind} for word, kind in DEVICE]
    if name in ABSTRACT:
        return fixed if "device" in name else first
    if name in objects.KINDS:
        rows = [described(prop) for prop in declared(objects.kind_class(name))]
        return first + [{"name": row["name"], "type": row["type"]} for row in rows]
    if name in drivers():
        rows = type_properties(name)
        return fixed + [{key: value for key, value in row.items() if key != "default-value"} for row in rows]
    if name in every():
        if name.endswith("-machine"):
            return first + [{"name": word, "type": kind} for word, kind in MACHINE.items() if word != "rtc-time"]
        return fixed if name.endswith("-cpu") else first
    raise QmpError(f"Class '{name}' not found", "DeviceNotFound")
