"""qcow2 images that lie: each is refused or gives errors; nothing crashes, hangs, or takes memory without bounds."""

from __future__ import annotations

import pathlib
import random
import resource
import struct
import sys
from typing import Any

import pytest

from vmrun.backends.block import qcow2_check, qcow2_snapshots
from vmrun.backends.block.create import create_qcow2, new_file
from vmrun.backends.block.images import Access, open_node
from vmrun.errors import BackendError

MIB = 1 << 20
KINDS: tuple[dict[str, Any], ...] = (
    {"cluster_size": 4096},
    {"cluster_size": 16384, "extended_l2": True},
    {"compat": "0.10", "cluster_size": 512},
    {"cluster_size": 4096, "refcount_bits": 1, "lazy_refcounts": True},
)


def sample(path: pathlib.Path, options: dict[str, Any]) -> bytes:
    """A small image with all kinds of clusters and a snapshot."""
    new_file(str(path), 0)
    create_qcow2(str(path), MIB, dict(options))
    node: Any = open_node(str(path), "qcow2", Access())
    node.write(0, b"d" * 70000)
    node.write_compressed(20 * node.cluster_size, b"c" * node.cluster_size)
    node.write_zeroes(30 * node.cluster_size, node.cluster_size)
    if options.get("refcount_bits") != 1:
        qcow2_snapshots.create_snapshot(node, a_snapshot())
        node.write(0, b"e" * 9000)
    node.close()
    return path.read_bytes()


def a_snapshot() -> Any:
    from vmrun.backends.block.qcow2_header import Snapshot

    return Snapshot(id="1", name="s", date_sec=1)


def tables(image: bytes) -> list[tuple[int, int]]:
    """Where the header, L1, L2, counts and snapshots are: that is where a lie matters."""
    cluster = 1 << struct.unpack_from(">I", image, 20)[0]
    l1_size, l1 = struct.unpack_from(">IQ", image, 36)
    counts, snapshots = struct.unpack_from(">Q", image, 48)[0], struct.unpack_from(">Q", image, 64)[0]
    found = [(0, 112), (0, 8), (l1, l1_size * 8), (counts, 64), (snapshots, 80)]
    found += [
        (entry & 0x00FFFFFFFFFFFE00, min(cluster, 512))
        for (entry,) in struct.iter_unpack(">Q", image[l1 : l1 + l1_size * 8])
        if entry
    ]
    block = struct.unpack_from(">Q", image, counts)[0]
    return [(at, size) for at, size in [*found, (block, 64)] if size]


def use(path: pathlib.Path) -> None:
    """All that can be done with an image."""
    node: Any
    try:
        node = open_node(str(path), "qcow2", Access())
    except (BackendError, OSError, MemoryError):
        try:
            node = open_node(str(path), "qcow2", Access(readonly=True))
        except (BackendError, OSError, MemoryError):
            return
    try:
        for action in (
            lambda: node.read(0, min(node.size, 2 * MIB)),
            lambda: node.read(max(0, node.size - 65536), 65536),
            lambda: node.write(0, b"w" * 5000),
            lambda: node.write(node.size // 2 // 512 * 512, b"w" * 512),
            lambda: node.write_zeroes(0, 300000, True),
            lambda: node.trim(0, 300000),
            lambda: node.extent(0, node.size),
            lambda: node.sync(),
            lambda: qcow2_snapshots.create_snapshot(node, a_snapshot()),
            lambda: [qcow2_snapshots.apply_snapshot(node, one) for one in node.snapshots[:2]],
            lambda: [qcow2_snapshots.delete_snapshot(node, one) for one in node.snapshots[:2]],
            lambda: qcow2_check.check(node, None, lambda line: None),
            lambda: qcow2_check.check(node, "all" if not node.readonly else None, lambda line: None),
        ):
            try:
                action()
            except (OSError, MemoryError):
                pass
    finally:
        try:
            node.close()
        except OSError:
            pass


def mutate(rng: random.Random, image: bytes, places: list[tuple[int, int]]) -> bytes:
    data = bytearray(image)
    for _ in range(rng.choice((1, 1, 2, 5))):
        start, size = rng.choice(places)
        at = start + rng.randrange(size)
        what = rng.random()
        if what < 0.4:
            data[at] ^= 1 << rng.randrange(8)
        elif what < 0.6:
            at &= ~7
            value = rng.choice((0, 1, (1 << 64) - 1, 1 << 63, rng.randrange(1 << 64), rng.randrange(len(data)) & ~511))
            data[at : at + 8] = struct.pack(">Q", value)
        elif what < 0.8:
            at &= ~7
            other = rng.choice(places)[0]
            data[at : at + 8] = struct.pack(">Q", other | rng.choice((0, 1 << 63, 1 << 62)))
        else:
            data[at] = rng.randrange(256)
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


def run(directory: pathlib.Path, options: dict[str, Any], seed: int, count: int) -> None:
    path = directory / "hostile.qcow2"
    image = sample(path, options)
    places, rng = tables(image), random.Random(seed)
    for _ in range(count):
        path.write_bytes(mutate(rng, image, places))
        use(path)
        path.unlink()


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_mutated_images_do_no_harm(tmp_path: pathlib.Path, options: dict[str, Any]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, limits[1]))  # a hostile offset must not fill the disk
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # what other tests took before is none of its business
    start = peak()
    try:
        run(tmp_path, options, len(str(options)), 150)
    finally:
        signal.signal(signal.SIGXFSZ, before)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert peak() < start + (1 << 20)


def peak() -> int:
    """The most KiB that this process has had since the last `5` in clear_refs."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        (4, struct.pack(">I", 9), "Unsupported qcow2 version 9"),
        (20, struct.pack(">I", 60), "Unsupported cluster size: 2\\^60"),
        (24, struct.pack(">Q", (1 << 64) - 512), "Image is too big"),
        (24, struct.pack(">Q", 1 << 40), "L1 table is too small"),
        (32, struct.pack(">I", 1), "AES-encrypted"),
        (32, struct.pack(">I", 2), "LUKS-encrypted"),
        (36, struct.pack(">I", 1 << 31), "Active L1 table too large"),
        (40, struct.pack(">Q", 513), "Active L1 table offset invalid"),
        (48, struct.pack(">Q", 511), "Reference count table offset invalid"),
        (56, struct.pack(">I", 0), "does not contain a reference count table"),
        (56, struct.pack(">I", 1 << 30), "Reference count table too large"),
        (60, struct.pack(">I", 1 << 20), "Snapshot table too large"),
        (72, struct.pack(">Q", 1 << 40), "Unsupported qcow2 feature"),
        (72, struct.pack(">Q", 2), "Image is corrupt; cannot be opened read/write"),
        (96, struct.pack(">I", 7), "Reference count entry width too large"),
        (100, struct.pack(">I", 90), "qcow2 header too short"),
        (100, struct.pack(">I", 1 << 30), "qcow2 header exceeds cluster size"),
        (8, struct.pack(">Q", 1 << 50), "Invalid backing file offset"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: pathlib.Path, field: int, value: bytes, told: str) -> None:
    path = tmp_path / "a.qcow2"
    data = bytearray(sample(path, {}))
    data[field : field + len(value)] = value
    path.write_bytes(data)
    with pytest.raises(BackendError, match=told):
        open_node(str(path), "qcow2", Access())


def test_a_table_that_points_nowhere_marks_the_image(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.qcow2"
    data = bytearray(sample(path, {}))
    l1 = struct.unpack_from(">Q", data, 40)[0]
    data[l1 : l1 + 8] = struct.pack(">Q", 1 << 63 | 0x10200)
    path.write_bytes(data)
    node = open_node(str(path), "qcow2", Access())
    with pytest.raises(OSError):
        node.write(0, bytes(512))
    assert node.broken
    with pytest.raises(OSError):
        node.read(0, 512)
    with pytest.raises(OSError):
        node.close()
    assert path.read_bytes()[79] & 2


@pytest.mark.long
def test_many_mutated_images_do_no_harm(tmp_path: pathlib.Path) -> None:
    for seed in range(40):
        for options in KINDS:
            run(tmp_path, options, 1000 + seed, 150)


if __name__ == "__main__":
    for number in range(int(sys.argv[1]), int(sys.argv[2])):
        for kind in KINDS:
            run(pathlib.Path(sys.argv[3]), kind, number, 100)


def test_a_header_that_has_no_room_is_an_error_of_the_disk_where_an_image_is_closed() -> None:
    from vmrun.backends.block.create import header_for
    from vmrun.backends.block.qcow2_header import QcowError

    header = header_for(1 << 20, {"cluster_size": 512})
    header.extensions.append((0x12345678, bytes(400)))
    for kind in (QcowError, OSError):  # for who makes one, and for who writes one anew
        with pytest.raises(kind, match="Header exceeds the cluster size"):
            header.pack()
