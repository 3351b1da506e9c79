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
    "VR0516": "The bootindex {value} has already been used",
    "VR0524": "a PCI device with acpi-index = {value} already exist",
    "VR0603": "Property '{driver}.{property}' can't find value '{id}'",
}
# the same of what names an object of the host's side
_WORDS_OF_OBJECTS = {
    "VR0603": "Device '{id}' not found",
    "VR0613": "Invalid parameter type for '{property}', expected: {kind}",
}
# and of what QEMU looks for by itself, not as a property
_WORDS_OF_PROPERTIES = {
    ("VR0603", "tls-creds"): "No TLS credentials with id '{id}'",
    ("VR0603", "keyid"): "No secret with id '{id}'",
}
# and of a device for which there is no bus of its kind at all
_NO_BUS = "No '{wanted}' bus found for device '{driver}'"
# the same of a device that comes while the machine runs
_WORDS_OF_PLUGGED = {
    "VR0511": "PCI: slot {slot} function 0 already occupied by {other}, new func {driver} cannot be exposed to guest.",
}
# what could not be done with a chardev
_ACTS = {
    "open": "Could not open {where}: {why}",
    "connect to": "Failed to connect to '{address}': {why}",
    "listen on": "Failed to bind socket to {address}: {why}",
}


def of_chardev(problem: Problem) -> str:
    """What is wrong with a chardev, without its name; the whole message where it is something else."""
    facts = {key: str(value) for key, value in problem.facts.items()}
    if "chardev" not in facts:
        return problem.message
    return _ACTS.get(facts["act"], "{said}").format(address=facts["where"].partition(":")[2], **facts)


def said(problem: Problem, plugged: bool = False) -> str:
    """The problem's message in QEMU's words, or its own where QEMU has none. `plugged`: of device_add."""
    table = {**_WORDS, **_WORDS_OF_PLUGGED} if plugged else _WORDS
    facts = problem.facts
    if not facts:
        return problem.message
    if problem.code == "VR0502" and "wanted" in facts:
        return _NO_BUS.format_map(facts)
    if facts.get("names") == "object" and facts["property"] != "tpmdev":
        table = _WORDS_OF_OBJECTS
    words = _WORDS_OF_PROPERTIES.get((problem.code, str(facts.get("property")))) or table.get(problem.code)
    return words.format_map(facts) if words else problem.message
