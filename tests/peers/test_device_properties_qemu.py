"""Which properties QEMU's devices have and vmrun's not: those that are explained here, and no other."""

from __future__ import annotations

import sys

from tests.peers.oracle import QEMU, converse, needs_qemu
from vmrun.config.catalogue import load_catalogue

pytestmark = needs_qemu
LINE = ["-M", "none", "-display", "none", "-nodefaults", "-qmp", "stdio"]
# of every driver that has them
EVERYWHERE = {
    "virtio-backend": "a link to the device behind the card, which is one with it here",
    "account-invalid": "statistics count what QEMU's count by default",
    "account-failed": "statistics count what QEMU's count by default",
    "backend_defaults": "sizes of blocks are the device's own",
}
ALONE = {
    "am53c974 dc390": {"esp": "a part that is no property of a user's"},
    "isa-serial pci-serial": {"serial": "a part that is no property of a user's"},
    "nvme": dict.fromkeys(
        (
            *("aer_max_queued", "aerl", "num_queues", "smart_critical_warning", "subsys"),
            "vsl",
            *("sriov_max_vfs", "sriov_max_vi_per_vf", "sriov_max_vq_per_vf", "sriov_vi_flexible", "sriov_vq_flexible"),
            *("zoned.auto_transition", "zoned.zasl"),
        ),
        "not modelled: subsystems, virtual functions, zones",
    ),
    "pc-dimm nvdimm": {"size": "read only: its memory's"},
    "virtio-balloon-pci": dict.fromkeys(("guest-stats", "guest-stats-polling-interval"), "of a running one: qom-get"),
    "virtio-gpu-pci virtio-vga": {"blob": "memory of the host's graphics"},
    "bochs-display": {"big-endian-framebuffer": "set by a guest's register"},
    "scsi-cd scsi-hd": dict.fromkeys(
        (
            "quirk_mode_page_vendor_specific_apple",
            "quirk_mode_sense_rom_use_dbd",
            "quirk_mode_page_apple_vendor",
            "quirk_mode_page_truncated",
        ),
        "of Apple's old systems",
    ),
}


def properties(command: list[str], drivers: list[str]) -> dict[str, set[str]]:
    requests = [{"execute": "device-list-properties", "arguments": {"typename": driver}} for driver in drivers]
    answers = converse([*command, *LINE], requests)
    return {
        driver: {row["name"] for row in answer["return"] if not row["name"].endswith("]")}  # those are parts
        for driver, answer in zip(drivers, answers, strict=True)
        if "return" in answer
    }


def _family(driver: str) -> str:
    return driver.removesuffix("-non-transitional").removesuffix("-transitional")


def test_every_property_of_qemu_s_devices_is_there_or_explained() -> None:
    catalogue = load_catalogue()
    entries = [catalogue.driver(name) for name in sorted(catalogue.modelled_names())]
    drivers = [entry.name for entry in entries if entry is not None and entry.user_creatable]
    theirs = properties([QEMU or ""], drivers)
    ours = properties([sys.executable, "-m", "vmrun", "qemu"], drivers)
    assert len(theirs) > 70
    explained = {name: set(rows) for names, rows in ALONE.items() for name in names.split()}
    lacking = {
        driver: found
        for driver in theirs
        if (found := theirs[driver] - ours[driver] - EVERYWHERE.keys() - explained.get(_family(driver), set()))
    }
    assert lacking == {}
