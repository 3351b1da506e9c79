"""Saved states of a processor with changed values: each is refused, or the processor runs on from it; none crashes."""

from __future__ import annotations

import pathlib
import random

import pytest

from tests.conformance.test_devices import at, changed, places, some_value
from tests.guest.machines import Guest
from vmrun.errors import StateError
from vmrun.machine import crossing


@pytest.mark.parametrize("seed", [1, 2])
def test_changed_processor_states_are_refused_or_run(seed: int, tmp_path: pathlib.Path) -> None:
    rng = random.Random(seed)
    ran = 0
    with Guest(tmp_path, "soft", machine="pc-i440fx-2.0", memory="32MiB") as guest:
        assert guest.run_until(lambda: len(guest.output()) > 200)
        guest.keep()
        accelerator = guest.machine.accelerator
        good = accelerator.save_vcpu(0)
        paths = list(places(good))
        for _ in range(400):
            state = good
            for _ in range(rng.randrange(1, 5)):
                path = rng.choice(paths)
                try:
                    state = changed(state, path, some_value(rng, at(good, path)))
                except (KeyError, IndexError, TypeError, AttributeError):
                    continue
            try:
                crossing.check_shape(state, good, "processor")
                accelerator.load_vcpu(0, state)
            except (StateError, OverflowError, ValueError, KeyError):
                accelerator.load_vcpu(0, good)
                continue
            ran += 1
            for _ in range(20):
                accelerator.vcpus[0].execute(False)  # type: ignore[attr-defined]
            accelerator.save_vcpu(0)
            accelerator.load_vcpu(0, good)
    assert ran > 50
