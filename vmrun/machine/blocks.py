"""Block nodes with names: those of blockdev-add and -blockdev, for as long as somebody wants them; and what query-block
and its kin tell of drives and nodes. Errors are BuildError in QEMU's words. The main thread, without the device lock.
"""

from __future__ import annotations

import os

from vmrun.core import iolimits
from vmrun.core.interfaces import Removable
from vmrun.errors import BuildError
from vmrun.machine import runstate
from vmrun.machine.board import writable
from vmrun.machine.nodes import CHILDREN, Nodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from vmrun.backends.block.drive import Drive
    from vmrun.backends.block.tap import TapNode
    from vmrun.machine.machine import Machine

READ, WRITE, FLUSH = 0, 1, 2
_FILTERED = ("filename", "virtual-size", "actual-size", "cluster-size")  # of an ImageInfo, what a filter tells as well
_NONE = {"bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0}


class Blocks:
    """The block graph of a machine as monitors see it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.named: Nodes = machine.board.nodes
        self.taps: dict[int, TapNode] = {}  # of nodes that somebody watches, by id()
        self.queues: list[Drive] = []  # drives that no device shows: exports
        self.bitmaps: dict[int, dict[str, Any]] = {}  # vmrun.machine.dirtybitmap: of nodes, by id()
        self.busy: dict[int, str] = {}  # nodes that a job works with, by id(), and what it is
        self.filters: dict[int, tuple[str, str]] = {}  # (name, driver) of jobs' filters, by id() of what they are above
        self.numbers = 100
        self.passing: set[str] = set()  # go with their device: those of drive_add, and deleted ones

    @property
    def known(self) -> dict[str, dict[str, Any]]:
        """Name → options of every node that was named, in order."""
        return self.named.known

    # --- nodes that come and go ----------------------------------------------------------------------------

    def add(self, options: dict[str, Any], opened: Any = None) -> None:
        """Name a node. `opened`: by what `far` of the nodes gave."""
        from vmrun.backends.block.images import waiting

        name = options.get("node-name")
        if name in self.machine.board.drives and name not in self.machine.board.node_drives:
            raise BuildError(f"node-name={name} is conflicting with a device id")
        before = set(self.known)
        with waiting(self.machine.state == runstate.INMIGRATE):
            self.named.add(options, opened)
        for made in self.known.keys() - before:
            self._offer(made)
        self._withdraw(self.named.open[str(name)])

    def nested(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options with the nodes that they name in place."""
        found = {key: value for key, value in options.items() if key not in ("node-name", "auto-read-only")}
        for key in CHILDREN:
            child = found.get(key)
            if isinstance(child, str) and child in self.known:
                found[key] = self.nested(self.known[child])
        return found

    def offer_rest(self) -> None:
        """Nodes that the machine began with and nothing uses yet: devices to come may."""
        for name in self.known.keys() - self.machine.config["drives"].keys():
            self._offer(name)
        for top in self.named.open.values():
            self._withdraw(top)

    def _offer(self, name: str) -> None:
        """A drive that a device may name from now on; it is opened when one does."""
        spec = self.spec(name)
        config = self.machine.config
        drives = {**config["drives"], name: spec}
        self.machine.config = self.machine.board.config = {**config, "drives": drives}

    def _withdraw(self, top: Any) -> None:
        """What lies below a node is no drive by itself, unless a device shows it."""
        users, config = self.users(), self.machine.config
        below = {node.name for _, child in top.children() for node in graph(child)} & self.known.keys() - users.keys()
        drives = {id: spec for id, spec in config["drives"].items() if id not in below}
        self.machine.config = self.machine.board.config = {**config, "drives": drives}

    def spec(self, name: str) -> dict[str, Any]:
        """As a machine file's drive."""
        from vmrun.backends.block.images import FORMATS

        options: Any = self.nested(self.known[name])
        format = options["driver"] if options["driver"] in (*FORMATS, "null-co", "null-aio") else "raw"
        spec: dict[str, Any] = {"format": format, "media": "disk"}
        if options.get("read-only") in (True, "on"):
            spec["readonly"] = True
        if options.get("discard") in ("unmap", "on"):
            spec["discard"] = "unmap"
        if options.get("detect-zeroes", "off") != "off":
            spec["detect-zeroes"] = options["detect-zeroes"]
        cache = options.get("cache")
        while isinstance(options, dict):
            if "filename" in options:
                spec["file"] = str(options["filename"])
            elif options["driver"] in ("null-co", "null-aio"):
                spec["file"] = f"{options['driver']}://"
            cache = cache or options.get("cache")
            options = options.get("file")
        if isinstance(cache, dict):
            direct, lax = cache.get("direct") in (True, "on"), cache.get("no-flush") in (True, "on")
            spec["cache"] = "unsafe" if lax else "none" if direct else "writeback"
        return spec

    def delete(self, name: str) -> None:
        """Forget a node. BuildError while another, a device or a job is built on it."""
        node: Any = self.named.open.get(name)
        if node is None:
            raise BuildError(f"Failed to find node with node-name='{name}'")
        board = self.machine.board
        users = self.users()
        if id(node) in self.busy:
            raise BuildError(f"Node '{name}' is busy: block device is in use by block job: {self.busy[id(node)]}")
        if self.is_shown(node):
            raise BuildError(f"Node {name} is in use")
        below = [child.name for _, child in node.children() if child.name in self.known]
        self.named.delete(name)
        if name in users:
            return  # a device began with it, and shows another by now
        drive = board.drives.pop(name, None)
        if drive is not None:
            drive.close()
        config = self.machine.config
        drives = {id: spec for id, spec in config["drives"].items() if id != name}
        self.machine.config = board.config = {**config, "drives": drives}
        for child in below:
            self._offer(child)

    def add_drive(self, id: str, spec: dict[str, Any]) -> None:
        """A drive by itself, which a device can name later. BuildError."""
        from vmrun.backends.block.images import waiting

        config = self.machine.config
        if id in config["drives"]:
            raise BuildError(f"Duplicate ID '{id}' for drive")
        self._have_drives({**config["drives"], id: dict(spec)})
        try:
            with waiting(self.machine.state == runstate.INMIGRATE):
                self.machine.board.drive(id)
        except BaseException:
            self.machine.board.drives.pop(id, None)
            self._have_drives(config["drives"])
            raise

    def delete_drive(self, name: str) -> None:
        """Forget a drive of -drive or drive_add. A device that shows it goes on without a medium. BuildError."""
        board = self.machine.board
        if name in board.node_drives or name not in self.machine.config["drives"]:
            raise BuildError(f"Device '{name}' not found")
        drive: Any = board.drives.get(name)
        node = getattr(drive, "node", None)
        if node is not None and id(node) in self.busy:
            raise BuildError(f"Node '{self.node_name(node)}' is busy: {self.busy[id(node)]}")
        if name not in self.users():
            self._drop(name)
            return
        self.passing.add(name)
        drive.change(None)
        drive.set_errors("report", "report")  # the guest is told, and never held
        board.node_drives.add(name)  # its name is nobody's any more

    def released(self, id: str) -> None:
        """The device that showed a drive is gone, and with it one of -drive or drive_add, as QEMU has it. A drive of a
        machine file stays, and so does a node that somebody named.
        """
        passing = self.machine.drives_pass or id in self.passing
        if passing and id in self.machine.board.drives and id not in self.known and id not in self.users():
            self.passing.discard(id)
            self._end_jobs(self.machine.board.drives[id])
            self._drop(id)

    def _end_jobs(self, drive: Drive) -> None:
        """Those that work with what a drive shows, which goes with its device."""
        from vmrun.machine.jobs import jobs

        for job in list(jobs(self.machine).all.values()):
            if any(node is drive.node for node in getattr(job, "nodes", ())):
                job.cancel(False)

    def _drop(self, name: str) -> None:
        board = self.machine.board
        drive = board.drives.pop(name, None)
        board.node_drives.discard(name)
        self._have_drives({id: spec for id, spec in self.machine.config["drives"].items() if id != name})
        if drive is not None:
            drive.close()

    def _have_drives(self, drives: dict[str, Any]) -> None:
        self.machine.config = self.machine.board.config = {**self.machine.config, "drives": drives}

    # --- a graph that changes while it is used -----------------------------------------------------------------

    def all_drives(self) -> list[Drive]:
        return [*self.machine.board.drives.values(), *self.queues]

    def over(self, *nodes: Any) -> list[Drive]:
        """The drives whose graphs have one of the nodes."""
        wanted = {id(node) for node in nodes}
        return [
            drive
            for drive in self.all_drives()
            if getattr(drive, "node", None) is not None and wanted & {id(node) for node in graph(drive.node)}
        ]

    def quiet(self, *nodes: Any) -> Quiet:
        """`with`: nothing that uses one of the nodes is under way meanwhile."""
        return Quiet(self.over(*nodes))

    def tap(self, node: Any) -> TapNode:
        """What watches a node, for whoever has something to be noted or copied."""
        from vmrun.backends.block.tap import TapNode

        found = self.taps.get(id(node))
        if found is None:
            found = self.taps[id(node)] = TapNode(node)
            self._retop(node)
        return found

    def untap(self, node: Any) -> None:
        """Somebody has no use for it any more."""
        found = self.taps.get(id(node))
        if found is not None and found.idle:
            del self.taps[id(node)]
            self._retop(node)

    def is_shown(self, node: Any) -> bool:
        """Whether a device or an export has it; a drive that waits for a device does not count."""
        users, waiting = self.users(), self.machine.board.drives
        return any(
            getattr(drive, "node", None) is node
            for drive in self.all_drives()
            if drive.name in users or waiting.get(drive.name) is not drive
        )

    def is_below(self, node: Any) -> bool:
        """Whether another node is built on it."""
        return any(child is node for other, _ in self.nodes() for _, child in other.children())

    def show(self, drive: Drive, node: Any) -> None:
        """A node that is not shown, in a drive that is empty."""
        name = str(node.name)
        waiting: Any = self.machine.board.drives.get(name)
        if waiting is not None and waiting is not drive and waiting.node is node:
            self.machine.board.drives.pop(name).close()
        drive.change(node.hold())
        self._retop(node)

    def _retop(self, node: Any) -> None:
        drive: Any
        for drive in self.all_drives():
            if getattr(drive, "node", None) is node:
                with Quiet([drive]):
                    drive.replace(node, self.taps.get(id(node)))

    def replace(self, old: Any, new: Any, but: tuple[Any, ...] = ()) -> None:
        """Whoever used `old` uses `new`, but the nodes of `but`; with nothing under way."""
        drive: Any
        for drive in self.all_drives():
            if getattr(drive, "node", old) is old and hasattr(drive, "node"):
                drive.replace(new.hold(), self.taps.get(id(new)))
                old.close()
                self._written_down(drive, new)
        for node, _ in self.nodes():
            if node is not new and all(node is not other for other in but):
                for role, child in node.children():
                    if child is old and role == "backing":
                        node.rebase(new.hold())
                        old.close()

    def _written_down(self, drive: Drive, node: Any) -> None:
        """The drive as it is now: what a saved state of the machine names."""
        from vmrun.backends.block.filenames import node_name
        from vmrun.backends.block.images import FORMATS

        config = self.machine.config
        spec = config["drives"].get(drive.name)
        if spec is None:
            return
        format = str(node.driver) if str(node.driver) in FORMATS else "raw"
        drives = {**config["drives"], drive.name: {**spec, "file": node_name(node), "format": format}}
        self.machine.config = self.machine.board.config = {**config, "drives": drives}

    def find(self, name: str) -> tuple[Any, Drive | None]:
        """(node, its drive or None) by the name of a drive or of a node. BuildError."""
        drive: Any = self.machine.board.drives.get(name)
        if drive is not None and name not in self.machine.board.node_drives:
            if drive.node is None:
                raise BuildError(f"Device '{name}' has no medium")
            list(self.nodes())
            return drive.node, drive
        node = self.node(name)
        if node is None:
            raise BuildError(f"Cannot find device='{name}' nor node-name='{name}'")
        return node, next((one for one in self.all_drives() if getattr(one, "node", None) is node), None)

    def lookup(self, device: str, node_name: str) -> Any:
        """The node of a drive by the drive's name alone, or the one called `node_name`. BuildError."""
        board = self.machine.board
        if device in board.drives and device not in board.node_drives:
            return self.find(device)[0]
        node = self.node(node_name) if node_name else None
        if node is None:
            raise BuildError(f"Cannot find device='{device}' nor node-name='{node_name}'")
        return node

    def node(self, name: str) -> Any:
        """The node of that name, made-up ones too; what lies below a job's filter of that name. None: there is none."""
        for node, _ in self.nodes():
            if name and (node.name == name or self.filters.get(id(node), ("", ""))[0] == name):
                return node
        return None

    def shown_name(self, node: Any) -> str:
        """What a message calls a node: the drive's name that shows it, or its own."""
        names = (self.public_name(drive.name) for drive in self.all_drives() if drive.node is node)
        return next((name for name in names if name), "") or self.node_name(node)

    # --- what there is -------------------------------------------------------------------------------------

    def users(self) -> dict[str, Any]:
        """Drive → the device that shows it."""
        found: dict[str, Any] = {**self.machine.board.bays}
        for device in self.machine.devices.values():
            drive = device.get_props().get("drive")
            if drive:
                found[drive] = device
        return found

    def node_name(self, node: Any) -> str:
        """A node's own, or one that is made up for it."""
        if not node.name:
            self.numbers += 1
            node.name = f"#block{self.numbers:03}"
        return str(node.name)

    def public_name(self, drive: str) -> str:
        """What monitors call a drive; "" when they know its node and its device alone."""
        return "" if drive in self.machine.board.node_drives else drive

    def drives(self) -> Iterator[tuple[str, Any, Any]]:
        """(id, drive, its device or None): those with names in the order in which they got them, then devices' own."""
        users, board = self.users(), self.machine.board
        named = [id for id in self.machine.config["drives"] if id in board.drives and id not in board.node_drives]
        for id in [*named, *(id for id in board.drives if id not in named)]:
            yield id, board.drives[id], users.get(id)

    def nodes(self) -> Iterator[tuple[Any, Any]]:
        """(node, drive) of all that are open, each once, the top first."""
        seen: set[int] = set()

        def below(node: Any, drive: Any) -> Iterator[tuple[Any, Any]]:
            if id(node) in seen:
                return
            seen.add(id(node))
            self.node_name(node)
            yield node, drive
            for _, child in node.children():
                yield from below(child, drive)

        for _, drive, _ in self.drives():
            if drive.node is not None:
                yield from below(drive.node, drive)
        for node in list(self.named.open.values()):
            yield from below(node, None)

    def device_info(self, node: Any, drive: Any) -> dict[str, Any]:
        """BlockDeviceInfo."""
        from vmrun.backends.block.chain import backing_of
        from vmrun.backends.block.describe import describe
        from vmrun.backends.block.filenames import node_name

        path = node_name(node)
        depth, below = 0, backing_of(node)
        top = below
        while below is not None:
            depth, below = depth + 1, backing_of(below)
        image = describe(path, node)
        at, below = image, top
        while below is not None:
            at["backing-image"] = describe(node_name(below), below)
            at, below = at["backing-image"], backing_of(below)
        cache = {"writeback": drive is None or bool(drive.write_cache), "direct": self._direct(node)}
        said = self.known.get(str(node.name), {})
        lax = said.get("cache", {}).get("no-flush") if isinstance(said.get("cache"), dict) else False
        if str(node.driver).startswith("null-") and isinstance(said.get("cache"), dict):
            cache["direct"] = said["cache"].get("direct") in (True, "on")
        cache["no-flush"] = bool(drive.ignore_flush) if drive is not None else lax in (True, "on")
        zeroes = said.get("detect-zeroes", "off")
        found = {
            **_NONE,
            **_limits(drive),
            "image": image,
            "detect_zeroes": ("off", "on", "unmap")[drive.detect_zeroes] if drive is not None else zeroes,
            "ro": bool(node.readonly) and (said.get("read-only") in (True, "on") or not _lazy(node)),
            "node-name": self.node_name(node),
            "backing_file_depth": depth,
            "drv": str(node.driver),
            "write_threshold": int(node.watched),
            "encrypted": False,
            "cache": cache,
            "file": path,
        }
        if top is not None:
            found["backing_file"] = node_name(top)
        from vmrun.machine.dirtybitmap import of

        rows = [bitmap.info() for bitmap in of(self, node).values()]
        if rows:
            found["dirty-bitmaps"] = rows
        return found

    def filter_info(self, node: Any, drive: Any) -> dict[str, Any] | None:
        """BlockDeviceInfo of the filter above a node that a job's user has named; None: there is none."""
        name, driver = self.filters.get(id(node), ("", ""))
        if not name:
            return None
        below = self.device_info(node, drive)
        image = {key: value for key, value in below["image"].items() if key in _FILTERED}
        image = {**image, "format": driver, "dirty-flag": False, "backing-image": below["image"]}
        row = {**below, "image": image, "node-name": name, "drv": driver, "backing_file_depth": 0}
        return {key: value for key, value in row.items() if key not in ("backing_file", "dirty-bitmaps")}

    def _direct(self, node: Any) -> bool:
        while node is not None:
            if hasattr(node, "align"):
                return bool(node.align > 1)
            node = next((child for role, child in node.children() if role == "file"), None)
        return False

    def block_info(self) -> list[dict[str, Any]]:
        """BlockInfo of each drive."""
        rows = []
        list(self.nodes())
        for id, drive, device in self.drives():
            removable = isinstance(device, Removable) and device.removable
            row: dict[str, Any] = {
                "device": self.public_name(id),
                "locked": bool(getattr(device, "locked", False)) if removable else False,
                "removable": removable or device is None,
                "type": "unknown",
            }
            if device is not None:
                row["qdev"] = qdev(device)
                row["io-status"] = "failed" if drive.has_parked else "ok"
            if removable and device.has_tray:
                row["tray_open"] = device.tray_is_open
            if drive.node is not None:
                row["inserted"] = self.filter_info(drive.node, drive) or self.device_info(drive.node, drive)
            rows.append(row)
        return rows

    def statistics(self, by_node: bool) -> list[dict[str, Any]]:
        """BlockStats of each drive, or of each node."""
        list(self.nodes())
        if by_node:
            return [self._node_stats(node, None) for node, _ in self.nodes()]
        rows = []
        for id, drive, device in self.drives():
            row: dict[str, Any] = {"stats": _stats(drive)}
            row["device"] = self.public_name(id)
            if drive.node is not None:
                row = {**self._node_stats(drive.node, drive), **row}
            if device is not None:
                row["qdev"] = qdev(device)
            rows.append(row)
        return rows

    def _node_stats(self, node: Any, drive: Any) -> dict[str, Any]:
        row: dict[str, Any] = {"stats": _stats(None), "node-name": self.node_name(node)}
        if str(node.driver) in ("file", "host_cdrom", "host_device"):
            row["driver-specific"] = {
                "driver": str(node.driver),
                "discard-nb-ok": 0,
                "discard-nb-failed": 0,
                "discard-bytes-ok": 0,
            }
        from vmrun.backends.block.chain import backing_of

        parent = next((child for role, child in node.children() if role == "file"), None)
        if parent is not None:
            row["parent"] = self._node_stats(parent, None)
        below = backing_of(node)
        if below is not None:
            row["backing"] = self._node_stats(below, None)
        return row


class Quiet:
    """Nothing of the drives is under way within; what their devices submit waits."""

    def __init__(self, drives: list[Any]) -> None:
        self.drives = drives

    def __enter__(self) -> None:
        for drive in self.drives:
            drive.pause()

    def __exit__(self, *exc: object) -> None:
        for drive in self.drives:
            drive.go_on()


def graph(node: Any) -> Iterator[Any]:
    """A node and all below it."""
    yield node
    for _, child in node.children():
        yield from graph(child)


def _limits(drive: Any) -> dict[str, Any]:
    """What BlockDeviceInfo has of a drive's limits."""
    group = getattr(drive, "limits", None)
    if group is None:
        return {}
    known = {f"{name}-max-length": 1 for name in iolimits.RATES if f"{name}-max" in group.limits} | group.limits
    return {"group": group.name, **{name.replace("-", "_"): value for name, value in known.items()}}


def _stats(drive: Any) -> dict[str, Any]:
    """BlockDeviceStats. A node by itself counts nothing: transfers are counted where the guest asks for them."""
    counted = drive.statistics() if drive is not None else {}
    found: dict[str, Any] = {}
    for name, kind in (("rd", "read"), ("wr", "write"), ("unmap", "discard"), ("flush", "flush")):
        count, amount, failures, time = counted.get(kind, (0, 0, 0, 0))
        found[f"{name}_operations" if name in ("flush", "unmap") else f"{name}_operations"] = count - failures
        found[f"failed_{name}_operations"] = failures
        found[f"invalid_{name}_operations"] = 0
        found[f"{name}_total_time_ns"] = time
        if name != "flush":
            found[f"{name}_bytes"] = amount
            found[f"{name}_merged"] = 0
    found["wr_highest_offset"] = 0
    found["account_invalid"] = found["account_failed"] = drive is not None
    found["timed_stats"] = []
    for name, op in (("rd", READ), ("wr", WRITE), ("flush", FLUSH)):
        rows = drive.histogram(op) if drive is not None else None
        if rows is not None:
            found[f"{name}_latency_histogram"] = {"boundaries": rows[0], "bins": rows[1]}
    return found


def blocks(machine: Machine) -> Blocks:
    """The one of this machine."""
    found: Blocks | None = machine.board.blocks
    if found is None:
        found = machine.board.blocks = Blocks(machine)
    return found


def resize(machine: Machine, device: str, node_name: str, size: int) -> None:
    """Another size for an image, and tell the guest."""
    if device and node_name:
        raise BuildError("Device and node name mutually exclusive")
    table = blocks(machine)
    node = table.lookup(device, node_name)
    drive, user = next(((one, shown) for _, one, shown in table.drives() if one.node is node), (None, None))
    if size < 0:
        raise BuildError("Parameter 'size' expects a >0 size")
    if node.driver == "qcow2" and size % 512:
        raise BuildError("The new size must be a multiple of 512")
    if table.busy.get(id(node)) in ("mirror", "backup"):  # they go by the size that they began with
        name, job = table.node_name(node), table.busy[id(node)]
        raise BuildError(f"Node '{name}' is busy: block device is in use by block job: {job}")
    if drive is not None:
        drive.drain()
    else:
        writable(node)
        if node.readonly:
            raise BuildError("Block node is read-only")
    try:
        node.truncate((size + 511) & ~511)
    except OSError as error:
        raise BuildError(os.strerror(error.errno) if error.errno else str(error)) from None
    if drive is not None:
        tell_size(machine, drive, user)


def tell_size(machine: Machine, drive: Any, user: Any) -> None:
    """The drive, and the device that shows it, know of the other size that its image has."""
    drive.resized()
    told = getattr(user, "resized", None)
    if told is not None:
        with machine.board.lock:
            told()


def histograms(machine: Machine, id: str, all: list[int] | None, each: dict[str, list[int] | None]) -> None:
    """How long a device's requests took is counted by these boundaries; without any no more."""
    found = (one for _, one, user in blocks(machine).drives() if user is not None and is_named(user, id))
    drive: Any = next(found, None)
    if drive is None:
        raise BuildError(f"Device '{id}' not found")
    none = all is None and not any(rows is not None for rows in each.values())
    for kind, name in ((READ, "read"), (WRITE, "write"), (FLUSH, "flush")):
        rows = all if each[name] is None else each[name]
        if rows is None and not none:
            continue
        try:
            drive.set_histogram(kind, rows)
        except (ValueError, OverflowError):
            raise BuildError(f"Device '{id}' set {name} boundaries fail") from None


def qdev(device: Any) -> str:
    """What QEMU calls a device that shows a drive: its id, or its path where it has none; block devices of virtio are
    called by the path of what lies behind their proxy.
    """
    if device.driver.startswith("virtio"):
        return f"{device.path}/virtio-backend"
    named = device.parent is not None and device.parent.name == "peripheral"
    return str(device.name if named else device.path)


def is_named(device: Any, name: str) -> bool:
    """Whether `name` is a device's id or its path; that of a virtio device may be its back end's, as QEMU has it."""
    return bool(name) and name in (device.id, device.path, f"{device.path}/virtio-backend")


def limit(machine: Machine, device: str, id: str, limits: dict[str, int], group: str = "") -> None:
    """Other limits for a drive, and for those that share them: names as a machine file has them. Without any it leaves
    its group.
    """
    from vmrun.backends.block import limit_group

    if bool(device) == bool(id):
        raise BuildError("Need exactly one of 'device' and 'id'")
    for name, drive, user in blocks(machine).drives():
        if name == device if device else user is not None and is_named(user, id):
            try:
                wanted = iolimits.checked(limits)
            except ValueError as error:
                raise BuildError(str(error)) from None
            if drive.node is None:
                raise BuildError("Device has no medium")
            if not wanted:
                drive.join(None)
                return
            found = drive.limits
            if found is None or group and found.name != group:
                found = limit_group(machine.board.limit_groups, group or device or id)
                drive.join(found)
            found.set(limits)
            return
    raise BuildError(f"Device '{device or id}' not found")


def _lazy(node: Any) -> bool:
    """Whether it is open for reading only until somebody wants to write."""
    while node is not None:
        below = next((child for role, child in node.children() if role == "file"), None)
        if below is None:
            return bool(node.lazy)
        node = below
    return False


def image_texts(image: dict[str, Any]) -> str:
    """An ImageInfo and those of the images below it, for people."""
    from vmrun.backends.block.people import human

    text, found = "", image
    while found:
        text += human(found)
        found = found.get("backing-image", {})
    return text
