"""The text screen of a VGA as characters: what `vmrun up --screen` shows and tests read.

Ref: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem": CR01, CR07, CR09-CR0F,
CR12, CR13, GR06.
Not modelled: fonts, 9th dot, line compare, panning, underline; colours stay numbers of the attribute byte.
"""

from __future__ import annotations

from vmrun.core.textmode import Screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from accel.api import DeviceLock

    from vmrun.devices.display.vga import Vga

TEXT, GRAPHICS, BLANK = "text", "graphics", "blank"
MOST_CELLS = 32768  # of a screen; more than 32 KiB of characters cannot be in the window


class TextScreen:
    """Reads a VGA's video memory as its CRT controller would."""

    def __init__(self, vga: Vga, lock: DeviceLock) -> None:
        self.vga = vga
        self.lock = lock

    def snapshot(self) -> Screen:
        """The screen now. Takes the device lock for some microseconds."""
        with self.lock:
            return self._read()

    def _read(self) -> Screen:
        vga = self.vga
        if vga.vbe_enabled:
            width, height, *_ = vga.vbe_mode
            return Screen(GRAPHICS, width=width, height=height)
        if vga.blank:
            return Screen(BLANK)
        registers = vga.registers()
        cr, gr, ar = registers["cr"], registers["gr"], registers["ar"]
        columns = cr[0x01] + 1
        scan_lines = (cr[0x12] | (cr[0x07] & 0x02) << 7 | (cr[0x07] & 0x40) << 3) + 1
        if gr[6] & 1:
            return Screen(GRAPHICS, width=columns * 8, height=scan_lines)
        count = scan_lines // ((cr[0x09] & 0x1F) + 1)
        if count == 0 or columns * count > MOST_CELLS:
            return Screen(BLANK)
        start = cr[0x0C] << 8 | cr[0x0D]
        pitch = cr[0x13] * 2
        rows = tuple(self._row(start + pitch * row, columns) for row in range(count))
        cursor = _cursor(cr, start, pitch, columns, count)
        return Screen(TEXT, columns, rows, cursor, blink=bool(ar[0x10] & 8))

    def _row(self, first: int, columns: int) -> bytes:
        """`columns` cells from cell `first`; the character is in plane 0, its attribute in plane 1."""
        out = bytearray(2 * columns)
        done = 0
        while done < columns:
            cell = (first + done) & 0xFFFF  # the address counter has 16 bits
            part = min(columns - done, 0x10000 - cell)
            data = self.vga.vram.read(4 * cell, 4 * part)
            out[2 * done : 2 * (done + part) : 2] = data[0::4]
            out[2 * done + 1 : 2 * (done + part) : 2] = data[1::4]
            done += part
        return bytes(out)


def _cursor(cr: bytes, start: int, pitch: int, columns: int, count: int) -> tuple[int, int] | None:
    first, last = cr[0x0A] & 0x1F, cr[0x0B] & 0x1F
    if cr[0x0A] & 0x20 or first > last or pitch == 0:
        return None
    row, column = divmod(((cr[0x0E] << 8 | cr[0x0F]) - start) & 0xFFFF, pitch)
    return (row, column) if row < count and column < columns else None
