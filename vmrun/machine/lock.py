"""The lock file: all that a guest sees of a machine, with a digest for each part, to hold the machine to.

JSON, so that it needs no YAML to be read at start-up, one value a line, so that a change is a line in a review:

    {"schema": "vmrun/lock/1", "name": …, "machine": …, "digest": …, "digests": {section: …}, "sections": {…}}
"""

from __future__ import annotations

import json
import os

from vmrun.config.digest import changed_since_release, digest, released
from vmrun.config.load import read_bytes
from vmrun.errors import BuildError, ConfigError, Place, Problem
from vmrun.firmware import fwcfg
from vmrun.machine.differ import HOST, INVISIBLE, LOCKED, compare
from vmrun.machine.visible import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import MachineData
    from vmrun.machine.machine import Machine

SCHEMA = "vmrun/lock/1"
SUFFIX = ".lock"
MOST_BYTES = 4 << 20
MOST_TOLD = 20


def lock_path(machine_file: str) -> str:
    return os.path.splitext(machine_file)[0] + SUFFIX


def make(config: MachineData) -> dict[str, Any]:
    """The lock of a resolved machine. BuildError when the machine cannot be built."""
    _check_type(config)
    sections = visible(config)
    digests = {name: digest(value) for name, value in sections.items()}
    return {
        "schema": SCHEMA,
        "name": config["name"],
        "machine": config["machine"],
        "digest": digest(digests),
        "digests": digests,
        "sections": sections,
    }


def text(lock: dict[str, Any]) -> str:
    return json.dumps(lock, indent=1, ensure_ascii=False) + "\n"


def may_replace(path: str) -> bool:
    """Whether a lock can be written here without destroying something else: nothing, a lock, or a device."""
    if not os.path.isfile(path):
        return True
    try:
        with open(path, "rb") as file:
            head = file.read(200)
    except OSError:
        return True  # writing will say what is wrong
    return not head.strip() or b'"vmrun/lock/' in head


def read(path: str) -> dict[str, Any]:
    """A lock file's contents. ConfigError: there is none, it is no lock, or it was changed by hand."""
    if not os.path.exists(path):
        raise _wrong("VR0960", f"there is no lock file '{path}'", path, "`vmrun lock` writes it")
    data = read_bytes(path, path, most=MOST_BYTES)
    try:
        lock = json.loads(data)
    except (ValueError, RecursionError):
        raise _wrong("VR0960", f"'{path}' is no lock file", path, "`vmrun lock` writes one") from None
    if not isinstance(lock, dict) or lock.get("schema") != SCHEMA:
        found = lock.get("schema") if isinstance(lock, dict) else None
        what = f"'{path}' is no lock file" if found is None else f"'{path}' is a lock of another form, {found!s:.40}"
        raise _wrong("VR0960", what, path, "`vmrun lock` writes one")
    sections, digests = lock.get("sections"), lock.get("digests")
    if not isinstance(sections, dict) or not isinstance(digests, dict) or set(sections) != set(LOCKED):
        raise _wrong("VR0960", f"'{path}' is not complete", path, "`vmrun lock` writes it anew")
    if not all(_sound(name, part) for name, part in sections.items()) or not all(
        isinstance(lock.get(key), str) for key in ("name", "machine")
    ):
        raise _wrong("VR0960", f"'{path}' is no lock that vmrun wrote", path, "`vmrun lock` writes it anew")
    sound = {name for name, part in sections.items() if isinstance(part, dict) and digests.get(name) == digest(part)}
    bad = [name for name in LOCKED if name not in sound]
    if bad or lock.get("digest") != digest(digests):
        where = f" ({', '.join(bad)})" if bad else ""
        raise _wrong(
            "VR0965",
            f"'{path}' was changed after it was made{where}: its digests do not fit",
            path,
            "take it from version control, or make it anew with `vmrun lock`",
        )
    return lock


def _sound(section: str, part: Any) -> bool:
    """Whether a section has the form that comparing relies on."""
    if not isinstance(part, dict):
        return False
    if section in ("pci", "nics", "devices"):
        return all(isinstance(row, dict) and isinstance(row.get("driver"), str) for row in part.values())
    if section == "cpuid":
        return all(_is_leaf(key, value) for key, value in part.items())
    return True


def _is_leaf(key: str, value: Any) -> bool:
    words = value.split(" ") if isinstance(value, str) else []
    function, dot, index = key.partition(".")
    hexadecimal = frozenset("0123456789abcdef")
    return (
        dot == "."
        and len(words) == 4
        and all(0 < len(word) <= 8 and hexadecimal.issuperset(word) for word in (function, index))
        and all(word == HOST or (0 < len(word) <= 8 and hexadecimal.issuperset(word)) for word in words)
    )


def check(config: MachineData, path: str) -> None:
    """Hold a resolved machine to the lock file at path. ConfigError tells every difference."""
    lock = read(path)
    if (lock["name"], lock["machine"]) != (config["name"], config["machine"]):
        raise _wrong(
            "VR0961",
            f"'{path}' belongs to {lock['name']} ({lock['machine']}), not to {config['name']} ({config['machine']})",
            path,
            "make this machine's own with `vmrun lock`",
        )
    _check_type(config)
    changes = [one for one in compare(lock["sections"], visible(config)) if one.severity != INVISIBLE]
    if changes:
        problems = [
            Problem("VR0962", f"not as locked: {change.text} ({change.severity})", Place(path))
            for change in changes[:MOST_TOLD]
        ]
        more = len(changes) - MOST_TOLD
        last = problems[-1]
        remedy = "`vmrun lock` makes the lock anew, if this is meant"
        last.remedy = f"and {more} more; {remedy}" if more > 0 else remedy
        raise ConfigError(problems=problems)


def _check_type(config: MachineData) -> None:
    """ConfigError when the machine's type is one of vmrun's and not as it was released."""
    if config["machine"] in released():
        changed = changed_since_release(config["machine"])
        if changed is not None:
            raise ConfigError(problems=[changed])


def check_features(missing: list[str], accelerator: str) -> None:
    """A locked machine does without no feature of its CPU model: BuildError names those that are missing."""
    if missing:
        raise BuildError(
            f"{accelerator} on this host lacks CPU features of the locked model: {', '.join(missing)}",
            code="VR0964",
            remedy="use a host that has them, or a CPU model without them and lock that",
        )


def check_built(machine: Machine) -> None:
    """What only the accelerator decides, once a locked machine is built. BuildError: it is not as locked."""
    name = machine.accelerator.name
    check_features(machine.missing_features, name)
    prepared, config = machine.firmware, machine.config
    actual = dict(prepared.files).get("etc/e820")
    if actual is not None and actual != fwcfg.e820(config, "kvm" in config["accel"], prepared.processor):
        kept = "does not keep" if "kvm" in config["accel"] else "keeps"
        raise BuildError(
            f"{name} {kept} the pages of memory that KVM needs, so the guest's memory map is not as locked",
            code="VR0966",
            remedy=f"run it on {' or '.join(config['accel'])}, or lock the machine with `accel: {name}`",
        )


def _wrong(code: str, message: str, path: str, remedy: str) -> ConfigError:
    return ConfigError(message, code=code, place=Place(path), remedy=remedy)
