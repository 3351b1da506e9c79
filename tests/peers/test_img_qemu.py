"""vmrun-img and qemu-img, the same commands in two directories: exit codes, what they print, what they say is wrong.

Sizes on the host's disk and dates are not compared. In img/*.txt IMG stands for the tool, other lines are the shell's.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = sorted((pathlib.Path(__file__).parent / "img").glob("*.txt"))
VARIES = (
    (r"disk size: .*", "disk size"),
    (r'"actual-size": \d+', "actual-size"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "date"),
    (r'"date-n?sec": \d+', "date"),
    (r"completed in .* sec", "completed"),
    (r"#block\d+", "#block"),
)

pytestmark = [pytest.mark.peer, pytest.mark.slow]


def plain(text: str) -> str:
    for pattern, word in VARIES:
        text = re.sub(pattern, word, text)
    return text.replace("vmrun-img", "qemu-img")


def transcript(tool: str, directory: pathlib.Path, lines: list[str]) -> list[tuple[str, int, str, str]]:
    directory.mkdir()
    found = []
    for line in lines:
        done = subprocess.run(
            re.sub(r"\bIMG\b", tool, line), shell=True, cwd=directory, capture_output=True, text=True, timeout=60
        )
        found.append((line, done.returncode, plain(done.stdout), plain(done.stderr)))
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_both_say_the_same(script: pathlib.Path, tmp_path: pathlib.Path) -> None:
    lines = [line for line in script.read_text().splitlines() if line.strip()]
    ours = transcript(f"{sys.executable} {ROOT / 'bin' / 'vmrun-img'}", tmp_path / "ours", lines)
    theirs = transcript("qemu-img", tmp_path / "theirs", lines)
    assert ours == theirs
