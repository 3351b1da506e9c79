"""SASL against the library's own client: who may come in, by which mechanisms, and what is encrypted then."""

from __future__ import annotations

import ctypes
import ctypes.util
import pathlib
import socket
import subprocess
import sys

import pytest

from vmrun.ui.vnc.sasl import LIBRARY

try:
    ctypes.CDLL(LIBRARY)
except OSError:
    pytest.skip(f"the host has no {LIBRARY}", allow_module_level=True)

# Both ends in one process would share the library's settings, which are read once: the server runs in its own.
SERVER = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from tests.unit.ui.test_vnc import Setup
listen = sys.argv[3]
setup = Setup(pathlib.Path(sys.argv[2]), sasl=True, listen=listen, to=400)
setup.server.may_enter = lambda key, name: (key, name) != ("sasl-authz", sys.argv[4])
print(setup.server.address[1], flush=True)
while True:
    setup.turn()
"""
ROOT = pathlib.Path(__file__).resolve().parents[3]
USER, PASSWORD = b"paula", b"wonderland"


class Secret(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ulong), ("data", ctypes.c_char * 32))


class Callback(ctypes.Structure):
    _fields_ = (("id", ctypes.c_ulong), ("call", ctypes.c_void_p), ("context", ctypes.c_void_p))


class SaslClient:
    """libsasl2's client, which answers with USER and `password`."""

    def __init__(self, password: bytes) -> None:
        self.sasl = ctypes.CDLL(LIBRARY)
        self.sasl.sasl_client_init(None)
        self.secret = Secret(len(password), password)
        simple = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(ctypes.c_uint)
        )
        secret = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p)
        )

        def name(context: object, id: int, result: ctypes._Pointer[ctypes.c_char_p], size: object) -> int:
            result[0] = USER
            return 0

        def word(connection: object, context: object, id: int, result: ctypes._Pointer[ctypes.c_void_p]) -> int:
            result[0] = ctypes.addressof(self.secret)
            return 0

        self.kept = (simple(name), secret(word))
        pointers = [ctypes.cast(call, ctypes.c_void_p) for call in self.kept]
        rows = [(0x4001, pointers[0]), (0x4002, pointers[0]), (0x4004, pointers[1]), (0, None)]
        self.callbacks = (Callback * 4)(*[Callback(id, call, None) for id, call in rows])
        self.connection = ctypes.c_void_p()

    def begin(self, here: bytes | None, there: bytes | None) -> None:
        code = self.sasl.sasl_client_new(
            b"vnc", b"localhost", here, there, self.callbacks, 4, ctypes.byref(self.connection)
        )
        assert code == 0
        strong = (ctypes.c_uint * 8)(0, 256 if here else 0, 8192, 0)
        assert self.sasl.sasl_setprop(self.connection, 101, strong) == 0

    def start(self, offered: bytes) -> tuple[bytes, bytes | None]:
        out, size, chosen = ctypes.POINTER(ctypes.c_char)(), ctypes.c_uint(), ctypes.c_char_p()
        code = self.sasl.sasl_client_start(
            self.connection, offered, None, ctypes.byref(out), ctypes.byref(size), ctypes.byref(chosen)
        )
        assert code in (0, 1), code
        return chosen.value or b"", bytes(out[: size.value]) if out else None

    def step(self, data: bytes | None) -> bytes | None:
        out, size = ctypes.POINTER(ctypes.c_char)(), ctypes.c_uint()
        code = self.sasl.sasl_client_step(
            self.connection, data, len(data or b""), None, ctypes.byref(out), ctypes.byref(size)
        )
        assert code in (0, 1), code
        return bytes(out[: size.value]) if out else None

    def coded(self, what: str, data: bytes) -> bytes:
        out, size = ctypes.POINTER(ctypes.c_char)(), ctypes.c_uint()
        code = getattr(self.sasl, what)(self.connection, data, len(data), ctypes.byref(out), ctypes.byref(size))
        assert code == 0, code
        return bytes(out[: size.value]) if out else b""


def exactly(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = peer.recv(count - len(data))
        if not part:
            raise EOFError(data)
        data += part
    return data


def number(peer: socket.socket) -> int:
    return int.from_bytes(exactly(peer, 4), "big")


def enter(peer: socket.socket, client: SaslClient, mechanism: bytes = b"") -> tuple[bytes, str]:
    """(mechanisms that were offered, why not): '' when it is in."""
    peer.settimeout(20)
    assert exactly(peer, 12) == b"RFB 003.008\n"
    peer.sendall(b"RFB 003.008\n")
    assert exactly(peer, 2) == b"\1\x14"
    peer.sendall(b"\x14")
    offered = exactly(peer, number(peer))
    chosen, said = client.start(mechanism or offered)
    peer.sendall(len(chosen).to_bytes(4, "big") + chosen)
    while True:
        words = b"" if said is None else said + b"\0"
        peer.sendall(len(words).to_bytes(4, "big") + words)
        length = number(peer)
        if length == 1:  # SecurityResult: refused
            return offered, exactly(peer, number(peer)).decode()
        heard = exactly(peer, length)[:-1] if length else None
        done = exactly(peer, 1) == b"\1"
        if done and heard is None:
            break
        said = client.step(heard)
        if done:
            break
    if number(peer):
        return offered, exactly(peer, number(peer)).decode()
    return offered, ""


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A directory with qemu.conf and a data base that has USER."""
    place = tmp_path_factory.mktemp("sasl")
    (place / "qemu.conf").write_text(
        "mech_list: plain digest-md5\npwcheck_method: auxprop\nauxprop_plugin: sasldb\n"
        f"sasldb_path: {place / 'users'}\n"
    )
    script = (
        "import ctypes, sys; s = ctypes.CDLL(sys.argv[1]); s.sasl_server_init(None, b'qemu'); c = ctypes.c_void_p();"
        "assert not s.sasl_server_new(b'vnc', None, None, None, None, None, 0, ctypes.byref(c));"
        f"sys.exit(abs(s.sasl_setpass(c, {USER!r}, {PASSWORD!r}, {len(PASSWORD)}, None, 0, 1)))"
    )
    made = subprocess.run([sys.executable, "-c", script, LIBRARY], env={"SASL_CONF_PATH": str(place)}, check=False)
    if made.returncode:
        pytest.skip("libsasl2 has no sasldb here")
    return place


class Serving:
    def __init__(self, users: pathlib.Path, place: pathlib.Path, listen: str, refused: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(ROOT), str(place), listen, refused], stdout=subprocess.PIPE, text=True,
            env={"SASL_CONF_PATH": str(users), "PATH": "/usr/bin:/bin"}, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout is not None
        service = self.process.stdout.readline().strip()
        assert service, "the server did not start"
        if listen.startswith("unix:"):
            self.peer = socket.socket(socket.AF_UNIX)
            self.peer.connect(service)
        else:
            self.peer = socket.create_connection(("127.0.0.1", int(service)))

    def close(self) -> None:
        self.peer.close()
        self.process.kill()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


def hello(data: bytes) -> bool:
    return data[:4] == (100).to_bytes(2, "big") + (70).to_bytes(2, "big") and data.endswith(b"QEMU (lab)")


def test_on_a_unix_socket_a_plain_password_serves(users: pathlib.Path, tmp_path: pathlib.Path) -> None:
    serving = Serving(users, tmp_path, f"unix:{tmp_path / 'vnc'}")
    try:
        client = SaslClient(PASSWORD)
        client.begin(None, None)
        offered, why = enter(serving.peer, client, b"PLAIN")
        assert why == "" and b"PLAIN" in offered.split(b",")
        serving.peer.sendall(b"\1")
        assert hello(exactly(serving.peer, 24 + 10))
    finally:
        serving.close()


@pytest.mark.parametrize(("refused", "why"), [("paula", "Authentication failed"), ("paul", "")])
def test_a_name_that_no_rule_allows_is_refused(
    users: pathlib.Path, tmp_path: pathlib.Path, refused: str, why: str
) -> None:
    serving = Serving(users, tmp_path, f"unix:{tmp_path / 'vnc'}", refused)
    try:
        client = SaslClient(PASSWORD)
        client.begin(None, None)
        assert enter(serving.peer, client, b"PLAIN")[1] == why
    finally:
        serving.close()


def test_a_wrong_password_is_refused(users: pathlib.Path, tmp_path: pathlib.Path) -> None:
    serving = Serving(users, tmp_path, f"unix:{tmp_path / 'vnc'}")
    try:
        client = SaslClient(b"looking-glass")
        client.begin(None, None)
        assert enter(serving.peer, client, b"PLAIN")[1] == "Authentication failed"
        assert serving.peer.recv(1) == b""
    finally:
        serving.close()


def test_on_the_network_only_what_encrypts_is_offered_and_all_is_encrypted(
    users: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    serving = Serving(users, tmp_path, "127.0.0.1:91")
    try:
        names = [f"{host};{port}".encode() for host, port in (serving.peer.getsockname(), serving.peer.getpeername())]
        client = SaslClient(PASSWORD)
        client.begin(*names)
        offered, why = enter(serving.peer, client)
        assert why == "" and offered == b"DIGEST-MD5"
        serving.peer.sendall(client.coded("sasl_encode", b"\1"))
        clear, raw = b"", b""
        while len(clear) < 34:
            raw += (more := serving.peer.recv(4096))
            assert more
            clear += client.coded("sasl_decode", more)
        assert hello(clear) and b"QEMU (lab)" not in raw
        # and a picture, which is more than the layer takes as one
        serving.peer.sendall(client.coded("sasl_encode", bytes((3, 0, 0, 0, 0, 0, 0, 100, 0, 70))))
        clear = b""
        while len(clear) < 4 + 12 + 100 * 70 * 4:
            clear += client.coded("sasl_decode", serving.peer.recv(65536))
        assert clear[:4] == b"\0\0\0\1"
        # somebody who writes without the layer is out
        serving.peer.sendall(bytes((3, 0, 0, 0, 0, 0, 0, 100, 0, 70)) * 4)
        serving.peer.settimeout(20)
        while serving.peer.recv(65536):
            pass
    finally:
        serving.close()


@pytest.mark.parametrize(
    "words",
    [
        (200).to_bytes(4, "big") + b"x" * 200,  # no mechanism has such a name
        (0).to_bytes(4, "big"),
        (6).to_bytes(4, "big") + b"NOSUCH",
        (5).to_bytes(4, "big") + b"PLAIN" + (1 << 31).to_bytes(4, "big"),
        (5).to_bytes(4, "big") + b"PLAIN" + (4).to_bytes(4, "big") + b"\0\0\0\0",
    ],
)
def test_nonsense_ends_the_connection_and_the_server_lives(
    users: pathlib.Path, tmp_path: pathlib.Path, words: bytes
) -> None:
    serving = Serving(users, tmp_path, f"unix:{tmp_path / 'vnc'}")
    try:
        serving.peer.settimeout(20)
        exactly(serving.peer, 12)
        serving.peer.sendall(b"RFB 003.008\n")
        exactly(serving.peer, 2)
        serving.peer.sendall(b"\x14")
        exactly(serving.peer, number(serving.peer))
        serving.peer.sendall(words)
        try:
            while serving.peer.recv(4096):
                pass
        except ConnectionResetError:
            pass
        again = socket.socket(socket.AF_UNIX)
        again.connect(str(tmp_path / "vnc"))
        again.settimeout(20)
        assert exactly(again, 12) == b"RFB 003.008\n"
        again.close()
    finally:
        serving.close()


def test_a_host_without_the_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from vmrun.errors import BackendError
    from vmrun.ui.vnc import sasl

    monkeypatch.setattr(sasl, "LIBRARY", "libnosuch.so.2")
    monkeypatch.setattr(sasl, "_loaded", [])
    with pytest.raises(BackendError, match="libnosuch") as caught:
        sasl.library()
    assert "libsasl2" in caught.value.problems[0].remedy


