"""The monitors of one machine: who is connected, over what, and what each is told.

    monitors = Monitors(machine)
    monitors.listen({"path": "/run/user/1000/vmrun/lab.4711.qmp"})          # QMP for any number of clients
    monitors.open("mon0", "readline")                                       # a person's, on a chardev of the machine's

All of them are front ends of character back ends, as devices are (vmrun.monitor.port): whatever a serial port can be
on, a monitor can. A server socket of a monitor takes any number of clients.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.backends.chardev.socket import Given
    from vmrun.machine.machine import Machine
    from vmrun.monitor.port import Port

    Send = Callable[[bytes], object]


class Monitors:
    """Makes sessions and hands them the machine's events. Lives as long as the machine's loop."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.qmp: dict[int, Any] = {}
        self.debuggers: dict[int, Any] = {}
        self.ports: set[Port] = set()
        self.qtest_log: Callable[[str], object] | None = None
        self._own: list[Any] = []  # chardevs that are not the machine's
        self._gdb: Any = None  # that a person has opened
        machine.monitors = self
        machine.listen(self._on_event)

    def open(self, id: str, kind: str, given: Given | None = None) -> Any:
        """A monitor on a chardev of the machine's, which is returned. BackendError says what is in the way. `given`: it
        listens or is connected already.
        """
        board = self.machine.board
        chardev = board.chardev(id, many=True, given=given)
        board.listened.add(id)
        self.serve(chardev, kind)
        return chardev

    def listen(self, spec: dict[str, Any], kind: str = "control") -> Any:
        """A server on a socket of its own (vmrun.backends.chardev.sockets), whose chardev is returned. BackendError."""
        return self.reach({"server": True, "wait": False, **spec}, kind)

    def reach(self, spec: dict[str, Any], kind: str = "control") -> Any:
        """As the client of a server that waits for us; with `reconnect`, seconds, it may come later. BackendError."""
        from vmrun.backends.chardev.socket import open_socket

        chardev = open_socket("monitor", spec, self.machine.loop, self.machine.board.lock, many=True)
        self._own.append(chardev)
        self.serve(chardev, kind)
        return chardev

    def serve(self, chardev: Any, kind: str) -> None:
        """A monitor on a character back end, or one for each of its clients."""
        if hasattr(chardev, "serve"):
            chardev.serve(lambda peer: self._port(peer, kind))
        else:
            self._port(chardev, kind)

    def open_gdb(self, spec: dict[str, Any]) -> None:
        """A port for gdb, instead of the one that was opened so before. BackendError."""
        self.close_gdb()
        self._gdb = self.listen(spec, "gdb")

    def turn_to(self, machine: Machine) -> None:
        """All sessions go on with another machine, on the same board."""
        self.machine = machine
        machine.monitors = self
        for port in self.ports:
            if port.session is not None:
                port.session.machine = machine

    def close_gdb(self) -> None:
        if self._gdb is not None:
            self._gdb.close()
            self._own.remove(self._gdb)
            self._gdb = None

    # --- sessions -----------------------------------------------------------------------------------------------

    def _port(self, chardev: Any, kind: str) -> None:
        machine = self.machine
        from vmrun.monitor.port import Port

        greet = kind == "readline"
        if not greet and hasattr(chardev, "set_echo"):
            chardev.set_echo(True)
        # those whose connection never came to a conversation
        self.ports = {port for port in self.ports if not getattr(port.chardev, "closed", False)}

        def make(port: Port) -> Any:
            return self.session(kind, port.send, port)

        self.ports.add(Port(machine.loop, machine.board.lock, chardev, make, self._gone, greet=greet))

    def _gone(self, port: Port) -> None:
        self.forget(port)
        if getattr(port.chardev, "closed", False):
            self.ports.discard(port)

    def session(self, kind: str, send: Send, client: Any = None) -> Any:
        """`kind`: control (QMP), pretty (QMP in lines), readline (a person's), plain (no prompt, no echo), qtest, gdb
        (gdb's remote protocol).
        """
        if kind in ("control", "pretty"):
            from vmrun.monitor.qmp import QmpSession

            greeted = client is not None and client.greeted
            made = QmpSession(self.machine, send, kind == "pretty", client, greeted)
            if client is not None:
                made.on_idle, made.full = client.look, client.full
            self.qmp[id(client if client is not None else made)] = made
            return made
        if kind == "gdb":
            from vmrun.monitor.gdb import GdbSession

            debugger = GdbSession(self.machine, send, client)
            self.debuggers[id(client if client is not None else debugger)] = debugger
            return debugger
        if kind == "qtest":
            from vmrun.monitor.qtest import QtestSession

            return QtestSession(self.machine, send, self.qtest_log)
        from vmrun.monitor.readline import LineMonitor

        line = LineMonitor(self.machine, send, self, client, echo=kind == "readline")
        if client is not None:
            line.on_idle, line.full = client.look, client.full
        return line

    def forget(self, key: Any) -> None:
        session = self.qmp.pop(id(key), None) or self.debuggers.pop(id(key), None)
        if session is not None:
            session.close()

    # --- events -------------------------------------------------------------------------------------------------

    def _on_event(self, name: str, /, **data: Any) -> None:
        if not self.qmp:
            return
        from vmrun.monitor import table
        from vmrun.monitor.events import encode

        if name not in table.events and not table.whole:
            table.load()  # it may be of an area whose commands nobody has used yet
        if name in table.events:
            line = encode(name, data)
            for session in list(self.qmp.values()):
                session.event(line)

    def close(self) -> None:
        for port in list(self.ports):
            port.close()
        self.ports.clear()
        for chardev in self._own:
            chardev.close()
        self._own.clear()
        for session in self.qmp.values():
            session.close()
        self.qmp.clear()
