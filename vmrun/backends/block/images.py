"""Images by name: what a file is, and the graph of nodes that reads and writes it.

`open_node(name)` takes what QEMU takes: a file name, `json:{…}`, `nbd:…`, `nbd://…`; `open_options(dict)` the options
of a -blockdev. A format is either said or probed; what is probed as raw stays so only for reading.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from vmrun.backends.block import qcow2_header as headers
from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.filenames import from_name, named, node_name, of_name, says_file
from vmrun.backends.block.locks import lock_file
from vmrun.backends.block.reopening import CORRUPT, prepare, reopen
from vmrun.core import fdsets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from vmrun.backends.block.limits import LimitGroup
    from vmrun.backends.block.node import Node

# (format, where its magic is, the magic)
MAGICS = (
    ("qcow2", 0, b"QFI\xfb"),
    ("qed", 0, b"QED\0"),
    ("vmdk", 0, b"KDMV"),
    ("vmdk", 0, b"COWD"),
    ("vmdk", 0, b"# Disk DescriptorFile"),
    ("vdi", 64, b"\x7f\x10\xda\xbe"),
    ("vhdx", 0, b"vhdxfile"),
    ("vpc", 0, b"conectix"),
    ("luks", 0, b"LUKS\xba\xbe"),
    ("parallels", 0, b"WithoutFreeSpace"),
    ("parallels", 0, b"WithouFreSpacExt"),
    ("dmg", -512, b"koly"),
)
MAPPED = ("vmdk", "vdi", "vpc", "vhdx")  # of other programs: formats/
FORMATS = ("raw", "qcow2", *MAPPED)
DEVICES = ("host_device", "host_cdrom")  # drivers of the host's devices
DEEPEST = 128  # images of a backing chain
NESTED = 48  # names in images that are options themselves (json:), one in the other
CACHES = ("writeback", "writethrough", "none", "directsync", "unsafe")
others = False  # what is opened is another program's for now: machine/handover.py
checking = False  # what is opened is to be checked: it may be wrong, and nothing is mended on the way


@contextlib.contextmanager
def waiting(whether: bool = True) -> Iterator[None]:
    """What is opened in it is another program's for now, when `whether`."""
    global others
    before, others = others, others or whether
    try:
        yield
    finally:
        others = before


@contextlib.contextmanager
def to_check() -> Iterator[None]:
    """What is opened in it is to be checked."""
    global checking
    checking = True
    try:
        yield
    finally:
        checking = False


class Access:
    """How a chain is opened: `cache` of CACHES, `readonly`, `share` (no locks), `discard` passed on to the host."""

    def __init__(
        self, *, cache: str = "writeback", readonly: bool = False, share: bool = False, discard: bool = False,
        lock: bool = True, known: Callable[[str], Node | None] | None = None, aio: str = "threads",
        direct: bool | None = None,
    ) -> None:  # fmt: skip
        """`known`: gives nodes that have names, held for the caller. `aio`: one of AIO, of files that are opened.
        `direct`: past the host's page cache, whatever `cache` says; None: as it says.
        """
        self.aio = aio
        self.direct = cache in ("none", "directsync") if direct is None else direct
        self.cache, self.readonly, self.share, self.discard, self.lock = cache, readonly, share, discard, lock
        self.known = known
        self.objects: dict[str, Any] = {}
        self.nested = 0

    def read_only(self) -> Access:
        made = Access(
            cache=self.cache, readonly=True, share=self.share, lock=self.lock, known=self.known, aio=self.aio,
            direct=self.direct,
        )  # fmt: skip
        made.nested = self.nested
        return made.with_objects(self.objects)

    def with_objects(self, objects: dict[str, Any]) -> Access:
        """`objects`: those of the host's side that nodes may name."""
        self.objects = objects
        return self


def probe(node: Node, name: str) -> str:
    """The format whose magic the node begins with, or raw. ImageError, with its `name`, when it cannot be read."""
    try:
        return _magic(node)
    except OSError as error:
        why = f"Could not read image for determining its format: {error.strerror}"
        raise ImageError(f"Could not open '{name}': {why}") from None


def _magic(node: Node) -> str:
    head = node.read(0, 512)
    for format, at, magic in MAGICS:
        if at < 0:
            found = node.read(node.size + at, len(magic)) if node.size >= -at else b""
        else:
            found = head[at : at + len(magic)]
        if found == magic:
            return format
    return "raw"


# --- files --------------------------------------------------------------------------------------------------


def open_file(path: str, access: Access, driver: str | None = None) -> Node:
    """The protocol node of a file or a device of the host's; `driver`: what it has to be, `file` or one of DEVICES."""
    from vmrun.backends.block.file import FileNode

    flags = os.O_CLOEXEC | (os.O_RDONLY if access.readonly else os.O_RDWR) | (os.O_DIRECT if access.direct else 0)
    engine = _engine(path, access)
    try:
        if not path.startswith(fdsets.PREFIX) and stat.S_ISDIR(os.stat(path).st_mode):
            raise ImageError(
                f"Could not open '{path}': Is a directory" if not access.readonly else _not_one(path, driver)
            )
        fd = fdsets.open_file(path, flags)
    except OSError as exc:
        if flags & os.O_DIRECT and exc.errno == errno.EINVAL:
            raise ImageError(
                f"Could not open '{path}': file system may not support O_DIRECT", "use `cache: writeback`"
            ) from None
        raise ImageError(f"Could not open '{path}': {exc.strerror}") from None
    except ValueError:
        raise ImageError(f"Could not open '{path}': No such file or directory") from None
    try:
        mode = os.fstat(fd).st_mode
        device = stat.S_ISBLK(mode) or driver in DEVICES and stat.S_ISCHR(mode)
        if not device and (driver in DEVICES or not stat.S_ISREG(mode)):
            raise ImageError(_not_one(path, driver))
        if access.lock and not access.share and not others:
            lock_file(path, fd, access.readonly)
        node = FileNode(fd, path, access.readonly, access.direct)
        node.unsafe = access.cache == "unsafe"
        node.unlocked = access.share or not access.lock
        node.asleep = others
        node.engine = engine
        return node
    except BaseException:
        os.close(fd)
        raise


def _engine(path: str, access: Access) -> Any:
    """Who makes the file's transfers: None for vmrun's own threads."""
    if access.aio == "threads":
        return None
    if access.aio == "native" and not access.direct:
        raise ImageError(
            "aio=native was specified, but it requires cache.direct=on, which was not specified.",
            "add `cache: none`, or take `aio: threads`",
        )
    from vmrun.backends.block.engine import engine

    try:
        return engine(access.aio)
    except OSError as exc:
        what = "native AIO" if access.aio == "native" else access.aio
        raise ImageError(
            f"Unable to use {what}: {exc.strerror}", "take `aio: threads`"
        ) from None


def _not_one(path: str, driver: str | None) -> str:
    wanted = "either a character or block device" if driver in DEVICES else "a regular file"
    return f"Could not open '{path}': '{driver or 'file'}' driver requires '{path}' to be {wanted}"


# --- names --------------------------------------------------------------------------------------------------


def open_node(
    name: str, format: str | None, access: Access, *, backing: bool = True, depth: int = 0,
    seen: tuple[tuple[int, int], ...] = (),
) -> Node:  # fmt: skip
    """The graph of an image. `format` None: probed. `backing` False: without its backing chain."""
    file = open_protocol(name, access)
    if says_format(name, file, format):
        return file
    try:
        return over(file, name, format, access, backing=backing, depth=depth, seen=seen)
    except BaseException:
        file.close()
        raise


def says_format(name: str, node: Node, format: str | None) -> bool:
    """Whether `json:` told the format, too, so that `node` is the image, and not a file with one."""
    return name.startswith("json:") and node.driver in FORMATS and format in (None, node.driver)


def open_protocol(name: str, access: Access) -> Node:
    """What a name says, without a format on top."""
    if name.startswith("json:"):
        return open_options(from_name(name), access)
    if name.startswith(("nbd:", "nbd+")):
        from vmrun.backends.block.nbd_client import open_nbd

        found: Node = open_nbd(name, access.readonly)
        return found
    if name.startswith(("http://", "https://")):
        from vmrun.backends.block.http import open_http

        return open_http(name, {}, access.readonly, access.objects)
    if name.startswith("fat:"):
        from vmrun.backends.block.vvfat import named, open_vvfat

        return open_vvfat(named(name), access.readonly)
    if name.startswith("blkdebug:"):
        return _debugged(name, access)
    if name.startswith("null-co:") or name.startswith("null-aio:"):
        return open_options({"driver": name.split(":")[0]}, access)
    if name.startswith("file:"):
        name = name[5:]
    head = name.split("/")[0]
    if ":" in head and not os.path.exists(name):
        raise ImageError(f"Could not open '{name}': Unknown protocol '{head.split(':')[0]}'")
    return open_file(name, access)


def _debugged(name: str, access: Access) -> Node:
    """`blkdebug:FILE:NAME`: NAME with the faults that FILE describes; without FILE none."""
    from vmrun.backends.block.debugrules import debug_node

    config, mark, inner = name.removeprefix("blkdebug:").partition(":")
    if not mark:
        raise ImageError(f"Could not open '{name}': blkdebug requires a file and an image")
    if inner.count("blkdebug:") > NESTED:
        raise ImageError("too many nodes: blkdebug: of blkdebug:")
    node = open_protocol(inner, access)
    try:
        found: Node = debug_node(node, {"config": config})
        return found
    except BaseException:
        node.close()
        raise


def flag(value: Any) -> bool:
    return value in (True, "on", "true", "yes", "y")


def open_options(options: dict[str, Any], access: Access, depth: int = 0) -> Node:
    """The graph that a -blockdev describes (nested, with inline children)."""
    if depth > DEEPEST:
        raise ImageError("too many nodes")
    from vmrun.backends.block.nodeoptions import checked

    options = dict(options)
    driver = options.get("driver")
    if driver is None and not {"file", "filename", "image"} & options.keys():
        raise ImageError("Must specify either driver or file")
    if driver is None and "filename" in options:
        options = of_name(str(options.pop("filename")), options)
        driver = options.get("driver")
        if driver is None and not options.keys() - {"filename", "node-name"}:
            return open_protocol(str(options["filename"]), access)
    options = checked(options, "file" if driver is None and "filename" in options else driver)
    options.pop("driver", None)
    nested = access.nested
    if nested > NESTED:
        raise ImageError("too many nodes: an image names itself, or images that name it")
    said = "read-only" in options
    readonly = flag(options.get("read-only", access.readonly))
    cache, direct = _cache(options.get("cache"), access)
    access = Access(
        cache=cache, direct=direct, readonly=readonly, share=access.share, known=access.known,
        discard=options.get("discard", "unmap" if access.discard else "ignore") in ("unmap", "on"), lock=access.lock,
        aio=str(options.get("aio", access.aio)),
    ).with_objects(access.objects)  # fmt: skip
    access.nested = nested + 1
    if options.get("locking") == "off":
        access.lock = False
    opener = PROTOCOLS.get(str(driver)) if driver is not None or "filename" not in options else _open_file
    node = opener(options, access, driver) if opener is not None else _format(options, access, driver, depth)
    if driver is None and opener is None:
        try:
            checked(options, node.driver)
        except BaseException:
            node.close()
            raise
    if readonly and said and not node.readonly and driver in (*FILTERS, "null-co", "null-aio"):
        node.turn(True)
    if driver == "blkdebug" and depth == 0:
        from vmrun.backends.block.debugrules import may_write

        try:
            may_write(node)
        except BaseException:
            node.close()
            raise
    return node


def _open_file(options: dict[str, Any], access: Access, driver: str | None) -> Node:
    if "filename" not in options:
        raise ImageError(f"The '{driver or 'file'}' block driver requires a file name")
    path = str(options["filename"])
    lazy = access.known is not None and not access.readonly
    if not lazy:
        return open_file(path, access, driver)
    # A node with a name may be for reading, for writing, or for nobody: it is opened for writing when somebody asks.
    if not os.access(path, os.W_OK) and os.path.exists(path) and not flag(options.get("auto-read-only")):
        raise ImageError(f"Could not open '{path}': Permission denied")
    node = open_file(path, access.read_only(), driver)
    node.lazy = True
    return node


def _open_null(options: dict[str, Any], access: Access, driver: str | None) -> Node:
    from vmrun.backends.block.null import NullNode

    node: Node = NullNode(options.get("size", 1 << 30), options.get("read-zeroes", False), driver or "null-co")
    return node


def _open_nbd(options: dict[str, Any], access: Access, driver: str | None) -> Node:
    from vmrun.backends.block.nbd_client import open_nbd_options

    found: Node = open_nbd_options(options, access.readonly, access.objects)
    return found


def _open_http(options: dict[str, Any], access: Access, driver: str | None) -> Node:
    from vmrun.backends.block.http import open_http

    if not options.get("url"):
        raise ImageError("curl block driver requires an 'url' option")
    return open_http(str(options["url"]), {**options, "driver": driver}, access.readonly, access.objects)


def _open_fat(options: dict[str, Any], access: Access, driver: str | None) -> Node:
    from vmrun.backends.block.vvfat import open_vvfat

    return open_vvfat(options, access.readonly)


PROTOCOLS: dict[str, Callable[[dict[str, Any], Access, str | None], Node]] = {
    **dict.fromkeys(("file", *DEVICES), _open_file), "null-co": _open_null, "null-aio": _open_null, "nbd": _open_nbd,
    "http": _open_http, "https": _open_http, "vvfat": _open_fat,
}  # fmt: skip
FILTERS = ("blkdebug", "copy-on-read", "throttle", "raw")


def _child(given: Any, access: Access, depth: int) -> Node:
    """What a node is built on: options, or the name of a node, or of a file."""
    if isinstance(given, dict):
        return open_options(given, access, depth + 1)
    known = access.known(str(given)) if access.known is not None else None
    if known is None:
        raise ImageError(f"Cannot find device='{given}' nor node-name='{given}'")
    try:
        if not access.readonly:
            reopen(known, False)
        return known
    except BaseException:
        known.close()
        raise


def _format(options: dict[str, Any], access: Access, driver: str | None, depth: int) -> Node:
    """What lies on another node."""
    child = options.get("file", options.get("image") if driver == "blkdebug" else None)
    if driver is not None and driver not in (*FORMATS, *FILTERS, *(found for found, _, _ in MAGICS)):
        raise ImageError(f"Unknown driver '{driver}'")
    if child is None:
        raise ImageError('A block device must be specified for "file"')
    lazy = access.known is not None and driver in FILTERS and not access.readonly
    node = _child(child, access.read_only() if lazy and isinstance(child, str) else access, depth)
    try:
        made = _on(node, options, access, driver, depth)
        made.lazy = lazy and node.lazy
        return made
    except BaseException:
        node.close()
        raise


def throttle_group(objects: Mapping[str, Any], options: dict[str, Any]) -> LimitGroup:
    """What a throttle node names. ImageError."""
    if "throttle-group" not in options:
        raise ImageError("Please specify a throttle group")
    group: LimitGroup | None = getattr(objects.get(str(options["throttle-group"])), "group", None)
    if group is None:
        raise ImageError(f"Throttle group '{options['throttle-group']}' does not exist")
    return group


def _on(node: Node, options: dict[str, Any], access: Access, driver: str | None, depth: int) -> Node:
    if driver == "blkdebug":
        from vmrun.backends.block.debugrules import debug_node

        return debug_node(node, options)
    if driver == "throttle":
        from vmrun.backends.block.throttle import ThrottleNode

        limited: Node = ThrottleNode(node, throttle_group(access.objects, options))
        return limited
    if driver == "copy-on-read":
        from vmrun.backends.block.tap import CopyOnReadNode

        found: Node = CopyOnReadNode(node)
        return found
    name = node_name(node)
    if driver == "raw":
        return raw(node, options)
    if node.readonly and not access.readonly:
        reopen(node, False)
    from vmrun.backends.block.nodeoptions import checked, overlap_checks
    from vmrun.backends.block.qcow2 import Qcow2Node

    backing = options.get("backing", True)
    elsewhere = isinstance(backing, dict) or isinstance(backing, str) and bool(backing) and access.known is not None
    data = _child(options["data-file"], access, depth) if options.get("data-file") else None
    try:
        wanted = not elsewhere and backing is not None and backing != ""
        top = over(node, name, driver, access, backing=wanted, depth=depth, data=data)
    except BaseException:
        if data is not None:
            data.close()
        raise
    if elsewhere:
        try:
            _rebased(top, name, backing, access, depth)
        except BaseException:
            node.hold()  # the caller closes it, too
            top.close()
            raise
    if isinstance(top, Qcow2Node):
        try:
            bound(top, checked(options, "qcow2"))
            top.overlap_checks = overlap_checks(options, top.overlap_checks)
            if "lazy-refcounts" in options:
                be_lazy(top, options)
        except BaseException:
            node.hold()  # the caller closes it, too
            top.close()
            raise
    return top


def _rebased(top: Any, name: str, backing: Any, access: Access, depth: int) -> None:
    """Put below an image what the options say; which file, the image may say."""
    header = getattr(top, "header", None)
    if header is None:
        raise ImageError("Driver doesn't support backing files")
    if isinstance(backing, dict) and header.backing_file and not says_file(backing):
        given = {"driver": header.backing_format, **backing} if header.backing_format else backing
        backing = named(beside(name, header.backing_file), given)
    try:
        top.rebase(_child(backing, access.read_only(), depth))
    except ImageError as error:
        if isinstance(backing, str):
            raise
        raise ImageError(f"Could not open backing file: {error.text}", error.remedy) from None


def bound(node: Any, options: dict[str, Any]) -> None:
    """How much of a qcow2 image's tables is kept in memory, as -blockdev says it. ImageError."""
    from vmrun.backends.block.nodeoptions import caches, typed

    kept = caches({key: typed(key, "size", options[key]) for key in options if "cache-" in key}, node.cluster_size)
    if kept is not None:
        try:
            node.bound(*kept)
        except (OSError, MemoryError) as error:
            raise ImageError(f"Could not set the caches of '{node_name(node)}': {error}") from None


def be_lazy(node: Any, options: dict[str, Any]) -> None:
    """Lazy reference counts as -blockdev says, whatever the image says of itself. ImageError."""
    wanted = flag(options["lazy-refcounts"])
    if wanted and node.header.version < 3:
        raise ImageError(
            "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level",
            "say `compat=1.1` to `vmrun-img amend -o`",
        )
    node.be_lazy(wanted)


def _cache(given: Any, default: Access) -> tuple[str, bool]:
    """(one of CACHES, whether past the host's page cache), as a node's `cache` says."""
    if not isinstance(given, dict):
        return default.cache, default.direct
    direct = flag(given.get("direct"))
    return "unsafe" if flag(given.get("no-flush")) else "none" if direct else "writeback", direct


def raw(node: Node, options: dict[str, Any] | None = None) -> Node:
    """The raw format on a protocol, with `offset` and `size` when it says them."""
    options = options or {}
    if "offset" in options or "size" in options:
        from vmrun.backends.block.null import WindowNode

        start = options.get("offset", 0)
        if start > node.size:
            raise ImageError(f"Offset ({start}) cannot be greater than size of the containing file ({node.size})")
        size = options.get("size", node.size - start)
        if start + size > node.size:
            raise ImageError(
                f"The sum of offset ({start}) and size ({size}) has to be smaller or equal to the  actual size of the "
                f"containing file ({node.size})"
            )
        if "size" in options and size % 512:
            raise ImageError("Specified size is not multiple of 512")
        return WindowNode(node, start, size)
    if node.driver == "blkdebug":
        from vmrun.backends.block.debug import HeardNode
        from vmrun.backends.block.debugrules import may_write

        may_write(node)
        heard: Node = HeardNode(node)
        return heard
    from vmrun.backends.block.node import Filter

    return Filter(node)


def over(
    file: Node, name: str, format: str | None, access: Access, *, backing: bool = True, depth: int = 0,
    seen: tuple[tuple[int, int], ...] = (), data: Node | None = None,
) -> Node:  # fmt: skip
    """The format's node on its protocol node, with its backing chain. `format` None: probed, and what is
    taken for raw stays so. `data`: an external data file that is open.
    """
    if format is None:
        format = probe(file, name)
        if format == "raw" and not access.readonly:
            from vmrun.backends.block.probed import ProbedNode

            found: Node = ProbedNode(file, [(at, magic) for _, at, magic in MAGICS if at >= 0])
            return found
    if format in ("raw", "file", *DEVICES):
        return raw(file)
    if format not in FORMATS:
        known = {found for found, _, _ in MAGICS}
        if format in known:
            raise ImageError(f"Could not open '{name}': images of format '{format}' are not modelled")
        raise ImageError(f"Unknown driver '{format}'")
    if format in MAPPED:
        from vmrun.backends.block.formats import open_format

        return open_format(file, name, format, access)
    return _qcow2(file, name, access, backing, depth, seen, data)


def _identity(file: Node) -> tuple[int, int] | None:
    fd = getattr(file, "fd", -1)
    if fd < 0:
        return None
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _qcow2(
    file: Node, name: str, access: Access, backing: bool, depth: int, seen: tuple[tuple[int, int], ...],
    data: Node | None = None,
) -> Node:  # fmt: skip
    from vmrun.backends.block.qcow2 import Qcow2Node

    opened: list[Node] = []
    try:
        header = headers.parse(file.read, checking)
        if header.bitmaps:
            headers.parse_bitmaps(header, file.read)
        if header.incompatible & headers.CORRUPT and not access.readonly and not checking:
            raise ImageError(f"Could not open '{name}': {CORRUPT}")
        if not header.incompatible & headers.DATA_FILE:
            if data is not None:
                told = "'data-file' can only be set for images with an external data file"
                raise ImageError(f"Could not open '{name}': {told}")
        elif data is None:
            if not header.data_file:
                raise ImageError(f"Could not open '{name}': 'data-file' is required for this image")
            data = open_protocol(beside(name, header.data_file), access)
            opened.append(data)
        below = None
        if backing and header.backing_file:
            mine = _identity(file)
            chain = (*seen, mine) if mine else seen
            if depth >= DEEPEST or mine in seen:
                raise ImageError(f"Could not open '{name}': the backing chain of the image has no end")
            below = open_backing(name, header, access, depth, chain)
            opened.append(below)
        node = Qcow2Node(file, header, below, data, access.readonly, checking)
        node.passes_discards = access.discard
        node.asleep = others
        if not access.readonly and not others and not checking:
            prepare(node, header, name)
        return node
    except headers.QcowError as error:
        for child in opened:
            child.close()
        raise ImageError(f"Could not open '{name}': {error}", error.hint) from None
    except OSError as error:
        for child in opened:
            child.close()
        raise ImageError(f"Could not open '{name}': {error.strerror}") from None
    except BaseException:
        for child in opened:
            child.close()
        raise


def open_backing(
    name: str, header: Any, access: Access, depth: int = 0, seen: tuple[tuple[int, int], ...] = ()
) -> Node:
    """The image below one."""
    path = beside(name, header.backing_file)
    try:
        return open_node(path, header.backing_format or None, access.read_only(), depth=depth + 1, seen=seen)
    except ImageError as error:
        raise ImageError(f"Could not open backing file: {error.text}") from None


def beside(name: str, other: str) -> str:
    """The name in an image as seen from here: relative ones start at the image's directory."""
    if other.startswith(("json:", "/")) or ":" in other.split("/")[0]:
        return other
    if name.startswith("file:"):
        name = name[5:]
    return os.path.join(os.path.dirname(name), other)
