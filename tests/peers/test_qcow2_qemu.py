"""qcow2 images and QEMU's own tools: what either writes the other reads, and `qemu-img check` finds nothing."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
from typing import Any

import pytest

from vmrun.backends.block import qcow2_snapshots
from vmrun.backends.block.create import create_qcow2, new_file
from vmrun.backends.block.images import Access, open_node
from vmrun.backends.block.qcow2_header import Snapshot

MIB = 1 << 20
SIZE = 8 * MIB + 1536
pytestmark = pytest.mark.peer

OPTIONS = (
    "compat=1.1", "compat=0.10", "cluster_size=512", "cluster_size=4k,refcount_bits=1", "cluster_size=2M",
    "refcount_bits=64", "refcount_bits=2", "lazy_refcounts=on", "extended_l2=on",
    "extended_l2=on,cluster_size=16k", "compression_type=zstd", "preallocation=metadata", "data_file=data.raw",
    "data_file=data.raw,data_file_raw=on",
)  # fmt: skip
CREATED: tuple[dict[str, Any], ...] = (
    {}, {"compat": "0.10"}, {"cluster_size": 512}, {"cluster_size": 4096, "refcount_bits": 8},
    {"cluster_size": 2 * MIB}, {"refcount_bits": 64}, {"lazy_refcounts": True}, {"extended_l2": True},
    {"compression_type": "zstd"}, {"preallocation": "metadata"}, {"preallocation": "full"},
    {"refcount_bits": 32, "cluster_size": 1024},
)  # fmt: skip


def tool(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(args, capture_output=True, text=True, timeout=60)


def raw(path: pathlib.Path, *options: str) -> bytes:
    out = path.with_suffix(".out")
    done = tool("qemu-img", "convert", *options, "-O", "raw", str(path), str(out))
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


def whole(path: pathlib.Path) -> None:
    done = tool("qemu-img", "check", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("backed", [False, True], ids=["alone", "backed"])
@pytest.mark.parametrize("options", OPTIONS)
def test_an_image_of_qemus_is_read_and_written(
    tmp_path: pathlib.Path, monkeypatch: Any, options: str, backed: bool
) -> None:
    if backed and ("raw=on" in options or "prealloc" in options):
        return
    monkeypatch.chdir(tmp_path)
    rng, path = random.Random(len(options)), tmp_path / "a.qcow2"
    (tmp_path / "base").write_bytes(rng.randbytes(5 * MIB))
    below = ["-b", "base", "-F", "raw"] if backed else []
    made = tool("qemu-img", "create", "-f", "qcow2", "-o", options, *below, str(path), str(SIZE))
    assert made.returncode == 0, made.stderr
    if "data_file" not in options:
        writes = ("write -c -P 7 0 64k", "write -c -P 9 2M 2M", "write -z 4M 64k", "write -P 3 1M 3072")
        tool("qemu-io", *(word for write in writes for word in ("-c", write)), str(path))
    expected = bytearray(raw(path))
    node = open_node(str(path), None, Access())
    assert node.read(0, SIZE) == expected
    for _ in range(80):
        at = rng.randrange(SIZE // 512) * 512
        count = min(rng.choice((512, 4096, 65536, rng.randrange(1, 600) * 512)), SIZE - at)
        what = rng.random()
        if what < 0.6:
            data = rng.randbytes(count)
            node.write(at, data)
            expected[at : at + count] = data
        elif what < 0.8:
            node.write_zeroes(at, count, what < 0.7)
            expected[at : at + count] = bytes(count)
        elif what < 0.9:
            node.trim(at, count)
            expected[at : at + count] = node.read(at, count)
        else:
            assert node.read(at, count) == expected[at : at + count]
    assert node.read(0, SIZE) == expected
    node.close()
    whole(path)
    assert raw(path) == expected


@pytest.mark.parametrize("options", CREATED, ids=str)
def test_an_image_of_ours_with_snapshots_is_whole(tmp_path: pathlib.Path, options: dict[str, Any]) -> None:
    rng, path, size = random.Random(len(str(options))), tmp_path / "a.qcow2", SIZE
    new_file(str(path), 0)
    create_qcow2(str(path), size, dict(options))
    whole(path)
    now, then = bytearray(size), {}
    node: Any = open_node(str(path), None, Access())
    for step in range(5):
        for _ in range(20):
            at = rng.randrange(size // 512) * 512
            data = rng.randbytes(min(rng.randrange(1, 300) * 512, size - at))
            node.write(at, data)
            now[at : at + len(data)] = data
        at = rng.randrange(size // node.cluster_size) * node.cluster_size
        data = b"compressed" * 7000
        data = data[: min(node.cluster_size, size - at)].ljust(min(node.cluster_size, size - at), b".")
        node.write_compressed(at, data)
        now[at : at + len(data)] = data
        if step == 3:
            qcow2_snapshots.apply_snapshot(node, node.snapshots[0])
            now = bytearray(then["s0"])
        elif step == 2:
            qcow2_snapshots.delete_snapshot(node, node.snapshots[1])
            del then["s1"]
        qcow2_snapshots.create_snapshot(node, Snapshot(id=str(step + 1), name=f"s{step}", date_sec=1))
        then[f"s{step}"] = bytes(now)
    if options.get("compat") != "0.10":
        size += 3 * MIB
        node.truncate(size)
        now = now.ljust(size, b"\0")
    assert node.read(0, size) == now
    node.close()
    whole(path)
    assert raw(path) == now
    for name, contents in then.items():
        assert raw(path, "-l", f"snapshot.name={name}") == contents.ljust(size, b"\0")


WRITER = """
import random, sys
from vmrun.backends.block.images import Access, open_node
path, seed, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng, node = random.Random(seed), open_node(path, "qcow2", Access())
print("go", flush=True)
number = 0
while True:
    number += 1
    at = rng.randrange(size // 4096) * 4096
    what = rng.random()
    if what < 0.7:
        node.write(at, number.to_bytes(8, "little") * (512 * rng.randrange(1, min(40, size // 4096 - at // 4096) + 1)))
    elif what < 0.8:
        node.write_zeroes(at, min(size - at, 65536 * rng.randrange(1, 4)), rng.random() < 0.5)
    elif what < 0.9:
        node.trim(at, min(size - at, 131072))
    if rng.random() < 0.2:
        mark = size + 4096 * rng.randrange(16)
        node.write(mark, number.to_bytes(8, "little") * 512)
        node.sync()
        print(mark, number, flush=True)
"""


def killed(directory: pathlib.Path, seed: int, **options: Any) -> None:
    """A writer is killed at a random moment; the image is whole, and what was flushed is there."""
    rng, path, size = random.Random(seed), directory / f"{seed}.qcow2", 32 * MIB
    new_file(str(path), 0)
    create_qcow2(str(path), size + 65536, options)
    root = str(pathlib.Path(__file__).resolve().parents[2])
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(seed), str(size)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stdout.readline() == "go\n"
    flushed: dict[int, int] = {}
    for _ in range(rng.randrange(1, 40)):
        mark, number = writer.stdout.readline().split()
        flushed[int(mark)] = int(number)
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.stdout.read().splitlines()
    writer.wait()
    later: dict[int, list[int]] = {}
    for line in rest:
        mark, number = line.split()
        flushed[int(mark)] = int(number)
    done = tool("qemu-img", "check", str(path))
    if options.get("lazy_refcounts") and done.returncode in (2, 3):
        # The dirty bit says that the counts are to be made anew: whoever opens it for writing does.
        assert "dirty-flag\": true" in tool("qemu-img", "info", "--output=json", str(path)).stdout
        open_node(str(path), "qcow2", Access()).close()
        done = tool("qemu-img", "check", str(path))
    assert done.returncode in (0, 3), f"seed {seed}: {done.stdout}{done.stderr}"
    node = open_node(str(path), "qcow2", Access(readonly=True))
    for mark, number in flushed.items():
        there = int.from_bytes(node.read(mark, 8), "little")
        assert there >= number, (seed, mark, number, there, later)
    node.close()
    path.unlink()


@pytest.mark.parametrize("lazy", [False, True], ids=["counted", "lazy"])
def test_a_killed_writer_leaves_a_whole_image(tmp_path: pathlib.Path, lazy: bool) -> None:
    for seed in range(4):
        killed(tmp_path, seed, lazy_refcounts=lazy)


@pytest.mark.long
@pytest.mark.parametrize("lazy", [False, True], ids=["counted", "lazy"])
def test_two_hundred_killed_writers(tmp_path: pathlib.Path, lazy: bool) -> None:
    for seed in range(100, 200):
        killed(tmp_path, seed, lazy_refcounts=lazy, cluster_size=4096 if seed % 3 == 0 else 65536)


def dirty(path: pathlib.Path) -> dict[str, int]:
    """What QEMU finds in an image's bitmaps: bytes by name."""
    asked = "".join(
        json.dumps({"execute": name}) for name in ("qmp_capabilities", "query-named-block-nodes", "quit")
    )
    node = f"driver=qcow2,node-name=a,read-only=on,file.driver=file,file.filename={path}"
    done = subprocess.run(
        ["qemu-system-x86_64", "-display", "none", "-S", "-nodefaults", "-qmp", "stdio", "-blockdev", node],
        input=asked, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        for row in json.loads(line).get("return") or () if line.startswith('{"return": [') else ():
            if row.get("node-name") == "a":
                return {one["name"]: one["count"] for one in row["dirty-bitmaps"]}
    raise AssertionError(done.stdout + done.stderr)


def test_qemu_reads_what_we_have_marked_in_an_images_bitmaps(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True)
    for words in (["-g", "64k", path, "coarse"], ["-g", "512", path, "fine"], ["--disable", path, "off"]):
        subprocess.run(["qemu-img", "bitmap", "--add", *words], check=True)
    node: Any = open_node(str(path), "qcow2", Access(readonly=False))
    for at in (0, 5 << 20, 63 << 20):
        node.write(at + 512, b"x" * 1024)
    node.close()
    assert dirty(path) == {"coarse": 3 * 65536, "fine": 3 * 1024, "off": 0}
    subprocess.run(["qemu-img", "check", "-q", path], check=True)
