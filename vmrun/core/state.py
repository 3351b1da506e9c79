"""What a device keeps, declared: one table says what is saved, what a state may hold, and what reset makes of it.

    class Port92(IsaDevice):
        state = Table("port92", 1, U8("value"))

        def settle(self):
            self.a20.drive(1 if self.value & A20 else 0)

A field names an attribute of its owner, a Device or a chip; in a compiled chip that is a `cdef public` variable. An
array of bytes there is a property that returns `vmrun.core.cells.cells(self, address, size)`: Cython's own conversion
ends at a zero byte. A chip without Python's base class takes its methods from the table: `reset, save, load_state
= state.methods()`.

Create, reset and load are one thing: values go into the attributes, then `settle()` works out what follows from them
(pins, timers, mappings). What is saved is plain: numbers, True and False, bytes, text, None, lists and dicts of them,
with the table's kind and version. `check` looks at a whole state, the parts' included, and changes nothing; `apply`
takes what it returned and does not fail.

Three methods of the owner are called where they exist: `before_save()`; `check_state(values)`, which raises StateError
for values that do not go together; `settle()`.

Times are saved relative to their clock: a moment as its distance from now, a timer as what is left of it.
"""

from __future__ import annotations

from vmrun.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Values = dict[str, Any]
    Reader = Callable[[Values], Values]

# A reset value: the attribute stays as it is.
KEEP: Any = object()
# Moments are within 73 years of now, so that sums of two stay within 64 bits.
FARTHEST = 1 << 61


class Field:
    """One attribute. `reset`: its plain value after reset, KEEP, or a function of the owner that gives it."""

    __slots__ = ("name", "reset")

    def __init__(self, name: str, reset: Any) -> None:
        self.name, self.reset = name, reset

    def check(self, plain: Any, owner: Any, where: str) -> Any:
        """What `put` takes, or StateError."""
        raise NotImplementedError

    def save(self, value: Any, owner: Any) -> Any:
        return value

    def load(self, checked: Any, owner: Any) -> Any:
        return checked

    def get(self, owner: Any) -> Any:
        return self.save(getattr(owner, self.name), owner)

    def put(self, owner: Any, checked: Any) -> None:
        setattr(owner, self.name, self.load(checked, owner))

    def put_reset(self, owner: Any) -> None:
        reset = self.reset
        if reset is not KEEP:
            self.put(owner, reset(owner) if callable(reset) else reset)


def shown(value: Any) -> str:
    """A value for a sentence, short however large it is."""
    if isinstance(value, int | None | bool):
        return str(value) if value is None or abs(value) < 1 << 64 else "a number of more than 64 bits"
    if isinstance(value, bytes | list | dict):
        return f"{type(value).__name__} of {len(value)}"
    text = repr(value) if isinstance(value, str) else type(value).__name__
    return text if len(text) <= 40 else text[:40] + "…"


class Number(Field):
    """An integer from `least` to `most`, or one of `only`."""

    __slots__ = ("least", "most", "only")

    def __init__(self, name: str, least: int, most: int, reset: Any = 0, only: Iterable[int] = ()) -> None:
        super().__init__(name, reset)
        self.least, self.most, self.only = least, most, frozenset(only)

    def check(self, plain: Any, owner: Any, where: str) -> int:
        if type(plain) is not int:
            raise StateError(f"{where} is {shown(plain)}, not a number")
        if not self.least <= plain <= self.most:
            raise StateError(f"{where} is {shown(plain)}, outside {self.least}..{self.most}")
        if self.only and plain not in self.only:
            raise StateError(f"{where} cannot be {plain}")
        return plain

    def save(self, value: Any, owner: Any) -> int:
        return int(value)


def U8(name: str, reset: Any = 0, *, least: int = 0, most: int = 0xFF, only: Iterable[int] = ()) -> Number:
    return Number(name, least, most, reset, only)


def U16(name: str, reset: Any = 0, *, least: int = 0, most: int = 0xFFFF) -> Number:
    return Number(name, least, most, reset)


def U32(name: str, reset: Any = 0, *, least: int = 0, most: int = 0xFFFFFFFF) -> Number:
    return Number(name, least, most, reset)


def U64(name: str, reset: Any = 0, *, most: int = 0xFFFFFFFFFFFFFFFF) -> Number:
    return Number(name, 0, most, reset)


def Signed(name: str, least: int, most: int, reset: Any = 0) -> Number:
    return Number(name, least, most, reset)


class Flag(Field):
    """True or False."""

    __slots__ = ()

    def __init__(self, name: str, reset: Any = False) -> None:
        super().__init__(name, reset)

    def check(self, plain: Any, owner: Any, where: str) -> bool:
        if type(plain) is not bool:
            raise StateError(f"{where} is {shown(plain)}, neither true nor false")
        return plain

    def save(self, value: Any, owner: Any) -> bool:
        return bool(value)


class Bytes(Field):
    """Exactly `size` bytes (a number, or a function of the owner); without a size up to `most`. An attribute that is a
    buffer is filled, any other is set.
    """

    __slots__ = ("each", "most", "size")

    def __init__(
        self, name: str, size: Any = None, reset: Any = None, *, most: int = 0, each: int = 0xFF
    ) -> None:
        super().__init__(name, bytes(size or 0) if reset is None else reset)
        self.size, self.most, self.each = size, most, each

    def check(self, plain: Any, owner: Any, where: str) -> bytes:
        if type(plain) is not bytes:
            raise StateError(f"{where} is {shown(plain)}, not bytes")
        size = self.size(owner) if callable(self.size) else self.size
        if size is not None and len(plain) != size:
            raise StateError(f"{where} has {len(plain)} bytes, not {size}")
        if self.size is None and len(plain) > self.most:
            raise StateError(f"{where} has {len(plain)} bytes, more than {self.most}")
        if self.each < 0xFF and any(byte > self.each for byte in plain):
            raise StateError(f"{where}: a byte is above {self.each}")
        return plain

    def save(self, value: Any, owner: Any) -> bytes:
        return bytes(value)

    def put(self, owner: Any, checked: Any) -> None:
        held = getattr(owner, self.name, None) if self.size is not None else None
        if isinstance(held, bytearray | memoryview):
            held[:] = checked
        else:
            setattr(owner, self.name, checked)


class Words(Field):
    """A list of `count` integers from `least` to `most`."""

    __slots__ = ("count", "least", "most")

    def __init__(self, name: str, count: int, most: int, reset: Any = None, *, least: int = 0) -> None:
        super().__init__(name, [0] * count if reset is None else reset)
        self.count, self.least, self.most = count, least, most

    def check(self, plain: Any, owner: Any, where: str) -> list[int]:
        if type(plain) is not list or len(plain) != self.count:
            raise StateError(f"{where} is {shown(plain)}, not a list of {self.count}")
        for n, word in enumerate(plain):
            if type(word) is not int or not self.least <= word <= self.most:
                raise StateError(f"{where}[{n}] is {shown(word)}, not a number in {self.least}..{self.most}")
        return list(plain)

    def save(self, value: Any, owner: Any) -> list[int]:
        return list(value)

    def load(self, checked: Any, owner: Any) -> list[int]:
        return list(checked)


class Maybe(Field):
    """None, or what another field holds."""

    __slots__ = ("field",)

    def __init__(self, field: Field, reset: Any = None) -> None:
        super().__init__(field.name, reset)
        self.field = field

    def check(self, plain: Any, owner: Any, where: str) -> Any:
        return None if plain is None else self.field.check(plain, owner, where)

    def save(self, value: Any, owner: Any) -> Any:
        return None if value is None else self.field.save(value, owner)

    def load(self, checked: Any, owner: Any) -> Any:
        return None if checked is None else self.field.load(checked, owner)


def clamped(time: int) -> int:
    return max(-FARTHEST, min(FARTHEST, time))


class Moment(Field):
    """A time in ns of the clock that the owner has as `clock`; plain it is the distance from now."""

    __slots__ = ("clock",)

    def __init__(self, name: str, reset: Any = 0, clock: str = "clock") -> None:
        super().__init__(name, reset)
        self.clock = clock

    def check(self, plain: Any, owner: Any, where: str) -> int:
        if type(plain) is not int or not -FARTHEST <= plain <= FARTHEST:
            raise StateError(f"{where} is {shown(plain)}, not a time")
        return plain

    def save(self, value: Any, owner: Any) -> int:
        # A moment that the arithmetic of a chip left beyond the limits is as good as at them.
        return clamped(value - getattr(owner, self.clock).time())

    def load(self, checked: Any, owner: Any) -> int:
        return int(checked + getattr(owner, self.clock).time())


class Deadline(Field):
    """A timer (accel.clock.Timer): None while it is idle, else the ns that are left. Reset stops it."""

    __slots__ = ()

    def __init__(self, name: str) -> None:
        super().__init__(name, None)

    def check(self, plain: Any, owner: Any, where: str) -> int | None:
        if plain is None:
            return None
        if type(plain) is not int or not -FARTHEST <= plain <= FARTHEST:
            raise StateError(f"{where} is {shown(plain)}, not a time")
        return plain

    def save(self, value: Any, owner: Any) -> int | None:
        if value.deadline < 0:
            return None
        return clamped(value.deadline - value.queue.clock.time())

    def arm(self, timer: Any, left: int | None) -> None:
        if left is None:
            timer.stop()
        else:
            timer.schedule(max(0, left + timer.queue.clock.time()))

    def put(self, owner: Any, checked: Any) -> None:
        self.arm(getattr(owner, self.name), checked)


class Deadlines(Field):
    """A list of timers."""

    __slots__ = ("one",)

    def __init__(self, name: str) -> None:
        super().__init__(name, KEEP)
        self.one = Deadline(name)

    def check(self, plain: Any, owner: Any, where: str) -> list[int | None]:
        count = len(getattr(owner, self.name))
        if type(plain) is not list or len(plain) != count:
            raise StateError(f"{where} is {shown(plain)}, not a list of {count}")
        return [self.one.check(left, owner, f"{where}[{n}]") for n, left in enumerate(plain)]

    def save(self, value: Any, owner: Any) -> list[int | None]:
        return [self.one.save(timer, owner) for timer in value]

    def put(self, owner: Any, checked: Any) -> None:
        for timer, left in zip(getattr(owner, self.name), checked, strict=True):
            self.one.arm(timer, left)

    def put_reset(self, owner: Any) -> None:
        for timer in getattr(owner, self.name):
            timer.stop()


class Rows(Field):
    """A list of `count` dicts, each with `fields`: an array of C structs, or of plain records. A tuple as the reset
    value of a field has one value for each row.
    """

    __slots__ = ("count", "fields")

    def __init__(self, name: str, count: int, *fields: Field) -> None:
        super().__init__(
            name,
            [
                {field.name: field.reset[n] if isinstance(field.reset, tuple) else field.reset for field in fields}
                for n in range(count)
            ],
        )
        self.count, self.fields = count, fields

    def check(self, plain: Any, owner: Any, where: str) -> list[Values]:
        if type(plain) is not list or len(plain) != self.count:
            raise StateError(f"{where} is {shown(plain)}, not a list of {self.count}")
        return [check_fields(self.fields, row, owner, f"{where}[{n}]") for n, row in enumerate(plain)]

    def save(self, value: Any, owner: Any) -> list[Values]:
        return [{field.name: field.save(row[field.name], owner) for field in self.fields} for row in value]

    def load(self, checked: Any, owner: Any) -> list[Values]:
        return [{field.name: field.load(row[field.name], owner) for field in self.fields} for row in checked]


class Record(Field):
    """A dict with `fields`, such as a chip of the host's kernel gives."""

    __slots__ = ("fields",)

    def __init__(self, name: str, *fields: Field) -> None:
        super().__init__(name, KEEP)
        self.fields = fields

    def check(self, plain: Any, owner: Any, where: str) -> Values:
        return check_fields(self.fields, plain, owner, where)

    def save(self, value: Any, owner: Any) -> Values:
        return {field.name: field.save(value[field.name], owner) for field in self.fields}

    def load(self, checked: Any, owner: Any) -> Values:
        return {field.name: field.load(checked[field.name], owner) for field in self.fields}


class Part(Field):
    """Another object with a table of its own, reset with its owner unless it is to be kept. None where there is none.
    """

    __slots__ = ()

    def __init__(self, name: str, reset: Any = None) -> None:
        super().__init__(name, reset)

    def check(self, plain: Any, owner: Any, where: str) -> Any:
        part = getattr(owner, self.name)
        if part is None:
            if plain is not None:
                raise StateError(f"{where}: there is none to load into")
            return None
        return table_of(part).check(part, plain, where)

    def save(self, value: Any, owner: Any) -> Any:
        return None if value is None else table_of(value).save(value)

    def put(self, owner: Any, checked: Any) -> None:
        part = getattr(owner, self.name)
        if part is not None:
            table_of(part).apply(part, checked)

    def put_reset(self, owner: Any) -> None:
        part = getattr(owner, self.name)
        if part is not None and self.reset is not KEEP:
            part.reset()


class Parts(Field):
    """A list of such objects, or a dict of them by name."""

    __slots__ = ()

    def __init__(self, name: str) -> None:
        super().__init__(name, KEEP)

    def _held(self, owner: Any) -> dict[str, Any]:
        held = getattr(owner, self.name)
        return held if isinstance(held, dict) else {str(n): part for n, part in enumerate(held)}

    def check(self, plain: Any, owner: Any, where: str) -> Any:
        parts = self._held(owner)
        if type(plain) is not dict or set(plain) != set(parts):
            raise StateError(f"{where} has not the parts {', '.join(parts) or '(none)'}")
        return {key: table_of(part).check(part, plain[key], f"{where}[{key}]") for key, part in parts.items()}

    def get(self, owner: Any) -> Any:
        return {key: table_of(part).save(part) for key, part in self._held(owner).items()}

    def put(self, owner: Any, checked: Any) -> None:
        for key, part in self._held(owner).items():
            table_of(part).apply(part, checked[key])

    def put_reset(self, owner: Any) -> None:
        for part in self._held(owner).values():
            part.reset()


def check_fields(fields: Iterable[Field], plain: Any, owner: Any, where: str) -> Values:
    """The checked value of each field, by name. StateError when one is wrong, missing or unknown."""
    if type(plain) is not dict:
        raise StateError(f"{where} is {shown(plain)}, not a set of fields")
    values = {}
    for field in fields:
        if field.name not in plain:
            raise StateError(f"{where}.{field.name} is missing")
        values[field.name] = field.check(plain[field.name], owner, f"{where}.{field.name}")
    if len(plain) > len(values):
        raise StateError(f"{where} has unknown fields: {', '.join(sorted(map(str, set(plain) - set(values)))[:4])}")
    return values


class Table:
    """The fields of one kind of device or chip.

    `readers` make a state of this version out of another's: {version: function of the fields that returns the fields},
    or {(kind, version): …} for a state of another kind (a chip in KVM's kernel and ours are the same chip).
    """

    __slots__ = ("_hooks", "fields", "kind", "readers", "version")

    def __init__(
        self, kind: str, version: int, *fields: Field, readers: dict[int | tuple[str, int], Reader] | None = None
    ) -> None:
        self.kind, self.version, self.fields = kind, version, fields
        self.readers = {key if isinstance(key, tuple) else (kind, key): read for key, read in (readers or {}).items()}
        self._hooks: dict[type, tuple[Any, Any, Any]] = {}

    def extend(self, kind: str, version: int, *fields: Field, **more: Any) -> Table:
        """A subclass's table: these fields, after those that are here."""
        return Table(kind, version, *self.fields, *fields, **more)

    def __bool__(self) -> bool:
        return bool(self.fields)

    def hooks(self, owner: Any) -> tuple[Any, Any, Any]:
        """before_save, check_state and settle of the owner's class; None for one that it does not have."""
        cls = type(owner)
        found = self._hooks.get(cls)
        if found is None:
            names = ("before_save", "check_state", "settle")
            before, check, settle = (getattr(cls, name, None) for name in names)
            found = self._hooks[cls] = (before, check, settle)
        return found

    def save(self, owner: Any) -> Values:
        if not self.fields:
            return {}
        before = self.hooks(owner)[0]
        if before is not None:
            before(owner)
        values: Values = {"of": self.kind, "version": self.version}
        for field in self.fields:
            values[field.name] = field.get(owner)
        return values

    def check(self, owner: Any, plain: Any, where: str = "") -> Values:
        """What `apply` takes. StateError names the first thing that is wrong."""
        where = where or self.kind
        if type(plain) is not dict:
            raise StateError(f"{where} is {shown(plain)}, not a set of fields")
        if not self.fields:
            if plain:
                raise StateError(f"{where or type(owner).__name__} has no state to load")
            return {}
        rest = dict(plain)
        kind, version = rest.pop("of", None), rest.pop("version", None)
        if (kind, version) != (self.kind, self.version) or type(version) is not int:
            rest = self._read(kind, version, rest, where)
        values = check_fields(self.fields, rest, owner, where)
        check = self.hooks(owner)[1]
        if check is not None:
            check(owner, values)
        return values

    def _read(self, kind: Any, version: Any, rest: Values, where: str) -> Values:
        if type(kind) is not str or type(version) is not int:
            raise StateError(f"{where} tells no kind and version")
        read = self.readers.get((kind, version))
        if read is None:
            raise StateError(
                f"{where} is a state of {shown(kind)}, version {shown(version)}; "
                f"this is {self.kind}, version {self.version}"
            )
        try:
            return read(rest)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as exc:
            raise StateError(f"{where} is no state of {kind}, version {version}: {shown(str(exc))}") from None

    def apply(self, owner: Any, values: Values) -> None:
        """Take what `check` of the same owner returned."""
        for field in self.fields:
            field.put(owner, values[field.name])
        self.settle(owner)

    def reset(self, owner: Any) -> None:
        for field in self.fields:
            field.put_reset(owner)
        self.settle(owner)

    def load(self, owner: Any, plain: Any, where: str = "") -> None:
        """check, then apply: StateError with nothing changed, or all of it."""
        self.apply(owner, self.check(owner, plain, where))

    def settle(self, owner: Any) -> None:
        settle = self.hooks(owner)[2]
        if settle is not None:
            settle(owner)

    def methods(self) -> tuple[Any, Any, Any]:
        """reset, save and load_state for the body of a compiled class (`load` reads a register of an IoRegion)."""

        def reset(self: Any) -> None:
            table_of(self).reset(self)

        def save(self: Any) -> Values:
            return table_of(self).save(self)

        def load(self: Any, state: Values) -> None:
            table_of(self).load(self, state)

        return reset, save, load


def table_of(owner: Any) -> Table:
    table: Table = type(owner).state
    return table


class Stateful:
    """Base of Python classes with a table."""

    state = Table("", 1)

    def before_save(self) -> None:
        """Bring attributes up to date."""

    def check_state(self, values: Values) -> None:
        """StateError for values that do not go together."""

    def settle(self) -> None:
        """Work out what follows from the attributes: pins, timers, mappings."""

    def reset(self) -> None:
        self.state.reset(self)

    def save(self) -> Values:
        return self.state.save(self)

    def load(self, state: Values) -> None:
        self.state.load(self, state)
