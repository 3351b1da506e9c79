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
    "ide-seek": Difference(
        "ide-hd",
        "command 79h: the status's ERR",
        0,
        1,
        "SEEK is 70h to 7Fh up to ATA-3; QEMU knows 70h only",
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
