"""vmrun screen: the text on a machine's screen, read from its video memory, or glyph by glyph off a picture."""

from __future__ import annotations


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser("vmrun screen", description="Show the text on a machine's screen.")
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: attributes and cursor too")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="short for --format json")
    parser.add_argument("--display", metavar="ID", help="of this adapter, or the terminal of a chardev of type vc")
    args = parser.parse_args(argv)

    import json

    from vmrun.cli.out import write
    from vmrun.errors import MonitorError
    from vmrun.monitor.client import QmpClient
    from vmrun.monitor.runtime import find

    with QmpClient(find(args.name).path) as qmp:
        found = qmp.execute("x-query-screen", **({"device": args.display} if args.display else {}))
    if args.format == "json":
        write(json.dumps(found, ensure_ascii=False) + "\n")
        return 0
    if found["mode"] == "none":
        raise MonitorError(f"{args.name} has no display", remedy="add `display: std` to its file")
    if found["mode"] == "graphics" and not found["rows"]:
        raise MonitorError(
            f"the screen shows a picture now ({found['width']} x {found['height']} pixels), no text in a known font",
            remedy=f"take one with `vmrun screenshot {args.name}`",
        )
    write("\n".join(row.rstrip() for row in found["rows"]).rstrip("\n") + "\n")
    return 0
