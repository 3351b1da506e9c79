"""A released machine type never changes: its digest is the one in machines/digests.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vmrun.config.data import data_dir
from vmrun.config.digest import type_digests
from vmrun.config.machinetypes import type_names

RELEASED = json.loads(Path(data_dir("machines"), "digests.json").read_text())


@pytest.fixture(scope="module")
def digests() -> dict[str, str]:
    return type_digests()


@pytest.mark.parametrize("name", type_names())
def test_type_is_as_it_was_released(name: str, digests: dict[str, str]) -> None:
    assert digests[name] == RELEASED.get(name), (
        f"the meaning of {name} has changed. A released type must not; if it is not released yet, "
        "`vmrun types --digests > machines/digests.json` records it as it is now"
    )


def test_no_released_type_is_gone() -> None:
    assert set(RELEASED) == set(type_names())
