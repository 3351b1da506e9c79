"""Files that are no machine, given to every command that takes one: a clear error within a second, in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
HEAD = "schema: vmrun/machine/1\nmachine: rhel6.3.0\n"
MEMORY = 160 << 10  # KiB that a process may have had at most; the interpreter with the commands takes 40

TEXTS: dict[str, bytes] = {
    "ten thousand devices.yaml": (
        HEAD + "devices:\n" + "".join(f"  - {{id: d{n}, driver: isa-debugcon}}\n" for n in range(10_000))
    ).encode(),
    "ten thousand devices.json": json.dumps(
        {"schema": "vmrun/machine/1", "machine": "rhel6.3.0", "devices": [{"driver": "VGA"}] * 10_000}
    ).encode(),
    "ten thousand devices.toml": (
        'schema = "vmrun/machine/1"\nmachine = "rhel6.3.0"\n' + '[[devices]]\ndriver = "VGA"\n' * 10_000
    ).encode(),
    "two thousand devices that clash.yaml": (
        HEAD + "devices:\n" + "".join(f"  - {{id: d{n}, driver: isa-debugcon}}\n" for n in range(2000))
    ).encode(),
    "deep.yaml": (HEAD + "devices: " + "[" * 5000 + "]" * 5000).encode(),
    "deep mappings.yaml": (HEAD + "".join("  " * n + f"a{n}:\n" for n in range(800))).encode(),
    "deep.json": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "deep.toml": b"a = " + b"[" * 5000 + b"]" * 5000,
    "anchors.yaml": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    ).encode(),
    "nul.yaml": (HEAD + "name: a\0b\n").encode(),
    "utf-16.yaml": HEAD.encode("utf-16"),
    "utf-16 without a mark.yaml": HEAD.encode("utf-16-le"),
    "utf-32.yaml": HEAD.encode("utf-32"),
    "latin-1.yaml": (HEAD + "description: café\n").encode("latin-1"),
    "control.yaml": (HEAD + "name: \x1b[31m\n").encode(),
    "image.yaml": bytes(range(256)) * 400,
    "empty.yaml": b"",
    "one long line.yaml": (HEAD + "description: " + "x" * 900_000 + "\nbut: this\n").encode(),
    "one long key.yaml": (HEAD + "k" * 900_000 + ": 1\n").encode(),
    "many keys.yaml": (HEAD + "".join(f"k{n}: 1\n" for n in range(30_000))).encode(),
    "a long string.yaml": (HEAD + 'x: "' + "\\x41" * 200_000).encode(),
    "a tag.yaml": (HEAD + "name: !!python/object/apply:os.getcwd []\n").encode(),
    "a long number.yaml": (HEAD + "memory: " + "9" * 100_000 + "\n").encode(),
    "half a pair.json": b'{"schema": "vmrun/machine/1", "machine": "\\ud800"}',
    "extends itself.yaml": b"schema: vmrun/machine/1\nmachine: circle\n",
    "extends nothing.yaml": b"schema: vmrun/machine/1\nmachine: orphan\n",
    "type is endless.yaml": b"schema: vmrun/machine/1\nmachine: endless\n",
    "type is a pipe.yaml": b"schema: vmrun/machine/1\nmachine: pipe\n",
}
CODES = {
    **{name: {"VR0105"} for name in TEXTS if name.startswith(("ten thousand", "deep", "many keys"))},
    "two thousand devices that clash.yaml": {"VR0512"},
    "anchors.yaml": {"VR0108"},
    "a tag.yaml": {"VR0108"},
    **{name: {"VR0104"} for name in TEXTS if name.startswith(("nul", "utf", "latin", "control", "image", "half"))},
    "empty.yaml": {"VR0103"},
    "one long line.yaml": {"VR0201"},
    "one long key.yaml": {"VR0106"},
    "a long string.yaml": {"VR0106"},
    "a long number.yaml": {"VR0204"},
    "extends itself.yaml": {"VR0302"},
    "extends nothing.yaml": {"VR0301"},
    "type is endless.yaml": {"VR0101"},
    "type is a pipe.yaml": {"VR0101"},
    "fifty mebibytes.yaml": {"VR0105"},
    "fifty mebibytes.json": {"VR0105"},
    **{f"{name}.yaml": {"VR0101"} for name in ("circle of links", "endless", "directory", "pipe", "dangling")},
}
COMMANDS: dict[str, list[str]] = {
    "validate": ["validate", "FILE"],
    "resolve": ["resolve", "FILE"],
    "tree": ["tree", "FILE"],
    "lock": ["lock", "--output", "-", "FILE"],
    "diff": ["diff", "FILE", "FILE"],
    "up": ["up", "--accel", "qtest", "--timeout", "0.01", "--quiet", "FILE"],
    "export": ["export", "qemu", "FILE"],
    "import a line": ["import", "qemu", "--file", "FILE"],
    "import a domain": ["import", "libvirt", "FILE"],
}
CHILD = """
import contextlib, io, json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from vmrun.cli.main import main
argv, files = json.loads(sys.stdin.read())
found = {}
for name in files:
    out, err = io.StringIO(), io.StringIO()
    began = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([name if word == "FILE" else word for word in argv])
    found[name] = [code, time.process_time() - began, err.getvalue()[:4000] + out.getvalue()[:4000]]
most = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))  # getrusage counts the parent's
print(json.dumps([found, int(most.split()[1])]))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("hostile")
    for name, data in TEXTS.items():
        (here / name).write_bytes(data)
    for name, letter in (("fifty mebibytes.yaml", b"#"), ("fifty mebibytes.json", b"[")):
        (here / name).write_bytes(letter * (50 << 20))
    (here / "circle of links.yaml").symlink_to("circle of links.yaml")
    (here / "dangling.yaml").symlink_to("nothing")
    (here / "endless.yaml").symlink_to("/dev/zero")
    (here / "directory.yaml").mkdir()
    os.mkfifo(here / "pipe.yaml")
    for name, extends in (("circle", "circle"), ("orphan", "nothing")):
        (here / f"{name}.yaml").write_text(f"schema: vmrun/machine-type/1\nname: {name}\nextends: {extends}\n")
    return here


@pytest.mark.parametrize("command", COMMANDS)
def test_hostile_file_is_refused_in_a_second_and_in_bounded_memory(files: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps([COMMANDS[command], list(CODES)]),
        cwd=files,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(files / ".cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found, memory = json.loads(done.stdout)
    assert memory < MEMORY
    for name, (code, seconds, said) in found.items():
        assert seconds < 1, f"{name}: {seconds} s"
        assert "Traceback" not in said and "fault of vmrun's own" not in said, f"{name}: {said}"
        if command.startswith(("import", "export")):  # these read a file's words and do not ask whether they fit
            assert code in (0, 1), f"{name}: {code}"
        else:
            assert code == 1, f"{name}: {code}"
            assert {code for code in CODES[name] if code in said} == CODES[name], f"{name}: {said}"


def test_type_that_cannot_be_read_is_told_where_it_is_named(files: Path) -> None:
    from vmrun.config.api import validate

    (problem,) = validate(str(files / "type is a pipe.yaml"))
    assert str(problem.place) == f"{files}/type is a pipe.yaml:2:10"
    assert problem.message.endswith("pipe.yaml' is a FIFO, not a file")


# --- locks -------------------------------------------------------------------------------------------------


def forged(lock: dict[str, Any], section: str, part: Any) -> bytes:
    """A lock with digests that fit, whatever is in it."""
    from vmrun.config.digest import digest

    changed = {**lock, "sections": {**lock["sections"], section: part}}
    changed["digests"] = {name: digest(value) for name, value in changed["sections"].items()}
    changed["digest"] = digest(changed["digests"])
    return json.dumps(changed).encode()


def test_hostile_lock_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from vmrun.cli.main import main

    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_text(HEAD + "memory: 64MiB\n")
    assert main(["lock", "m.yaml"]) == 0
    lock = json.loads(Path("m.lock").read_text())
    locks = {
        "sections of another kind": [forged(lock, name, []) for name in lock["sections"]],
        "rows of another kind": [forged(lock, name, {"a": 5}) for name in ("pci", "nics", "devices", "cpuid")],
        "rows without a driver": [forged(lock, "devices", {"a": {}}), forged(lock, "pci", {"a": {"driver": 5}})],
        "leaves that are none": [forged(lock, "cpuid", {k: v}) for k, v in (("x.0", "1 2 3 4"), ("1.0", "1 2 3 x"))],
        "no name": [json.dumps({**lock, "name": None}).encode()],
        "too large": [b"[" * (5 << 20)],
        "deep": [b'{"a":' * 100_000],
        "no text": [bytes(range(256)), b"\xff\xfe" + "{}".encode("utf-16-le")],
    }
    for what, data in ((what, data) for what, several in locks.items() for data in several):
        Path("m.lock").write_bytes(data)
        for argv in (["lock", "--check", "m.yaml"], ["diff", "m.lock", "m.yaml"]):
            assert main(argv) == 1, what
            said = capsys.readouterr().err
            assert "VR0960" in said or "VR0965" in said or "VR0105" in said, f"{what}: {said}"
