"""A view of `vmrun tree` as a graph in Graphviz's language.

Ref: https://graphviz.org/doc/info/lang.html
"""

from __future__ import annotations

from vmrun.cli.tree_svg import FILLS, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.cli.tree_views import Node

FONT = "DejaVu Sans Mono"


def dot(top: Node) -> str:
    """The text of a digraph: a box for each node, an edge to each of its children."""
    lines = [
        "digraph machine {",
        "  rankdir=LR; ranksep=0.4; nodesep=0.1;",
        f'  node [shape=box, style="rounded,filled", fillcolor="#ffffff", color="#9aa5b1", '
        f'fontname="{FONT}", fontsize=10, height=0.2, margin="0.1,0.05"];',
        '  edge [color="#9aa5b1", arrowhead=none];',
    ]
    _add(top, lines, [0])
    return "\n".join([*lines, "}"]) + "\n"


def _add(node: Node, lines: list[str], count: list[int]) -> int:
    """Add a node and all below it; its number. count: how many there are by now."""
    number = count[0]
    count[0] += 1
    label = "\\l".join(_quoted(line) for line in [node.label, *wrapped(node.detail)])
    fill = f', fillcolor="{FILLS[node.kind]}"' if node.kind in FILLS else ""
    lines.append(f'  n{number} [label="{label}\\l"{fill}];')
    for child in node.children:
        lines.append(f"  n{number} -> n{_add(child, lines, count)};")
    return number


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
