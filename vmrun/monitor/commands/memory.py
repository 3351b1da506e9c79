"""The guest's memory as files of the host."""

from __future__ import annotations

import os

from vmrun.machine import kdump, memorydump, runstate
from vmrun.machine.paging import Standing
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, enums, event, struct
from vmrun.monitor.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

PART = 1 << 16  # bytes that are copied with the device lock held
FOUR_GIB = 1 << 32

enums["DumpGuestMemoryFormat"] = ("elf", "kdump-zlib", "kdump-lzo", "kdump-snappy", "win-dmp")
FORMATS = ("elf", "kdump-zlib")  # that are written
enums["DumpStatus"] = ("none", "active", "completed", "failed")
struct("DumpQueryResult", {"status": "DumpStatus", "completed": "int", "total": "int"})
struct("DumpGuestMemoryCapability", {"formats": "[DumpGuestMemoryFormat]"})
event("DUMP_COMPLETED", "A dump of the guest's memory is over.", {"result": "DumpQueryResult", "error?": "str"})


@command("pmemsave", {"val": "int", "size": "int", "filename": "str"})
def pmemsave(monitor: Any, val: int, size: int, filename: str) -> Work:
    """Write guest memory, from a physical address on, to a file of the host."""
    return save(monitor.machine, val, size, filename)


@command("memsave", {"val": "int", "size": "int", "filename": "str", "cpu-index?": "int"})
def memsave(monitor: Any, val: int, size: int, filename: str, cpu_index: int = 0) -> Work:
    """Write guest memory, from an address on as a processor sees it, to a file of the host."""
    machine = monitor.machine
    if cpu_index not in machine.board.processors:
        raise QmpError("Parameter 'cpu-index' expects a CPU number")
    if size < 0 or size > 1 << 40:
        raise QmpError("Parameter 'size' expects a size from 0 to 1 TiB")
    try:
        with Standing(machine) as cpus:
            registers = cpus.registers(cpu_index)
    except NotImplementedError:
        registers = {"cr0": 0, "cr3": 0, "cr4": 0, "efer": 0}  # qtest: there is no processor, and no paging

    def write(work: Work) -> None:
        from vmrun.machine.paging import PAGE, is_there, walk

        look = Standing(machine)

        def pieces() -> Iterable[tuple[int, int]]:
            at, end = val, val + size
            wrong = f"Invalid addr 0x{val & 0xFFFFFFFFFFFFFFFF:016x}/size {size} specified"
            while at < end:
                part = min(end - at, PAGE - (at & (PAGE - 1)))
                found = walk(look.physical, registers, at & 0xFFFFFFFFFFFFFFFF)
                if found is None or not is_there(machine.board.memory, found, part):
                    raise QmpError(wrong)
                yield found, part
                at += part

        _copy(machine, work, filename, pieces())

    return Work(machine, write)


def save(machine: Any, addr: int, size: int, path: str) -> Work:
    """QmpError when the memory has not so much."""
    high = int(machine.config["memory-map"].get("above-4g", 0))
    end = int(machine.config["memory-map"].get("high-ram", FOUR_GIB)) + high if high else FOUR_GIB
    if addr < 0 or size < 0 or addr + size > end:
        raise QmpError(f"Parameter 'size' expects a range that ends within the memory, below {end:#x}")
    return Work(machine, lambda work: _copy(machine, work, path, [(addr, size)]))


def _copy(machine: Any, work: Work, path: str, pieces: Iterable[tuple[int, int]]) -> None:
    """Pieces of physical memory into a file, one after the other."""
    try:
        file = open(path, "wb", buffering=0)
    except OSError as error:
        raise QmpError(f"Could not open '{path}': {error.strerror}") from None
    try:
        with file:
            for at, size in pieces:
                stop = at + size
                while at < stop and not work.ended:
                    with machine.board.lock:
                        data = machine.board.memory.read_bytes(at, min(stop - at, PART))
                    view = memoryview(data)
                    while view:
                        view = view[file.write(view) :]
                    at += len(data)
    except OSError as error:
        raise QmpError(f"An IO error has occurred: {path}: {error.strerror}") from None


@command(
    "dump-guest-memory",
    {
        **{"paging": "bool", "protocol": "str", "detach?": "bool", "begin?": "int", "length?": "int"},
        **{"format?": "DumpGuestMemoryFormat"},
    },
)
def dump_guest_memory(
    monitor: Any, paging: bool, protocol: str, detach: bool = False, begin: int | None = None,
    length: int | None = None, format: str = "elf",
) -> Work | None:  # fmt: skip
    """Write all of the guest's memory and its processors' registers as an ELF core, or compressed as kdump's file, for
    crash and gdb. The machine stands still meanwhile. `protocol` is file:PATH or fd:NAME.
    """
    machine = monitor.machine
    if (begin is None) != (length is None):
        raise QmpError("Parameter 'length' is missing" if length is None else "Parameter 'begin' is missing")
    if machine.dump.get("status") == "active":
        raise QmpError("There is a dump in process, please wait.")
    if machine.state in (runstate.INMIGRATE, runstate.FINISH_MIGRATE):
        raise QmpError("Dump not allowed during incoming migration")
    if paging:
        raise QmpError("vmrun dumps physical memory alone: 'paging' is to be false")
    if format != "elf" and begin is not None:
        raise QmpError("kdump-compressed format doesn't support paging or filter")
    if format not in FORMATS:
        raise QmpError(f"{format} is not available now")
    if not machine.board.ram_size:
        raise QmpError("this machine has no memory")
    fd = _target(monitor, protocol)
    with Standing(machine) as cpus:
        try:
            states = [cpus.state(index) for index in machine.board.processors]
        except NotImplementedError:
            states = []
    begin, length = begin or 0, length if length is not None else 1 << 64
    spans = memorydump.spans(machine, begin, length)
    if not spans:
        os.close(fd)
        raise QmpError("Invalid parameter 'begin'")
    before = machine.state
    if before in (runstate.RUNNING, runstate.SUSPENDED):
        machine.pause(runstate.SAVE)
    machine.dump = {"status": "active", "completed": 0, "total": memorydump.total(spans, len(states))}

    def write(work: Work) -> None:
        def put(data: bytes) -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]

        def told(done: int) -> bool:
            machine.dump["completed"] = min(done, machine.dump["total"])
            return work.ended

        try:
            (memorydump if format == "elf" else kdump).write(machine, put, states, spans, told)
        except OSError as error:
            raise QmpError(f"dump: failed to save memory: {error.strerror}") from None
        finally:
            os.close(fd)

    def over(error: QmpError | None) -> None:
        machine.dump["status"] = "completed" if error is None else "failed"
        if error is None:
            machine.dump["completed"] = machine.dump["total"]
        if machine.state == runstate.SAVE:
            machine.go(runstate.SUSPENDED if machine.asleep else runstate.RUNNING)
        machine.tell("DUMP_COMPLETED", result=dict(machine.dump), **({"error": str(error)} if error else {}))

    work = Work(machine, write)
    if detach:
        work.start(lambda answer, error: over(error))
        return None
    work.after = over
    return work


def _target(monitor: Any, protocol: str) -> int:
    kind, colon, rest = protocol.partition(":")
    if kind == "file" and colon:
        try:
            return os.open(rest, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise QmpError(f"Could not open '{rest}': {error.strerror}") from None
    if kind == "fd" and colon:
        from vmrun.monitor.commands.fds import take

        return take(monitor, rest)
    raise QmpError("Invalid parameter 'protocol'")


@command("query-dump", returns="DumpQueryResult")
def query_dump(monitor: Any) -> dict[str, Any]:
    """How far the last dump is."""
    return {"status": "none", "completed": 0, "total": 0, **monitor.machine.dump}


@command("query-dump-guest-memory-capability", returns="DumpGuestMemoryCapability")
def query_dump_guest_memory_capability(monitor: Any) -> dict[str, list[str]]:
    """The formats that there are."""
    return {"formats": list(FORMATS)}
