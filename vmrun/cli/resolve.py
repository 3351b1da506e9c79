"""vmrun resolve: the fully explicit machine, as a machine file."""

from __future__ import annotations


def run(argv: list[str]) -> int:
    import argparse

    from vmrun.cli.out import add_format

    parser = argparse.ArgumentParser("vmrun resolve", description="Show a machine with everything filled in.")
    parser.add_argument("file", metavar="FILE", help="machine file (.yaml, .toml, .json)")
    add_format(parser, "yaml", "json")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="change a value first"
    )
    args = parser.parse_args(argv)

    from vmrun.cli.out import print_json, print_problems, write
    from vmrun.config.resolve import resolve_file
    from vmrun.config.write import flat, yaml_text

    machine = resolve_file(args.file, args.set)
    print_problems(machine.warnings)
    if args.format == "json":
        print_json(flat(machine.to_dict()))
    else:
        from vmrun import __version__

        write(yaml_text(machine.to_dict(), f"{args.file}, resolved by vmrun {__version__}"))
    return 0
