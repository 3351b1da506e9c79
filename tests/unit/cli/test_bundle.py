"""The bundle of modules' code: what is in it is what Python would have imported, whatever has happened to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = (
    "import sys\n"
    "from vmrun.cli import bundle\n"
    "bundle.install()\n"
    "import thing.part, accel.ram\n"
    "bundle.keep()\n"
    "print(thing.part.VALUE, type(thing.part.__loader__).__name__, thing.__path__[0], thing.part.__file__)\n"
)
Go = Callable[..., list[str]]


@pytest.fixture
def go(tmp_path: Path) -> Go:
    """Runs the script in a process of its own, with those variables set; returns the words it printed."""
    package = tmp_path / "thing"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("VALUE = 1\n")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env |= {
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONPYCACHEPREFIX": str(tmp_path / "pycache"),
    }

    def run(*switches: str) -> list[str]:
        command = [sys.executable, "-c", SCRIPT]
        set_too = dict.fromkeys(switches, "1")
        done = subprocess.run(command, env=env | set_too, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return run


def bundle_of(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "cache" / "vmrun" / "code").iterdir()
    return found


def test_second_process_has_its_code_from_the_bundle(go: Go, tmp_path: Path) -> None:
    first, second = go(), go()
    assert first == ["1", "SourceFileLoader", *first[2:]]
    assert second == ["1", "_Loader", *first[2:]]


def test_code_is_bundled_where_python_keeps_none(go: Go, tmp_path: Path) -> None:
    first, second = go("PYTHONDONTWRITEBYTECODE"), go("PYTHONDONTWRITEBYTECODE")
    assert [word[1] for word in (first, second)] == ["SourceFileLoader", "_Loader"]
    assert not [*tmp_path.rglob("part*.pyc")]


def test_nothing_is_written_when_all_is_there(go: Go, tmp_path: Path) -> None:
    go()
    before = bundle_of(tmp_path).stat().st_mtime_ns
    go()
    assert bundle_of(tmp_path).stat().st_mtime_ns == before


def test_changed_source_is_read_anew_and_bundled(go: Go, tmp_path: Path) -> None:
    go()
    (tmp_path / "thing" / "part.py").write_text("VALUE = 'two'\n")
    assert go()[:2] == ["two", "SourceFileLoader"]
    assert go()[:2] == ["two", "_Loader"]


def test_module_that_is_gone_is_gone(go: Go, tmp_path: Path) -> None:
    go()
    (tmp_path / "thing" / "part.py").unlink()
    with pytest.raises(AssertionError, match="No module named"):
        go()


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "directory", "written by all", "link"])
def test_damaged_bundle_is_not_believed(go: Go, tmp_path: Path, damage: str) -> None:
    go()
    path = bundle_of(tmp_path)
    whole = path.read_bytes()
    if damage == "directory":
        path.unlink()
        path.mkdir()
    elif damage == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "written by all":
        path.chmod(0o666)
    else:
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 3], "noise": os.urandom(5000)}[damage])
    assert go()[:2] == ["1", "SourceFileLoader"]


@pytest.mark.parametrize("digest, name", [("own", "together.so"), ("another", "accel/ram.")])
def test_compiled_module_is_taken_from_the_many_while_it_is_what_was_linked(
    tmp_path: Path, digest: str, name: str
) -> None:
    import accel.ram

    from vmrun.config.kept import file_digest

    (tmp_path / "together.so").symlink_to(accel.ram.__file__)  # one of many that has this one alone
    linked = file_digest(accel.ram.__file__) if digest == "own" else "0" * 64
    (tmp_path / "together.txt").write_text(f"accel.ram {linked}\n")
    script = (
        f"from vmrun.cli import bundle; bundle._objects = lambda: [{str(tmp_path / 'together.so')!r}]\n"
        "bundle.install(); import accel.ram; bundle.keep(); print(accel.ram.__file__)"
    )
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert name in done.stdout


def test_its_descriptor_is_none_that_a_user_gives(go: Go, tmp_path: Path) -> None:
    go()
    script = "from vmrun.cli import bundle; bundle.install(); import os"
    code = f"{script}; print(bundle._file > 99, os.path.exists('/proc/self/fd/3'))"
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"], done.stderr


def test_site_packages_are_looked_through_when_something_of_theirs_is_wanted() -> None:
    code = (
        f"import sys; sys.path[0] = {str(ROOT)!r}\n"
        "from vmrun.cli import bundle\n"
        "bundle.install()\n"
        "import vmrun.config.load\n"
        "early = 'site' in sys.modules\n"
        "import pytest\n"
        "print(early, pytest.__file__.startswith(sys.prefix))\n"
        "try:\n    import no_such_module\n"
        "except ModuleNotFoundError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["False True", "No module named 'no_such_module'"], done.stderr


def test_a_copy_of_an_installation_has_a_bundle_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from vmrun.cli import bundle

    ours = bundle._made_of()[:3]  # what its name is made of
    monkeypatch.setattr(bundle, "_ROOT", f"{bundle._ROOT}-copied")
    assert bundle._made_of()[:3] != ours
