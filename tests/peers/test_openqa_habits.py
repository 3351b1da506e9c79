"""What openQA's worker (os-autoinst's QEMU back end) says, on QEMU and on vmrun-qemu: its command line, a snapshot of a
disk by node name, the state through a descriptor that came by SCM_RIGHTS, and back by `exec:cat FILE` in a new process.
"""

from __future__ import annotations

import array
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.peers.oracle import QEMU, needs_qemu

pytestmark = [needs_qemu, pytest.mark.peer]

OURS = [sys.executable, str(pathlib.Path(__file__).resolve().parents[2] / "bin" / "vmrun-qemu"), "-accel", "tcg"]
THEIRS = [str(QEMU), "-accel", "tcg"]
SERIAL = ["-chardev", "ringbuf,id=serial0,logfile=serial0,logappend=on", "-serial", "chardev:serial0"]
MONITOR = [
    *("-chardev", "socket,path=qmp_socket,server=on,wait=off,id=qmp_socket,logfile=qmp_socket.log,logappend=on"),
    *("-qmp", "chardev:qmp_socket", "-S"),
]
BOARD = [
    *("-device", "VGA,edid=on,xres=1024,yres=768", "-only-migratable", *SERIAL),
    *("-global", "isa-fdc.fdtypeA=none", "-m", "64", "-cpu", "qemu64", "-smp", "1", "-no-shutdown", "-display", "none"),
    *("-netdev", "user,id=qanet0", "-device", "virtio-net,netdev=qanet0,mac=52:54:00:12:34:56"),
    *("-object", "rng-random,filename=/dev/urandom,id=rng0", "-device", "virtio-rng-pci,rng=rng0", *MONITOR),
]


def disk(name: str, overlay: str = "") -> list[str]:
    chain = ["-blockdev", f"driver=file,node-name=hd0-file,filename={name},cache.no-flush=on"]
    chain += ["-blockdev", "driver=qcow2,node-name=hd0,file=hd0-file,cache.no-flush=on,discard=unmap"]
    if overlay:
        chain += ["-blockdev", f"driver=file,node-name=hd0-overlay0-file,filename={overlay},cache.no-flush=on"]
        chain += ["-blockdev", "driver=qcow2,node-name=hd0-overlay0,file=hd0-overlay0-file,backing=hd0"]
    top = "hd0-overlay0" if overlay else "hd0"
    return [*chain, "-device", f"virtio-blk,id=hd0-device,drive={top},bootindex=0,serial=hd0"]


class Worker:
    """One process of the emulator in `directory`, and its monitor."""

    def __init__(self, command: list[str], directory: pathlib.Path) -> None:
        (directory / "qmp_socket").unlink(missing_ok=True)
        self.process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        for _ in range(600):
            try:
                self.socket.connect(str(directory / "qmp_socket"))
                break
            except OSError:
                assert self.process.poll() is None, self.process.communicate()[1]
                time.sleep(0.05)
        self.stream = self.socket.makefile("r")
        self.events: list[str] = []
        assert "QMP" in json.loads(self.stream.readline())
        self.say("qmp_capabilities")

    def say(self, execute: str, fd: int = -1, **arguments: Any) -> Any:
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        line = json.dumps({"execute": execute, "arguments": named}).encode()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
        self.socket.sendmsg([line], ancillary)
        while True:
            answer = json.loads(self.stream.readline())
            if "event" not in answer:
                assert "return" in answer, answer
                return answer["return"]
            self.events.append(answer["event"])

    def until(self, execute: str, *statuses: str) -> None:
        end = time.monotonic() + 60
        while self.say(execute).get("status") not in statuses:
            assert time.monotonic() < end
            time.sleep(0.05)

    def migration(self) -> None:
        for name in ("compress", "events"):
            self.say("migrate-set-capabilities", capabilities=[{"capability": name, "state": True}])

    def close(self) -> None:
        self.say("quit")
        assert self.process.wait(30) == 0
        self.stream.close()
        self.socket.close()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.mark.parametrize("program", [THEIRS, OURS], ids=["qemu", "vmrun"])
def test_a_snapshot_is_made_and_gone_back_to(tmp_path: pathlib.Path, program: list[str]) -> None:
    image, overlay, state = tmp_path / "hd0", tmp_path / "hd0-overlay0", tmp_path / "lastgood"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1G"], check=True)
    worker = Worker([*program, *BOARD, *disk(str(image))], tmp_path)
    worker.say("cont")
    worker.until("query-status", "running")
    worker.say("stop")
    worker.say("blockdev-snapshot-sync", node_name="hd0", snapshot_node_name="hd0-overlay0",
               snapshot_file=str(overlay), format="qcow2")  # fmt: skip
    worker.migration()
    numbers = {"compress-level": 6, "compress-threads": 2, "max-bandwidth": (1 << 63) - 1}
    worker.say("migrate-set-parameters", **numbers)
    fd = os.open(state, os.O_CREAT | os.O_RDWR)
    worker.say("getfd", fd, fdname="dumpfd")
    os.close(fd)
    worker.say("migrate", uri="fd:dumpfd")
    worker.until("query-migrate", "completed")
    worker.until("query-status", "postmigrate")
    worker.say("cont")
    worker.until("query-status", "running")
    worker.say("set_link", name="qanet0", up=False)
    worker.close()
    assert {"RESUME", "STOP", "MIGRATION"} <= set(worker.events)

    again = Worker([*program, *BOARD, *disk(str(image), str(overlay)), "-incoming", "defer"], tmp_path)
    again.migration()
    again.say("migrate-incoming", uri=f"exec:cat {state}")
    again.until("query-status", "paused", "prelaunch")
    again.say("cont")
    again.until("query-status", "running")
    again.close()
    assert (tmp_path / "serial0").exists()
    log = (tmp_path / "qmp_socket.log").read_text()
    assert log.count('{"QMP"') == 2  # both processes wrote to it
