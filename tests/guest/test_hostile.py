"""Guests that misbehave: each has a defined outcome, and vmrun stays in charge."""

from __future__ import annotations

import pathlib
import time

import pytest

from tests.guest.machines import Guest

pytestmark = pytest.mark.guest

LOOP_FOR_EVER = bytes.fromhex("fa ebfe")  # cli; jmp $
HALT_FOR_EVER = bytes.fromhex("fa f4 ebfd")  # cli; hlt
# every port from 0xffff down gets a byte, but those that reset or switch off; then isa-debug-exit
WRITE_EVERYWHERE = bytes.fromhex(
    "baffff"  # mov dx, ffffh
    "81fa9200 7416"  # next: cmp dx, 92h; je skip
    "81fa6400 7410"  # cmp dx, 64h; je skip
    "81fa0105 740a"  # cmp dx, 501h; je skip
    "81faf90c 7404"  # cmp dx, cf9h; je skip
    "b0a5 ee 90"  # mov al, a5h; out dx, al
    "4a 75e1"  # skip: dec dx; jnz next
    "ba0105 b021 ee f4"  # debug exit with 21h
)


def boot(tmp_path: pathlib.Path, accel: str, code: bytes, **keys: object) -> Guest:
    sector = bytearray(512)
    sector[: len(code)] = code
    sector[510:512] = b"\x55\xaa"
    (tmp_path / "disk.img").write_bytes(bytes(sector) + bytes((1 << 20) - 512))
    return Guest(tmp_path, accel, machine="rhel6.3.0", memory="64MiB", disks=["disk.img"], **keys)


def booted(guest: Guest) -> bool:
    return "Booting from 0000:7c00" in guest.output()


@pytest.mark.parametrize("code", [LOOP_FOR_EVER, HALT_FOR_EVER])
def test_a_guest_that_listens_to_nobody_is_ended_at_once(accel: str, tmp_path: pathlib.Path, code: bytes) -> None:
    with boot(tmp_path, accel, code) as guest:
        assert guest.run_until(lambda: booted(guest))
        began = time.monotonic()
        guest.machine.end("quit")
        assert time.monotonic() - began < 5  # 0.1 ms on an idle host
        assert guest.machine.state == "shutdown"


def test_a_guest_that_writes_to_every_port_changes_nothing_on_its_disk(accel: str, tmp_path: pathlib.Path) -> None:
    ending = {"id": "exit", "driver": "isa-debug-exit", "iosize": 1}
    with boot(tmp_path, accel, WRITE_EVERYWHERE, devices=[ending]) as guest:
        before = (tmp_path / "disk.img").read_bytes()
        assert guest.run_to_end() == "exit"
        assert guest.machine.outcome is not None and guest.machine.outcome.code == 0x43  # it came to its end
    assert (tmp_path / "disk.img").read_bytes() == before
