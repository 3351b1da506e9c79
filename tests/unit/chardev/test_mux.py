"""Chardevs that several share: the terminal, and others with `mux: true`."""

# ruff: noqa: F401, F811  (fixtures of the other file)

import os
import select
import socket
import time

import pytest

from tests.unit.chardev.test_chardev import BREAK, Device, read_all, rig, terminal
from vmrun.backends.chardev import open_chardev
from vmrun.backends.chardev.mux import Mux, shared


class MuxRig:
    def __init__(self, rig, terminal):
        self.rig, (self.master, slave) = rig, terminal
        self.commands = []
        table = {"x": ("end it", lambda: self.commands.append("x"))}
        self.mux = Mux("mux", rig.loop, rig.lock, table, input_fd=slave, output_fd=slave)
        self.serial, self.monitor = self.mux.add_port("serial"), self.mux.add_port("monitor")
        self.devices = Device(self.serial), Device(self.monitor)

    def type(self, data):
        os.write(self.master, data)
        self.rig.until(lambda: not select.select((self.mux.read_fd,), (), (), 0)[0])
        self.rig.turns()


@pytest.fixture
def mux(rig, terminal):
    made = MuxRig(rig, terminal)
    yield made
    made.mux.close()


def test_mux_gives_input_to_the_first_console(mux):
    mux.type(b"abc")
    assert (mux.devices[0].got, mux.devices[1].got) == (b"abc", b"")


def test_mux_ctrl_a_c_moves_the_input_on(mux):
    mux.type(b"a\x01cb\x01cc")
    assert (mux.devices[0].got, mux.devices[1].got) == (b"ac", b"b")


def test_mux_ctrl_a_twice_sends_one(mux):
    mux.type(b"\x01\x01x")
    assert mux.devices[0].got == b"\x01x"


def test_mux_escape_may_come_in_two_pieces(mux):
    mux.type(b"\x01")
    mux.type(b"x")
    assert mux.commands == ["x"]


def test_mux_ctrl_a_x_works_though_the_guest_takes_no_input(mux):
    mux.devices[0].capacity = 0
    mux.type(b"lots of typing" * 20)
    mux.type(b"\x01x")
    assert mux.commands == ["x"]


def test_mux_keeps_typed_bytes_until_the_guest_has_room(mux):
    mux.devices[0].capacity = 2
    mux.type(b"abcd")
    with mux.rig.lock:
        mux.devices[0].make_room(10)
    mux.rig.until(lambda: mux.devices[0].got == b"abcd")


def test_mux_ctrl_a_b_breaks(mux):
    mux.type(b"\x01b")
    assert mux.devices[0].events == [BREAK]


def test_mux_ctrl_a_h_explains_itself(mux):
    mux.type(b"\x01h")
    shown = read_all(mux.master, 150)
    assert b"Ctrl-A x      end it" in shown and b"Ctrl-A b      send a break" in shown
    assert b"Ctrl-A s" not in shown  # nobody has given it a meaning


def test_mux_shows_the_output_of_all_consoles(mux):
    for port, text in ((mux.serial, b"serial "), (mux.monitor, b"monitor")):
        mux.rig.write(port, text)
    mux.rig.turns()
    assert sorted(read_all(mux.master, 14).split()) == [b"monitor", b"serial"]


def test_mux_carries_more_than_the_terminal_takes_at_once(mux):
    data = bytes(65 + n % 26 for n in range(60000))
    assert mux.rig.write(mux.serial, data) == len(data)
    got = b""
    end = time.monotonic() + 10
    while len(got) < len(data) and time.monotonic() < end:
        mux.rig.loop.run_once(0)
        got += read_all(mux.master, 4096, 0.01)
    assert got == data


def test_mux_time_stamps_start_each_line(mux):
    mux.type(b"\x01t")
    mux.rig.write(mux.serial, b"one\ntwo\n")
    mux.rig.turns()
    lines = read_all(mux.master, 40).splitlines()
    assert [line.split(b"] ")[1] for line in lines] == [b"one", b"two"]


def test_a_stdio_chardev_on_a_shared_terminal_is_one_of_its_consoles(mux):
    backend = open_chardev("c1", {"type": "stdio"}, mux.rig.loop, mux.rig.lock, mux.mux)
    assert backend in mux.mux.ports


# --- any chardev of two sides --------------------------------------------------------------------------------


@pytest.fixture
def line(rig, tmp_path):
    """(mux on a listening socket, its two devices, a client)"""
    spec = {"type": "socket", "path": str(tmp_path / "s"), "server": True, "wait": False, "mux": True}
    found = shared("c", spec, rig.loop, rig.lock)
    ports = found.add_port("c"), found.add_port("c")
    devices = Device(ports[0]), Device(ports[1])
    client = socket.socket(socket.AF_UNIX)
    client.connect(spec["path"])
    rig.until(lambda: found.connected)
    yield found, devices, client
    client.close()
    found.close()


def test_a_shared_socket_gives_input_to_one_and_takes_output_of_all(rig, line):
    found, (first, second), client = line
    client.sendall(b"a\x01cb")
    rig.until(lambda: second.got)
    assert (first.got, second.got) == (b"a", b"b")
    for device in (first, second):
        rig.write(device.backend, b"x")
    rig.turns()
    assert read_all(client.fileno(), 9, 0.2).count(b"x") == 2


def test_all_users_of_a_shared_socket_see_its_client_come_and_go(rig, line):
    found, devices, client = line
    assert all(device.backend.connected for device in devices)
    client.close()
    rig.until(lambda: not found.connected)
    assert [device.events[-1] for device in devices] == [0, 0]


def test_who_turns_to_a_console_is_told(mux):
    turned = []
    mux.monitor.on_focus = lambda: turned.append("monitor")
    mux.type(b"\x01c")
    assert turned == ["monitor"] and mux.monitor.focused


def test_a_shared_chardev_closes_with_its_last_user(rig, line):
    found, devices, _ = line
    devices[0].backend.close()
    assert not found.closed
    devices[1].backend.close()
    assert found.closed


# --- inherited descriptors ------------------------------------------------------------------------------------


def test_a_chardev_on_an_inherited_socket_talks(rig):
    ours, theirs = socket.socketpair()
    backend = rig.open(type="socket", fd=theirs.fileno())
    device = Device(backend)
    ours.sendall(b"in")
    rig.until(lambda: device.got == b"in")
    rig.write(backend, b"out")
    rig.turns()
    assert read_all(ours.fileno(), 3) == b"out"
    ours.close()
    theirs.close()


def test_a_server_on_an_inherited_listener_takes_clients(rig):
    listener = socket.create_server(("127.0.0.1", 0))
    backend = rig.open(type="socket", fd=listener.fileno(), server=True, wait=False)
    Device(backend)
    client = socket.create_connection(listener.getsockname())
    rig.until(lambda: backend.connected)
    client.close()
    listener.close()


def test_a_descriptor_that_is_no_socket_is_refused(rig):
    from vmrun.errors import BackendError

    with open(os.devnull, "rb") as file, pytest.raises(BackendError, match="is no socket"):
        rig.open(type="socket", fd=file.fileno())
