"""An NBD server that goes away and comes back, from this side of the connection."""

from __future__ import annotations

import json
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from vmrun.backends.block.nbd import NbdNode

from tests.board import Driven
from tests.peers.qmp_session import ROOT, Talk
from vmrun.backends.block.images import Access, open_options, open_protocol
from vmrun.backends.block.nbd_client import LIST, OPTIONS, REPLY, SERVER, STRUCTURED, UNSUPPORTED, Place, offers
from vmrun.backends.block.nbd_server import Export
from vmrun.errors import BackendError

FOR_EVER = 100_000.0  # seconds, to whom a test has


class Memory:
    """What an export is of."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.size, self.data = size, bytearray(size)

    def read(self, offset: int, count: int) -> bytes:
        return bytes(self.data[offset : offset + count])

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data

    def sync(self) -> None:
        pass


class Away:
    """Connections to a Memory, one after the other, each of which is there for `requests` requests (None: for ever)."""

    def __init__(self, delay: float, *requests: int | None, connections: int = 1) -> None:
        self.memory, self.left, self.dialled = Memory(), list(requests), 0
        self.back = threading.Event()
        self.ends: list[socket.socket] = []
        self.node = NbdNode(self.serve(connections), 1 << 20, 1, False, "nbd", dial=self.dial, delay=delay)

    def serve(self, connections: int = 1) -> list[socket.socket]:
        count, found = self.left.pop(0), []
        for _ in range(connections):
            ours, theirs = socket.socketpair()
            self.ends.append(theirs)
            threading.Thread(target=self._talk, args=(theirs, count), daemon=True).start()
            found.append(ours)
        return found

    def dial(self) -> list[socket.socket]:
        self.dialled += 1
        if not self.back.is_set() or not self.left:
            raise ConnectionRefusedError
        return self.serve()

    def _talk(self, peer: socket.socket, requests: int | None) -> None:
        with peer:
            while len(head := peer.recv(28, socket.MSG_WAITALL)) == 28:
                _, _, kind, handle, offset, length = struct.unpack(">IHH8sQI", head)
                if kind == 2:
                    return
                data = peer.recv(length, socket.MSG_WAITALL) if kind == 1 else b""
                if requests == 0:
                    return  # in the middle of a request
                requests = requests and requests - 1
                if data:
                    self.memory.write(offset, data)
                answer = self.memory.read(offset, length) if kind == 0 else b""
                peer.sendall(struct.pack(">II", 0x67446698, 0) + handle + answer)

    def hang_up(self) -> None:
        for end in self.ends:
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def a_thread(act: Callable[[], object]) -> Iterator[list[object]]:
    """What it returned or raised."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(act())
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield found
    thread.join(30)
    assert not thread.is_alive() and len(found) == 1


def test_what_was_under_way_is_sent_again_when_the_server_is_back() -> None:
    away = Away(FOR_EVER, 1, None)
    away.node.write(0, b"first")
    with a_thread(lambda: away.node.write(512, b"second")) as found:
        while not away.dialled:  # it has gone, with the request
            time.sleep(0.001)
        assert not found
        away.back.set()
    assert found == [None]
    assert away.node.read(0, 5) + away.node.read(512, 6) == b"firstsecond"
    away.node.close()


def test_requests_wait_together_on_whatever_connection_they_were() -> None:
    away = Away(FOR_EVER, 0, None, connections=4)
    threads = [threading.Thread(target=away.node.write, args=(n * 512, bytes([n + 1]) * 512)) for n in range(12)]
    for thread in threads:
        thread.start()
    while not away.dialled:
        time.sleep(0.001)
    away.back.set()
    for thread in threads:
        thread.join(30)
    assert away.memory.data[: 12 * 512] == b"".join(bytes([n + 1]) * 512 for n in range(12))
    away.node.close()


def test_without_a_delay_a_request_fails_and_later_ones_are_answered() -> None:
    away = Away(0, 1, None)
    assert away.node.read(0, 1) == b"\0"
    away.hang_up()
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            away.node.read(0, 1)
    away.back.set()
    end = time.monotonic() + 30
    while True:
        try:
            assert away.node.read(0, 1) == b"\0"
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.01)
    away.node.close()


def test_the_delay_is_the_server_s_not_each_request_s() -> None:
    away = Away(0.2, 0)
    begun = time.monotonic()
    with pytest.raises(OSError, match="Input/output"):
        away.node.read(0, 1)
    assert time.monotonic() - begun >= 0.2
    for _ in range(50):  # 10 s, if each waited
        with pytest.raises(OSError, match="Input/output"):
            away.node.read(0, 1)
    assert time.monotonic() - begun < 10
    away.node.close()


@pytest.mark.parametrize("how", ["hurry", "close"])
def test_nobody_waits_for_the_server_who_waits_for_all_requests(how: str) -> None:
    away = Away(FOR_EVER, 0)
    with a_thread(lambda: away.node.read(0, 1)) as found:
        while not away.dialled:
            time.sleep(0.001)
        if how == "hurry":
            away.node.hurry(True)
        else:
            away.node.close()
    assert isinstance(found[0], OSError)
    if how == "hurry":
        away.node.hurry(False)
        with a_thread(lambda: away.node.read(0, 1)) as found:
            away.left.append(None)
            away.back.set()
        assert found == [b"\0"]
        away.node.close()


def test_a_server_that_goes_at_each_attempt_is_not_asked_for_ever() -> None:
    away = Away(FOR_EVER, *[0] * 1000)
    away.back.set()
    with pytest.raises(OSError, match="Input/output"):
        away.node.read(0, 1)
    assert 10 < away.dialled < 200
    away.node.close()


class Listener:
    """A server in this process at a path."""

    def __init__(self, path: pathlib.Path, size: int = 1 << 20) -> None:
        self.memory, self.clients = Memory(size), list[socket.socket]()
        self.socket = socket.socket(socket.AF_UNIX)
        path.unlink(missing_ok=True)
        self.socket.bind(str(path))
        self.socket.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            self.clients.append(client)
            export = Export(self.memory, "", False, look=lambda offset, count: (count, True, False))
            threading.Thread(target=export.talk, args=(client,), daemon=True).start()

    def go(self) -> None:
        for one in (self.socket, *self.clients):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.socket.close()


def nbd(path: pathlib.Path, **more: object) -> dict[str, object]:
    return {"driver": "nbd", "server": {"type": "unix", "path": str(path)}, **more}


def test_a_server_that_comes_late_is_awaited_for_the_open_timeout(tmp_path: pathlib.Path) -> None:
    path, found = tmp_path / "s", list[Listener]()
    timer = threading.Timer(0.2, lambda: found.append(Listener(path)))
    timer.start()
    node = open_options(nbd(path, **{"open-timeout": 30}), Access())
    assert node.read(0, 4) == bytes(4)
    node.close()
    timer.join()
    found[0].go()
    begun = time.monotonic()
    with pytest.raises(BackendError, match="Failed to connect"):
        open_options(nbd(path, **{"open-timeout": 1}), Access())
    assert time.monotonic() - begun >= 1


@pytest.mark.parametrize(("key", "value", "words"), [
    ("open-timeout", "-1", "expects a number"), ("reconnect-delay", "soon", "expects a number"),
    ("reconnect-delay", 1 << 32, "out of range"),
])  # fmt: skip
def test_seconds_are_seconds(tmp_path: pathlib.Path, key: str, value: object, words: str) -> None:
    with pytest.raises(BackendError, match=words):
        open_options(nbd(tmp_path / "s", **{key: value}), Access())


@pytest.mark.parametrize("name", [
    "nbd://a..b/", f"nbd://{'a' * 64}/", "nbd://[::1/", "nbd:localhost:\u00b2", f"nbd:localhost:{'1' * 5000}",
])  # fmt: skip
def test_an_address_that_is_none_is_told(name: str) -> None:
    with pytest.raises(BackendError, match="Could not open 'nbd:"):
        open_protocol(name, Access(readonly=True))


def test_an_answer_that_is_none_is_told_in_words(tmp_path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(b"NBDMAGIC" + struct.pack(">QH", OPTIONS, 3))
                client.recv(20, socket.MSG_WAITALL)  # flags, and the question for structured replies
                client.sendall(struct.pack(">QIII", REPLY, STRUCTURED, UNSUPPORTED, 0))
                client.recv(16, socket.MSG_WAITALL)  # and for a list
                client.sendall(struct.pack(">QIIIB", REPLY, LIST, SERVER, 1, 0))
                client.recv(1)

        with a_thread(answer), pytest.raises(BackendError, match="'.*s': the server's answer is not one"):
            offers(Place(str(tmp_path / "s"), ""))


def test_a_server_that_comes_back_with_another_disk_is_not_taken_for_it(tmp_path: pathlib.Path) -> None:
    first = Listener(tmp_path / "s")
    node = open_options(nbd(tmp_path / "s"), Access())
    first.go()
    other = Listener(tmp_path / "s", 1 << 21)
    end = time.monotonic() + 30
    while len(other.clients) < 2:  # it was asked, and asked again
        assert time.monotonic() < end
        with pytest.raises(OSError, match="Input/output"):
            node.read(0, 1)
        time.sleep(0.01)
    other.go()
    node.close()


def test_a_machine_is_reset_and_ended_while_its_disk_waits_for_a_server(tmp_path: pathlib.Path) -> None:
    """Requests of the guest wait for it; who waits for them does not."""
    server = Listener(tmp_path / "s")
    disk = json.dumps(nbd(tmp_path / "s", **{"reconnect-delay": 100_000}))
    disks = [{"file": f"json:{disk}", "format": "raw"}, {"file": "other.qcow2", "format": "qcow2"}]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "other.qcow2", "1M"], cwd=tmp_path, check=True)
    told = pytest.raises(OSError, match="what was written last may not be in its image: Input/output")
    with told, Driven(tmp_path, machine="pc", memory="16MiB", disks=disks) as pc:
        other = list(pc.board.drives.values())[1].node
        server.go()
        for _ in range(2):
            read_sector(pc)
            assert pc.inb(0x1F7) & 0x80  # it waits
            pc.machine.cold_reset()
        read_sector(pc)
        again = Listener(tmp_path / "s")
        end = time.monotonic() + 30
        while pc.inb(0x1F7) & 0x80:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert pc.inb(0x1F7) & 0x09 == 0x08  # data, no error
        for _ in range(256):
            pc.inw(0x1F0)
        again.go()
        read_sector(pc)
    assert other.closed  # whatever became of the first one


def read_sector(pc: Driven) -> None:
    for port, value in ((0x1F2, 1), (0x1F3, 1), (0x1F4, 0), (0x1F5, 0), (0x1F6, 0xE0), (0x1F7, 0x20)):
        pc.outb(port, value)


def test_a_job_that_is_cancelled_while_its_target_is_away_was_cancelled(tmp_path: pathlib.Path) -> None:
    """It had failed, since what it had under way was given up for that."""
    server = Listener(tmp_path / "s", 64 << 20)
    (tmp_path / "disk.img").write_bytes(b"x" * (64 << 20))  # for a minute
    line = ["-accel", "qtest", "-display", "none", "-nodefaults", "-qmp", "stdio"]
    line += ["-drive", f"if=virtio,id=d,format=raw,file={tmp_path}/disk.img"]
    talk = Talk([sys.executable, str(ROOT / "bin" / "vmrun-qemu"), *line], tmp_path)
    try:
        target = nbd(tmp_path / "s", **{"node-name": "t", "reconnect-delay": 100_000})
        assert talk.ask("blockdev-add", **target) == {"return": {}}
        slow = {"device": "d", "sync": "full", "target": "t", "speed": 1 << 20}
        assert talk.ask("blockdev-mirror", **slow) == {"return": {}}
        while not talk.ask("query-block-jobs")["return"][0]["offset"]:
            time.sleep(0.01)
        server.go()
        assert talk.ask("block-job-set-speed", device="d", speed=0) == {"return": {}}
        time.sleep(0.2)  # it waits by then
        assert talk.ask("block-job-cancel", device="d", force=True) == {"return": {}}
        assert talk.wait_for("BLOCK_JOB_CANCELLED")
        talk.ask("quit")
        talk.process.wait(30)
    finally:
        talk.close()
