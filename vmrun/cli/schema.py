"""vmrun schema: the JSON Schema of machine files or machine types, for editors and other programs."""

from __future__ import annotations


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser("vmrun schema", description="Print a JSON Schema (2020-12).")
    parser.add_argument(
        "name", nargs="?", choices=("machine", "machine-type"), default="machine", help="which one"
    )
    parser.add_argument("--path", action="store_true", help="say where the schema's file is instead")
    args = parser.parse_args(argv)

    from vmrun.cli.out import write
    from vmrun.config.check import schema_path

    path = schema_path(args.name)
    if args.path:
        write(path + "\n")
    else:
        with open(path, encoding="utf-8") as file:
            write(file.read())
    return 0
