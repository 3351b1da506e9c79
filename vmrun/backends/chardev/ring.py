"""A ringbuf with a log file: what the device writes is kept in memory and goes to the file."""

from __future__ import annotations

from vmrun.backends.chardev.stream import StreamChar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from accel.api import DeviceLock

    from vmrun.core.loop import Loop


class LoggedRing(StreamChar):
    """The last `size` bytes of output, as of a RingChar; the device lock guards them."""

    def __init__(self, name: str, size: int, loop: Loop, lock: DeviceLock) -> None:
        super().__init__(name, loop, lock)
        self.size = size
        self.kept = bytearray()

    def note(self, data: bytes) -> None:
        super().note(data)
        self.kept += data
        del self.kept[: -self.size]

    def take(self, count: int) -> bytes:
        """The oldest bytes, taken out. With the device lock held."""
        found = self.text()[:count]
        del self.kept[: len(found)]
        return found

    def text(self) -> bytes:
        """All that is kept, left in place. With the device lock held."""
        while self.drain():
            pass
        return bytes(self.kept)
