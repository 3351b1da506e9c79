"""vmrun validate: everything that can be wrong with machine files, without starting anything."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.errors import Problem


def run(argv: list[str]) -> int:
    import argparse

    from vmrun.cli.out import add_format
    from vmrun.errors import exit_code

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
    args = parser.parse_args(argv)
    results = [(path, check(path, args.set, not args.no_files)) for path in args.files]
    if args.strict:
        from vmrun.config.lints import as_errors

        for _, problems in results:
            as_errors(problems)
    _SHOW[args.format](results)
    return exit_code(problem for _, found in results for problem in found)


def check(path: str, sets: list[str], files: bool) -> list[Problem]:
    """Errors, warnings and advice of one file, in order."""
    from vmrun.config.api import examine_file
    from vmrun.config.resolve import check_type_file, in_order

    machine, problems = examine_file(path, sets)
    if [problem.code for problem in problems] == ["VR0206"]:
        return check_type_file(path)
    if machine is not None:
        import os

        from vmrun.config.digest import changed_since_release

        changed = changed_since_release(machine["machine"], os.path.dirname(os.path.abspath(path)))
        problems = problems + ([changed] if changed is not None else [])
    if machine is not None:
        from vmrun.machine.examine import examine

        problems = problems + examine(machine, files)
    return in_order(problems)


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
