"""YAML, the strict part of it that machine files use, with the place of every value.

PyYAML's parser (the C one when it is there) supplies events; what a plain word means is decided here, not
by YAML 1.1: true, false, decimal and 0x numbers, and everything else is text. So 01.2,
52:54:00:12:34:56, on and 2026-01-01 stay as written. Anchors, aliases, merge keys, tags and several
documents are refused: they hide where a value is from.
"""

from __future__ import annotations

from vmrun.config.node import Node
from vmrun.config.reading import MAX_DEPTH, MAX_ENTRIES, Budget, duplicate, nul, too_deep
from vmrun.config.scalar import plain_scalar
from vmrun.errors import ConfigError, Place, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load_yaml(text: str, file: str, problems: list[Problem]) -> Node:
    """The one document in text, as Nodes. Raises ConfigError for syntax; adds duplicate keys to problems."""
    import yaml

    make: Any
    try:
        from yaml._yaml import CParser as make  # libyaml: fifteen times faster
    except ImportError:
        make = yaml.Loader
    try:
        return _document(make(text), file, problems)
    except yaml.reader.ReaderError as error:
        at = error.position if isinstance(error.position, int) else 0
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise ConfigError(
            f"character U+{code:04X} is not allowed in a text file",
            code="VR0104",
            place=_place_of(text, at, file),
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        what = error.problem or "the text cannot be understood"
        if "nesting depth" in what:  # libyaml's own limit, which comes before the events that would show ours
            raise too_deep(place) from None
        if error.context:
            what = f"{what} ({error.context})"
        raise ConfigError(f"not YAML: {what}", code="VR0106", place=place, remedy=_remedy(text, place)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {error}", code="VR0106", place=Place(file)) from None


def _document(parser: Any, file: str, problems: list[Problem]) -> Node:
    from yaml import events

    scalar_event, alias_event = events.ScalarEvent, events.AliasEvent
    mapping_start = events.MappingStartEvent
    ends = (events.MappingEndEvent, events.SequenceEndEvent)
    budget = Budget(file)
    parser.get_event()  # stream start
    if isinstance(parser.get_event(), events.StreamEndEvent):
        raise ConfigError("the file holds only comments", code="VR0103", place=Place(file, 1, 1))
    get = parser.get_event
    left, depth, most = budget.left, 0, MAX_ENTRIES
    stack: list[tuple[Any, dict[str, tuple[int, int]] | None]] = []
    container: Any = None
    keys: dict[str, tuple[int, int]] | None = None  # the keys of a mapping with their places; None in a list
    pending: str | None = None  # the key whose value comes next
    key_at = (0, 0)  # where it stands
    while True:
        event = get()
        cls = type(event)
        if cls in ends:
            container, keys = stack.pop()
            depth -= 1
            if not stack:
                break
            continue
        mark = event.start_mark
        line, col = mark.line + 1, mark.column + 1
        if cls is alias_event or event.anchor is not None or (event.tag is not None and event.tag != "!"):
            raise _refused(event, cls is alias_event, Place(file, line, col))
        if pending is None and keys is not None:
            pending = event.value if cls is scalar_event else ""
            if not pending or pending == "<<" or "\0" in pending:
                pending = _key(event, cls is scalar_event, file, line, col)
            if pending in keys:
                problems.append(duplicate(pending, file, (line, col), keys[pending]))
            keys[pending] = key_at = (line, col)
            continue
        left -= 1
        if left < 0 or depth > MAX_DEPTH or (container is not None and len(container) >= most):
            budget.left = left + 1
            budget.spend(line, col, depth, len(container) + 1 if container is not None else 1)
        if cls is scalar_event:
            text = event.value
            if "\0" in text:
                raise nul(Place(file, line, col))
            value: Any = text if event.style else plain_scalar(text)
        else:
            value = {} if cls is mapping_start else []
        if pending is not None:
            container[pending] = node = Node(value, file, line, col, *key_at)
            pending = None
        else:
            node = Node(value, file, line, col)
            if container is not None:
                container.append(node)
        if cls is not scalar_event:
            if not stack:
                root = node
            stack.append((container, keys))
            depth += 1
            container, keys = value, ({} if cls is mapping_start else None)
        elif not stack:
            root = node
            break
    parser.get_event()  # document end
    event = parser.get_event()
    if not isinstance(event, events.StreamEndEvent):
        raise ConfigError(
            "a second document begins here",
            code="VR0108",
            place=Place(file, event.start_mark.line + 1, event.start_mark.column + 1),
            remedy="one machine per file",
        )
    return root


def _refused(event: Any, alias: bool, place: Place) -> ConfigError:
    if alias or event.anchor is not None:
        sign = "*" if alias else "&"
        return ConfigError(
            f"{sign}{event.anchor}: anchors and aliases are not used in machine files",
            code="VR0108",
            place=place,
            remedy="write the value out, or put what is common in a type of your own (extends:)",
        )
    return ConfigError(
        f"{event.tag}: tags are not used in machine files",
        code="VR0108",
        place=place,
        remedy="remove it; quote the value to make it text",
    )


def _key(event: Any, is_scalar: bool, file: str, line: int, col: int) -> str:
    if not is_scalar:
        raise ConfigError(
            "a key must be a word, not a list or mapping",
            code="VR0106",
            place=Place(file, line, col),
            remedy="quote a value that begins with '{' or '['",
        )
    key: str = event.value
    if key == "<<" and not event.style:
        raise ConfigError(
            "<<: merge keys are not used in machine files",
            code="VR0108",
            place=Place(file, line, col),
            remedy="put what is common in a type of your own (extends:)",
        )
    if not key or "\0" in key:
        raise ConfigError("an empty key", code="VR0106", place=Place(file, line, col))
    return key


def _place_of(text: str, at: int, file: str) -> Place:
    before = text[:at]
    return Place(file, before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1)


def _remedy(text: str, place: Place) -> str:
    lines = text.splitlines()
    line = lines[place.line - 1] if 0 < place.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "indent with spaces; YAML does not allow tabs there"
    if ": " in line.partition(": ")[2] and not line.lstrip().startswith(("-", "{")):
        return "quote a value that itself contains ': '"
    return ""
