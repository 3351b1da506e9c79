"""vmrun explain: what an error code means and what to do about it."""

from __future__ import annotations


def run(argv: list[str]) -> int:
    import argparse

    from vmrun.cli.out import add_format

    parser = argparse.ArgumentParser("vmrun explain", description="Explain an error code.")
    parser.add_argument("code", nargs="?", metavar="VR####", help="the code; all of them when not given")
    add_format(parser, "text", "json")
    args = parser.parse_args(argv)

    from vmrun.cli.out import print_json, table, write
    from vmrun.config.codes import in_order

    codes = in_order()
    if args.code is None and args.format == "json":
        print_json([{"code": code, "title": title, "text": text} for code, (title, text) in codes.items()])
        return 0
    if args.code is None:
        table(("code", "meaning"), [(code, title) for code, (title, _) in codes.items()])
        return 0
    code = args.code.upper()
    if code.isdecimal():
        code = f"VR{code:0>4}"
    if code not in codes:
        from vmrun.config.near import nearest
        from vmrun.errors import ConfigError, Problem

        problem = Problem(
            "VR0001",
            f"there is no code '{args.code}'",
            nearest=nearest(code, codes),
            remedy="`vmrun explain` lists them",
        )
        raise ConfigError(problems=[problem])
    title, text = codes[code]
    if args.format == "json":
        print_json({"code": code, "title": title, "text": text})
    else:
        write(f"{code}: {title}\n\n{text}\n")
    return 0
