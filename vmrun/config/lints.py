"""Advice: what is allowed but makes a machine differ from one day or host to the next. Warnings, errors with
`--strict`.
"""

from __future__ import annotations

from vmrun.errors import WARNING, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.spec import ResolvedMachine

OF_THE_HOST = ("host", "max")
FLOATING = ("pc",)  # names of whatever type is the newest


def advice(machine: ResolvedMachine, asked: str) -> list[Problem]:
    """Everything of a resolved machine that is not reproducible. asked: the machine type as the file names it."""
    found: list[Problem] = []

    def say(code: str, message: str, path: str, remedy: str) -> None:
        place = machine.place(*path.split(".")) or machine.place("name")
        found.append(Problem(code, message, place, path=path, remedy=remedy, severity=WARNING))

    model = machine["cpus"]["model"]
    if model in OF_THE_HOST:
        say(
            "VR1001",
            f"CPU model '{model}' differs from host to host",
            "cpus.model",
            "name a model: `vmrun init` shows the type's own",
        )
    if asked in FLOATING:
        say(
            "VR1002",
            f"machine type '{asked}' is whatever type is the newest",
            "machine",
            f"write `machine: {machine['machine']}`, which stays as it is",
        )
    for device in machine["devices"]:
        mac, id = device["props"].get("mac"), device["id"]
        if mac is not None and f"devices.{id}.mac" not in machine.places:
            say(
                "VR1003",
                f"card '{id}' has no MAC address of its own: another card changes it",
                f"devices.{id}",
                f'write `mac: "{mac}"`',
            )
    if machine["rtc"]["base"] == "localtime":
        say(
            "VR1004",
            "the clock starts at the host's local time, which its time zone decides",
            "rtc.base",
            "write `base: utc`",
        )
    return found


def as_errors(problems: list[Problem]) -> list[Problem]:
    """--strict: every warning counts."""
    for problem in problems:
        problem.severity = "error"
    return problems
