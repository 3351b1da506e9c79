"""The SSDT of vmgenid: where the operating system finds the machine's generation number, and the event of a new one.

Names and ids are QEMU's. Ref: QEMU docs/specs/vmgenid; Microsoft, Virtual Machine Generation ID.
"""

from __future__ import annotations

from vmrun.firmware import aml, parts
from vmrun.firmware.aml import LOCAL0

TYPE_CHECKING = False
if TYPE_CHECKING:

    from vmrun.config.sections import MachineData

GUID_FILE, ADDRESS_FILE = "etc/vmgenid_guid", "etc/vmgenid_addr"
GUID_OFFSET = 40  # in its page, which the firmware may keep for itself until there
OEM_TABLE_ID = b"VMGENID\0"
ADDRESS_AT = 6  # in the body: the value of VGIA


def ssdt(machine: MachineData) -> bytes | None:
    """The body; None without the device. The firmware makes the dword at ADDRESS_AT the page's address."""
    if parts.first(machine, "vmgenid") is None:
        return None
    # a name whose value is always a dword: the firmware writes to it
    address = b"\x08" + aml.path("VGIA") + b"\x0c" + bytes(4)
    low = aml.add("VGIA", GUID_OFFSET)
    device = aml.device(
        "VGEN",
        aml.name("_HID", aml.text("QEMUVGID")),
        aml.name("_CID", aml.text("VM_Gen_Counter")),
        aml.name("_DDN", aml.text("VM_Gen_Counter")),
        aml.method("_STA", 0, aml.when(aml.equal("VGIA", 0), aml.give(0)), aml.give(0x0F)),
        aml.method(
            "ADDR",
            0,
            aml.store(aml.package(count=2), LOCAL0),
            aml.store(low, aml.element(LOCAL0, 0)),
            aml.store(0, aml.element(LOCAL0, 1)),
            aml.give(LOCAL0),
        ),
    )
    event = aml.method("\\_GPE._E05", 0, aml.notify("\\_SB.VGEN", 0x80))
    return address + aml.scope("\\_SB", device) + event
