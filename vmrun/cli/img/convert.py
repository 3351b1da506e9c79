"""Commands that copy: convert and dd."""

from __future__ import annotations

import sys
from time import monotonic, sleep

from vmrun.backends.block.sizes import bytes_of as size
from vmrun.backends.block.sizes import digits
from vmrun.cli.img import bitmap
from vmrun.cli.img.change import make
from vmrun.cli.img.formats import create_options, known, not_made, option_help
from vmrun.cli.img.options import (
    Given,
    ImgError,
    Progress,
    asks_help,
    image_size,
    open_image,
    options_of,
    program,
    rate_of,
    select,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from vmrun.backends.block.node import Node

WORKERS = 8


def convert(argv: list[str]) -> int:
    long = ("target-image-opts", "salvage", "target-is-zero", "bitmaps", "skip-broken-bitmaps")
    given = Given(argv, "f:O:B:CcF:o:l:S:pt:T:qnm:Wr:U", long)
    target_format = given["O"] or "raw"
    if target_format == "help":
        raise ImgError("Must specify image file name")
    for letter in given.all:  # in their order
        if letter in "Sm":
            (_sparse if letter == "S" else _workers)(given[letter])
    if not known(target_format) and "n" not in given:
        raise ImgError(not_made(target_format))
    if asks_help(given):
        sys.stdout.write(option_help(target_format, bool(given.args)))
        return 0
    sparse = _sparse(given["S"])
    workers = _workers(given["m"])
    for letter in "cS":
        if "C" in given and letter in given:
            raise ImgError(f"Cannot enable copy offloading when -{letter} is used")
    if "C" in given and "salvage" in given:
        raise ImgError("Cannot use copy offloading in salvaging mode")
    if "target-image-opts" in given and "n" not in given:
        raise ImgError("--target-image-opts requires use of -n flag")
    rate = rate_of(given["r"])
    if "skip-broken-bitmaps" in given and "bitmaps" not in given:
        raise ImgError("Use of --skip-broken-bitmaps requires --bitmaps")
    if len(given.args) < 2:
        raise ImgError("Must specify image file name")
    *sources, name = given.args
    if "target-is-zero" in given and "n" not in given:
        raise ImgError("--target-is-zero requires use of -n flag")
    if "n" in given and "o" in given:
        raise ImgError("-o has no effect when skipping image creation")
    if "n" in given and "B" in given and "c" in given:
        raise ImgError("Compression not supported for this file format")
    nodes: list[Any] = []
    target: Any = None
    try:
        for source in sources:
            nodes.append(
                open_image(
                    source,
                    given["f"],
                    cache=given.cache("T", "writeback"),
                    share="U" in given,
                    options="image-opts" in given,
                )  # fmt: skip
            )
        if "bitmaps" in given:
            bitmap.check(nodes[0], target_format, "skip-broken-bitmaps" in given)
        if "l" in given:
            if len(nodes) > 1:
                raise ImgError("No support for concatenating multiple snapshot")
            select(nodes, str(given["l"]))
        total = sum(whole(node.size) for node in nodes) if len(nodes) > 1 else nodes[0].size
        backing, options = given["B"], options_of(given, create_options(target_format), target_format, "")
        backing = backing or options.get("backing_file")
        if backing and len(nodes) > 1:
            raise ImgError(
                "Having a backing file for the target makes no sense when concatenating multiple input images"
            )
        if "c" in given:
            if target_format == "raw" and "B" in given:
                raise ImgError("Backing file not supported for file format 'raw'")
            if target_format not in ("qcow2", "vmdk"):
                raise ImgError("Compression not supported for this file format")
            if options.get("preallocation", "off") != "off":
                raise ImgError("Compression and preallocation not supported at the same time")
        if "n" not in given:
            if backing and not (given["F"] or options.get("backing_fmt")):
                raise ImgError("Use of backing file requires explicit backing format")
            try:
                length = options.pop("size", total)
                make(name, target_format, length, options, backing=given["B"], backing_format=given["F"])
            except ImgError as error:
                text = str(error).removeprefix(f"{name}: ")
                if text.startswith("Backing file not supported"):
                    raise ImgError(text) from None
                raise ImgError(f"{name}: error while converting {target_format}: {text}") from None
        if "target-image-opts" in given and "O" in given:
            raise ImgError("--image-opts and --format are mutually exclusive")
        target = open_image(
            name, target_format, cache=given.cache("t", "unsafe"), write=True, options="target-image-opts" in given
        )
        if "n" in given and target.size < total:
            raise ImgError("output file is smaller than input file")
        blank = (
            "n" not in given
            and not backing
            and options.get("preallocation", "off") != "full"
            or ("target-is-zero" in given)
        )
        packed = getattr(target, "packs", "c" in given)
        Copy(target, total, bool(backing), blank, sparse, packed, "p" in given and "q" not in given, workers,
             "salvage" in given, rate, "W" not in given).run(nodes)  # fmt: skip
        if "bitmaps" in given:
            bitmap.copy(nodes[0], target, "skip-broken-bitmaps" in given)
        target.sync()
    finally:
        for node in nodes:
            node.close()
        if target is not None:
            target.close()
    return 0


def _sparse(text: str | None) -> int:
    if text is None:
        return 4096
    found = size(text)
    if found is None:
        image_size(text, "buffer size for sparse output")  # says so
    if found is None or found % 512 or found > 1 << 24:
        raise ImgError(
            "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to 16777216. "
            "Select 0 to disable sparse detection (fully allocates output)."
        )
    return 1 << (found.bit_length() - 1) if found else 0


def _workers(text: str | None) -> int:
    if text is None:
        return WORKERS
    if not 1 <= (digits(text) or 0) <= 16:
        raise ImgError("Invalid number of coroutines. Allowed number of coroutines is between 1 and 16")
    return int(text)


def whole(size: int) -> int:
    """The sectors of an image, in bytes."""
    return (size + 511) & ~511


class _Joined:
    """Images one after the other, for ForeignNode."""

    def __init__(self, sources: list[Any]) -> None:
        self.sources = sources

    def read(self, offset: int, count: int) -> bytes:
        found = b""
        for source in self.sources:
            room = whole(source.size)
            if offset < room and count:
                part = min(count, room - offset)
                have = min(part, max(0, source.size - offset))
                found += (source.read(offset, have) if have else b"").ljust(part, b"\0")
                offset, count = offset + part, count - part
            offset -= room
        return found

    def end(self) -> None:
        pass  # each is closed by who opened it


def joined(sources: list[Any]) -> Any:
    """One node that reads as all of them."""
    from vmrun.backends.block.foreign import ForeignNode

    return ForeignNode("raw", "", sum(whole(source.size) for source in sources), _Joined(sources))


class Copy:
    """From sources, one after the other, to a target that is large enough."""

    def __init__(
        self, target: Any, total: int, backed: bool, blank: bool, sparse: int, compress: bool, shown: bool,
        workers: int, salvage: bool, rate: int = 0, ordered: bool = True,
    ) -> None:  # fmt: skip
        from vmrun.backends.block.copy import WINDOW

        self.rate, self.ready = rate, monotonic()
        self.step = min(WINDOW, max(rate // 8, 65536) // 65536 * 65536) if rate else WINDOW
        self.target, self.backed, self.blank, self.sparse, self.compress = target, backed, blank, sparse, compress
        self.progress = Progress(shown, total)
        self.workers, self.salvage, self.ordered = workers, salvage, ordered
        cluster = getattr(target, "cluster_size", 0)
        self.grain = sparse and max(sparse, min(cluster, 65536))

    def run(self, sources: list[Any]) -> None:
        from vmrun.backends.block.chain import backing_of, pieces

        start = 0
        if self.compress and len(sources) > 1:
            sources = [joined(sources)]  # a cluster may have the end of one and the beginning of the next
        if self.salvage:
            for source in sources:  # as who counts first what there is to copy
                for _ in pieces(source, 0, None, backing_of(source) if self.backed else None, self.unsaid):
                    pass
        for source in sources:
            if self.compress:
                self.packed(source, start)
            else:
                self.plain(source, start)
            start += whole(source.size)
        self.progress.end()

    def pace(self, count: int) -> None:
        """Wait until so many more bytes are within the rate."""
        if self.rate:
            self.ready = max(self.ready, monotonic()) + count / self.rate
            sleep(max(0.0, self.ready - monotonic()))

    def unsaid(self, at: int, count: int, error: OSError) -> None:
        """What a source has there it does not say."""
        text = f"error while reading block status at offset {at}: {error.strerror}"
        if not self.salvage:
            raise ImgError(text)
        if count <= 512:
            sys.stderr.write(f"{program()}: warning: {text}\n")

    def plain(self, source: Any, start: int) -> None:
        from vmrun.backends.block.copy import Order
        from vmrun.cli.img.lanes import lanes, share

        # A raw target's bytes have their places already.
        order = Order() if self.ordered else None

        def work(lane: Any, turn: int, task: tuple[int, int, bool]) -> None:
            offset, count, zero = task
            if zero:
                if order is not None:
                    order.skip(turn)
                try:
                    self.target.write_zeroes(start + offset, count, True)
                except OSError as error:
                    raise ImgError(f"error while writing at byte {start + offset}: {error.strerror}") from None
            else:
                self._copy(lane, source, offset, start + offset, count, order, turn)
            self.progress.add(count)

        share(self.tasks(source, start), work, lanes(self.workers))

    def tasks(self, source: Any, start: int) -> Iterator[tuple[int, int, bool]]:
        """(offset, bytes, whether they are zeros) of what has to be written."""
        from vmrun.backends.block.chain import backing_of, pieces

        base = backing_of(source) if self.backed else None
        for piece in pieces(source, 0, None, base, self.unsaid):
            skipped = self.backed and (not piece.present or base is not None and piece.node is base)
            if skipped or piece.zero and self.sparse and self.blank:
                self.progress.add(piece.length)
            elif piece.zero and self.sparse:
                yield piece.start, piece.length, True
            else:
                at, end = piece.start, piece.start + piece.length
                while at < end:
                    step = min(end - at, self.step - (start + at) % self.step)
                    self.pace(step)
                    yield at, step, False
                    at += step

    def _copy(self, lane: Any, source: Any, offset: int, at: int, count: int, order: Any, turn: int) -> None:
        try:
            lane.copy(source, self.target, offset, at, count, self.grain, self.blank, order, turn)
        except OSError as error:
            if lane.wrote:
                raise ImgError(f"error while writing at byte {at}: {error.strerror}") from None
            if not self.salvage:
                raise ImgError(f"error while reading at byte {offset}: {error.strerror}") from None
            for piece in range(0, count, 512):
                try:
                    lane.copy(source, self.target, offset + piece, at + piece, min(512, count - piece), 0, False)
                except OSError as inner:
                    where = offset + piece
                    sys.stderr.write(f"{program()}: warning: error while reading offset {where}: {inner.strerror}\n")
                    self.target.write_zeroes(at + piece, min(512, count - piece))

    def packed(self, source: Any, start: int) -> None:
        """Clusters, compressed by several threads."""
        from vmrun.backends.block.copy import Order
        from vmrun.cli.img.lanes import lanes, share

        cluster = self.target.cluster_size
        # what packs by itself is written from its beginning to its end
        order = Order() if hasattr(self.target, "packs") else None

        def work(lane: Any, number: int, run: tuple[int, int]) -> None:
            at, count = run
            try:
                if order is not None:
                    lane.copy(source, self.target, at, start + at, count, self.grain, self.blank, order, number)
                else:
                    lane.pack(source, self.target, at, start + at, count, bool(self.sparse), self.blank)
            except OSError as error:
                raise ImgError(f"error while writing at byte {start + at}: {error.strerror}") from None
            self.progress.add(count)

        share(self.clusters(source, cluster), work, lanes(self.workers))

    def clusters(self, source: Any, cluster: int) -> Iterator[tuple[int, int]]:
        """(offset, bytes) of runs of those with contents, `step` bytes at most or a single one."""
        from vmrun.backends.block.chain import backing_of, pieces

        done = 0
        most = max(self.step // cluster, 1) * cluster
        base = backing_of(source) if self.backed else None
        for piece in pieces(source, 0, None, base, self.unsaid):
            skipped = self.backed and (not piece.present or base is not None and piece.node is base)
            if skipped or piece.zero and self.sparse and self.blank:
                self.progress.add(piece.length)
                continue
            at = max(done, piece.start // cluster * cluster)
            done = max(done, min(-(-(piece.start + piece.length) // cluster) * cluster, source.size))
            while at < done:
                run = min(most, done - at)
                self.pace(run)
                yield at, run
                at += run


# --- dd -----------------------------------------------------------------------------------------------------------


def dd(argv: list[str]) -> int:
    from vmrun.backends.block.copy import Lane

    given = Given(argv, "f:O:U")
    words: dict[str, str] = {}
    for text in given.args:
        key, mark, value = text.partition("=")
        if not mark or key not in ("bs", "count", "if", "of", "skip"):
            raise ImgError(f"unrecognized operand {key}")
        words[key] = value
    if "if" not in words or "of" not in words:
        raise ImgError("Must specify both input and output files")
    if "image-opts" in given and "f" in given:
        raise ImgError("--image-opts and --format are mutually exclusive")
    numbers = {}
    for key, default in (("bs", "512"), ("count", ""), ("skip", "0")):
        text = words.get(key, default)
        found = size(text) if text else None
        if text and found is None:
            raise ImgError(
                f"Invalid {key} specified. You may use k, M, G, T, P or E suffixes for\n"
                f"{program()}: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes."
            )
        if key == "bs" and found is not None and not 0 < found < 1 << 31:
            raise ImgError("Invalid bs specified. Must be between 1 and 2147483647.")
        numbers[key] = found
    format = given["O"] or "raw"
    if not known(format):
        raise ImgError(not_made(format).removesuffix(f" '{format}'"))
    source = open_image(words["if"], given["f"], share="U" in given, options="image-opts" in given)
    block, skip = int(numbers["bs"] or 512), int(numbers["skip"] or 0)
    try:
        total = source.size
        if numbers["count"] is not None:
            total = min(total, int(numbers["count"]) * block)
        begin = skip * block
        length = max(0, total - begin)
        if begin > total:
            sys.stderr.write(f"{program()}: {words['if']}: cannot skip to specified offset\n")
        try:
            make(words["of"], format, length, {})
        except ImgError as error:
            text = str(error).removeprefix(f"{words['of']}: ")
            raise ImgError(f"{words['of']}: error while creating output image: {text}") from None
        target: Node = open_image(words["of"], format, write=True)
        try:
            if length:
                lane = Lane()
                try:
                    lane.copy(source, target, begin, 0, length, 4096, True)
                except OSError as error:
                    told = "writing to output" if lane.wrote else "reading from input"
                    raise ImgError(f"error while {told} image file: {error.strerror}") from None
            target.sync()
        finally:
            target.close()
    finally:
        source.close()
    return 0
