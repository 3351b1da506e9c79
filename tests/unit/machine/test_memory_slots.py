"""Memory slots: registers as QEMU's docs/specs/acpi_mem_hotplug has them, places, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vmrun.errors import BuildError, ConfigError
from vmrun.testing import QTest

BASE = 1 << 32
PORTS, EVENTS = 0xA00, 0xAFE0
MIB = 1 << 20


def machine(**keys: object) -> QTest:
    return QTest(
        {
            "machine": "pc-i440fx-7.2",
            "memory": "256MiB",
            "memory-slots": {"count": 2, "maxmem": "1GiB"},
            "objects": {f"m{n}": {"type": "memory-backend-ram", "size": "128MiB"} for n in range(3)},
            **keys,
        }
    )


@pytest.fixture
def q() -> Iterator[QTest]:
    with machine() as made:
        yield made


def module(name: str = "d0", memdev: str = "m0", **props: object) -> dict[str, object]:
    return {"driver": "pc-dimm", "id": name, "memdev": memdev, **props}


def test_a_module_is_memory_and_the_slot_tells_of_it(q: QTest) -> None:
    q.machine.plug(module())
    q.outl(PORTS, 0)
    assert [q.inl(PORTS + 4 * n) for n in range(5)] == [0, 1, 128 * MIB, 0, 0]
    assert q.inb(PORTS + 0x14) == 3
    assert q.inw(EVENTS) & 8
    q.write(BASE + 128 * MIB - 4, b"last")
    assert q.read(BASE + 128 * MIB - 4, 4) == b"last"


def test_a_module_of_the_start_is_no_news() -> None:
    with machine(devices=[module()]) as q:
        q.outl(PORTS, 0)
        assert q.inb(PORTS + 0x14) == 1
        assert q.inw(EVENTS) == 0


def test_the_guest_clears_what_it_has_heard(q: QTest) -> None:
    q.machine.plug(module())
    q.outb(PORTS + 0x14, 2)
    assert q.inb(PORTS + 0x14) == 1


def test_an_empty_slot_and_none(q: QTest) -> None:
    q.outl(PORTS, 1)
    assert q.inb(PORTS + 0x14) == 0
    q.outb(PORTS + 0x14, 8)
    q.outl(PORTS, 2)
    assert q.inl(PORTS + 8) == 0
    q.outl(PORTS, 0xFFFFFFFF)
    q.outl(PORTS + 4, 1)


def test_a_module_goes_when_the_guest_lets_go(q: QTest) -> None:
    told = []
    q.machine.listen(lambda name, **data: told.append((name, data.get("device"))))
    q.machine.unplug(q.machine.plug(module()))
    q.outl(PORTS, 0)
    assert q.inb(PORTS + 0x14) == 7
    q.outb(PORTS + 0x14, 8)
    assert q.read(BASE, 4) == b"\xff" * 4
    q.machine.loop.call_soon(q.machine.loop.stop)
    q.machine.loop.run()
    assert ("DEVICE_DELETED", "d0") in told
    q.machine.plug(module("d1"))


def test_what_the_guest_says_of_a_slot_is_told(q: QTest) -> None:
    told = []
    q.machine.listen(lambda name, **data: told.append((name, data)))
    q.machine.plug(module())
    q.outl(PORTS, 0)
    q.outl(PORTS + 4, 1)
    q.outl(PORTS + 8, 0x80)
    q.machine.loop.call_soon(q.machine.loop.stop)
    q.machine.loop.run()
    row = {"device": "d0", "slot": "0", "slot-type": "DIMM", "source": 1, "status": 0x80}
    assert ("ACPI_DEVICE_OST", {"info": row}) in told


def test_the_next_module_lies_behind(q: QTest) -> None:
    q.machine.plug(module())
    q.machine.plug(module("d1", "m1"))
    q.outl(PORTS, 1)
    assert q.inl(PORTS) == 128 * MIB


@pytest.mark.parametrize(
    ("props", "why"),
    [
        ({"slot": 0}, "slot 0 is busy"),
        ({"slot": 2}, r"invalid slot number 2, valid range is \[0-1\]"),
        ({"addr": BASE}, "address range conflicts with memory device id='d0'"),
        ({"addr": BASE + 4096}, "address must be aligned to 0x200000 bytes"),
        ({"addr": 0x200000}, "can't add memory device"),
        ({"addr": (1 << 64) - 0x200000}, "can't add memory device"),
        ({"node": 1}, "exceeds the number of numa nodes: 1"),
        ({"memdev": "m0"}, "can't use already busy memdev: m0"),
    ],
)
def test_a_place_that_cannot_be_is_refused(q: QTest, props: dict[str, object], why: str) -> None:
    q.machine.plug(module())
    with pytest.raises(BuildError, match=why):
        q.machine.plug(module("d1", **{"memdev": "m1", **props}))
    q.machine.plug(module("d1", "m1"))  # nothing is left of it
    with pytest.raises(BuildError, match="no free slots available"):
        q.machine.plug(module("d2", "m2"))


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"machine": "pc-i440fx-2.0"}, "pc-i440fx-2.0 has no memory slots"),
        ({"machine": "rhel6.3.0"}, "rhel6.3.0 has no memory slots"),
        ({"memory-slots": {"count": 2, "maxmem": "256MiB"}}, "no more than the 256MiB it starts with"),
        ({"memory-slots": {"count": 257, "maxmem": "1GiB"}}, "257"),
        ({"memory-slots": {"count": 2, "maxmem": "1GiB", "base": "8GiB"}}, "this machine makes it"),
    ],
)
def test_slots_that_cannot_be_are_refused(keys: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        machine(**keys)


def test_where_a_module_is_stays_when_it_is_saved(tmp_path) -> None:
    from vmrun.machine import snapshot

    with machine() as q:
        first = q.machine.plug(module())
        q.machine.plug(module("d1", "m1"))
        q.machine.unplug(first)
        q.outl(PORTS, 0)
        q.outb(PORTS + 0x14, 8)
        q.machine.loop.call_soon(q.machine.loop.stop)
        q.machine.loop.run()
        q.write(BASE + 128 * MIB, b"kept")
        if q.machine.state == "running":
            q.machine.pause()
        snapshot.save(q.machine, str(tmp_path / "saved"))
    restored = snapshot.restore(str(tmp_path / "saved"), accel=["qtest"])
    try:
        assert restored.devices["d1"].address == BASE + 128 * MIB
        assert restored.board.memory.read_bytes(BASE + 128 * MIB, 4) == b"kept"
    finally:
        restored.close()
