"""A real processor, the compiled UART on its thread, the main loop, a socket: a guest echoes all it gets."""

import os
import select
import socket
import time

import pytest
from accel.aio import IoThread
from accel.api import IrqLine
from accel.clock import TimerQueue, VirtualClock
from accel.space import Region
from vmrun.devices.char.uart16550 import Uart16550

from accel.kvm.accelerator import KvmAccelerator
from tests.unit.kvm.pc import EXIT, Pc
from vmrun.backends.chardev import open_chardev
from vmrun.core.loop import Loop

OK, REASON, _ = KvmAccelerator.probe()
pytestmark = [pytest.mark.kvm, pytest.mark.skipif(not OK, reason=REASON)]

# mov dx, 3fdh; again: in al, dx; test al, 1; jz again; mov dl, f8h; in al, dx; out dx, al; mov dl, fdh;
# cmp al, 'q'; jne again; out f4h, al; hlt
ECHO = "bafd03 ec a801 74fb b2f8 ec ee b2fd 3c71 75f1 e6f4 f4"
# mov cx, 8000h; mov dx, 3fdh; wait: in al, dx; test al, 20h; jz wait; mov dl, f8h; mov al, cl; out dx, al;
# mov dl, fdh; loop wait; out f4h, al; hlt
FLOOD = "b90080 bafd03 ec a820 74fb b2f8 88c8 ee b2fd e2f2 e6f4 f4"


class Serial:
    def __init__(self, code, path):
        self.pc = Pc(code)
        self.loop = Loop(self.pc.lock)
        self.backend = open_chardev(
            "c", {"type": "socket", "path": path, "server": True, "wait": False}, self.loop, self.pc.lock
        )
        clock = VirtualClock()
        timers = TimerQueue(clock)
        clock.start()
        self.iothread = IoThread(self.pc.lock)
        self.iothread.add_timers(timers)
        self.iothread.start()
        self.uart = Uart16550(IrqLine(), timers, self.backend)
        self.pc.ports.add(Region.device("serial", self.uart, 8), 0x3F8)
        self.client = socket.socket(socket.AF_UNIX)
        self.client.connect(path)
        self.client.setblocking(False)
        while not self.backend.connected:
            self.loop.run_once(0.05)

    def run(self, data, seconds=30.0, slow=False):
        """Send `data`, run the guest to its end, return (requests, what the guest sent)."""
        got, asked = bytearray(), []
        control = self.pc.control
        self.loop.add_fd(control.notifier.fileno(), lambda: asked.append(control.take()))
        self.pc.cpus()
        self.pc.accel.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not any(r & EXIT for r in asked):
            if data:
                try:
                    data = data[self.client.send(data[:1000]) :]
                except BlockingIOError:
                    pass
            self.loop.run_once(0.002)
            if slow:
                time.sleep(0.002)
            self._receive(got, 500 if slow else 1 << 16)
        self.pc.accel.stop()
        while (
            select.select((self.client,), (), (), 0.05)[0] or len(self.backend.output) or self.backend.pending
        ):
            self.loop.run_once(0)
            self._receive(got, 1 << 16)
        return asked, bytes(got)

    def _receive(self, got, count):
        try:
            got += self.client.recv(count)
        except BlockingIOError:
            pass

    def close(self):
        self.pc.close()
        self.loop.remove_fd(self.pc.control.notifier.fileno())
        self.iothread.close()
        self.backend.close()
        self.client.close()
        self.loop.close()


@pytest.fixture
def serial(tmp_path):
    made = []

    def make(code):
        made.append(Serial(code, str(tmp_path / "s")))
        return made[0]

    yield make
    made[0].close()


@pytest.mark.parametrize("fcr", [0x00, 0x01])
def test_what_the_guest_echoes_comes_back_whole(serial, fcr):
    data = os.urandom(2000).replace(b"q", b"Q") + b"q"
    made = serial(ECHO)
    made.uart.store(2, 1, fcr)
    requests, got = made.run(data)
    assert requests and got == data


def test_a_guest_that_floods_a_slow_reader_loses_nothing(serial):
    requests, got = serial(FLOOD).run(b"", slow=True)
    assert requests and got == bytes(n & 0xFF for n in range(0x8000, 0, -1))
