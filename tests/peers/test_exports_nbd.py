"""Disks of a machine that runs, read and written by qemu-io over NBD."""

from __future__ import annotations

import pathlib
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
