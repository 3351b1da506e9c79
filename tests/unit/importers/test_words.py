"""A command line is found in logs, scripts, libvirt's .args files, options alone."""

from __future__ import annotations

import pytest

from vmrun.config.importers.words import anchor, program_words, shell_words

LINES = {
    "-m 64 -S": ["-m", "64", "-S"],
    "qemu-kvm -m 64": ["-m", "64"],
    "/usr/libexec/qemu-kvm -m 64": ["-m", "64"],
    "LC_ALL=C PATH=/bin \\\n  /usr/bin/qemu-system-i386 \\\n-name a \\\n-S\n": ["-name", "a", "-S"],
    "#!/bin/sh\nset -e\nexec sudo -E qemu-system-x86_64 -m 64 \"$@\" # more\necho over\n": ["-m", "64", "$@"],
    "# qemu-kvm -m 1\nkvm -m 2 > log 2>&1 &\n": ["-m", "2"],
    "qemu -m 2 2>/dev/null": ["-m", "2"],
    "cd /tmp && x\nqemu-kvm -append 'a\nb' -m 1": ["-append", "a\nb", "-m", "1"],
    "-name kvm -m 64": ["-name", "kvm", "-m", "64"],
    "-append \"a b\" -device '{\"driver\": \"e1000\"}'": ["-append", "a b", "-device", '{"driver": "e1000"}'],
    "qemu-kvm -S\n-m 64\n  --name a\n": ["-S", "-m", "64", "--name", "a"],
    "kvm -smbios type=1,manufacturer=Red Hat,product=RHEV Hypervisor,version=6 -S disk.img": [
        "-smbios", "type=1,manufacturer=Red Hat,product=RHEV Hypervisor,version=6", "-S", "disk.img",
    ],  # fmt: skip
    "": [],
}


@pytest.mark.parametrize("text", LINES)
def test_the_options_are_what_follows_the_program(text: str) -> None:
    assert shell_words(text) == LINES[text]


def test_an_open_quote_is_an_error() -> None:
    with pytest.raises(ValueError, match="quot"):
        shell_words("qemu-kvm -append 'a b")


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
