"""memory-backend-ram, -file and -memfd: memory of the host under a name."""

from __future__ import annotations

from vmrun.core.props import Prop, named
from vmrun.core.userobject import UserObject
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

POLICIES = ("default", "preferred", "bind", "interleave")


class Memory(UserObject):
    changeable = ("merge", "dump", "prealloc")

    size = Prop("size", 0, "bytes", unit="bytes")
    share = Prop("bool", False, "other processes may see it")
    prealloc = Prop("bool", False, "touch all of it at the start")
    prealloc_threads = named("prealloc-threads", "uint32", 1, "threads that do so")
    merge = Prop("bool", True, "the host may share equal pages")
    dump = Prop("bool", True, "part of a core dump of the process")
    policy = Prop("enum", "default", "where on a NUMA host", choices=POLICIES)
    reserve = Prop("bool", True, "reserve swap space")

    def complete(self, platform: Platform) -> None:
        if not self.size:
            raise BuildError("can't create backend with size 0")


class RamMemory(Memory):
    driver = "memory-backend-ram"


class MemfdMemory(Memory):
    driver = "memory-backend-memfd"

    hugetlb = Prop("bool", False, "huge pages")
    hugetlbsize = Prop("size", 0, "their size", unit="bytes")
    seal = Prop("bool", True, "its size is fixed")


class FileMemory(Memory):
    driver = "memory-backend-file"

    mem_path = named("mem-path", "str", doc="the file, or a directory for one without a name")
    align = Prop("size", 0, "alignment of the mapping", unit="bytes")
    discard_data = named("discard-data", "bool", False, "forget the content at the end")
    pmem = Prop("bool", False, "the file lies in persistent memory")
    readonly = Prop("bool", False, "the guest cannot write")

    def complete(self, platform: Platform) -> None:
        if not self.mem_path:
            raise BuildError("mem-path property not set")
        super().complete(platform)
