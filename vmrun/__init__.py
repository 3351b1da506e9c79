"""vmrun: a virtual PC whose hardware is declared in versioned files.

    >>> import vmrun
    >>> vmrun.validate("schema: vmrun/machine/1\\nmachine: rhel6.3.0\\n")
    []
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.api import validate
    from vmrun.handle import AsyncMachine, Machine, WaitFailed

__all__ = ["AsyncMachine", "Machine", "WaitFailed", "validate"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """These are imported when they are asked for: starting a machine does not need them."""
    if name == "validate":
        from vmrun.config.api import validate

        return validate
    if name in ("AsyncMachine", "Machine", "WaitFailed"):
        import vmrun.handle

        return getattr(vmrun.handle, name)
    raise AttributeError(f"module 'vmrun' has no attribute '{name}'")
