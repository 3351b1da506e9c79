"""What the resolver finds wrong, as QEMU says it: for vmrun-qemu and QMP, whose users search for its words."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.errors import Problem

_WORDS = {
    "VR0405": "Property '{driver}.{property}' not found",
    "VR0501": "Bus '{bus}' not found",
    "VR0502": "Device '{driver}' can't go on {kind} bus",
    "VR0509": "PCI: slot {slot} function {function} not available for {driver}, in use by {other},id={id}",
    "VR0510": "PCI: no slot/function available for {driver}, all in use or reserved",
    "VR0511": "PCI: single function device can't be populated in function {slot:x}.{function}",
    "VR0603": "Property '{driver}.{property}' can't find value '{id}'",
}
# the same of a device that comes while the machine runs
_WORDS_OF_PLUGGED = {
    "VR0511": "PCI: slot {slot} function 0 already occupied by {other}, new func {driver} cannot be exposed to guest.",
}


def said(problem: Problem, plugged: bool = False) -> str:
    """The problem's message in QEMU's words, or its own where QEMU has none. `plugged`: of device_add."""
    table = {**_WORDS, **_WORDS_OF_PLUGGED} if plugged else _WORDS
    words = table.get(problem.code) if problem.facts else None
    return words.format_map(problem.facts) if words else problem.message
