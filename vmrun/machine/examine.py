"""Everything that keeps a resolved machine from starting, found without starting it: what `validate`, `lock`, `tree`
and `up` tell, with one code, line and exit code.

The host's files are looked at, then the machine is built without a processor. What an accelerator alone refuses (a
processor that the host has not, /dev/kvm without permission) is no matter of the machine's file and stays out.
"""

from __future__ import annotations

from vmrun.errors import ERROR, BackendError, BuildError, ConfigError, VmrunError, about
from vmrun.machine.dry import build_dry, peek

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.spec import ResolvedMachine
    from vmrun.errors import Problem

def examine(machine: ResolvedMachine, files: bool = True) -> list[Problem]:
    """Errors and warnings. files: look at the host's files too."""
    from vmrun.firmware.romspace import check_roms

    problems = [*_files(machine), *check_roms(machine.data, machine.place)] if files else []
    problems += refused_by_kernel(machine)
    known = {problem.path for problem in problems if problem.severity == ERROR}
    try:
        build_dry(machine.data, files=files).close()
    except VmrunError as error:
        found = [problem for problem in located(error, machine) if problem.path not in known]
        for problem in found:
            problem.place = problem.place or machine.place()  # no part of the file alone is to blame: its type's line
        problems += found
    return problems


def _files(machine: ResolvedMachine) -> list[Problem]:
    """Files that are not there or cannot be used, images that cannot be opened for what they are."""
    from vmrun.config.files import check_files

    found = check_files(machine)
    told = {problem.path for problem in found if problem.severity == ERROR}
    for id, spec in machine["drives"].items():
        path = f"drives.{id}.file"
        if path in told or not spec.get("file"):
            continue
        try:
            with about(path, "VR0628"):
                peek(id, spec).close()
        except BackendError as error:
            found += located(error, machine)
    return found


def explained(error: VmrunError, machine: ResolvedMachine) -> VmrunError:
    """What to raise for an error of the builder: all that `validate` would have told, or the error with its place."""
    found = [problem for problem in examine(machine) if problem.severity == ERROR]
    if found:
        return ConfigError(problems=found)
    located(error, machine)
    return error


class looking:  # noqa: N801  # `with looking(machine): …build_dry(machine.data)…`
    """Looks at the host's files, then lets errors of the block be those that `validate` tells."""

    def __init__(self, machine: ResolvedMachine) -> None:
        self.machine = machine

    def __enter__(self) -> None:
        if any(problem.severity == ERROR for problem in _files(self.machine)):
            raise ConfigError(problems=[problem for problem in examine(self.machine) if problem.severity == ERROR])

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, VmrunError):
            raise explained(error, self.machine) from None


def located(error: VmrunError, machine: ResolvedMachine) -> list[Problem]:
    """An error's problems, each with the place where the machine's file says what it is about."""
    for problem in error.problems:
        if problem.place is None and problem.path:
            problem.place = machine.place(*problem.path.split("."))
    return list(error.problems)


def refused_by_kernel(machine: ResolvedMachine) -> list[Problem]:
    """Chips that KVM has in its kernel lie where a PC has them; a machine that may run on it cannot move them."""
    if "kvm" not in machine["accel"]:
        return []
    from accel.kvm.accelerator import IN_KERNEL
    from vmrun.core import registry
    from vmrun.machine.assembly import modules

    where, found = modules(), []
    for device in machine["devices"]:
        twin = device.get("in-kernel")
        if not twin or twin not in IN_KERNEL[machine["kernel_irqchip"]]:
            continue
        chip: Any = registry.find(twin, where[twin])(device["id"])
        try:
            with about(f"devices.{device['id']}"):
                chip.set_props(device.get("in-kernel-props", device["props"]))
                chip.check_place()
        except BuildError as error:
            found += located(error, machine)
    return found
