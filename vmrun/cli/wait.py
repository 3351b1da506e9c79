"""vmrun wait: until a machine's screen shows something."""

from __future__ import annotations


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        "vmrun wait",
        description="Wait until a machine's screen shows a text, looks like a picture, or stands still. Text is read "
        "in text modes, and in graphics modes where its font is known. A wait in vain says why, shows the screen, "
        "saves it, and ends with 1.",
    )
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    parser.add_argument("text", metavar="TEXT", nargs="?", help="what to wait for")
    parser.add_argument("--image", metavar="FILE", help="wait until the screen looks like this PNG")
    parser.add_argument("--still", metavar="SECONDS", type=float, help="wait until nothing has changed for so long")
    parser.add_argument("--regex", action="store_true", help="TEXT is a regular expression (Python's)")
    parser.add_argument("--gone", action="store_true", help="wait until TEXT is there no more")
    parser.add_argument("--region", metavar="X,Y,W,H", help="the part of the screen that --image is about, in pixels")
    parser.add_argument("--tolerance", type=float, default=0.0, help="share of pixels that may differ, 0 to 1")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=60.0, help="give up after (default: 60)")
    parser.add_argument("--stalled", metavar="SECONDS", type=float, help="give up after so long without any change")
    parser.add_argument("--save", metavar="DIRECTORY", default=".", help="where a wait in vain leaves pictures (here)")
    args = parser.parse_intermixed_args(argv)
    if sum(given is not None for given in (args.text, args.image, args.still)) != 1:
        parser.error("wait for what? One of TEXT, --image and --still")

    import re

    from vmrun.errors import MonitorError
    from vmrun.monitor.client import QmpClient
    from vmrun.monitor.runtime import find
    from vmrun.screen import Screen

    region = None
    if args.region is not None:
        numbers = args.region.split(",")
        if len(numbers) != 4 or not all(number.isascii() and number.isdigit() for number in numbers):
            parser.error("--region is X,Y,WIDTH,HEIGHT")
        x, y, width, height = map(int, numbers)
        region = (x, y, width, height)
    wanted = args.text
    if args.regex and wanted is not None:
        try:
            wanted = re.compile(wanted)
        except re.error as error:
            parser.error(f"no regular expression: {error}")
    found = find(args.name)
    with QmpClient(found.path) as qmp:
        screen = Screen(qmp, found.name, artifacts=args.save)
        if args.image is not None:
            try:
                screen.wait_for_image(args.image, region, args.tolerance, args.timeout, stalled=args.stalled)
            except (OSError, ValueError) as error:
                raise MonitorError(f"{args.image}: {getattr(error, 'strerror', None) or error}") from None
        elif args.still is not None:
            screen.wait_still(args.still, args.timeout)
        elif args.gone:
            screen.wait_gone(wanted, args.timeout)
        else:
            screen.wait_for(wanted, args.timeout, stalled=args.stalled)
    return 0
