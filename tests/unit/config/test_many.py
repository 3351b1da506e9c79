"""Files with as many entries as the loader allows, all at fault in one way: told within a second."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from .conftest import Check

N = 2000


def devices(line: str) -> str:
    """N devices; in line, # stands for the number and @ for an I/O port of its own."""
    rows = (line.replace("#", str(n)).replace("@", hex(0x1000 + 8 * n)) for n in range(N))
    return "devices:\n" + "".join(f"  - {{{row}}}\n" for row in rows)


def table(section: str, line: str, indent: str = "  ") -> str:
    return f"{section}:\n" + "".join(f"{indent}{line.replace('#', str(n))}\n" for n in range(N))


FILES = {
    "one port": devices("id: d#, driver: isa-debugcon"),
    "one interrupt": devices("id: d#, driver: isa-serial, iobase: @, irq: 5"),
    "one shared interrupt": devices("id: d#, driver: isa-serial, iobase: @, irq: 4"),
    "one id": devices("id: d, driver: isa-debugcon"),
    "no ids": devices("driver: isa-debugcon, iobase: @"),
    "no drivers": devices("id: d#"),
    "unknown drivers": devices("id: d#, driver: isa-debugkon#"),
    "unknown properties": devices("id: d#, driver: isa-debugcon, iobase: @, iobaze#: 1"),
    "unknown buses": devices("id: d#, driver: VGA, bus: pci.x#"),
    "no slots left": devices("id: d#, driver: test-nic"),
    "one slot": devices("id: d#, driver: test-nic, addr: 05.0"),
    "one MAC address": devices("id: d#, driver: test-nic, mac: 52:54:00:00:00:01"),
    "drives without a bus": "drives: {d: {file: x}}\n" + devices("id: d#, driver: ide-drive, drive: d"),
    "drives on one bus": "drives: {d: {file: x}}\n"
    + devices("id: d#, driver: ide-drive, bus: ide.0, drive: d"),
    "serial ports": devices("id: d#, driver: isa-serial"),
    "buses below each other": "devices:\n"
    + "".join(f"  - {{id: d{n}, driver: test-bridge, bus: d{n + 1}.0}}\n" for n in range(N)),
    "a circle of buses": "devices:\n"
    + "".join(f"  - {{id: d{n}, driver: test-bridge, bus: d{(n + 1) % N}.0}}\n" for n in range(N)),
    "not modelled": devices("id: d#, driver: virtio-net-pci"),
    "one image": table("drives", "d#: {file: x}"),
    "the terminal": table("chardevs", "d#: {type: stdio}"),
    "unknown chardev types": table("chardevs", "d#: {type: ptty#}"),
    "unknown globals": table("globals", "isa-debugcom#: {a: 1}"),
    "unknown keys": table("cpus", "coont#: 1"),
    "unknown features": "cpus:\n" + table("  features", "ssse#: true", "    "),
    "one USB port": devices("id: d#, driver: usb-mouse, port: 1")
    + "  - {id: usb, driver: usb-ehci}\n",
    "USB ports without hubs": devices('id: d#, driver: usb-mouse, port: "1.#"')
    + "  - {id: usb, driver: usb-ehci}\n",
    "no USB bus": devices("id: d#, driver: usb-mouse, port: 1"),
    "one SCSI address": devices("id: d#, driver: scsi-hd, scsi-id: 1, lun: 0")
    + "  - {id: s, driver: virtio-scsi-pci}\n",
    "one TCP port": table("chardevs", "d#: {type: socket, host: a, port: 5000, server: true}"),
    "one TCP port of many hosts": table("chardevs", "d#: {type: socket, host: h#, port: 5000, server: true}"),
    "TCP ports in a row, each twice": "chardevs:\n"
    + "".join(f"  d{n}: {{type: socket, host: a, port: {5000 + n // 2}, server: true}}\n" for n in range(N)),
    "one log": table("chardevs", "d#: {type: file, path: log}"),
    "one descriptor": table("netdevs", "d#: {type: tap, fd: 3}"),
    "wires to nowhere": table("wires", '- {from: "pn#.x", to: "gsi[0]"}'),
    "too many wires": table("wires", '- {from: "pm.x[0..255]", to: "gsi[0..255]"}'),
}


@pytest.mark.parametrize("name", FILES)
def test_many_faults_are_told_within_a_second(check: Check, name: str) -> None:
    began = time.process_time()
    problems = check(FILES[name])
    assert time.process_time() - began < 1
    assert len(problems) < 3 * N


def test_many_faults_take_little_memory(check: Check) -> None:
    tracemalloc.start()
    try:
        check(FILES["one port"])
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
