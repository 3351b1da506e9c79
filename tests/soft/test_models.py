"""CPU models on the soft processor: which start under a lock, and what refuses the others."""

from __future__ import annotations

import pathlib

import pytest

from tests.guest.machines import Guest
from vmrun.errors import BuildError
from vmrun.machine.lock import check_features

# What no soft processor has: 512-bit registers, and addresses of 57 bits.
BEYOND = {
    "Skylake-Server": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "Icelake-Server": {"avx512f", "avx512-vpopcntdq", "la57"},
}


def lost(model: str, directory: pathlib.Path) -> list[str]:
    with Guest(directory, "soft", machine="pc-i440fx-7.2", memory="64MiB", cpus={"model": model}) as guest:
        return list(guest.machine.missing_features)


@pytest.mark.parametrize("model", BEYOND)
def test_a_model_beyond_it_is_refused_under_a_lock_by_the_features_names(model: str, tmp_path: pathlib.Path) -> None:
    missing = lost(model, tmp_path)
    assert BEYOND[model] <= set(missing)
    with pytest.raises(BuildError, match="soft on this host lacks CPU features of the locked model: .*avx512f"):
        check_features(missing, "soft")


@pytest.mark.parametrize("model", ["qemu64", "Nehalem", "Westmere"])
def test_models_without_avx_lack_nothing_but_nesting(model: str, tmp_path: pathlib.Path) -> None:
    assert set(lost(model, tmp_path)) <= {"svm", "vmx"}
