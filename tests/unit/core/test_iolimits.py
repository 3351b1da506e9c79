"""What limits of a drive go together, and their two spellings."""

from __future__ import annotations

import pytest

from vmrun.core.iolimits import MOST, NAMES, checked, of_qemu, to_qemu


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"bps": 1, "bps-wr": 1}, "total values and read/write"),
        ({"iops-max": 2, "iops-rd-max": 2, "iops": 1}, "total values and read/write"),
        ({"bps": 1, "iops-size": 512}, "requires an iops value"),
        ({"bps": MOST + 1}, "must be within"),
        ({"bps": 1, "bps-max": 1, "bps-max-length": 0}, "length cannot be 0"),
        ({"bps": 1, "bps-max-length": 2}, "without burst rate"),
        ({"bps": 1, "bps-max": MOST // 2, "bps-max-length": 3}, "too high for this burst rate"),
        ({"bps-max": 5}, "require corresponding"),
        ({"iops-wr": 5, "iops-wr-max": 4}, "cannot be lower"),
    ],
)
def test_what_does_not_go_together(limits: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        checked(limits)


@pytest.mark.parametrize(
    "limits",
    [
        {"bps": MOST},
        {"bps-rd": 1, "bps-wr": 2, "iops": 3, "iops-size": 512},
        {"bps": 1, "bps-max": MOST // 2, "bps-max-length": 2},
        {"iops-wr": 5, "iops-wr-max": 5},
    ],
)
def test_what_does(limits: dict[str, int]) -> None:
    assert checked(limits) == limits


def test_what_limits_nothing_is_left_out() -> None:
    assert checked({"bps": 0, "iops": 7, "iops-max": None, "iops-max-length": 1}) == {"iops": 7}


def test_names() -> None:
    spelt = {"bps": "bps-total", "bps-rd-max": "bps-read-max", "iops-wr": "iops-write", "iops-size": "iops-size"}
    spelt |= {"iops-max-length": "iops-total-max-length", "iops-rd-max-length": "iops-read-max-length"}
    assert {name: to_qemu(name) for name in spelt} == spelt
    assert [of_qemu(to_qemu(name)) for name in NAMES] == list(NAMES)
