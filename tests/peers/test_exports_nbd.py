"""Disks of a machine that runs, read and written by qemu-io over NBD."""

from __future__ import annotations

import json
import pathlib
import socket
import subprocess
import sys

import pytest

from tests.peers.qmp_session import ROOT, Talk

pytestmark = pytest.mark.peer

LINE = ["-accel", "tcg", "-m", "16", "-S", "-nodefaults", "-display", "none", "-qmp", "stdio"]


def test_clients_see_what_the_guest_sees(tmp_path: pathlib.Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", "8M"], cwd=tmp_path, check=True)
    disk = ["-drive", "if=none,id=d0,file=a.qcow2,format=qcow2", "-device", "virtio-blk-pci,drive=d0"]
    talk = Talk([sys.executable, str(ROOT / "bin" / "vmrun-qemu"), *LINE, *disk], tmp_path)

    def client(command: str, name: str = "d0", *more: str) -> subprocess.CompletedProcess[str]:
        url = f"nbd+unix:///{name}?socket={tmp_path}/s"
        words = ["qemu-io", "-f", "raw", *more, "-c", command, url]
        return subprocess.run(words, capture_output=True, text=True, timeout=60)

    def guest(command: str) -> str:
        answer = talk.ask("human-monitor-command", **{"command-line": f'qemu-io d0 "{command}"'})
        return str(answer["return"])

    try:
        assert "not running" in talk.ask("nbd-server-add", device="d0")["error"]["desc"]
        where = {"type": "unix", "data": {"path": f"{tmp_path}/s"}}
        assert talk.ask("nbd-server-start", addr=where) == {"return": {}}
        assert "already" in talk.ask("nbd-server-start", addr=where)["error"]["desc"]
        assert talk.ask("nbd-server-add", device="d0", writable=True) == {"return": {}}
        assert talk.ask("nbd-server-add", device="d0", name="ro") == {"return": {}}
        guest("write -P 3 0 1M")
        told = client("read -P 3 0 1M")
        assert told.returncode == 0 and "Pattern" not in told.stdout, told.stdout + told.stderr
        talk.ask("block-dirty-bitmap-add", node="d0", name="b")
        told = client("write -P 5 1M 64k")
        assert told.returncode == 0, told.stderr
        assert "Pattern" not in guest("read -P 5 1M 64k")
        bitmaps = talk.ask("query-block")["return"][0]["inserted"]["dirty-bitmaps"]
        assert bitmaps[0]["count"] == 65536
        talk.ask("blockdev-snapshot-sync", device="d0", **{"snapshot-file": "s.qcow2"})
        guest("write -P 6 2M 64k")
        assert "Pattern" not in client("read -P 6 2M 64k", "ro", "-r").stdout
        assert client("write -P 1 0 64k", "ro").returncode != 0
        assert client("read 0 1k", "nix", "-r").returncode != 0
        assert [row["id"] for row in talk.ask("query-block-exports")["return"]] == ["d0", "ro"]
        assert talk.ask("nbd-server-remove", name="ro") == {"return": {}}
        assert talk.ask("nbd-server-stop") == {"return": {}}
        assert client("read 0 1k").returncode != 0
        talk.ask("quit")
        talk.process.wait(60)
    finally:
        talk.close()
    for image in ("a.qcow2", "s.qcow2"):
        subprocess.run(["qemu-img", "check", "-q", image], cwd=tmp_path, check=True)


def test_clients_ask_what_is_stored_and_what_was_written(tmp_path: pathlib.Path) -> None:
    """As libvirt's pull backups do it: a bitmap beside the export, read by qemu-img."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", "8M"], cwd=tmp_path, check=True)
    disk = ["-drive", "if=none,id=d0,file=a.qcow2,format=qcow2", "-device", "virtio-blk-pci,drive=d0"]
    talk = Talk([sys.executable, str(ROOT / "bin" / "vmrun-qemu"), *LINE, *disk], tmp_path)

    def extents(**options: str) -> list[tuple[int, int, bool]]:
        """(start, length, data) as qemu-img sees them."""
        server = {"type": "unix", "path": f"{tmp_path}/s"}
        image = json.dumps({"driver": "raw", "file": {"driver": "nbd", "server": server, "export": "e", **options}})
        words = ["qemu-img", "map", "--output=json", f"json:{image}"]
        told = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
        return [(row["start"], row["length"], row["data"]) for row in json.loads(told.stdout)]

    try:
        talk.ask("human-monitor-command", **{"command-line": 'qemu-io d0 "write 0 64k"'})
        talk.ask("block-dirty-bitmap-add", node="d0", name="b", **{"granularity": 65536})
        talk.ask("human-monitor-command", **{"command-line": 'qemu-io d0 "write 2M 128k"'})
        where = {"type": "unix", "data": {"path": f"{tmp_path}/s"}}
        assert talk.ask("nbd-server-start", addr=where) == {"return": {}}
        node = talk.ask("query-block")["return"][0]["inserted"]["node-name"]
        export = {"type": "nbd", "id": "x", "name": "e", "node-name": node, "bitmaps": ["b"]}
        assert "incompatible with readonly" in talk.ask("block-export-add", **export)["error"]["desc"]
        talk.ask("block-dirty-bitmap-disable", node="d0", name="b")
        none = talk.ask("block-export-add", **{**export, "bitmaps": ["nix"]})
        assert none["error"]["desc"] == "Bitmap 'nix' is not found"
        assert talk.ask("block-export-add", **export) == {"return": {}}
        assert "in use" in talk.ask("block-dirty-bitmap-remove", node="d0", name="b")["error"]["desc"]
        k, m = 1 << 10, 1 << 20
        assert [row for row in extents() if row[2]] == [(0, 64 * k, True), (2 * m, 128 * k, True)]
        # qemu-img's way to ask for another context: what is dirty is told as no data
        dirty = extents(**{"x-dirty-bitmap": "qemu:dirty-bitmap:b"})
        assert [row for row in dirty if not row[2]] == [(2 * m, 128 * k, False)]
        assert talk.ask("block-export-del", id="x") == {"return": {}}
        assert talk.ask("block-dirty-bitmap-remove", node="d0", name="b") == {"return": {}}
        talk.ask("quit")
        talk.process.wait(60)
    finally:
        talk.close()


def test_a_socket_that_was_left_behind_is_in_nobodys_way(tmp_path: pathlib.Path) -> None:
    """Nor is one left by a server that ends by itself."""
    (tmp_path / "disk").write_bytes(b"\5" * 4096)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))
    words = [sys.executable, str(ROOT / "bin" / "vmrun-img"), "serve", "-r", "-f", "raw", "-k", "s", "disk"]
    server = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None and server.stdout.readline() == "serving on s\n"
        url = f"nbd+unix:///?socket={tmp_path}/s"
        client = subprocess.run(["qemu-io", "-f", "raw", "-r", "-c", "read -P 5 0 4k", url], timeout=60, check=True)
        assert client.returncode == 0 and server.wait(60) == 0
    finally:
        server.kill()
        server.wait()
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("through", [False, True])
def test_writethrough_has_each_write_on_the_disk_before_it_is_answered(
    tmp_path: pathlib.Path, through: bool
) -> None:
    """The disk's own cache cannot be written back: who waits for that sees the error, who does not sees none."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    node = "driver=blkdebug,node-name=n,image.driver=file,image.filename=disk"
    node += ",inject-error.0.event=none,inject-error.0.iotype=flush,inject-error.0.errno=5"
    talk = Talk([sys.executable, str(ROOT / "bin" / "vmrun-qemu"), *LINE, "-blockdev", node], tmp_path)
    try:
        address = {"type": "unix", "data": {"path": str(tmp_path / "s")}}
        assert talk.ask("nbd-server-start", addr=address) == {"return": {}}
        options = {"type": "nbd", "id": "x", "node-name": "n", "writable": True, "writethrough": through}
        assert talk.ask("block-export-add", **options) == {"return": {}}
        url = f"nbd+unix:///n?socket={tmp_path}/s"
        client = ["qemu-io", "-f", "raw", "-t", "unsafe", "-c", "write -P 7 0 4k", url]
        done = subprocess.run(client, timeout=60, capture_output=True, text=True)
        assert ("Input/output error" in done.stdout + done.stderr) == through, done
        talk.ask("quit")
        talk.process.wait(60)
    finally:
        talk.close()


def test_what_cannot_be_exported_is_refused_in_the_same_words(tmp_path: pathlib.Path) -> None:
    """Ids that are none or taken, and nodes that were said to be read-only, filters among them."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    nodes = ("driver=file,node-name=n,filename=disk", "driver=raw,node-name=ro,file=n,read-only=on")
    line = [*LINE, *(word for node in nodes for word in ("-blockdev", node))]
    address = {"type": "unix", "data": {"path": str(tmp_path / "s")}}
    answers = []
    for program in (["qemu-system-x86_64"], [sys.executable, str(ROOT / "bin" / "vmrun-qemu")]):
        talk = Talk([*program, *line], tmp_path)
        try:
            talk.ask("nbd-server-start", addr=address)
            tries = [("#x", "n", False), ("1", "n", False), ("", "n", False), ("x", "n", False), ("x", "n", False)]
            tries += [("y", "ro", True), ("z", "ro", False)]
            answers.append([
                talk.ask("block-export-add", **{"type": "nbd", "id": id, "node-name": node, "writable": writable})
                for id, node, writable in tries
            ])
            answers[-1].append(talk.ask("block-export-del", id="y"))
            talk.ask("quit")
            talk.process.wait(60)
        finally:
            talk.close()
    assert answers[1] == answers[0]


def test_an_export_in_use_is_not_taken_away_unless_by_force(tmp_path: pathlib.Path) -> None:
    """As QEMU's; and servers listen on either family's addresses."""
    (tmp_path / "disk").write_bytes(b"\5" * (1 << 20))
    line = [*LINE, "-blockdev", "driver=file,node-name=n,filename=disk"]
    for program in (["qemu-system-x86_64"], [sys.executable, str(ROOT / "bin" / "vmrun-qemu")]):
        talk = Talk([*program, *line], tmp_path)
        try:
            with socket.socket(socket.AF_INET6) as free:
                free.bind(("::1", 0))
                port = free.getsockname()[1]
            where = {"type": "inet", "data": {"host": "::1", "port": str(port)}}
            assert talk.ask("nbd-server-start", addr=where) == {"return": {}}
            export = {"type": "nbd", "id": "e", "node-name": "n"}
            assert talk.ask("block-export-add", **export) == {"return": {}}
            words = ["qemu-io", "-r", "-f", "raw", f"nbd://[::1]:{port}/n"]
            client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert client.stdin is not None and client.stdout is not None
            client.stdin.write("read -P 5 0 4k\n")
            client.stdin.flush()
            assert "read 4096/4096" in client.stdout.readline()
            assert talk.ask("block-export-del", id="e")["error"]["desc"] == "export 'e' still in use"
            assert talk.ask("block-export-del", id="e", mode="hard") == {"return": {}}
            assert "failed" in client.communicate("read 0 4k\n", timeout=60)[0]
            assert talk.ask("query-block-exports")["return"] == []
            talk.ask("quit")
            talk.process.wait(60)
        finally:
            talk.close()
