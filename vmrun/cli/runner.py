"""A machine run by this process, whichever program asks: its signals, the shared terminal, monitors, peers, the end.

`vmrun up` and vmrun-qemu are this with words of their own: they override what is said and what an event means to them.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.machine.machine import Machine, Outcome
    from vmrun.monitor.server import Monitors

    Commands = dict[str, tuple[str, Callable[[], object]]]


class Runner:
    """`run()`: from nothing to the exit code. `machine` is there when build() has returned."""

    escape = 0x01  # Ctrl-A
    announce = True  # which console of the terminal has the keyboard now

    def __init__(self) -> None:
        self.machine: Machine = None  # type: ignore[assignment]
        self.window = ""  # the viewer to open one with
        self._starter = -1  # whose end is this one's, a pidfd
        self._parent = -1  # where a child in the background tells its parent that it is up

    # --- what differs -------------------------------------------------------------------------------------------

    def build(self) -> Machine:
        raise NotImplementedError

    def open_monitors(self, monitors: Monitors) -> None:
        raise NotImplementedError

    def waiting_for(self, peer: Any) -> None:
        """Said before the machine waits for the client of a socket."""
        raise NotImplementedError

    def on_signal(self, number: int) -> None:
        """SIGINT, SIGTERM or SIGHUP, on the main loop."""
        raise NotImplementedError

    def complete(self, monitors: Monitors) -> Machine:
        """The machine, when monitors have nothing to say of it any more."""
        return self.machine

    def ready(self) -> None:
        """All is open and nobody is waited for any more; the guest runs next."""

    def conclude(self, outcome: Outcome) -> int:
        """The exit code."""
        raise NotImplementedError

    def commands(self) -> Commands:
        """The escapes of the shared terminal beyond its own: letter → what it does in words, and in deed."""
        return {"x": ("end the machine and leave", lambda: self.machine.finish("quit", "host-ui"))}

    # --- what does not --------------------------------------------------------------------------------------------

    def run(self) -> int:
        from vmrun.monitor.server import Monitors

        gc.disable()  # nothing that is made before the guest runs is garbage
        # The interpreter's default of 5 ms would let a busy Python thread hold up a device's callback that long.
        sys.setswitchinterval(1e-4)
        monitors = None
        try:
            self.machine = self.build()
            self._signals()
            self._viewers()
            monitors = Monitors(self.machine)
            self.open_monitors(monitors)
            for chardev in self.machine.board.awaited():
                if chardev.peer is None:
                    self.waiting_for(chardev)
                    self.machine.wait_for(chardev, "peer")
            self.machine = self.complete(monitors)
            self.ready()
            gc.freeze()  # what a machine is made of lives as long as it
            gc.enable()
            outcome = self.machine.run()
        finally:
            gc.enable()
            if monitors is not None:
                monitors.close()
            if self.machine is not None:
                for server in self.machine.board.viewers.values():
                    server.close()
                self.machine.close()
        return self.conclude(outcome)

    def _viewers(self) -> None:
        """Open the machine's servers for remote viewers."""
        machine = self.machine
        settings = machine.config.get("vnc") or []
        for server in [settings] if isinstance(settings, dict) else settings:
            self._serve(f"vnc:{server.get('id') or 'default'}", server)
        machine.board.open_page = self._page
        if self.window:
            from vmrun.cli.window import Window

            machine.board.viewers["window"] = Window(self, self.window)

    def _serve(self, kind: str, settings: dict[str, Any]) -> Any:
        from vmrun.ui.vnc import serve

        machine = self.machine
        server = serve(
            settings, machine.name, machine.board, lambda event, data: machine.tell(event, **data), self._press
        )
        machine.board.viewers[kind] = server
        return server

    def _press(self, button: str) -> None:
        """A viewer's finger on one of the machine's buttons: "powerdown" or "reset"."""
        if button == "reset":
            self.machine.press_reset()
        else:
            self.machine.loop.call_soon(self.machine.powerdown)

    def _page(self) -> str:
        """The address of a page that shows the screen once."""
        from vmrun.ui.vnc.page import Page

        viewers = self.machine.board.viewers
        served = [viewers[name] for name in viewers if name.startswith("vnc:")]
        server = served[0] if served else viewers.get("page") or self._serve("page", {"listen": "none"})
        return Page(server).url

    def mux(self, loop: Any, lock: Any) -> Any:
        """The terminal, shared by the machine's consoles: for build(config, mux=self.mux)."""
        from vmrun.backends.chardev.mux import Mux

        return Mux("terminal", loop, lock, self.commands(), escape=self.escape, announce=self.announce)

    # --- in the background ----------------------------------------------------------------------------------------

    def into_background(self) -> int | None:
        """In the parent the exit code, once the child is up or has failed; None in the child."""
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reader)
            os.setsid()
            self._parent = writer
            return None
        os.close(writer)
        up = os.read(reader, 1)
        os.close(reader)
        return 0 if up else os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) or 1

    def leave_terminal(self, output: int = -1) -> None:
        """The child is up: standard streams lead to `output` or nowhere, and the parent returns."""
        if self._parent < 0:
            return
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(output if fd and output >= 0 else null, fd)
        os.close(null)
        os.write(self._parent, b"!")
        os.close(self._parent)
        self._parent = -1

    def end_with_parent(self) -> None:
        """End as by SIGTERM when the process that started this one has gone; one of its threads may go before."""
        self._starter = os.pidfd_open(os.getppid())

    def _signals(self) -> None:
        import _signal as signal  # type: ignore[import-not-found]  # `signal` itself brings enum in: 3 ms

        import vmrun.cli

        def hear(number: int) -> None:
            if vmrun.cli.owns_process:
                # what the loop goes back to: one that comes when the machine has ended says nothing new
                signal.signal(number, signal.SIG_IGN)

            def heard() -> None:
                if self.machine.outcome is None:
                    self.on_signal(number)

            self.machine.loop.add_signal(number, heard)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            hear(number)
        if self._starter >= 0:
            self.machine.loop.add_fd(self._starter, self._parent_has_gone)

    def _parent_has_gone(self) -> None:
        import _signal as signal

        self.machine.loop.remove_fd(self._starter)
        os.close(self._starter)
        self.on_signal(signal.SIGTERM)
