"""Disks of a machine that runs, for NBD clients: nbd-server-start and its kin. BuildError in QEMU's words.

Clients are answered by threads; what they ask goes through a queue like a device's, so that jobs, bitmaps and changes
of the graph know of it.
"""

from __future__ import annotations

import errno
import os
import threading
from time import sleep

from vmrun.errors import BuildError
from vmrun.machine.blocks import blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    from vmrun.machine.machine import Machine


REST = 0.1  # seconds between two attempts


class LiveDisk:
    """A node in use, as Export wants it. `through`: what is written is on the disk before it is answered."""

    def __init__(self, machine: Machine, node: Any, through: bool) -> None:
        from vmrun.backends.block import queue

        self.through, self.gone = through, False
        table = blocks(machine)
        self.drive: Any = queue(node.hold())
        self.drive.replace(node, table.taps.get(id(node)))
        self.size = node.size
        table.queues.append(self.drive)

    def look(self, offset: int, count: int) -> tuple[int, bool, bool]:
        """As vmrun.backends.block.chain.seen."""
        from vmrun.backends.block.chain import seen

        found: tuple[int, bool, bool] = self._chain(seen, offset, count)
        return found

    def deep(self, offset: int, count: int) -> tuple[int, int]:
        """As vmrun.backends.block.chain.deep."""
        from vmrun.backends.block.chain import deep

        found: tuple[int, int] = self._chain(deep, offset, count)
        return found

    def _chain(self, ask: Callable[[Any, int, int], Any], offset: int, count: int) -> Any:
        node = self.drive.node.hold()  # whatever takes its place meanwhile
        try:
            return ask(node, offset, count)
        finally:
            node.close()

    def _ask(self, op: int, offset: int = 0, count: int = 0, data: bytes | None = None) -> bytes:
        from vmrun.backends.block.caller import Caller

        if self.gone:
            raise OSError(errno.ESHUTDOWN, os.strerror(errno.ESHUTDOWN))
        caller = Caller(self.drive)
        caller.submit(op, offset, count, data)
        _, error, found = caller.wait()
        if error:
            raise OSError(error, os.strerror(error))
        return bytes(found)

    def read(self, offset: int, count: int) -> bytes:
        return self._ask(0, offset, count)

    def write(self, offset: int, data: bytes) -> None:
        self._ask(1, offset, 0, data)
        self._settle()

    def _settle(self) -> None:
        if self.through:
            self.sync()

    def sync(self) -> None:
        self._ask(2)

    def trim(self, offset: int, count: int) -> None:
        self._ask(3, offset, count)
        self._settle()

    def write_zeroes(self, offset: int, count: int, unmap: bool) -> None:
        self._ask(4, offset, count)
        self._settle()


class Server:
    """`exports`: by the names that clients say; `ids`: id → (name, its export)."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.exports: dict[str, Any] = {}
        self.ids: dict[str, tuple[str, Any, Any]] = {}
        self.bitmaps: dict[str, list[Any]] = {}  # those that clients may ask of, by the export's id
        self.listener: socket.socket | None = None
        self.path = ""
        self.clients: set[socket.socket] = set()
        self.most = 0
        self.tls: Any = None
        self.left = threading.Condition()  # a client has, or the server is over

    def start(self, address: dict[str, Any], most: int, creds: str = "", authz: str = "") -> None:
        """`creds`, `authz`: ids of objects; clients must speak TLS then."""
        import socket

        from vmrun.backends.block.nbd_server import listener
        from vmrun.backends.chardev.sockets import bind

        if self.listener is not None:
            raise BuildError("NBD server already running")
        if authz and not creds:
            raise BuildError("tls-authz is of no use without tls-creds")
        self.tls = self.machine.board.tls({"tls-creds": creds, "tls-authz": authz, "server": True})
        kind, data = address["type"], address.get("data", address)
        try:
            if kind == "unix":
                self.listener = socket.socket(socket.AF_UNIX)
                bind(self.listener, socket.AF_UNIX, data["path"])
                self.path = os.path.abspath(data["path"])
                self.listener.listen(16)
            elif kind == "inet":
                self.listener = listener(data["host"], int(data["port"]))
            else:
                raise BuildError(f"an NBD server listens on unix or inet, not on {kind}")
        except (OSError, ValueError, OverflowError) as error:
            if self.listener is not None:
                self.listener.close()
                self.listener = None
            where = data.get("path") or f"{data.get('host')}:{data.get('port')}"
            raise BuildError(
                f"Failed to bind socket to {where}: {getattr(error, 'strerror', None) or error}"
            ) from None
        self.most = most
        self.machine.works.append(self)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True, name="nbd").start()

    def _accept(self, listener: socket.socket) -> None:
        from vmrun.backends.block.nbd_server import Export

        while True:
            with self.left:  # who comes now waits in the socket's queue
                self.left.wait_for(
                    lambda: self.listener is not listener or not self.most or len(self.clients) < self.most
                )
            try:
                client, _ = listener.accept()
            except OSError:
                if self.listener is not listener:
                    return
                sleep(REST)  # no descriptors: who came waits
                continue
            if self.listener is not listener:
                client.close()
                return
            self.clients.add(client)
            if self.listener is not listener:  # stopped meanwhile: nobody else closes it
                self.clients.discard(client)
                client.close()
                return
            first = Export(_Nobody, "", True, self.exports, tls=self.tls)
            threading.Thread(target=self._talk, args=(first, client), daemon=True, name="nbd client").start()

    def _talk(self, export: Any, client: socket.socket) -> None:
        try:
            export.talk(client)
        finally:
            with self.left:
                self.clients.discard(client)
                self.left.notify_all()

    def add(
        self,
        id: str,
        node_name: str,
        name: str,
        writable: bool,
        bitmaps: list[Any] | None = None,
        through: bool = False,
        description: str = "",
        depth: bool = False,
    ) -> None:
        """`bitmaps`: names of the node's or of a node below it, or {node, name}. `through`: see LiveDisk. `depth`:
        clients may ask which image of the chain has what.
        """
        from vmrun.backends.block.nbd_server import Export
        from vmrun.machine import handover
        from vmrun.machine.blockops import writable as make_writable

        if self.listener is None:
            raise BuildError("NBD server not running")
        if id in self.ids:
            raise BuildError(f"Block export id '{id}' is already in use")
        if len(name) > 4096:
            raise BuildError(f"export name '{name}' too long")
        if len(description) > 4096:
            raise BuildError(f"description '{description}' too long")
        if name in self.exports:
            raise BuildError(f"NBD server already has export named '{name}'")
        node, _ = blocks(self.machine).find(node_name)
        shown = {one.name: one for one in (self._bitmap(node, wanted) for wanted in bitmaps or ())}
        for bitmap in shown.values():
            if not writable and bitmap.bits.enabled and not bitmap.node.readonly and bitmap.node is node:
                raise BuildError(f"Enabled bitmap '{bitmap.name}' incompatible with readonly export")
            if bitmap.bits.size != node.size:
                raise BuildError(f"Bitmap '{bitmap.name}' is of another size than the export")
        if writable:
            if node.readonly and not node.lazy:
                raise BuildError("Cannot export read-only node as writable")
            make_writable(node)
            handover.take_one(node)
        disk = LiveDisk(self.machine, node, through)
        self.ids[id] = (name, disk, node)
        for bitmap in shown.values():
            bitmap.busy = True
        self.bitmaps[id] = list(shown.values())
        self.exports[name] = export = Export(
            disk, name, not writable, self.exports, {one.name: one.bits for one in shown.values()}, disk.look
        )
        export.alone = self.most == 1
        export.description = description
        if depth:
            export.depth = disk.deep

    def _bitmap(self, node: Any, wanted: Any) -> Any:
        from vmrun.backends.block.chain import backing_of
        from vmrun.machine import bitmaps, dirtybitmap

        if not isinstance(wanted, str):
            return bitmaps.usable(bitmaps.find(self.machine, wanted["node"], wanted["name"]))
        while node is not None:
            found = dirtybitmap.of(blocks(self.machine), node).get(wanted)
            if found is not None:
                return bitmaps.usable(bitmaps.find(self.machine, node.name, wanted))
            node = backing_of(node)
        raise BuildError(f"Bitmap '{wanted}' is not found")

    def remove(self, id: str, hard: bool = False) -> None:
        """`hard`: clients that use it are sent away; else it is an error that there are any."""
        import socket

        if id not in self.ids:
            raise BuildError(f"Export '{id}' is not found")
        clients = list(self.exports[self.ids[id][0]].clients)
        if clients and not hard:
            raise BuildError(f"export '{id}' still in use", remedy="mode=hard sends its clients away")
        name, disk, _ = self.ids.pop(id)
        del self.exports[name]
        disk.gone = True
        for client in clients:
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for bitmap in self.bitmaps.pop(id):
            bitmap.busy = False
        blocks(self.machine).queues.remove(disk.drive)
        disk.drive.close()
        self.machine.tell("BLOCK_EXPORT_DELETED", id=id)

    def stop(self) -> None:
        import socket

        if self.listener is None:
            raise BuildError("NBD server not running")
        with self.left:
            listener, self.listener = self.listener, None
            self.left.notify_all()
        self.machine.works.remove(self)
        for open_one in (listener, *self.clients):
            try:
                open_one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        listener.close()
        if self.path:
            try:
                os.unlink(self.path)
            except OSError:
                pass
            self.path = ""
        for id in list(self.ids):
            self.remove(id, hard=True)

    def end(self) -> None:
        """The machine's end (machine.works)."""
        if self.listener is not None:
            self.stop()


class _Nobody:
    size = 0


def server(machine: Machine) -> Server:
    found: Server | None = machine.board.nbd
    if found is None:
        found = machine.board.nbd = Server(machine)
    return found
