"""The cache of resolved machines: right or rebuilt, whatever has happened to it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

import vmrun.config.kept as kept
from vmrun.config.cache import resolve_cached
from vmrun.errors import ConfigError

TEXT = "schema: vmrun/machine/1\nmachine: rhel6.3.0\nserial: pty\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standin_schema: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "m.yaml"
    path.write_text(TEXT)
    long_ago(path)
    for entry in standin_schema.iterdir():
        long_ago(entry)
    return path


def long_ago(path: Path) -> None:
    os.utime(path, (time.time() - 100,) * 2)


def entries(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache" / "vmrun" / "resolved").rglob("*") if path.is_file()]


def refuse_resolving(monkeypatch: pytest.MonkeyPatch) -> None:
    import vmrun.config.resolve

    def fail(*args: object, **more: object) -> None:
        raise AssertionError("resolved anew")

    monkeypatch.setattr(vmrun.config.resolve, "resolve_file", fail)


def test_second_time_comes_from_the_cache(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = resolve_cached(str(file))
    refuse_resolving(monkeypatch)
    second = resolve_cached(str(file))
    assert second.to_dict() == first.to_dict()
    assert second.places == first.places


def test_changed_file_is_resolved_anew(file: Path) -> None:
    resolve_cached(str(file))
    stamp = file.stat().st_mtime
    file.write_text(TEXT.replace("pty", "nul"))
    file.write_text(TEXT + "paused: true\n")
    os.utime(file, (stamp, stamp))
    assert resolve_cached(str(file))["paused"] is True


def test_changed_type_of_ones_own_is_resolved_anew(file: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("schema: vmrun/machine-type/1\nname: mine\nextends: rhel6.3.0\n")
    file.write_text(TEXT.replace("rhel6.3.0", "mine"))
    for path in (own, file):
        long_ago(path)
    assert resolve_cached(str(file))["memory"] == 128 << 20
    own.write_text(own.read_text() + "defaults: {memory: 1GiB}\n")
    assert resolve_cached(str(file))["memory"] == 1 << 30


def test_changed_catalogue_is_resolved_anew(file: Path, standin_schema: Path) -> None:
    resolve_cached(str(file))
    path = standin_schema / "devices.json"
    path.write_text(path.read_text().replace("115200", "9600"))
    (serial,) = (d for d in resolve_cached(str(file))["devices"] if d["id"] == "serial0")
    assert serial["props"]["baudbase"] == 9600


def test_sets_have_entries_of_their_own(file: Path) -> None:
    assert resolve_cached(str(file), ["memory=1GiB"])["memory"] == 1 << 30
    assert resolve_cached(str(file))["memory"] == 128 << 20


def test_other_version_is_not_trusted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_cached(str(file))
    monkeypatch.setattr("vmrun.__version__", "999")
    refuse_resolving(monkeypatch)
    with pytest.raises(AssertionError, match="resolved anew"):
        resolve_cached(str(file))


def test_file_where_one_was_missing_is_seen(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.json").write_text(
        '{"schema": "vmrun/machine-type/1", "name": "mine", "extends": "rhel6.3.0"}'
    )
    file.write_text(TEXT.replace("rhel6.3.0", "mine"))
    for path in tmp_path.iterdir():
        long_ago(path)
    resolve_cached(str(file))
    (tmp_path / "mine.yaml").write_text("schema: vmrun/machine-type/1\nname: mine\nextends: rhel6.0.0\n")
    refuse_resolving(monkeypatch)
    with pytest.raises(AssertionError, match="resolved anew"):
        resolve_cached(str(file))


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "rubbish", "directory"])
def test_damaged_entry_is_rebuilt(file: Path, tmp_path: Path, damage: str) -> None:
    expected = resolve_cached(str(file)).to_dict()
    (entry,) = entries(tmp_path)
    raw = bytearray(entry.read_bytes())
    if damage == "empty":
        entry.write_bytes(b"")
    elif damage == "short":
        entry.write_bytes(raw[: len(raw) // 2])
    elif damage == "flipped":
        raw[len(raw) // 2] ^= 0xFF
        entry.write_bytes(raw)
    elif damage == "rubbish":
        body = b"rubbish"
        entry.write_bytes(kept.blake2b(body, digest_size=32).digest() + body)
    else:
        entry.unlink()
        entry.mkdir()
    assert resolve_cached(str(file)).to_dict() == expected


def test_directory_that_cannot_be_made_is_no_fault(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "plain"))
    assert resolve_cached(str(file))["machine"] == "rhel6.3.0"


def test_entry_of_a_file_just_written_is_not_kept(file: Path, tmp_path: Path) -> None:
    file.touch()
    os.utime(file, (time.time() + 1,) * 2)
    resolve_cached(str(file))
    assert entries(tmp_path) == []


def test_machine_with_warnings_is_not_kept(file: Path, tmp_path: Path) -> None:
    file.write_text(TEXT + "chardevs: {c: {type: pty}}\n")
    long_ago(file)
    assert len(resolve_cached(str(file)).warnings) == 1
    assert entries(tmp_path) == []


def test_faulty_file_raises_and_leaves_nothing(file: Path, tmp_path: Path) -> None:
    file.write_text(TEXT + "memroy: 1\n")
    with pytest.raises(ConfigError):
        resolve_cached(str(file))
    assert entries(tmp_path) == []


def test_old_entries_go_when_there_are_too_many(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST_ENTRIES", 4)
    for size in range(1, 6):
        resolve_cached(str(file), [f"memory={size}GiB"])
        for entry in entries(tmp_path):
            os.utime(entry, ns=(0, entry.stat().st_mtime_ns - 10**9))
    assert len(entries(tmp_path)) == 3
    refuse_resolving(monkeypatch)
    assert resolve_cached(str(file), ["memory=5GiB"])["memory"] == 5 << 30


def test_entries_are_for_their_owner_only(file: Path, tmp_path: Path) -> None:
    resolve_cached(str(file))
    (entry,) = entries(tmp_path)
    assert entry.stat().st_mode & 0o077 == 0


def test_own_data_is_read_once_and_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "own.json"
    path.write_text('{"a": 1}')
    long_ago(path)
    assert kept.read_own(str(path)) == {"a": 1}
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "json", None)  # an import of it fails
        assert kept.read_own(str(path)) == {"a": 1}
    path.write_text('{"b": 2}')
    assert kept.read_own(str(path)) == {"b": 2}


def test_damaged_copy_of_own_data_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "own.json"
    path.write_text('{"a": 1}')
    kept.read_own(str(path))
    (entry,) = (tmp_path / "cache" / "vmrun" / "own").iterdir()
    entry.write_bytes(entry.read_bytes()[:-1] + b"x")
    assert kept.read_own(str(path)) == {"a": 1}
