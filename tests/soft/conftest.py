"""Both ways of the soft processor: interpreted, and translated at first execution."""

from __future__ import annotations

import pytest

from accel.soft import accelerator

WAYS = ("off", "always")


@pytest.fixture(params=WAYS)
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(accelerator, "TRANSLATE", request.param)
    return str(request.param)
