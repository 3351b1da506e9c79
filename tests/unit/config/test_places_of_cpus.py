"""Places of processors are looked at in a file that says nothing of how many there are, too."""

from __future__ import annotations

import pytest

import vmrun


@pytest.mark.parametrize(
    "cpus",
    ["plugged: [{socket-id: 0, core-id: 47, thread-id: 0}]", "present: [0, 3]", "present: [1]",
     "plugged: [{socket-id: 0, core-id: 0, thread-id: 0}]"],
)  # fmt: skip
def test_places_that_are_not_there_are_errors(cpus: str) -> None:
    (problem,) = vmrun.validate(f"schema: vmrun/machine/1\nmachine: pc-i440fx-7.2\ncpus: {{{cpus}}}\n")
    assert (problem.code, problem.place.line) == ("VR0704", 3)
