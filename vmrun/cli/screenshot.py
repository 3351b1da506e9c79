"""vmrun screenshot: a picture of what a machine that runs shows."""

from __future__ import annotations


def run(argv: list[str]) -> int:
    import argparse
    import os

    parser = argparse.ArgumentParser("vmrun screenshot", description="Write a picture of a machine's screen.")
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    parser.add_argument("file", metavar="FILE", nargs="?", help="where to: .png or .ppm (default: NAME.png here)")
    args = parser.parse_args(argv)

    from vmrun.cli.out import write
    from vmrun.monitor.client import QmpClient
    from vmrun.monitor.runtime import find

    found = find(args.name)
    file = args.file or f"{found.name}.png"
    kind = "ppm" if file.endswith(".ppm") else "png"
    with QmpClient(found.path) as qmp:
        qmp.execute("screendump", filename=os.path.abspath(file), format=kind)
    write(f"{file}\n")
    return 0
