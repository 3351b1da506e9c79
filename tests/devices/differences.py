"""Where vmrun and QEMU answer differently on purpose: what the tests expect of each, and why.

docs/devices/differences.md is made of this: `python -m tests.devices.differences > docs/devices/differences.md`.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Difference(NamedTuple):
    device: str
    what: str
    vmrun: Any
    qemu: Any
    why: str

    def of(self, side: str) -> Any:
        return self.vmrun if side == "vmrun" else self.qemu


DIFFERENCES: dict[str, Difference] = {
    "ipmi-sdr": Difference(
        "ipmi-bmc-sim",
        "completion code of Add SDR with a good record",
        0,
        0xCC,
        "QEMU looks for the record ten bytes too far on; so nothing can be added, and the count of records never falls",
    ),
    "ide-seek": Difference(
        "ide-hd",
        "command 79h: the status's ERR",
        0,
        1,
        "SEEK is 70h to 7Fh up to ATA-3; QEMU knows 70h only",
    ),
    "ide-recalibrate": Difference(
        "ide-hd",
        "command 15h: the status's ERR",
        0,
        1,
        "RECALIBRATE is 10h to 1Fh up to ATA-3; QEMU knows 10h only",
    ),
    "ide-verify": Difference(
        "ide-hd",
        "READ VERIFY behind the disk's end: the status's ERR",
        1,
        0,
        "ATA: an address that is not there; QEMU looks at none",
    ),
    "ide-mode": Difference(
        "ide-hd",
        "SET FEATURES, transfer mode multiword DMA 3: the status's ERR",
        1,
        0,
        "IDENTIFY DEVICE says that there is none; QEMU takes modes up to 7",
    ),
    "ide-track": Difference(
        "ide-hd",
        "READ SECTORS of sector 64 of a track of 63: the status's ERR",
        1,
        0,
        "ATA: there is no such sector; QEMU counts on, into the next track",
    ),
    "ide-multiple": Difference(
        "ide-hd",
        "IDENTIFY DEVICE word 59 after SET MULTIPLE MODE 4",
        0x104,
        0x110,
        "ATA: the current setting; QEMU tells the first one",
    ),
    "ide-geometry": Difference(
        "ide-hd",
        "IDENTIFY DEVICE word 56 after INITIALIZE DEVICE PARAMETERS with 9 sectors",
        9,
        63,
        "ATA: the current translation; QEMU uses it and tells the default one",
    ),
    "ide-reset-interrupt": Difference(
        "piix3-ide",
        "bus master's interrupt after SRST",
        0,
        4,
        "ATA: a software reset does not assert INTRQ; QEMU does",
    ),
    "ide-odd": Difference(
        "piix3-ide",
        "where data begins with 10001h in a descriptor: offset behind 10000h",
        0,
        1,
        "the PIIX3's descriptors have no bit 0; QEMU takes it for a part of the address",
    ),
    "rtl8139-flags": Difference(
        "rtl8139",
        "flags of the last segment of a large send with PSH and FIN",
        0x19,
        0x10,
        "QEMU takes them from the first segment for good, so a connection's FIN is never sent",
    ),
    "ne2000-full": Difference(
        "ne2k_pci, ne2k_isa",
        "ISR.PRX after it is cleared, while the ring is full",
        1,
        0,
        "frames wait on the host's side, and no overflow would tell of them",
    ),
    "ide-srst": Difference(
        "ide-hd",
        "alternate status while SRST is set: BSY",
        0x80,
        0,
        "ATA: a drive is busy as long as SRST is set; QEMU is done after a moment, SRST or not",
    ),
    "pam-read-only": Difference(
        "i440FX",
        "a write where PAM lets RAM be read only",
        "shadow",
        "nobody",
        "the chip sends it to PCI; QEMU holds processors back, but not qtest's accesses",
    ),
    "vga-pel-mask": Difference(
        "VGA",
        "PEL mask (3C6h) after writing 0Fh",
        0x0F,
        0,
        "the palette's mask exists on every VGA; QEMU has none",
    ),
    "dma-masks": Difference(
        "i8257",
        "port 0Fh, all masks, after power-on",
        0xFF,
        0x00,
        "the PIIX3's DMA reads them at 0Fh; QEMU has them at 09h",
    ),
    "dma-request": Difference(
        "i8257",
        "port 09h, the request register",
        0x00,
        0xFF,
        "write only in the data sheet; QEMU shows the masks there",
    ),
    "dma-half": Difference(
        "i8257",
        "an address register of which one byte was written",
        0x34,
        0x00,
        "the 8237A takes each byte as it comes; QEMU waits for both",
    ),
    "uart-loopback": Difference(
        "isa-serial",
        "modem status after loopback with no line set is turned on: its changes",
        0x0B,
        0x00,
        "in loopback the lines change as others do, and the low bits tell so; QEMU leaves them out",
    ),
    "kbd-resend": Difference(
        "i8042",
        "keyboard command FEh, resend, after EEh",
        0xEE,
        0xFE,
        "the keyboard sends its last byte again; QEMU takes FEh for no command",
    ),
    "mouse-status": Difference(
        "i8042",
        "mouse command E9h before a reset: resolution",
        2,
        0,
        "a mouse has its defaults from power-on; QEMU's has them from the first reset",
    ),
    "pit-early": Difference(
        "isa-pit",
        "a counter, read before the first clock after its count was written",
        0,
        4,
        "the 8254 loads a count with the next clock; QEMU at once",
    ),
    "smbus-auxctl": Difference(
        "PIIX4_PM",
        "SMBus port 0Dh",
        0,
        2,
        "the PIIX4 has no such register; QEMU's is that of later chips",
    ),
    "pcihp-byte": Difference(
        "PIIX4_PM",
        "a byte at AE0Ch, the slots that can be unplugged",
        0xF8,
        0x00,
        "vmrun gives the byte that was asked for; QEMU answers double words only",
    ),
    "vga-retrace": Difference(
        "VGA",
        "input status 1 while time stands still",
        0x00,
        0x09,
        "the beam moves with time; QEMU's moves with each read",
    ),
    "lapic-mmio": Difference(
        "apic",
        "the version register at FEE00030h, through qtest",
        0x50011,
        0,
        "vmrun answers with the first processor's; QEMU's qtest has no processor that asks",
    ),
    "fdc-format": Difference(
        "isa-fdc",
        "FORMAT TRACK",
        "writes",
        "nothing",
        "the sectors get the fill byte; QEMU says that it did so",
    ),
    "fdc-end": Difference(
        "isa-fdc",
        "data through the FIFO over the end of a track",
        "ends, EN in ST1",
        "waits for ever",
        "the data sheet's end of cylinder; QEMU's controller has to be reset",
    ),
    "rtc-pf": Difference(
        "mc146818rtc",
        "register C a period after power-on, periodic interrupt not enabled",
        0x40,
        0x00,
        "the data sheet sets PF at every period, whatever PIE is; QEMU keeps no periodic time without PIE",
    ),
}


def page() -> str:
    """The documentation's page."""
    lines = [
        "# Where the devices differ from QEMU's",
        "",
        "Made from `tests/devices/differences.py`: the device tests run the same accesses on vmrun and on QEMU 7.2",
        "(`-M pc-i440fx-2.0`), and this is all in which the answers differ. QEMU is driven with its processors",
        "standing still, so what only happens as time passes is tested on vmrun alone.",
        "",
        "    python -m pytest tests/devices",
        "",
        "| device | access | vmrun | QEMU 7.2 | why |",
        "|---|---|---|---|---|",
    ]
    for entry in sorted(DIFFERENCES.values()):
        values = [f"{value:#x}" if isinstance(value, int) else str(value) for value in (entry.vmrun, entry.qemu)]
        lines.append(f"| {entry.device} | {entry.what} | {values[0]} | {values[1]} | {entry.why} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(page())
