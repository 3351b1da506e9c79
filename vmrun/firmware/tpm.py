"""A TPM in the tables: TPM2 (TCPA for a TPM 1.2), and its device in the DSDT.

Ref: TCG ACPI specification 1.2, 7.3 and 8; TCG PC Client Physical Presence Interface 1.30 (the methods of _DSM); TCG
Platform Reset Attack Mitigation 1.10, 6. What is asked for stands in memory of the TPM's, where the firmware finds it.
"""

from __future__ import annotations

import struct

from vmrun.firmware import aml, parts
from vmrun.firmware.aml import ARG0, ARG1, ARG2, ARG3, LOCAL0, LOCAL1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import MachineData

LOG_FILE = "etc/tpm/log"
BASE = 0xFED40000
FIFO, CRB = 6, 7  # start methods
FIFO_SIZE = 0x5000
CRB_CONTROL = BASE + 0x40
PRESENCE = BASE + 0x5000  # a byte of flags for each operation, then what is asked for and what became of it
REQUESTS, CLEAR_MEMORY = PRESENCE + 0x100, PRESENCE + 0x15A
OPERATIONS = 0x100
PRESENCE_UUID = "3dddfaa6-361b-4eb4-a424-8d10089d1653"
MITIGATION_UUID = "376054ed-cc13-4675-901c-4756d7f2d45d"
VERSION = "1.3"
BLOCKED, FLAGS = 2, 7  # a kind of an operation (of kind 0 the firmware knows nothing), and all of them


def table(machine: MachineData) -> tuple[bytes, int, bytes, int] | None:
    """(signature, revision, body, where in it the address of the log is, as 64 bits); None without a TPM."""
    found = parts.first(machine, *parts.TPMS)
    if found is None:
        return None
    if machine.get("tpm-version", 2) == 1:
        body = struct.pack("<HIQ", 0, parts.TPM_LOG, 0)  # of a client
        return b"TCPA", 2, body, 6
    control, method = (CRB_CONTROL, CRB) if found["driver"] == "tpm-crb" else (0, FIFO)
    body = struct.pack("<HHQI12xIQ", 0, 0, control, method, parts.TPM_LOG, 0)
    return b"TPM2", 4, body, len(body) - 8


def fifo(props: dict[str, Any], n: int) -> list[bytes]:
    """Behind the ISA bridge; `version` among the properties."""
    if props["version"] == 1:
        ids = [aml.name("_HID", aml.eisaid("PNP0C31"))]
    else:
        ids = [aml.name("_HID", aml.text("MSFT0101")), aml.name("_STR", aml.text("TPM 2.0 Device"))]
    place = aml.name("_CRS", aml.resources(aml.memory32(BASE, FIFO_SIZE, True)))
    return [aml.device("TPM", *ids, aml.name("_UID", n), aml.name("_STA", 0x0F), place, *_presence(props))]


def window(machine: MachineData) -> list[bytes]:
    """What the root bus hands on for a TPM behind the ISA bridge."""
    there = parts.first(machine, "tpm-tis") is not None
    return [aml.memory32(BASE, FIFO_SIZE, True)] if there else []


def crb(machine: MachineData) -> list[bytes]:
    """Below the root of the system bus."""
    found = parts.first(machine, "tpm-crb")
    if found is None:
        return []
    body = (
        aml.name("_HID", aml.text("MSFT0101")),
        aml.name("_STR", aml.text("TPM 2.0 Device")),
        aml.name("_CRS", aml.resources(aml.memory32(BASE, 0x1000, True))),
        aml.name("_STA", 0x0F),
        aml.name("_UID", 1),
        *_presence(found["props"]),
    )
    return [aml.scope("\\_SB", aml.device("TPM", *body))]


# --- physical presence: what the system asks the firmware to do to the TPM at the next start ----------------------


def _presence(props: dict[str, Any]) -> list[bytes]:
    """Memory, and the methods that know its form; nothing with ppi=off."""
    if not props.get("ppi", True):
        return []
    names = (("PPIN", 8), ("PPIP", 32), ("PPRP", 32), ("PPRQ", 32), ("PPRM", 32), ("LPPR", 32))
    flags = (
        aml.when(aml.invert(aml.less(ARG0, OPERATIONS)), aml.give(0)),
        aml.region("TPP1", aml.SYSTEM_MEMORY, aml.add(PRESENCE, ARG0), 1),
        aml.field("TPP1", aml.BYTE_ACCESS, ("TPPF", 8)),
        aml.give("TPPF"),
    )
    return [
        aml.region("TPP2", aml.SYSTEM_MEMORY, REQUESTS, CLEAR_MEMORY - REQUESTS),
        aml.field("TPP2", aml.ANY_ACCESS, *names),
        aml.region("TPP3", aml.SYSTEM_MEMORY, CLEAR_MEMORY, 1),
        aml.field("TPP3", aml.BYTE_ACCESS, ("MOVV", 8)),
        aml.method("TPFN", 1, *flags, serialized=True),
        aml.name("TPM2", aml.package(0, 0)),
        aml.name("TPM3", aml.package(0, 0, 0)),
        _specific(),
    ]


def _specific() -> bytes:
    """_DSM(uuid, revision, function, arguments)."""

    def function(number: int, *body: bytes) -> bytes:
        return aml.when(aml.equal(ARG2, number), *body)

    def answer(name: str, *values: str) -> tuple[bytes, ...]:
        """A success, and these."""
        return (*(aml.store(value, aml.element(name, n + 1)) for n, value in enumerate(values)), aml.give(name))

    kind = aml.bit_and(LOCAL1, FLAGS)
    asked = (aml.store(aml.value_at(ARG3, 0), LOCAL0), aml.store(aml.call("TPFN", LOCAL0), LOCAL1))
    unknown = aml.when(aml.equal(kind, 0), aml.give(1))
    submit = (aml.store(LOCAL0, "PPRQ"), aml.store(0, "PPRM"))
    presence = (
        function(0, aml.give(aml.buffer(b"\xff\x01"))),  # functions 0 to 8
        function(1, aml.give(aml.text(VERSION))),
        function(2, *asked, unknown, *submit, aml.give(0)),
        function(
            3,
            aml.when(aml.equal(ARG1, 1), *answer("TPM2", "PPRQ")),
            aml.when(aml.equal(ARG1, 2), *answer("TPM3", "PPRQ", "PPRM")),
        ),
        function(4, aml.give(2)),  # a reboot brings it about
        function(5, *answer("TPM3", "LPPR", "PPRP")),
        function(6, aml.give(3)),  # the user's language is not heard of
        function(
            7,
            *asked,
            unknown,
            aml.when(aml.equal(kind, BLOCKED), aml.give(3)),
            aml.when(aml.equal(ARG1, 1), *submit),
            aml.when(aml.equal(ARG1, 2), aml.store(LOCAL0, "PPRQ"), aml.store(aml.value_at(ARG3, 1), "PPRM")),
            aml.give(0),
        ),
        function(8, *asked, aml.give(kind)),
        aml.give(aml.buffer(b"\0")),
    )
    mitigation = (
        function(0, aml.give(aml.buffer(b"\x03"))),
        function(1, aml.store(aml.value_at(ARG3, 0), LOCAL0), aml.store(LOCAL0, "MOVV"), aml.give(0)),
    )
    return aml.method(
        "_DSM",
        4,
        aml.when(aml.equal(ARG0, aml.uuid(PRESENCE_UUID)), *presence),
        aml.when(aml.equal(ARG0, aml.uuid(MITIGATION_UUID)), *mitigation),
        serialized=True,
    )
