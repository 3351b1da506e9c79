"""Commands that make or change images: create, resize, rebase, commit, snapshot, amend; and bench."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

from vmrun.backends.block.sizes import bytes_of as size_of
from vmrun.backends.block.sizes import digits
from vmrun.cli.img.formats import amend_help, create_options, known, not_made, option_help, shown_options
from vmrun.cli.img.options import (
    CACHES,
    Given,
    ImgError,
    Progress,
    asks_help,
    format_of,
    image_size,
    open_image,
    options_of,
    pairs,
    program,
    rate_of,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.block.node import Node

NOT_MADE = ("http", "https", "fat", "blkdebug", "null-co", "null-aio", "json")
PREALLOCATIONS = ("off", "metadata", "falloc", "full")


# --- create ---------------------------------------------------------------------------------------------------


def create(argv: list[str]) -> int:
    given = Given(argv, "F:b:f:o:qu")
    format = given["f"] or "raw"
    if not known(format):
        name = given.args[0] if given.args else ""
        raise ImgError(f"{name}: {not_made(format)}")
    if asks_help(given):
        sys.stdout.write(option_help(format, bool(given.args)))
        return 0
    if not given.args:
        raise ImgError("Expecting image file name", usage=True)
    name = given.args[0]
    size = image_size(given.args[1]) if len(given.args) >= 2 else None
    if len(given.args) > 2:
        raise ImgError(f"Unexpected argument: {given.args[2]}", usage=True)
    options = options_of(given, create_options(format), format, name)
    if size is not None and "size" in options:
        raise ImgError(f"{name}: The image size must be specified only once")
    make(
        name, format, size, options, backing=given["b"],
        backing_format=given["F"], unsafe="u" in given, quiet="q" in given,
    )  # fmt: skip
    return 0


def make(
    name: str, format: str, size: int | None, options: dict[str, Any], *, backing: str | None = None,
    backing_format: str | None = None, unsafe: bool = False, quiet: bool = True,
) -> None:  # fmt: skip
    """A new image, and the line that says so."""
    from vmrun.backends.block import create as creation
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.filenames import NAMED
    from vmrun.backends.block.images import FORMATS, beside

    if backing is not None:
        if "backing_file" not in create_options(format):
            raise ImgError(f"{name}: Backing file not supported for file format '{format}'")
        options["backing_file"] = backing
    if backing_format is not None:
        options["backing_fmt"] = backing_format
    below = options.get("backing_file")
    if below == "":
        raise ImgError(f"{name}: Expected backing file name, got empty string")
    if below and below == name:
        raise ImgError(f"{name}: Error: Trying to create an image with the same filename as the backing file")
    if options.get("backing_fmt") and unsafe and options["backing_fmt"] not in NAMED:
        raise ImgError(f"{name}: Parameter 'backing-fmt' does not accept value '{options['backing_fmt']}'")
    if options.get("backing_fmt") and not unsafe and options["backing_fmt"] not in FORMATS:
        raise ImgError(f"{name}: Unknown driver '{options['backing_fmt']}'\nCould not open backing image.")
    if below and unsafe and not options.get("backing_fmt"):
        raise ImgError(f"{name}: Backing file specified without backing format")
    if size is None:
        size = options.get("size")
    if below:
        path = beside(name, below)
        if not unsafe:
            try:
                node = open_image(path, options.get("backing_fmt"), share=True)
            except ImgError as error:
                text = str(error).removeprefix(f"Could not open '{path}': ")
                raise ImgError(f"{name}: {text}\nCould not open backing image.") from None
            found, kind = node.size, format_of(node)
            node.close()
            if not options.get("backing_fmt"):
                raise ImgError(f"{name}: Backing file specified without backing format\nDetected format of {kind}.")
            size = found if size is None else size
    if size is None:
        raise ImgError(f"{name}: Image creation needs a size parameter")
    options["size"] = size
    _can_be_made(name)
    if not quiet:
        sys.stdout.write(f"Formatting '{name}', fmt={format}{shown(format, options)}\n")
        sys.stdout.flush()
    how = options.get("preallocation", "off")
    if how not in PREALLOCATIONS or format == "raw" and how == "metadata":
        if how in PREALLOCATIONS:
            raise ImgError(f"{name}: Unsupported preallocation mode: {how}")
        if known(format) and format not in ("raw", "qcow2"):
            raise ImgError(f"{name}: invalid parameter value: {how}")
        raise ImgError(f"{name}: Parameter 'preallocation' does not accept value '{how}'")
    if options.get("extent_size_hint", 0) >> 32:
        raise ImgError(f"{name}: Extent size hint is too large")
    for key, words, told in (
        ("compat", ("0.10", "1.1", "v2", "v3"), "version"),
        ("compression_type", ("zlib", "zstd"), "compression-type"),
    ):
        if key in options and options[key] not in words:
            raise ImgError(f"{name}: Parameter '{told}' does not accept value '{options[key]}'")
    path = name.removeprefix("file:")
    try:
        creation.create_image(path, format, (size + 511) & ~511, options)
    except ImageError as error:
        raise ImgError(f"{name}: {error.text}" + (f"\n{error.remedy}" if error.remedy else "")) from None


def _can_be_made(name: str) -> None:
    """Images are made as files, on devices and on NBD servers."""
    protocol, mark, _ = name.partition(":")
    if not mark or "/" in protocol or protocol in ("file", "nbd") or protocol.startswith("nbd+"):
        return
    if protocol in NOT_MADE:
        raise ImgError(f"{name}: Protocol driver '{protocol}' does not support image creation")
    raise ImgError(f"{name}: Unknown protocol '{protocol}'")


def shown(format: str, options: dict[str, Any]) -> str:
    text = ""
    for key, default in shown_options(format):
        value = options.get(key, default)
        if value is not None:
            value = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
            text += f" {key}={str(value).replace(',', ',,')}"
    return text


# --- resize ---------------------------------------------------------------------------------------------------


def resize(argv: list[str]) -> int:
    if len(argv) < 2 and not any(word in ("-h", "--help") for word in argv):
        raise ImgError("Not enough arguments", usage=True)
    text, sign = argv[-1], ""
    given = Given(argv[:-1] if len(argv) > 1 else argv, "f:q", ("preallocation=", "shrink"))
    if len(given.args) != 1:
        raise ImgError("Expecting image file name and size", usage=True)
    if text[:1] in ("+", "-"):
        sign, text = text[0], text[1:]
    number, name = size_of(text), given.args[0]
    if number is None:
        raise ImgError(
            "Parameter 'size' expects a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E means "
            "kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
        )
    wanted = number
    how = given["preallocation"] or "off"
    if how not in PREALLOCATIONS:
        raise ImgError(f"Invalid preallocation mode '{how}'")
    node: Any = open_image(name, given["f"], write=True, options="image-opts" in given)
    try:
        total = {"+": node.size + wanted, "-": node.size - wanted}.get(sign, wanted)
        if not 0 < total < 1 << 63:
            raise ImgError("New image size must be positive")
        if how == "metadata" and getattr(node, "header", None) is None and total > node.size:
            raise ImgError("Unsupported preallocation mode: metadata")
        if total <= node.size and how != "off":
            raise ImgError("Preallocation can only be used for growing images")
        if total < node.size and "shrink" not in given:
            raise ImgError(
                "Use the --shrink option to perform a shrink operation.\n"
                f"{program()}: warning: Shrinking an image will delete all data beyond the shrunken image's end. "
                "Before performing such an operation, make sure there is no important data there."
            )
        if getattr(node, "snapshots", None) and node.version < 3:
            raise ImgError("Can't resize a v2 image which has snapshots")
        header = getattr(node, "header", None)
        from vmrun.cli.img import bitmap

        broken = [one.name for one in bitmap.of(node) if one.inconsistent]
        if broken:
            raise ImgError(bitmap.UNUSABLE.format(broken[0]))
        if header is not None and total % 512:
            raise ImgError("The new size must be a multiple of 512")
        if header is not None and how != "off" and header.backing_file and how != "off":
            raise ImgError("Preallocation not supported for images with backing files")
        node.truncate((total + 511) & ~511, how)
    finally:
        node.close()
    if "q" not in given:
        sys.stdout.write("Image resized.\n")
    return 0


# --- snapshot ---------------------------------------------------------------------------------------------------


def snapshot(argv: list[str]) -> int:
    from vmrun.backends.block import qcow2_snapshots as qcow2
    from vmrun.backends.block.describe import describe
    from vmrun.backends.block.people import snapshot_table

    given = Given(argv, "la:c:d:qU")
    actions = [letter for letter in "lacd" for _ in given.all.get(letter, ())]
    if len(actions) > 1:
        raise ImgError("Cannot mix '-l', '-a', '-c', '-d'", usage=True)
    name = given.one()
    action = actions[0] if actions else "-"
    node: Any = open_image(name, None, write=action != "l", share="U" in given, options="image-opts" in given)
    try:
        if action == "-":
            return 0
        if action == "l":
            found = describe(name, node).get("snapshots")
            if found:
                sys.stdout.write(snapshot_table(found))
            return 0
        wanted = str(given[action])
        known = getattr(node, "snapshots", None)
        if known is None:
            told = {"c": "create", "a": "apply", "d": "delete"}[action]
            none = "Operation not supported"
            apply = "Block driver does not support snapshots" if hasattr(node, "layout") else none
            why = {"c": f"-95 ({none})", "d": "snapshot not found"}.get(action, apply)
            raise ImgError(f"Could not {told} snapshot '{wanted}': {why}")
        found = [one for one in known if one.id == wanted] or [one for one in known if one.name == wanted]
        if action == "c":
            _create_snapshot(node, wanted)
        elif action == "d":
            found = [one for one in known if one.name == wanted]
            if not found:
                raise ImgError(f"Could not delete snapshot '{wanted}': snapshot not found")
            try:
                qcow2.delete_snapshot(node, found[0])
            except OSError as error:
                raise ImgError(f"Could not delete snapshot '{wanted}': {error.strerror}") from None
        else:
            if not found:
                raise ImgError(
                    f"Could not apply snapshot '{wanted}': Failed to load snapshot: No such file or directory"
                )
            if node.bitmaps:
                raise ImgError(f"Could not apply snapshot '{wanted}': Device has active dirty bitmaps")
            try:
                qcow2.apply_snapshot(node, found[0])
            except OSError as error:
                if found[0].fault:
                    sys.stderr.write(f"{program()}: {found[0].fault}\n")
                    raise ImgError(
                        f"Could not apply snapshot '{wanted}': Failed to load snapshot: {os.strerror(error.errno or 5)}"
                    ) from None
                raise ImgError(f"Could not apply snapshot '{wanted}': {error.strerror}") from None
    finally:
        node.close()
    return 0


def _create_snapshot(node: Any, name: str) -> None:
    from time import time_ns

    from vmrun.backends.block import qcow2_snapshots as qcow2
    from vmrun.backends.block.qcow2_header import Snapshot

    now = time_ns()
    numbers = [digits(one.id) or 0 for one in node.snapshots]
    name = os.fsdecode(os.fsencode(name)[:255])
    one = Snapshot(
        id=str(max(numbers, default=0) + 1), name=name, date_sec=now // 10**9, icount=0,
        date_nsec=now % 10**9 // 1000 * 1000,
    )  # fmt: skip
    try:
        qcow2.create_snapshot(node, one)
    except OSError as error:
        number = error.errno or errno.EIO
        raise ImgError(f"Could not create snapshot '{name}': -{number} ({os.strerror(number)})") from None


# --- rebase and commit --------------------------------------------------------------------------------------------


def rebase(argv: list[str]) -> int:
    from vmrun.backends.block.chain import pieces, unlike
    from vmrun.backends.block.copy import Lane
    from vmrun.backends.block.filenames import NAMED
    from vmrun.backends.block.images import beside
    from vmrun.backends.block.null import NullNode

    given = Given(argv, "f:F:b:upt:T:qU")
    name = given.one()
    if "b" not in given and "u" not in given:
        raise ImgError("Must specify backing file (-b) or use unsafe mode (-u)", usage=True)
    unsafe, base, base_format = "u" in given, given["b"], given["F"]
    if base_format is not None and base_format not in NAMED:
        raise ImgError(f"Invalid format name: '{base_format}'")
    source = given.cache("T", "writeback")
    node: Any = open_image(
        name, given["f"], cache=given.cache("t", "writeback"), write=True, backing=not unsafe,
        options="image-opts" in given,
    )  # fmt: skip
    below: Node | None = None
    try:
        header: Any = getattr(node, "header", None)
        changed = f"Could not change the backing file to '{base or ''}'"
        if header is None and (base_format or not base):
            raise ImgError(f"{changed}: Operation not supported")
        if base and header is not None and header.autoclear & 2:
            raise ImgError(f"{changed}: Invalid argument")
        if not unsafe and base:
            try:
                below = open_image(beside(name, base), base_format, cache=source, share="U" in given)
            except ImgError as error:
                text = str(error)
                raise ImgError(f"Could not open new backing file '{base}': {text.split(': ', 1)[-1]}") from None
        if base and not base_format:
            raise ImgError(f"{changed}: backing format must be specified")
        if not unsafe:
            new: Node = below if below is not None else NullNode(node.size)
            progress = Progress("p" in given, node.size)
            old, lane = node.backing, Lane()
            for piece in pieces(node, 0, None, old):
                if old is not None and piece.depth >= 1:
                    for start, length in unlike(old, below, piece.start, piece.length):
                        lane.keep(old, new, node, start, length, node.cluster_size)
                elif not piece.present and new.size and not isinstance(new, NullNode):
                    # nothing shows here today; the new image might
                    node.write_zeroes(piece.start, piece.length, True)
                progress.add(piece.length)
            progress.end()
            node.sync()
        header.backing_file, header.backing_format = base or "", (base_format or "") if base else ""
        if header.backing_file and len(header.backing_file) > 1023:
            raise ImgError("Backing file name too long")
        node.update_header()
        node.sync()
        old, node_backing = node.backing, None
        node.rebase(node_backing)
        if old is not None:
            old.close()
    finally:
        node.close()
        if below is not None:
            below.close()
    return 0


def _which(name: str, wanted: str, names: list[tuple[str, str | None, str]]) -> list[int]:
    """Where in a chain a backing file is that is said as an overlay would say it, relative to its own directory."""
    import os

    from vmrun.backends.block.images import beside

    found, above = [], name
    for n, (path, _, said) in enumerate(names):
        if wanted == said or os.path.realpath(beside(above, wanted)) == os.path.realpath(path):
            found.append(n)
        above = path
    return found


def commit(argv: list[str]) -> int:
    from vmrun.backends.block.chain import images, pieces
    from vmrun.backends.block.copy import Lane
    from vmrun.backends.block.images import beside

    given = Given(argv, "f:b:dpqt:r:")
    rate_of(given["r"])
    name = given.one()
    cache = given.cache("t", "writeback")
    top: Any = open_image(name, given["f"], cache=cache, write=True, options="image-opts" in given)
    try:
        header = getattr(top, "header", None)
        if header is None or not header.backing_file:
            if "b" in given:
                raise ImgError(f"Did not find '{given['b']}' in the backing chain of '{name}'")
            raise ImgError("Image does not have a backing file")
        names, at = [], name
        for one in images(top):
            inner = getattr(one, "header", None)
            if inner is None or not inner.backing_file:
                break
            at = beside(at, inner.backing_file)
            names.append((at, inner.backing_format or None, inner.backing_file))
        target = 0
        if "b" in given:
            wanted = given["b"]
            found = _which(name, str(wanted), names)
            if not found:
                raise ImgError(f"Did not find '{wanted}' in the backing chain of '{name}'")
            target = found[0]
        kept = [node for node in images(top)]
        base_read = kept[target + 1]
        progress = Progress("p" in given and "q" not in given, top.size)
        # The base is read below the top; its own file is written. What is written is never read again from there.
        work = list(pieces(top, 0, None, base_read))
        path, format, _ = names[target]
        from vmrun.backends.block import images as names_of

        base: Any = names_of.open_node(path, format, names_of.Access(readonly=False, lock=False))
        lane = Lane()
        try:
            if base.size < top.size:
                base.truncate(top.size)
            for piece in work:
                if piece.data and not (piece.zero or piece.node is base_read):
                    lane.copy(top, base, piece.start, piece.start, piece.length, 0)
                elif piece.zero and piece.present and piece.depth <= target:
                    base.write_zeroes(piece.start, piece.length, True)
                progress.add(piece.length)
            base.sync()
        except OSError as error:
            raise ImgError(f"Block job failed: {error.strerror}") from None
        finally:
            base.close()
        progress.end()
        if "d" not in given and "b" not in given:
            _empty(top)
    finally:
        top.close()
    if "q" not in given:
        sys.stdout.write("Image committed.\n")
    return 0


def _empty(node: Any) -> None:
    """Nothing of its own any more: the backing image shows everywhere."""
    from vmrun.backends.block.qcow2_snapshots import make_empty

    if not node.snapshots and not node.external:
        make_empty(node)


# --- amend --------------------------------------------------------------------------------------------------------


def amend(argv: list[str]) -> int:
    from vmrun.backends.block import qcow2_header as headers

    given = Given(argv, "f:o:pqt:", ("force",))
    if not given.all.get("o"):
        raise ImgError("Must specify options (-o)", usage=True)
    if asks_help(given):
        said = given["f"] or "qcow2"
        if said != "qcow2":
            unamended = f"Format driver '{said}' does not support option amendment"
            raise ImgError(unamended if known(said) else not_made(said))
        sys.stdout.write(amend_help())
        return 0
    if len(given.args) != 1:
        raise ImgError("Expecting one image file name")
    name = given.args[0]
    node: Any = open_image(
        name, given["f"], cache=given.cache("t", "writeback"), write=True, options="image-opts" in given
    )
    try:
        header = getattr(node, "header", None)
        if header is None:
            raise ImgError(f"Format driver '{format_of(node)}' does not support option amendment")
        for text in given.all["o"]:
            for key in pairs(text):
                if key.startswith("encryption"):
                    raise ImgError(f"Invalid parameter '{key}'\nThis option is only supported for image creation")
        options = options_of(given, create_options("qcow2"), "qcow2", "")
        for key in ("cluster_size", "extended_l2", "compression_type", "preallocation", "nocow"):
            if key in options:
                raise ImgError(f"Invalid parameter '{key}'\nThis option is only supported for image creation")
        if options.get("data_file_raw") and not header.autoclear & headers.RAW_EXTERNAL:
            raise ImgError("data-file-raw cannot be set on existing images")
        if options.get("data_file") and not header.incompatible & headers.DATA_FILE:
            raise ImgError("data-file can only be set for images that use an external data file")
        if (
            options.get("backing_file", header.backing_file) != header.backing_file
            or options.get("backing_fmt", header.backing_format) != header.backing_format
        ):
            raise ImgError(f"Cannot amend the backing file\nYou can use '{program()} rebase' instead.")
        if options.get("refcount_bits", 1) not in (1, 2, 4, 8, 16, 32, 64):
            raise ImgError("Refcount width must be a power of two and may not exceed 64 bits")
        width = options.get("refcount_bits", 1 << header.refcount_order)
        version = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3, None: header.version}.get(options.get("compat"))
        if version is None:
            raise ImgError(f"Unknown compatibility level {options['compat']}")
        if version < 3 and width != 16 and "refcount_bits" not in options:
            raise ImgError("compat=0.10 requires refcount_bits=16")
        if options.get("lazy_refcounts") and version < 3:
            raise ImgError(
                "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)"
            )
        if options.get("size") not in (None, node.size):
            node.truncate(options["size"])
        if "lazy_refcounts" in options:
            header.compatible = header.compatible & ~1 | (1 if options["lazy_refcounts"] else 0)
        if width != 16 and version < 3:
            raise ImgError(
                "Refcount widths other than 16 bits require compatibility level 1.1 or above "
                "(use compat=1.1 or greater)"
            )
        if version > header.version:
            header.version, header.header_length = 3, 112
        _write_header(node)
        if width != 1 << header.refcount_order:
            _change_width(node, width)
            node.close()
            node = open_image(name, given["f"], write=True, options="image-opts" in given)
            header = node.header
        if version < header.version:
            _downgrade(node, header, name)
            header.compatible = header.autoclear = header.incompatible = 0
            _write_header(node)
        node.sync()
        node.stay_dirty(False)
        Progress("p" in given, 1).end()
    finally:
        node.close()
    return 0


def _write_header(node: Any) -> None:
    from vmrun.backends.block.qcow2_header import QcowError

    try:
        node.update_header()
    except QcowError as error:
        raise ImgError(str(error)) from None


def _change_width(node: Any, width: int) -> None:
    from vmrun.backends.block.qcow2_width import change_width

    try:
        change_width(node, width.bit_length() - 1)
    except ValueError as error:
        raise ImgError(str(error)) from None


def _downgrade(node: Any, header: Any, name: str) -> None:
    from vmrun.backends.block.chain import pieces
    from vmrun.backends.block.qcow2_snapshots import view_snapshot

    if header.refcount_order != 4:
        raise ImgError("compat=0.10 requires refcount_bits=16")
    if header.incompatible & ~1:
        told = header.incompatible & ~1
        raise ImgError(f"Cannot downgrade an image with incompatible features {told:#x} set")
    if any(one.vm_state_size >> 32 or one.disk_size != node.size for one in node.snapshots):
        raise ImgError("Internal snapshots prevent downgrade of image")
    node.sync()
    for one in node.snapshots:
        if one.fault:
            sys.stderr.write(f"{program()}: {one.fault}\n")
            number = errno.EFBIG if one.fault.endswith("large") else errno.EINVAL
            raise ImgError(f"Failed to turn zero into data clusters: {os.strerror(number)}")
        then: Any = open_image(name, "qcow2", share=True)
        try:
            view_snapshot(then, one)
            zeros = any(piece.zero and piece.present and piece.depth == 0 for piece in pieces(then))
        finally:
            then.close()
        if zeros:
            raise ImgError(f"Downgrading an image whose snapshot '{one.name}' has clusters of zeros is not modelled")
    for piece in pieces(node):
        if piece.zero and piece.present and piece.depth == 0:
            node.write_zeros_plainly(piece.start, piece.length)
    node.sync()
    header.version, header.header_length, header.tail = 2, 72, b""


# --- bench ----------------------------------------------------------------------------------------------------------


def bench(argv: list[str]) -> int:
    from time import monotonic

    from vmrun.backends.block import queue
    from vmrun.backends.block.caller import Caller

    given = Given(argv, "c:d:f:ni:o:qs:S:t:wU", ("pattern=", "flush-interval=", "no-drain"))
    name = given.one()
    count, depth = _number(given["c"], 75000, "request count"), _number(given["d"], 64, "queue depth")
    offset, length = image_size(given["o"] or "0", "offset"), image_size(given["s"] or "4096", "buffer size")
    step = image_size(given["S"] or "0", "step_size") or length
    pattern = _number(given["pattern"], 0, "pattern byte")
    interval = _number(given["flush-interval"], 0, "flush interval")
    if given["i"] not in (None, "threads", "native", "io_uring"):
        raise ImgError(f"Invalid aio option: {given['i']}")
    if (given["i"] == "native" or "n" in given) and given["t"] not in ("none", "off", "directsync"):
        raise ImgError(
            f"Could not open '{name}': aio=native was specified, but it requires cache.direct=on, which was not "
            "specified."
        )
    write = "w" in given
    if interval and not write:
        raise ImgError("--flush-interval is only available in write tests")
    if interval and interval < depth:
        raise ImgError("Flush interval can't be smaller than depth")
    if "t" in given and given["t"] not in CACHES:
        raise ImgError("Invalid cache mode")
    node = open_image(
        name, given["f"], cache=given.cache("t", "writeback"), write=write,
        share="U" in given, options="image-opts" in given,
    )  # fmt: skip
    drive = queue(node)
    caller = Caller(drive)
    if length > node.size:
        raise ImgError("The image is smaller than a request")
    sys.stdout.write(
        f"Sending {count} {'write' if write else 'read'} requests, {length} bytes each, {depth} in parallel "
        f"(starting at offset {offset}, step size {step})\n"
    )
    if interval:
        drain = "" if "no-drain" not in given else "without draining "
        sys.stdout.write(f"Sending flush every {interval} {drain}requests\n")
    sys.stdout.flush()
    if count and offset > node.size - length:
        raise ImgError("Failed request: Input/output error")
    count = count if length else 0  # nothing is moved
    data = bytes([pattern]) * length if write else None
    begin = monotonic()
    sent = over = 0
    try:
        while over < count:
            while sent < count and caller.in_flight < depth:
                caller.submit(1 if write else 0, offset, length, data)
                sent += 1
                offset += step
                if offset > node.size - length:
                    offset = 0
                if interval and sent % interval == 0:
                    if "no-drain" not in given:
                        over += _collect(caller, caller.in_flight)
                    caller.submit(2)
                    over += _collect(caller, 1) - 1
            if over < count:
                over += _collect(caller, 1)
        taken = monotonic() - begin
    except BaseException:
        drive.drain()
        with contextlib.suppress(OSError):  # the first failure is told, not that of the flush after it
            drive.close()
        raise
    drive.drain()
    drive.close()
    sys.stdout.write(f"Run completed in {taken:.3f} seconds.\n")
    return 0


def _number(text: str | None, default: int, what: str) -> int:
    if text is None:
        return default
    try:
        found = int(text, 0)
    except ValueError:
        found = -1
    if not 0 <= found < 1 << 31 or what == "queue depth" and not found or what == "pattern byte" and found > 255:
        raise ImgError(f"Invalid {what} specified")
    return found


def _collect(caller: Any, count: int) -> int:
    for _ in range(count):
        _, error, _ = caller.wait(False)
        if error:
            raise OSError(error, f"Failed request: {__import__('os').strerror(error)}")
    return count
