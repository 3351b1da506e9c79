"""Commands that only look: info, map, check, compare, measure."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

from vmrun.backends.block.describe import describe
from vmrun.backends.block.people import human
from vmrun.cli.img.options import (
    Given,
    ImgError,
    Progress,
    format_of,
    image_size,
    open_image,
    options_of,
    program,
    select,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from vmrun.backends.block.copy import Lane
    from vmrun.backends.block.node import Node


def dump(value: Any) -> None:
    import json
    import re

    text = json.dumps(value, indent=4)
    text = re.sub(r"\\\\|\\u[0-9a-f]{4}", lambda found: found[0][:2] + found[0][2:].upper(), text)
    # an empty list or object has a line of its own for its end
    sys.stdout.write(re.sub(r"(?m)^( *)(.*)([\[{])([\]}])(,?)$", r"\1\2\3\n\1\4\5", text) + "\n")


# --- info ---------------------------------------------------------------------------------------------------


def info(argv: list[str]) -> int:
    given = Given(argv, "f:U", ("output=", "backing-chain"), {"format": "f"})
    name, as_json = given.one(), given.json()
    found: list[dict[str, Any]] = []
    format, options = given["f"], "image-opts" in given
    seen: set[str] = set()
    at: str | None = name
    while at is not None:
        if at in seen:
            raise ImgError(f"Backing file '{at}' creates an infinite loop.")
        seen.add(at)
        node = open_image(at, format, share="U" in given, backing=False, options=options)
        try:
            found.append(describe(_shown(at, node, options), node))
        finally:
            node.close()
        at = None
        if "backing-chain" in given and "backing-filename" in found[-1]:
            at, format, options = found[-1]["full-backing-filename"], found[-1].get("backing-filename-format"), False
    if as_json:
        dump(found if "backing-chain" in given else found[0])
    else:
        sys.stdout.write("\n".join(human(one) for one in found))
    return 0


def _shown(name: str, node: Node, options: bool) -> str:
    """The name of a file, when that is all that a longer name says."""
    from vmrun.backends.block.filenames import node_name

    if options or name.startswith("json:"):
        return node_name(node)
    return name.removeprefix("file:")


# --- map ----------------------------------------------------------------------------------------------------


def map(argv: list[str]) -> int:  # noqa: A001
    from vmrun.backends.block.chain import pieces, whole

    given = Given(argv, "f:s:l:U", ("output=", "start-offset=", "max-length="), {"format": "f"})
    name, as_json = given.one(), given.json()
    start = image_size(given["start-offset"] or given["s"] or "0", "start offset")
    limit = given["max-length"] or given["l"]
    node = open_image(name, given["f"], share="U" in given, options="image-opts" in given)
    try:
        found = pieces(node, start, None if limit is None else image_size(limit, "max length"))
        if limit is None and node.size % 512:
            found = whole(found, node.size, _unit(node))
        if as_json and start >= node.size:
            sys.stdout.write(
                f'[{{ "start": {start}, "length": 0, "depth": 0, "present": false, "zero": false, "data": false}}]\n'
            )
        elif as_json:
            _map_json(found)
        else:
            sys.stdout.write(f"{'Offset':<16}{'Length':<16}{'Mapped to':<16}File\n")
            for piece in found:
                if not piece.data or piece.zero or piece.hole:
                    continue
                if piece.offset is None:
                    raise ImgError("File contains external, encrypted or compressed clusters.")
                where = "".join(f"{n:#x}".replace("0x0", "0").ljust(16) if n == 0 else f"{n:<#16x}"
                                for n in (piece.start, piece.length, piece.offset))  # fmt: skip
                sys.stdout.write(f"{where}{_file_of(piece.node, piece.start)}\n")
    finally:
        node.close()
    return 0


def _unit(node: Any) -> int:
    """In which a disk's file is read, at least."""
    return max([getattr(node, "align", 1), *(_unit(child) for _, child in node.children())])


def _file_of(node: Any, offset: int) -> str:
    """The file that has what is at `offset`."""
    from vmrun.backends.block.filenames import node_name

    if hasattr(node, "layout"):
        return node_name(node.layout.find(offset, 1)[0])

    if getattr(node, "external", False):
        return node_name(node.data)
    return node_name(node)


def _map_json(found: Any) -> None:
    mark = "["
    for piece in found:
        words = {True: "true", False: "false"}
        text = (
            f'{{ "start": {piece.start}, "length": {piece.length}, "depth": {piece.depth}, '
            f'"present": {words[piece.present and not piece.hole]}, "zero": {words[piece.zero]}, '
            f'"data": {words[piece.data and not piece.hole]}'
        )
        if piece.offset is not None:
            text += f', "offset": {piece.offset}'
        sys.stdout.write(mark + text + "}")
        mark = ",\n"
    sys.stdout.write("]\n" if mark != "[" else "[]\n")


# --- check ----------------------------------------------------------------------------------------------------


def check(argv: list[str]) -> int:
    from vmrun.backends.block.qcow2 import Qcow2Node
    from vmrun.backends.block.qcow2_check import check as count
    from vmrun.backends.block.qcow2_header import QcowError

    given = Given(argv, "f:r:T:qU", ("output=",), {"repair": "r", "format": "f"})
    repair = given["r"]
    if repair not in (None, "leaks", "all"):
        raise ImgError(f"Unknown option value for -r (expecting 'leaks' or 'all'): {repair}", usage=True)
    name, as_json, quiet = given.one(), given.json(), "q" in given
    cache = given.cache("T", "writeback")
    from vmrun.backends.block import images

    with images.to_check():  # which comes before any repair at opening
        node = open_image(
            name, given["f"], cache=cache, write=repair is not None, share="U" in given, options="image-opts" in given
        )
    with _closed(node):
        if not isinstance(node, Qcow2Node):
            return _check_mapped(node, name, repair is not None, as_json, quiet)
        told = (lambda line: None) if quiet else sys.stderr.write
        try:
            result = count(node, repair, told)
        except QcowError as error:
            raise ImgError(str(error).replace("\nCheck", f"\n{program()}: Check")) from None
        except OSError as error:
            ended = node.broken and error.errno == errno.ENOMEDIUM  # an image that is corrupt is no medium
            text = os.strerror(errno.EIO if ended or not error.errno else error.errno)
            raise ImgError(f"Check failed: {text}") from None
        fixed = result.corruptions_fixed or result.leaks_fixed
        if repair and result.corruptions <= result.corruptions_fixed and not result.errors:
            _repaired(node)
        if fixed and not as_json and not quiet:
            sys.stdout.write(
                "The following inconsistencies were found and repaired:\n\n"
                f"    {result.leaks_fixed} leaked clusters\n    {result.corruptions_fixed} corruptions\n\n"
                "Double checking the fixed image now...\n"
            )
        result.corruptions -= result.corruptions_fixed
        result.leaks -= result.leaks_fixed
        if quiet:
            pass
        elif as_json:
            _check_json(result, name, format_of(node))
        else:
            sys.stdout.write(_check_text(result))
    if result.errors:
        return 1
    return 2 if result.corruptions else 3 if result.leaks else 0


@contextlib.contextmanager
def _closed(node: Any) -> Iterator[None]:
    """Closed at the end; what has gone wrong before is what is told."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            node.close()
        raise
    node.close()


def _check_mapped(node: Any, name: str, repair: bool, as_json: bool, quiet: bool) -> int:
    """Of an image whose format has other things to be wrong than counts."""
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.qcow2_check import Result

    layout: Any = getattr(node, "layout", None)
    result: Any = Result()
    if layout is None:
        raise ImgError("This image format does not support checks", 63)
    try:
        result.corruptions = layout.check(repair)
    except ImageError as error:
        raise ImgError(error.text, 63) from None
    if not quiet:
        if as_json:
            _check_json(result, name, format_of(node))
        else:
            sys.stdout.write(_check_text(result))
    return 2 if result.corruptions else 0


def _repaired(node: Any) -> None:
    """What a whole image's header says."""
    from vmrun.backends.block.reopening import forget_unknown

    header = node.header
    if header.version >= 3 and header.incompatible & 3:
        header.incompatible &= ~2
        node.clean()
    forget_unknown(node)


def _check_json(result: Any, name: str, format: str) -> None:
    found: dict[str, Any] = {}
    for key in (
        "image_end_offset", "compressed_clusters", "total_clusters", "check_errors",
        "corruptions", "corruptions_fixed", "leaks", "leaks_fixed", "allocated_clusters", "filename", "format",
        "fragmented_clusters",
    ):  # fmt: skip
        value = {"check_errors": result.errors, "filename": name, "format": format}.get(key)
        value = getattr(result, key, 0) if value is None else value
        if value or key == "check_errors":
            found[key.replace("_", "-")] = value
    dump(found)


def _check_text(result: Any) -> str:
    text = ""
    if not (result.corruptions or result.leaks or result.errors):
        text = "No errors were found on the image.\n"
    if result.corruptions:
        text += (
            f"\n{result.corruptions} errors were found on the image.\n"
            "Data may be corrupted, or further writes to the image may corrupt it.\n"
        )
    if result.leaks:
        text += (
            f"\n{result.leaks} leaked clusters were found on the image.\n"
            "This means waste of disk space, but no harm to data.\n"
        )
    if result.errors:
        text += f"\n{result.errors} internal errors have occurred during the check.\n"
    if result.total_clusters and result.allocated_clusters:
        there = result.allocated_clusters
        text += (
            f"{there}/{result.total_clusters} = {there * 100 / result.total_clusters:.2f}% allocated, "
            f"{result.fragmented_clusters * 100 / there:.2f}% fragmented, "
            f"{result.compressed_clusters * 100 / there:.2f}% compressed clusters\n"
        )
    if result.image_end_offset:
        text += f"Image end offset: {result.image_end_offset}\n"
    return text


# --- compare ----------------------------------------------------------------------------------------------------


def compare(argv: list[str]) -> int:
    from vmrun.backends.block.chain import pieces

    given = Given(argv, "f:F:T:pqsU")
    if len(given.args) != 2:
        raise ImgError("Expecting two image file names", usage=True)
    quiet, share = "q" in given, "U" in given
    opened: list[Any] = []
    try:
        cache = given.cache("T", "writeback")
        for name, format in zip(given.args, (given["f"], given["F"]), strict=True):
            opened.append(open_image(name, format, cache=cache, share=share, options="image-opts" in given))
    except ImgError as error:
        for node in opened:
            node.close()
        if "p" in given and not quiet:  # the line of progress that there would have been
            sys.stdout.write("\n")
        raise ImgError(str(error), 2) from None
    one, other = opened

    def say(text: str) -> None:
        if not quiet:
            sys.stdout.write(text)

    progress = Progress("p" in given and not quiet, max(one.size, other.size))
    try:
        if "s" in given and one.size != other.size:
            say("Strict mode: Image size mismatch!\n")
            progress.leave()
            return 1
        both = min(one.size, other.size)
        told = _differences(one, other, both, "s" in given, progress)
        if told:
            say(told)
            progress.leave()
            return 1
        if one.size != other.size:
            say("Warning: Image size mismatch!\n")
            longer = one if one.size > other.size else other
            for piece in pieces(longer, both):
                if not piece.zero:
                    found = _first_data(longer, piece.start, piece.length)
                    if found is not None:
                        say(f"Content mismatch at offset {found // 512 * 512}!\n")
                        progress.leave()
                        return 1
        say("Images are identical.\n")
        progress.end()
        return 0
    except OSError as error:
        raise ImgError(f"Error while reading: {error.strerror}", 4) from None
    finally:
        one.close()
        other.close()


def _differences(one: Any, other: Any, both: int, strict: bool, progress: Progress) -> str:
    """What is said of the first one, '' when there is none; several threads read."""
    from _thread import allocate_lock

    from vmrun.backends.block.chain import pieces
    from vmrun.backends.block.copy import WINDOW
    from vmrun.cli.img.lanes import lanes, share

    found: list[int] = []
    mismatch: list[int] = []
    lock = allocate_lock()
    ended: dict[int, int] = {}  # pieces that were looked at, by their beginnings, behind one that was not yet
    reached = 0

    def over(at: int, count: int) -> None:
        """How far it is goes by the order of the disk, whichever thread is the first."""
        nonlocal reached
        with lock:
            ended[at] = count
            while reached in ended:
                count = ended.pop(reached)
                reached += count
                progress.add(count)

    def tasks() -> Iterator[tuple[int, int]]:
        left, right = pieces(one, 0, both), pieces(other, 0, both)
        a, b = next(left, None), next(right, None)
        at = 0
        while at < both and a is not None and b is not None and not found:
            end = min(a.start + a.length, b.start + b.length)
            if strict and _kind(a) != _kind(b):
                mismatch.append(at)
                return
            while at < end and not found:
                step = min(end - at, WINDOW)
                if a.zero and b.zero:
                    step = end - at
                    over(at, step)
                else:
                    yield at, step
                at += step
            if a.start + a.length == at:
                a = next(left, None)
            if b.start + b.length == at:
                b = next(right, None)

    def work(lane: Lane, number: int, task: tuple[int, int]) -> None:
        where = lane.difference(one, other, *task)
        if where is not None:
            found.append(where)
        over(*task)

    # Pieces are handed out in their order and all that were come back: the least is the first difference.
    share(tasks(), work, lanes(8))
    if found:
        return f"Content mismatch at offset {min(found) // 512 * 512}!\n"
    return f"Strict mode: Offset {mismatch[0]} block status mismatch!\n" if mismatch else ""


def _kind(piece: Any) -> tuple[bool, ...]:
    """What two images must agree in, besides the contents: what is compressed has no place of its own."""
    return piece.present, piece.data, piece.zero, piece.offset is None


def _first_data(node: Node, start: int, count: int) -> int | None:
    from vmrun.backends.block.copy import first_difference
    from vmrun.backends.block.null import NullNode

    found: int | None = first_difference(node, NullNode(node.size), start, count)
    return found


# --- measure ----------------------------------------------------------------------------------------------------


def measure(argv: list[str]) -> int:
    from vmrun.backends.block.chain import pieces
    from vmrun.backends.block.create import header_for, metadata_size
    from vmrun.cli.img.formats import create_options, known, not_made

    given = Given(argv, "O:o:f:l:U", ("output=", "size="))
    as_json, target = given.json(), given["O"] or "raw"
    if "size" in given:
        image_size(given["size"] or "")
    if not known(target):
        raise ImgError(not_made(target))
    try:
        options = options_of(given, create_options(target), target, "")
    except ImgError as error:
        raise ImgError(f"{error}\n{program()}: Invalid options for file format '{target}'") from None
    if len(given.args) > 1:
        raise ImgError("At most one filename argument is allowed.")
    if not given.args and any(word in given for word in ("image-opts", "f", "l")):
        raise ImgError("--image-opts, -f, and -l require a filename argument.")
    if "size" in given and given.args:
        raise ImgError("--size N cannot be used together with a filename.")
    if ("size" in given) == bool(given.args):
        raise ImgError("Either --size N or one filename must be specified.")
    node = None
    if target not in ("raw", "qcow2"):
        raise ImgError(f"Block driver '{target}' does not support size measurement")
    if given.args:
        node = open_image(given.args[0], given["f"], share="U" in given, options="image-opts" in given)
    try:
        if node is not None and "l" in given:
            select([node], str(given["l"]))
        size = node.size if node is not None else image_size(given["size"] or "")
        found: dict[str, int] = {}
        if target == "raw":
            found = {"required": (size + 511) & ~511, "fully-allocated": (size + 511) & ~511}
        else:
            header = header_for(size, options)
            cluster = header.cluster_size
            aligned = -(-size // cluster) * cluster
            full = metadata_size(header) + aligned
            used = 0
            if options.get("preallocation", "off") in ("falloc", "full"):
                used = aligned
            elif node is not None:
                end = 0
                for piece in pieces(node):
                    if piece.data and not piece.zero:
                        first = max(piece.start // cluster * cluster, end)
                        end = -(-(piece.start + piece.length) // cluster) * cluster
                        used += max(0, end - first)
            found = {"required": full - aligned + used, "fully-allocated": full}
            if getattr(node, "header", None) is not None and node.header.version >= 3 and header.version >= 3:  # type: ignore[union-attr]
                from vmrun.cli.img.bitmap import needed

                found["bitmaps"] = needed(node, header.cluster_size)
        if as_json:
            dump({key: found[key] for key in ("bitmaps", "required", "fully-allocated") if key in found})
        else:
            sys.stdout.write(f"required size: {found['required']}\nfully allocated size: {found['fully-allocated']}\n")
            if "bitmaps" in found:
                sys.stdout.write(f"bitmaps size: {found['bitmaps']}\n")
    finally:
        if node is not None:
            node.close()
    return 0
