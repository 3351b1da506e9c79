"""Memory and NUMA nodes of a libvirt domain, with the host's side of each."""

from __future__ import annotations

from vmrun.config.importers.qemuopts import join
from vmrun.config.importers.xmltree import Item, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Pairs = list[tuple[str, Any]]

MOST_CELLS = 128  # as with QEMU
MOST_NODES = 1024  # of a host
_POLICIES = {"strict": "bind", "interleave": "interleave", "preferred": "preferred"}
MIB = 1 << 20
_MODULE = 2 * MIB  # libvirt makes modules of so many bytes, or of multiples


class Memory:
    """<memory>, <memoryBacking>, <numatune> and the cells of <numa>, read for a domain."""

    if TYPE_CHECKING:
        root: Item
        file: str
        add: Callable[..., None]
        lost: Callable[[int, str], None]
        number: Callable[[Item, str, str], int]
        amount: Callable[[Item, str, str], int]

    def _memory(self) -> None:
        item, most = self.root.find("memory"), self.root.find("maxMemory")
        backing = self.root.find("memoryBacking")
        self.shared, self.memfd = "", False
        if backing is not None:
            source = backing.find("source")
            kind = source.get("type", "anonymous") if source is not None else "anonymous"
            if source is not None and kind not in ("anonymous", "file", "memfd"):
                self.lost(source.line, f"type='{kind}' of <source>")
            self.shared, self.memfd = self.access(backing.find("access"), "mode"), kind == "memfd"
            backing.find("discard")  # vmrun's memory is gone with its process anyhow
        if item is not None:
            item.ignore("dumpCore")
        cells = [cell for cell in self._cells() if cell.get("memory")]
        if cells:  # the rest of it is in modules
            amount = sum(self._of_cell(cell) for cell in cells)
        elif item is not None:
            amount = self.amount(item, item.text, item.get("unit"))
        else:
            return
        line = item.line if item is not None else cells[0].line
        size = str(-(-amount // MIB))  # libvirt rounds up
        if most is not None and most.get("slots"):
            room = self.amount(most, most.text, most.get("unit"))
            size = f"size={size}M,slots={most.get('slots')},maxmem={-(-room // MIB)}M"
        self.add(line, "-m", size)
        if not cells and (self.shared == "shared" or self.memfd or self._place("")):
            self.backend(line, "pc.ram", -(-amount // MIB) * MIB)
            self.add(line, "-machine", "memory-backend=pc.ram")

    def access(self, item: Item | None, name: str) -> str:
        """shared or private, as an attribute says; '' when it does not."""
        found = item.get(name) if item is not None else ""
        if item is not None and found not in ("shared", "private", ""):
            self.lost(item.line, f"{name}='{found}' of <{item.tag}>")
        return found

    def backend(self, line: int, name: str, size: int, access: str = "", place: Pairs | None = None) -> None:
        """The memory backend of a cell or a module: `access` is its own word, `place` where on the host it is."""
        access = access or self.shared
        kind = "memory-backend-memfd" if self.memfd or access == "shared" else "memory-backend-ram"
        share = [("share", "on" if access == "shared" else "off")] if access and kind == "memory-backend-memfd" else []
        place = self._place("") if place is None else place
        self.add(line, "-object", join([("id", name), *share, ("size", size), *place], kind))

    def place_of(self, node: Item | None, source: Item | None) -> Pairs:
        """Where on the host a module of a cell is."""
        return self._place(
            node.text if node is not None else "", source.find("nodemask") if source is not None else None
        )

    def module_size(self, item: Item) -> int:
        """Bytes of a module, as libvirt rounds them."""
        return -(-self.amount(item, item.text, item.get("unit")) // _MODULE) * _MODULE

    def _cells(self) -> list[Item]:
        numa = self.root.find("cpu", "numa")
        cells = numa.all("cell") if numa is not None else []
        if len(cells) > MOST_CELLS:
            raise wrong(f"more than {MOST_CELLS} NUMA nodes", self.file, cells[0].line)
        ids = {id(cell): self.number(cell, cell.get("id", str(n)), "id") for n, cell in enumerate(cells)}
        return sorted(cells, key=lambda cell: ids[id(cell)])

    def _of_cell(self, cell: Item) -> int:
        """Bytes of a cell."""
        return -(-self.amount(cell, cell.get("memory"), cell.get("unit")) // MIB) * MIB

    def _place(self, cell: str, nodes: Item | None = None) -> Pairs:
        """Where on the host a cell's memory is: what <numatune> says, or the nodes of a module of its own."""
        tune = self.root.find("numatune")
        rows = [row for row in tune.children if row.tag == "memnode"] if tune is not None else []
        own = next((row for row in rows if row.attributes.get("cellid") == cell), None)
        row = own or (tune.find("memory") if tune is not None else None)
        if own is not None:
            own.ignore("cellid")
        mode = row.get("mode", "strict") if row is not None else "strict"
        said = nodes.text if nodes is not None else row.get("nodeset") if row is not None else ""
        if row is not None and mode not in _POLICIES:
            self.lost(row.line, f"mode='{mode}' of <{row.tag}>")
            return []
        place = nodes or row
        if not said or place is None:
            return []
        return [("host-nodes", _ranges(self._set(place, said))), ("policy", _POLICIES[mode])]

    def _set(self, item: Item, text: str) -> set[int]:
        """'1-3,^2' → {1, 3}."""
        found: set[int] = set()
        for part in text.split(","):
            first, _, last = part.strip().removeprefix("^").partition("-")
            span = range(self.number(item, first, "nodeset"), self.number(item, last or first, "nodeset") + 1)
            if span.stop > MOST_NODES:
                raise wrong(f"<{item.tag}> has nodes beyond {MOST_NODES - 1}", self.file, item.line)
            found = found - set(span) if part.strip().startswith("^") else found | set(span)
        return found

    def _nodes(self, most: int) -> None:
        """The cells of `most` processors; those that no cell has are the first's, as with libvirt."""
        numa = self.root.find("cpu", "numa")
        if numa is None:
            return
        cells = self._cells()
        apart: dict[tuple[str, str], str] = {}
        near = [self._set(cell, cell.get("cpus")) if cell.get("cpus") else set() for cell in cells]
        if near and most <= MOST_NODES:
            near[0] |= set(range(most)).difference(*near)
        for n, cell in enumerate(cells):
            id = cell.get("id", str(n))
            cell.ignore("discard")
            self.backend(
                cell.line, f"ram-node{id}", self._of_cell(cell), self.access(cell, "memAccess"), self._place(id)
            )
            cpus = [("cpus", part) for part in _ranges(near[n]).split(",") if part]
            first = (
                [("initiator", self._nearest(numa, id))] if numa.find("interconnects") is not None and not cpus else []
            )
            self.add(cell.line, "-numa", join([("nodeid", id), *cpus, *first, ("memdev", f"ram-node{id}")], "node"))
            distances = cell.find("distances")
            for sibling in distances.all("sibling") if distances is not None else ():
                apart[id, sibling.get("id")] = sibling.get("value")
        for (src, dst), value in apart.items():
            self.add(numa.line, "-numa", f"dist,src={src},dst={dst},val={value}")
        self._memory_speeds(numa, cells)

    def _nearest(self, numa: Item, target: str) -> str:
        """The node whose processors reach memory without processors of its own best."""
        between = numa.find("interconnects")
        rows = [row for row in between.children if row.get("target") == target] if between is not None else []
        value = {id(row): self.number(row, row.get("value", "0"), "value") for row in rows}
        wide = max((row for row in rows if row.tag == "bandwidth"), key=lambda row: value[id(row)], default=None)
        near = min((row for row in rows if row.tag == "latency"), key=lambda row: value[id(row)], default=wide)
        return near.get("initiator") if near is not None else "0"

    def _memory_speeds(self, numa: Item, cells: list[Item]) -> None:
        """<interconnects> and the cells' caches."""
        between = numa.find("interconnects")
        rows = between.children if between is not None else []
        caches = [(n, cache) for n, cell in enumerate(cells) for cache in cell.all("cache")]
        if rows or caches:
            self.add(numa.line, "-machine", "hmat=on")
        for row in rows:
            if row.tag not in ("latency", "bandwidth"):
                continue
            level = self.number(row, row.get("cache", "0"), "cache")
            value = self.number(row, row.get("value", "0"), "value")
            pairs = [("initiator", row.get("initiator")), ("target", row.get("target"))]
            pairs.append(("hierarchy", ("memory", "first-level", "second-level", "third-level")[min(level, 3)]))
            pairs.append(("data-type", f"{row.get('type', 'access')}-{row.tag}"))
            amount = str(value) if row.tag == "latency" else f"{self.amount(row, str(value), row.get('unit'))}B"
            self.add(row.line, "-numa", join([*pairs, (row.tag, amount)], "hmat-lb"))
        for n, cache in caches:
            size, line = cache.find("size"), cache.find("line")
            pairs = [("node-id", cells[n].get("id", str(n))), ("level", cache.get("level"))]
            kinds = {"direct": "direct", "full": "complex"}
            pairs.append(("associativity", kinds.get(cache.get("associativity"), "none")))
            policies = {"writeback": "write-back", "writethrough": "write-through"}
            pairs.append(("policy", policies.get(cache.get("policy"), "none")))
            for name, part in (("size", size), ("line", line)):
                if part is not None:
                    pairs.append((name, str(self.amount(part, part.get("value"), part.get("unit", "B")))))
            self.add(cache.line, "-numa", join(pairs, "hmat-cache"))


def _ranges(nodes: set[int]) -> str:
    """{0, 1, 2, 5} → '0-2,5'."""
    parts: list[list[int]] = []
    for node in sorted(nodes):
        if parts and parts[-1][1] == node - 1:
            parts[-1][1] = node
        else:
            parts.append([node, node])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
