"""What the host must give translated code, what it costs, and what is left where the host refuses it.

Each host is a process that has given something up: by seccomp, or by PR_SET_MDWE of prctl(2).
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from accel.soft import accelerator
from tests.soft.lab import SoftRun, assemble, words
from tests.soft.test_hostile import END, FRAME
from tests.soft.test_translate import HANDLERS, LOOP, SETTLE

ROOT = pathlib.Path(__file__).parents[2]
# struct seccomp_data: the number, then six arguments of 8 bytes from 16 on. Classic BPF: (code, jt, jf, k).
LOAD, IS, ANSWER, ALLOW, REFUSE = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050001
MEMFD_CREATE, MMAP = 319, 9
NO_MEMFD = ((LOAD, 0, 0, 0), (IS, 0, 1, MEMFD_CREATE), (ANSWER, 0, 0, REFUSE), (ANSWER, 0, 0, ALLOW))
# mmap(…, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, …): the room for translated code alone
NO_ROOM = (
    (LOAD, 0, 0, 0), (IS, 0, 5, MMAP), (LOAD, 0, 0, 40), (IS, 0, 3, 0x11), (LOAD, 0, 0, 32), (IS, 0, 1, 5),
    (ANSWER, 0, 0, REFUSE), (ANSWER, 0, 0, ALLOW),
)  # fmt: skip
FILTER = """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
rules = b"".join(struct.pack("<HBBI", *rule) for rule in {rules})
body = ctypes.create_string_buffer(rules)
head = ctypes.create_string_buffer(struct.pack("<H6xQ", len(rules) // 8, ctypes.addressof(body)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, head, 0, 0) == 0, ctypes.get_errno()
"""
MDWE = """
import ctypes
print(ctypes.CDLL(None).prctl(65, 1, 0, 0, 0))
"""
ASK = """
from accel.accelerator import find
soft = find("soft")
print(soft.probe()[0], "|", "; ".join(soft.probe()[1:]), "|", soft.weakness() if soft.probe()[0] else "")
"""


def asked(before: str, then: str = ASK) -> list[str]:
    """Lines that a process prints after it has given something up."""
    command = [sys.executable, "-c", before + then]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_host_without_memfd_is_told_what_to_allow() -> None:
    (line,) = asked(FILTER.format(rules=NO_MEMFD))
    assert line.startswith("False | the host gives no executable memory (memfd_create, mmap PROT_EXEC); allow it")


def test_a_limit_on_files_is_told_as_what_it_is() -> None:
    (line,) = asked("import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))\n")
    assert line.startswith("False | files have at most 1024 bytes here (RLIMIT_FSIZE), memory for code, too")
    assert "ulimit -f unlimited" in line


def test_where_only_translation_is_refused_all_is_interpreted(tmp_path: pathlib.Path) -> None:
    source = SETTLE + LOOP.format(body="addq %rdx, %rdi")
    image = tmp_path / "image"
    image.write_bytes(assemble(FRAME + HANDLERS + source + END, tmp_path))
    then = f"""
import pathlib
from accel.soft.features import supported_cpuid
from tests.soft.lab import SoftRun
soft = SoftRun(pathlib.Path({str(image)!r}).read_bytes(), supported_cpuid(), 60)
print(soft.ended, soft.pc.accel.machine.statistics["code"], soft.log.hex())
"""
    line, ran = asked(FILTER.format(rules=NO_ROOM), ASK + then)
    assert line == "True | ;  | the host gives no executable memory for translated code: all is interpreted"
    from accel.soft.features import supported_cpuid

    here = SoftRun(image.read_bytes(), supported_cpuid(), 60)
    assert ran.split() == ["True", "0", here.log.hex()] and here.pc.accel.machine.statistics["code"]
    assert words(here.log)[-1] == 0xE0D


def test_a_process_that_may_not_make_memory_executable_translates() -> None:
    """No mapping is ever both writable and executable, nor becomes executable."""
    given_up, line = asked(MDWE)
    if given_up != "0":
        pytest.skip("this kernel has no PR_SET_MDWE: Linux 6.3 or later")
    assert line == "True | ;  | "


def resident() -> int:
    """Bytes of this process in memory, each mapping of shared memory for itself."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


SMALL_ROOM = 512 << 10
# 4000 blocks at addresses of their own, each translated at first execution: more than the room holds
BLOCKS = ".rept 4000\n addq $1, (%rbx)\n subq $1, (%rbx)\n jmp 1f\n1:\n.endr\n"
COSTS = """
import json, pathlib, pytest
from tests.soft.test_host_memory import BLOCKS, SETTLE, SMALL_ROOM, resident
from tests.soft.test_translate import run
body = "leaq 0x20000, %rbx\\n movq $5, %rdx\\n9:" + BLOCKS + "decq %rdx\\n jnz 9b\\n"
before = resident()
found = run(SETTLE + body, pathlib.Path({directory!r}), pytest.MonkeyPatch(), {way!r}, SMALL_ROOM)
print(json.dumps([found[0], resident() - before]))
"""


def test_translation_costs_at_most_96_mib(tmp_path: pathlib.Path) -> None:
    """The room counts twice, as it is mapped twice; nothing else is made for it. Here it fills several times, in
    processes of their own: what other tests leave behind is no cost of it.
    """
    assert 2 * accelerator.ROOM <= 96 << 20
    sizes: list[Any] = []
    for way in ("off", "always"):
        (line,) = asked("", COSTS.format(directory=str(tmp_path), way=way))
        sizes.append(json.loads(line))
    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] - sizes[0][1] < 2 * SMALL_ROOM + (6 << 20), sizes
