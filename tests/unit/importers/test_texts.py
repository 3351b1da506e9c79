"""The command is found in what people have it in: prompts, rows of ps, scripts, recipes, logs, lists, web pages."""

from __future__ import annotations

import pathlib
import shlex
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmrun.config.importers.cleaning import clean, decode
from vmrun.config.importers.texts import Foreign, commands
from vmrun.config.importers.words import OpenQuote, Tangled

HERE = pathlib.Path(__file__).parent / "corpus"


def cases(name: str) -> dict[str, tuple[str, list[str]]]:
    """title → (text, its results)"""
    found: dict[str, tuple[str, list[str]]] = {}
    for part in (HERE / name).read_text().split("=== ")[1:]:
        title, _, rest = part.partition("\n")
        rows = rest.rstrip("\n").split("\n")
        count = len([row for row in rows if row.startswith(("-->", "!!! "))])
        assert title not in found, title
        assert count, title
        found[title] = ("\n".join(rows[:-count]), rows[-count:])
    return found


def outcome(text: str) -> list[str]:
    try:
        found = commands(clean(text))
    except OpenQuote as error:
        return [f"!!! {error}"]
    rows = []
    for command in found:
        gaps = command.gaps()
        rows += [f"!!! {gap.message()}" for gap in gaps] or [f"--> {shlex.join(command.argv())}".rstrip()]
    return rows or ["--> none"]


CORPUS = sorted(path.name for path in HERE.glob("*texts.txt"))
CASES = {name: case for part in CORPUS for name, case in cases(part).items()}


@pytest.mark.parametrize("title", CASES)
def test_the_command_is_found(title: str) -> None:
    text, expected = CASES[title]
    expected = [
        f"--> {shlex.join(shlex.split(row[4:]))}".rstrip() if row.startswith("-->") else row for row in expected
    ]
    assert outcome(text) == expected


RAW = {
    "CRLF": (b"qemu-system-x86_64 -m 64 \\\r\n -S\r\n", ["-m", "64", "-S"]),
    "a byte order mark": (b"\xef\xbb\xbfqemu-system-x86_64 -m 64", ["-m", "64"]),
    "UTF-16": ("\ufeffqemu-system-x86_64 -m 64\r\n".encode("utf-16-le"), ["-m", "64"]),
    "old Mac line ends": (b"qemu-system-x86_64 -m 64\recho x\r", ["-m", "64"]),
    "colours": (b"\x1b[32m$ qemu-system-x86_64\x1b[0m -m 64", ["-m", "64"]),
    "bytes that are no text": (b"qemu-system-x86_64 -name \xff", ["-name", "\udcff"]),
}


@pytest.mark.parametrize("title", RAW)
def test_what_systems_and_terminals_add_is_taken_away(title: str) -> None:
    data, expected = RAW[title]
    assert [command.argv() for command in commands(clean(decode(data)))] == [expected]


def run(text: str | bytes, *more: str) -> subprocess.CompletedProcess[bytes]:
    data = text.encode() if isinstance(text, str) else text
    command = [sys.executable, "-m", "vmrun", "import", "qemu", "--file", "-", *more]
    return subprocess.run(command, input=data, capture_output=True, timeout=60)


def test_a_file_without_a_command_ends_with_1() -> None:
    done = run("")
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"no QEMU command found in standard input" in done.stderr


def test_a_variable_is_filled_in() -> None:
    done = run("qemu-system-x86_64 -hda $IMG -m $MEM", "--define", "IMG=a b.img")
    assert done.returncode == 1
    assert b"$IMG" not in done.stderr
    assert b"standard input:1:1: error VR0120: $MEM is a shell variable: fill it in, or --define MEM=" in done.stderr
    done = run('qemu-system-x86_64 -hda "$IMG" -m $MEM', "--define", "IMG=a b.img", "--define", "MEM=77")
    assert done.returncode == 0
    assert b"file: a b.img" in done.stdout
    assert b'"77MiB"' in done.stdout


def test_of_several_commands_one_is_chosen() -> None:
    text = "kvm -m 64\nkvm -m 65\n"
    done = run(text)
    assert done.returncode == 1
    assert b"2 QEMU commands in standard input: say which with --command 1" in done.stderr
    assert b"2. line 2: kvm -m 65" in done.stderr
    assert b'"65MiB"' in run(text, "--command", "2").stdout
    assert b'"65MiB"' in run(text, "--command", "-1").stdout
    assert b"has 2 QEMU commands" in run(text, "--command", "3").stderr


def test_another_processors_qemu_is_named() -> None:
    done = run("qemu-system-aarch64 -M virt")
    assert done.returncode == 1
    assert b"qemu-system-aarch64 is a QEMU for another processor" in done.stderr


def test_arguments_separated_by_nul_are_a_command() -> None:
    assert b'"64MiB"' in run(b"/usr/bin/kvm\0-m\x0064\0-name\0a b\0").stdout


PIECES = [
    "qemu-system-x86_64", "kvm ", " -m 64", "'", '"', "`", "$(", "${A", "$A", "((", "))", "{", "}", "\\\n", "\n",
    "<<E", "# ", "a=", "a=(", "[", "]", ",", ";", "|", "&&", "%s", "{x}", "^\n", "-hda x", "f'", "/*", "\t@", "<a b>",
]  # fmt: skip


@settings(max_examples=200)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=14))
def test_no_text_raises_anything_but_what_is_wrong_with_it(pieces: list[str]) -> None:
    try:
        commands(clean("".join(pieces)))
    except (OpenQuote, Tangled, Foreign):
        pass


@pytest.mark.parametrize("text", ["kvm\n" * 50000, "$A " * 50000, "x=(\n" * 20000, "a=$(" * 50000])
def test_a_tangle_is_given_up(text: str) -> None:
    try:
        assert commands(clean(text)) == []
    except Tangled as error:
        assert "too tangled" in str(error)


def test_a_script_may_have_thousands_of_here_documents() -> None:
    text = "cat <<EOF\n\\$x\nEOF\n" * 3000
    assert clean(text).count("\n$x\n") == 3000
