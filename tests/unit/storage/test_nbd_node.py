"""A disk on an NBD server, from this side of the connection."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest
from vmrun.backends.block.nbd import NbdNode
from vmrun.backends.block.node import EXTENT_DATA, EXTENT_HOLE, EXTENT_ZERO

REQUEST = 28  # bytes
READ, WRITE, ZEROES, STATUS = 0, 1, 6, 7


def test_all_that_wait_for_a_lost_connection_are_told() -> None:
    """One alone was: the others waited for ever, and with them who closed the disk."""
    ours, theirs = socket.socketpair()
    node = NbdNode([ours], 1 << 20, 0, False, "nbd")
    failed: list[OSError] = []

    def read() -> None:
        try:
            node.read(0, 512)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=read, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert len(theirs.recv(REQUEST, socket.MSG_WAITALL)) == REQUEST
    time.sleep(0.05)  # the others wait for their turn
    theirs.close()
    for thread in threads:
        thread.join(20)
    assert len(failed) == len(threads) and not any(thread.is_alive() for thread in threads)
    node.close()


def test_an_image_that_is_anothers_is_not_written_on_its_server_either() -> None:
    """As after a migration. Nothing is asked of the server."""
    ours, theirs = socket.socketpair()
    node = NbdNode([ours], 1 << 20, 32 | 64, False, "nbd")
    node.rest()
    for change in (lambda: node.write(0, b"too late"), lambda: node.write_zeroes(0, 0x10000, True)):
        with pytest.raises(PermissionError):
            change()
    node.trim(0, 0x10000)
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(REQUEST)
    node.close()
    theirs.close()


def chunk(handle: bytes, kind: int, data: bytes, done: bool = True) -> bytes:
    return struct.pack(">IHH", 0x668E33EF, done, kind) + handle + struct.pack(">I", len(data)) + data


class Server:
    """A connection on which `answer(kind, offset, length, handle)` says what comes back."""

    def __init__(self, answer: Callable[[int, int, int, bytes], bytes], size: int = 1 << 20, block: int = 1) -> None:
        ours, self.peer = socket.socketpair()
        self.answer = answer
        self.asked: list[tuple[int, int, int]] = []
        self.written = b""
        self.node = NbdNode([ours], size, 64, False, "nbd", True, 7, block)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            while len(head := self.peer.recv(REQUEST, socket.MSG_WAITALL)) == REQUEST:
                _, _, kind, handle, offset, length = struct.unpack(">IHH8sQI", head)
                if kind == 2:
                    return
                self.asked.append((kind, offset, length))
                self.written = self.peer.recv(length, socket.MSG_WAITALL) if kind == WRITE else b""
                self.peer.sendall(self.answer(kind, offset, length, handle))
        except ConnectionError:  # who takes nonsense for nonsense hangs up
            return

    def close(self) -> None:
        self.node.close()
        self.peer.shutdown(socket.SHUT_RDWR)
        self.thread.join(10)
        self.peer.close()


def test_chunks_come_in_any_order_and_leave_holes() -> None:
    def answer(kind: int, offset: int, length: int, handle: bytes) -> bytes:
        hole = struct.pack(">QI", offset + 512, length - 1024)
        ends = [struct.pack(">Q", offset + at) + bytes([n]) * 512 for n, at in ((2, length - 512), (1, 0))]
        return b"".join([
            chunk(handle, 2, hole, False), chunk(handle, 1, ends[0], False), chunk(handle, 1, ends[1], False),
            chunk(handle, 0, b""),
        ])  # fmt: skip

    server = Server(answer)
    assert server.node.read(4096, 4096) == b"\1" * 512 + bytes(3072) + b"\2" * 512
    server.close()


def told(flags: int, length: int = 4096, context: int = 7) -> bytes:
    return struct.pack(">III", context, length, flags)


@pytest.mark.parametrize(("flags", "meant"), [
    (0, EXTENT_DATA), (3, EXTENT_ZERO), (2, EXTENT_DATA | EXTENT_ZERO), (1, EXTENT_DATA | EXTENT_HOLE),
])  # fmt: skip
def test_what_is_a_hole_there_is_one_here(flags: int, meant: int) -> None:
    server = Server(lambda kind, offset, length, handle: chunk(handle, 5, told(flags)))
    length, found, _ = server.node.extent(8192, 65536)
    assert (length, found & (EXTENT_DATA | EXTENT_ZERO | EXTENT_HOLE)) == (4096, meant)
    assert server.asked == [(STATUS, 8192, 65536)]
    server.close()


def test_of_a_large_block_no_more_is_told_than_was_asked() -> None:
    server = Server(lambda kind, offset, length, handle: chunk(handle, 5, struct.pack(">III", 7, 8192, 3)), block=4096)
    assert server.node.extent(100, 50)[0] == 50
    assert server.node.extent(5000, 7000)[0] == 7000
    assert server.asked == [(STATUS, 0, 4096), (STATUS, 4096, 8192)]
    server.close()


@pytest.mark.parametrize("count", [1 << 31, 1 << 32, (1 << 32) + 512, 5 << 32])
def test_the_status_of_much_is_asked_for_in_parts(count: int) -> None:
    """A request's length has 32 bits."""
    server = Server(lambda kind, offset, length, handle: chunk(handle, 5, told(3, length)), size=1 << 36)
    assert server.node.extent(512, count)[0] == 1 << 30
    assert server.asked == [(STATUS, 512, 1 << 30)]
    server.close()


NONSENSE = {
    "data beyond": lambda handle: chunk(handle, 1, struct.pack(">Q", 512) + b"x" * 512),
    "data before": lambda handle: chunk(handle, 1, struct.pack(">Q", (1 << 64) - 512) + b"x" * 512),
    "a hole beyond": lambda handle: chunk(handle, 2, struct.pack(">QI", 0, 513)),
    "a hole of 4 GiB": lambda handle: chunk(handle, 2, struct.pack(">QI", 0, 0xFFFFFFFF)),
    "a hole cut off": lambda handle: chunk(handle, 2, bytes(8)),
    "twice": lambda handle: chunk(handle, 2, struct.pack(">QI", 0, 512), False) * 2,
    "too little": lambda handle: chunk(handle, 2, struct.pack(">QI", 0, 256)),
    "nothing": lambda handle: chunk(handle, 0, b""),
    "a status": lambda handle: chunk(handle, 5, told(0)),
    "an unknown kind": lambda handle: chunk(handle, 77, bytes(64)),
    "a long error": lambda handle: chunk(handle, 0x8001, bytes(1 << 17)),
    "a short error": lambda handle: chunk(handle, 0x8001, bytes(4)),
    "another's": lambda handle: chunk(bytes(8), 2, struct.pack(">QI", 0, 512)),
    "a simple reply": lambda handle: struct.pack(">II", 0x67446698, 0) + handle + bytes(512),
    "a length without data": lambda handle: chunk(handle, 1, bytes(8)),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_a_server_that_makes_no_sense_is_left(name: str) -> None:
    server = Server(lambda kind, offset, length, handle: NONSENSE[name](handle))
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            server.node.read(0, 512)
    assert server.asked == [(READ, 0, 512)]  # the second was not even sent
    server.close()


@pytest.mark.parametrize(
    "data",
    [told(0, 0), told(0, context=8), told(0)[:8], told(0) + b"xyz"],
    ids=["of nothing", "another's", "cut", "odd"],
)
def test_a_status_that_makes_no_sense_is_left(data: bytes) -> None:
    server = Server(lambda kind, offset, length, handle: chunk(handle, 5, data))
    with pytest.raises(OSError, match="Input/output"):
        server.node.extent(0, 512)
    server.close()


def test_an_error_of_the_servers_is_one_request_s() -> None:
    server = Server(lambda kind, offset, length, handle: chunk(handle, 0x8001, struct.pack(">IH", 28, 3) + b"say"))
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            server.node.read(0, 512)
    assert len(server.asked) == 2
    server.close()


def test_a_server_of_large_blocks_is_asked_for_whole_ones() -> None:
    """What is written within one is read, changed and written; what a guest asks for is any sector."""
    there = bytearray(random.Random(7).randbytes(1 << 18))

    def answer(kind: int, offset: int, length: int, handle: bytes) -> bytes:
        if kind == READ:
            return chunk(handle, 1, struct.pack(">Q", offset) + there[offset : offset + length])
        there[offset : offset + length] = server.written or bytes(length)
        return struct.pack(">II", 0x67446698, 0) + handle

    server = Server(answer, 1 << 18, 4096)
    expected, rng = bytearray(there), random.Random(8)
    for n in range(200):
        at = rng.randrange(1 << 18)
        count = min(rng.choice((1, 512, 4096, 5000, 40000)), (1 << 18) - at)
        if n % 4 == 3:
            server.node.write_zeroes(at, count)
            expected[at : at + count] = bytes(count)
        elif n % 4 == 2:
            assert server.node.read(at, count) == expected[at : at + count]
        else:
            expected[at : at + count] = data = rng.randbytes(count)
            server.node.write(at, data)
    assert there == expected
    assert not [row for row in server.asked if row[1] % 4096 or row[2] % 4096 or not row[2]]
    assert {row[0] for row in server.asked} == {READ, WRITE, ZEROES}
    server.close()
