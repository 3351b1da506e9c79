"""What a machine names on the host: images, kernels, directories. Looked at, never opened for writing.

Apart from resolving, which depends on files' contents alone: the same machine may be validated on a host
that has none of its images.
"""

from __future__ import annotations

import os
import stat

from vmrun.config import modules
from vmrun.core.values import ADDRESSES
from vmrun.errors import WARNING, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.spec import ResolvedMachine

SECTOR = 512
UNIX_PATH_MAX = 107  # bytes, sun_path without its NUL


def check_files(machine: ResolvedMachine) -> list[Problem]:
    """Every problem with the files that a resolved machine names, at the place where it names them."""
    problems: list[Problem] = []
    most = host_memory()
    if machine["memory"] > most:
        _add(machine, problems, "VR0633", too_large(machine["memory"], most), "memory", ("memory",), LESS_MEMORY)
    for id, drive in machine["drives"].items():
        if "file" in drive and not is_address(drive["file"]):
            _image(machine, problems, id, drive)
    if machine["kernel"] is not None:
        _regular(machine, problems, machine["kernel"], "the kernel", "kernel", ("kernel",))
    initrd = machine["initrd"]
    for path in [initrd] if initrd and os.path.exists(initrd) else modules.paths(initrd or ""):
        _regular(machine, problems, path, "the initrd", "initrd", ("initrd",))
    for id, chardev in machine["chardevs"].items():
        if "path" in chardev:
            _chardev(machine, problems, id, chardev)
    bios = str(machine["firmware"].get("bios", ""))
    if "/" in bios:
        _regular(machine, problems, bios, "the firmware", "firmware.bios", ("firmware", "bios"))
    for device in machine["devices"]:
        rom = device["props"].get("romfile")
        if isinstance(rom, str) and "/" in rom:
            id = device["id"]
            steps = ("devices", id, "romfile")
            _regular(machine, problems, rom, f"the option ROM of '{id}'", f"devices.{id}.romfile", steps)
    for directory in machine["firmware"].get("dirs", []):
        if not os.path.isdir(directory):
            _add(
                machine,
                problems,
                "VR0620",
                f"firmware directory '{directory}' does not exist",
                "firmware.dirs",
                ("firmware",),
                severity=WARNING,  # the firmware may be elsewhere; when it is not, that is told
            )
    return problems


def _like(path: str) -> str:
    """A kernel or initrd of the host for one that is not there: distributions keep them in / or in /boot, with a
    version behind the name or without. The newest, in the file's own directory first.
    """
    directory, name = os.path.split(path)
    stem = name.partition("-")[0]
    for place in (directory or ".", "/", "/boot"):
        try:
            found = [os.path.join(place, other) for other in os.listdir(place) if other.startswith(stem)]
            found = [other for other in found if os.path.isfile(other)]
        except (OSError, ValueError):
            continue
        if found and stem:
            return max(found, key=os.path.getmtime)
    return ""


def host_memory() -> int:
    """Bytes that a machine can have here: memory and swap, or anything where the host is told to give out more."""
    try:
        with open("/proc/sys/vm/overcommit_memory", encoding="ascii") as file:
            if file.read(1) == "1":
                return 1 << 63
        with open("/proc/meminfo", encoding="ascii") as file:
            rows = dict(line.split(":", 1) for line in file if ":" in line)
        return sum(int(rows[name].split()[0]) << 10 for name in ("MemTotal", "SwapTotal"))
    except (OSError, ValueError, KeyError, IndexError):
        return 1 << 63


def too_large(wanted: int, most: int) -> str:
    return f"the machine has {wanted >> 20} MiB of memory, more than the host's {most >> 20} MiB with swap"


def is_address(name: str) -> bool:
    """An image that is no file of the host's."""
    return name.startswith(ADDRESSES)


LESS_MEMORY = "give the machine less `memory:`"


def _image(machine: ResolvedMachine, problems: list[Problem], id: str, drive: dict[str, object]) -> None:
    path, where, steps = str(drive["file"]), f"drives.{id}.file", ("drives", id, "file")
    info = _regular(machine, problems, path, f"the image of drive '{id}'", where, steps, disk=True)
    if info is None:
        return
    if not drive.get("readonly") and not os.access(path, os.W_OK):
        _add(
            machine,
            problems,
            "VR0622",
            f"'{path}' cannot be written",
            where,
            steps,
            "allow writing, or set readonly: true on the drive",
        )
    if stat.S_ISREG(info.st_mode):
        if info.st_size == 0:
            remedy = f"`truncate -s 1G '{path}'` makes it a disk of 1 GiB"
            _add(machine, problems, "VR0623", f"'{path}' is empty", where, steps, remedy)
        elif info.st_size % SECTOR and drive.get("format") in (None, "raw", "auto"):
            lost = info.st_size % SECTOR
            _add(
                machine,
                problems,
                "VR0624",
                f"'{path}' is {info.st_size} bytes, not a multiple of {SECTOR}: "
                f"the guest does not see the last {lost} bytes",
                where,
                steps,
                severity=WARNING,
            )


def _regular(
    machine: ResolvedMachine,
    problems: list[Problem],
    path: str,
    what: str,
    where: str,
    steps: tuple[str, ...],
    disk: bool = False,
) -> os.stat_result | None:
    """What a file is, if it can be used. disk: whether it may be a disk of the host's."""
    try:
        info = os.stat(path)
    except OSError as error:
        reason = (
            "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be had: {error.strerror}"
        )
        problem = Problem("VR0620", f"{what}, '{path}', {reason}", machine.place(*steps), path=where)
        if steps[0] in ("kernel", "initrd"):
            problem.nearest = _like(path)
        problems.append(problem)
        return None
    if stat.S_ISDIR(info.st_mode):
        _add(machine, problems, "VR0621", f"{what}, '{path}', is a directory", where, steps)
        return None
    if not stat.S_ISREG(info.st_mode) and not (disk and stat.S_ISBLK(info.st_mode)):
        kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a disk of the host"}
        kind = kinds.get(stat.S_IFMT(info.st_mode), "a device without contents")
        needed = "name a file, or a disk of the host's" if disk else "name a file"
        _add(machine, problems, "VR0626", f"{what}, '{path}', is {kind}", where, steps, needed)
        return None
    if not os.access(path, os.R_OK):
        _add(
            machine,
            problems,
            "VR0622",
            f"{what}, '{path}', cannot be read",
            where,
            steps,
            "check its permissions",
        )
        return None
    return info


def _chardev(machine: ResolvedMachine, problems: list[Problem], id: str, chardev: dict[str, object]) -> None:
    path, where, steps = str(chardev["path"]), f"chardevs.{id}.path", ("chardevs", id, "path")
    directory = os.path.dirname(path)
    listens = chardev["type"] == "file" or bool(chardev.get("server"))
    if chardev["type"] == "socket" and len(os.fsencode(path)) > UNIX_PATH_MAX:
        _add(
            machine,
            problems,
            "VR0625",
            f"'{path}' is longer than a unix socket's name may be ({UNIX_PATH_MAX} bytes)",
            where,
            steps,
        )
    elif os.path.isdir(path):
        _add(
            machine, problems, "VR0621", f"the path of chardev '{id}', '{path}', is a directory", where, steps
        )
    elif listens and not os.path.isdir(directory):
        _add(machine, problems, "VR0620", f"directory '{directory}' does not exist", where, steps)
    elif chardev["type"] == "pipe":
        if not os.path.exists(path) and not all(os.path.exists(path + end) for end in (".in", ".out")):
            remedy = f"`mkfifo '{path}.in' '{path}.out'` makes them"
            _add(machine, problems, "VR0620", f"there is no FIFO '{path}'", where, steps, remedy)
    elif not listens and not os.path.exists(path):
        severity = WARNING if chardev.get("reconnect") else "error"  # it is tried again
        _add(machine, problems, "VR0620", f"nothing listens at '{path}'", where, steps, severity=severity)


def _add(
    machine: ResolvedMachine,
    problems: list[Problem],
    code: str,
    message: str,
    path: str,
    steps: tuple[str, ...],
    remedy: str = "",
    severity: str = "error",
) -> None:
    problems.append(
        Problem(code, message, machine.place(*steps), path=path, remedy=remedy, severity=severity)
    )
