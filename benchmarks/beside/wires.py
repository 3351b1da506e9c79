"""The other ends of netdevs for benchmarks: a user network, a socket's stream, a tap.

Each has the `netdev` of a machine, `frame(length)` for its card to send, `frames()` that came so far, and
`send(count, length)`: so many frames for the card, none of them lost while at most WINDOW are on their way. No threads:
one that reads would wait for the GIL of one that waits.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib
import socket
import struct
import subprocess
from typing import Any

from beside.cards import MAC, wait

WINDOW = 64
HOST = bytes.fromhex("525500000001")
ROUTER = bytes.fromhex("525500000202")  # 10.0.2.2 has it where nothing else is said
TYPE = b"\x88\xb5"
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


def total(data: bytes) -> int:
    """The Internet's checksum."""
    found = sum(struct.unpack(f">{len(data) // 2}H", data))
    while found >> 16:
        found = (found & 0xFFFF) + (found >> 16)
    return ~found & 0xFFFF


def packet(protocol: int, body: bytes) -> bytes:
    """An IPv4 frame from the guest's address to the host's."""
    ends = b"\x0a\0\2\x0f", b"\x0a\0\2\2"
    head = bytearray(struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0, *ends))
    head[10:12] = struct.pack(">H", total(bytes(head)))
    return ROUTER + MAC + b"\x08\0" + bytes(head) + body


def question() -> bytes:
    """The guest asks for the host's address, and so tells its own."""
    ends = MAC + b"\x0a\0\2\x0f", bytes(6) + b"\x0a\0\2\2"
    return (b"\xff" * 6 + MAC + b"\x08\x06" + bytes.fromhex("0001080006040001") + b"".join(ends)).ljust(60, b"\0")


def echo() -> bytes:
    """A ping of the host's address."""
    body = bytearray(struct.pack(">BBHHH", 8, 0, 0, 1, 1) + bytes(56))
    body[2:4] = struct.pack(">H", total(bytes(body)))
    return packet(1, bytes(body))


class User:
    """A user network, and a UDP socket of the host's behind it: the guest's port 9, which it has sent from first."""

    WAYS = ("out", "in")

    def __init__(self, name: str) -> None:
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.peer.bind(("127.0.0.1", 0))
        self.netdev = "user,id=n"
        self.came, self.room = 0, bytearray(1 << 16)
        self.guest: Any = None

    def frame(self, length: int) -> bytes:
        body = length - 14 - 20
        return packet(17, struct.pack(">HHHH", 9, self.peer.getsockname()[1], body, 0) + bytes(body - 8))

    def open(self) -> None:
        self.peer.setblocking(False)

    def frames(self) -> int:
        try:
            while True:
                _, self.guest = self.peer.recvfrom_into(self.room)
                self.came += 1
        except BlockingIOError:
            return self.came

    def send(self, count: int, length: int) -> None:
        data = bytes(length - 42)
        for _ in range(count):
            self.peer.sendto(data, self.guest)

    def close(self) -> None:
        self.peer.close()


class Stream:
    """A `socket` netdev's other end."""

    WAYS = ("out", "in")

    def __init__(self, name: str) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.netdev = f"socket,id=n,connect=127.0.0.1:{self.listener.getsockname()[1]}"
        self.came = self.size = 0
        self.room = bytearray(1 << 20)

    def frame(self, length: int) -> bytes:
        self.size, self.came = length + 4, 0
        return HOST + HOST + TYPE + bytes(length - 14)

    def open(self) -> None:
        self.peer, _ = self.listener.accept()
        self.peer.setblocking(False)

    def frames(self) -> int:
        try:
            while count := self.peer.recv_into(self.room):
                self.came += count
        except BlockingIOError:
            pass
        return self.came // self.size

    def send(self, count: int, length: int) -> None:
        self.peer.setblocking(True)
        self.peer.sendall((struct.pack(">I", length) + MAC + HOST + TYPE + bytes(length - 14)) * count)
        self.peer.setblocking(False)

    def close(self) -> None:
        self.peer.close()
        self.listener.close()


class IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]


class Message(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p), ("name_size", ctypes.c_uint32), ("pieces", ctypes.POINTER(IoVec)),
        ("count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int), ("sent", ctypes.c_uint32),
    ]  # fmt: skip


class Tap:
    """A tap interface, written as packets; what comes out of it is what the interface counts."""

    WAYS = ("out", "in")

    def __init__(self, name: str) -> None:
        self.name, self.length = name, 0
        self.netdev = f"tap,id=n,ifname={name},script=no,downscript=no"

    def frame(self, length: int) -> bytes:
        return HOST + HOST + TYPE + bytes(length - 14)

    def open(self) -> None:
        self.peer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        wait(lambda: f"{self.name}:" in pathlib.Path("/proc/net/dev").read_text())
        subprocess.run(["ip", "link", "set", self.name, "up"], check=True)
        self.peer.bind((self.name, 0))
        self.counter = open("/proc/self/net/dev", "rb", buffering=0)

    def frames(self) -> int:
        text = os.pread(self.counter.fileno(), 1 << 16, 0).decode()
        return int(text.partition(f"{self.name}:")[2].split()[1])

    def send(self, count: int, length: int) -> None:
        if self.length != length:
            self.length = length
            self.piece = IoVec(MAC + HOST + TYPE + bytes(length - 14), length)
            self.messages = (Message * WINDOW)()
            for message in self.messages:
                message.pieces, message.count = ctypes.pointer(self.piece), 1
        while count > 0:
            sent = LIBC.sendmmsg(self.peer.fileno(), self.messages, count, 0)
            if sent < 0 and ctypes.get_errno() not in (errno.ENOBUFS, errno.EINTR):
                raise OSError(ctypes.get_errno(), f"{self.name}: {os.strerror(ctypes.get_errno())}")
            count -= max(sent, 0)

    def close(self) -> None:
        self.peer.close()
        self.counter.close()


LIBC = ctypes.CDLL(None, use_errno=True)


def own_namespace() -> bool:
    """This process goes into a network namespace of its own. Whether it may."""
    if LIBC.unshare(CLONE_NEWNET | (CLONE_NEWUSER if os.getuid() else 0)) != 0:
        return False
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False)
    return pathlib.Path("/dev/net/tun").exists()
