"""EDK II's firmware in flash, with the variables that it keeps there (Debian's package ovmf)."""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

import pytest

from tests.guest.machines import Guest
from vmrun.core.keys import Typist

pytestmark = pytest.mark.guest
FIRMWARE = pathlib.Path("/usr/share/OVMF")
SPLIT, WHOLE = ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"), "/usr/share/qemu/OVMF.fd"
GUID = "6b3c62e3-7ac1-4e0c-9b3d-2f6f1c9a4711"


@pytest.fixture
def variables(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "vars.fd"
    shutil.copyfile(FIRMWARE / SPLIT[1], path)
    return path


def machine(directory: pathlib.Path, pflash: list[Any], type_name: str = "pc-i440fx-7.2") -> Guest:
    keys = {"machine": type_name, "memory": "256MiB", "serial": "com", "pflash": pflash}
    return Guest(directory, "soft", chardevs={"com": {"type": "ringbuf", "size": 1 << 20}}, **keys)


def say(guest: Guest, text: str) -> None:
    """On its keyboard; the machine must run afterwards."""
    board = guest.machine.board
    chords = [chord for character in f"{text}\n" for chord in board.layout.chords(character)]
    Typist(board.input, board.loop, chords, lambda error: None)


def test_a_single_image_holds_both(tmp_path: pathlib.Path) -> None:
    whole = tmp_path / "OVMF.fd"
    shutil.copyfile(WHOLE, whole)
    with machine(tmp_path, [str(whole)]) as guest:
        assert guest.run_until(lambda: "Shell>" in guest.output("com"), 240), guest.output("com")[-500:]
    assert whole.read_bytes() != pathlib.Path(WHOLE).read_bytes()


@pytest.mark.long
def test_a_variable_is_there_at_the_next_start(tmp_path: pathlib.Path, variables: pathlib.Path) -> None:
    pflash = [{"file": str(FIRMWARE / SPLIT[0]), "readonly": True}, str(variables)]
    name = f"vmrun -guid {GUID}"
    for command in (f"setvar {name} -bs -nv =0x4711", f"setvar {name}"):
        with machine(tmp_path, pflash) as guest:
            assert guest.run_until(lambda: "Shell>" in guest.output("com"), 240), guest.output("com")[-500:]
            say(guest, command)
            assert guest.run_until(lambda: guest.output("com").count("Shell>") > 1, 60), guest.output("com")[-500:]
            said = guest.output("com")
    assert "11 47" in said, said[-900:]


@pytest.mark.parametrize("type_name", ["pc-i440fx-7.2", "pc-i440fx-1.4"])
def test_it_reaches_its_shell(tmp_path: pathlib.Path, variables: pathlib.Path, type_name: str) -> None:
    pflash = [{"file": str(FIRMWARE / SPLIT[0]), "readonly": True}, str(variables)]
    with machine(tmp_path, pflash, type_name) as guest:
        assert guest.run_until(lambda: "Shell>" in guest.output("com"), 240), guest.output("com")[-500:]
    # what it keeps there from its first start on
    assert variables.read_bytes() != (FIRMWARE / SPLIT[1]).read_bytes()
