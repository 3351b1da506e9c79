"""What a command of the monitor may raise: a QMP error with QEMU's class."""

from __future__ import annotations

from vmrun.core.values import is_identifier
from vmrun.errors import MonitorError, VmrunError

CLASSES = ("GenericError", "CommandNotFound", "DeviceNotActive", "DeviceNotFound", "KVMMissingCap")


class QmpError(MonitorError):
    """`kind` is one of CLASSES; `desc` is what a client shows."""

    def __init__(self, desc: str, kind: str = "GenericError") -> None:
        super().__init__(desc)
        self.desc, self.kind = desc, kind

    def plain(self) -> dict[str, str]:
        return {"class": self.kind, "desc": self.desc}


def of_fault(error: BaseException) -> QmpError:
    """What a client is told of anything that a command raised: what a user can act on, in its first problem's words;
    the rest is a fault of ours.
    """
    if isinstance(error, QmpError):
        return error
    if isinstance(error, VmrunError) and error.problems:
        return QmpError(error.problems[0].message)
    return QmpError(f"internal error: {type(error).__name__}: {error}")


def no_device(name: str) -> QmpError:
    return QmpError(f"Device '{name}' not found", "DeviceNotFound")


def identifier(text: str) -> str:
    """An id that a client gives to something new. QmpError when it is none."""
    if not is_identifier(text):
        raise QmpError("Parameter 'id' expects an identifier")
    return text
