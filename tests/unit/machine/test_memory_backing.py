"""Memory backends: what lies under a machine's memory, and how the host keeps it."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.board import Driven
from vmrun.errors import BuildError

MIB = 1 << 20
PROGRAM = pathlib.Path(__file__).resolve().parents[3] / "bin" / "vmrun-qemu"


def mapping(pc: Driven, offset: int = 0) -> dict[str, str]:
    """The rows of /proc/self/smaps for the page at `offset` of the machine's memory, with its name."""
    address = pc.board.ram.address + offset
    found: dict[str, str] = {}
    for line in pathlib.Path("/proc/self/smaps").read_text().splitlines():
        head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)", line)
        if head:
            inside = int(head[1], 16) <= address < int(head[2], 16)
            found = {"mode": head[3], "name": head[4]} if inside else {}
        elif found:
            key, _, value = line.partition(":")
            found[key] = value.strip()
            if key == "VmFlags":
                return found
    raise AssertionError("not mapped")


def test_a_file_has_what_the_guest_writes(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "memory"
    backing = {"mem-path": "memory", "share": True}
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="8MiB", **{"memory-backing": backing}) as pc:
        assert path.stat().st_size == 8 * MIB
        pc.board.ram.write(0x5000, b"hello")
        assert path.read_bytes()[0x5000:0x5005] == b"hello"
        assert mapping(pc)["mode"] == "rw-s" and mapping(pc)["name"] == str(path)
        pc.board.ram.clear()
        assert path.read_bytes()[0x5000:0x5005] == bytes(5)


def test_a_directory_keeps_no_file_and_private_writes_stay_here(tmp_path: pathlib.Path) -> None:
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="8MiB", **{"memory-backing": {"mem-path": "."}}) as pc:
        assert mapping(pc)["mode"] == "rw-p" and "(deleted)" in mapping(pc)["name"]
        assert not [name for name in os.listdir(tmp_path) if name.startswith("vmrun_back_mem")]


def test_all_pages_at_the_start(tmp_path: pathlib.Path) -> None:
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="8MiB", **{"memory-backing": {"prealloc": True}}) as pc:
        assert mapping(pc, 4 * MIB)["Rss"] == "8192 kB"


def test_merging_and_dumping_are_told_to_the_host(tmp_path: pathlib.Path) -> None:
    backing = {"merge": True, "dump": False}
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="8MiB", **{"memory-backing": backing}) as pc:
        flags = mapping(pc)["VmFlags"].split()
        assert "dd" in flags
        assert "mg" in flags or not os.path.exists("/sys/kernel/mm/ksm")


@pytest.mark.parametrize(
    ("backing", "words"),
    [
        ({"mem-path": "/nowhere/x"}, "can't open backing store /nowhere/x for guest RAM: No such file or directory"),
        ({"policy": "bind", "host-nodes": "99"}, "there is no node 99 here"),
        ({"policy": "bind"}, "host-nodes must be set for policy bind"),
        ({"host-nodes": "0"}, "host-nodes must be empty for policy default"),
    ],
)
def test_what_the_host_cannot_do_is_an_error(backing: dict[str, Any], words: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(BuildError, match=re.escape(words)):
        Driven(tmp_path, machine="pc-i440fx-7.2", memory="8MiB", **{"memory-backing": backing})


def test_a_file_that_is_too_small_is_left_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "memory").write_bytes(b"x" * 4096)
    with pytest.raises(BuildError, match="backing store size 0x1000 does not match 'size' option 0x800000"):
        Driven(tmp_path, machine="pc-i440fx-7.2", memory="8MiB", **{"memory-backing": {"mem-path": "memory"}})
    assert (tmp_path / "memory").read_bytes() == b"x" * 4096


def run(tmp_path: pathlib.Path, *words: str, more: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), "-accel", "qtest", "-display", "none", "-nodefaults", "-S"]
    command += ["-qmp", "stdio", *words]
    more = '{"execute": "qmp_capabilities"}' + more + '{"execute": "quit"}'
    return subprocess.run(command, input=more, capture_output=True, text=True, timeout=60, cwd=tmp_path)


FILE = ["-object", "memory-backend-file,id=m0,size=8M,mem-path=m0,share=on"]


def test_memory_backend_of_a_command_line(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, "-M", "pc-i440fx-7.2,memory-backend=m0", "-m", "8", *FILE)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert (tmp_path / "m0").stat().st_size == 8 * MIB


def test_nodes_have_their_own_backends(tmp_path: pathlib.Path) -> None:
    other = ["-object", "memory-backend-memfd,id=m1,size=8M"]
    nodes = ["-numa", "node,memdev=m0", "-numa", "node,memdev=m1"]
    words = ["-M", "pc-i440fx-7.2", "-m", "16", *FILE, *other, *nodes]
    done = run(tmp_path, *words, more='{"execute": "object-del", "arguments": {"id": "m0"}}')
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "object 'm0' is in use, can not be deleted" in done.stdout
    assert (tmp_path / "m0").stat().st_size == 8 * MIB


def test_a_size_that_does_not_match(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, "-M", "pc-i440fx-7.2,memory-backend=m0", "-m", "16", *FILE)
    assert done.returncode == 1
    assert "Machine memory size does not match the size of the memory backend" in done.stderr


def test_mem_path_and_mem_prealloc(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, "-M", "pc-i440fx-7.2", "-m", "8", "-mem-path", str(tmp_path), "-mem-prealloc")
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_mem_lock_locks_all_or_says_that_it_cannot(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, "-M", "pc-i440fx-7.2", "-m", "8", "-overcommit", "mem-lock=on")
    assert done.returncode == 0 or "locking memory failed" in done.stderr


def test_objects_of_a_machine_file_are_there_for_its_devices(tmp_path: pathlib.Path) -> None:
    objects = {"shm": {"type": "memory-backend-file", "size": "1MiB", "mem-path": "shm", "share": True}}
    devices = [{"driver": "ivshmem-plain", "id": "card", "memdev": "shm"}]
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="8MiB", objects=objects, devices=devices) as pc:
        assert (tmp_path / "shm").stat().st_size == MIB
        with pytest.raises(BuildError, match="object 'shm' is in use"):
            pc.board.delete_object("shm")
        pc.machine.board.devices["card"].unrealize()
        pc.board.delete_object("shm")


def test_an_object_that_cannot_be_says_where(tmp_path: pathlib.Path) -> None:
    objects = {"a": {"type": "memory-backend-ram"}}
    with pytest.raises(BuildError, match="can't create backend with size 0") as found:
        Driven(tmp_path, machine="pc-i440fx-7.2", memory="8MiB", objects=objects)
    assert found.value.problems[0].code == "VR0635" and found.value.problems[0].path == "objects.a"


def test_an_alignment_that_is_none_is_refused(tmp_path: pathlib.Path) -> None:
    from vmrun.backends.objects.memory import FileMemory

    made = FileMemory("mem")
    made.set_props({"mem-path": str(tmp_path / "ram"), "align": 3 << 20, "size": 4 << 20})
    with pytest.raises(BuildError, match="a power of two"):
        made.prepare()


@pytest.mark.parametrize("backing", [{}, {"mem-path": "memory", "share": True}])
def test_a_machine_that_is_closed_has_no_memory_any_more(tmp_path: pathlib.Path, backing: dict[str, Any]) -> None:
    """What it is made of refers to itself, and may be garbage for long: the guest's memory is not."""
    extra = {"memory-backing": backing} if backing else {}
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="8MiB", **extra) as pc:
        pc.board.ram.write(0, b"hello" * 200_000)
        assert mapping(pc)["Rss"] != "0 kB"
    assert mapping(pc)["Rss"] == "0 kB"
    assert mapping(pc)["name"] == ""
    if backing:
        assert (tmp_path / "memory").read_bytes()[:5] == b"hello"
