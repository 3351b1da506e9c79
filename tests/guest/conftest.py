"""Every test of this directory that names `accel` runs on each accelerator."""

from __future__ import annotations

import pytest

from tests.guest.machines import ACCELERATORS


@pytest.fixture(params=ACCELERATORS)
def accel(request: pytest.FixtureRequest) -> str:
    return str(request.param)
