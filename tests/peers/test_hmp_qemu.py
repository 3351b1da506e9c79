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
    wrong = {}
    for line in LINES:
        theirs, ours = (side.ask("human-monitor-command", **{"command-line": line})["return"] for side in sides)
        if theirs != ours:
            wrong[line] = (theirs, ours)
    assert wrong == {}
