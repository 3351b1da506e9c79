"""The table as `query-qmp-schema` tells it: QEMU's SchemaInfo, with type names that mean nothing to a client."""

from __future__ import annotations

from vmrun.monitor import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

META = ("builtin", "enum", "array", "object", "alternate", "command", "event")
table.enums["SchemaMetaType"] = META
table.enums["JSONType"] = ("string", "number", "int", "boolean", "null", "object", "array", "value")
table.struct("SchemaInfoBuiltin", {"json-type": "JSONType"})
table.struct("SchemaInfoEnumMember", {"name": "str", "features?": "[str]"})
table.struct("SchemaInfoEnum", {"members": "[SchemaInfoEnumMember]", "values": "[str]"})
table.struct("SchemaInfoArray", {"element-type": "str"})
table.struct("SchemaInfoObjectMember", {"name": "str", "type": "str", "default?": "any", "features?": "[str]"})
table.struct("SchemaInfoObjectVariant", {"case": "str", "type": "str"})
table.struct(
    "SchemaInfoObject",
    {"members": "[SchemaInfoObjectMember]", "tag?": "str", "variants?": "[SchemaInfoObjectVariant]"},
)
table.struct("SchemaInfoAlternateMember", {"type": "str"})
table.struct("SchemaInfoAlternate", {"members": "[SchemaInfoAlternateMember]"})
table.struct("SchemaInfoCommand", {"arg-type": "str", "ret-type": "str", "allow-oob?": "bool"})
table.struct("SchemaInfoEvent", {"arg-type": "str"})
table.union(
    "SchemaInfo",
    "meta-type",
    {"name": "str", "meta-type": "SchemaMetaType", "features?": "[str]"},
    {kind: f"SchemaInfo{kind.capitalize()}" for kind in META},
)


def describe() -> list[dict[str, Any]]:
    """SchemaInfo of every command, event and type that they need."""
    return _Schema().entries


class _Schema:
    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.names: dict[str, str] = {}
        for command in table.load().values():
            entry: dict[str, Any] = {
                "name": command.name,
                "meta-type": "command",
                "ret-type": self.type(command.returns) if command.returns else self.members("", {}),
            }
            if command.shape:
                entry["arg-type"] = self.type(command.shape)
            else:
                entry["arg-type"] = self.members(f"{command.name}-arg", command.args)
            if command.features:
                entry["features"] = list(command.features)
            if command.oob:
                entry["allow-oob"] = True
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
        entry: dict[str, Any] = {"name": name, "meta-type": "object", "members": rows}
        self.entries.append(entry)
        for member, kind in members.items():
            row: dict[str, Any] = {"name": member.removesuffix("?"), "type": self.type(kind)}
            if member.endswith("?"):
                row["default"] = None
            rows.append(row)
        if key in table.unions:
            tag, cases = table.unions[key]
            entry["tag"] = tag
            entry["variants"] = [{"case": case, "type": self.type(of)} for case, of in cases.items()]
            named = members.get(tag)
            for case in table.enums.get(named or "", ()):
                if case not in cases:
                    entry["variants"].append({"case": case, "type": self.members("", {})})
        return name

    def type(self, kind: str) -> str:
        if kind in table.structs:
            return self.members(kind, table.structs[kind])
        if kind in self.names:
            return self.names[kind]
        entry: dict[str, Any]
        if kind in table.alternates:
            name = self.names[kind] = str(len(self.names))
            entry = {"name": name, "meta-type": "alternate", "members": []}
            self.entries.append(entry)
            entry["members"] = [{"type": self.type(one)} for one in table.alternates[kind]]
            return name
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
