"""TPMs: what there is, and what there can be."""

from __future__ import annotations

from vmrun.core.interfaces import TrustedModule
from vmrun.monitor.table import command, enums, struct, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

enums["TpmModel"] = ("tpm-crb", "tpm-tis")
enums["TpmType"] = ("emulator",)
struct("TPMEmulatorOptions", {"chardev": "str"})
struct("TPMEmulatorOptionsWrapper", {"data": "TPMEmulatorOptions"})
wrapped("TpmTypeOptions", "TpmType", {"emulator": "TPMEmulatorOptions"})
struct("TPMInfo", {"id": "str", "model": "TpmModel", "options": "TpmTypeOptions"})


@command("query-tpm", returns="[TPMInfo]")
def query_tpm(monitor: Any) -> list[dict[str, Any]]:
    """The TPMs of the machine, and what is behind each."""
    return [device.module() for device in monitor.machine.all(TrustedModule)]


@command("query-tpm-models", returns="[TpmModel]")
def query_tpm_models(monitor: Any) -> list[str]:
    """The kinds of TPM that a machine can have."""
    return ["tpm-crb", "tpm-tis"]


@command("query-tpm-types", returns="[TpmType]")
def query_tpm_types(monitor: Any) -> list[str]:
    """What can be behind a TPM: a program of the host."""
    return ["emulator"]
