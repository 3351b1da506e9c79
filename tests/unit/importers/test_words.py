"""The words of a command that a shell has split, and where a process stands."""

from __future__ import annotations

from vmrun.config.importers.texts import program_words
from vmrun.config.importers.words import anchor


def test_what_starts_the_program_is_left_out() -> None:
    assert program_words(["nice", "-n", "5", "qemu-kvm", "-m", "64"]) == ["-m", "64"]
    assert program_words(["python3", "/usr/bin/vmrun-qemu", "-S"]) == ["-S"]


def test_relative_paths_become_those_of_the_process() -> None:
    document = {
        "drives": {"a": {"file": "x.img"}, "b": {"file": "/y.img"}, "c": {"file": "nbd:host:1"}, "d": {}},
        "chardevs": {"s": {"type": "socket", "path": "../s"}},
        "kernel": "bzImage",
        "firmware": {"bios": "bios.bin", "dirs": ["."]},
    }
    anchor(document, "/vm/one")
    assert document["drives"] == {
        "a": {"file": "/vm/one/x.img"}, "b": {"file": "/y.img"}, "c": {"file": "nbd:host:1"}, "d": {},
    }  # fmt: skip
    assert document["chardevs"]["s"]["path"] == "/vm/s"
    assert document["kernel"] == "/vm/one/bzImage"
    assert document["firmware"] == {"bios": "bios.bin", "dirs": ["/vm/one"]}
