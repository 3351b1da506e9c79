"""A test that hangs fails."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests import conftest


def test_a_test_that_takes_too_long_is_told_so(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "LIMIT", 1)
    with pytest.raises(conftest.TooLong, match="test_a_test_that_takes_too_long"), conftest.limited(request.node):
        time.sleep(60)


def test_every_test_has_a_limit(request: Any) -> None:
    import signal

    assert signal.getitimer(signal.ITIMER_REAL)[0] > 1
