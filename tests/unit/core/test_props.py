"""Typed properties: what each takes, what it says when it does not, what is declared where."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrun.core.props import Prop, named, props_of
from vmrun.errors import BuildError


class Thing:
    path = "/machine/thing"

    flag = Prop("bool", False)
    byte = Prop("uint8", 7, "a byte", unit="ms")
    few = Prop("int32", 0, min=-2, max=2)
    kind = Prop("enum", "a", choices=("a", "b"))
    text = Prop("str")
    with_dash = named("with-dash", "uint16", 1, visible=False)

    def __init__(self) -> None:
        self.prop_values: dict[str, Any] = {}


class Special(Thing):
    byte = Prop("uint8", 9)  # type: ignore[assignment]
    more = Prop("size", 0)


def test_what_is_not_set_is_the_default() -> None:
    assert (Thing().byte, Thing().text) == (7, None)


def test_each_object_has_its_own_value() -> None:
    one, other = Thing(), Thing()
    one.byte = 1
    assert (one.byte, other.byte) == (1, 7)


def test_a_property_is_known_by_qemus_name() -> None:
    thing = Thing()
    thing.with_dash = 5
    assert thing.prop_values == {"with-dash": 5}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flag", True), ("byte", 0), ("byte", 255), ("few", -2), ("few", 2), ("kind", "b"), ("text", ""),
        ("with_dash", 0xFFFF), ("byte", None),
    ],
)  # fmt: skip
def test_values_within_are_taken(name: str, value: object) -> None:
    thing = Thing()
    setattr(thing, name, value)
    assert getattr(thing, name) == value


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("flag", 1, "not true or false"), ("flag", "on", "not true or false"), ("byte", 256, "outside 0..255"),
        ("byte", -1, "outside 0..255"), ("byte", True, "not a number"), ("byte", "1", "not a number"),
        ("byte", 1.0, "not a number"), ("few", 3, "outside -2..2"), ("kind", "c", "not one of a, b"),
        ("kind", [], "not one of a, b"), ("text", 5, "not text"), ("with_dash", 0x10000, "outside 0..65535"),
    ],
)  # fmt: skip
def test_others_are_refused_and_change_nothing(name: str, value: object, why: str) -> None:
    thing = Thing()
    with pytest.raises(BuildError, match=why) as caught:
        setattr(thing, name, value)
    assert f"/machine/thing.{name.replace('_', '-')}" in str(caught.value)
    assert thing.prop_values == {}


@pytest.mark.parametrize(
    ("type", "low", "high"),
    [
        ("uint8", 0, 2**8 - 1), ("uint16", 0, 2**16 - 1), ("uint32", 0, 2**32 - 1), ("uint64", 0, 2**64 - 1),
        ("int32", -(2**31), 2**31 - 1), ("size", 0, 2**64 - 1),
    ],
)  # fmt: skip
def test_a_number_ends_where_its_type_does(type: str, low: int, high: int) -> None:
    prop = Prop(type)
    assert (prop.check(low), prop.check(high)) == (low, high)
    for value in (low - 1, high + 1):
        with pytest.raises(BuildError, match="outside"):
            prop.check(value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.sampled_from(["bool", "uint8", "int32", "enum", "str", "link", "mac"]), anything)
def test_any_value_is_taken_as_it_is_or_refused(type: str, value: object) -> None:
    prop = Prop(type, choices=("a",))
    try:
        assert prop.check(value) is value
    except BuildError:
        pass


def test_declarations_come_in_order_and_a_class_may_declare_anew() -> None:
    assert list(props_of(Special)) == ["flag", "byte", "few", "kind", "text", "with-dash", "more"]
    assert props_of(Special)["byte"].default == 9


def test_the_row_of_the_catalogue_says_all() -> None:
    assert props_of(Thing)["byte"].describe() == {
        "name": "byte", "type": "uint8", "default": 7, "doc": "a byte", "unit": "ms", "visible": True,
        "min": 0, "max": 255, "choices": [],
    }  # fmt: skip
