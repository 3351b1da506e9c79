"""What the benchmarks share: rounds turn around, ratios are of rounds, doubtful ones are marked."""

from __future__ import annotations

import pytest

from benchmarks import beside


def test_rounds_turn_around() -> None:
    seen: list[str] = []
    sides = {name: lambda name=name: (seen.append(name), 1.0)[1] for name in "AB"}
    found = beside.alternate(sides, 3, warm=0)
    assert "".join(seen) == "ABBAAB"
    assert found == {"A": [1.0] * 3, "B": [1.0] * 3}


def test_a_drift_of_the_host_does_not_move_the_ratio() -> None:
    """Everything takes three times as long towards the end; A is at par all the time."""
    slower = [1.0, 1.1, 1.5, 2.0, 2.5, 2.9, 3.0, 3.0]
    middle, low, high = beside.compare([10 * x for x in slower], [10 * x for x in slower])
    assert (middle, low, high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("ours", "believed"),
    [([1.0] * 8, True), ([1.0] * 7, False), ([0.8, 1.2] * 4, False), ([0.98, 1.02] * 4, True)],
)
def test_a_row_says_whether_it_is_to_be_believed(
    ours: list[float], believed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    table = beside.Table("t", "ms")
    table.add("row", ours, [1.0] * len(ours), 1.0)
    assert table.rows[0]["believed"] is believed
    table.show(False)
    assert ("  ?\n" in capsys.readouterr().out) is not believed
