"""What tools/prepare.py leaves for first starts is found, and believed no further than a user's own cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vmrun.config import kept

ROOT = Path(__file__).parents[3]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """(the user's entries, the installation's), both of kind 'own'."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "READY", str(tmp_path / "ready"))
    return tmp_path / "cache" / "vmrun" / "own", tmp_path / "ready" / "own"


def test_entry_of_the_installation_is_found_where_the_user_has_none(places: tuple[Path, Path]) -> None:
    user, ready = places
    kept.write_part("kind", b"of", ["made"])
    ready.parent.mkdir()
    user.rename(ready)
    assert kept.read_part("kind", b"of") == ["made"]
    assert not user.exists(), "what is there already is not written once more"
    kept.write_part("kind", b"of", ["mine"])
    assert kept.read_part("kind", b"of") == ["mine"]


@pytest.mark.parametrize("damage", ["cut", "of others"])
def test_entry_of_the_installation_is_looked_at_as_the_users_is(
    places: tuple[Path, Path], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, ready = places
    kept.write_part("kind", b"of", ["made"])
    ready.parent.mkdir()
    user.rename(ready)
    (entry,) = ready.iterdir()
    if damage == "cut":
        entry.write_bytes(entry.read_bytes()[:-1])
    else:
        monkeypatch.setattr(kept, "is_trusted", lambda info: False)
    assert kept.read_part("kind", b"of") is None


def test_first_start_writes_neither_bundle_nor_parts(tmp_path: Path) -> None:
    tree = tmp_path / "tree"  # as this one is, without what has been prepared
    for place in ("vmrun", "tools"):
        (tree / place).mkdir(parents=True)
    for name in ("accel", "bin", "machines", "schema"):
        (tree / name).symlink_to(ROOT / name)
    for path in (ROOT / "vmrun").iterdir():
        if path.name != "ready":
            (tree / "vmrun" / path.name).symlink_to(path)
    shutil.copy(ROOT / "tools" / "prepare.py", tree / "tools")
    env = {**os.environ, "PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}

    def run(*words: str, said: str = "") -> None:
        done = subprocess.run(
            [sys.executable, *words], env=env, input=said, text=True, capture_output=True, cwd=tmp_path
        )
        assert (done.returncode, done.stderr) == (0, "")

    run(str(tree / "tools" / "prepare.py"))
    assert [*(tree / "vmrun" / "ready" / "code").iterdir()]
    words = ["-M", "pc-i440fx-7.1", "-m", "65", "-S", "-display", "none", "-monitor", "stdio", "-accel", "tcg"]
    words += ["-device", "isa-debug-exit"]  # not among what was started there
    run(str(tree / "bin" / "vmrun-qemu"), *words, said="quit\n")
    assert not (tmp_path / "vmrun" / "code").exists()
    assert len([*(tmp_path / "vmrun" / "own").iterdir()]) < 3  # its firmware tables alone
