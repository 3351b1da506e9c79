"""The table as `query-qmp-schema` tells it: QEMU's SchemaInfo, with type names that mean nothing to a client."""

from __future__ import annotations

from vmrun.monitor import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

META = ("builtin", "enum", "array", "object", "alternate", "command", "event")
table.enums["SchemaMetaType"] = META
# SchemaInfo is a union by meta-type; clients read it as it comes.
table.struct("SchemaInfo", name="str", meta_type="SchemaMetaType")


def describe() -> list[dict[str, Any]]:
    """SchemaInfo of every command, event and type that they need."""
    return _Schema().entries


class _Schema:
    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.names: dict[str, str] = {}
        for command in table.load().values():
            entry = {
                "name": command.name,
                "meta-type": "command",
                "arg-type": self.members(f"{command.name}-arg", command.args),
                "ret-type": self.type(command.returns) if command.returns else self.members("", {}),
            }
            self.entries.append(entry)
        for name, members in table.events.items():
            arg = self.members(f"{name}-arg", members)
            self.entries.append({"name": name, "meta-type": "event", "arg-type": arg})

    def members(self, key: str, members: dict[str, str]) -> str:
        """The name of an object type with these members; without any it is the one that they all share."""
        key = key if members else "empty"
        if key in self.names:
            return self.names[key]
        name = self.names[key] = str(len(self.names))
        rows: list[dict[str, Any]] = []
        entry = {"name": name, "meta-type": "object", "members": rows}
        self.entries.append(entry)
        for member, kind in members.items():
            row: dict[str, Any] = {"name": member.removesuffix("?"), "type": self.type(kind)}
            if member.endswith("?"):
                row["default"] = None
            rows.append(row)
        return name

    def type(self, kind: str) -> str:
        if kind in table.structs:
            return self.members(kind, table.structs[kind])
        if kind in self.names:
            return self.names[kind]
        entry: dict[str, Any]
        if kind[0] == "[":
            inner = self.type(kind[1:-1])
            if kind in self.names:  # a type that holds a list of itself
                return self.names[kind]
            entry = {"name": f"[{inner}]", "meta-type": "array", "element-type": inner}
        elif kind in table.enums:
            values = table.enums[kind]
            entry = {
                "name": str(len(self.names)),
                "meta-type": "enum",
                "members": [{"name": value} for value in values],
                "values": list(values),
            }
        else:
            entry = {"name": kind, "meta-type": "builtin", "json-type": table.SIMPLE[kind][0]}
        self.names[kind] = entry["name"]
        self.entries.append(entry)
        return str(entry["name"])
