"""authz-simple, authz-list and authz-list-file: which of those who have shown who they are may come in.

A name is what a TLS client's certificate says of it ("C=GB,O=Home,CN=laptop") or whom SASL found. Where
nothing can be told of a name it is refused.
"""

from __future__ import annotations

from vmrun.core.props import Prop
from vmrun.core.userobject import UserObject
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

POLICIES, FORMATS = ("deny", "allow"), ("exact", "glob")
MOST = 1 << 20  # bytes of a file of rules


class Authz(UserObject):
    """What they have in common: the question."""

    def allows(self, name: str) -> bool:
        """Whether it may come in."""
        return False


class _Rules(Prop):
    """A list of {match, policy, format}."""

    __slots__ = ()

    def check(self, value: Any, obj: Any = None) -> Any:
        return [_rule(one) for one in _list(value)]


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BuildError("Invalid parameter type for 'rules', expected: array")
    return value


def _rule(given: Any) -> dict[str, str]:
    if not isinstance(given, dict):
        raise BuildError("Invalid parameter type for 'rules', expected: object")
    for key in given:
        if key not in ("match", "policy", "format"):
            raise BuildError(f"Parameter '{key}' is unexpected")
    found = {"match": given.get("match"), "policy": given.get("policy"), "format": given.get("format", "exact")}
    for key, choices in (("match", ()), ("policy", POLICIES), ("format", FORMATS)):
        if found[key] is None:
            raise BuildError(f"Parameter '{key}' is missing")
        if not isinstance(found[key], str):
            raise BuildError(f"Invalid parameter type for '{key}', expected: string")
        if choices and found[key] not in choices:
            raise BuildError(f"Parameter '{key}' does not accept value '{found[key]}'")
    return found


def decide(name: str, rules: list[dict[str, str]], policy: str) -> bool:
    """The first rule that matches decides, else the policy. A glob has * and ? alone."""
    from fnmatch import fnmatchcase

    for rule in rules:
        if fnmatchcase(name, rule["match"].replace("[", "[[]")) if rule["format"] == "glob" else name == rule["match"]:
            return rule["policy"] == "allow"
    return policy == "allow"


class Simple(Authz):
    driver = "authz-simple"

    identity = Prop("str", doc="the one name that may come in")

    def complete(self, platform: Platform) -> None:
        if self.identity is None:
            raise BuildError("The 'identity' property must be set")

    def allows(self, name: str) -> bool:
        return bool(name == self.identity)


class List(Authz):
    driver = "authz-list"

    policy = Prop("enum", "deny", "what becomes of a name that no rule matches", choices=POLICIES)
    rules = _Rules("rules", doc="{match, policy, format: exact or glob}, of which the first that matches decides")

    def allows(self, name: str) -> bool:
        return decide(name, self.rules or [], self.policy)


class ListFile(Authz):
    """Read anew when it has changed; one that cannot be read lets nobody in."""

    driver = "authz-list-file"

    filename = Prop("str", doc="a file of JSON that has a policy and rules, as authz-list has them")
    refresh = Prop("bool", True, "read it anew when it has changed")

    def complete(self, platform: Platform) -> None:
        if not self.filename:
            raise BuildError("filename not provided")
        self._seen = self._stamp()
        self._read()

    def _stamp(self) -> tuple[int, ...]:
        import os

        try:
            found = os.stat(self.filename)
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> None:
        import json

        self.policy, self.rules = "deny", []
        try:
            with open(self.filename, "rb") as file:
                data = json.loads(file.read(MOST))
        except OSError as error:
            raise BuildError(f"Unable to read '{self.filename}': {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise BuildError(f"{self.filename} is not JSON: {error}") from None
        if not isinstance(data, dict):
            raise BuildError("File '" + self.filename + "' must contain a JSON object")
        policy = data.get("policy", "deny")
        if policy not in POLICIES:
            raise BuildError(f"Parameter 'policy' does not accept value '{policy}'")
        rules = [_rule(one) for one in _list(data.get("rules", []))]
        self.policy, self.rules = policy, rules

    def allows(self, name: str) -> bool:
        if self.refresh and self._stamp() != self._seen:
            self._seen = self._stamp()
            try:
                self._read()
            except BuildError:
                return False
        return decide(name, self.rules, self.policy)
