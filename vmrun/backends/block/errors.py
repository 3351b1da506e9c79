"""What is said of an image that cannot be used."""

from __future__ import annotations

from vmrun.errors import BackendError


class ImageError(BackendError):
    """An image that cannot be opened, in QEMU's words: `text` without the name before it."""

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text, remedy=remedy)
        self.text = text
