"""vmrun diff: what changes for a guest between two machines. Exit code 1 when something does."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Sections = dict[str, dict[str, Any]]


def run(argv: list[str]) -> int:
    import argparse

    from vmrun.cli.out import add_format

    parser = argparse.ArgumentParser(
        "vmrun diff", description="Say what changes for a guest; exit 1 if anything that it sees."
    )
    parser.add_argument("a", metavar="A", help="machine file, lock file or machine type")
    parser.add_argument("b", metavar="B", help="machine file, lock file or machine type")
    add_format(parser, "text", "json")
    args = parser.parse_args(argv)

    from vmrun.cli.out import print_json, write
    from vmrun.machine.differ import INVISIBLE, compare

    changes = compare(sections(args.a), sections(args.b))
    seen = any(change.severity != INVISIBLE for change in changes)
    if args.format == "json":
        print_json({"a": args.a, "b": args.b, "changes": [change.to_dict() for change in changes]})
        return 1 if seen else 0
    severity = ""
    for change in changes:
        if change.severity != severity:
            severity = change.severity
            write(f"{severity}:\n")
        write(f"  {change.text}\n")
    if not seen:
        write("a guest sees no difference\n")
    return 1 if seen else 0


def sections(source: str) -> Sections:
    """What a guest sees of the machine in a machine file or a lock file, or of a machine type's standard machine;
    and what else a machine file says, under `host`.
    """
    from vmrun.machine.lock import SUFFIX, read

    if source.endswith(SUFFIX):
        found: Sections = read(source)["sections"]
        return found
    from vmrun.machine.visible import visible

    if _is_type(source):
        from vmrun.config.standard import DISK, standard_machine

        return visible(standard_machine(source).data, DISK)
    from vmrun.cli.out import print_problems
    from vmrun.config.files import check_files
    from vmrun.config.resolve import sketch_file
    from vmrun.errors import ERROR, WARNING
    from vmrun.machine.hostside import host_side

    machine = sketch_file(source)
    missing = [problem for problem in check_files(machine) if problem.severity == ERROR]
    for problem in missing:  # a disk that is not here is taken for one of 1 GiB
        problem.severity = WARNING
    print_problems(missing)
    return {**visible(machine.data), "host": host_side(machine.data)}


def _is_type(source: str) -> bool:
    """Whether this names a machine type: no file, and none of the suffixes of machine files."""
    import os

    from vmrun.config.load import SUFFIXES

    return source != "-" and "/" not in source and not source.endswith(SUFFIXES) and not os.path.exists(source)
