"""Register behaviour of the serial port, the keyboard controller, the printer port, fw_cfg and the small
ports, access by access, beside QEMU's own devices driven through its qtest socket.
"""

import shutil
import socket
import subprocess
from random import Random

import pytest
from accel.api import DeviceLock, IrqFan
from accel.clock import SteppedClock, TimerQueue
from accel.dma import Dma
from accel.ram import RamBlock
from accel.space import AddressSpace, Region
from vmrun.devices.char.debugcon import DebugPort
from vmrun.devices.char.parallel import ParallelPort
from vmrun.devices.char.uart16550 import Uart16550
from vmrun.devices.input.i8042 import I8042
from vmrun.devices.misc.fw_cfg_chip import FwCfg

from vmrun.backends.chardev.base import NullChar

QEMU = shutil.which("qemu-system-x86_64")
pytestmark = [pytest.mark.peer, pytest.mark.skipif(QEMU is None, reason="QEMU is not installed")]


class Qemu:
    """QEMU with no CPU running; `inb`, `outb`, … go to its ports."""

    def __init__(self, directory):
        path = str(directory / "qtest")
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen(1)
        server.settimeout(20)
        self.process = subprocess.Popen(
            [
                QEMU, "-M", "pc-i440fx-2.6", "-accel", "tcg", "-S", "-display", "none", "-nodefaults", "-m",
                "16", "-qtest", f"unix:{path}", "-qtest-log", "/dev/null",
                "-chardev", "null,id=c", "-device", "isa-serial,chardev=c",
                "-chardev", "null,id=p", "-device", "isa-parallel,chardev=p",
                "-chardev", "null,id=d", "-device", "isa-debugcon,chardev=d",
                "-device", "isa-debug-exit", "-device", "pvpanic",
            ],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.link, _ = server.accept()
        self.link.settimeout(20)
        server.close()
        self.stream = self.link.makefile("rw")

    def ask(self, line):
        self.stream.write(line + "\n")
        self.stream.flush()
        answer = self.stream.readline().split()
        assert answer[0] == "OK", answer
        return int(answer[1], 0) if len(answer) > 1 else None

    def read(self, port, size=1):
        return self.ask(f"in{' bw l'[size]} {port:#x}")

    def write(self, port, value, size=1):
        self.ask(f"out{' bw l'[size]} {port:#x} {value:#x}")

    def memory(self, address, data):
        self.ask(f"write {address:#x} {len(data):#x} 0x{data.hex()}")

    def peek(self, address, count):
        self.stream.write(f"read {address:#x} {count:#x}\n")
        self.stream.flush()
        return bytes.fromhex(self.stream.readline().split()[1][2:])

    def close(self):
        self.stream.close()
        self.link.close()
        self.process.kill()
        self.process.wait()


class Ours:
    """The same devices of vmrun's at the same ports."""

    def __init__(self):
        ports = Region.container("io", 65536)
        memory = Region.container("system", 0)
        self.ram = RamBlock("ram", 16 << 20)
        memory.add(Region.ram("ram", self.ram), 0)
        self.space = AddressSpace("memory", memory)
        self.io = AddressSpace("io", ports, True)
        self.lock = DeviceLock()
        timers = TimerQueue(SteppedClock())
        fan = IrqFan("isa", 16)
        from accel.api import IrqLine

        def device(io, base, size):
            ports.add(Region.device("x", io, size), base)

        self.uart = Uart16550(IrqLine(fan, 4), timers, NullChar())
        device(self.uart, 0x3F8, 8)
        device(ParallelPort(IrqLine(fan, 7), NullChar()), 0x378, 8)
        device(DebugPort(NullChar()), 0xE9, 1)
        self.i8042 = I8042(IrqLine(fan, 1), IrqLine(fan, 12), IrqLine(), timers)
        device(self.i8042, 0x60, 1)
        device(self.i8042.command_port, 0x64, 1)
        self.fw_cfg = FwCfg(16, Dma(self.space))
        device(self.fw_cfg, 0x510, 2)
        device(self.fw_cfg.dma_port, 0x514, 8)

    def read(self, port, size=1):
        return self.io.read(port, size)

    def write(self, port, value, size=1):
        self.io.write(port, size, value)

    def memory(self, address, data):
        self.ram.write(address, data)

    def peek(self, address, count):
        return self.ram.read(address, count)


@pytest.fixture(scope="module")
def qemu(tmp_path_factory):
    machine = Qemu(tmp_path_factory.mktemp("qtest"))
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def ours():
    return Ours()


def same(qemu, ours, script):
    """Each step: (port, value) writes, port alone reads; the answers must agree."""
    for number, step in enumerate(script):
        port, *value = step if isinstance(step, tuple) else (step,)
        if value:
            for machine in (qemu, ours):
                machine.write(port, *value)
        else:
            theirs, mine = qemu.read(port), ours.read(port)
            assert mine == theirs, f"step {number}, port {port:#x}: {mine:#x}, QEMU says {theirs:#x}"


C = 0x3F8
ALL = [C + 1, C + 2, C + 3, C + 4, C + 5, C + 6, C + 7]


@pytest.mark.parametrize(
    "script",
    [
        ALL,
        [(C + 3, 0x80), C, C + 1, (C, 1), (C + 1, 2), C, C + 1, (C + 3, 3), C + 1, *ALL],
        [(C + 1, 0xFF), C + 1, C + 2, C + 2, (C + 1, 0), C + 2],
        [(C + 1, 2), C + 2, C + 2, (C, 65), C + 2, C + 2, (C + 1, 0), (C + 1, 2), C + 2, (C + 1, 0)],
        [(C + 2, 0xC7), C + 2, (C + 2, 0x01), C + 2, (C + 2, 0x00), C + 2, (C + 2, 0xC0), C + 2, (C + 2, 0)],
        [(C + 7, 0x5A), C + 7, (C + 4, 0xFF), C + 4, (C + 5, 0), C + 5, (C + 6, 0), (C + 4, 8), C + 4],
        [(C + 4, 0x18), (C, 0x41), C + 5, C, C + 5, (C + 4, 8)],
        [(C + 4, 0x18), (C, 0x41), (C, 0x42), C + 5, C + 5, C, C + 5, (C + 4, 8)],
        [(C + 2, 7), (C + 4, 0x18), *[(C, n) for n in range(16)], C + 5, (C, 99), C + 5, *[C] * 16, C + 5]
        + [(C + 4, 8), (C + 2, 0)],
        [(C + 2, 0x47), (C + 4, 0x18), (C + 1, 5), (C, 1), (C, 2), (C, 3), C + 2, (C, 4), C + 2, C, C + 2, C,
        C, C] + [C + 2, (C + 1, 0), (C + 4, 8), (C + 2, 0)],
        [(C + 3, 0x1B), C + 3, (C + 3, 0xFF), C + 3, (C + 3, 3)],
    ],
)  # fmt: skip
def test_the_serial_port_answers_as_qemus(qemu, ours, script):
    same(qemu, ours, script)


@pytest.mark.parametrize("mcr", range(16))
def test_loopback_turns_the_modem_outputs_into_inputs(qemu, ours, mcr):
    for machine in (qemu, ours):
        machine.write(C + 4, 0x10 | mcr)
    assert ours.read(C + 6) & 0xF0 == qemu.read(C + 6) & 0xF0
    for machine in (qemu, ours):
        machine.write(C + 4, 8)
        machine.read(C + 6)


K, S = 0x60, 0x64


def quiet(machine):
    """Both cables reset, nothing waiting, command byte as at power-on."""
    for port, value in ((S, 0x60), (K, 0x03), (K, 0xFF), (S, 0xD4), (K, 0xFF), (S, 0xAA)):
        machine.write(port, value)
        for _ in range(20):
            if machine.read(S) & 1:
                machine.read(K)


@pytest.mark.parametrize(
    "script",
    [
        [S, (S, 0x20), S, K, S, K],
        [(S, 0xAA), S, K, S],
        [(S, 0xAB), S, K, (S, 0xA9), S, K, (S, 0xC0), S, K],
        [(S, 0xD0), S, K, (S, 0xDD), (S, 0xD0), K, (S, 0xDF), (S, 0xD0), K],
        [(S, 0xD1), (K, 0xCF), (S, 0xD0), K],
        [(S, 0xD2), (K, 0x77), S, K, S, (S, 0xD3), (K, 0x78), S, K, S],
        [(S, 0x60), (K, 0x61), (S, 0x20), K, S, (S, 0x60), (K, 0x03)],
        [(S, 0xA7), (S, 0x20), K, (S, 0xA8), (S, 0x20), K, (S, 0xAD), (S, 0x20), K, (S, 0xAE), (S, 0x20), K],
        [(K, 0xEE), S, K, S, (K, 0xF2), K, S, K, K, S],
        [(K, 0xFF), S, K, K, S, (K, 0xF5), K, (K, 0xF4), K, S],
        [(K, 0xED), K, (K, 0x07), K, S, (K, 0xF3), K, (K, 0x20), K, S],
        [(K, 0xF0), K, (K, 0), K, K, S, (K, 0xF0), K, (K, 1), K, (K, 0xF0), K, (K, 0), K, K, (K, 0xF6), K],
        [(K, 0xF0), K, (K, 2), K, S],
        [(S, 0x60), (K, 0x43), (K, 0xF2), K, K, K, (K, 0xF0), K, (K, 0), K, K, (S, 0x60), (K, 3)],
        [(K, 0x00), K, S, (K, 0x55), K],
        [(S, 0xD4), (K, 0xFF), S, K, S, K, K, S],
        [(S, 0xD4), (K, 0xF2), K, K, S, (S, 0xD4), (K, 0xE9), K, K, K, K, S],
        [(S, 0xD4), (K, 0xE8), K, (S, 0xD4), (K, 1), K, (S, 0xD4), (K, 0xE7), K, (S, 0xD4), (K, 0xF4), K,
         (S, 0xD4), (K, 0xE9), K, K, K, K, (S, 0xD4), (K, 0xF6), K, (S, 0xD4), (K, 0xE9), K, K, K, K],
        [*[x for rate in (200, 100, 80) for x in ((S, 0xD4), (K, 0xF3), K, (S, 0xD4), (K, rate), K)],
         (S, 0xD4), (K, 0xF2), K, K, S],
        [*[x for rate in (200, 200, 80) for x in ((S, 0xD4), (K, 0xF3), K, (S, 0xD4), (K, rate), K)],
         (S, 0xD4), (K, 0xF2), K, K, S],
        [(S, 0xD4), (K, 0xEE), K, (S, 0xD4), (K, 0x42), K, (S, 0xD4), (K, 0xEC), K, S],
        [(S, 0xD4), (K, 0xF0), K, (S, 0xD4), (K, 0xE9), K, K, K, K, (S, 0xD4), (K, 0xEA), K, S],
        [(S, 0xD4), (K, 0xFF), K, K, K, (S, 0xD4), (K, 0xF2), K, K, S],
        [(S, 0xFF), (S, 0xF1), S],
    ],
)  # fmt: skip
def test_the_keyboard_controller_answers_as_qemus(qemu, ours, script):
    for machine in (qemu, ours):
        quiet(machine)
    same(qemu, ours, script)


P = 0x378


@pytest.mark.parametrize(
    "script",
    [
        [P, P + 1, P + 2, P + 3, P + 7],
        [(P, 0x41), P, (P + 2, 0x0D), P + 1, P + 2, (P + 2, 0x0C), P + 1, P + 1, P + 1, P + 2],
        [(P + 2, 0x08), P + 1, P + 2, (P + 2, 0x2C), P, P + 2, (P + 2, 0x0C), P],
        [(P + 1, 0), P + 1, (P + 3, 0), P + 3],
    ],
)
def test_the_printer_port_answers_as_qemus(qemu, ours, script):
    same(qemu, ours, script)


def test_the_debug_port_reads_back_its_mark(qemu, ours):
    same(qemu, ours, [0xE9, (0xE9, 0x41), 0xE9])


def test_fw_cfg_signature_and_version_read_alike(qemu, ours):
    for key, count in ((0, 6), (1, 6), (0x3FFF, 2), (0x7777, 2)):
        for machine in (qemu, ours):
            machine.write(0x510, key, 2)
        assert [ours.read(0x511) for _ in range(count)] == [qemu.read(0x511) for _ in range(count)]


def test_fw_cfg_selector_reads_the_data_byte_too(qemu, ours):
    for machine in (qemu, ours):
        machine.write(0x510, 0, 2)
    assert [ours.read(0x510) for _ in range(3)] == [qemu.read(0x510) for _ in range(3)]


def test_fw_cfg_refuses_wide_reads_alike(qemu, ours):
    for machine in (qemu, ours):
        machine.write(0x510, 0, 2)
    assert ours.read(0x510, 2) == qemu.read(0x510, 2)


def test_fw_cfg_dma_register_reads_its_signature(qemu, ours):
    for port, size in ((0x514, 4), (0x518, 4), (0x514, 1), (0x517, 1), (0x51A, 2)):
        assert ours.read(port, size) == qemu.read(port, size)


@pytest.mark.parametrize(
    ("control", "length", "address"),
    [
        (0x0000000A, 4, 0x2000),        # select 0, read
        (0x0001000A, 6, 0x2000),        # past the end: zeros
        (0x0000000C, 2, 0x2000),        # skip
        (0x00000002, 2, 0x2000),        # go on
        (0x00000010, 2, 0x2000),        # write
        (0x00000008, 9, 0x2000),        # select only
        (0x00000000, 9, 0x2000),
        (0x3FFF000A, 4, 0x2000),        # no such key
    ],
)  # fmt: skip
def test_fw_cfg_dma_transfers_alike(qemu, ours, control, length, address):
    results = []
    for machine in (qemu, ours):
        machine.memory(0x2000, b"\xaa" * 16)
        block = control.to_bytes(4, "big") + length.to_bytes(4, "big") + address.to_bytes(8, "big")
        machine.memory(0x1000, block)
        machine.write(0x514, 0, 4)
        machine.write(0x518, int.from_bytes((0x1000).to_bytes(4, "big"), "little"), 4)
        results.append((machine.peek(0x1000, 16), machine.peek(0x2000, 16)))
    assert results[1] == results[0]


def test_pvpanic_and_debug_exit_read_alike(qemu):
    """This type knows PANICKED only, which is compat data; the devices are cold: no machine is needed."""
    from vmrun.devices.misc.debug_exit import IsaDebugExit
    from vmrun.devices.misc.pvpanic import Pvpanic

    pvpanic = Pvpanic()
    pvpanic.set_props({"events": 1})
    assert pvpanic.read(0, 1) == qemu.read(0x505)
    assert IsaDebugExit().read(0, 1) == qemu.read(0x501)


def test_an_absent_register_bank_reads_all_ones(qemu, ours):
    assert ours.read(0x2F8 + 5) == qemu.read(0x2F8 + 5) == 0xFF


UART_VALUES = {
    0: range(256),
    1: range(8),  # without modem status: in loopback ours notes changes of the lines, QEMU's does not
    2: (0, 1, 3, 5, 7, 0x41, 0x81, 0xC1, 0xC7),
    3: (0x00, 0x03, 0x02, 0x80, 0x83),
    4: (0x08, 0x0B, 0x18, 0x1B),
    7: range(256),
}


@pytest.mark.parametrize("seed", range(40))
def test_random_accesses_to_the_serial_port_agree(qemu, ours, seed):
    random = Random(seed)
    script = [(C + 3, 0), (C + 4, 8), (C + 1, 0), (C + 2, 7), (C + 2, 0), C, C, C + 5, C + 2]
    for _ in range(80):
        if random.random() < 0.5:
            register = random.choice((0, 0, 0, 1, 2, 3, 4, 7))
            script.append((C + register, random.choice(UART_VALUES[register])))
        else:
            script.append(C + random.choice((0, 1, 2, 3, 4, 5, 5, 7)))
    same(qemu, ours, script)


KEYBOARD_OPERATIONS = [
    *([(S, c)] for c in (0x20, 0xA7, 0xA8, 0xA9, 0xAA, 0xAB, 0xAD, 0xAE, 0xC0, 0xD0, 0xDD, 0xDF, 0xF1, 0xFF)),
    *([(S, 0x60), (K, mode)] for mode in (0x00, 0x03, 0x30, 0x43, 0x47, 0x53, 0x61)),
    *([(S, c), (K, v)] for c, v in ((0xD2, 0x12), (0xD3, 0x34), (0xD1, 0xCF), (0xD1, 0xCD))),
    *([(K, c)] for c in (0xEE, 0xF2, 0xF4, 0xF5, 0xF6, 0xFF, 0x77, 0xE0, 0x05, 0x01)),
    *([(K, 0xF0), (K, v)] for v in range(4)),
    *([(K, c), (K, v)] for c, v in ((0xED, 7), (0xF3, 0x20))),
    *([(S, 0xD4), (K, c)] for c in (0xE6, 0xE7, 0xE9, 0xEA, 0xF0, 0xF2, 0xF4, 0xF5, 0xF6, 0xFF)),
    *([(S, 0xD4), (K, 0xE8), (S, 0xD4), (K, v)] for v in range(4)),
    *([(S, 0xD4), (K, 0xF3), (S, 0xD4), (K, v)] for v in (10, 40, 60)),
]


@pytest.mark.parametrize("seed", range(40))
def test_random_commands_to_the_keyboard_controller_agree(qemu, ours, seed):
    """Each command finds the buffer empty, as a driver sees to; what waits afterwards is read, compared."""
    random = Random(seed)
    for machine in (qemu, ours):
        quiet(machine)
    for _ in range(40):
        for step in random.choice(KEYBOARD_OPERATIONS):
            same(qemu, ours, [step, S])
            for _ in range(8):
                if qemu.read(S) & 1:
                    same(qemu, ours, [S, K, S])
