"""The VGA card on a real bus: where its ports, windows and BARs appear."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from accel.api import DeviceLock
from accel.clock import SteppedClock
from accel.space import AddressSpace, Region

from accel.accelerator import Accelerator
from vmrun.bus.pci import RootBus
from vmrun.core.console import Console
from vmrun.core.props import props_of
from vmrun.devices.display.vga_pci import VgaPci
from vmrun.errors import StateError

ROM = b"\x55\xaa\x01" + bytes(509)


class Machine:
    """Two address spaces and a PCI bus; nothing else of a platform is needed here."""

    def __init__(self) -> None:
        self.lock, self.virtual = DeviceLock(), SteppedClock()
        self.system_memory, self.system_io = Region.container("system", 0), Region.container("io", 0x10000)
        self.pci_memory = Region.container("pci", 1 << 32)
        self.system_memory.add(self.pci_memory, 0, -1)
        self.memory = AddressSpace("memory", self.system_memory)
        self.io = AddressSpace("I/O", self.system_io, ports=True)
        self.bus = RootBus("pci.0", self)  # type: ignore[arg-type]
        self.asked: list[str] = []
        self.consoles: list[Console] = []

    def add_option_rom(self, file: str) -> bytes:
        self.asked.append(file)
        return ROM

    def add_console(self, device: Any, scanout: Any, head: int = 0, text: Any = None) -> Console:
        self.consoles.append(Console(device, scanout, Accelerator.__new__(Accelerator), head, text))
        return self.consoles[-1]

    def remove_console(self, console: Console) -> None:
        self.consoles.remove(console)

    def plug(self, **props: Any) -> VgaPci:
        card = VgaPci("video0")
        card.set_props({"addr": "02.0", **props})
        card.parent_bus = self.bus
        card.realize(self)  # type: ignore[arg-type]
        card.reset()
        return card


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_configuration_space_says_what_it_is(machine: Machine) -> None:
    config = machine.plug().config
    assert (config.get(0, 4), config.get(8, 4), config.get(0x3D, 1)) == (0x11111234, 0x03000002, 0)


def test_rhel_6_has_revision_0_and_no_second_bar(machine: Machine) -> None:
    card = machine.plug(**{"pci-revision": 0, "mmio": False})
    assert card.config.get(8, 1) == 0 and set(card.bars) == {0, 6}


def test_bar_0_has_the_size_of_the_video_memory_rounded_up(machine: Machine) -> None:
    assert machine.plug(vgamem_mb=9).bars[0].size == 16 << 20


def test_ports_answer_and_the_gaps_between_them_do_not(machine: Machine) -> None:
    machine.plug()
    machine.io.write(0x3C2, 1, 0x67)
    assert machine.io.read(0x3CC, 1) == 0x67
    assert [port for port in range(0x3B0, 0x3E0) if machine.io.owner_at(port) is None] == [
        *range(0x3B0, 0x3B4),
        *range(0x3B6, 0x3BA),
        *range(0x3BB, 0x3C0),
        *range(0x3D0, 0x3D4),
        *range(0x3D6, 0x3DA),
        *range(0x3DB, 0x3E0),
    ]


def test_word_writes_set_index_and_data_in_one_access(machine: Machine) -> None:
    machine.plug()
    machine.io.write(0x3CE, 2, 0x5A08)
    assert machine.io.read(0x3CF, 1) == 0x5A


def test_vbe_ports_take_words_at_even_and_odd_addresses(machine: Machine) -> None:
    machine.plug()
    machine.io.write(0x1CE, 2, 0)
    assert machine.io.read(0x1CF, 2) == machine.io.read(0x1D0, 2) == 0xB0C5
    assert machine.io.read(0x1CE, 1) == 0xFF


def test_window_and_frame_buffer_show_the_same_memory(machine: Machine) -> None:
    card = machine.plug()
    card.config.poke(0x10, 4, 0xE0000000)
    card.config.poke(4, 2, 3)
    for port, value in ((0x3C4, 0x0F02), (0x3C4, 0x0E04), (0x3CE, 0x0506)):
        machine.io.write(port, 2, value)
    machine.memory.write(0xA0123, 1, 0x77)
    assert machine.memory.read(0xE0000123, 1) == 0x77


def use(machine: Machine) -> None:
    """As much as makes the window worth a change of the memory map; by a processor, which no test's own thread is."""

    def many() -> None:
        for _ in range(256):
            machine.memory.read(0xA0000, 1)

    thread = threading.Thread(target=many)
    thread.start()
    thread.join()


def test_writes_that_were_kept_back_do_not_make_the_window_memory(machine: Machine) -> None:
    machine.plug()
    for port, value in ((0x3C4, 0x0F02), (0x3C4, 0x0E04), (0x3CE, 0x0506)):
        machine.io.write(port, 2, value)
    for _ in range(1000):
        machine.memory.write(0xA0000, 1, 1)
    assert machine.memory.owner_at(0xA0000).kind_name == "i/o"


def test_linear_window_that_is_used_a_lot_is_memory(machine: Machine) -> None:
    card = machine.plug()
    for port, value in ((0x3C4, 0x0F02), (0x3C4, 0x0E04), (0x3CE, 0x0506)):
        machine.io.write(port, 2, value)
    assert machine.memory.owner_at(0xA0000).kind_name == "i/o"
    use(machine)
    shown = machine.memory.owner_at(0xA0000)
    assert (
        shown is not None and shown.kind_name == "ram" and machine.memory.owner_at(0xB0000).kind_name == "i/o"
    )
    machine.memory.write(0xA0123, 1, 0x77)
    assert card.vram.read(0x123, 1) == b"\x77"
    machine.io.write(0x3C4, 2, 0x0104)
    assert machine.memory.owner_at(0xA0000).kind_name == "i/o"


def test_linear_window_follows_the_bank(machine: Machine) -> None:
    card = machine.plug()
    for index, value in ((1, 640), (2, 480), (3, 8), (4, 0x41), (5, 3)):
        machine.io.write(0x1CE, 2, index)
        machine.io.write(0x1D0, 2, value)
    use(machine)
    assert machine.memory.owner_at(0xA0000).kind_name == "ram"
    machine.memory.write(0xA0010, 1, 0x5A)
    assert card.vram.read(0x30010, 1) == b"\x5a"
    machine.io.write(0x1D0, 2, 2)
    assert machine.memory.owner_at(0xA0000).kind_name == "i/o"
    use(machine)
    machine.memory.write(0xA0010, 1, 0x5B)
    assert card.vram.read(0x20010, 1) == b"\x5b" and card.vram.read(0x30010, 1) == b"\x5a"


def test_linear_window_goes_with_a_reset(machine: Machine) -> None:
    card = machine.plug()
    for port, value in ((0x3C4, 0x0F02), (0x3C4, 0x0E04), (0x3CE, 0x0506)):
        machine.io.write(port, 2, value)
    use(machine)
    assert machine.memory.owner_at(0xA0000).kind_name == "ram"
    card.reset()
    assert machine.memory.owner_at(0xA0000).kind_name == "i/o"


def test_window_stays_a_device_where_that_is_asked_for(machine: Machine) -> None:
    machine.plug(**{"x-linear-window": False})
    for port, value in ((0x3C4, 0x0F02), (0x3C4, 0x0E04), (0x3CE, 0x0506)):
        machine.io.write(port, 2, value)
    use(machine)
    assert machine.memory.owner_at(0xA0000).kind_name == "i/o"


def test_second_bar_holds_the_registers(machine: Machine) -> None:
    card = machine.plug()
    card.config.poke(0x18, 4, 0xE1000000)
    card.config.poke(4, 2, 3)
    assert machine.memory.read(0xE1000500, 2) == 0xB0C5
    machine.memory.write(0xE1000402, 1, 0x67)
    assert machine.memory.read(0xE100040C, 1) == 0x67
    assert machine.memory.read(0xE1000600, 4) == 8
    assert machine.memory.read(0xE1000700, 4) == 0xFFFFFFFF


def test_types_without_extended_registers_read_ones_there(machine: Machine) -> None:
    card = machine.plug(**{"qemu-extended-regs": False})
    card.config.poke(0x18, 4, 0xE1000000)
    card.config.poke(4, 2, 3)
    assert machine.memory.read(0xE1000600, 4) == 0xFFFFFFFF


def test_video_bios_is_the_rom(machine: Machine) -> None:
    machine.plug()
    assert machine.asked == ["vgabios-stdvga.bin"]


@pytest.mark.parametrize("props", [{"rombar": 0}, {"romfile": ""}])
def test_no_rom_bar_when_told_so(machine: Machine, props: dict[str, Any]) -> None:
    assert 6 not in machine.plug(**props).bars and machine.asked == []


def test_the_monitor_is_described_in_the_second_bar_or_not_at_all(machine: Machine) -> None:
    card = machine.plug(xres=1024, yres=768)
    card.config.poke(0x18, 4, 0xE1000000)
    card.config.poke(4, 2, 3)
    assert machine.memory.read(0xE1000000, 8) == 0x00FFFFFFFFFFFF00
    assert machine.memory.read(0xE1000038, 4) & 0xFF == 1024 & 0xFF
    assert machine.memory.read(0xE1000180, 4) == 0xFFFFFFFF
    card.unrealize()
    card = machine.plug(edid=False)
    card.config.poke(0x18, 4, 0xE1000000)
    card.config.poke(4, 2, 3)
    assert machine.memory.read(0xE1000000, 4) == 0xFFFFFFFF


def test_unrealize_leaves_nothing_behind(machine: Machine) -> None:
    card = machine.plug()
    card.config.poke(0x10, 4, 0xE0000000)
    card.config.poke(4, 2, 3)
    card.unrealize()
    assert machine.memory.flat == [] and machine.io.flat == []


def test_state_comes_back_and_a_bad_one_changes_nothing(machine: Machine) -> None:
    card = machine.plug()
    machine.io.write(0x3C2, 1, 0x67)
    state = card.save()
    card.reset()
    fresh = card.save()
    with pytest.raises(StateError):
        card.load({**state, "config": b"short"})
    assert card.save() == fresh
    card.load(state)
    assert card.save() == state


def test_every_property_of_the_card_is_documented() -> None:
    assert [name for name, prop in props_of(VgaPci).items() if not prop.doc] == []
