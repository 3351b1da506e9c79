"""Network block devices: our client and qemu-nbd, our server and QEMU's client and libnbd's."""

from __future__ import annotations

import pathlib
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.ports import listens_at
from vmrun.backends.block.images import Access, open_node
from vmrun.backends.block.nbd_server import Export
from vmrun.errors import BackendError

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1 << 20
pytestmark = pytest.mark.peer


@contextmanager
def server(command: list[str], socket: pathlib.Path) -> Iterator[str]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 30
        while not listens_at(socket):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        yield f"nbd+unix:///?socket={socket}"
    finally:
        process.terminate()
        process.wait(20)


def qemu_nbd(image: pathlib.Path, socket: pathlib.Path, *more: str) -> list[str]:
    return ["qemu-nbd", "-f", "raw", "-k", str(socket), "-t", "-e", "8", *more, str(image)]


def ours(image: pathlib.Path, socket: pathlib.Path, *more: str) -> list[str]:
    return [sys.executable, str(ROOT / "bin/vmrun-img"), "serve", "-f", "raw", "-k", str(socket), "-t", "-e", "0", *more, str(image)]  # noqa: E501


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(3).randbytes(4 * MIB))
    return path


@pytest.mark.parametrize("serve", [qemu_nbd, ours], ids=["qemu-nbd", "ours"])
def test_our_client(image: pathlib.Path, tmp_path: pathlib.Path, serve: object) -> None:
    expected = bytearray(image.read_bytes())
    with server(serve(image, tmp_path / "s"), tmp_path / "s") as address:  # type: ignore[operator]
        node = open_node(address, "raw", Access())
        assert node.size == 4 * MIB
        assert node.read(0, 4 * MIB) == expected
        node.write(MIB + 512, b"w" * 70000)
        expected[MIB + 512 : MIB + 70512] = b"w" * 70000
        node.write_zeroes(65536, 131072)
        expected[65536:196608] = bytes(131072)
        node.sync()
        assert node.read(0, 4 * MIB) == expected
        with pytest.raises(OSError):
            node.write(4 * MIB, b"x" * 512)
        node.close()
    assert image.read_bytes() == expected


def test_a_server_that_goes_away_is_an_error(image: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with server(qemu_nbd(image, tmp_path / "s"), tmp_path / "s") as address:
        node = open_node(address, "raw", Access())
        assert node.read(0, 512)
    with pytest.raises(OSError):
        node.read(0, 512)
    node.close()
    with pytest.raises(BackendError, match="Failed to connect"):
        open_node(address, "raw", Access())


def test_a_server_that_only_reads_is_not_written(image: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with server(qemu_nbd(image, tmp_path / "s", "-r"), tmp_path / "s") as address:
        with pytest.raises(BackendError, match="write access denied"):
            open_node(address, "raw", Access())
        open_node(address, "raw", Access(readonly=True)).close()


def test_qemus_client_and_libnbds_read_and_write_our_server(image: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with server(ours(image, tmp_path / "s"), tmp_path / "s") as address:
        told = subprocess.run(["nbdinfo", "--json", address], capture_output=True, text=True, timeout=60)
        assert f'"export-size": {4 * MIB}' in told.stdout, told.stderr
        copied = subprocess.run(["nbdcopy", address, str(tmp_path / "copy")], timeout=60)
        assert copied.returncode == 0
        assert (tmp_path / "copy").read_bytes() == image.read_bytes()
        commands = ("write -P 7 1M 300k", "write -z 0 64k", "discard 2M 64k", "read -P 7 1M 300k", "flush")
        words = [word for command in commands for word in ("-c", command)]
        done = subprocess.run(["qemu-io", "-f", "raw", *words, address], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "failed" not in done.stdout
    data = image.read_bytes()
    assert data[:65536] == bytes(65536)
    assert data[MIB : MIB + 300 * 1024] == b"\7" * 300 * 1024


def test_a_client_of_nonsense_ends_only_its_own_connection(image: pathlib.Path, tmp_path: pathlib.Path) -> None:
    import socket

    rng = random.Random(5)
    with server(ours(image, tmp_path / "s"), tmp_path / "s") as address:
        for _ in range(50):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "s"))
                try:
                    client.sendall(rng.randbytes(4) + b"IHAVEOPT" + rng.randbytes(rng.randrange(200)))
                except OSError:
                    pass
        node = open_node(address, "raw", Access(readonly=True))
        assert node.read(0, 512) == image.read_bytes()[:512]
        node.close()


def one_at_a_time(image: pathlib.Path, socket: pathlib.Path, *more: str) -> list[str]:
    return [sys.executable, str(ROOT / "bin/vmrun-nbd"), "-f", "raw", "-k", str(socket), "-t", *more, str(image)]


def test_who_comes_when_another_is_served_waits(image: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with server(one_at_a_time(image, tmp_path / "s"), tmp_path / "s") as address:
        first = open_node(address, "raw", Access())
        words = ["qemu-io", "-f", "raw", "-c", "read 0 512", address]
        second = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(0.5)
        assert first.read(0, 512)
        first.close()
        assert "read 512/512" in second.communicate(timeout=30)[0]
        for _ in range(3):  # each just behind the one before it
            subprocess.run(["qemu-img", "info", address], check=True, stdout=subprocess.DEVNULL, timeout=30)


@pytest.mark.parametrize("shared", ["1", "2"])
def test_several_connections_are_offered_where_they_are_answered(
    image: pathlib.Path, tmp_path: pathlib.Path, shared: str
) -> None:
    for command in (one_at_a_time, qemu_nbd):
        path = tmp_path / command.__name__
        with server(command(image, path, "-e", shared), path) as address:
            told = subprocess.run(["nbdinfo", "--json", address], capture_output=True, text=True, timeout=60).stdout
            assert f'"can_multi_conn": {"true" if shared == "2" else "false"}' in told, command
            assert '"can_cache": true' in told
            assert '"can_df": true' in told


@contextmanager
def talked_to(
    image: pathlib.Path, path: pathlib.Path, export: type[Export], queue: int, clients: int = 1,
    before: Callable[[], object] = lambda: None,
) -> Iterator[str]:  # fmt: skip
    """The address of an export in this process that talks with so many clients, one after the other."""
    node = open_node(str(image), "raw", Access(readonly=True))
    made = export(node, "", True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(queue)

        def serve() -> None:
            before()
            for _ in range(clients):
                made.talk(listener.accept()[0])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"nbd+unix:///?socket={path}"
        thread.join(10)
    node.close()


def test_a_server_that_offers_more_connections_than_it_answers(image: pathlib.Path, tmp_path: pathlib.Path) -> None:
    class Generous(Export):
        alone = property(lambda self: False, lambda self, value: None)

    with talked_to(image, tmp_path / "s", Generous, queue=1) as address:
        ours = open_node(address, "raw", Access(readonly=True))
        assert ours.read(0, 512) == image.read_bytes()[:512]
        ours.close()


def mapped(tool: list[str], *words: str) -> str:
    return subprocess.run([*tool, "map", "--output=json", *words], capture_output=True, text=True, timeout=60).stdout


OUR_IMG = [sys.executable, str(ROOT / "bin/vmrun-img")]


def test_holes_on_a_server_are_holes_here_and_its_bitmaps_are_read(tmp_path: pathlib.Path) -> None:
    """base:allocation, and with x-dirty-bitmap what has changed, as backup programs ask for it."""
    disk, at = tmp_path / "d.qcow2", tmp_path / "s"
    for words in (["create", "-q", "-f", "qcow2", str(disk), "64M"], ["bitmap", "--add", str(disk), "b0"]):
        subprocess.run(["qemu-img", *words], check=True)
    subprocess.run(
        ["qemu-io", "-c", "write 3M 1M", "-c", "write 20M 128k", "-c", "write -z 40M 1M", str(disk)], check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    with server(["qemu-nbd", "-r", "-t", "-f", "qcow2", "-B", "b0", "-k", str(at), str(disk)], at) as address:
        assert '"data": true' in mapped(OUR_IMG, address) == mapped(["qemu-img"], address)
        changed = f"driver=nbd,server.type=unix,server.path={at},x-dirty-bitmap=qemu:dirty-bitmap:b0"
        assert '"present": false' in mapped(OUR_IMG, "--image-opts", changed)
        assert mapped(OUR_IMG, "--image-opts", changed) == mapped(["qemu-img"], "--image-opts", changed)
        copy = tmp_path / "copy.raw"
        subprocess.run([*OUR_IMG, "convert", "--image-opts", changed, str(copy)], check=True)  # a hole that is data
        subprocess.run(["qemu-img", "compare", "-q", str(disk), str(copy)], check=True)


@pytest.mark.parametrize("by", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_server_that_a_signal_ends_has_not_failed(image: pathlib.Path, tmp_path: pathlib.Path, by: str) -> None:
    import signal

    process = subprocess.Popen(one_at_a_time(image, tmp_path / "s"), stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 30
    while not listens_at(tmp_path / "s"):
        assert time.monotonic() < end
        time.sleep(0.01)
    subprocess.run(["qemu-img", "info", f"nbd+unix:///?socket={tmp_path}/s"], check=True, stdout=subprocess.DEVNULL)
    process.send_signal(getattr(signal, by))
    assert (process.communicate(timeout=30)[1], process.returncode) == ("", 0)
    assert not (tmp_path / "s").exists()


def test_a_server_whose_queue_is_full_is_waited_for(image: pathlib.Path, tmp_path: pathlib.Path) -> None:
    class Alone(Export):
        alone = property(lambda self: True, lambda self, value: None)

    full, early = threading.Event(), socket.socket(socket.AF_UNIX)

    def late() -> None:
        full.wait(20)
        time.sleep(0.2)
        early.close()

    with talked_to(image, tmp_path / "s", Alone, queue=0, clients=2, before=late) as address:
        early.connect(str(tmp_path / "s"))
        full.set()
        ours = open_node(address, "raw", Access(readonly=True))
        assert ours.read(0, 512) == image.read_bytes()[:512]
        ours.close()


@pytest.mark.parametrize("words", ["info", "map", "check", "resize"])
def test_an_image_that_cannot_be_read_is_told_in_qemus_words(tmp_path: pathlib.Path, words: str) -> None:
    rules = tmp_path / "rules"
    rules.write_text('[inject-error]\nevent = "none"\niotype = "read"\nerrno = "5"\n')
    (tmp_path / "d.img").write_bytes(bytes(MIB))
    name = f"blkdebug:{rules}:{tmp_path}/d.img"
    more = ["2M"] if words == "resize" else []
    mine, theirs = (
        subprocess.run([*tool, words, name, *more], capture_output=True, text=True, timeout=60)
        for tool in (OUR_IMG, ["qemu-img"])
    )
    assert mine.returncode == theirs.returncode == 1
    assert "determining its format: Input/output error" in mine.stderr
    assert mine.stderr.partition("Could")[2] == theirs.stderr.partition("Could")[2]
