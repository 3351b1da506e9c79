"""The line monitor's commands about the machine's own parts: page tables, interrupt controllers, memory blocks, ROMs,
the boot order, the current mouse, gdb. Output in QEMU's form.
"""

from __future__ import annotations

from vmrun.monitor.errors import QmpError
from vmrun.monitor.hmp_args import Given
from vmrun.monitor.hmp_line import Line, by_name
from vmrun.monitor.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PRESENT, WRITE, USER, LARGE = 1, 2, 4, 1 << 7
MOST_ROWS = 20000  # of a page table that a guest may have filled with anything
NO_EXECUTE = 1 << 63
FRAME = 0x000FFFFFFFFFF000
MEBI = 1 << 20
PIECE = 1 << 16  # bytes of a sum at a time


# --- page tables --------------------------------------------------------------------------------------------------


def _tables(standing: Any, r: dict[str, Any]) -> Iterator[tuple[int, int, int]]:
    """(linear address, bytes, entry) of each page that is there, in order. The entry of a large page keeps its bit 7;
    what the tables above deny is taken out of its rights.
    """
    if not r["cr4"] & 0x20:
        shifts, entry_size, root = [22, 12], 4, r["cr3"] & 0xFFFFF000
    elif r.get("efer", 0) & 0x400:
        shifts, entry_size, root = [39, 30, 21, 12], 8, r["cr3"] & FRAME
        if r["cr4"] & 0x1000:
            shifts = [48, *shifts]
    else:
        shifts, entry_size, root = [30, 21, 12], 8, r["cr3"] & 0xFFFFFFE0
    memory, lock = standing.machine.board.memory, standing.machine.board.lock

    def walk(table: int, level: int, base: int, rights: int) -> Iterator[tuple[int, int, int]]:
        shift = shifts[level]
        count = 4 if shift == 30 and entry_size == 8 and len(shifts) == 3 else 4096 // entry_size
        with lock:
            data = memory.read_bytes(table, count * entry_size)
        for n in range(count):
            entry = int.from_bytes(data[n * entry_size : (n + 1) * entry_size], "little")
            if not entry & PRESENT:
                continue
            linear = base + (n << shift)
            if level == 0 and shift >= 39 and n >= count // 2:
                linear |= -1 << (shift + 9) & 0xFFFFFFFFFFFFFFFF
            allowed = rights if len(shifts) == 3 and level == 0 else rights & entry
            if shift == 12 or (entry & LARGE and shift in (21, 22, 30) and not (shift == 30 and len(shifts) == 3)):
                yield linear, 1 << shift, entry & ~(WRITE | USER) | (allowed & (WRITE | USER))
            else:
                yield from walk(entry & FRAME, level + 1, linear, allowed)

    yield from walk(root, 0, 0, WRITE | USER)


def _paged(machine: Any, cpu: int, show: Any) -> str:
    from vmrun.machine.paging import Standing

    with Standing(machine) as standing:
        try:
            registers = standing.registers(cpu)
        except NotImplementedError:
            return "PG disabled\n"
        if not registers["cr0"] >> 31:
            return "PG disabled\n"
        return str(show(registers, _tables(standing, registers)))


def _width(registers: dict[str, Any]) -> int:
    return 16 if registers.get("efer", 0) & 0x400 else 8


def _tlb(machine: Any, words: Given, cpu: int) -> str:
    def show(registers: dict[str, Any], pages: Iterator[tuple[int, int, int]]) -> str:
        out: list[str] = []
        width = _width(registers)
        for linear, size, entry in pages:
            if len(out) == MOST_ROWS:
                out.append("…")
                break
            letters = (
                (NO_EXECUTE, "X"), (1 << 8, "G"), (LARGE if size > 4096 else 0, "P"), (1 << 6, "D"), (1 << 5, "A"),
                (1 << 4, "C"), (1 << 3, "T"), (USER, "U"), (WRITE, "W"),
            )  # fmt: skip
            flags = "".join(letter if entry & bit else "-" for bit, letter in letters)
            out.append(f"{linear:0{width}x}: {entry & FRAME & ~(size - 1):0{width}x} {flags}")
        return "\n".join(out) + "\n"

    return _paged(machine, cpu, show)


def _mem(machine: Any, words: Given, cpu: int) -> str:
    def show(registers: dict[str, Any], pages: Iterator[tuple[int, int, int]]) -> str:
        out, width = [], _width(registers)
        start, end, rights = 0, 0, -1

        def flush() -> None:
            if rights >= 0:
                user, write = "u" if rights & USER else "-", "w" if rights & WRITE else "-"
                out.append(f"{start:0{width}x}-{end:0{width}x} {end - start:0{width}x} {user}r{write}")

        for linear, size, entry in pages:
            if len(out) == MOST_ROWS:
                out.append("…")
                break
            now = entry & (USER | WRITE)
            if rights != now or linear != end:
                flush()
                start, rights = linear, now
            end = linear + size
        flush()
        return "\n".join(out) + "\n"

    return _paged(machine, cpu, show)


# --- interrupt controllers ----------------------------------------------------------------------------------------

KERNELS_IOAPIC = 0x11  # the version that KVM's says
_DELIVERY = ("fixed", "lowest", "SMI", "...", "NMI", "INIT", "...", "extINT")


def _pic(machine: Any, words: Given, cpu: int) -> str:
    out = []
    for device in machine.devices.values():
        if "ioapic" in device.driver:
            out += _ioapic(_state(device), device)
    chips = [device for device in machine.devices.values() if "i8259" in device.driver]
    for n, device in reversed([*enumerate(chips)]):
        state = _state(device)
        values = {key: int(state.get(key, 0)) for key in ("irr", "imr", "isr", "elcr", "vector_base", "read_isr")}
        out.append(
            f"pic{n}: irr={values['irr']:02x} imr={values['imr']:02x} isr={values['isr']:02x} hprio="
            f"{int(state.get('priority_add', 0))} irq_base={values['vector_base']:02x} rr_sel={values['read_isr']} "
            f"elcr={values['elcr']:02x} fnm={int(state.get('special_nested', 0))}"
        )
    return "\n".join(out) + "\n" if out else "no interrupt controllers\n"


def irq(machine: Any, words: Given, cpu: int) -> str:
    """The I/O APIC's first; a pair of 8259s counts as one. Those in the kernel do not count."""
    out, pair = "", [0] * 16
    for device in machine.devices.values():
        counts = getattr(getattr(device, "chip", None), "counts", None)
        if "ioapic" in device.driver:
            out = _counted(device.driver, counts() if counts else []) + out
        elif "i8259" in device.driver and counts:
            at = 0 if device.master else 8
            pair[at : at + 8] = counts()
    pics = next((device.driver for device in machine.devices.values() if "i8259" in device.driver), "")
    return out + (_counted(pics, pair) if pics else "")


def _counted(driver: str, counts: list[int]) -> str:
    return f"IRQ statistics for {driver}:\n" + "".join(f" {n}: {count}\n" for n, count in enumerate(counts) if count)


# What KVM calls otherwise of its own.
_KERNELS = {
    **{"redirtbl": "table", "ioregsel": "select", "irq_base": "vector_base", "read_reg_select": "read_isr"},
    **{"special_fully_nested_mode": "special_nested"},
}


def _state(device: Any) -> dict[str, Any]:
    """The state of an interrupt controller in vmrun's words, wherever it is."""
    state: dict[str, Any] = device.save()
    return {_KERNELS.get(name, name): value for name, value in state.get("registers", state).items()}


def _ioapic(state: dict[str, Any], device: Any) -> list[str]:
    table = state.get("table") or []
    version = getattr(device, "version", KERNELS_IOAPIC)
    out = [f"ioapic0: ver={version:#04x} id={int(state.get('id', 0)):#04x} sel={int(state.get('select', 0)):#04x}"]
    remote = []
    for pin, row in enumerate(table):
        entry = int(row)
        if entry & 0x8000 and entry & 0x4000:
            remote.append(str(pin))
        out.append(
            f"  pin {pin:<2d} 0x{entry:016x} dest={entry >> 56:X} vec={entry & 0xFF:<3d} "
            f"active-{'lo' if entry & 0x2000 else 'hi'} {'level' if entry & 0x8000 else 'edge '} "
            f"{'masked' if entry & 0x10000 else '      '} {_DELIVERY[entry >> 8 & 7]:<6s} "
            f"{'logical' if entry & 0x800 else 'physical'}"
        )
    raised = [str(pin) for pin in range(len(table)) if int(state.get("irr", 0)) >> pin & 1]
    out.append(f"  IRR      {' '.join(raised) or '(none)'}")
    out.append(f"  Remote IRR {' '.join(remote) or '(none)'}")
    return out


# --- memory -------------------------------------------------------------------------------------------------------


def _ramblock(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.machine.snapshot import blocks

    out = [f"{'Block Name':>24s} {'PSize':>8s}  {'Offset':>18s} {'Used':>18s} {'Total':>18s}"]
    at = 0
    if machine.board.ram_size:
        for name, block in blocks(machine).items():
            out.append(f"{name:>24s} {'4 KiB':>8s}  0x{at:016x} 0x{block.size:016x} 0x{block.size:016x}")
            at += -(-block.size // MEBI) * MEBI
    return "\n".join(out) + "\n"


def _roms(machine: Any, words: Given, cpu: int) -> str:
    firmware = getattr(machine, "firmware", None)
    if firmware is None:
        return ""
    out = [f'fw={name} size={len(image.data):#08x} name="{name.rpartition("/")[2]}"' for name, image in
           sorted(firmware.roms.items())]  # fmt: skip
    size = len(machine.bios.data)
    if size:
        name = str(machine.bios.path or machine.bios.name).rpartition("/")[2]
        out.append(f'addr={(1 << 32) - size:016x} size={size:#08x} mem=rom name="{name}"')
    for name, data in firmware.files:
        if name.startswith("etc/acpi/") or name == "etc/table-loader":
            out.append(f'/rom@{name} size={len(data):#08x} name="{name}"')
    return "\n".join(out) + "\n"


def _sum(machine: Any, words: Given, cpu: int) -> Work:
    """The 16-bit checksum of BSD's sum, over physical memory. A minute or two of a GiB, while the machine goes on."""
    start, size = int(words[0]), int(words[1])
    if size > 1 << 30:
        raise QmpError("sum: at most 1 GiB at a time")

    def count(work: Work) -> str:
        found = 0
        for at in range(start, start + size, PIECE):
            if work.ended:
                break
            with machine.board.lock:
                data = machine.board.memory.read_bytes(at, min(PIECE, start + size - at))
            for byte in data:
                found = ((found >> 1 | found << 15 & 0xFFFF) + byte) & 0xFFFF
        return f"{found:05d}\n"

    return Work(machine, count)


# --- the user's side ----------------------------------------------------------------------------------------------


def _boot_set(machine: Any, words: Given, cpu: int) -> str:
    order = words[0]
    wrong = sorted(set(order) - set("abcdefghijklmnop"))
    if wrong:
        return f"Invalid boot device '{wrong[0]}'\n"
    if len(set(order)) != len(order):
        return f"Boot device '{next(letter for letter in order if order.count(letter) > 1)}' was given twice\n"
    if len(order) > 3:
        return "Too many boot devices for PC\n"
    if unknown := order.strip("abcdn"):
        return f"Invalid boot device for PC: '{unknown[0]}'\n"
    firmware = getattr(machine, "firmware", None)
    if firmware is None:
        raise QmpError("no function defined to set boot device list for this architecture")
    with machine.board.lock:
        firmware.set_boot(order)
    return f"boot device list now set to {order}\n"


def _mouse_set(machine: Any, words: Given, cpu: int) -> str:
    router = machine.board.input
    pointers = [sink for sink in router.sinks if sink.kinds & {"rel", "abs"}]
    wanted = int(words[0])
    if wanted >= len(pointers):
        return f"Mouse at index '{wanted}' not found\n"
    router.activate(pointers[wanted])
    return ""


def _gdbserver(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.errors import VmrunError

    where = words[0] if words else "tcp::1234"
    monitors = machine.monitors
    if monitors is None:
        raise QmpError("this machine has no monitors")
    monitors.close_gdb()
    if where == "none":
        return "Disabled gdbserver\n"
    kind, _, rest = where.partition(":")
    spec: dict[str, Any] = {"type": "socket", "server": True, "wait": False}
    if kind == "unix" and rest:
        spec["path"] = rest.partition(",")[0]
    elif kind == "tcp":
        host, _, port = rest.partition(",")[0].rpartition(":")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            return f"Could not open gdbserver on device '{where}'\n"
        spec |= {"host": host or "127.0.0.1", "port": int(port)}
    else:
        return f"'{where}' is not a valid char driver\nCould not open gdbserver on device '{where}'\n"
    try:
        monitors.open_gdb(spec)
    except VmrunError:
        return f"Could not open gdbserver on device '{where}'\n"
    return f"Waiting for gdb connection on device '{where}'\n"


def _says(text: str) -> Any:
    return lambda machine, words, cpu: text


def _stats(machine: Any, words: Given, cpu: int) -> str:
    """There are none: QEMU's come from KVM's own files."""
    if words[0] not in ("vm", "vcpu"):
        return f"invalid stats target {words[0]}\n"
    return f"invalid stats provider {words[2]}\n" if words[2:] and words[2] != "kvm" else ""


def _qdm(machine: Any, words: Given, cpu: int) -> str:
    from vmrun.monitor.devicelist import devices

    return devices()


VIEWS = by_name(
    Line("capture", "", "show capture information", _says("")),
    Line("mem", "", "show the active virtual memory mappings", _mem),
    Line("irq", "", "show the interrupts statistics (if available)", irq),
    Line("pic", "", "show PIC state", _pic),
    Line("qdm", "", "show qdev device model list", _qdm),
    Line("ramblock", "", "Display system ramblock information", _ramblock),
    Line("replay", "", "show record/replay information", _says("Record/replay is not active\n")),
    Line("roms", "", "show roms", _roms),
    Line("stats", "target [names] [provider]", "show statistics for the given target (vm or vcpu)", _stats,
         "str str? str?"),
    Line("tlb", "", "show virtual to physical memory mappings", _tlb),
)

LINES = (
    Line("boot_set", "bootdevice", "define new values for the boot device list", _boot_set, "str"),
    Line("gdbserver", "[device]", "start gdbserver on given device (default 'tcp::1234'), stop with 'none'",
         _gdbserver, "str?"),
    Line("mouse_set", "index", "set which mouse device receives events", _mouse_set, "int"),
    Line("sum", "addr size", "compute the checksum of a memory region", _sum, "int int"),
)  # fmt: skip
