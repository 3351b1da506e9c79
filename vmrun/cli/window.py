"""A window of the host for a machine's screen: the VNC viewer that is installed, for `-display gtk` and `sdl`.

The viewer talks to a server on this host's loopback address that only it knows the password of. When its window is
closed the machine ends, as with QEMU's own window.
"""

from __future__ import annotations

import os
import shutil
import tempfile

from vmrun.errors import BackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from typing import Any

    from vmrun.cli.runner import Runner

VIEWERS = ("remote-viewer", "xtigervncviewer", "vncviewer", "xvnc4viewer")
LOOK = 0.25  # seconds between looks whether it is still there
# The obfuscation of password files: DES with the key that every VNC program has.
KNOWN_KEY = bytes((23, 82, 107, 6, 35, 78, 88, 7))


def find(environ: Any) -> str:
    """The viewer's path. BackendError, with what to do, when there is none or nowhere to show it."""
    other = "see the screen with `-vnc 127.0.0.1:0`, `-display curses`, or `vmrun view NAME` in a browser"
    if not environ.get("DISPLAY") and not environ.get("WAYLAND_DISPLAY"):
        raise BackendError("no window can be opened: neither DISPLAY nor WAYLAND_DISPLAY is set", remedy=other)
    for name in VIEWERS:
        path = shutil.which(name, path=environ.get("PATH"))
        if path:
            return path
    raise BackendError(
        f"no viewer is installed to open a window with ({', '.join(VIEWERS[:3])})",
        remedy=f"apt-get install tigervnc-viewer; or {other}",
    )


class Window:
    """The viewer's process. `close` ends it; the machine ends with it."""

    def __init__(self, runner: Runner, path: str) -> None:
        import subprocess

        from vmrun.ui.vnc import serve

        machine = runner.machine
        self.runner = runner
        self.process: subprocess.Popen[bytes] | None = None
        settings = {"listen": "127.0.0.1:0", "to": 59635, "password": True}
        self.server = serve(settings, machine.name, machine.board, lambda event, data: None)
        password = os.urandom(6).hex()[:8]
        self.server.set_password(password)
        self.directory = tempfile.mkdtemp(prefix="vmrun-window-")
        self.process = subprocess.Popen(
            self._command(path, password), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        machine.loop.call_later(LOOK, self._look)

    def _command(self, path: str, password: str) -> list[str]:
        host, port, _ = self.server.address
        if os.path.basename(path) == "remote-viewer":
            file = self._write("window.vv", f"[virt-viewer]\ntype=vnc\nhost={host}\nport={port}\npassword={password}\n")
            return [path, file]
        from vmrun.ui.vnc.server import cipher

        hidden = cipher(KNOWN_KEY, password.encode().ljust(8, b"\0"))
        return [path, "-passwd", self._write("window.passwd", hidden), "-Shared", f"{host}::{port}"]

    def _write(self, name: str, data: str | bytes) -> str:
        path = os.path.join(self.directory, name)
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        return path

    def _look(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.runner.machine.loop.call_later(LOOK, self._look)
        else:
            self.runner.machine.finish("quit", "host-ui")

    def close(self) -> None:
        process, self.process = self.process, None
        if process is not None and process.poll() is None:
            process.terminate()
            process.wait()
        self.server.close()
        shutil.rmtree(self.directory, ignore_errors=True)
