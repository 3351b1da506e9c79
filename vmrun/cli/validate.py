"""vmrun validate: everything that can be wrong with machine files, without starting anything."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.spec import ResolvedMachine
    from vmrun.errors import Problem


def run(argv: list[str]) -> int:
    from vmrun.errors import exit_code

    args = _parse(argv)
    results = [(path, check(path, args.set, not args.no_files)) for path in args.files]
    if args.strict:
        from vmrun.config.lints import as_errors

        for _, problems in results:
            as_errors(problems)
    _SHOW[args.format](results)
    return exit_code(problem for _, found in results for problem in found)


class _Plain:
    """The arguments of a line without options: argparse would cost a tenth of the time that one file takes."""

    set: list[str] = []
    format, no_files, strict = "text", False, False

    def __init__(self, files: list[str]) -> None:
        self.files = files


def _parse(argv: list[str]) -> Any:
    if argv and not any(word.startswith("-") and word != "-" for word in argv):
        return _Plain(argv)
    import argparse

    from vmrun.cli.out import add_format

    parser = argparse.ArgumentParser(
        "vmrun validate", description="Say everything that is wrong with machine files."
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="machine files (.yaml, .toml, .json)")
    add_format(parser, "text", "json", "github", "sarif")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="change a value first"
    )
    parser.add_argument("--no-files", action="store_true", help="do not look at the images the machine names")
    parser.add_argument("--strict", action="store_true", help="warnings and advice count as errors")
    return parser.parse_args(argv)


def check(path: str, sets: list[str], files: bool) -> list[Problem]:
    """Errors, warnings and advice of one file, in order."""
    machine, problems = _read(path, sets)
    if machine is not None:
        from vmrun.machine.examine import examine

        problems = problems + examine(machine, files)
    if problems:
        from vmrun.config.resolve import in_order

        problems = in_order(problems)
    return problems


def _read(path: str, sets: list[str]) -> tuple[ResolvedMachine | None, list[Problem]]:
    """(the machine, or None when there are errors; what its files alone say), from an earlier run if it was fine then
    and nothing has changed.
    """
    import time

    from vmrun.config.cache import keep_machine, kept_machine

    machine = kept_machine("fine", path, sets)
    if machine is not None:
        return machine, []
    began = time.time_ns()
    from vmrun.config.api import examine_file
    from vmrun.config.digest import changed_since_release, digests_path
    from vmrun.config.resolve import check_type_file

    machine, problems = examine_file(path, sets)
    if [problem.code for problem in problems] == ["VR0206"]:
        return None, check_type_file(path)
    if machine is not None:
        import os

        changed = changed_since_release(machine["machine"], os.path.dirname(os.path.abspath(path)))
        problems = problems + ([changed] if changed is not None else [])
        if not problems:
            keep_machine("fine", path, sets, machine, began, (digests_path(),))
    return machine, problems


def _text(results: list[tuple[str, list[Problem]]]) -> None:
    """The answer is what the command prints: problems and sums on one stream."""
    import sys

    from vmrun.cli.out import print_problems, write

    for path, problems in results:
        print_problems(problems, sys.stdout)
        errors = sum(problem.severity == "error" for problem in problems)
        counts = [_count(errors, "error"), _count(len(problems) - errors, "warning")]
        write(f"{path}: {', '.join(filter(None, counts)) or 'fine'}\n")


def _json(results: list[tuple[str, list[Problem]]]) -> None:
    from vmrun.cli.out import print_json

    print_json(
        [
            {"file": path, "problems": [problem.to_dict() for problem in problems]}
            for path, problems in results
        ]
    )


def _github(results: list[tuple[str, list[Problem]]]) -> None:
    from vmrun.cli.out import print_github

    for _, problems in results:
        print_github(problems)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}" if number else ""


def _sarif(results: list[tuple[str, list[Problem]]]) -> None:
    from vmrun import __version__
    from vmrun.cli.out import print_json
    from vmrun.config.sarif import sarif

    print_json(sarif(results, __version__))


_SHOW = {"text": _text, "json": _json, "github": _github, "sarif": _sarif}
