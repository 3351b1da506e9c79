"""A few hundred rounds of each kind; hours of them by hand: `python -m tests.fuzz.storage --seconds 3600`."""

from __future__ import annotations

import pathlib

import pytest

from tests.fuzz.storage import KINDS, rounds

ROUNDS = {"qcow2": 20}  # others are faster


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_survives_nonsense_and_works_again(kind: str, tmp_path: pathlib.Path) -> None:
    rounds(kind, tmp_path, 1, 0, ROUNDS.get(kind, 200))
