"""New images: raw, qcow2, and those of formats/."""

from __future__ import annotations

import contextlib
import os
import stat
import struct

from vmrun.backends.block import qcow2_header as headers
from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.locks import lock_file
from vmrun.backends.block.sizes import FIRST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_SIZE = (1 << 63) - 512
# Ref: linux/fs.h
FSGETXATTR, FSSETXATTR, EXTSIZE, XFLAGS = 0x801C581F, 0x401C5820, 0x800, "=IIIII8s"


def new_file(path: str, size: int, preallocation: str = "off", hint: int = 0) -> None:
    """An empty file of that size; an image that somebody uses is not touched. A device or an export is there already
    and keeps its length: it must be long enough, and is no image of any format any more. `hint`: bytes that the file
    system may take at a time, where it takes hints. The first block is there, so that what it is aligned to can be
    tried.
    """
    if path.startswith(("nbd:", "nbd+")) or _is_device(path):
        _blank(path, size, preallocation)
        return
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ImageError(f"Could not create '{path}': {error.strerror}") from None
    try:
        try:
            lock_file(path, fd, False, resize=True)
        except ImageError as error:
            told = error.text.removeprefix(f"Could not open '{path}': ")
            raise ImageError(told, error.remedy) from None
        os.ftruncate(fd, 0)
        _hint(fd, hint)
        os.ftruncate(fd, size)
        try:
            preallocate(fd, 0, size, preallocation)
            if size and preallocation != "full":
                with contextlib.suppress(OSError):  # of a full disk: it was only to be nice
                    os.pwrite(fd, bytes(min(size, FIRST)), 0)
        except OSError as error:
            os.ftruncate(fd, 0)
            told = "preallocate new data" if preallocation == "falloc" else "write zeros for preallocation"
            raise ImageError(f"Could not {told}: {error.strerror}") from None
    except OSError as error:
        if error.errno == 27:
            raise ImageError("Could not resize file: File too large") from None
        raise ImageError(f"Could not resize file: {error.strerror}") from None
    finally:
        os.close(fd)


def _is_device(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
        return stat.S_ISBLK(mode) or stat.S_ISCHR(mode)
    except (OSError, ValueError):
        return False


def _blank(path: str, size: int, preallocation: str) -> None:
    """The first sector of what cannot be made is zeros. ImageError when it is too short."""
    from vmrun.backends.block.images import Access, open_protocol

    if preallocation != "off":
        raise ImageError(f"Unsupported preallocation mode '{preallocation}'")
    node = open_protocol(path, Access(cache="unsafe"))
    try:
        if size > node.size:
            raise ImageError("Cannot grow device files" if _is_device(path) else "Cannot grow NBD nodes")
        node.write_zeroes(0, min(512, node.size))
    except OSError as error:
        raise ImageError(f"Could not write '{path}': {error.strerror}") from None
    finally:
        node.close()


def preallocate(fd: int, at: int, size: int, preallocation: str) -> None:
    """Room on the disk for `size` bytes of zeros from `at` to the end of a new file. OSError."""
    if preallocation == "falloc" and size:
        os.posix_fallocate(fd, at, size)
    elif preallocation == "full":
        zeros = bytes(1 << 20)
        for done in range(0, size, 1 << 20):
            os.pwrite(fd, zeros[: size - done], at + done)
        os.fsync(fd)


def _hint(fd: int, bytes: int) -> None:
    """XFS has hints; others say that they have none."""
    import fcntl

    if not bytes:
        return
    try:
        flags, _, *rest = struct.unpack(XFLAGS, fcntl.ioctl(fd, FSGETXATTR, struct.pack(XFLAGS, 0, 0, 0, 0, 0, b"")))
        fcntl.ioctl(fd, FSSETXATTR, struct.pack(XFLAGS, flags | EXTSIZE, bytes, *rest))
    except OSError:
        return


def create_image(path: str, format: str, size: int, options: dict[str, Any]) -> None:
    """An image of one of images.FORMATS, in place of what is at `path`. `size`: whole sectors, in bytes. ImageError."""
    from vmrun.backends.block.images import MAPPED

    if format == "raw":
        new_file(path, size, options.get("preallocation", "off"), options.get("extent_size_hint", 1 << 20))
    elif format in MAPPED:
        from vmrun.backends.block.formats import module

        if options.get("preallocation") == "metadata":
            raise ImageError("Unsupported preallocation mode: metadata")
        try:
            module(format).create(path, size, options)
        except OSError as error:
            raise ImageError(f"Could not write '{path}': {error.strerror}") from None
    else:
        options["size"] = size
        header_for(size, options).pack()
        new_file(path, 0)
        create_qcow2(path, size, options)


def header_for(size: int, options: dict[str, Any]) -> headers.Header:
    """The header of a new image; ImageError for options that do not go together, in QEMU's words."""
    cluster = options.get("cluster_size", 65536)
    if cluster & (cluster - 1) or not 512 <= cluster <= 2 << 20:
        raise ImageError("Cluster size must be a power of two between 512 and 2048k")
    version = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}[options.get("compat", "1.1")]
    extended = options.get("extended_l2", False)
    lazy = options.get("lazy_refcounts", False)
    bits = options.get("refcount_bits", 16)
    zstd = options.get("compression_type", "zlib") == "zstd"
    data_file, raw = options.get("data_file"), options.get("data_file_raw", False)
    if bits not in (1, 2, 4, 8, 16, 32, 64):
        raise ImageError("Refcount width must be a power of two and may not exceed 64 bits")
    late = "compatibility level 1.1 and above (use version=v3 or greater)"
    if version < 3 and bits != 16:
        raise ImageError(
            "Different refcount widths than 16 bits require compatibility level 1.1 or above "
            "(use version=v3 or greater)"
        )
    if extended and version < 3:
        raise ImageError(f"Extended L2 entries are only supported with {late}")
    if extended and cluster < 16384:
        raise ImageError("Extended L2 entries are only supported with cluster sizes of at least 16384 bytes")
    if lazy and version < 3:
        raise ImageError(f"Lazy refcounts only supported with {late}")
    if zstd and version < 3:
        raise ImageError(f"Non-zlib compression type is only supported with {late}")
    if raw and not data_file:
        raise ImageError("data-file-raw requires data-file")
    if raw and options.get("backing_file"):
        raise ImageError("Backing file and data-file-raw cannot be used at the same time")
    if data_file and version < 3:
        raise ImageError(f"External data files are only supported with {late}")
    incompatible = (headers.DATA_FILE if data_file else 0) | (headers.COMPRESSION if zstd else 0)
    incompatible |= headers.EXTENDED_L2 if extended else 0
    header = headers.Header(
        version=version, cluster_bits=cluster.bit_length() - 1, size=size, incompatible=incompatible,
        compatible=headers.LAZY_REFCOUNTS if lazy else 0, autoclear=headers.RAW_EXTERNAL if raw else 0,
        refcount_order=bits.bit_length() - 1, compression_type=1 if zstd else 0, data_file=data_file or "",
        backing_file=options.get("backing_file") or "", backing_format=options.get("backing_fmt") or "",
    )  # fmt: skip
    header.l1_size = header.l1_needed(size)
    if header.l1_size * 8 > headers.MOST_L1:
        raise ImageError("The image size is too large for file format 'qcow2' (try using a larger cluster size)")
    if len(header.backing_file) > 1023:
        raise ImageError("Backing file name too long")
    return header


def metadata_size(header: headers.Header, data: int = 0, exact: bool = True) -> int:
    """Bytes of an image's tables when `data` bytes have a place; QEMU's own arithmetic of `measure`."""
    cluster = header.cluster_size
    aligned = -(-header.size // cluster) * cluster
    entry = 16 if header.extended_l2 else 8
    l2_entries = -(-(aligned // cluster) // (cluster // entry)) * (cluster // entry)
    l1 = -(-(l2_entries * entry // cluster) // (cluster // 8)) * (cluster // 8)
    total = cluster + l2_entries * entry + l1 * 8
    return total + refcount_size((total + (aligned if not data else 0)) // cluster, cluster, header.refcount_order)


def refcount_size(clusters: int, cluster: int, order: int, generous: bool = False) -> int:
    """Bytes of the reference counts for so many clusters and for themselves."""
    per_table, per_block = cluster // 8, cluster * 8 >> order
    table = blocks = last = n = 0
    while True:
        last = n
        blocks = -(-(clusters + table + blocks) // per_block)
        table = -(-blocks // per_table)
        n = clusters + blocks + table
        if n == last:
            return (blocks + table) * cluster


def create_qcow2(path: str, size: int, options: dict[str, Any]) -> None:
    """The file is there and empty, or it is a device or an export."""
    from vmrun.backends.block.images import Access, open_node, open_protocol

    header = header_for(size, options)
    cluster = header.cluster_size
    data_file = options.get("data_file")
    preallocation = options.get("preallocation", "off")
    if data_file:
        from vmrun.backends.block.images import beside

        new_file(beside(path, data_file), size if header.autoclear or preallocation != "off" else 0)
    # header, table of counts, one block of counts, L1: the first clusters of the file
    l1_clusters = -(-header.l1_size * 8 // cluster)
    per_block = cluster * 8 >> header.refcount_order
    used = 3 + l1_clusters
    if used > per_block:
        used, blocks = _spread(used - 1, per_block)
    else:
        blocks = 1
    table_clusters = -(-blocks * 8 // cluster)
    used = 1 + table_clusters + blocks + l1_clusters
    while -(-used // per_block) > blocks or -(-blocks * 8 // cluster) > table_clusters:
        blocks = -(-used // per_block)
        table_clusters = -(-blocks * 8 // cluster)
        used = 1 + table_clusters + blocks + l1_clusters
    header.refcount_table_offset, header.refcount_table_clusters = cluster, table_clusters
    header.l1_table_offset = (1 + table_clusters + blocks) * cluster if header.l1_size else 0
    if not header.l1_size:
        header.l1_table_offset = 0
    table = b"".join(struct.pack(">Q", (1 + table_clusters + n) * cluster) for n in range(blocks))
    file = open_protocol(path, Access(cache="unsafe"))
    try:
        file.write(cluster, table.ljust(table_clusters * cluster, b"\0"))
        for n in range(blocks):
            count = min(per_block, used - n * per_block)
            counts = _ones(count, header.refcount_order).ljust(cluster, b"\0")
            file.write((1 + table_clusters + n) * cluster, counts)
        if l1_clusters:
            file.write_zeroes(header.l1_table_offset, l1_clusters * cluster)  # a device may have something there
        if file.size < used * cluster:
            file.truncate(used * cluster)
        file.write(0, header.pack().ljust(cluster, b"\0"))
    except headers.QcowError as error:
        raise ImageError(str(error)) from None
    except OSError as error:
        raise ImageError(f"Could not write '{path}': {error.strerror}") from None
    finally:
        file.close()
    if header.autoclear & headers.RAW_EXTERNAL and preallocation == "off":
        preallocation = "metadata"  # who reads the data file alone sees what the image has
    if preallocation != "off" and size:
        node: Any = open_node(path, "qcow2", Access(cache="unsafe"), backing=False)
        try:
            node.preallocate(0, size, preallocation)
        except OSError as error:
            told = {"falloc": "preallocate new data", "full": "write zeros for preallocation"}.get(preallocation, "")
            told = f"Failed to resize underlying file: Could not {told}: " if told else ""
            raise ImageError(f"Could not resize image: {told}{error.strerror}") from None
        finally:
            node.close()


def _spread(clusters: int, per_block: int) -> tuple[int, int]:
    blocks = -(-clusters // per_block)
    return clusters + blocks, blocks


def _ones(count: int, order: int) -> bytes:
    """A block's first counts, all one."""
    if order >= 3:
        return (1).to_bytes(1 << (order - 3), "big") * count
    bits = 1 << order
    value = sum(1 << (n * bits) for n in range(count))
    return value.to_bytes(-(-count * bits // 8), "little")
