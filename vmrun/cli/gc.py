"""vmrun gc: clear away what machines left that have ended."""

from __future__ import annotations

FINE = 0


def run(argv: list[str]) -> int:
    import argparse

    from vmrun.cli.out import add_format

    parser = argparse.ArgumentParser(
        "vmrun gc", description="Remove the sockets, consoles and logs of this user's machines that have ended."
    )
    add_format(parser, "text", "json")
    args = parser.parse_args(argv)

    from vmrun.cli.out import print_json, write
    from vmrun.monitor.runtime import clear

    removed = clear()
    if args.format == "json":
        print_json(removed)
    else:
        for path in removed:
            write(f"removed {path}\n")
    return FINE
