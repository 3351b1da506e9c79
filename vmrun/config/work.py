"""What the steps of resolving share: the devices being filled in, the problems found, and who wrote what."""

from __future__ import annotations

import os

from vmrun.config.near import nearest
from vmrun.config.spec import DeviceSpec
from vmrun.errors import ERROR, WARNING, Place, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from vmrun.config.catalogue import Catalogue, Driver
    from vmrun.config.machinetypes import TypeSpec
    from vmrun.config.spec import MachineSpec


MOST_NEAREST = 200  # problems for which a nearest name is looked for


class Dev:
    """A device on its way to being resolved. idle: not modelled or faulty, so later steps leave it alone."""

    __slots__ = (
        "addr", "bus", "changed", "driver", "entry", "id", "idle", "in_kernel", "in_kernel_props", "props",
        "provides", "spec",
    )  # fmt: skip

    def __init__(self, spec: DeviceSpec, driver: str, entry: Driver | None) -> None:
        self.spec = spec
        self.id = spec.id
        self.driver = driver
        self.entry = entry
        self.in_kernel = spec.in_kernel
        self.in_kernel_props: dict[str, Any] = {}
        self.bus: str | None = None
        self.addr: str | None = None
        self.provides: dict[str, str] = dict(spec.provides)
        self.props: dict[str, Any] = {}
        self.idle = entry is None or entry.planned
        self.changed = False  # a board device that the file changes

    @property
    def board(self) -> bool:
        return self.spec.origin == "board"

    @property
    def label(self) -> str:
        return f"{self.driver} '{self.id}'"

    @property
    def planned(self) -> bool:
        """Declared by QEMU, not modelled yet: idle, but what it occupies is occupied."""
        return self.entry is not None and self.entry.planned


class Bus:
    """A bus: its kind, the device that has it (None for the root), and whether anything can be said about
    it.
    """

    __slots__ = ("idle", "kind", "members", "name", "owner")

    def __init__(self, name: str, kind: str, owner: Dev) -> None:
        self.name = name
        self.kind = kind
        self.owner = owner
        self.idle = owner.idle
        self.members: list[Dev] = []

    @property
    def unknown(self) -> bool:
        """Whether nothing can be said of what is plugged in: its owner is faulty. Planned owners are known."""
        return self.idle and not self.owner.planned


class Work:
    """One resolving: input (spec, type, catalogue, directory of the file) and what has been found so far."""

    __slots__ = (
        "buses", "catalogue", "chardevs", "devices", "directory", "drives", "idle_backends", "machine_type",
        "files", "ide", "missing", "netdevs", "object_kinds", "objects", "places", "problems", "spec",
    )  # fmt: skip

    def __init__(
        self,
        spec: MachineSpec,
        machine_type: TypeSpec,
        catalogue: Catalogue,
        directory: str,
        problems: list[Problem],
    ) -> None:
        self.spec = spec
        self.machine_type = machine_type
        self.catalogue = catalogue
        self.directory = directory
        self.problems = problems
        self.places: dict[str, tuple[str, int, int]] = {}
        self.devices: list[Dev] = []
        self.buses: dict[str, Bus] = {}
        self.drives: dict[str, dict[str, Any]] = {}
        self.ide: dict[str, list[Dev]] = {}  # bus → drives that are on it or ask for it
        self.files: list[str] = []  # read on the way, beside those of the type and the catalogue
        self.missing: list[str] = []  # looked for in vain
        self.chardevs: dict[str, dict[str, Any]] = {}
        self.netdevs: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, dict[str, Any]] = {}
        self.object_kinds: dict[str, str] = {}  # id → kind, also of those that are not the file's
        self.idle_backends: set[tuple[str, str]] = set()  # (kind, id) of those not modelled or faulty

    def wrong(
        self,
        code: str,
        message: str,
        place: Place | None,
        path: str = "",
        *,
        remedy: str = "",
        nearest: str = "",
        also: Sequence[tuple[Place, str]] = (),
        facts: dict[str, object] | None = None,
        severity: str = ERROR,
    ) -> None:
        self.problems.append(
            Problem(
                code, message, place, path=path, remedy=remedy, nearest=nearest, also=also, facts=facts,
                severity=severity,
            )  # fmt: skip
        )

    def near(self, name: str, known: Iterable[str]) -> str:
        """The nearest known name, as long as there are not so many problems that nobody reads them."""
        return nearest(name, known) if len(self.problems) < MOST_NEAREST else ""

    def warn(self, code: str, message: str, place: Place | None, path: str = "", remedy: str = "") -> None:
        self.problems.append(Problem(code, message, place, path=path, remedy=remedy, severity=WARNING))

    def note(self, path: str, place: Place) -> None:
        """Remember where a value was written."""
        self.places[path] = place.key()


def not_yet(what: str, place: Place, path: str, code: str, plan: str = "", instead: str = "") -> Problem:
    """The problem of something that QEMU has and vmrun does not model yet. plan: a part of docs/planned.md; instead:
    what serves as well.
    """
    remedy = f"docs/planned.md says what becomes of it, under '{plan.replace('-', ' ')}'" if plan else ""
    if instead:
        remedy = f"{instead}; {remedy}" if remedy else instead
    return Problem(code, f"{what} is not modelled yet", place, path=path, remedy=remedy)


def absolute(work: Work, path: str) -> str:
    """A path of the file as the builder wants it: relative ones start at the file's directory."""
    return os.path.normpath(os.path.join(work.directory, os.path.expanduser(path)))
