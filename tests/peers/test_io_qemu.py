"""vmrun-io and vmrun-nbd beside qemu-io and qemu-nbd: the same lines, what is printed, and exit codes."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import subprocess
import sys
import time

import pytest

from tests.peers.oracle import needs_qemu
from tests.peers.qmp_session import ROOT

pytestmark = [pytest.mark.peer, needs_qemu]

IO = """
a.qcow2 -c 'write -P 0x11 0 64k' -c 'read -P 0x11 0 64k' -c 'read -P 1 0 512'
a.qcow2 -c 'read -v 0 40' -c 'read 1.5k 0x200'
-f qcow2 a.qcow2 -c length -c info
a.qcow2 -c bogus -c 'read 0' -c 'read 64M 1k' -c map -c 'alloc 0 128k' -c 'alloc 32M'
a.qcow2 -c 'write 1 3' -c 'writev -P 3 0 512 1k' -c 'discard 0 64k' -c 'write -z 0 64k' -c 'read -P 0 0 64k'
a.qcow2 -c 'aio_write -P 4 0 64k' -c aio_flush -c 'aio_read -P 4 0 64k' -c aio_flush
-r a.qcow2 -c 'write 0 512' -c 'read -P 5 0 512'
-c 'read 0 512' nofile
-c 'open a.qcow2' -c 'read -P 5 0 512' -c close
-c length
--image-opts driver=qcow2,file.filename=a.qcow2 -c 'r 0 512'
-s -n a.qcow2 -c 'write -P 9 0 4k' -c 'read -P 9 0 4k'
a.qcow2 -c alloc -c 'flush 1' -c 'length x' -c resume -c sleep -c 'break x' -c 'read 0 1 2' -c 'read -l 4 0 8'
a.qcow2 -c 'read x 1' -c 'write -P 300 0 1' -c 'write -z -P 1 0 1' -c 'write -u 0 1' -c 'write -q 0 3G'
a.qcow2 -c 'read -P 1 -s 4 0 8' -c 'read -P 1 -s 9 0 8'
s.qcow2 -c 'write -s /dev/zero 0 64k' -c 'write -s a.qcow2 64k 100k' -c 'read -P 0 0 64k'
-C a.qcow2 -c 'read 1M 64k' -c 'alloc 1M 64k'
a.qcow2 -c 'reopen -r' -c 'write 0 1k' -c 'reopen -w' -c 'write 0 1k' -c quit -c bogus
-U a.qcow2 -c length
a.qcow2 -c 'write -pP 0x41 0 16' -c 'write -P 0x5f 16 16' -c 'read -v 0 48' -c 'read -pP 012 0 512' -c 'read -P x 0 8'
a.qcow2 -c 'readv 1G 512' -c 'writev 1G 512' -c 'd 1G 512' -c 'readv -p 0 8' -c 'discard -x 0 8' -c 'w -i 0 8'
-c 'open -o driver=qcow2,file.driver=file,file.filename=a.qcow2' -c length
a.qcow2 -c 'sigraise 9'
-t writethrough a.qcow2 -c 'write -P 0x5a 0 512' -c 'sigraise 9'
-t bogus a.qcow2 -c length
-c length a.qcow2 -f bogus
-f qcow2 s.qcow2 -c 'read -b 0 512' -c 'write -b -P 7 64k 64k'
-f qcow2 s.qcow2 -c 'write -b 512 3k' -c 'read -b -P 7 64k 64k' -c 'read -b -P 0 0 512'
-f qcow2 s.qcow2 -c 'read -b -P 7 64k 64k' -c 'read -b 1 512' -c 'write -b 0 100'
-f qcow2 s.qcow2 -c 'write -b 100P 512' -c 'write -bz 0 8' -c info
-f qcow2 s.qcow2 -c 'write -c 0 64k' -c 'write -c 0 64k' -c 'write -c 64k 4k'
-f qcow2 s.qcow2 -c 'write -c 1M 512' -c 'write -cf 0 64k' -c map
-f qcow2 s.qcow2 -c 'write -n 0 64k' -c 'read -b 0 3G'
-f qcow2 s.qcow2 -c 'writev -c 0 64k' -c 'readv -b 0 64k' -c 'write -c -s a.qcow2 128k 64k'
-f raw s.qcow2 -c 'write -b 0 512' -c 'read -b 0 512' -c 'write -c 0 64k' -c info
-c 'open -o driver=qcow2' -c 'open a b' -c 'open -x'
-c 'open -t foo a.qcow2' -c 'open -o foo=bar a.qcow2' -c 'open -o driver=foo a.qcow2'
-c 'open -o driver=raw,file.driver=qcow2 a.qcow2' -c length -c close -c 'open -o driver=qcow2 blkdebug::a.qcow2' -c info
-c 'open -o backing.backing.file.filename=x,backing.driver=raw a.qcow2' -c 'open a.qcow2' -c info
-c 'open -o cache-size=1M,l2-cache-size=2M a.qcow2' -c 'open -o file.filename=x a.qcow2'
-c 'open -o l2-cache-entry-size=33k a.qcow2' -c 'open -o lazy-refcounts=x a.qcow2'
a.qcow2 -c 'reopen -o bogus=on' -c 'reopen -rw'
a.qcow2 -c 'reopen -r -o read-only=off' -c 'reopen -o lazy-refcounts=on' -c 'reopen -o driver=raw'
-c 'open -o driver=copy-on-read,file.driver=qcow2 a.qcow2' -c 'read -P 0 2M 64k' -c 'alloc 2M 64k'
-c 'open -r -o driver=host_device,filename=.' -c 'open -o driver=host_cdrom,filename=.'
-c 'open -o driver=host_cdrom,filename=.' -c 'open -r -o driver=host_cdrom,filename=a.qcow2'
-c 'open -r -o driver=file,filename=/dev/null' -c 'open -r -o driver=host_device,filename=/dev/null' -c 'read 0 512'
-r -C a.qcow2 -c 'read 0 512'
-f vpc bad.vpc -c 'read 0 512'
a.qcow2 -c 'write 4k 512 -P 89' -c 'read 4k -P 89 512' -c 'read -P 5 -- 0 512' -c 'read -- -1 512' -c 'read 0 512 -P'
-f qcow2 blkdebug::a.qcow2 -c 'break write_aio A' -c 'aio_write 0 4k' -c 'wait_break A' -c 'resume A' -c aio_flush
"""


def images(directory: pathlib.Path) -> None:
    for words in (
        "qemu-img create -q -f qcow2 base.qcow2 16M",
        "qemu-io -c 'write -P 7 1M 1M' base.qcow2",
        "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 a.qcow2",
        "qemu-io -c 'write -P 5 0 128k' a.qcow2",
        "qemu-img create -q -f qcow2 s.qcow2 1M",
        "qemu-img create -q -f vpc bad.vpc 10M",
    ):
        subprocess.run(shlex.split(words), cwd=directory, check=True, capture_output=True)
    with (directory / "bad.vpc").open("r+b") as file:
        file.seek(512 + 32)
        file.write(b"\0\0\0\x80")  # bytes of a block


def said(program: list[str], line: str, directory: pathlib.Path) -> tuple[str, list[str], int]:
    """(standard output without times, standard error, exit code)."""
    words = [*program, *shlex.split(line)]
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    errors = re.sub(r"(qemu|vmrun)-(io|nbd): ", "X: ", done.stderr).splitlines()
    return re.sub(r"; \d\d[\d.]* sec .*", "", done.stdout), errors, done.returncode


@pytest.mark.parametrize("line", IO.strip().splitlines())
def test_a_line_says_and_does_the_same(tmp_path: pathlib.Path, line: str) -> None:
    ours = [sys.executable, str(ROOT / "bin" / "vmrun-io")]
    answers = []
    for name, program in (("q", ["qemu-io"]), ("v", ours)):
        (tmp_path / name).mkdir()
        images(tmp_path / name)
        answers.append(said(program, line, tmp_path / name))
    assert answers[1] == answers[0]
    subprocess.run(["qemu-img", "compare", "-q", tmp_path / "q/a.qcow2", tmp_path / "v/a.qcow2"], check=True)
    subprocess.run(["qemu-img", "check", "-q", tmp_path / "v/a.qcow2"], check=True)


@pytest.mark.parametrize(
    "line",
    ["nofile", "", "-e x a.qcow2", "-k s a.qcow2", "-f bogus a.qcow2", "--cache no a.qcow2", "-B no -k {}/s a.qcow2"],
)
def test_an_export_that_cannot_be_is_refused_in_the_same_words(tmp_path: pathlib.Path, line: str) -> None:
    images(tmp_path)
    line = line.format(tmp_path)
    theirs, ours = (
        said(program, line, tmp_path)
        for program in (["qemu-nbd"], [sys.executable, str(ROOT / "bin" / "vmrun-nbd")])
    )
    assert (ours[1][:1], ours[2]) == (theirs[1][:1], theirs[2])


def test_a_forked_server_is_there_when_the_command_is_back(tmp_path: pathlib.Path) -> None:
    images(tmp_path)
    line = f"--fork --pid-file={tmp_path}/pid -t -r -s -f qcow2 -k {tmp_path}/s -x disk -D text -e 0 a.qcow2"
    assert said([sys.executable, str(ROOT / "bin" / "vmrun-nbd")], line, tmp_path) == ("", [], 0)
    pid = int((tmp_path / "pid").read_text())
    try:
        listed = subprocess.run(["qemu-nbd", "-L", "-k", tmp_path / "s"], check=True, capture_output=True, text=True)
        assert "export: 'disk'" in listed.stdout and "description: text" in listed.stdout
        words = ["qemu-img", "compare", "-q", f"nbd+unix:///disk?socket={tmp_path}/s", "a.qcow2"]
        subprocess.run(words, cwd=tmp_path, check=True)
    finally:
        os.kill(pid, 15)
    deadline = time.monotonic() + 30
    while (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not (tmp_path / "s").exists()
