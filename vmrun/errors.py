"""What vmrun says when something is wrong: one exception family, and the problems it carries.

Nothing below vmrun.cli prints or exits; it raises one of these. A Problem is what a user reads: where,
what, and what to do about it. Codes (VR####) are explained by vmrun.config.codes and `vmrun explain`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

ERROR = "error"
WARNING = "warning"


class Place:
    """A position in a file: line and column count from 1; line 0 means the file as a whole."""

    __slots__ = ("col", "file", "line")

    def __init__(self, file: str, line: int = 0, col: int = 0) -> None:
        self.file = file
        self.line = line
        self.col = col

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.col}" if self.line else self.file

    def __repr__(self) -> str:
        return f"Place({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def key(self) -> tuple[str, int, int]:
        return self.file, self.line, self.col


class Problem:
    """One thing that is wrong.

    path is where in the file's structure ('devices[3].addr'); also holds the other owners of a clash as
    (place, sentence); nearest is the known name that looks most like the one given. facts are the names that the
    message speaks of, for those who say it in other words (vmrun.config.qemuwords).
    """

    __slots__ = ("also", "code", "facts", "message", "nearest", "path", "place", "remedy", "severity")

    def __init__(
        self,
        code: str,
        message: str,
        place: Place | None = None,
        *,
        path: str = "",
        remedy: str = "",
        nearest: str = "",
        also: Sequence[tuple[Place, str]] = (),
        severity: str = ERROR,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        self.code = code
        self.message = message
        self.place = place
        self.path = path
        self.remedy = remedy
        self.nearest = nearest
        self.also = tuple(also)
        self.severity = severity
        self.facts = facts or {}

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"Problem({self.text()!r})"

    def text(self) -> str:
        """The problem as lines of text: the first says where and what, indented ones follow."""
        where = f"{self.place}: " if self.place is not None else ""
        lines = [f"{where}{self.severity} {self.code}: {self.message}"]
        if self.path:
            lines.append(f"    at {self.path}")
        lines.extend(f"    {place}: {sentence}" for place, sentence in self.also)
        if self.nearest:
            lines.append(f"    did you mean '{self.nearest}'?")
        if self.remedy:
            lines.append(f"    {self.remedy}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The problem for JSON: code, severity, message, file, line, column, path, also, nearest, remedy."""
        place = self.place or Place("")
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "file": place.file,
            "line": place.line,
            "column": place.col,
            "path": self.path,
            "also": [
                {"file": p.file, "line": p.line, "column": p.col, "message": sentence} for p, sentence in self.also
            ],
            "nearest": self.nearest,
            "remedy": self.remedy,
        }


HOST_SIDE = ("VR0620", "VR0621", "VR0622", "VR0623", "VR0626", "VR0628", "VR063", "VR0900", "VR0901", "VR092", "VR093")


def exit_code(problems: Iterable[Problem]) -> int:
    """What a command ends with: 0 without an error, 3 when all errors are the host's (a missing image, too little
    memory), 1 when there is one that the machine's file can be blamed for.
    """
    codes = [problem.code for problem in problems if problem.severity == ERROR]
    if not codes:
        return 0
    return 3 if all(code.startswith(HOST_SIDE) for code in codes) else 1


class VmrunError(Exception):
    """Something a user can act on; exit_code is what the command ends with, problems what it prints."""

    exit_code = 3
    default_code = "VR0900"

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "",
        place: Place | None = None,
        path: str = "",
        remedy: str = "",
        problems: Iterable[Problem] = (),
    ) -> None:
        found = tuple(problems)
        if not found:
            found = (Problem(code or self.default_code, message, place, path=path, remedy=remedy),)
        self.problems = found
        super().__init__(found[0].text())

    def __str__(self) -> str:
        return self.problems[0].text()

    @property
    def code(self) -> str:
        return self.problems[0].code

    @property
    def place(self) -> Place | None:
        return self.problems[0].place

    @property
    def remedy(self) -> str:
        return self.problems[0].remedy


class ConfigError(VmrunError):
    """A machine or type file is wrong, or names what the host does not have; carries every problem found."""

    default_code = "VR0100"

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        return exit_code(self.problems) or 1


class BuildError(VmrunError):
    """The machine is well described but cannot be built here."""

    default_code = "VR0910"


class about:  # noqa: N801  # read as a word: `with about("kernel", "VR0630"):`
    """Errors that leave the block are about this path of the machine's file, and of this code (those of this kind),
    unless they say more themselves. A path that begins with a dot is within this one.
    """

    __slots__ = ("code", "kind", "path")

    def __init__(self, path: str, code: str = "", kind: type[VmrunError] = VmrunError) -> None:
        self.path, self.code, self.kind = path, code, kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, VmrunError):
            for problem in error.problems:
                if not problem.path or problem.path[0] == ".":
                    problem.path = self.path + problem.path
                if self.code and isinstance(error, self.kind) and problem.code == error.default_code:
                    problem.code = self.code


class BackendError(VmrunError):
    """A file, socket or terminal of the host does not do what the machine asks of it."""

    default_code = "VR0920"


class AccelError(VmrunError):
    """No accelerator, or one that gave up."""

    default_code = "VR0930"


class StateError(VmrunError):
    """Saved state that cannot be loaded."""

    default_code = "VR0940"


class MonitorError(VmrunError):
    """A monitor command that cannot be done. `kind`: QMP's class of it, as GenericError, if a machine said so."""

    default_code = "VR0950"
    kind = ""


def refusal(error: dict[str, str]) -> MonitorError:
    """What a QMP answer's `error` says."""
    made = MonitorError(error["desc"])
    made.kind = error["class"]
    return made
