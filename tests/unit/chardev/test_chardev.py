"""Character back ends over real files, pseudo-terminals, sockets and pipes."""

import os
import select
import socket
import termios
import time

import pytest
from accel.api import DeviceLock

from vmrun.backends.chardev import open_chardev
from vmrun.backends.chardev.base import PyFrontend
from vmrun.backends.chardev.terminal import StdioChar
from vmrun.core.loop import Loop
from vmrun.errors import BackendError

CLOSED, OPENED, BREAK, DRAINED = 0, 1, 2, 3


class Device:
    """A front end with a little memory: takes `room` bytes, notes events."""

    def __init__(self, backend, room=1 << 20):
        self.backend, self.capacity = backend, room
        self.got, self.events = b"", []
        self.frontend = PyFrontend(self._receive, lambda: self.capacity, self.events.append)
        backend.frontend = self.frontend

    def _receive(self, data):
        assert len(data) <= self.capacity
        self.got += data
        self.capacity -= len(data)

    def make_room(self, count):
        self.capacity += count
        self.backend.accept_input()


class Rig:
    def __init__(self):
        self.lock = DeviceLock()
        self.loop = Loop(self.lock)
        self.errors = []
        self.loop.on_error = lambda where, exc: self.errors.append((where, exc))
        self.open_backends = []

    def open(self, **spec):
        backend = open_chardev("c0", spec, self.loop, self.lock)
        self.open_backends.append(backend)
        return backend

    def until(self, condition, seconds=5.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            self.loop.run_once(0.02)

    def turns(self, count=3):
        """Long enough for gathered output too."""
        end = time.monotonic() + 0.005
        while count > 0 or time.monotonic() < end:
            count -= 1
            self.loop.run_once(0)

    def write(self, backend, data):
        with self.lock:
            return backend.write(data)


@pytest.fixture
def rig():
    made = Rig()
    yield made
    for backend in made.open_backends:
        backend.close()
    made.loop.close()
    assert made.errors == []


def read_all(fd, count, seconds=5.0):
    out = b""
    end = time.monotonic() + seconds
    while len(out) < count and time.monotonic() < end:
        if select.select((fd,), (), (), 0.05)[0]:
            out += os.read(fd, count - len(out))
    return out


# --- null, ring, file, pipe ---------------------------------------------------------------------------------


def test_null_takes_everything_for_ever(rig):
    backend = rig.open(type="null")
    assert backend.output is not None


def test_ring_keeps_the_last_bytes(rig):
    from vmrun.devices.char.debugcon import DebugPort

    from vmrun.backends.chardev.base import RingChar

    ring = RingChar(capacity=8)
    port = DebugPort(ring)
    for byte in b"0123456789ab":
        port.store(0, 1, byte)
    assert ring.text() == b"456789ab"


def test_a_ring_with_a_log_keeps_the_last_bytes_and_logs_them_all(rig, tmp_path):
    backend = rig.open(type="ringbuf", size=8, logfile=str(tmp_path / "log"))
    device = Device(backend)
    sent = bytes(range(256)) * 1024  # more than waits at once
    at = 0
    while at < len(sent):
        taken = rig.write(backend, sent[at : at + 50000])
        at += taken
        rig.turns()
    assert DRAINED in device.events
    with rig.lock:
        assert backend.text() == sent[-8:]
        assert backend.take(3) == sent[-8:-5]
        assert backend.text() == sent[-5:]
    assert (tmp_path / "log").read_bytes() == sent


def test_file_receives_the_output(rig, tmp_path):
    backend = rig.open(type="file", path=str(tmp_path / "log"))
    rig.write(backend, b"hello")
    rig.until(lambda: (tmp_path / "log").read_bytes() == b"hello")


def test_file_is_truncated_unless_append(rig, tmp_path):
    (tmp_path / "a").write_bytes(b"old ")
    (tmp_path / "b").write_bytes(b"old ")
    one = rig.open(type="file", path=str(tmp_path / "a"))
    two = rig.open(type="file", path=str(tmp_path / "b"), append=True)
    rig.write(one, b"new")
    rig.write(two, b"new")
    rig.until(lambda: (tmp_path / "b").read_bytes() == b"old new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_close_writes_what_still_waits(rig, tmp_path):
    backend = rig.open(type="file", path=str(tmp_path / "log"))
    rig.write(backend, b"last words")
    backend.close()
    assert (tmp_path / "log").read_bytes() == b"last words"


def test_a_full_disk_loses_output_and_not_the_guest(rig):
    backend = rig.open(type="file", path="/dev/full")
    device = Device(backend)
    rig.write(backend, b"x" * 10)
    rig.until(lambda: CLOSED in device.events)
    assert rig.write(backend, b"y" * 100000) == 100000


@pytest.mark.parametrize("path", ["/nonexistent/dir/log", "/"])
def test_a_file_that_cannot_be_opened_is_an_error_with_a_remedy(rig, path):
    with pytest.raises(BackendError) as error:
        rig.open(type="file", path=path)
    assert path in str(error.value) and error.value.remedy


def test_an_unknown_type_names_the_known_ones(rig):
    with pytest.raises(BackendError) as error:
        rig.open(type="carrier-pigeon")
    assert "socket" in error.value.remedy


def test_pipe_pair_goes_both_ways(rig, tmp_path):
    base = str(tmp_path / "p")
    os.mkfifo(base + ".in")
    os.mkfifo(base + ".out")
    backend = rig.open(type="pipe", path=base)
    device = Device(backend)
    reader = os.open(base + ".out", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(base + ".in", os.O_WRONLY)
    os.write(writer, b"in")
    rig.write(backend, b"out")
    rig.until(lambda: device.got == b"in")
    assert read_all(reader, 3) == b"out"
    os.close(reader)
    os.close(writer)


def test_a_pipe_that_is_none_is_an_error(rig, tmp_path):
    (tmp_path / "p").write_bytes(b"")
    with pytest.raises(BackendError, match="no named pipe"):
        rig.open(type="pipe", path=str(tmp_path / "p"))


# --- pty ----------------------------------------------------------------------------------------------------


def test_pty_carries_bytes_both_ways_unchanged(rig):
    backend = rig.open(type="pty")
    device = Device(backend)
    slave = os.open(backend.address, os.O_RDWR | os.O_NOCTTY)
    rig.until(lambda: backend.connected)
    data = bytes(range(256))
    rig.write(backend, data)
    rig.turns()
    assert read_all(slave, 256) == data
    os.write(slave, data)
    rig.until(lambda: device.got == data)
    os.close(slave)


def test_pty_without_a_reader_never_stops_the_guest(rig):
    backend = rig.open(type="pty")
    assert rig.write(backend, b"x" * 200000) == 200000


def test_pty_can_be_opened_again(rig):
    backend = rig.open(type="pty")
    for _ in range(2):
        slave = os.open(backend.address, os.O_RDWR | os.O_NOCTTY)
        rig.until(lambda: backend.connected)
        os.close(slave)
        rig.until(lambda: not backend.connected)


# --- sockets ------------------------------------------------------------------------------------------------


def connect(rig, path):
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    client.settimeout(5)
    return client


@pytest.fixture
def server(rig, tmp_path):
    backend = rig.open(type="socket", path=str(tmp_path / "s"), server=True, wait=False)
    return backend, str(tmp_path / "s")


def test_unix_server_talks_with_its_client(rig, server):
    backend, path = server
    device = Device(backend)
    client = connect(rig, path)
    client.sendall(b"ping")
    rig.until(lambda: device.got == b"ping")
    rig.write(backend, b"pong")
    rig.turns()
    assert client.recv(10) == b"pong"
    assert device.events[0] == OPENED
    client.close()


def test_output_without_a_client_vanishes(rig, server):
    backend, _ = server
    assert rig.write(backend, b"x" * 200000) == 200000


def test_a_server_takes_the_next_client_after_the_first(rig, server):
    backend, path = server
    device = Device(backend)
    for text in (b"one", b"two"):
        client = connect(rig, path)
        client.sendall(text)
        rig.until(lambda text=text: device.got.endswith(text))
        client.close()
        rig.until(lambda: not backend.connected)
    assert device.got == b"onetwo"


def test_a_client_that_leaves_while_the_device_is_full_loses_nothing(rig, server):
    backend, path = server
    device = Device(backend, room=4)
    client = connect(rig, path)
    client.sendall(b"0123456789")
    client.close()
    rig.until(lambda: len(device.got) == 4 and not backend.connected)
    rig.lock.__enter__()
    device.make_room(100)
    rig.lock.__exit__()
    rig.until(lambda: device.got == b"0123456789")


def test_input_waits_until_the_device_has_room(rig, server):
    backend, path = server
    device = Device(backend, room=3)
    client = connect(rig, path)
    client.sendall(b"abcdef")
    rig.until(lambda: device.got == b"abc")
    rig.turns()
    assert device.got == b"abc"
    with rig.lock:
        device.make_room(2)
    rig.until(lambda: device.got == b"abcde")
    client.close()


def test_a_client_that_does_not_read_fills_the_ring_and_then_the_device_waits(rig, server):
    backend, path = server
    device = Device(backend)
    client = connect(rig, path)
    rig.until(lambda: backend.connected)
    total, data = 0, b"z" * 65536
    for _ in range(200):
        count = rig.write(backend, data)
        total += count
        rig.turns(2)
        if count == 0:
            break
    assert count == 0, "the ring never filled"
    device.events.clear()
    received = 0
    while received < total:
        rig.loop.run_once(0)
        if select.select((client,), (), (), 0)[0]:
            received += len(client.recv(1 << 20))
    assert DRAINED in device.events
    client.close()


def test_bytes_written_in_bursts_arrive_in_order(rig, server):
    backend, path = server
    client = connect(rig, path)
    rig.until(lambda: backend.connected)
    data = os.urandom(300000)
    sent, got = 0, b""
    while len(got) < len(data):
        sent += rig.write(backend, data[sent : sent + 40000])
        rig.loop.run_once(0)
        if select.select((client,), (), (), 0)[0]:
            got += client.recv(100000)
    assert got == data
    client.close()


def test_a_second_client_is_not_served(rig, server):
    backend, path = server
    first = connect(rig, path)
    rig.until(lambda: backend.connected)
    second = connect(rig, path)
    second.sendall(b"me too")
    device = Device(backend)
    rig.turns()
    assert device.got == b""
    first.close()
    second.close()


def test_the_socket_file_goes_with_the_backend(rig, server):
    backend, path = server
    backend.close()
    assert not os.path.exists(path)


def test_a_stale_socket_file_is_replaced(rig, tmp_path):
    path = str(tmp_path / "s")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()
    rig.open(type="socket", path=path, server=True, wait=False)
    connect(rig, path).close()


def test_an_empty_file_that_keeps_the_name_makes_way_for_a_socket_and_another_does_not(rig, tmp_path):
    path = tmp_path / "mkstemp"
    path.touch()
    rig.open(type="socket", path=str(path), server=True, wait=False)
    connect(rig, str(path)).close()
    path = tmp_path / "disk.img"
    path.write_text("precious")
    with pytest.raises(BackendError, match="cannot listen"):
        rig.open(type="socket", path=str(path), server=True, wait=False)
    assert path.read_text() == "precious"


def test_a_socket_in_use_is_refused_with_a_remedy(rig, server):
    _, path = server
    with pytest.raises(BackendError) as error:
        rig.open(type="socket", path=path, server=True, wait=False)
    assert "another program" in error.value.remedy


def test_a_used_tcp_port_is_refused(rig):
    other = socket.create_server(("127.0.0.1", 0))
    with pytest.raises(BackendError, match="cannot listen"):
        rig.open(type="socket", host="127.0.0.1", port=other.getsockname()[1], server=True, wait=False)
    other.close()


def test_a_client_without_a_server_is_refused(rig, tmp_path):
    with pytest.raises(BackendError) as error:
        rig.open(type="socket", path=str(tmp_path / "nobody"))
    assert "start the server first" in error.value.remedy


def test_a_path_too_long_for_a_socket_is_refused(rig):
    with pytest.raises(BackendError, match="107"):
        rig.open(type="socket", path="/tmp/" + "x" * 200, server=True)


def test_tcp_client_connects_and_carries_bytes(rig):
    listener = socket.create_server(("127.0.0.1", 0))
    backend = rig.open(type="socket", host="127.0.0.1", port=listener.getsockname()[1], nodelay=True)
    device = Device(backend)
    peer, _ = listener.accept()
    peer.sendall(b"hi")
    rig.until(lambda: device.got == b"hi")
    rig.write(backend, b"ho")
    rig.turns()
    assert peer.recv(10) == b"ho"
    peer.close()
    listener.close()


def test_tcp_server_names_the_port_it_got(rig):
    backend = rig.open(type="socket", host="127.0.0.1", port=0, server=True, wait=False)
    port = int(backend.address.rsplit(":", 1)[1])
    socket.create_connection(("127.0.0.1", port)).close()


def test_a_lost_server_is_tried_again(rig, tmp_path):
    path = str(tmp_path / "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(2)
    backend = rig.open(type="socket", path=path, reconnect=0.01)
    first, _ = listener.accept()
    rig.until(lambda: backend.connected)
    first.close()
    rig.until(lambda: not backend.connected)
    rig.until(lambda: backend.connected)
    listener.close()


def test_wait_returns_with_the_first_client(rig, tmp_path):
    backend = rig.open(type="socket", path=str(tmp_path / "s"), server=True)
    assert backend.wait(0.01) is False
    client = connect(rig, str(tmp_path / "s"))
    assert backend.wait(5) is True
    client.close()


def test_telnet_hides_its_options_and_doubles_255(rig, tmp_path):
    backend = rig.open(type="socket", path=str(tmp_path / "s"), server=True, wait=False, telnet=True)
    device = Device(backend)
    client = connect(rig, str(tmp_path / "s"))
    client.sendall(b"a\xff\xfb\x01b\xff\xffc\xff\xfa\x18\x00\xff\xf0d\xff\xf3")
    rig.until(lambda: device.got == b"ab\xffcd" and BREAK in device.events)
    rig.write(backend, b"x\xffy")
    rig.turns()
    assert client.recv(100).endswith(b"x\xff\xffy")
    client.close()


# --- the terminal -------------------------------------------------------------------------------------------


@pytest.fixture
def terminal():
    """(our end, the end that vmrun gets)"""
    master, slave = os.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def settings(fd):
    return termios.tcgetattr(fd)[:4]


def test_stdio_is_raw_while_open_and_restored_afterwards(rig, terminal):
    _, slave = terminal
    before = settings(slave)
    backend = StdioChar("c0", rig.loop, rig.lock, input_fd=slave, output_fd=slave)
    assert not settings(slave)[3] & (termios.ICANON | termios.ECHO)
    backend.close()
    assert settings(slave) == before


def test_stdio_leaves_the_blocking_mode_of_the_terminal_alone(rig, terminal):
    _, slave = terminal
    backend = StdioChar("c0", rig.loop, rig.lock, input_fd=slave, output_fd=slave)
    assert os.get_blocking(slave)
    backend.close()


def test_stdio_carries_bytes_both_ways(rig, terminal):
    master, slave = terminal
    backend = StdioChar("c0", rig.loop, rig.lock, input_fd=slave, output_fd=slave)
    device = Device(backend)
    os.write(master, b"ls\r")
    rig.until(lambda: device.got == b"ls\r")
    rig.write(backend, b"out")
    rig.turns()
    assert read_all(master, 3) == b"out"
    backend.close()


def test_signal_false_sends_ctrl_c_to_the_guest(rig, terminal):
    master, slave = terminal
    backend = StdioChar("c0", rig.loop, rig.lock, signal=False, input_fd=slave, output_fd=slave)
    device = Device(backend)
    os.write(master, b"\x03")
    rig.until(lambda: device.got == b"\x03")
    backend.close()


def test_end_of_input_keeps_the_output(rig):
    quiet_r, quiet_w = os.pipe()
    out_r, out_w = os.pipe()
    os.close(quiet_w)
    backend = StdioChar("c0", rig.loop, rig.lock, input_fd=quiet_r, output_fd=out_w)
    Device(backend)
    rig.turns()
    rig.write(backend, b"still here")
    rig.turns()
    assert read_all(out_r, 10) == b"still here"
    backend.close()
    for fd in (quiet_r, out_r, out_w):
        os.close(fd)


def test_bytes_close_together_go_out_in_one_piece(rig, server):
    backend, path = server
    client = connect(rig, path)
    rig.until(lambda: backend.connected)
    writes = []
    plain = backend.write_some
    backend.write_some = lambda data: (writes.append(data), plain(data))[1]
    for byte in b"0123456789":
        rig.write(backend, bytes([byte]))
        rig.loop.run_once(0)
    rig.turns()
    assert b"".join(writes) == b"0123456789" and len(writes) < 8
    client.close()


@pytest.mark.parametrize("kind", ["null", "socket", "ringbuf", "file", "pty", "pipe", "udp"])
def test_a_log_has_all_output_from_the_first_byte_on(rig, tmp_path, kind):
    log = tmp_path / "log"
    log.write_bytes(b"before\n")
    spec = {"type": kind, "path": str(tmp_path / "s"), "server": True, "wait": False, "logfile": str(log)}
    if kind == "pipe":
        os.mkfifo(tmp_path / "s.in")
        os.mkfifo(tmp_path / "s.out")
    if kind == "udp":
        spec |= {"host": "127.0.0.1", "port": 9}
    made = open_chardev("c", {**spec, "logappend": True}, rig.loop, rig.lock)
    with rig.lock:
        made.write(b"nobody listens")
    rig.until(lambda: log.read_bytes() == b"before\nnobody listens")
    made.close()
    made = open_chardev("c", spec, rig.loop, rig.lock)
    with rig.lock:
        made.write(b"anew")
    rig.until(lambda: log.read_bytes() == b"anew")
    made.close()
