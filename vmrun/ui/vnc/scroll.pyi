"""See scroll.pyx."""

from vmrun.core.surface import Surface

class Rows:
    width: int
    height: int
    def forget(self) -> None: ...
    def note(self, surface: Surface, rectangles: list[tuple[int, int, int, int]]) -> None: ...
    def moves(
        self, surface: Surface, rectangles: list[tuple[int, int, int, int]]
    ) -> list[tuple[int, int, int]]: ...
