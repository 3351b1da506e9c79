"""vmrun devices: the drivers there are, or everything about one."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.catalogue import Catalogue, Driver


def run(argv: list[str]) -> int:
    import argparse

    from vmrun.cli.out import add_format

    parser = argparse.ArgumentParser(
        "vmrun devices", description="List the drivers, or one driver's properties."
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a driver")
    parser.add_argument("--all", action="store_true", help="also those that are not modelled yet")
    add_format(parser, "text", "json")
    args = parser.parse_args(argv)

    from vmrun.config.catalogue import load_catalogue

    catalogue = load_catalogue()
    if args.name:
        return _one(catalogue, args.name, args.format)
    names = catalogue.names() if args.all else catalogue.modelled_names()
    drivers = [entry for name in names if (entry := catalogue.driver(name)) is not None]
    if args.format == "json":
        from vmrun.cli.out import print_json

        print_json({entry.name: {**entry.data, "modelled": not entry.planned} for entry in drivers})
        return 0
    from vmrun.cli.out import table

    rows = [(entry.name, entry.bus or "-", _description(entry)) for entry in drivers]
    table(("driver", "bus", "description"), rows)
    return 0


def _one(catalogue: Catalogue, name: str, notation: str) -> int:
    from vmrun.config.near import nearest
    from vmrun.errors import ConfigError, Problem

    entry = catalogue.driver(name)
    if entry is None:
        raise ConfigError(
            problems=[
                Problem(
                    "VR0401",
                    f"there is no driver '{name}'",
                    nearest=nearest(name, catalogue.names()),
                    remedy="`vmrun devices --all` lists what there is",
                )
            ]
        )
    from vmrun.cli.out import print_json, table, write

    if notation == "json":
        print_json({**entry.data, "modelled": not entry.planned})
        return 0
    write(f"{entry.name}: {_description(entry)}\n")
    write(f"bus: {entry.bus or 'none'}\n")
    if entry.provides:
        write(f"provides: {', '.join(entry.provides)}\n")
    rows = [
        (prop["name"], _type(prop), _default(prop), prop.get("doc") or "") for prop in entry.props.values()
    ]
    table(("property", "type", "default", "meaning"), sorted(rows))
    return 0


def _description(entry: Driver) -> str:
    return f"{entry.description} (not modelled yet)" if entry.planned else entry.description


def _type(prop: dict[str, Any]) -> str:
    choices = prop.get("choices")
    return "|".join(choices) if choices else str(prop["type"])


def _default(prop: dict[str, Any]) -> str:
    value = prop.get("default")
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    from vmrun.config.write import HEX

    return hex(value) if isinstance(value, int) and prop["name"] in HEX else str(value)
