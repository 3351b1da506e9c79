"""Tests marked kvm are skipped, with the reason, where KVM does not run a guest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from accel.kvm.accelerator import KvmAccelerator
from tests.unit.kvm.pc import Pc

OK, REASON, _ = KvmAccelerator.probe()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/unit/kvm/" in str(item.path) and item.get_closest_marker("kvm") and not OK:
            item.add_marker(pytest.mark.skip(reason=REASON))


@pytest.fixture
def pc() -> Iterator[type[Pc]]:
    """The class Pc; what it makes is closed afterwards."""
    made: list[Pc] = []

    class Closing(Pc):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]
            made.append(self)

    yield Closing
    for one in made:
        one.close()
