"""vmrun diff: what changes for a guest between two machines. Exit code 1 when something does."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser("vmrun diff", description="Say what changes for a guest; exit 1 if anything.")
    parser.add_argument("a", metavar="A", help="machine file or lock file")
    parser.add_argument("b", metavar="B", help="machine file or lock file")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    args = parser.parse_args(argv)

    from vmrun.cli.out import print_json, write
    from vmrun.machine.differ import compare

    changes = compare(sections(args.a), sections(args.b))
    if args.json:
        print_json({"a": args.a, "b": args.b, "changes": [change.to_dict() for change in changes]})
        return 1 if changes else 0
    severity = ""
    for change in changes:
        if change.severity != severity:
            severity = change.severity
            write(f"{severity}:\n")
        write(f"  {change.text}\n")
    if not changes:
        write("a guest sees no difference\n")
    return 1 if changes else 0


def sections(path: str) -> dict[str, dict[str, Any]]:
    """What a guest sees of the machine in a machine file or a lock file."""
    from vmrun.machine.lock import SUFFIX, read

    if path.endswith(SUFFIX):
        found: dict[str, dict[str, Any]] = read(path)["sections"]
        return found
    from vmrun.config.resolve import sketch_file
    from vmrun.machine.visible import visible

    return visible(sketch_file(path).data)
