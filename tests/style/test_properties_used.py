"""A property is read by somebody, or says why nothing comes of it (`idle=`), which `vmrun validate` tells."""

from __future__ import annotations

import pathlib
import re
from typing import Any

from vmrun.backends.objects import KINDS, kind_class
from vmrun.core.props import Prop
from vmrun.core.registry import drivers
from vmrun.devices import catalogue

ROOT = pathlib.Path(__file__).resolve().parents[2]
DECLARED = re.compile(r"^    \w+ = (?:Prop|named|_\w+)\((?:[^()]|\([^()]*\))*\)", re.M)
READ_BY_PREFIX = ("vmrun.backends.objects.throttle",)  # all of them at once


def words() -> set[str]:
    """Attributes and quoted names in all code but the properties' own declarations."""
    found: set[str] = set()
    for path in (*ROOT.glob("vmrun/**/*.py*"), *ROOT.glob("accel/**/*.py*")):
        if path.suffix in (".py", ".pyx", ".pxd"):
            text = DECLARED.sub("", path.read_text())
            found.update(re.findall(r"\.(\w+)", text), re.findall(r'"([\w.-]+)"', text))
    return found


def classes() -> list[type]:
    catalogue.load_all()
    return [*drivers.values(), *(kind_class(kind) for kind in KINDS)]


def test_every_property_is_read_or_says_why_not() -> None:
    used = words()
    silent = {
        f"{base.__module__}: {attr}"
        for cls in classes()
        for base in cls.__mro__
        for attr, prop in vars(base).items()
        if isinstance(prop, Prop) and not prop.idle and attr not in used and prop.name not in used
        if base.__module__ not in READ_BY_PREFIX
    }
    assert silent == set()


def test_what_is_said_to_be_idle_changes_nothing_a_guest_sees() -> None:
    known = {"i8042", "isa-fdc", "floppy", "ide-cd"}  # whose guests can't tell in QEMU either
    seen: dict[str, Any] = {
        f"{cls.driver}.{prop.name}": prop
        for cls in drivers.values()
        for base in cls.__mro__
        for prop in vars(base).values()
        if isinstance(prop, Prop) and prop.idle and prop.visible and cls.driver not in known
    }
    assert seen == {}
