"""What no PC has but QEMU takes: it starts, and what is odd about it is said."""

from __future__ import annotations

import vmrun

HEAD = "schema: vmrun/machine/1\nmachine: pc-i440fx-2.0\n"


def test_function_without_a_function_0_is_a_warning() -> None:
    (problem,) = vmrun.validate(f'{HEAD}devices: [{{id: e, driver: edu, addr: "05.7"}}]\n')
    assert (problem.code, problem.severity) == ("VR0511", "warning")
    assert "no guest looks there" in problem.message


def test_second_function_beside_one_that_is_alone_is_an_error() -> None:
    devices = '[{driver: edu, addr: "05.0"}, {driver: edu, addr: "05.1"}]'
    assert [problem.severity for problem in vmrun.validate(f"{HEAD}devices: {devices}\n")] == ["error"]


def test_memory_below_a_mebibyte_needs_its_unit() -> None:
    for head in (HEAD, HEAD.replace("pc-i440fx-2.0", "rhel6.0.0")):  # whose low ROM is RAM
        for memory in ("4KiB", "128KiB", "800KiB", "1000KiB"):
            assert vmrun.validate(f"{head}memory: {memory}\n") == []
    (problem,) = vmrun.validate(f"{HEAD}memory: 1024\n")
    assert problem.code == "VR0701" and "1024MiB" in problem.text()
