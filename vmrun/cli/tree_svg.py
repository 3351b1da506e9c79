"""A view of `vmrun tree` as a picture: SVG 1.1, nothing but boxes, lines and text in a font of fixed width.

A tree of boxes that begins at the left, a node on a level with its first child; a space (memory, ports) as a map, in
which a larger range is a higher box, by the logarithm of its size.
"""

from __future__ import annotations

from vmrun.cli.tree_views import IO, RAM, ROM, size_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.cli.tree_views import Node

FONT = "'DejaVu Sans Mono', Menlo, Consolas, monospace"
SIZE, ADVANCE, LINE = 12, 7.23, 15  # of a letter, in user units: height, width, distance of lines
MARGIN, PAD, GAP, TRUNK = 16, 8, 6, 14
WIDEST, MOST_LINES = 44, 4  # letters and lines of a node's detail
INK, FAINT, EDGE, TITLE = "#1f2933", "#52606d", "#9aa5b1", "#243b53"
DEPTHS = ("#d9e2ec", "#e3f2fd", "#f0f4f8", "#ffffff")
FILLS = {RAM: "#cfe8fc", ROM: "#fde9c4", IO: "#d3f0dc"}
FREE = "#f5f7fa"


def svg(top: Node) -> str:
    """The whole file."""
    spans = [child for child in top.children if child.span is not None]
    return _map(top, spans) if spans else _tree(top)


def wrapped(text: str) -> list[str]:
    """Text in lines of at most WIDEST letters, broken at spaces, the last one cut with … when there is more."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        while len(word) > WIDEST:
            lines += [line] if line else []
            line, word = word[:WIDEST], word[WIDEST:]
        if line and len(line) + 1 + len(word) > WIDEST:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    lines += [line] if line else []
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], lines[MOST_LINES - 1][: WIDEST - 2] + " …"]
    return lines


# --- a tree ------------------------------------------------------------------------------------------------


class _Box:
    """A node with its place: upper left corner, width and height, and the height of all that is below it."""

    def __init__(self, node: Node, depth: int) -> None:
        self.node, self.depth = node, depth
        self.lines = [node.label, *wrapped(node.detail)]
        self.height = len(self.lines) * LINE + PAD
        self.width = max(len(line) for line in self.lines) * ADVANCE + 2 * PAD
        self.children = [_Box(child, depth + 1) for child in node.children]
        below = sum(child.whole + GAP for child in self.children) - GAP
        self.whole: float = max(self.height, below)
        self.x = self.y = 0.0

    def place(self, x: float, y: float, columns: list[float]) -> None:
        self.x, self.y = x, y
        for child in self.children:
            child.place(x + columns[self.depth] + 2 * TRUNK, y, columns)
            y += child.whole + GAP


def _tree(top: Node) -> str:
    root = _Box(top, 0)
    columns: list[float] = []
    _measure(root, columns)
    root.place(MARGIN, MARGIN, columns)
    parts: list[str] = []
    _draw(root, parts)
    width = sum(columns) + 2 * TRUNK * (len(columns) - 1) + 2 * MARGIN
    return _file(top.label, width, root.whole + 2 * MARGIN, parts)


def _measure(box: _Box, columns: list[float]) -> None:
    if box.depth == len(columns):
        columns.append(0.0)
    columns[box.depth] = max(columns[box.depth], box.width)
    for child in box.children:
        _measure(child, columns)


def _draw(box: _Box, parts: list[str]) -> None:
    middle = box.y + PAD / 2 + LINE / 2
    if box.children:
        trunk = box.children[0].x - TRUNK
        ends = [child.y + PAD / 2 + LINE / 2 for child in box.children]
        path = f"M{box.x + box.width:.1f} {middle:.1f}H{trunk:.1f}"
        path += f"V{ends[-1]:.1f}" if len(ends) > 1 else ""
        path += "".join(f"M{trunk:.1f} {end:.1f}h{TRUNK}" for end in ends)
        parts.append(f'<path d="{path}" fill="none" stroke="{EDGE}"/>')
    fill = DEPTHS[min(box.depth, len(DEPTHS) - 1)]
    parts.append(_rect(box.x, box.y, box.width, box.height, fill, EDGE))
    for number, line in enumerate(box.lines):
        at = box.y + PAD / 2 + LINE * number + SIZE
        parts.append(_text(box.x + PAD, at, line, FAINT if number else INK, bold=not number))
    for child in box.children:
        _draw(child, parts)


# --- a map -------------------------------------------------------------------------------------------------


def _map(top: Node, spans: list[Node]) -> str:
    """Ranges from low to high, with what lies between them, addresses at the left."""
    digits = max(len(node.label.partition("-")[0]) for node in spans)
    left = MARGIN + digits * ADVANCE + PAD
    rows = _rows(spans)
    widest = max(len(title) + 2 + len(detail) for _, _, title, detail, _ in rows)
    width = max(widest, 40) * ADVANCE + 2 * PAD
    parts = [_text(MARGIN, MARGIN + SIZE, top.label, TITLE, bold=True)]
    y = MARGIN + 2.0 * LINE
    for start, size, title, detail, fill in rows:
        height = _height(size) if fill != FREE else LINE + 2.0
        parts.append(_rect(left, y, width, height, fill, EDGE, round=0, dash=fill == FREE))
        parts.append(_text(MARGIN, y + SIZE, f"{start:0{digits}x}", FAINT))
        middle = y + height / 2 + SIZE / 3
        parts.append(_text(left + PAD, middle, title, FAINT if fill == FREE else INK, bold=fill != FREE))
        parts.append(_text(left + PAD + (len(title) + 2 if title else 0) * ADVANCE, middle, detail, FAINT))
        y += height
    last = rows[-1][0] + rows[-1][1] - 1
    parts.append(_text(MARGIN, y + SIZE, f"{last:0{digits}x}", FAINT))
    x = left
    for kind in (kind for kind in FILLS if any(node.kind == kind for node in spans)):
        parts.append(_rect(x, y + LINE, SIZE, SIZE, FILLS[kind], EDGE, round=0))
        parts.append(_text(x + SIZE + 4, y + LINE + SIZE - 2, kind, FAINT))
        x += SIZE + 4 + (len(kind) + 2) * ADVANCE
    return _file(top.label, left + width + MARGIN, y + 2 * LINE + MARGIN, parts)


def _rows(spans: list[Node]) -> list[tuple[int, int, str, str, str]]:
    """(first address, size, title, detail, colour) of each range and of each gap between two."""
    rows = []
    end: int | None = None
    for node in sorted(spans, key=lambda node: node.span or (0, 0)):
        start, size = node.span or (0, 0)
        if end is not None and start > end:
            rows.append((end, start - end, "", f"unassigned, {size_text(start - end)}", FREE))
        title = node.label.partition(" ")[2]
        rows.append((start, size, title, node.detail, FILLS.get(node.kind, FREE)))
        end = start + size
    return rows


def _height(size: int) -> float:
    return min(LINE + 4 + 1.5 * max(size - 1, 0).bit_length(), 70.0)


# --- SVG ---------------------------------------------------------------------------------------------------


def _file(title: str, width: float, height: float, parts: list[str]) -> str:
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="{FONT}" font-size="{SIZE}">\n'
        f"<title>{_escaped(title)}</title>\n"
        '<rect width="100%" height="100%" fill="#ffffff"/>\n'
    )
    return head + "\n".join(part for part in parts if part) + "\n</svg>\n"


def _rect(
    x: float, y: float, width: float, height: float, fill: str, stroke: str, round: int = 4, dash: bool = False
) -> str:
    corners = f' rx="{round}"' if round else ""
    dashes = ' stroke-dasharray="2 3"' if dash else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{corners} '
        f'fill="{fill}" stroke="{stroke}"{dashes}/>'
    )


def _text(x: float, y: float, text: str, fill: str, bold: bool = False) -> str:
    if not text:
        return ""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}"{weight} xml:space="preserve">{_escaped(text)}</text>'


def _escaped(text: str) -> str:
    """Text as XML may hold it: no control characters, no lone surrogates."""
    plain = "".join(char if char.isprintable() else "?" for char in text)
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
