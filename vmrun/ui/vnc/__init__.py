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
    """A server of a machine (`vnc:` of its file) on its first screen, or that of `display`; a machine without a display
    shows black.

    `board` is the machine's (consoles, input, loop, accelerator, objects). BackendError when it cannot listen.
    """
    from vmrun.core.console import Console
    from vmrun.core.surface import Scanout
    from vmrun.errors import BackendError
    from vmrun.ui.vnc.server import VncServer

    consoles = board.consoles
    if "display" in settings:
        wanted, head = str(settings["display"]), int(settings.get("head") or 0)
        consoles = [each for each in consoles if getattr(each.device, "id", "") == wanted and each.head == head]
        if not consoles:
            raise BackendError(f"vnc: there is no screen {head} on device '{wanted}'", remedy="leave `head` out")
    console = consoles[0] if consoles else Console(None, Scanout(), board.accelerator)
    tls = board.tls({"tls-creds": settings.get("tls-creds"), "server": True})
    anonymous = tls is not None and board.objects.children[str(settings["tls-creds"])].driver == "tls-creds-anon"

    def may_enter(key: str, name: str) -> bool:
        """By the object that `key` names, as it is now; nobody is let in by one that is gone."""
        rule: Any = board.objects.children.get(str(settings.get(key)))
        return not settings.get(key) or rule is not None and bool(rule.allows(name))

    secret: Any = board.objects.children[str(settings["password-secret"])] if settings.get("password-secret") else None
    made = VncServer(
        settings, name, console, board.input, board.loop, board.layout, tell, tls, power, board.clipboard,
        bytes(secret.value) if secret is not None else None, anonymous, may_enter,
    )  # fmt: skip
    if "display" not in settings:
        made.consoles = board.consoles
    return made
