"""Clients on sockets: many, rude, gone."""

from __future__ import annotations

import json
import pathlib
import socket
from collections.abc import Callable

import pytest

from tests.board import Driven
from vmrun.backends.chardev.socket import ManyChar
from vmrun.errors import BackendError
from vmrun.monitor import port
from vmrun.monitor.server import Monitors


@pytest.fixture
def pc(tmp_path: pathlib.Path):
    with Driven(tmp_path, machine="pc-i440fx-2.0", memory="16MiB") as pc:
        yield pc


@pytest.fixture
def monitors(pc: Driven):
    found = Monitors(pc.machine)
    yield found
    found.close()


def turn(monitors: Monitors, until: Callable[[], object], most: int = 20_000) -> None:
    """Run the loop until something is so."""
    for _ in range(most):
        if until():
            return
        monitors.machine.loop.run_once(0.001)
    raise AssertionError("it does not come about")


def dial(path: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(path)
    peer.setblocking(False)
    return peer


def read(monitors: Monitors, peer: socket.socket, lines: int = 1) -> list[dict]:
    data = b""

    def more() -> bool:
        nonlocal data
        try:
            data += peer.recv(1 << 16)
        except BlockingIOError:
            pass
        return data.count(b"\n") >= lines

    turn(monitors, more)
    return [json.loads(line) for line in data.splitlines()]


def shown(monitors: Monitors, peer: socket.socket) -> bytes:
    """All that a person's monitor says until it prompts."""
    data = b""

    def more() -> bool:
        nonlocal data
        try:
            data += peer.recv(1 << 16)
        except BlockingIOError:
            pass
        return data.endswith(b"(qemu) ")

    turn(monitors, more)
    return data


def serve(pc: Driven, path: str, make: port.Make, patience: float = port.PATIENCE) -> ManyChar:
    """A server whose clients have sessions of the test's."""
    loop, lock = pc.machine.loop, pc.board.lock
    found = ManyChar("c", {"path": path, "server": True}, loop, lock)
    found.serve(lambda peer: port.Port(loop, lock, peer, make, patience=patience))
    return found


def gone(monitors: Monitors, peer: socket.socket) -> bool:
    """True when our side has closed it; what it sent before is thrown away."""
    try:
        while peer.recv(1 << 16):
            pass
        return True
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_two_hundred_clients_are_served(monitors: Monitors, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "qmp")
    listener = monitors.listen({"path": path})
    peers = []
    for _ in range(200):
        peers.append(dial(path))
        turn(monitors, lambda: len(listener.peers) == len(peers))
    for peer in peers:
        peer.sendall(b'{"execute": "qmp_capabilities"}\n{"execute": "query-name", "id": 1}\n')
    for peer in peers:
        assert read(monitors, peer, 3)[2] == {"id": 1, "return": {"name": "driven"}}
        peer.close()
    turn(monitors, lambda: not listener.peers)
    assert monitors.qmp == {}


def test_a_client_that_does_not_read_is_closed_in_the_end(pc: Driven, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "s")

    class Chatty:
        def __init__(self, client: port.Port) -> None:
            self.client = client

        def feed(self, data: bytes) -> None:
            self.client.send(b"x" * (1 << 20))

    listener = serve(pc, path, Chatty, patience=0.05)
    peer = dial(path)
    monitors = Monitors(pc.machine)
    turn(monitors, lambda: listener.peers)
    peer.sendall(b"say\n")
    turn(monitors, lambda: not listener.peers)
    listener.close()


def test_what_waits_for_a_client_has_a_limit(pc: Driven, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "s")
    clients: list[port.Port] = []

    class Quiet:
        def __init__(self, client: port.Port) -> None:
            clients.append(client)

        def feed(self, data: bytes) -> None: ...

    listener = serve(pc, path, Quiet)
    peer = dial(path)
    monitors = Monitors(pc.machine)
    turn(monitors, lambda: clients)
    for _ in range(100):
        clients[0].send(b"x" * (1 << 20))
        assert len(clients[0].pending) <= port.LIMIT + (1 << 20)
    turn(monitors, lambda: not listener.peers)
    turn(monitors, lambda: gone(monitors, peer))
    listener.close()


@pytest.mark.parametrize("command", ["query-commands", "query-qmp-schema"])
def test_commands_of_a_client_that_does_not_read_wait(monitors: Monitors, tmp_path: pathlib.Path, command: str) -> None:
    path = str(tmp_path / "qmp")
    listener = monitors.listen({"path": path})
    peer = dial(path)
    turn(monitors, lambda: listener.peers)
    (peer_of,) = listener.peers
    (client,) = monitors.ports
    asked = [
        b'{"execute": "qmp_capabilities"}',
        *(b'{"execute": "%s", "id": %d}' % (command.encode(), n) for n in range(200)),
    ]
    flood, sent = b"\n".join(asked) + b"\n", 0
    for _ in range(100):
        try:
            sent += peer.send(flood[sent:])
        except BlockingIOError:
            pass
        monitors.machine.loop.run_once(0)
    assert peer_of in listener.peers
    assert len(client.pending) < port.BUSY + (1 << 20)  # one answer is as long as it is
    got = bytearray()

    def read() -> bool:
        try:
            got.extend(peer.recv(1 << 20))
        except BlockingIOError:
            pass
        return got.count(b"\n") == 2 + 200

    turn(monitors, read)
    assert [json.loads(line).get("id") for line in got.splitlines()[2:]] == list(range(200))


def test_a_hundred_megabytes_are_refused_and_the_next_command_is_heard(
    monitors: Monitors, tmp_path: pathlib.Path
) -> None:
    path = str(tmp_path / "qmp")
    listener = monitors.listen({"path": path})
    peer = dial(path)
    turn(monitors, lambda: listener.peers)
    text, sent = b'{"execute": "' + b"x" * (100 << 20) + b'"}\n', 0
    view = memoryview(text)

    def push() -> bool:
        nonlocal sent
        try:
            sent += peer.send(view[sent : sent + (1 << 20)])
        except BlockingIOError:
            pass
        return sent == len(text)

    turn(monitors, push, 1_000_000)
    peer.sendall(b'{"execute": "qmp_capabilities", "id": 2}\n')
    lines = read(monitors, peer, 3)
    assert lines[1]["error"]["desc"] == "JSON token size limit exceeded"
    assert lines[-1] == {"id": 2, "return": {}}


@pytest.mark.parametrize("last", [b"", b'{"execute": "qmp_capabilities"}\n{"execu', b"\xff\x00\x01", b"x" * 70_000])
def test_a_client_that_goes_abruptly_leaves_nothing_behind(
    monitors: Monitors, tmp_path: pathlib.Path, last: bytes
) -> None:
    path = str(tmp_path / "qmp")
    listener = monitors.listen({"path": path})
    peer = dial(path)
    turn(monitors, lambda: listener.peers)
    peer.sendall(last)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    turn(monitors, lambda: not listener.peers)
    assert monitors.qmp == {}


def test_the_socket_of_a_dead_program_is_taken_over(monitors: Monitors, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "qmp")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()
    monitors.listen({"path": path})
    dial(path)


def test_a_socket_in_use_is_not(monitors: Monitors, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "qmp")
    monitors.listen({"path": path})
    with pytest.raises(BackendError, match="Address already in use"):
        monitors.listen({"path": path})


def test_tcp_is_served_too(monitors: Monitors) -> None:
    listener = monitors.listen({"host": "127.0.0.1", "port": 0})
    peer = socket.create_connection(listener.listening.address[:2])
    peer.setblocking(False)
    assert "QMP" in read(monitors, peer)[0]
    peer.close()


def test_a_server_that_waits_for_us_is_called_again_when_it_went(monitors: Monitors, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "theirs")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(2)
    server.setblocking(False)
    monitors.reach({"path": path, "reconnect": 0.01})
    first, _ = server.accept()
    first.setblocking(False)
    assert "QMP" in read(monitors, first)[0]
    first.close()
    second: list[socket.socket] = []

    def again() -> bool:
        try:
            second.append(server.accept()[0])
        except BlockingIOError:
            return False
        return True

    turn(monitors, again)
    second[0].setblocking(False)
    assert "QMP" in read(monitors, second[0])[0]


def test_the_end_of_the_machine_takes_the_socket_away(pc: Driven, tmp_path: pathlib.Path) -> None:
    monitors = Monitors(pc.machine)
    monitors.listen({"path": str(tmp_path / "qmp")})
    monitors.close()
    assert not (tmp_path / "qmp").exists()


def test_a_client_with_reconnect_waits_and_comes_back(monitors: Monitors, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "later")
    monitors.reach({"path": path, "reconnect": 0.01})
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    for _ in range(2):
        listener.setblocking(False)
        found: list[socket.socket] = []

        def came(found: list[socket.socket] = found) -> bool:
            try:
                found.append(listener.accept()[0])
            except BlockingIOError:
                return False
            return True

        turn(monitors, came)
        found[0].setblocking(False)
        assert "QMP" in read(monitors, found[0])[0]
        found[0].close()
    listener.close()


@pytest.mark.parametrize("kind", ["null", "ringbuf"])
@pytest.mark.parametrize("session", ["control", "readline", "plain"])
def test_a_monitor_may_be_on_any_chardev(tmp_path: pathlib.Path, kind: str, session: str) -> None:
    device = {"driver": "isa-debugcon", "id": "d", "chardev": "c"}
    with Driven(tmp_path, machine="pc-i440fx-2.0", chardevs={"c": {"type": kind}}, devices=[device]) as pc:
        found = Monitors(pc.machine)
        try:
            found.open("c", session)
            (one,) = found.ports
            turn(found, lambda: one.session is not None)
            assert one.pending == b""
            if kind == "ringbuf":
                said = pc.board.chardevs["c"].text()
                assert (b'{"QMP": ' if session == "control" else b"QEMU ") in said
        finally:
            found.close()


def test_a_monitor_may_be_on_telnet_with_any_number_of_clients(monitors: Monitors) -> None:
    listener = monitors.listen({"host": "127.0.0.1", "port": 0, "telnet": True}, "readline")
    peers = [socket.create_connection(listener.listening.address) for _ in range(2)]
    for number, peer in enumerate(peers):
        peer.setblocking(False)
        data = shown(monitors, peer)
        assert data.startswith(b"\xff\xfb\x01") and b"QEMU 7.2" in data  # IAC WILL ECHO, then the monitor
        peer.sendall(b"\xff\xfd\x01info name\r\n")  # IAC DO ECHO is not typed
        assert b"driven" in shown(monitors, peer), number
    assert listener.filename.startswith("telnet:127.0.0.1:")
    for peer in peers:
        peer.close()
    turn(monitors, lambda: not listener.peers)
    assert listener.filename == f"disconnected:{listener.address.replace('tcp', 'telnet')},server=on"


def test_what_a_client_sent_before_it_ended_is_answered(monitors: Monitors, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "qmp")
    listener = monitors.listen({"path": path})
    peer = dial(path)
    turn(monitors, lambda: listener.peers)
    peer.sendall(b'{"execute": "qmp_capabilities"}' + b'{"execute": "query-name", "id": 1}' * 500)
    peer.shutdown(socket.SHUT_WR)
    assert len(read(monitors, peer, 502)) == 502
    turn(monitors, lambda: not listener.peers)


def test_all_that_a_monitor_says_is_in_its_log(tmp_path: pathlib.Path) -> None:
    """Also what nobody at the other end has taken yet."""
    spec = {"type": "socket", "path": str(tmp_path / "s"), "server": True, "wait": False}
    spec["logfile"] = str(tmp_path / "l")
    with Driven(tmp_path, machine="pc-i440fx-2.0", chardevs={"c": spec}, monitors={"m": {"chardev": "c"}}) as pc:
        found = Monitors(pc.machine)
        try:
            listener = found.open("c", "control")
            peer = dial(spec["path"])
            assert "QMP" in read(found, peer)[0]
            assert (tmp_path / "l").read_bytes().startswith(b'{"QMP": ')
            peer.close()
            turn(found, lambda: not listener.peers)
        finally:
            found.close()


def test_the_last_words_of_a_monitor_are_sent_before_the_connection_ends(pc: Driven, tmp_path: pathlib.Path) -> None:
    """More than a socket takes at once."""
    words = b"w" * (3 << 20)

    class Last:
        def __init__(self, client: port.Port) -> None:
            client.send(words)
            client.finish()

        def feed(self, data: bytes) -> None: ...

    listener = serve(pc, str(tmp_path / "s"), Last)
    peer = dial(str(tmp_path / "s"))
    got = bytearray()

    def all_of_it() -> bool:
        try:
            while data := peer.recv(1 << 20):
                got.extend(data)
            return True
        except BlockingIOError:
            return False

    turn(Monitors(pc.machine), all_of_it)
    assert got == words
    listener.close()


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1", b"POST /x HTTP/1.0", b"OPTIONS * HTTP/1.1"])
def test_a_browser_does_not_drive_a_machine(request_line: bytes) -> None:
    """A page may send requests to any port; a command in one's body must not be done."""
    from vmrun.monitor.port import is_http

    assert is_http(request_line + b'\r\nHost: localhost\r\n\r\n{"execute": "quit"}')


@pytest.mark.parametrize("line", [b'{"execute": "quit"}', b"info pci\n", b"g\n", b"GET", b"GETTING /", b"get /"])
def test_what_is_no_request_goes_on(line: bytes) -> None:
    from vmrun.monitor.port import is_http

    assert not is_http(line)
