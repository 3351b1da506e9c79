"""Advice: what is allowed but makes a machine differ from one day or host to the next. Warnings, errors with
`--strict`.
"""

from __future__ import annotations

from vmrun.errors import WARNING, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.config.spec import ResolvedMachine

OF_THE_HOST = ("host", "max")
PASSED_THROUGH = ("usb-host", "vfio-pci", "pci-assign", "scsi-block", "scsi-generic")
LOCAL = ("localhost", "127.0.0.1", "::1")
HOST_FEATURES = ("pmu", "host-phys-bits", "host-cache-info")


def advice(machine: ResolvedMachine, asked: str) -> list[Problem]:
    """Everything of a resolved machine that is not reproducible, also of devices that are not modelled yet.

    asked: the machine type as the file names it.
    """
    found: list[Problem] = []

    def say(code: str, message: str, path: str, remedy: str) -> None:
        place = machine.place(*path.split(".")) or machine.place("machine")
        found.append(Problem(code, message, place, path=path, remedy=remedy, severity=WARNING))

    cpus = machine["cpus"]
    if cpus["model"] in OF_THE_HOST:
        say(
            "VR1001",
            f"CPU model '{cpus['model']}' differs from host to host",
            "cpus.model",
            "name a model: `vmrun init` shows the type's own",
        )
    for name in HOST_FEATURES:
        if cpus["features"].get(name) is True:
            say("VR1007", f"'{name}' shows the guest what this host has", f"cpus.features.{name}", "leave it out")
    if asked != machine["machine"]:
        say(
            "VR1002",
            f"machine type '{asked}' is whatever type is the newest",
            "machine",
            f"write `machine: {machine['machine']}`, which stays as it is",
        )
    for device in machine["devices"]:
        _device(machine, device, say)
    _idle(machine, say)
    if machine["rtc"]["base"] == "localtime":
        say(
            "VR1004",
            "the clock starts at the host's local time, which its time zone decides",
            "rtc.base",
            "write `base: utc`",
        )
    for id, monitor in machine["monitors"].items():
        chardev = machine["chardevs"].get(monitor.get("chardev"), {})
        if chardev.get("type") == "socket" and chardev.get("port") is not None:
            what = "QMP" if monitor.get("mode") == "control" else "a monitor"
            say(
                "VR1008",
                f"{what} on TCP port {chardev['port']} lets whoever reaches it do what vmrun may do on this host",
                f"monitors.{id}",
                "use a unix socket (`path:`); `vmrun monitor NAME` needs none",
            )
    for id, chardev in machine["chardevs"].items():
        if chardev.get("telnet") and chardev.get("host") not in LOCAL:
            say(
                "VR1009",
                f"telnet on chardev '{id}' has no password: whoever reaches the port has the console",
                f"chardevs.{id}",
                "listen on localhost, or on a unix socket",
            )
    return found


def _device(machine: ResolvedMachine, device: dict[str, Any], say: Callable[[str, str, str, str], None]) -> None:
    mac, id, addr = device["props"].get("mac"), device["id"], device["addr"]
    path = f"devices.{id}"
    if mac is not None:
        if f"{path}.mac" not in machine.places:
            say(
                "VR1003",
                f"card '{id}' has no MAC address of its own: another name of the machine changes it",
                path,
                f'write `mac: "{mac}"`',
            )
        if addr is not None and f"{path}.addr" not in machine.places:
            say(
                "VR1005",
                f"card '{id}' has no slot of its own: another device may take {addr}, and the guest names "
                "the card by its slot",
                path,
                f'write `addr: "{addr}"`',
            )
    if device["driver"] in PASSED_THROUGH:
        say(
            "VR1006",
            f"{device['driver']} '{id}' is a device of this host; on another one the machine differs",
            path,
            "emulated devices are the same everywhere",
        )


def _idle(machine: ResolvedMachine, say: Callable[[str, str, str, str], None]) -> None:
    """What a file says and nothing comes of."""
    from vmrun.config.catalogue import load_catalogue

    catalogue = load_catalogue()
    for device in machine["devices"]:
        entry = catalogue.driver(device["driver"])
        rows = list(entry.props.values()) if entry is not None else []
        _of_no_use(machine, f"devices.{device['id']}", device["driver"], device["props"], rows, say)
    for id, values in machine.data.get("objects", {}).items():
        _of_no_use(machine, f"objects.{id}", values["type"], values, catalogue.objects[values["type"]], say)


def _of_no_use(
    machine: ResolvedMachine,
    path: str,
    what: str,
    values: dict[str, Any],
    rows: list[dict[str, Any]],
    say: Callable[[str, str, str, str], None],
) -> None:
    for row in rows:
        name = row["name"]
        if row.get("idle") and f"{path}.{name}" in machine.places and values.get(name) != row.get("default"):
            say("VR1010", f"'{name}' of {what} changes nothing: {row['idle']}", f"{path}.{name}", "leave it out")


def as_errors(problems: list[Problem]) -> list[Problem]:
    """--strict: every warning counts."""
    for problem in problems:
        problem.severity = "error"
    return problems
