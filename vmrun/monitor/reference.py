"""The command reference in docs/qmp.md, made of the table: `python -m vmrun.monitor.reference`."""

from __future__ import annotations

from vmrun.monitor import table
from vmrun.monitor.commands import AREAS

MARK = "<!-- made by vmrun.monitor.reference: everything below -->\n"


def text() -> str:
    """Everything below the mark."""
    lines: list[str] = []
    areas: dict[str, list[table.Command]] = {}
    for command in table.load().values():
        areas.setdefault(command.area, []).append(command)
    for area in AREAS:  # in this order, whatever was imported first
        lines += [f"### {area}", ""]
        for row in areas[area]:
            members = ", ".join(f"`{name}`: {kind}" for name, kind in row.args.items())
            lines += [f"**{row.name}**({members}) → {row.returns or 'nothing'}  ", f"{row.doc}", ""]
    lines += ["### Events", "", "| event | data | when |", "|---|---|---|"]
    for name, payload in sorted(table.events.items()):
        data = ", ".join(f"`{key}`: {kind}" for key, kind in payload.items())
        lines.append(f"| {name} | {data} | {table.event_docs[name]} |")
    lines += ["", "### Types", "", "A name with ? may be missing; [type] is a list of it.", ""]
    for name, fields in sorted(table.structs.items()):
        shown = ", ".join(f"`{key}`: {kind}" for key, kind in fields.items())
        lines.append(f"- **{name}**: {shown}")
    lines += [f"- **{name}**: one of {', '.join(values)}" for name, values in sorted(table.enums.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(text())
