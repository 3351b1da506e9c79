"""vmrun view: a machine's screen in the browser, by noVNC."""

from __future__ import annotations


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        "vmrun view",
        description="Show a machine's screen in the browser. The page is noVNC's (package novnc), served to this host "
        "alone; its address works once and needs no password.",
    )
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    parser.add_argument("--print", action="store_true", dest="shown", help="print the address, open nothing")
    args = parser.parse_args(argv)

    import os

    from vmrun.cli.out import write
    from vmrun.monitor.client import QmpClient
    from vmrun.monitor.runtime import find

    with QmpClient(find(args.name).path) as qmp:
        url = qmp.execute("x-open-page")["url"]
    write(f"{url}\n")
    if not args.shown and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        import webbrowser

        webbrowser.open(url)
    return 0
