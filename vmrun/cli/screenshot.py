"""vmrun screenshot: a picture of what a machine that runs shows."""

from __future__ import annotations

KINDS = {".png": "png", ".ppm": "ppm", ".jpg": "jpeg", ".jpeg": "jpeg"}


def run(argv: list[str]) -> int:
    import argparse
    import os

    parser = argparse.ArgumentParser("vmrun screenshot", description="Write a picture of a machine's screen.")
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    parser.add_argument("file", metavar="FILE", nargs="?", help="where to: .png, .ppm or .jpg (default: NAME.png here)")
    parser.add_argument("--display", metavar="ID", help="of this adapter, or the terminal of a chardev of type vc")
    args = parser.parse_args(argv)

    from vmrun.cli.out import write
    from vmrun.monitor.client import QmpClient
    from vmrun.monitor.runtime import find

    found = find(args.name)
    file = args.file or f"{found.name}.png"
    kind = KINDS.get(os.path.splitext(file)[1].lower())
    if kind is None:
        parser.error(f"what kind of picture is {file}? Names end in {', '.join(KINDS)}")
    with QmpClient(found.path) as qmp:
        where = {"device": args.display} if args.display else {}
        qmp.execute("screendump", filename=os.path.abspath(file), format=kind, **where)
    write(f"{file}\n")
    return 0
