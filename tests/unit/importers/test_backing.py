"""What the objects of a line's memory say stands in the file, and goes out again; the rest is named."""

from __future__ import annotations

from typing import Any

import pytest

from vmrun.config.importers.export import command_line
from vmrun.config.importers.line import parse_command_line

NODES = "-object memory-backend-ram,id=a,size=32M{} -numa node,memdev=a -object memory-backend-ram,id=b,size=32M{} "
NODES += "-numa node,memdev=b"


def memory(line: str) -> dict[str, Any]:
    document = parse_command_line(f"-m 64 -nodefaults {line}".split(), defaults=False).machine()
    again = parse_command_line(command_line(document)[0], defaults=False).machine()
    assert again.get("memory-backing", {}) == document.get("memory-backing", {})
    assert not [problem for problem in command_line(document)[1] if "memory-backing" in problem.message]
    return dict(document.get("memory-backing", {}))


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("-object memory-backend-file,id=m,mem-path=/x,share=on,size=64M,prealloc=on -machine memory-backend=m",
         {"mem-path": "/x", "share": True, "prealloc": True}),
        ("-object memory-backend-memfd,id=m,size=64M,merge=off,dump=off -machine memory-backend=m",
         {"share": True, "merge": False, "dump": False}),
        ("-object memory-backend-memfd,id=m,size=64M,share=off -machine memory-backend=m", {}),
        ("-object memory-backend-ram,id=m,size=64M,host-nodes=0-1,policy=bind -machine memory-backend=m",
         {"policy": "bind", "host-nodes": "0-1"}),
        (NODES.format(",prealloc=yes", ",prealloc=on"), {"prealloc": True}),
        (NODES.format(",prealloc=yes", ""), {}),
        ("-mem-path /y -mem-prealloc", {"mem-path": "/y", "prealloc": True}),
    ],
)  # fmt: skip
def test_what_a_backend_says_is_in_the_file(line: str, wanted: dict[str, Any]) -> None:
    assert memory(line) == wanted


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("-object memory-backend-memfd,id=m,size=64M,hugetlb=on,hugetlbsize=2M -machine memory-backend=m",
         ["hugetlb", "hugetlbsize"]),
        ("-object memory-backend-memfd,id=m,size=64M,hugetlb=off -machine memory-backend=m", []),
        (NODES.format(",policy=bind,host-nodes=0", ""), ["policy", "host-nodes"]),
    ],
)  # fmt: skip
def test_what_a_file_has_no_word_for_is_named(line: str, named: list[str]) -> None:
    parsed = parse_command_line(f"-m 64 -nodefaults {line}".split(), defaults=False)
    assert [problem.message.split("'")[1] for problem in parsed.unsaid()] == named
