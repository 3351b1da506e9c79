"""vmrun: a virtual PC whose hardware is declared in versioned files.

    >>> import vmrun
    >>> vmrun.validate("schema: vmrun/machine/1\\nmachine: rhel6.3.0\\n")
    []
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.api import validate

__all__ = ["validate"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`validate` is imported when it is asked for: starting a machine does not need it."""
    if name == "validate":
        from vmrun.config.api import validate

        return validate
    raise AttributeError(f"module 'vmrun' has no attribute '{name}'")
