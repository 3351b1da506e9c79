"""What a blkdebug node is told to do: by options, or by a file of sections as QEMU has them.

    [inject-error]
    event = "read_aio"
    errno = "5"

Ref: QEMU docs/devel/blkdebug.txt.
"""

from __future__ import annotations

from vmrun.backends.block.debug import EVENTS, KINDS, DebugNode
from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.nodeoptions import flag, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# section → what a rule of it may say
SECTIONS = {
    "inject-error": ("event", "state", "iotype", "errno", "sector", "once", "immediately"),
    "set-state": ("event", "state", "new_state"),
}
MOST = 1 << 20  # bytes of a file
# limit → of which other one it is a multiple, besides `align`
LIMITS = {
    "align": "", "max-transfer": "", "opt-write-zero": "", "max-write-zero": "opt-write-zero", "opt-discard": "",
    "max-discard": "opt-discard",
}  # fmt: skip
MOST_ALIGN, MOST_BYTES = 1 << 31, (1 << 31) - 1


def debug_node(node: Any, options: dict[str, Any]) -> DebugNode:
    """A node over `node` with the rules of `config` (a file), `inject-error` and `set-state`. ImageError."""
    rules = read_rules(str(options["config"])) if options.get("config") else []
    for section in SECTIONS:
        given = options.get(section) or []
        for rule in given.values() if isinstance(given, dict) else given:
            if not isinstance(rule, dict):
                raise ImageError(f"Invalid parameter type for '{section}'")
            for key in rule:
                if key not in SECTIONS[section]:
                    raise ImageError(f"[{section}] section doesn't support the option '{key}'")
            rules.append((section, rule))
    found = DebugNode(node)
    for section, rule in rules:
        _add(found, section, rule)
    _bound(found, options)
    return found


def _bound(node: DebugNode, options: dict[str, Any]) -> None:
    """What its requests are like."""
    given = {key: int(options.get(key) or 0) for key in LIMITS}
    align = given["align"] or 1
    if align & align - 1 or align >= MOST_ALIGN:
        raise ImageError(f"Cannot meet constraints with align {align}")
    for key, unit in LIMITS.items():
        value, whole = given[key], max(given.get(unit, 0), align)
        if value and (value % whole or value > MOST_BYTES):
            raise ImageError(f"Cannot meet constraints with {key} {value}")
    node.align, node.max_transfer = align, given["max-transfer"]
    node.opt_zero, node.max_zero = given["opt-write-zero"], given["max-write-zero"]
    node.opt_discard, node.max_discard = given["opt-discard"], given["max-discard"]


def may_write(node: Any) -> None:
    """Who writes whole blocks only cannot where the file ends in a part of one, and is not to grow. ImageError."""
    if not node.readonly and node.size % node.align:
        raise ImageError(
            "Cannot get 'write' permission without 'resize': Image size is not a multiple of request alignment"
        )


def _add(node: DebugNode, section: str, rule: dict[str, Any]) -> None:
    event = rule.get("event")
    if event is None:
        raise ImageError("Missing event name for rule")
    if event not in EVENTS:
        raise ImageError(f"invalid parameter value: {event}")
    kind = rule.get("iotype")
    if kind is not None and kind not in KINDS:
        raise ImageError(f"invalid parameter value: {kind}")
    state = number("state", rule.get("state", 0))
    try:
        if section == "set-state":
            node.set_state(event, number("new_state", rule.get("new_state", 0)), state)
            return
        flag("immediately", rule.get("immediately", False))  # before who asked goes on, which every error is here
        sector = number("sector", rule.get("sector", -1), negative=True)
        node.inject(
            event, number("errno", rule.get("errno", 5)), kinds=None if kind is None else [kind],
            sector=None if not 0 <= sector < 1 << 54 else sector, once=flag("once", rule.get("once", False)),
            state=state,
        )  # fmt: skip
    except OverflowError:
        raise ImageError("a number of a blkdebug rule is out of range") from None
    except ValueError as error:
        raise ImageError(f"blkdebug: {error}") from None


def read_rules(path: str) -> list[tuple[str, dict[str, Any]]]:
    """(section, {key: value}) in the order of the file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(MOST)
    except OSError as error:
        raise ImageError(f"Could not read blkdebug config file: {error.strerror}") from None
    except ValueError:
        raise ImageError("Could not read blkdebug config file: No such file or directory") from None
    found: list[tuple[str, dict[str, Any]]] = []
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            name = line.strip("[]").split('"')[0].strip()
            if name not in SECTIONS:
                raise ImageError(f"There is no option group '{name}'")
            found.append((name, {}))
            continue
        key, mark, value = line.partition("=")
        if not found:
            raise ImageError("no group defined")
        value = value.strip()
        if not mark or len(value) < 2 or value[0] != '"' or value[-1] != '"':
            raise ImageError("Could not parse blkdebug config file")
        if key.strip() not in SECTIONS[found[-1][0]]:
            raise ImageError(f"Invalid parameter '{key.strip()}'")
        found[-1][1][key.strip()] = value[1:-1]
    return found
