"""vmrun schema: the JSON Schema of machine files or machine types, for editors and other programs."""

from __future__ import annotations


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser("vmrun schema", description="Print a JSON Schema (2020-12).")
    parser.add_argument(
        "name", nargs="?", choices=("machine", "machine-type"), default="machine", help="which one"
    )
    parser.add_argument("--path", action="store_true", help="say where the file of the schema without drivers is")
    args = parser.parse_args(argv)

    from vmrun.cli.out import print_json, write

    if args.path:
        from vmrun.config.check import schema_path

        write(schema_path(args.name) + "\n")
    else:
        from vmrun.config.editors import editor_schema

        print_json(editor_schema(args.name, "."))
    return 0
