"""vmrun screen: the text on a machine's screen, read exactly from its video memory."""

from __future__ import annotations


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser("vmrun screen", description="Show the text on a machine's screen.")
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: attributes and cursor too")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="short for --format json")
    args = parser.parse_args(argv)

    import json

    from vmrun.cli.out import write
    from vmrun.errors import MonitorError
    from vmrun.monitor.client import QmpClient
    from vmrun.monitor.runtime import find

    with QmpClient(find(args.name).path) as qmp:
        found = qmp.execute("x-query-screen")
    if args.format == "json":
        write(json.dumps(found, ensure_ascii=False) + "\n")
        return 0
    if found["mode"] == "none":
        raise MonitorError(f"{args.name} has no display", remedy="add `display: std` to its file")
    if found["mode"] == "graphics":
        raise MonitorError(
            f"the screen shows pictures now ({found['width']} x {found['height']} pixels), no text",
            remedy=f"take one with `vmrun screenshot {args.name}`",
        )
    write("\n".join(row.rstrip() for row in found["rows"]).rstrip("\n") + "\n")
    return 0
