"""Lines of the monitor for people, typed to QEMU and to vmrun-qemu on the same command line: equal texts."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from tests.peers.qmp_session import ROOT, Talk
from tests.peers.test_qmp_shapes import LINE

pytestmark = [pytest.mark.peer, needs_qemu]

LINES = """
info iothreads
info memdev
info memory-devices
info memory_size_summary
info migrate_capabilities
info migrate_parameters
info balloon
info vm-generation-id
info dump
info registers
info registers -a
info uuid
info name
info kvm
info status
x /4xw 0xfffffff0
xp /3i 0xffff0
xp /4xb 0xffff0
xp /4dw 0xffff0
xp 0xffff0
xp /8cb 0xffff0
xp /2xg 0xffff0
xp /4uh 0xffff0
xp /2ow 0xffff0
xp /9xh 0xffff0
print 1+2*3
print /x 255
print /x 0
print /d $eip
print /d $eip-0x10
print /x 0-1
print /d 0-1
print /u 0-1
print /d 7/-2
print /d 7%-2
print /d 1|2&3^5
print /o 64
p /c 65
p /d (4-2)*~0
p 5/0
p 1+
p $nothing
p (1
gva2gpa 0x1000
nmi
cpu 0
cpu 5
object_add iothread,id=io1
object_add iothread,id=io1
object_add foo,id=io1
object_del io1
object_del io1
qom-set /objects/foo x 1
chardev-add null,id=zz
chardev-remove zz
chardev-remove zz
chardev-send-break n0
ringbuf_write r0 hello
ringbuf_read r0 5
watchdog_action none
watchdog_action foo
balloon 100
migrate_set_capability events on
migrate_set_parameter max-bandwidth 10
info migrate_parameters
memsave 0 16 m.bin
pmemsave 0 16 m.bin
block_resize foo 20M
system_wakeup
getfd x
closefd x
i /b 0x70
foo
help foo
info foo
stop foo
device_del foo
""".strip().splitlines()
WRONG = r"""
announce_self 1 2 3
announce_self "x
balloon
balloon "x
balloon -1
balloon 1 2
block_job_cancel
block_job_cancel -z
block_job_cancel x y
block_job_set_speed x
block_job_set_speed x 1.5
block_resize d0 1x
block_resize d0 -1
block_resize d0 8E
block_resize d0 1G x
block_set_io_throttle d0 1 2 3 4 5
block_stream x 0.3 "x
boot_set
boot_set on
change vnc
change vnc password
change cd0 -z a
change cd0 -f
change cd0 a raw foo
chardev-add null
chardev-change n0
chardev-change n0 foo
commit x
cpu -1
cpu 99999999999
device_add
device_add x y
device_add "
drive_add 0
drive_add -n 0 if=none
drive_add -n 0 driver=null-co,node-name=n1
drive_add 0 if=none,id=d0
drive_add 0 if=none
drive_add 0 if=none
drive_mirror -f -n x y
drive_mirror -nf x y
drive_mirror -n -n x y
drive_mirror -n -z x y
drive_mirror --n x y
dump-guest-memory -d -p x
dump-guest-memory -q x
dump-guest-memory a 1 2 3
eject -f
eject cd0 -f
expire_password vnc never -d
expire_password x y
gdbserver foo
hostfwd_add x y
i
i /b 0x70.
i /b 0x100000000
i /xz 0x70
o /b 0x80
info block foo
info block d0 -v
info block -z
info lapic -1
info mtree -x
info registers 1
info registers -z
info qtree x
info qom-tree x
info stats
info stats x
info status "
info/x x
memsave 0 16
memsave 0 0x100000000 "m.bin"
memsave 0x3fffff8 16 "m.bin"
migrate -z x
migrate -b -d nothing:
migrate_set_capability foo on
migrate_set_capability xbzrle foo
migrate_set_parameter foo 1
mouse_move 1
mouse_move a b
nbd_server_start
netdev_add
netdev_add foo,id=x
nmi 0
object_add
object_add iothread,id=
object_add foo
p 'a
p 'ab'
p '
p 08
p 0xg
p 1 2
p 1<<2
p (1))
p "x"
p 18446744073709551616
pmemsave 0 16 /nonexistent/x
qemu-io d0
qemu-io x y
qom-get /machine
qom-set -j /machine foo 1
ringbuf_read r0 -1
ringbuf_write r0 a b
ringbuf_write r0 "a\qb"
ringbuf_write r0 "a b\n\r\\c"
ringbuf_read r0 20
savevm a b
screendump a -f
screendump a -g png
screendump a b c
sendkey a b
sendkey a"b
set_link n0 On
set_link "" on
set_password vnc x -d
set_password vnc x -e a
sum 0 1+ 2
sum (1 2
x
x/
x /q 0
xp /4xw 0+ 4 5
xp /8xb 0x3fffffc
xp /2xb 0xe0000000
stop/x
"stop"
s x
quit x
help info foo
foo/bar
""".strip().splitlines()  # too little, too much, and what is none of it


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Talk, Talk]]:
    top = tmp_path_factory.mktemp("people")
    made = []
    for name, program in (("qemu", [QEMU or ""]), ("vmrun", [sys.executable, str(ROOT / "bin" / "vmrun-qemu")])):
        directory = pathlib.Path(top / name)
        directory.mkdir()
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", directory / "a.qcow2", "16M"], check=True)
        made.append(Talk([*program, *LINE, "-accel", "tcg"], directory))
    yield made[0], made[1]
    for side in made:
        side.close()


def test_lines_print_what_qemu_s_print(sides: tuple[Talk, Talk]) -> None:
    assert compared(sides, LINES) == {}


def test_wrong_arguments_are_told_in_qemu_s_words(sides: tuple[Talk, Talk]) -> None:
    found = compared(sides, WRONG)
    firsts = {line: tuple(str(text).split("\r\n")[0] for text in both) for line, both in found.items()}
    assert {line: both for line, both in firsts.items() if both[0] != both[1]} == {}


def compared(sides: tuple[Talk, Talk], lines: list[str]) -> dict[str, tuple[str, str]]:
    """The lines whose texts differ."""
    wrong = {}
    for line in lines:
        theirs, ours = (side.ask("human-monitor-command", **{"command-line": line})["return"] for side in sides)
        if theirs != ours:
            wrong[line] = (theirs, ours)
    return wrong
