"""gdb's remote protocol, packet by packet, and what a hostile client gets. The real gdb: tests/guest/test_gdb.py."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterator

import pytest

from tests.guest.machines import Guest
from vmrun.monitor.gdb import HANDLERS, MEMORY, PACKET, GdbSession


class Wire:
    def __init__(self, guest: Guest) -> None:
        self.machine = guest.machine
        self.sent = b""
        self.session = GdbSession(guest.machine, self.send)

    def send(self, data: bytes) -> None:
        self.sent += data

    def raw(self, data: bytes) -> bytes:
        self.sent = b""
        self.session.feed(data)
        return self.sent

    def ask(self, body: str | bytes) -> str:
        """The answer to one packet, without acknowledgement and frame."""
        data = body.encode("latin-1") if isinstance(body, str) else body
        answer = self.raw(b"$" + data + b"#%02x" % (sum(data) & 0xFF))
        return answer.removeprefix(b"+").removeprefix(b"$").rpartition(b"#")[0].decode("latin-1")


@pytest.fixture
def wire(tmp_path: pathlib.Path) -> Iterator[Wire]:
    cpus = {"count": 2}
    with Guest(tmp_path, "soft", machine="pc-i440fx-7.2", memory="32MiB", paused=True, cpus=cpus) as guest:
        found = Wire(guest)
        yield found
        found.session.close()


def test_packets_are_acknowledged_until_gdb_says_no(wire: Wire) -> None:
    assert wire.raw(b"$qC#b4") == b"+$QC1#c5"
    assert wire.raw(b"$qC#00") == b"-"
    assert wire.raw(b"-") == b"$QC1#c5"
    assert wire.raw(b"$QStartNoAckMode#b0") == b"+$OK#9a"
    assert wire.raw(b"$qC#b4") == b"$QC1#c5"


def test_a_packet_may_come_in_pieces(wire: Wire) -> None:
    assert wire.raw(b"$q") == b"" and wire.raw(b"C#") == b"" and wire.raw(b"b4") == b"+$QC1#c5"


def test_the_description_has_gdbs_features_and_all_registers(wire: Wire) -> None:
    import xml.etree.ElementTree

    text, part = "", "m"
    while part.startswith("m"):
        part = wire.ask(f"qXfer:features:read:target.xml:{len(text):x},800")
        text += part[1:]
    target = xml.etree.ElementTree.fromstring(text)
    names = [feature.get("name") for feature in target.iter("feature")]
    assert names == ["org.gnu.gdb.i386.core", "org.gnu.gdb.i386.sse", "org.gnu.gdb.i386.segments", "org.vmrun.system"]
    registers = list(target.iter("reg"))
    assert [register.get("regnum") for register in registers] == [str(n) for n in range(len(registers))]
    assert len(wire.ask("g")) == sum(int(register.get("bitsize", "0")) for register in registers) // 4


def test_registers_read_and_written(wire: Wire) -> None:
    assert wire.ask("p10") == "f0ff000000000000"  # rip at reset
    assert wire.ask("P0=8877665544332211") == "OK" and wire.ask("p0") == "8877665544332211"
    whole = wire.ask("g")
    assert wire.ask("G" + "01" * 8 + whole[16:]) == "OK" and wire.ask("p0") == "01" * 8
    assert wire.ask("P0=11") == "E16" and wire.ask("p999") == "E16" and wire.ask("P999=00") == "E16"


def test_memory_read_and_written(wire: Wire) -> None:
    assert wire.ask("M1000,4:01020304") == "OK" and wire.ask("m1000,4") == "01020304"
    assert wire.ask(b"X1000,3:\x7d\x03\x7d\x04\x01") == "OK" and wire.ask("m1000,4") == "23240104"
    assert wire.ask("mffffffff00000000,4") != "" and wire.ask("m10000,ffffffff") == "00" * MEMORY  # a part of it
    assert wire.ask("M1000,4:01") == "E16"


def test_packets_that_begin_like_others_are_not_they(wire: Wire) -> None:
    for packet in ("qCRC:0,100", "vContinue", "qAttachedX", "qsThreadInfos", "QStartNoAckModes"):
        assert wire.ask(packet) == "", packet


def test_what_a_step_holds_back_is_told(wire: Wire) -> None:
    assert wire.ask("qqemu.sstepbits") == "ENABLE=1,NOIRQ=2,NOTIMER=4" and wire.ask("qqemu.sstep") == "0x7"
    assert wire.ask("Qqemu.sstep=0x7") == "OK" and wire.ask("Qqemu.sstep=0x1") == "E16"


def test_processors_that_were_not_started_are_halted(wire: Wire) -> None:
    texts = [bytes.fromhex(wire.ask(f"qThreadExtraInfo,{n}")).decode() for n in (1, 2)]
    assert texts == ["CPU#0 [running]", "CPU#1 [halted ]"]


def test_a_breakpoint_where_nothing_is_yet_leaves_memory_alone(wire: Wire) -> None:
    """Four of them: what loads the code there would write over an int3."""
    for n in range(4):
        assert wire.ask(f"Z0,{0x7C00 + n * 16:x},1") == "OK"
    assert wire.machine.board.ram.read(0x7C00, 64) == bytes(64)
    assert wire.ask("Z1,8000,1") == "E1c"  # no fifth point
    assert wire.ask("Z0,7d00,1") == "OK" and wire.machine.board.ram.read(0x7D00, 1) == b"\xcc"
    for n in range(4):
        assert wire.ask(f"z0,{0x7C00 + n * 16:x},1") == "OK"
    assert wire.ask("Z1,8000,1") == "OK"


def test_a_breakpoint_does_not_show(wire: Wire) -> None:
    wire.ask("M1000,2:9090")
    assert wire.ask("Z0,1000,1") == "OK" and wire.ask("m1000,2") == "9090"
    assert wire.machine.board.ram.read(0x1000, 2) == b"\xcc\x90"
    assert wire.ask("M1000,2:4142") == "OK" and wire.machine.board.ram.read(0x1000, 2) == b"\xcc\x42"
    assert wire.ask("z0,1000,1") == "OK" and wire.machine.board.ram.read(0x1000, 2) == b"\x41\x42"


def test_hardware_points_are_four(wire: Wire) -> None:
    assert [wire.ask(f"Z2,{n:x}000,4") for n in range(1, 6)] == ["OK"] * 4 + ["E1c"]
    assert wire.ask("z2,1000,4") == "OK" and wire.ask("z2,1000,4") == "E1c"
    assert wire.ask("Z3,1001,4") == "E1c" and wire.ask("Z4,2001,1") == "OK"


def test_a_breakpoint_goes_with_its_debugger(wire: Wire) -> None:
    wire.ask("M1000,1:90")
    wire.ask("Z0,1000,1")
    wire.session.close()
    assert wire.machine.board.ram.read(0x1000, 1) == b"\x90"


def test_one_debugger_at_a_time(wire: Wire) -> None:
    second = GdbSession(wire.machine, lambda data: None)
    second.feed(b"$qC#b4")
    assert second.over and wire.ask("qC") == "QC1"
    second.close()


def test_threads_are_processors(wire: Wire) -> None:
    assert wire.ask("qfThreadInfo") == "m1,2" and wire.ask("qsThreadInfo") == "l"
    assert wire.ask("Hg2") == "OK" and wire.ask("qC") == "QC2"
    assert wire.ask("Hg9") == "E16" and wire.ask("T9") == "E16"
    assert bytes.fromhex(wire.ask("qThreadExtraInfo,2")).startswith(b"CPU#1")


def test_what_nobody_knows_is_answered_by_nothing(wire: Wire) -> None:
    assert wire.ask("vMustReplyEmpty") == "" and wire.ask("Z9,0,0") == "" and wire.ask("~") == ""


def test_too_much_is_forgotten(wire: Wire) -> None:
    assert wire.ask("M0,4000:" + "00" * PACKET) in ("E16", "E22")
    wire.raw(b"$" + b"m" * (4 * PACKET))
    assert len(wire.session.input) <= 2 * PACKET + 8
    assert wire.raw(b"#00$qC#b4").endswith(b"$QC1#c5")


def test_nonsense_of_every_kind_is_survived(wire: Wire) -> None:
    chosen = random.Random(11)
    names = [name for name in HANDLERS if name not in ("k", "vKill", "D")]
    for _ in range(3000):
        name = chosen.choice(names).encode()
        tail = bytes(chosen.choice(b"0123456789abcdef,;:.=-*#$}zZ\x00\xff") for _ in range(chosen.randrange(24)))
        answer = wire.ask(name + tail.replace(b"#", b"").replace(b"$", b""))
        assert len(answer) <= 4 * PACKET
        wire.machine.pause()
    assert not wire.session.over
    wire.raw(bytes(chosen.randrange(256) for _ in range(5000)).replace(b"k", b"").replace(b"D", b""))


def wait_for(wire: Wire, text: bytes) -> None:
    for _ in range(100):
        if text in wire.sent:
            return
        wire.machine.loop.run_once(0.1)
    raise AssertionError(wire.sent)


def test_a_guest_that_runs_is_interrupted(wire: Wire) -> None:
    assert wire.raw(b"$c#63") == b"+"
    assert wire.machine.running
    wire.machine.loop.run_once(0.1)
    wire.session.feed(b"\x03")
    wait_for(wire, b"$T02thread:01;#")
    assert wire.machine.state == "debug"


def test_one_processor_steps_alone(wire: Wire) -> None:
    assert wire.ask("vCont?") == "vCont;c;C;s;S"
    assert wire.ask("vCont;s:1") == ""
    wait_for(wire, b"$T05thread:01;#")
    assert wire.ask("p10") == "5be0000000000000"  # behind the jump at the reset vector
    assert wire.ask("Hg2") == "OK" and wire.ask("p10") == "f0ff000000000000"


def test_a_step_that_never_ends_is_interrupted(wire: Wire) -> None:
    assert wire.ask("vCont;s:2") == ""  # it waits for the first one's start-up message
    wire.machine.loop.run_once(0.2)
    assert wire.machine.running
    wire.session.feed(b"\x03")
    wait_for(wire, b"$T02thread:01;#")


def test_a_monitor_that_stops_the_machine_is_told_to_gdb(wire: Wire) -> None:
    wire.raw(b"$c#63")
    wire.machine.pause()
    wait_for(wire, b"$T02thread:01;#")
