"""Jobs on the block graph: mirror, backup, commit, stream. What copies is vmrun/backends/block/tap.pyx.

Each is made and started by a function that checks what it was given; errors are BuildError in QEMU's words.
"""

from __future__ import annotations

import os
from time import sleep

from vmrun.errors import BuildError
from vmrun.machine.blocks import Blocks, blocks
from vmrun.machine.ioerrors import tell_faults
from vmrun.machine.jobs import Cancelled, Job, Transaction, jobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.machine.machine import Machine

WINDOW = 1 << 20
STEP = 512 << 10  # of what goes along a chain
STRETCH = 1 << 30  # bytes of a chain that are looked at with the same base
CALM = 0.01  # seconds between two looks at a disk that is in step
NEARLY = 16 << 20  # bytes that may be left when a mirror's guest is held for the last of them


class BlockJob(Job):
    """`source` is what the guest uses, `target` what is written; both stay as long as the job."""

    filter = "mirror_top"  # what QEMU calls the driver of the job's filter

    def __init__(
        self, machine: Machine, id: str, source: Any, target: Any = None, *, on_source_error: str = "report",
        on_target_error: str = "report", filter_name: str = "", **how: Any,
    ) -> None:  # fmt: skip
        """`filter_name`: what monitors call the filter that the job is, above `source`; "": it is not seen."""
        super().__init__(machine, id, **how)
        self.blocks: Blocks = blocks(machine)
        self.source: Any = source.hold()
        self.target: Any = target.hold() if target is not None else None
        self.on_source_error, self.on_target_error = on_source_error, on_target_error
        self.nodes = [self.source] + ([self.target] if self.target is not None else [])
        for node in self.nodes:
            self.blocks.busy[id_of(node)] = self.kind
        self.filter_name = filter_name
        if filter_name:
            self.blocks.filters[id_of(source)] = (filter_name, self.filter)

    def use(self, *nodes: Any) -> None:
        """Nobody else's job may work with these either."""
        for node in nodes:
            self.nodes.append(node.hold())
            self.blocks.busy[id_of(node)] = self.kind

    def begin(self) -> None:
        """Before the thread starts, on the main loop, at the moment that counts."""

    @property
    def window(self) -> int:
        """Bytes to copy at a time: of a slow job, what it may move in a second."""
        return min(WINDOW, max(self.speed, 65536)) if self.speed else WINDOW

    def hurry(self, begin: bool) -> None:
        for node in self.nodes:
            node.hurry(begin)

    def clean(self) -> None:
        for node in self.nodes:
            self.blocks.busy.pop(id_of(node), None)
        if self.filter_name:
            self.blocks.filters.pop(id_of(self.source), None)
        for node in self.nodes:
            node.close()
        self.nodes = []

    def failed_at(self, error: OSError, target: bool) -> None:
        """Go on where the policy of that side says so; else raise."""
        import errno

        if self.cancelled and self.forced:
            raise error
        policy = self.on_target_error if target else self.on_source_error
        action = policy
        if policy in ("enospc", "auto"):
            action = "stop" if error.errno == errno.ENOSPC else "report"
        data = {"device": self.id, "operation": "write" if target else "read", "action": action}

        def told() -> None:
            for node in (self.source, self.target):
                if node is not None:
                    tell_faults(self.machine, node)
            self.machine.tell("BLOCK_JOB_ERROR", **data)

        self.machine.loop.call_soon(told)
        if action == "report":
            raise error
        if action == "stop":
            self.io_status = "nospace" if error.errno == errno.ENOSPC else "failed"
            if not self.user_paused:
                self.user_paused = True
                self.pauses += 1


def id_of(node: Any) -> int:
    return id(node)


def free(machine: Machine, node: Any, name: str) -> None:
    """BuildError while a job works with the node."""
    job = blocks(machine).busy.get(id(node))
    if job is not None:
        raise BuildError(f"Node '{name}' is busy: block device is in use by block job: {job}")


def all_free(machine: Machine, nodes: list[Any], entered: bool = False) -> None:
    """The same for those of a chain, the top first; `entered`: from above, by way of the filters of jobs."""
    table = blocks(machine)
    for node in nodes:
        name, _ = table.filters.get(id(node), ("", ""))
        free(machine, node, name if entered and name else table.shown_name(node))
        entered = True


# --- mirror -----------------------------------------------------------------------------------------------------


class Mirror(BlockJob):
    kind = "mirror"

    def __init__(
        self, *args: Any, sync: str, base: Any = None, granularity: int = 65536, blank: bool = False,
        copy_mode: str = "background", replaces: Any = None, **how: Any,
    ) -> None:  # fmt: skip
        """`base`: copy what lies above it, None for all. `blank`: the target is all zeros."""
        super().__init__(*args, **how)
        from vmrun.backends.block.bitmap import Bitmap

        self.sync, self.base, self.blank, self.copy_mode = sync, base, blank, copy_mode
        self.replaces = replaces
        self.dirty: Any = Bitmap(self.source.size, granularity)
        self.tap: Any = None

    def begin(self) -> None:
        self.tap = self.blocks.tap(self.source)
        with self.blocks.quiet(self.source):
            self.tap.add_bitmap(self.dirty)

    def work(self) -> None:
        self._sizes()
        if self.sync != "none":
            self._plan()
        at = moved = 0
        while True:
            self.total = self.current + self.dirty.count
            self.check(moved)
            moved = 0
            try:
                found = self.tap.copy_marked(self.target, self.dirty, at, self.window)
            except OSError as error:
                self.failed_at(error, self.tap.target_failed)
                sleep(CALM)
                at = 0
                continue
            if found is not None:
                at, moved = found
                self.current += moved
                if self.completing and self.dirty.count <= NEARLY:
                    return
                continue
            if at:
                at = 0
                continue
            if not self.is_ready:
                self.total = self.current + self.dirty.count
                self._in_step()
            if self.completing or self.cancelled:
                return
            sleep(CALM)

    def _sizes(self) -> None:
        if self.target.size != self.source.size:
            raise BuildError("Source and target image have different sizes")

    def _plan(self) -> None:
        """Mark what is to be copied."""
        from vmrun.backends.block.chain import pieces

        for piece in pieces(self.source, 0, None, self.base):
            self.check()
            if self.base is not None and not (piece.data or piece.zero):
                continue
            if piece.zero and not piece.data and self.blank and not piece.present:
                continue
            self.dirty.set(piece.start, piece.length)
            self.total = self.dirty.count

    def _in_step(self) -> None:
        if self.copy_mode == "write-blocking":

            def join() -> None:
                with self.blocks.quiet(self.source):
                    self.tap.begin_twin(self.target, self.dirty)

            self.machine.loop.call_soon(lambda: None if self.done else join())
        self.ready()

    def finish(self) -> None:
        """The last of it, with the guest held."""
        at = 0
        while True:
            found = self.tap.copy_marked(self.target, self.dirty, at, WINDOW)
            if found is None:
                if not at:
                    break
                at = 0
                continue
            at, moved = found
            self.current += moved
        self.total = self.current
        self.target.sync()

    def prepare(self) -> None:
        with self.blocks.quiet(self.source, self.target):
            self.finish()
            if self.completing:
                self.pivot()
            self._end()

    def pivot(self) -> None:
        if self.replaces is not None:
            self.blocks.replace(self.replaces, self.target)
        else:
            self.blocks.replace(self.source, self.target, but=(self.target,))

    def _end(self) -> None:
        if self.tap is not None:
            with self.blocks.quiet(self.source):
                self.tap.end_twin()
                if self.dirty in self.tap.bitmaps:
                    self.tap.drop_bitmap(self.dirty)
            self.blocks.untap(self.source)
            self.tap = None

    def abort(self) -> None:
        self._end()


class ActiveCommit(Mirror):
    """What lies above a backing image goes into it while the guest writes on; then the guest uses that one."""

    kind = "commit"

    def __init__(self, *args: Any, was_readonly: bool, **how: Any) -> None:
        super().__init__(*args, **how)
        self.was_readonly = was_readonly
        self.use(*between(self.source, self.target)[1:])

    def _sizes(self) -> None:
        """What is below has grown to the size of what is above, if it had to."""

    def prepare(self) -> None:
        super().prepare()
        if not self.completing:
            self.back()

    def abort(self) -> None:
        super().abort()
        self.back()

    def back(self) -> None:
        if self.was_readonly:
            read_only_again(self.target)


# --- backup -----------------------------------------------------------------------------------------------------


class Backup(BlockJob):
    kind, filter = "backup", "copy-before-write"

    def __init__(
        self, *args: Any, sync: str, base: Any = None, bitmap: Any = None, bitmap_mode: str = "on-success",
        must: bool = True, compress: bool = False, **how: Any,
    ) -> None:  # fmt: skip
        super().__init__(*args, **how)
        from vmrun.backends.block.bitmap import Bitmap

        grain = max(65536, getattr(self.target, "cluster_size", 0) or 0)
        self.sync, self.base, self.bitmap, self.bitmap_mode, self.must = sync, base, bitmap, bitmap_mode, must
        self.wanted: Any = Bitmap(self.source.size, grain)
        self.compress = compress
        self.before: Any = None  # what the bitmap had
        self.tap: Any = None

    def begin(self) -> None:
        self.tap = self.blocks.tap(self.source)
        with self.blocks.quiet(self.source):
            if self.bitmap is not None:
                self.before = self.bitmap.bits.copy()
                self.wanted.merge(self.bitmap.bits)
                if self.bitmap_mode != "never":
                    self.bitmap.bits.clear()
                self.bitmap.busy = True
            else:
                self.wanted.set(0, self.source.size)
            self.tap.begin_saving(self.target, self.wanted, self.must, self.compress)
        self.total = self.source.size

    def work(self) -> None:
        if self.sync == "none":
            while True:
                self.check()
                sleep(CALM)
        if self.base is not None:
            from vmrun.backends.block.chain import pieces

            for piece in pieces(self.source, 0, None, self.base):
                self.check()
                if not (piece.data or piece.zero) or piece.depth == 0 and not piece.present and not piece.data:
                    self.wanted.clear(piece.start, piece.length)
        self.total = max(self.wanted.count, 0)
        if self.bitmap is None and self.base is None:
            self.total = self.source.size
        whole = self.total
        at = 0
        while True:
            left = self.wanted.count
            try:
                found = self.tap.save_next(at, self.window)
            except OSError as error:
                self.failed_at(error, self.tap.target_failed)
                self.tap.forgive()
                sleep(CALM)
                self.check()
                continue
            if found is None:
                break
            at = found
            moved = max(left - self.wanted.count, 0)
            self.current = max(min(whole, whole - self.wanted.count), 0)
            self.check(moved)
        self.current = self.total

    def prepare(self) -> None:
        with self.blocks.quiet(self.source):
            if self.tap.save_error:
                raise OSError(self.tap.save_error, "")
        self.target.sync()

    def commit(self) -> None:
        self._end(True)

    def abort(self) -> None:
        self._end(False)

    def _end(self, well: bool) -> None:
        if self.tap is None:
            return
        with self.blocks.quiet(self.source):
            self.tap.end_saving()
            if self.bitmap is not None:
                if not well and self.bitmap_mode == "on-success":
                    self.bitmap.bits.merge(self.before)
                elif not well and self.bitmap_mode == "always":
                    self.bitmap.bits.merge(self.wanted)
                self.bitmap.busy = False
        self.blocks.untap(self.source)
        self.tap = None


# --- commit of an image that is not on top ----------------------------------------------------------------------


class Commit(BlockJob):
    """What lies from `source` down to above `target` goes into that one, which gets the overlay of `source` as its own.
    `active`: the top of the chain.
    """

    kind, filter = "commit", "commit_top"

    def __init__(
        self, *args: Any, active: Any, backing_file: str, was_readonly: bool, **how: Any
    ) -> None:  # fmt: skip
        super().__init__(*args, **how)
        self.backing_file, self.was_readonly = backing_file, was_readonly
        self.active = active
        self.use(active, *between(self.source, self.target)[1:])

    def work(self) -> None:
        from vmrun.backends.block.chain import pieces
        from vmrun.backends.block.copy import Lane

        self.total = self.source.size
        lane = Lane()
        for piece in pieces(self.source, 0, None, self.target):
            start, end = piece.start, piece.start + piece.length
            while start < end:
                length = min(end - start, STEP)
                moved = 0
                while True:
                    reading = piece.data
                    try:
                        if piece.data:
                            data = lane.fill(self.source, start, length)
                            reading = False
                            self.target.write(start, data)
                            moved = length
                        elif piece.zero:
                            self.target.write_zeroes(start, length, True)
                        break
                    except OSError as error:
                        self.failed_at(error, not reading)
                        self.check()
                        sleep(CALM)
                start += length
                self.current = start
                self.check(moved)
        self.target.sync()

    def prepare(self) -> None:
        above = overlay_of(self.active, self.source)  # another one than at first if a job above has ended meanwhile
        with self.blocks.quiet(above, self.source, self.target):
            set_backing(above, self.backing_file, format_of(self.target))
            old = backing_of(above)
            above.rebase(self.target.hold())
            old.close()
            self.back()

    def abort(self) -> None:
        self.back()

    def back(self) -> None:
        if self.was_readonly:
            read_only_again(self.target)


# --- stream -----------------------------------------------------------------------------------------------------


class Stream(BlockJob):
    """What lies between `source` and `base` comes into `source`, which gets `base` as its backing image."""

    kind, filter = "stream", "copy-on-read"

    def __init__(self, *args: Any, base: Any, backing_file: str, was_readonly: bool = False, **how: Any) -> None:
        super().__init__(*args, **how)
        self.backing_file, self.was_readonly = backing_file, was_readonly
        self.tap: Any = None
        self.first_error: OSError | None = None
        going = between(self.source, base)
        self.bottom = going[-1]
        self.held = [base.hold()] if base is not None else []
        self.use(*going[1:])

    @property
    def base(self) -> Any:
        """What lies below the last image that goes: other jobs may put another there meanwhile."""
        return backing_of(self.bottom)

    def clean(self) -> None:
        super().clean()
        for node in self.held:
            node.close()
        self.held = []

    def begin(self) -> None:
        from vmrun.backends.block.bitmap import Bitmap

        self.tap = self.blocks.tap(self.source)
        self.mark = Bitmap(512, 512)  # keeps the tap
        self.tap.add_bitmap(self.mark)

    def work(self) -> None:
        from vmrun.backends.block.chain import pieces

        self.total = self.source.size
        grain = getattr(self.source, "cluster_size", 65536)
        for at in range(0, self.total, STRETCH):
            base = self.base
            for piece in pieces(self.source, at, STRETCH, base):
                start, end = piece.start, piece.start + piece.length
                wanted = piece.depth > 0 and (piece.data or piece.zero and base is not None)
                while start < end:
                    length = min(end - start, STEP // grain * grain or grain)
                    if wanted:
                        self._pull(start, length)
                    start += length
                    self.current = start
                    self.check(length if wanted else 0)
        self.source.sync()
        if self.first_error is not None:
            raise self.first_error

    def _pull(self, start: int, length: int) -> None:
        """Until it is done, or what failed is to be ignored: the job goes on then and fails at its end, as QEMU's."""
        while True:
            try:
                self.tap.pull_up(start, length)
                return
            except OSError as error:
                self.failed_at(error, False)
                if not self.pauses:
                    self.first_error = self.first_error or error
                    return
                self.check()
                sleep(CALM)

    def prepare(self) -> None:
        with self.blocks.quiet(self.source):
            self.source.sync()
            base = self.base
            file = self.backing_file or (os.path.abspath(file_of(base)) if base is not None else "")
            set_backing(self.source, file if base is not None else "", format_of(base) if base is not None else "")
            old = backing_of(self.source)
            self.source.rebase(base.hold() if base is not None else None)
            if old is not None:
                old.close()
            self._end()

    def abort(self) -> None:
        self._end()

    def _end(self) -> None:
        if self.tap is not None:
            with self.blocks.quiet(self.source):
                self.tap.drop_bitmap(self.mark)
            self.blocks.untap(self.source)
            self.tap = None
            if self.was_readonly:
                read_only_again(self.source)


# --- backing images ------------------------------------------------------------------------------------------------


def read_only_again(node: Any) -> None:
    """An image that only its job wrote to. OSError, ImageError."""
    from vmrun.backends.block.reopening import reopen

    try:
        node.sync_now()
    finally:
        reopen(node, True)


def backing_of(node: Any) -> Any:
    from vmrun.backends.block.chain import backing_of as below

    return below(node)


def file_of(node: Any) -> str:
    from vmrun.backends.block.filenames import node_name

    return node_name(node)


def below_of(node: Any) -> Any:
    from vmrun.backends.block.chain import below_of as below

    return below(node)


def format_of(node: Any) -> str:
    return str(node.driver) if getattr(node, "header", None) is not None or hasattr(node, "layout") else "raw"


def set_backing(node: Any, file: str, format: str) -> None:
    """Write down what lies below an image. OSError, BuildError."""
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.reopening import reopen

    header = getattr(node, "header", None)
    if header is None:
        return
    readonly = bool(node.readonly)
    try:
        if readonly:
            reopen(node, False)
        try:
            header.backing_file, header.backing_format = file, format if file else ""
            node.update_header()
            node.sync()
        finally:
            if readonly:
                reopen(node, True)
    except ImageError as error:
        raise BuildError(error.text) from None


def chain_of(node: Any) -> list[Any]:
    """The node and its backing images, the top first."""
    from vmrun.backends.block.chain import images

    return list(images(node))


def between(top: Any, base: Any) -> list[Any]:
    """A chain from its top down to above `base`; None: all of it."""
    chain = chain_of(top)
    return chain if base is None else chain[: chain.index(base)]


def overlay_of(top: Any, node: Any) -> Any:
    """What has `node` as its backing image, in the chain of `top`."""
    return next((one for one in chain_of(top) if backing_of(one) is node), None)


def started(machine: Machine, make: Callable[[], BlockJob], id: str) -> BlockJob:
    """Make a job, begin and start it; nothing is left of one that could not."""
    jobs(machine).check_id(id)
    job = make()
    try:
        job.begin()
    except BaseException:
        job.abort()
        job.clean()
        raise
    job.start()
    return job


__all__ = [
    "ActiveCommit", "Backup", "BlockJob", "Cancelled", "Commit", "Mirror", "Stream", "Transaction", "all_free",
    "backing_of", "below_of", "between", "chain_of", "file_of", "format_of", "free", "id_of",
    "overlay_of", "set_backing", "started",
]  # fmt: skip
