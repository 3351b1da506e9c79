"""What doctor finds is said with the remedy, and only what is needed makes it fail."""

from __future__ import annotations

from typing import Any

import pytest

from accel.accelerator import find
from vmrun.cli import doctor


class Weak:
    @classmethod
    def weakness(cls) -> str:
        return "cmpxchg16b ends the guest with INTERNAL_ERROR (emulation)"


def test_a_kvm_that_gives_up_on_stock_kernels_is_named_with_the_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accel.accelerator.find", lambda name: Weak)
    (found,) = doctor._weakness("kvm")
    assert not found.good and not found.needed
    assert "cmpxchg16b" in found.detail and "--accel soft" in found.remedy


def test_a_kvm_without_a_weakness_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Weak, "weakness", classmethod(lambda cls: ""))
    monkeypatch.setattr("accel.accelerator.find", lambda name: Weak)
    (found,) = doctor._weakness("kvm")
    assert found.good


def test_a_host_without_room_for_translated_code_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = doctor._weakness("soft")
    assert found.good and find("soft").weakness() == ""
    monkeypatch.setattr(find("soft"), "weakness", classmethod(lambda cls: "none"))
    (found,) = doctor._weakness("soft")
    assert not found.good and not found.needed and "PROT_EXEC" in found.remedy


def test_missing_rom_for_kernels_is_told_and_does_not_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vmrun.errors import BuildError
    from vmrun.firmware import images

    real = images.load

    def load(name: str, *args: Any) -> Any:
        if name == "linuxboot.bin":
            raise BuildError("there is no firmware image", remedy="apt install qemu-system-data")
        return real(name, *args)

    monkeypatch.setattr(images, "load", load)
    monkeypatch.setattr(doctor, "_accelerators", list)
    assert doctor.run([]) == 0
    assert "apt install qemu-system-data" in capsys.readouterr().out
