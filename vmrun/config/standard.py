"""The standard small machine of a type: what two types are compared by, and what their golden digests are of."""

from __future__ import annotations

from vmrun.config.node import Node
from vmrun.errors import ERROR, ConfigError, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.catalogue import Catalogue
    from vmrun.config.spec import ResolvedMachine

DISK = 1 << 30  # bytes of its one disk, which exists nowhere


def standard_machine(type_name: str, catalogue: Catalogue | None = None) -> ResolvedMachine:
    """Two processors of the type's own model, 256 MiB, the standard VGA, a serial port and a disk.

    Raises ConfigError: there is no such type, or it cannot have these.
    """
    from vmrun.config.resolve import resolve

    root = Node({}, f"a standard machine of {type_name}", 1, 1)
    serial = root.at({"type": root.at("null")})
    root.value = {
        "schema": root.at("vmrun/machine/1"),
        "name": root.at("standard"),
        "machine": root.at(type_name),
        "memory": root.at("256MiB"),
        "cpus": root.at({"count": root.at(2)}),
        "display": root.at("std"),
        "disks": root.at([root.at("/standard.img")]),
        "serial": root.at([serial]),
    }
    problems: list[Problem] = []
    machine = resolve(root, problems, "/", "standard", catalogue)
    faults = [problem for problem in problems if problem.severity == ERROR]
    if machine is None or faults:
        raise ConfigError(problems=faults or problems)
    return machine
