"""What the machine shows."""

from __future__ import annotations

from vmrun.core.cp437 import text
from vmrun.monitor.errors import QmpError, no_device
from vmrun.monitor.image import FORMATS, encode
from vmrun.monitor.table import command, enums, struct
from vmrun.monitor.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

enums["ImageFormat"] = FORMATS
enums["X-ScreenMode"] = ("text", "graphics", "blank", "none")
struct(
    "X-Screen",
    mode="X-ScreenMode",
    width="int",
    height="int",
    rows="[str]",
    attributes="[str]",
    cursor_="[int]",
    font_="str",
    print_="int",
)


_spare: list[bytearray] = []  # what the last screenshot was put together in: at most one


def console_of(machine: Any, device: str, head: int | None) -> Any:
    """The screen of `device`, or the first one. QmpError when there is none."""
    consoles = machine.board.consoles
    terminal = next((console for console in consoles if device and getattr(console, "name", "") == device), None)
    if terminal is not None:
        return terminal
    if device and device not in machine.devices:
        raise no_device(device)
    if device:
        wanted = head or 0
        consoles = [one for one in consoles if getattr(one.device, "id", "") == device and one.head == wanted]
        if not consoles:
            raise QmpError(f"Device {device} (head {wanted}) is not bound to a QemuConsole")
    elif head is not None:
        raise QmpError("'head' must be specified together with 'device'")
    elif not consoles:
        raise QmpError("There is no console to take a screendump from")
    return consoles[0]


@command("screendump", {"filename": "str", "device?": "str", "head?": "int", "format?": "ImageFormat"})
def screendump(
    monitor: Any, filename: str, device: str = "", head: int | None = None, format: str = "ppm"
) -> Work:
    """Write the screen to a file of the host, as PPM, PNG or JPEG. `device`: an adapter, or a chardev of type vc."""
    console = console_of(monitor.machine, device, head)
    console.refresh()
    width, height = console.surface.width, console.surface.height
    pixels = console.surface.rgb(_spare.pop() if _spare else None)

    def write(work: Work) -> None:
        try:
            parts = encode(width, height, pixels, format)
        except ImportError:
            raise QmpError("JPEG needs the Python package Pillow (vmrun's extra `vnc`)") from None
        try:
            with open(filename, "wb") as file:
                file.writelines(parts)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", "") or str(error)
            raise QmpError(f"failed to open file '{filename}': {why}") from None
        _spare[:] = [pixels]

    return Work(monitor.machine, write)


@command("x-query-screen", {"device?": "str", "head?": "int"}, "X-Screen")
def query_screen(monitor: Any, device: str = "", head: int | None = None) -> Any:
    """The screen as text. A text screen is read from video memory: rows as Unicode, attribute bytes of each row in
    hex, the cursor's row and column while it is shown, width and height in cells. A graphics screen is read by the
    glyphs of the guest's own fonts: rows, in `font`, while there is text; U+FFFD is a cell that is no character; width
    and height in pixels, and `print`, which is another when the picture is. vmrun's own.
    """
    if not monitor.machine.board.consoles:
        return {"mode": "none", "width": 0, "height": 0, "rows": [], "attributes": []}
    console = console_of(monitor.machine, device, head)
    screen = console.characters()
    if screen is None or screen.mode != "text":
        return _graphics(monitor.machine, console, "graphics" if screen is None else screen.mode)
    found: dict[str, Any] = {
        "mode": "text",
        "width": screen.columns,
        "height": len(screen.rows),
        "rows": [text(row[0::2]) for row in screen.rows],
        "attributes": [bytes(row[1::2]).hex() for row in screen.rows],
    }
    if screen.cursor is not None:
        found["cursor"] = list(screen.cursor)
    return found


def _graphics(machine: Any, console: Any, mode: str) -> Any:
    """A picture; its text is read on a thread of its own: a font may have to be looked for in all guest memory."""
    console.refresh()
    surface = console.surface
    width, height = surface.width, surface.height
    found: dict[str, Any] = {"mode": mode, "width": width, "height": height, "rows": [], "attributes": []}
    if mode != "graphics":
        return found
    board = machine.board
    if board.reader is None:
        from vmrun.core.fonts import LOW, LOW_SIZE, PictureReader

        def low() -> bytes:
            with board.lock:
                data: bytes = board.memory.read_bytes(LOW, LOW_SIZE)
            return data

        board.reader = PictureReader(low, lambda: [board.ram])
    pixels = surface.rectangle(0, 0, width, height)

    def read(work: Work) -> dict[str, Any]:
        from zlib import crc32

        reading, font = board.reader.read(pixels, width, height)
        if reading is not None:
            found.update(rows=reading.rows, font=font)
        return {**found, "print": crc32(pixels)}

    return Work(machine, read)
