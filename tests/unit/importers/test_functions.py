"""Shell functions and aliases around QEMU: each call is a command, with what it gives and what is set by then."""

from __future__ import annotations

import time

import pytest

from vmrun.config.importers.cleaning import clean
from vmrun.config.importers.texts import commands

CASES = {
    "all arguments": ('run() {\n    qemu-system-x86_64 -m 1 "$@"\n}\nrun -hda "a b"\n', [["-m", "1", "-hda", "a b"]]),
    "on one line": ("function vm { exec qemu-system-x86_64 $@; }\nvm -m 2\n", [["-m", "2"]]),
    "by number": (
        "vm () {\n  local disk=$1 mem=$2\n  kvm -m $mem -hda ${1}.img -hdb $disk\n}\nvm d 3\n",
        [["-m", "3", "-hda", "d.img", "-hdb", "d"]],
    ),
    "several calls, what is set between them, shift": (
        'M=4\nvm() {\n\tname=$1; shift\n\ttimeout 9 qemu-system-x86_64 -name $name -m $M "$@"\n}\nvm a -S\nM=5\n'
        "if true; then vm b; fi\n",
        [["-name", "a", "-m", "4", "-S"], ["-name", "b", "-m", "5"]],
    ),
    "through each other": (
        'q() { qemu-system-x86_64 "$@" -S; }\nr() {\n  q -m 6 $1\n}\nr -snapshot\n', [["-m", "6", "-snapshot", "-S"]]
    ),
    "through each other, on one line": (
        'q() { kvm "$@" -S; }\nr() { q -m 12 "$@"; }\nr -snapshot\n', [["-m", "12", "-snapshot", "-S"]]
    ),
    "of the program's name": ('qemu() {\n  command qemu-system-x86_64 "$@"\n}\nqemu -m 7\n', [["-m", "7"]]),
    "never called": ("vm() {\n  qemu-system-x86_64 -m 8 $@\n}\n", [["-m", "8"]]),
    "without arguments": ("vm() {\n  qemu-system-x86_64 -m 9\n}\nvm\n", [["-m", "9"]]),
    "calling itself": ('vm() { qemu-system-x86_64 "$@"; vm -S "$@"; }\nvm -m 10\n', [["-m", "10"]]),
    "of a variable that is set below": (
        'vm() {\n  local o=(-m "${M:-1}" -hda "$1")\n  "$BIN" "${o[@]}" -S\n}\nBIN=qemu-kvm\nM=13\nvm d.img\n',
        [["-m", "13", "-hda", "d.img", "-S"]],
    ),
    "a list as one word": (
        'k=(root=/dev/sda rw)\nvm() { kvm -append "${k[*]} $*" -name "$*"; }\nvm a b\n',
        [["-append", "root=/dev/sda rw a b", "-name", "a b"]],
    ),
    "an alias": ("alias q='qemu-system-x86_64 -m 11'\nq -S\n", [["-m", "11", "-S"]]),
}


@pytest.mark.parametrize("case", CASES)
def test_calls_are_commands(case: str) -> None:
    text, wanted = CASES[case]
    found = [[word for word in command.argv() if word] for command in commands(clean(text))]
    assert found[: len(wanted)] == wanted
    assert len(found) == len(wanted) or case == "calling itself"


def test_an_unknown_argument_is_a_gap_where_it_is_used() -> None:
    (command,) = commands("vm() {\n  qemu-system-x86_64 -hda $1\n}\nvm $IMG\n")
    assert [gap.name for gap in command.gaps()] == ["IMG"]


def test_functions_that_call_each_other_in_circles_end() -> None:
    pair = 'a() { qemu-system-x86_64 "$@"; b -S "$@"; b "$@"; }\nb() { a "$@"; a -m 1 "$@"; }\n'
    began = time.process_time()
    try:
        commands(pair + "a -m 2\n" * 200)
    except ValueError:
        pass  # too tangled to read
    assert time.process_time() - began < 20
