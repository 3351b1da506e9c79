"""What -machine's switches keep away is away on both sides: ports, and functions of the south bridge."""

from __future__ import annotations

import pytest

from tests.peers.oracle import Qemu, needs_qemu
from vmrun.config.importers.line import parse_command_line
from vmrun.testing import QTest

pytestmark = pytest.mark.peer
PORTS = (0x60, 0x64, 0x92, 0x61, 0x40, 0x42, 0x3F4, 0x510)
FUNCTIONS = ((0, 0), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0))
SWITCHES = [
    ("pc,i8042=off", ()), ("pc,pit=off", ()), ("pc,acpi=off", ()), ("pc", ("-no-acpi", "-no-hpet")), ("pc,sata=off", ())
]  # fmt: skip


def seen(side: Qemu | QTest, ports: list[int]) -> list[int]:
    found = [side.inb(port) for port in ports]
    for slot, function in FUNCTIONS:
        side.outl(0xCF8, 1 << 31 | slot << 11 | function << 8)
        found.append(side.inl(0xCFC))
    return found


@needs_qemu
@pytest.mark.parametrize(("machine", "words"), SWITCHES)
def test_what_is_switched_off_is_away(machine: str, words: tuple[str, ...]) -> None:
    parsed = parse_command_line(["-M", machine, *words, "-nodefaults"])
    assert [problem.message for problem in parsed.warnings] == []
    document = parsed.machine()
    document.pop("accel", None)
    with Qemu(machine, *words) as theirs, QTest(document) as ours:
        ports = [port for port in PORTS if port != 0x61 or "pit=off" not in machine]  # where QEMU itself ends
        assert seen(ours, ports) == seen(theirs, ports)


@needs_qemu
@pytest.mark.parametrize(
    "machine",
    [f"{name},max-ram-below-4g={most}" for name in ("pc", "pc-i440fx-1.7") for most in ("1G", "3300M")],
)
def test_memory_ends_below_4_gib_where_the_switch_says(machine: str) -> None:
    """RAM keeps what is written to it; elsewhere nobody does."""
    document = parse_command_line(["-M", machine, "-m", "4G", "-nodefaults"]).machine()
    document.pop("accel", None)
    edges = [size << 20 for size in (1024, 2048, 3072, 3300, 3584)]
    places = [edge + step for edge in edges for step in (-8, 0)]
    with Qemu(machine, "-m", "4G") as theirs, QTest(document) as ours:
        answers = []
        for place in places:
            theirs.ask(f"writel {place:#x} 0x5aa55aa5")
            ours.writel(place, 0x5AA55AA5)
            kept = int(theirs.ask(f"readl {place:#x}").split()[-1], 16) == 0x5AA55AA5
            answers.append((place, kept, ours.readl(place) == 0x5AA55AA5))
    assert [place for place, wanted, got in answers if wanted != got] == []
    assert {wanted for _, wanted, _ in answers} == {True, False}
