"""vmrun tree: a machine's objects, buses, memory, ports and interrupts, from the very objects that would run."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.cli.tree_views import Node

VIEWS = ("qom", "pci", "memory", "io", "irq")
FORMATS = ("text", "json", "dot", "svg")  # dot is a graph for Graphviz, svg a picture


def run(argv: list[str]) -> int:
    import argparse

    from vmrun.cli.out import add_format

    parser = argparse.ArgumentParser("vmrun tree", description="Show what a machine is made of.")
    parser.add_argument("file", metavar="FILE", help="machine file (.yaml, .toml, .json)")
    parser.add_argument("--view", choices=VIEWS, default="qom", help="what to show")
    add_format(parser, *FORMATS)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change a value first")
    args = parser.parse_args(argv)

    from vmrun.cli.out import print_json, write
    from vmrun.cli.tree_views import VIEWS as MAKERS
    from vmrun.config.cache import resolve_cached
    from vmrun.machine.dry import build_dry
    from vmrun.machine.examine import looking

    resolved = resolve_cached(args.file, args.set)
    with looking(resolved):
        machine = build_dry(resolved.data)
    try:
        found = MAKERS[args.view](machine)
    finally:
        machine.close()
    if args.format == "json":
        print_json(found.plain())
    elif args.format == "dot":
        from vmrun.cli.tree_dot import dot

        write(dot(found))
    elif args.format == "svg":
        from vmrun.cli.tree_svg import svg

        write(svg(found))
    else:
        show(found)
    return 0


def show(top: Node) -> None:
    """rich on a terminal, indented lines elsewhere."""
    import sys

    from vmrun.cli.out import write

    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text
        from rich.tree import Tree

        def grow(node: Node, tree: Tree) -> None:
            for child in node.children:
                grow(child, tree.add(Text.assemble((child.label, "bold"), " ", (child.detail, "dim"))))

        root = Tree(Text(top.label, "bold cyan"))
        grow(top, root)
        Console().print(root)
        return

    def lines(node: Node, depth: int) -> None:
        write(f"{'  ' * depth}{node.label}{'  ' + node.detail if node.detail else ''}\n")
        for child in node.children:
            lines(child, depth + 1)

    lines(top, 0)
