"""The PC's character set as Unicode: code page 437 with the pictures the screen shows for control codes."""

from __future__ import annotations

_CONTROL = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"

TABLE: tuple[str, ...] = (
    tuple(_CONTROL)
    + tuple(chr(code) for code in range(0x20, 0x7F))
    + ("⌂",)
    + tuple(bytes(range(0x80, 0xFF)).decode("cp437"))
    + (" ",)
)  # 0xff is a blank; the codec calls it a no-break space


def text(characters: bytes) -> str:
    """Screen characters as a string of the same length."""
    return "".join([TABLE[code] for code in characters])
