"""vmrun type: text for a machine's keyboard, as fast as the guest reads it."""

from __future__ import annotations


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        "vmrun type",
        description="Type text on a machine's keyboard, as fast as the guest reads it. \\n is Return, \\t Tab, "
        "\\e Escape, \\\\ a backslash.",
    )
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    parser.add_argument("text", metavar="TEXT", help="what to type; - for standard input, as it is")
    parser.add_argument("--layout", help="the guest's keyboard layout, instead of `keyboard:` of the machine's file")
    args = parser.parse_args(argv)

    import sys

    from vmrun.monitor.client import QmpClient
    from vmrun.monitor.runtime import find
    from vmrun.screen import type_all

    text = sys.stdin.read() if args.text == "-" else _escapes(args.text)
    layout = {"layout": args.layout} if args.layout else {}
    with QmpClient(find(args.name).path) as qmp:
        type_all(qmp, text, **layout)
    return 0


def _escapes(text: str) -> str:
    known = {"n": "\n", "t": "\t", "e": "\x1b", "\\": "\\"}
    out, at = [], 0
    while at < len(text):
        if text[at] == "\\" and text[at + 1 : at + 2] in known:
            out.append(known[text[at + 1]])
            at += 2
        else:
            out.append(text[at])
            at += 1
    return "".join(out)
