"""The monitors of one machine: who is connected, over what, and what each is told.

    monitors = Monitors(machine)
    monitors.listen({"path": "/run/user/1000/vmrun/lab.4711.qmp"})          # QMP for any number of clients
    monitors.on_chardev(machine.board.chardev("mon0"), "readline")          # a person's, on a serial console's terminal
"""

from __future__ import annotations

from vmrun.errors import BackendError
from vmrun.monitor.transport import BUSY, LIMIT, Client, Listener, adopt, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.machine.machine import Machine
    from vmrun.monitor.early import Listening

    Send = Callable[[bytes], object]

# what of a socket is the chardev's to do, which then has one client at a time
THROUGH_CHARDEV = ("telnet", "mux", "websocket", "tls-creds", "abstract", "logfile")
CLOSED, OPENED = 0, 1  # CHAR_EVENT_… of vmrun.backends.protocols


class Monitors:
    """Makes sessions and hands them the machine's events. Lives as long as the machine's loop."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.qmp: dict[int, Any] = {}
        self.greeted: set[int] = set()  # descriptors of clients that have QMP's greeting already
        self.debuggers: dict[int, Any] = {}
        self.listeners: list[Listener] = []
        self.clients: set[Client] = set()
        self.terminal: Any = None
        self.qtest_log: Callable[[str], object] | None = None
        self._ports: list[_Port] = []
        self._gdb: Listener | None = None  # that a person has opened
        machine.monitors = self
        machine.listen(self._on_event)

    def open(self, id: str, kind: str, spec: dict[str, Any], early: Listening | None = None) -> Listener | None:
        """A monitor on a chardev of the machine file. A server socket takes any number of clients, and is returned if
        the machine shall wait for the first. BackendError says what is in the way. `early`: it listens already.
        """
        self.machine.board.listened.add(id)
        try:
            if spec["type"] == "socket" and not any(spec.get(name) for name in THROUGH_CHARDEV):
                if not spec.get("server"):
                    self.reach(spec, kind)
                    return None
                listener = self.listen(spec, kind, early)
                return listener if spec.get("wait", True) else None
        except OSError as error:
            where = spec.get("path") or f"{spec.get('host') or ''}:{spec.get('port')}"
            raise BackendError(f"chardev '{id}': no monitor on {where}: {error.strerror}") from None
        if spec["type"] == "stdio" and self.machine.board.mux is None and not spec.get("mux"):
            from vmrun.backends.chardev.terminal import Terminal

            self.terminal = Terminal(0, 1, bool(spec.get("signal", True)))
            if kind == "readline":
                self.terminal.enter()
            self.on_descriptors(0, self.terminal.write_fd, kind)
        else:
            self.on_chardev(self.machine.board.chardev(id), kind)
        return None

    # --- where they are ---------------------------------------------------------------------------------------

    def listen(self, spec: dict[str, Any], kind: str = "control", early: Listening | None = None) -> Listener:
        """A server on `path`, or `host` and `port`. OSError when the address cannot be had."""
        def make(client: Client) -> Any:
            return self.session(kind, client.send, client)

        given = (early.socket, early.address, early.path) if early is not None else None
        listener = Listener(self.machine.loop, spec, make, self.forget, early=given)
        self.listeners.append(listener)
        for fd in early.clients if early is not None else ():
            listener.take(fd)
        return listener

    def open_gdb(self, spec: dict[str, Any]) -> None:
        """A port for gdb, instead of the one that was opened so before. OSError."""
        self.close_gdb()
        self._gdb = self.listen(spec, "gdb")

    def close_gdb(self) -> None:
        if self._gdb is not None:
            self._gdb.close()
            self.listeners.remove(self._gdb)
            self._gdb = None

    def connect(self, spec: dict[str, Any], kind: str = "control") -> Client:
        """As the client of a server that waits for us. OSError when it does not. `reconnect`: seconds."""
        return self.adopt(connect(spec), spec, kind)

    def reach(self, spec: dict[str, Any], kind: str) -> None:
        """As connect; with `reconnect` a server may come later."""
        try:
            self.connect(spec, kind)
        except OSError:
            if not spec.get("reconnect"):
                raise
            self.machine.loop.call_later(float(spec["reconnect"]), lambda: self.reach(spec, kind))

    def adopt(self, fd: int, spec: dict[str, Any], kind: str) -> Client:
        """On a connected descriptor, which is the monitor's from now on."""

        def gone(client: Client) -> None:
            self._gone(client)
            if spec.get("reconnect"):
                self.machine.loop.call_later(float(spec["reconnect"]), lambda: self.reach(spec, kind))

        client = adopt(self.machine.loop, fd, lambda client: self.session(kind, client.send, client), gone)
        self.clients.add(client)
        return client

    def on_descriptors(self, read_fd: int, write_fd: int, kind: str) -> Client:
        """On descriptors that stay the caller's, such as standard input and output."""
        client = Client(
            self.machine.loop,
            read_fd,
            write_fd,
            lambda client: self.session(kind, client.send, client),
            self._gone,
        )
        self.clients.add(client)
        return client

    def on_chardev(self, chardev: Any, kind: str) -> None:
        """On a character back end: a terminal shared with a serial port, a pty, a file."""
        self._ports.append(_Port(self, chardev, kind))

    # --- sessions -----------------------------------------------------------------------------------------------

    def session(self, kind: str, send: Send, client: Any = None) -> Any:
        """`kind`: control (QMP), pretty (QMP in lines), readline (a person's), plain (no prompt, no echo), qtest, gdb
        (gdb's remote protocol).
        """
        if kind in ("control", "pretty"):
            from vmrun.monitor.qmp import QmpSession

            greeted = client is not None and getattr(client, "write_fd", -1) in self.greeted
            if greeted:
                self.greeted.discard(client.write_fd)
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

    def _gone(self, client: Client) -> None:
        self.clients.discard(client)
        self.forget(client)

    # --- events -------------------------------------------------------------------------------------------------

    def _on_event(self, name: str, **data: Any) -> None:
        if not self.qmp:
            return
        from vmrun.monitor.events import encode
        from vmrun.monitor.table import events

        if name in events:
            line = encode(name, data)
            for session in list(self.qmp.values()):
                session.event(line)

    def close(self) -> None:
        for client in list(self.clients):
            client.flush()
            client.close()
        for listener in self.listeners:
            listener.close()
        self.listeners.clear()
        for session in self.qmp.values():
            session.close()
        self.qmp.clear()
        if self.terminal is not None:
            self.terminal.close()


class _Port:
    """A session behind a character back end, whose ring takes 64 KiB at a time. Past BUSY bytes that nobody takes, or
    in a long command, no input is taken; past LIMIT bytes of events the conversation is over.
    """

    def __init__(self, monitors: Monitors, chardev: Any, kind: str) -> None:
        from vmrun.backends.chardev.base import PyFrontend

        self.monitors, self.chardev, self.kind = monitors, chardev, kind
        self.loop = monitors.machine.loop
        self.pending = b""
        self.input: list[bytes] = []
        self.session: Any = None
        self.starved = False  # input waits for room
        chardev.frontend = PyFrontend(self._receive, self._room, self._event)
        if kind == "readline" and hasattr(chardev, "on_focus"):
            # behind a shared terminal a person is greeted when he turns to the monitor
            chardev.on_focus = self._focus
        self.loop.call_soon(self._open)

    def _open(self) -> None:
        turned = self.kind != "readline" or getattr(self.chardev, "focused", True)
        if turned and self.session is None and getattr(self.chardev, "connected", True):
            self.session = self.monitors.session(self.kind, self.send, self)

    def _focus(self) -> None:
        if self.session is None:
            self._open()
        else:
            self.session.prompt()

    def send(self, data: bytes) -> None:
        self.pending += data
        self._pump()
        if len(self.pending) > LIMIT:
            self._over()

    def _over(self) -> None:
        self.monitors.forget(self)
        self.session = None
        self.pending = b""
        self.input.clear()

    def _pump(self) -> None:
        with self.monitors.machine.board.lock:
            count = self.chardev.write(self.pending)
        self.pending = self.pending[count:]
        self.look()

    def _drain(self) -> None:
        """The back end takes more."""
        self._pump()
        if not self.full() and hasattr(self.session, "resume"):
            self.session.resume()

    def full(self) -> bool:
        """So much waits for the peer that nothing more should be answered."""
        return len(self.pending) > BUSY

    def look(self) -> None:
        """Take input again that had to wait."""
        if self.starved and self._room():
            self.starved = False
            with self.monitors.machine.board.lock:
                self.chardev.accept_input()

    # These are called with the device lock held, which a command may want to take.

    def _room(self) -> int:
        if self.input or self.full() or getattr(self.session, "busy", False):
            self.starved = True
            return 0
        return 4096

    def _receive(self, data: bytes) -> None:
        self.input.append(data)
        self.loop.call_soon(self._feed)

    def _feed(self) -> None:
        data = b"".join(self.input)
        self.input.clear()
        if data and self.session is not None:
            self.session.feed(data)
        self.look()

    def _event(self, what: int) -> None:
        if what == OPENED:
            self.loop.call_soon(self._open)
        elif what == CLOSED:
            self._over()
        elif self.pending:
            self.loop.call_soon(self._drain)
