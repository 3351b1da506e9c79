"""The small ports by which a guest speaks to its host."""

import pytest
from accel.api import Action

from vmrun.devices.misc.debug_exit import IsaDebugExit
from vmrun.devices.misc.pvpanic import Pvpanic
from vmrun.devices.misc.vmport import Vmport


class Platform:
    """What these devices use of a machine."""

    def __init__(self, registers=None):
        from accel.space import AddressSpace, Region

        self.system_io = Region.container("io", 65536)
        self.io = AddressSpace("io", self.system_io, True)
        self.files = {}
        self.ram_size = 256 << 20
        self.uuid = "00112233-4455-6677-8899-aabbccddeeff"
        self.cpu_registers = lambda: registers
        self.wanted = 0

    def tell(self, event, **data):
        self.files[event] = data

    def want_registers(self):
        self.wanted += 1

    def add_fw_cfg_file(self, name, data):
        self.files[name] = data


def plug(device, platform):
    from vmrun.bus.isa import IsaBus

    device.parent_bus = IsaBus("isa.0", platform)
    device.realize(platform)
    device.reset()
    return device


@pytest.mark.parametrize(("value", "code"), [(0, 1), (1, 3), (0x10, 0x21), (0xFF, 0xFF)])
def test_debug_exit_ends_with_an_odd_code(value, code):
    platform = Platform()
    device = plug(IsaDebugExit(), platform)
    assert platform.io.write(0x501, 1, value) == Action.EXIT
    assert device.exit_code == code


def test_debug_exit_takes_as_many_ports_as_it_is_told():
    platform = Platform()
    device = IsaDebugExit()
    device.set_props({"iobase": 0xF4, "iosize": 4})
    plug(device, platform)
    assert platform.io.write(0xF4, 4, 0x11) == Action.EXIT
    assert device.exit_code == 0x23


@pytest.mark.parametrize(("events", "seen"), [(3, 3), (1, 1)])
def test_pvpanic_tells_which_events_it_knows(events, seen):
    platform = Platform()
    device = Pvpanic()
    device.set_props({"events": events})
    plug(device, platform)
    assert platform.io.read(0x505, 1) == seen


@pytest.mark.parametrize(
    ("value", "action"), [(1, Action.PANIC), (3, Action.PANIC), (2, Action.NONE), (0x80, Action.NONE)]
)
def test_pvpanic_acts_on_a_panic_only(value, action):
    platform = Platform()
    plug(Pvpanic(), platform)
    assert platform.io.write(0x505, 1, value) == action


def test_pvpanic_tells_the_firmware_its_port():
    platform = Platform()
    plug(Pvpanic(), platform)
    assert platform.files == {"etc/pvpanic-port": b"\x05\x05"}


def test_vmport_without_registers_looks_absent():
    platform = Platform()
    plug(Vmport(), platform)
    assert platform.io.read(0x5658, 4) == 0xFFFFFFFF
    assert platform.wanted == 1


def registers(command, magic=0x564D5868):
    return {"eax": magic, "ebx": 0, "ecx": command, "edx": 0x5658}


def test_vmport_version_is_6_with_the_magic_in_ebx():
    cpu = registers(10)
    platform = Platform(cpu)
    plug(Vmport(), platform)
    assert platform.io.read(0x5658, 4) == 6
    assert (cpu["ebx"], cpu["ecx"]) == (0x564D5868, 2)


def test_vmport_gives_the_memory_size():
    platform = Platform(registers(20))
    plug(Vmport(), platform)
    assert platform.io.read(0x5658, 4) == 256 << 20


def test_vmport_gives_the_uuid():
    cpu = registers(19)
    platform = Platform(cpu)
    plug(Vmport(), platform)
    assert platform.io.read(0x5658, 4) == 0x33221100
    assert (cpu["ebx"], cpu["ecx"], cpu["edx"]) == (0x77665544, 0xBBAA9988, 0xFFEEDDCC)


@pytest.mark.parametrize(("cpu", "signal", "answer"), [
    (registers(99), True, 0xFFFFFFFF), (registers(99), False, 0x564D5868), (registers(10, magic=1), True,
    0xFFFFFFFF),
])  # fmt: skip
def test_vmport_unknown_commands(cpu, signal, answer):
    platform = Platform(cpu)
    device = Vmport()
    device.set_props({"x-signal-unsupported-cmd": signal})
    plug(device, platform)
    assert platform.io.read(0x5658, 4) == answer
