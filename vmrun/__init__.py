"""vmrun: a virtual PC whose hardware is declared in versioned files.

    >>> import vmrun
    >>> vmrun.validate("schema: vmrun/machine/1\\nmachine: rhel6.3.0\\n")
    []
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.api import validate
    from vmrun.conversation import WaitFailed
    from vmrun.errors import MonitorError, VmrunError
    from vmrun.handle import AsyncMachine, Machine

__all__ = ["AsyncMachine", "Machine", "MonitorError", "VmrunError", "WaitFailed", "validate"]
__version__ = "0.1.0"


_PLACES = {
    "validate": "config.api", "AsyncMachine": "handle", "Machine": "handle", "WaitFailed": "conversation",
    "MonitorError": "errors", "VmrunError": "errors",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """These are imported when they are asked for: starting a machine does not need them."""
    if name not in _PLACES:
        raise AttributeError(f"module 'vmrun' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"vmrun.{_PLACES[name]}"), name)
