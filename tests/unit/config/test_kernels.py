"""kernel, initrd with modules, and firmware: none, from the file to the resolved machine."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from vmrun.config import modules
from vmrun.config.files import check_files
from vmrun.config.importers.export import command_line
from vmrun.config.resolve import check_file


def resolved(tmp_path: pathlib.Path, text: str) -> tuple[Any, list[Any]]:
    file = tmp_path / "m.yaml"
    file.write_text(f"schema: vmrun/machine/1\nname: m\nmachine: pc-i440fx-2.0\nserial: stdio\n{text}")
    return check_file(str(file))


def test_paths_of_modules_start_at_the_files_directory_and_keep_their_words(tmp_path: pathlib.Path) -> None:
    machine, _ = resolved(tmp_path, 'kernel: k\ninitrd: "a one  two, sub/b,/abs/c,,d x"\nfirmware: none\n')
    assert machine["initrd"] == f"{tmp_path}/a one  two,{tmp_path}/sub/b,/abs/c,,d x"
    assert modules.paths(machine["initrd"]) == [f"{tmp_path}/a", f"{tmp_path}/sub/b", "/abs/c,d"]


def test_resolving_what_was_resolved_changes_no_module(tmp_path: pathlib.Path) -> None:
    machine, _ = resolved(tmp_path, 'kernel: k\ninitrd: "a one,b"\n')
    again, _ = resolved(tmp_path, f'kernel: k\ninitrd: "{machine["initrd"]}"\n')
    assert again["initrd"] == machine["initrd"]


def test_module_that_does_not_exist_is_named(tmp_path: pathlib.Path) -> None:
    for name in "ka":
        (tmp_path / name).write_bytes(b"x")
    machine, _ = resolved(tmp_path, 'kernel: k\ninitrd: "a one,b two"\n')
    (problem,) = check_files(machine)
    assert problem.code == "VR0620" and f"{tmp_path}/b'" in problem.message


@pytest.mark.parametrize("written", ["firmware: none", "firmware: {bios: none}"])
def test_no_firmware_can_be_written_short_and_long(written: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "k").write_bytes(b"x")
    machine, problems = resolved(tmp_path, f"kernel: k\n{written}\n")
    assert machine["firmware"]["bios"] == "none"
    assert not [problem for problem in problems if problem.severity == "error"]


def test_no_firmware_without_a_kernel_is_an_error_at_its_place(tmp_path: pathlib.Path) -> None:
    _, problems = resolved(tmp_path, "firmware: none\n")
    (problem,) = [problem for problem in problems if problem.severity == "error"]
    assert (problem.code, problem.place.line) == ("VR0710", 5)
    assert "kernel" in problem.remedy


@pytest.mark.parametrize("firmware", ["none", {"bios": "none"}])
def test_export_to_qemu_says_that_it_has_no_machine_without_firmware(firmware: Any) -> None:
    words, problems = command_line({"machine": "pc-i440fx-2.0", "kernel": "/k", "firmware": firmware})
    assert "-bios" not in words and words[words.index("-kernel") + 1] == "/k"
    assert "firmware: none" in problems[0].message
