"""What a command of the monitor may raise: a QMP error with QEMU's class."""

from __future__ import annotations

from vmrun.core.values import is_identifier
from vmrun.errors import MonitorError

CLASSES = ("GenericError", "CommandNotFound", "DeviceNotActive", "DeviceNotFound", "KVMMissingCap")


class QmpError(MonitorError):
    """`kind` is one of CLASSES; `desc` is what a client shows."""

    def __init__(self, desc: str, kind: str = "GenericError") -> None:
        super().__init__(desc)
        self.desc, self.kind = desc, kind

    def plain(self) -> dict[str, str]:
        return {"class": self.kind, "desc": self.desc}


def no_device(name: str) -> QmpError:
    return QmpError(f"Device '{name}' not found", "DeviceNotFound")


def identifier(text: str) -> str:
    """An id that a client gives to something new. QmpError when it is none."""
    if not is_identifier(text):
        raise QmpError("Parameter 'id' expects an identifier")
    return text
