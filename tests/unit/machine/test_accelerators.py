"""A list of accelerators: the first that works and does not give up on stock kernels; what was tried is told."""

from __future__ import annotations

import pathlib
from types import SimpleNamespace
from typing import Any

import pytest

from accel.errors import AccelFailure
from vmrun.errors import AccelError
from vmrun.machine import accelerators

BOARD: Any = SimpleNamespace(memory=None, io=None, lock=None, control=None)


class Fake:
    tried = 0
    ends = ""
    fails = ""

    def __init__(self, *args: Any) -> None:
        if self.fails:
            raise AccelFailure(self.fails, "", "mend it")

    @classmethod
    def dead_ends(cls) -> str:
        Fake.tried += 1
        return cls.ends


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> dict[str, type[Fake]]:
    classes = {"kvm": type("Kvm", (Fake,), {"ends": "int3"}), "soft": type("Soft", (Fake,), {})}
    Fake.tried = 0
    monkeypatch.setattr(accelerators, "find", classes.__getitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return classes


def test_one_that_gives_up_on_stock_kernels_gives_way_and_it_is_told(found: dict[str, type[Fake]]) -> None:
    choice = accelerators.choose(["kvm", "soft"], BOARD, {})
    assert type(choice.accelerator) is found["soft"]
    assert choice.refused == [("kvm", "gives up on what stock kernels do: int3")]


def test_alone_it_is_what_was_asked_for(found: dict[str, type[Fake]]) -> None:
    assert type(accelerators.choose(["kvm"], BOARD, {}).accelerator) is found["kvm"]
    assert Fake.tried == 0


def test_it_is_taken_when_nothing_else_works(found: dict[str, type[Fake]]) -> None:
    found["soft"].fails = "no executable memory"
    choice = accelerators.choose(["kvm", "soft"], BOARD, {})
    assert type(choice.accelerator) is found["kvm"]
    assert choice.refused == [("soft", "no executable memory")]


def test_when_that_fails_too_everything_is_told(found: dict[str, type[Fake]]) -> None:
    found["soft"].fails, found["kvm"].fails = "no executable memory", "no permission"
    with pytest.raises(AccelError, match="soft: no executable memory; kvm: no permission"):
        accelerators.choose(["kvm", "soft"], BOARD, {})


def test_a_sound_one_is_taken(found: dict[str, type[Fake]]) -> None:
    found["kvm"].ends = ""
    choice = accelerators.choose(["kvm", "soft"], BOARD, {})
    assert (type(choice.accelerator), choice.refused) == (found["kvm"], [])


@pytest.mark.parametrize("ends", ["int3", ""])
def test_the_trial_is_made_once(found: dict[str, type[Fake]], ends: str) -> None:
    found["kvm"].ends = ends
    first, second = (accelerators.choose(["kvm", "soft"], BOARD, {}) for _ in range(2))
    assert Fake.tried == 1
    assert (type(second.accelerator), second.refused) == (type(first.accelerator), first.refused)


def test_it_is_made_again_when_the_host_has_booted_since(found: dict[str, type[Fake]], tmp_path: pathlib.Path) -> None:
    accelerators.choose(["kvm", "soft"], BOARD, {})
    kept = tmp_path / "vmrun" / "kvm-dead-ends"
    kept.write_text(kept.read_text().replace("-", "0"))
    accelerators.choose(["kvm", "soft"], BOARD, {})
    assert Fake.tried == 2


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe", b"\n\n", bytes(10000)])
def test_a_damaged_note_is_not_believed(found: dict[str, type[Fake]], tmp_path: pathlib.Path, junk: bytes) -> None:
    (tmp_path / "vmrun").mkdir()
    (tmp_path / "vmrun" / "kvm-dead-ends").write_bytes(junk)
    assert type(accelerators.choose(["kvm", "soft"], BOARD, {}).accelerator) is found["soft"]
    assert Fake.tried == 1


def test_a_machine_without_processors_takes_what_there_is(found: dict[str, type[Fake]]) -> None:
    choice = accelerators.choose(["kvm", "soft"], BOARD, {}, guests=False)
    assert (type(choice.accelerator), Fake.tried) == (found["kvm"], 0)
