"""vmrun types: the machine types, what differs between two, and what of them is not modelled."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(argv: list[str]) -> int:
    import argparse

    from vmrun.cli.out import add_format

    parser = argparse.ArgumentParser("vmrun types", description="List the machine types.")
    parser.add_argument(
        "--diff", nargs=2, metavar=("A", "B"), help="what differs between two types; exit 1 if anything"
    )
    parser.add_argument(
        "--gaps", nargs="?", const="", metavar="TYPE", help="what of the types is not modelled yet"
    )
    parser.add_argument(
        "--digests", action="store_true", help="digests of the types, as machines/digests.json has them"
    )
    parser.add_argument(
        "--check", action="store_true", help="whether the types are as they were released; exit 1 if one is not"
    )
    parser.add_argument(
        "--views", action="store_true", help="digests of what a guest sees of the types, as in machines/views.json"
    )
    add_format(parser, "text", "json")
    args = parser.parse_args(argv)
    as_json = args.format == "json"
    if args.diff:
        return _diff(args.diff[0], args.diff[1], as_json)
    if args.gaps is not None:
        return _gaps(args.gaps, as_json)
    if args.views:
        from vmrun.cli.out import print_json
        from vmrun.machine.golden import views

        print_json(views())
        return 0
    if args.digests:
        from vmrun.cli.out import print_json
        from vmrun.config.digest import type_digests

        print_json(type_digests())
        return 0
    if args.check:
        return _check(as_json)
    return _list(as_json)


def _check(as_json: bool) -> int:
    from vmrun.cli.out import print_json, print_problems, write
    from vmrun.config.digest import changed_types
    from vmrun.config.machinetypes import type_names

    problems = changed_types()
    if as_json:
        print_json([problem.to_dict() for problem in problems])
        return 1 if problems else 0
    print_problems(problems)
    if not problems:
        write(f"{len(type_names())} machine types: as released\n")
    return 1 if problems else 0


def _list(as_json: bool) -> int:
    from vmrun.cli.out import print_json, table
    from vmrun.config.machinetypes import aliases, load_type, type_names

    short = {full: name for name, full in aliases().items()}
    rows = []
    keys = ("cpu", "display", "nic")
    if as_json:
        print_json(
            [
                {
                    "name": name,
                    "alias": short.get(name),
                    "description": load_type(name).text("description"),
                    **{key: load_type(name).default(key) for key in keys},
                }
                for name in type_names()
            ]
        )
        return 0
    for name in type_names():
        spec = load_type(name)
        defaults = [str(spec.default(key) or "-") for key in keys]
        known = f" (alias {short[name]})" if name in short else ""
        rows.append((name, spec.text("description") + known, *defaults))
    table(("type", "description", "cpu", "display", "nic"), rows)
    return 0


def _diff(a: str, b: str, as_json: bool) -> int:
    from vmrun.cli.out import print_json, table
    from vmrun.config.machinetypes import load_type

    old, new = (leaves(load_type(name, os.getcwd()).to_dict()) for name in (a, b))
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key) and key != "name"]
    if as_json:
        rows = [{"path": key, "a": old.get(key), "b": new.get(key)} for key in changed]
        print_json({"a": a, "b": b, "changes": rows})
        return 1 if changed else 0
    table(("", a, b), [(key, _shown(old.get(key)), _shown(new.get(key))) for key in changed])
    return 1 if changed else 0


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """path → value of everything in a nested value; entries of a list are named by their id where they have
    one.
    """
    if isinstance(value, dict) and value:
        return {
            key: leaf
            for name, child in value.items()
            for key, leaf in leaves(child, f"{path}.{name}").items()
        }
    if isinstance(value, list) and value and isinstance(value[0], dict):
        found: dict[str, Any] = {}
        for index, child in enumerate(value):
            name = (
                child.get("id")
                or child.get("driver")
                or f"{child.get('from', index)} → {child.get('to', '')}"
            )
            found |= leaves(child, f"{path}[{name}]")
        return found
    return {path.lstrip("."): value}


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _gaps(name: str, as_json: bool) -> int:
    """Of one type, or each gap once with the types that have it."""
    from vmrun.cli.out import print_json, table
    from vmrun.config.catalogue import load_catalogue
    from vmrun.config.gaps import gaps
    from vmrun.config.machinetypes import load_type, type_names

    catalogue = load_catalogue()
    if name:
        spec = load_type(name, os.getcwd())
        if as_json:
            print_json([{"what": what, "why": why, "types": [spec.name]} for what, why in gaps(spec, catalogue)])
            return 0
        table(("type", "what", "why"), [(spec.name, *gap) for gap in gaps(spec, catalogue)])
        return 0
    found: dict[tuple[str, str], list[str]] = {}
    names = type_names()
    for type_name in names:
        for gap in gaps(load_type(type_name), catalogue):
            found.setdefault(gap, []).append(type_name)
    if as_json:
        print_json([{"what": what, "why": why, "types": having} for (what, why), having in sorted(found.items())])
        return 0
    table(("what", "why", "types"), [(*gap, _runs(having, names)) for gap, having in sorted(found.items())])
    return 0


def _runs(names: list[str], order: list[str]) -> str:
    """"pc-0.10 … pc-i440fx-2.6": types lie in rows, as each inherits from the next."""
    runs: list[list[str]] = []
    for name in names:
        if runs and order.index(name) == order.index(runs[-1][-1]) + 1 and name[:2] == runs[-1][0][:2]:
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} … {run[-1]}" for run in runs)
