"""memory-backend-ram, -file and -memfd: memory of the host under a name, and how the host shall keep it.

A machine's memory is one block; a backend is laid under a part of it (`lay_under`), or is the block of a device of its
own (`own_block`). What the host cannot do (huge pages, a NUMA node) is an error, never left out.
"""

from __future__ import annotations

import errno
import os

from vmrun.core.props import Prop, named
from vmrun.core.userobject import UserObject
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.ram import RamBlock

    from vmrun.core.platform import Platform

POLICIES = ("default", "preferred", "bind", "interleave")  # in the order of mbind's modes
MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_DONTDUMP, MADV_DODUMP = 12, 13, 16, 17
MFD_HUGETLB, HUGE_SHIFT = 4, 26
F_ADD_SEALS, SEAL_SIZE = 1033, 7  # no more seals, no shrinking, no growing
MOST_NODES = 128
HUGE = 2 << 20  # bytes of a huge page


class _Nodes(Prop):
    """NUMA nodes of the host: a list, or text such as 0-1,3."""

    __slots__ = ()

    def check(self, value: Any, obj: Any = None) -> Any:
        if isinstance(value, str):
            value = [n for part in value.split(",") for n in _range(part)]
        if isinstance(value, int):
            value = [value]
        if not isinstance(value, (list, tuple)) or not all(type(n) is int and 0 <= n < MOST_NODES for n in value):
            raise BuildError(f"{self.name}: {value!r} is no list of NUMA nodes")
        return sorted(set(value))


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    if not first.isdecimal() or (last and not last.isdecimal()) or int(last or first) >= MOST_NODES:
        raise BuildError(f"host-nodes: {text!r} is no NUMA node")
    return range(int(first), int(last or first) + 1)


def _nodes() -> _Nodes:
    prop = _Nodes("str", None, "NUMA nodes of the host that it comes from")
    prop.name = "host-nodes"
    return prop


class Memory(UserObject):
    """`alignment`: of the places in a machine where it can be put, in bytes. `readonly`: the guest cannot write."""

    changeable = ("merge", "dump", "prealloc")
    shares = False
    alignment = HUGE
    readonly: Any = False

    size = Prop("size", 0, "bytes", unit="bytes")
    share = Prop("bool", False, "other processes may see it")
    prealloc = Prop("bool", False, "touch all of it at the start")
    prealloc_threads = named("prealloc-threads", "uint32", 1, "threads that do so")
    merge = Prop("bool", True, "the host may share equal pages")
    dump = Prop("bool", True, "part of a core dump of the process")
    policy = Prop("enum", "default", "where on a NUMA host", choices=POLICIES)
    host_nodes = _nodes()
    reserve = Prop("bool", True, "reserve swap space")
    canonical_path = named(
        "x-use-canonical-path-for-ramblock-id", "bool", True, "what QEMU calls it in a migration",
        idle="vmrun's saved machines know memory by its place",
    )  # fmt: skip

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.placed: list[tuple[RamBlock, int, int]] = []  # block, offset, size of what it is laid under
        self._block: RamBlock | None = None

    def complete(self, platform: Platform) -> None:
        if not self.size:
            raise BuildError("can't create backend with size 0")
        if not self.reserve:
            raise BuildError("vmrun reserves nothing for memory in any case: leave out 'reserve=off'")
        if self.policy == "default" and self.host_nodes:
            raise BuildError("host-nodes must be empty for policy default, or you should explicitly specify a policy "
                             "other than default")  # fmt: skip
        if self.policy != "default" and not self.host_nodes:
            raise BuildError("host-nodes must be set for policy " + self.policy)
        for node in self.host_nodes or ():
            if not os.path.isdir(f"/sys/devices/system/node/node{node}"):
                raise BuildError(f"cannot bind memory to host NUMA nodes: there is no node {node} here")
        self.prepare()

    def prepare(self) -> None:
        """What can fail without any block."""

    def on_pages(self, given: int) -> int:
        """The alignment of what lies under it in pages, or in the larger ones that were asked for."""
        return max(given, os.sysconf("SC_PAGE_SIZE"))

    def descriptor(self) -> int:
        """Of what lies under it; -1: nothing but memory. The caller closes it."""
        return -1

    def lay_under(self, block: RamBlock, offset: int, size: int) -> None:
        """Give `block` this memory at `offset`. BuildError leaves the block as it was, or unusable."""
        if self.readonly and block is not self._block:
            what = f"memory backend '{self.name}': a machine's own memory can be written"
            raise BuildError(what, remedy="leave out 'readonly'")
        fd = self.descriptor()
        try:
            if fd >= 0:
                block.back(offset, size, fd, 0, (self.share or self.shares) and not self.readonly)
            elif self.share:
                block.back(offset, size, -1, 0, True)
            self._advise(block, offset, size)
        except OSError as error:
            raise BuildError(f"memory backend '{self.name}': {error.strerror}") from None
        finally:
            if fd >= 0:
                os.close(fd)
        self.placed.append((block, offset, size))

    def _advise(self, block: RamBlock, offset: int, size: int) -> None:
        if self.policy != "default":
            block.bind(offset, size, POLICIES.index(self.policy), self.host_nodes)
        if self.merge:
            self._may(block, offset, size, MADV_MERGEABLE)
        if not self.dump:
            block.advise(offset, size, MADV_DONTDUMP)
        if self.prealloc:
            self._populate(block, offset, size)

    def _may(self, block: RamBlock, offset: int, size: int, advice: int) -> None:
        """A host whose kernel does not merge pages is none the worse."""
        try:
            block.advise(offset, size, advice)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def changed(self, name: str) -> None:
        for block, offset, size in self.placed:
            if name == "prealloc" and self.prealloc:
                self._populate(block, offset, size)
            elif name == "merge":
                self._may(block, offset, size, MADV_MERGEABLE if self.merge else MADV_UNMERGEABLE)
            elif name == "dump":
                block.advise(offset, size, MADV_DODUMP if self.dump else MADV_DONTDUMP)

    def _populate(self, block: RamBlock, offset: int, size: int) -> None:
        """Touch all of it, with `prealloc-threads` threads, each of which has a part in whole huge pages."""
        threads = min(self.prealloc_threads, -(-size // HUGE), os.cpu_count() or 1)
        if threads < 2:
            block.populate(offset, size)
            return
        from concurrent.futures import ThreadPoolExecutor

        part = -(-size // threads // HUGE) * HUGE
        parts = [(at, min(part, size - at)) for at in range(0, size, part)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda each: block.populate(offset + each[0], each[1]), parts))

    def own_block(self) -> RamBlock:
        """A block that is this memory alone, for a device."""
        from accel.ram import RamBlock

        if self._block is None:
            if self.size & 0xFFF:
                raise BuildError(f"memory backend '{self.name}': {self.size} bytes are no whole pages")
            try:
                self._block = RamBlock(self.name, self.size)
            except MemoryError as error:
                raise BuildError(str(error)) from None
            self.lay_under(self._block, 0, self.size)
        return self._block


class RamMemory(Memory):
    driver = "memory-backend-ram"


class MemfdMemory(Memory):
    driver = "memory-backend-memfd"

    share = Prop("bool", True, "other processes may see it")
    hugetlb = Prop("bool", False, "huge pages")
    hugetlbsize = Prop("size", 0, "their size", unit="bytes")
    seal = Prop("bool", True, "its size is fixed")

    @property
    def alignment(self) -> int:  # type: ignore[override]
        return self.on_pages((self.hugetlbsize or HUGE) if self.hugetlb else 0)

    def descriptor(self) -> int:
        import fcntl

        flags = os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if self.seal else 0)
        if self.hugetlb:
            flags |= MFD_HUGETLB | (self.hugetlbsize.bit_length() - 1 << HUGE_SHIFT if self.hugetlbsize else 0)
        fd = os.memfd_create(self.name, flags)
        try:
            os.ftruncate(fd, self.size)
            if self.seal:
                fcntl.fcntl(fd, F_ADD_SEALS, SEAL_SIZE)
        except BaseException:
            os.close(fd)
            raise
        return fd


class FileMemory(Memory):
    driver = "memory-backend-file"

    mem_path = named("mem-path", "str", doc="the file, or a directory for one without a name")
    align = Prop("size", 0, "alignment of its place in the machine", unit="bytes")
    discard_data = named("discard-data", "bool", False, "forget the content at the end")
    pmem = Prop("bool", False, "the file lies in persistent memory")
    readonly = Prop("bool", False, "the guest cannot write")

    made = False  # the file is this object's

    def prepare(self) -> None:
        if not self.mem_path:
            raise BuildError("mem-path property not set")
        if self.pmem:
            raise BuildError("vmrun was built without libpmem: leave out 'pmem'")
        if self.align & (self.align - 1) or self.align > 1 << 30:
            raise BuildError(f"'align' is {self.align:#x}: a power of two, up to 1 GiB")

    @property
    def alignment(self) -> int:  # type: ignore[override]
        return self.on_pages(self.align)

    def descriptor(self) -> int:
        path = str(self.mem_path)
        try:
            if os.path.isdir(path):
                import tempfile

                fd, name = tempfile.mkstemp(prefix="vmrun_back_mem.", dir=path)
                os.unlink(name)
                self.made = True
            else:
                self.made = not os.path.exists(path)
                how = os.O_RDONLY if self.readonly else os.O_RDWR | os.O_CREAT
                fd = os.open(path, how | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BuildError(f"can't open backing store {path} for guest RAM: {error.strerror}") from None
        try:
            there = os.fstat(fd).st_size
            if 0 < there < self.size or (there < self.size and self.readonly):
                raise BuildError(f"backing store size {there:#x} does not match 'size' option {self.size:#x}")
            if there < self.size:
                os.ftruncate(fd, self.size)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def release(self) -> None:
        if self.discard_data:
            for block, offset, size in self.placed:
                block.advise(offset, size, 9)  # MADV_REMOVE
