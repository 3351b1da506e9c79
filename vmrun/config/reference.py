"""Pages of the documentation that are made of tables: `python -m vmrun.config.reference` writes them anew, and a test
fails when one is stale.

docs/errors.md from vmrun.config.codes, docs/machine-file.md from schema/machine.schema.json and schema/backends.json.
"""

from __future__ import annotations

import json
import os

from vmrun.config.catalogue import read_json
from vmrun.config.check import load_schema
from vmrun.config.codes import CODES
from vmrun.config.data import data_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

NOTE = "<!-- made by `python -m vmrun.config.reference` -->"
GROUPS = {
    "VR00": "This list",
    "VR01": "Files and their notation",
    "VR02": "Keys and values",
    "VR03": "Machine types",
    "VR04": "Devices and their properties",
    "VR05": "Places and clashes",
    "VR06": "The host's side: images, chardevs, networks",
    "VR07": "Memory, CPUs and settings",
    "VR08": "Not modelled yet",
    "VR09": "The installation, the host, locks",
    "VR10": "Advice: what is not reproducible",
}
WORDS = {"string": "text", "integer": "number", "boolean": "true or false", "object": "mapping", "array": "list"}


def errors_page() -> str:
    """docs/errors.md."""
    lines = [
        "# Error codes",
        "",
        NOTE,
        "",
        "`vmrun explain VR0512` says the same on the terminal. A code keeps its meaning for ever. Advice (VR10) is a",
        "warning, and an error with `vmrun validate --strict`.",
    ]
    group = ""
    for code in sorted(CODES):
        if code[:4] != group:
            group = code[:4]
            lines += ["", f"## {group}: {GROUPS[group]}"]
        title, text = CODES[code]
        lines += ["", f"### {code}: {title}", "", text]
    return "\n".join(lines) + "\n"


def machine_file_page() -> str:
    """docs/machine-file.md."""
    schema = load_schema("machine")
    lines = [
        "# The keys of a machine file",
        "",
        NOTE,
        "",
        "YAML, TOML or JSON with the same keys; `schema` and `machine` are needed, the rest has defaults, many of them",
        "the machine type's. `vmrun schema` prints the JSON Schema, which [editors](validate.md#in-editors) complete",
        "and check with.",
        "",
        "`vmrun resolve FILE` shows a file with every default filled in. Devices' properties are on a",
        "[page of their own](devices/properties.md).",
        "",
        *_table(schema, schema),
    ]
    for title, below in _below(schema, schema["properties"], ""):
        said = [below["description"], ""] if "description" in below else []
        lines += ["", f"## {title}", "", *said, *_table(schema, below)]
    lines += _backends()
    return "\n".join(lines) + "\n"


def _below(schema: Any, properties: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """(path of keys, schema) of each mapping with keys of its own, at any depth."""
    for name, row in properties.items():
        target = _followed(schema, row)
        if "anyOf" in target:  # one, or a list of them: what is known of one
            branches = [_followed(schema, branch) for branch in target["anyOf"]]
            target = next((branch for branch in branches if branch.get("properties")), target)
        where = f"{path}.{name}" if path else name
        items = _followed(schema, target.get("items", {}))
        extra = target.get("additionalProperties")
        entry = _followed(schema, extra) if isinstance(extra, dict) else {}
        if target.get("properties"):
            yield where, target
            yield from _below(schema, target["properties"], where)
        elif items.get("properties"):
            yield f"{where}[]", items
        elif entry.get("properties"):
            yield f"{where}.ID", entry


def _table(schema: Any, row: Any) -> list[str]:
    needed = row.get("required", ())
    lines = ["| key | kind | meaning |", "|---|---|---|"]
    for name, below in row["properties"].items():
        target = _followed(schema, below)
        meaning = str(below.get("description") or target.get("description") or "")
        if "default" in below:
            meaning += f"; {_plain(below['default'])} when not given"
        if name in needed:
            meaning += "; **needed**"
        lines.append(f"| `{name}` | {_cell(_kind(schema, below))} | {_cell(meaning.lstrip('; '))} |")
    return lines


def _kind(schema: Any, row: Any) -> str:
    target = _followed(schema, row)
    if "const" in target:
        return f"`{target['const']}`"
    if "enum" in target:
        return ", ".join(f"`{choice}`" for choice in target["enum"])
    if "anyOf" in target:
        return " or ".join(dict.fromkeys(_kind(schema, branch) for branch in target["anyOf"]))
    kind = str(target.get("type", "anything"))
    if kind == "array":
        items = _kind(schema, target.get("items", {}))
        return f"list of {items}" if " or " not in items else "list"
    if kind == "integer" and ("minimum" in target or "maximum" in target):
        low, high = target.get("minimum"), target.get("maximum")
        return f"number {low}…{high}" if high is not None else f"number from {low}"
    return WORDS.get(kind, kind)


def _followed(schema: Any, row: Any) -> Any:
    while "$ref" in row:
        row = schema["$defs"][row["$ref"].rpartition("/")[2]]
    return row


def _backends() -> list[str]:
    """The options of drives, and of each type of chardev and netdev."""
    tables = read_json(os.path.join(data_dir("schema"), "backends.json"))
    lines = ["", "## Options of drives", "", *_options(tables["drives"]["props"])]
    formats = tables["drives"]["formats"]
    modelled, to_come = ([name for name in formats if bool(formats[name].get("planned")) is p] for p in (False, True))
    lines += ["", f"Formats: {', '.join(modelled)}. To come: {', '.join(to_come)}."]
    for kind in ("chardev", "netdev"):
        for name, row in tables[f"{kind}s"].items():
            planned = " (to come)" if row.get("planned") else ""
            lines += ["", f"## Options of {kind} type `{name}`{planned}", ""]
            lines += _options(row["props"]) if row["props"] else ["None."]
    return lines


def _options(props: list[dict[str, Any]]) -> list[str]:
    lines = ["| option | kind | meaning |", "|---|---|---|"]
    for prop in props:
        meaning = prop.get("doc") or ""
        if prop.get("default") is not None:
            meaning += f"; {_plain(prop['default'])} when not given"
        meaning += "; **needed**" if prop.get("required") else ""
        meaning += "; to come" if prop.get("planned") else ""
        kind = ", ".join(f"`{choice}`" for choice in prop.get("choices") or ()) or prop["type"]
        lines.append(f"| `{prop['name']}` | {_cell(kind)} | {_cell(meaning.lstrip('; '))} |")
    return lines


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


PAGES: dict[str, Callable[[], str]] = {"errors.md": errors_page, "machine-file.md": machine_file_page}


def main() -> None:
    docs = os.path.join(os.path.dirname(data_dir("schema")), "docs")
    for name, make in PAGES.items():
        with open(os.path.join(docs, name), "w", encoding="utf-8") as file:
            file.write(make())
    with open(os.path.join(examples(), "machine.schema.json"), "w", encoding="utf-8") as file:
        file.write(example_schema())


def examples() -> str:
    return os.path.join(os.path.dirname(data_dir("schema")), "examples")


def example_schema() -> str:
    """The schema that the examples name, for editors: `vmrun schema` in their directory, without the white space."""
    from vmrun.config.editors import editor_schema

    return json.dumps(editor_schema("machine", examples()), separators=(",", ":"), ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
