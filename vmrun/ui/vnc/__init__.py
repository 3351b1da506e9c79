"""The VNC server: the machine's screen and input for remote viewers, by the remote framebuffer protocol."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.ui.vnc.server import VncServer


def serve(
    settings: dict[str, Any],
    name: str,
    board: Any,
    tell: Callable[[str, dict[str, Any]], object],
    power: Callable[[str], object] | None = None,
) -> VncServer:
    """The server of a machine (`vnc:` of its file) on its first screen; a machine without a display shows black.

    `board` is the machine's (consoles, input, loop, accelerator). BackendError when it cannot listen.
    """
    from vmrun.core.console import Console
    from vmrun.core.surface import Scanout
    from vmrun.ui.vnc.server import VncServer

    console = board.consoles[0] if board.consoles else Console(None, Scanout(), board.accelerator)
    tls = board.tls({"tls-creds": settings.get("tls-creds"), "server": True})
    return VncServer(settings, name, console, board.input, board.loop, board.layout, tell, tls, power)
