"""vmrun monitor: a prompt of a machine that runs, or one command."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.monitor.client import QmpClient

PROMPT = "(vmrun) "


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        "vmrun monitor", description="Talk to a machine that runs: `info pci`, `stop`, `cont`, `help`, …"
    )
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="one command instead of a prompt")
    parser.add_argument("--qmp", action="store_true", help="COMMAND is QMP's: a name and its arguments as JSON")
    args = parser.parse_args(argv)

    from vmrun.monitor.client import QmpClient
    from vmrun.monitor.runtime import find

    if args.command[:1] == ["--qmp"]:  # after the name it is as good as before it
        args.qmp, args.command = True, args.command[1:]
    with QmpClient(find(args.name).path) as qmp:
        if args.qmp:
            return _qmp(qmp, args.command)
        if args.command:
            return _say(qmp, " ".join(args.command))
        return _prompt(qmp)


def _qmp(qmp: QmpClient, words: list[str]) -> int:
    import json

    from vmrun.cli.out import print_json, write
    from vmrun.errors import MonitorError

    if not words:
        write("vmrun monitor: --qmp needs the name of a command\n", sys.stderr)
        return 2
    try:
        arguments = json.loads(" ".join(words[1:])) if words[1:] else {}
        if not isinstance(arguments, dict):
            raise ValueError("the arguments must be an object")
    except ValueError as error:
        write(f"vmrun monitor: the arguments are no JSON object: {error}\n", sys.stderr)
        return 2
    try:
        print_json(qmp.execute(words[0], **arguments))
    except MonitorError as error:
        write(f"vmrun monitor: {error.problems[0].message}\n", sys.stderr)
        return 1
    return 0


def _say(qmp: QmpClient, line: str) -> int:
    from vmrun.cli.out import write

    text = str(qmp.execute("human-monitor-command", command_line=line)).replace("\r\n", "\n")
    write(text)
    failed = text.startswith(("Error: ", "unknown command: ")) or '\nTry "help ' in text
    return 1 if failed else 0


def _prompt(qmp: QmpClient) -> int:
    if sys.stdin.isatty():
        import readline  # noqa: F401  # gives input() its editing and history
    while True:
        try:
            line = input(PROMPT if sys.stdin.isatty() else "")
        except EOFError:
            return 0
        if line.strip() in ("exit", "bye"):
            return 0
        if line.strip():
            _say(qmp, line)
