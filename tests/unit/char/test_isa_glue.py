"""The serial, parallel, debug, keyboard and fw_cfg devices plugged into an ISA bus of a small machine."""

from types import SimpleNamespace

import pytest
from accel.api import Action, DeviceLock
from accel.clock import SteppedClock, TimerQueue
from accel.space import AddressSpace, Region

from vmrun.backends.chardev.base import HostChar
from vmrun.bus.isa import IsaBus
from vmrun.core.input import InputRouter
from vmrun.core.props import props_of
from vmrun.devices.char.isa_debugcon import IsaDebugcon
from vmrun.devices.char.isa_parallel import IsaParallel
from vmrun.devices.char.isa_serial import IsaSerial
from vmrun.devices.input.isa_i8042 import IsaI8042
from vmrun.devices.misc.fw_cfg import FwCfgIo
from vmrun.errors import BuildError


class Platform:
    def __init__(self):
        self.lock = DeviceLock()
        self.system_io = Region.container("io", 65536)
        self.io = AddressSpace("io", self.system_io, True)
        self.memory = AddressSpace("memory", Region.container("system", 0))
        self.timers = TimerQueue(SteppedClock())
        self.accelerator = SimpleNamespace(doorbells=False)
        self.chardevs = {"c": HostChar()}
        self.input = InputRouter(self.lock)
        self.isa = IsaBus("isa.0", self)

    def chardev(self, id):
        return self.chardevs[id]

    def plug(self, cls, **props):
        device = cls()
        device.set_props(
            {name.replace("_", "-") if name in ("kbd_irq",) else name: v for name, v in props.items()}
        )
        device.parent_bus = self.isa
        device.realize(self)
        device.reset()
        return device


@pytest.fixture
def platform():
    return Platform()


@pytest.mark.parametrize(
    ("index", "base", "irq"), [(0, 0x3F8, 4), (1, 0x2F8, 3), (2, 0x3E8, 4), (3, 0x2E8, 3)]
)
def test_com_ports_have_their_addresses_and_interrupts(platform, index, base, irq):
    platform.plug(IsaSerial, index=index)
    assert platform.io.read(base + 5, 1) == 0x60
    platform.io.write(base + 1, 1, 0x02)
    assert [n for n in range(16) if platform.isa.irqs.level(n)] == [irq]


def test_address_and_interrupt_can_be_given(platform):
    platform.plug(IsaSerial, iobase=0x100, irq=5)
    platform.io.write(0x101, 1, 0x02)
    assert platform.isa.irqs.level(5) == 1


def test_a_serial_byte_reaches_its_chardev(platform):
    platform.plug(IsaSerial, chardev="c")
    platform.io.write(0x3F8, 1, 0x41)
    assert platform.chardevs["c"].drain() == b"A"


def test_wide_accesses_are_split_into_registers(platform):
    platform.plug(IsaSerial)
    platform.io.write(0x3FE, 2, 0x5AFF)
    assert platform.io.read(0x3FF, 1) == 0x5A


def test_unrealize_gives_the_ports_back(platform):
    device = platform.plug(IsaSerial, chardev="c")
    device.unrealize()
    assert platform.io.read(0x3FD, 1) == 0xFF
    assert platform.chardevs["c"].deliver(b"x") == 0


@pytest.mark.parametrize(("index", "base"), [(0, 0x378), (1, 0x278), (2, 0x3BC)])
def test_lpt_ports_have_their_addresses(platform, index, base):
    platform.plug(IsaParallel, index=index)
    assert platform.io.read(base + 2, 1) == 0xCC


def test_the_debug_console_is_where_it_is_told(platform):
    platform.plug(IsaDebugcon, iobase=0x402, chardev="c")
    assert platform.io.read(0x402, 1) == 0xE9
    platform.io.write(0x402, 1, 0x42)
    assert platform.chardevs["c"].drain() == b"B"


def test_the_keyboard_controller_leaves_port_61_alone(platform):
    platform.plug(IsaI8042)
    assert platform.io.read(0x64, 1) == 0x18
    assert platform.io.read(0x61, 1) == 0xFF


def test_a_key_reaches_interrupt_1(platform):
    device = platform.plug(IsaI8042)
    with platform.lock:
        device.chip.keyboard.key("a", True)
    assert platform.isa.irqs.level(1) == 1


def test_reset_by_the_keyboard_controller_is_an_action(platform):
    platform.plug(IsaI8042)
    assert platform.io.write(0x64, 1, 0xFE) == Action.RESET


def test_a20_is_an_output(platform):
    device = platform.plug(IsaI8042)
    assert device.outputs["a20"][0].level == 1


def test_fw_cfg_with_and_without_dma(platform):
    device = platform.plug(FwCfgIo, dma_enabled=False)
    assert platform.io.read(0x514, 4) == 0xFFFFFFFF
    device.unrealize()
    platform.plug(FwCfgIo)
    assert platform.io.read(0x514, 4) == int.from_bytes(b"QEMU", "little")


def test_fw_cfg_holds_as_many_files_as_the_type_says(platform):
    device = platform.plug(FwCfgIo, **{"x-file-slots": 16})
    for n in range(16):
        device.add_file(f"f{n}", b"")
    with pytest.raises(BuildError):
        device.add_file("more", b"")


@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (IsaSerial, "index iobase irq chardev baudbase wakeup"),
        (IsaParallel, "index iobase irq chardev"),
        (IsaDebugcon, "iobase readback chardev"),
        (IsaI8042, "iobase kbd-irq mouse-irq extended-state kbd-throttle"),
        (FwCfgIo, "iobase dma_enabled x-file-slots acpi-mr-restore"),
    ],
)
def test_properties_have_qemus_names(cls, names):
    assert set(props_of(cls)) - {"id"} == set(names.split())


@pytest.mark.parametrize("cls", [IsaSerial, IsaParallel, IsaI8042, FwCfgIo])
def test_saved_state_is_that_of_a_fresh_device_and_loads(platform, cls):
    device = platform.plug(cls)
    state = device.save()
    device.load(state)
    assert device.save() == state
