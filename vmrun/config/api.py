"""Validation for other programs: `vmrun.validate`."""

from __future__ import annotations

import os

from vmrun.errors import ConfigError, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.spec import ResolvedMachine


def validate(source: str | os.PathLike[str], *, notation: str = "yaml", strict: bool = False) -> list[Problem]:
    """Every error and warning of a machine, in order; empty when it is fine. Raises nothing for a bad file.

    source: the path of a machine file, or, when it has a line break, its text in notation (yaml, toml or json).
    Images and other files of the host are not looked at. strict: advice counts as errors.

    >>> [problem.code for problem in validate("schema: vmrun/machine/1\\nmachine: rhel6.9.0\\n")]
    ['VR0301']
    """
    from vmrun.config.load import load_bytes, load_file
    from vmrun.config.resolve import in_order, resolve

    text = os.fspath(source)
    problems: list[Problem] = []
    try:
        if "\n" in text:
            root = load_bytes(text.encode("utf-8", "surrogateescape"), f"<text>.{notation}", problems)
            directory, name = "", "machine"
        else:
            root = load_file(text, problems)
            directory, name = os.path.dirname(os.path.abspath(text)), os.path.basename(text).split(".")[0]
        machine = resolve(root, problems, directory, name)
        problems += advice_of(machine, root.value) if machine is not None and not _errors(problems) else []
    except ConfigError as error:
        problems.extend(error.problems)
    if strict:
        from vmrun.config.lints import as_errors

        as_errors(problems)
    return in_order(problems)


def advice_of(machine: ResolvedMachine, keys: dict[str, object]) -> list[Problem]:
    """The advice on a machine, given the keys of its file."""
    from vmrun.config.lints import advice

    return advice(machine, str(getattr(keys.get("machine"), "value", "")))


def _errors(problems: list[Problem]) -> bool:
    return any(problem.severity == "error" for problem in problems)
