"""Validation for other programs: `vmrun.validate`; and what `vmrun validate` is made of."""

from __future__ import annotations

import os

from vmrun.errors import ERROR, ConfigError, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmrun.config.node import Node
    from vmrun.config.spec import ResolvedMachine

TO_COME = "VR08"  # codes of what is not modelled yet


def validate(source: str | os.PathLike[str], *, notation: str = "yaml", strict: bool = False) -> list[Problem]:
    """Every error and warning of a machine, in order; empty when it is fine. Raises nothing for a bad file.

    source: the path of a machine file, or, when it has a line break, its text in notation (yaml, toml or json).
    Images and other files of the host are not looked at. strict: advice counts as errors.

    >>> [problem.code for problem in validate("schema: vmrun/machine/1\\nmachine: rhel6.9.0\\n")]
    ['VR0301']
    """
    from vmrun.config.load import load_bytes
    from vmrun.config.resolve import in_order

    text = os.fspath(source)
    if "\n" in text:
        encoded = text.encode("utf-8", "surrogateescape")
        _, problems = _examine(lambda found: load_bytes(encoded, f"<text>.{notation}", found), "", "machine")
    else:
        _, problems = examine_file(text)
    if strict:
        from vmrun.config.lints import as_errors

        as_errors(problems)
    return in_order(problems)


def examine_file(path: str, sets: Sequence[str] = ()) -> tuple[ResolvedMachine | None, list[Problem]]:
    """(the resolved machine, or None when there are errors; errors, warnings and advice in no order)."""
    from vmrun.config.load import STDIN, load_file, machine_name
    from vmrun.config.sets import apply_sets

    directory, name = os.path.dirname(os.path.abspath(path)), machine_name(path)
    files = () if path == STDIN else (path,)
    return _examine(lambda found: apply_sets(load_file(path, found), tuple(sets)), directory, name, files)


def _examine(
    load: Callable[[list[Problem]], Node], directory: str, name: str, files: Sequence[str] = ()
) -> tuple[ResolvedMachine | None, list[Problem]]:
    from vmrun.config.resolve import resolve

    problems: list[Problem] = []
    machine = None
    try:
        root = load(problems)
        machine = resolve(root, problems, directory, name, None, files)
    except ConfigError as error:
        problems.extend(error.problems)
    faults = [problem for problem in problems if problem.severity == ERROR]
    if machine is None or not all(problem.code.startswith(TO_COME) for problem in faults):
        return None, problems  # advice on a machine that is something else than was meant helps nobody
    from vmrun.config.lints import advice

    asked = root.get("machine")
    problems += advice(machine, str(asked.value) if asked is not None else "")
    return (None if faults else machine), problems
