"""vmrun explain: what an error code means and what to do about it."""

from __future__ import annotations


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser("vmrun explain", description="Explain an error code.")
    parser.add_argument("code", nargs="?", metavar="VR####", help="the code; all of them when not given")
    args = parser.parse_args(argv)

    from vmrun.cli.out import table, write
    from vmrun.config.codes import CODES

    if args.code is None:
        table(("code", "meaning"), [(code, title) for code, (title, _) in CODES.items()])
        return 0
    code = args.code.upper()
    if code.isdecimal():
        code = f"VR{code:0>4}"
    if code not in CODES:
        from vmrun.config.near import nearest
        from vmrun.errors import ConfigError, Problem

        problem = Problem(
            "VR0001",
            f"there is no code '{args.code}'",
            nearest=nearest(code, CODES),
            remedy="`vmrun explain` lists them",
        )
        raise ConfigError(problems=[problem])
    title, text = CODES[code]
    write(f"{code}: {title}\n\n{text}\n")
    return 0
