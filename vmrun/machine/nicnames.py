"""What a Linux guest will call its network cards: by order (eth0), by hot-plug slot (ens3), by path (enp0s3).

Ref: systemd.net-naming-scheme(7). udev takes the first that exists of onboard index (eno1, `acpi-index`), hot-plug
slot and path. The PIIX4 describes every slot of pci.0 but 0 and 1 as a hot-plug slot, unless the type turned that
off. `eth` numbers are the order of probing, which is the order of PCI addresses for cards of one driver.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.catalogue import Catalogue
    from vmrun.config.sections import DeviceRow, MachineData

FIRST_HOTPLUG_SLOT = 2


def predict(config: MachineData, catalogue: Catalogue) -> dict[str, dict[str, Any]]:
    """Device id → mac, PCI address and the three names, for each card with a MAC address."""
    cards = []
    for device in config["devices"]:
        entry = catalogue.driver(device["driver"])
        if entry is not None and any(prop["type"] == "mac" for prop in entry.props.values()):
            cards.append(device)
    cards.sort(key=lambda device: (device["addr"] is None, device["bus"] or "", device["addr"] or "", device["id"]))
    hotplug = _hotplug(config)
    found: dict[str, dict[str, Any]] = {}
    for number, card in enumerate(cards):
        row = {"driver": card["driver"], "mac": card["props"].get("mac"), "eth": f"eth{number}"}
        if card["addr"] is not None and card["bus"] == "pci.0":
            row.update(_names(card, hotplug))
        found[card["id"]] = row
    return found


def _names(card: DeviceRow, hotplug: bool) -> dict[str, str]:
    slot, function = (int(part, 16) for part in card["addr"].split("."))
    tail = f"f{function}" if function or card["props"].get("multifunction") else ""
    path = f"enp0s{slot}{tail}"
    if card["props"].get("acpi-index"):
        udev = f"eno{card['props']['acpi-index']}"
    else:
        udev = f"ens{slot}{tail}" if hotplug and slot >= FIRST_HOTPLUG_SLOT else path
    return {"addr": card["addr"], "path": path, "udev": udev}


def _hotplug(config: MachineData) -> bool:
    power = next((device for device in config["devices"] if device["driver"] == "PIIX4_PM"), None)
    return power is not None and bool(power["props"].get("acpi-root-pci-hotplug", True))
