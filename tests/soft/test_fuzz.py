"""Instructions on the soft processor give what they give on the host's own (fuzz.py tells what is compared)."""

from __future__ import annotations

import pathlib
import platform
import shutil
from collections.abc import Iterator

import pytest

from accel.soft import accelerator
from accel.soft.accelerator import SoftAccelerator
from tests.soft.conftest import WAYS
from tests.soft.fuzz import Bench, describe, fuzz
from tests.soft.fuzz_cases import Case
from tests.soft.native import AVX, RECORD

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the oracle is an x86-64 host"),
    pytest.mark.skipif(not (shutil.which("as") and shutil.which("ld")), reason="needs an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
]


@pytest.fixture(scope="module", params=WAYS)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerator, "TRANSLATE", request.param)
        bench = Bench(pathlib.Path(tmp_path_factory.mktemp("fuzz")))
    yield bench
    bench.close()


@pytest.mark.parametrize("kind", ("64", "compat", "vex"))
@pytest.mark.parametrize("seed", range(2))
def test_random_instructions_do_what_the_host_does(bench: Bench, seed: int, kind: str) -> None:
    if kind == "vex" and not AVX:
        pytest.skip("the host has no AVX")
    found = fuzz(bench, 12500, seed, kind)
    assert bench.left_out == 0
    assert not found, "\n" + "\n".join(describe(*difference) for difference in found[:10])


def test_a_difference_is_seen(bench: Bench) -> None:
    cases = [Case(bytearray(b"\x90"), [n] * 16, 2, bytes(512), bytes(512)) for n in range(3)]
    records, slots = bench.pack(cases)
    other = bytearray(bench.soft.run(records, slots, False))
    other[RECORD + 24] ^= 1                   # RBX of the second
    host = bench.host.run(records, slots, False)
    assert bench.compare(cases, host, bytes(other))[0][2] == ["rbx 0x1, not 0x0"]
