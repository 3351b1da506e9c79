"""What `info …` shows, in QEMU's form as far as programs read it."""

from __future__ import annotations

from vmrun.core.interfaces import PciFunction
from vmrun.monitor import hmp_machine, hmp_more, info_more
from vmrun.monitor.commands.chardevs import chardevs
from vmrun.monitor.commands.machine import cpus, uuid
from vmrun.monitor.commands.pci import buses, class_name, function, functions
from vmrun.monitor.errors import QmpError
from vmrun.monitor.hmp_args import Given
from vmrun.monitor.hmp_line import Line, by_name
from vmrun.monitor.qom import Tree, declared
from vmrun.monitor.registers import registers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def _status(machine: Any, words: Given, cpu: int) -> str:
    if machine.state == "running":
        return "VM status: running\n"
    return "VM status: paused" + ("" if machine.state == "paused" else f" ({machine.state})") + "\n"


def _name(machine: Any, words: Given, cpu: int) -> str:
    return f"{machine.name}\n" if machine.config.get("name") else ""


def _uuid(machine: Any, words: Given, cpu: int) -> str:
    return f"{uuid(machine)}\n"


def _version(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.monitor.commands.introspect import version

    found = version()
    number = "{major}.{minor}.{micro}".format(**found["qemu"])
    return f"{number}{found['package']}\n"


def _kvm(machine: Any, words: Given, cpu: int) -> str:
    return f"kvm support: {'enabled' if machine.accelerator.name == 'kvm' else 'disabled'}\n"


def _cpus(machine: Any, words: Given, cpu: int) -> str:
    lines = (f"{'*' if row['cpu-index'] == cpu else ' '} CPU #{row['cpu-index']}: thread_id={row['thread-id']}"
             for row in cpus(machine))
    return "".join(f"{line}\n" for line in lines)


def _chardevs(machine: Any, words: Given, cpu: int) -> str:
    return "".join(f"{row['label']}: filename={row['filename']}\n" for row in chardevs(machine))


# --- trees --------------------------------------------------------------------------------------------------


def _qom_tree(machine: Any, words: Given, cpu: int) -> str:
    tree = Tree(machine)
    try:
        top = tree.resolve(words[0]) if words else machine.root
    except QmpError:
        return f"Path '{words[0]}' could not be resolved.\n"
    lines: list[str] = []

    def walk(node: Any, depth: int) -> None:
        lines.append(f"{'  ' * depth}/{node.name} ({tree.type_of(node)})\n")
        for name in sorted(node.children):
            walk(node.children[name], depth + 1)

    if top is None:
        lines.append("/ (container)\n")
        walk(machine.root, 1)
    else:
        walk(top, 0)
    return "".join(lines)


def _qtree(machine: Any, words: Given, cpu: int) -> str:
    lines = ["bus: main-system-bus\n", "  type System\n"]
    for device in reversed(list(machine.devices.values())):
        if device.parent_bus is None:
            _device(device, 1, lines)
    return "".join(lines)


def _device(device: Any, depth: int, lines: list[str]) -> None:
    pad = "  " * depth
    id = device.name if device.parent is not None and device.parent.name == "peripheral" else ""
    lines.append(f'{pad}dev: {device.driver}, id "{id}"\n')
    pad += "  "
    values = device.get_props()
    for prop in declared(type(device)):
        lines.append(f"{pad}{prop.name} = {_value(prop, values[prop.name])}\n")
    if isinstance(device, PciFunction):
        row = function(device, 0)
        ids, kind = row["id"], row["class_info"]
        lines.append(
            f"{pad}class {class_name(kind)}, addr 00:{row['slot']:02x}.{row['function']}"
            f", pci id {ids['vendor']:04x}:{ids['device']:04x}"
            f" (sub {ids.get('subsystem-vendor', 0):04x}:{ids.get('subsystem', 0):04x})\n"
        )
        for region in row["regions"]:
            kind_name = "i/o" if region["type"] == "io" else "mem"
            first = region["address"] & 0xFFFFFFFFFFFFFFFF
            last = (first + region["size"] - 1) & 0xFFFFFFFFFFFFFFFF
            lines.append(f"{pad}bar {region['bar']}: {kind_name} at 0x{first:x} [0x{last:x}]\n")
    for name, bus in device.buses.items():
        lines += [f"{pad}bus: {name}\n", f"{pad}  type {'i2c-bus' if bus.kind == 'I2C' else bus.kind}\n"]
        for child in reversed(bus.devices):
            _device(child, depth + 2, lines)


def _value(prop: Any, value: Any) -> str:
    if value is None:
        return '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    if prop.type == "size":
        return f"{value} ({_size(value)})"
    if isinstance(value, int):
        return f"{value} (0x{value & 0xFFFFFFFFFFFFFFFF:x})"
    return str(value) if prop.type == "pci-addr" else f'"{value}"'


def _size(value: int) -> str:
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = min(max(value.bit_length() - 1, 0) // 10, 6)
    return f"{value / (1 << 10 * power):.3g} {units[power]}"


def _numa(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.core.interfaces import MemoryModule
    from vmrun.machine.processor import Processor

    nodes = machine.config.get("numa") or ()
    there = {node.index for node in machine.root.walk() if isinstance(node, Processor)}
    modules = [device for device in machine.devices.values() if isinstance(device, MemoryModule)]
    lines = [f"{len(nodes)} nodes\n"]
    for n, node in enumerate(nodes):
        lines.append(f"node {n} cpus:{''.join(f' {index}' for index in node['cpus'] if index in there)}\n")
        plugged = sum(module.size for module in modules if module.node == n)
        lines.append(f"node {n} size: {int(node['memory']) + plugged >> 20} MB\n")
        lines.append(f"node {n} plugged: {plugged >> 20} MB\n")
    return "".join(lines)


def _mtree(machine: Any, words: Given, cpu: int) -> str:
    flat, all_ = "f" in words.flags, "D" in words.flags
    for flag, what in (("o", "owners of regions"), ("d", "dispatch tables")):
        if flag in words.flags and (flat or flag == "o"):
            raise QmpError(f"info mtree -{flag}: {what} are not modelled")
    lines: list[str] = []
    for number, space in enumerate((machine.board.memory, machine.board.io)):
        title = "I/O" if space.name == "I/O" or number else "memory"
        if flat:
            lines += [f"FlatView #{number}\n", f' AS "{title}", root: {space.root.name}\n']
            lines.append(f" Root memory region: {space.root.name}\n")
            lines += [f"  {line}\n" for line in _flat(space)]
        else:
            lines.append(f"address-space: {title}\n")
            lines += [f"{line}\n" for line in _regions(space.root, 0, 1, all_)]
        lines.append("\n")
    return "".join(lines)


def _flat(space: Any) -> Iterator[str]:
    for piece in space.flat:
        region = piece.region
        kind = "rom" if piece.readonly and region.kind_name == "ram" else _kind(region)
        tail = f" @{piece.offset:016x}" if piece.offset else ""
        last = piece.start + piece.size - 1
        yield f"{piece.start:016x}-{last:016x} (prio {region.priority}, {kind}): {region.name}{tail}"


def _regions(region: Any, base: int, depth: int, all_: bool) -> Iterator[str]:
    """`all_`: those too that are switched off."""
    last = (base + region.size - 1) & 0xFFFFFFFFFFFFFFFF
    off = "" if region.enabled else " [disabled]"
    if not region.enabled and not all_:
        pass
    elif region.target is not None:
        end = region.offset + region.size - 1
        what = f"alias {region.name} @{region.target.name} {region.offset:016x}-{end:016x}"
        yield f"{'  ' * depth}{base:016x}-{last:016x} (prio {region.priority}, {_kind(region.target)}): {what}{off}"
    else:
        yield f"{'  ' * depth}{base:016x}-{last:016x} (prio {region.priority}, {_kind(region)}): {region.name}{off}"
    for child in sorted(region.children, key=lambda r: (r.addr, -r.priority)):
        yield from _regions(child, base + child.addr, depth + 1, all_)


def _kind(region: Any) -> str:
    return {"ram": "ram", "rom": "rom", "rom-device": "romd"}.get(region.kind_name, "i/o")


def _pci(machine: Any, words: Given, cpu: int) -> str:
    lines: list[str] = []
    with machine.board.lock:
        for bus in buses(machine):
            for device in functions(bus):
                lines += _function(function(device, 0))
    return "".join(f"{line}\n" for line in lines)


def _function(row: dict[str, Any]) -> Iterator[str]:
    ids, kind = row["id"], row["class_info"]
    yield f"  Bus {row['bus']:2}, device {row['slot']:3}, function {row['function']}:"
    yield f"    {class_name(kind)}: PCI device {ids['vendor']:04x}:{ids['device']:04x}"
    if "subsystem" in ids:
        yield f"      PCI subsystem {ids['subsystem-vendor']:04x}:{ids['subsystem']:04x}"
    if row["irq_pin"]:
        yield f"      IRQ {row['irq']}, pin {chr(ord('A') + row['irq_pin'] - 1)}"
    bridge = row.get("pci_bridge")
    if bridge is not None:
        yield from _bridge(bridge["bus"])
    for region in row["regions"]:
        first = region["address"] & 0xFFFFFFFFFFFFFFFF
        last = (first + region["size"] - 1) & 0xFFFFFFFFFFFFFFFF
        if region["type"] == "io":
            yield f"      BAR{region['bar']}: I/O at 0x{first & 0xFFFFFFFFFFFFFFFF:04x} [0x{last:04x}]."
        else:
            bits = 64 if region["mem_type_64"] else 32
            pref = " prefetchable" if region["prefetch"] else ""
            yield f"      BAR{region['bar']}: {bits} bit{pref} memory at 0x{first:08x} [0x{last:08x}]."
    yield f'      id "{row["qdev_id"]}"'
    for behind in bridge.get("devices", ()) if bridge is not None else ():
        yield from _function(behind)


def _bridge(bus: dict[str, Any]) -> Iterator[str]:
    yield f"      BUS {bus['number']}."
    yield f"      secondary bus {bus['secondary']}."
    yield f"      subordinate bus {bus['subordinate']}."
    for name, key, digits in (("IO", "io", 4), ("memory", "memory", 8), ("prefetchable memory", "prefetchable", 8)):
        span = bus[f"{key}_range"]
        yield f"      {name} range [0x{span['base']:0{digits}x}, 0x{span['limit']:0{digits}x}]"


# --- processors ---------------------------------------------------------------------------------------------

def _mice(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.monitor.commands.remote import query_mice

    found = query_mice(_Asks(machine))
    if not found:
        return "No mouse devices connected\n"
    return "".join(
        f"{'*' if mouse['current'] else ' '} Mouse #{mouse['index']}: {mouse['name']}"
        f"{' (absolute)' if mouse['absolute'] else ''}\n"
        for mouse in found
    )


def _network(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.machine import network

    return network.text(machine)


def _usernet(machine: Any, words: Given, cpu: int) -> str:
    found = (wire for wire in machine.board.netdevs.values() if wire.kind == "user")
    return "".join(f"Hub -1 ({wire.name}):\n{wire.connections()}" for wire in found)


def _vnc(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.monitor.commands.remote import query_vnc_servers

    servers = query_vnc_servers(_Asks(machine))
    if not servers:
        return "None\n"
    out = []
    for found in servers:
        out.append(f"{found['id']}:\n")
        for kind, rows in (("Server", found["server"]), ("Client", found["clients"])):
            for row in rows:
                where = f"{row['host']}:{row['service']} ({row['family']}{' (Websocket)' if row['websocket'] else ''})"
                out.append(f"  {kind}: {where}\n")
                if kind == "Server":
                    out.append(f"    Auth: {row['auth']} (Sub: {row.get('vencrypt', 'none')})\n")
                else:
                    out.append(f"    x509_dname: none\n    sasl_username: {row.get('sasl_username', 'none')}\n")
        if not found["server"]:  # it called its viewer
            out.append(f"  Auth: {found['auth']} (Sub: {found.get('vencrypt', 'none')})\n")
        if "display" in found:
            out.append(f"  Display: {found['display']}\n")
    return "".join(out)


class _Asks:
    """As much of a monitor as the queries need."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine


VIEWS = by_name(
    Line("chardev", "", "show the character devices", _chardevs),
    Line("cpus", "", "show infos for each CPU", _cpus),
    Line("kvm", "", "show KVM information", _kvm),
    Line("mice", "", "show which guest mouse is receiving events", _mice),
    Line("mtree", "[-f] [-d] [-o] [-D]", "show memory tree (-f: flat view)", _mtree, "-f -d -o -D"),
    Line("name", "", "show the current VM name", _name),
    Line("numa", "", "show NUMA information", _numa),
    Line("pci", "", "show PCI info", _pci),
    Line("qom-tree", "[path]", "show QOM composition tree", _qom_tree, "str?"),
    Line("qtree", "", "show device tree", _qtree),
    Line("registers", "[-a|vcpu]", "show the cpu registers (-a: all CPUs)", registers, "-a int?"),
    Line("network", "", "show the network state", _network),
    Line("status", "", "show the current VM status", _status),
    Line("uuid", "", "show the current VM UUID", _uuid),
    Line("usernet", "", "show user network stack connection states", _usernet),
    Line("vnc", "", "show the vnc server status", _vnc),
    Line("version", "", "show the version of QEMU", _version),
) | info_more.VIEWS | hmp_machine.VIEWS | hmp_more.VIEWS
