from accel.ram import RamBlock

Buffer = bytes | bytearray | memoryview

UNKNOWN: str

class Reading:
    rows: list[str]
    known: int
    drawn: int
    strange: int
    x: int
    y: int
    good: bool

class Font:
    name: str
    height: int
    width: int
    cornered: bool
    def __init__(
        self, name: str, height: int, glyphs: dict[str, bytes], width: int = 8, cornered: bool = False
    ) -> None: ...
    def read(self, pixels: Buffer, width: int, height: int, x: int = 0, y: int = 0) -> Reading: ...
    def find(self, pixels: Buffer, width: int, height: int) -> Reading: ...

def linux_fonts(block: RamBlock, most: int = 64) -> list[tuple[int, int, int, bool]]: ...
def seek(block: RamBlock, needle: Buffer, most: int = 8) -> list[int]: ...
