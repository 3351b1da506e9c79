"""A TPM in the tables: TPM2 (TCPA for a TPM 1.2), and its device in the DSDT.

Ref: TCG ACPI specification 1.2, 7.3 and 8. The presence interface's own methods (_DSM) are not there.
"""

from __future__ import annotations

import struct

from vmrun.firmware import aml, parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import MachineData

LOG_FILE = "etc/tpm/log"
BASE = 0xFED40000
FIFO, CRB = 6, 7  # start methods
CRB_CONTROL = BASE + 0x40


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
    place = aml.name("_CRS", aml.resources(aml.memory32(BASE, 0x5000, True)))
    return [aml.device("TPM", *ids, aml.name("_UID", n), aml.name("_STA", 0x0F), place)]


def crb(machine: MachineData) -> list[bytes]:
    """Below the root of the system bus."""
    if parts.first(machine, "tpm-crb") is None:
        return []
    body = (
        aml.name("_HID", aml.text("MSFT0101")),
        aml.name("_STR", aml.text("TPM 2.0 Device")),
        aml.name("_CRS", aml.resources(aml.memory32(BASE, 0x1000, True))),
        aml.name("_STA", 0x0F),
        aml.name("_UID", 1),
    )
    return [aml.scope("\\_SB", aml.device("TPM", *body))]
