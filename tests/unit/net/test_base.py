"""Both directions of a network back end: what waits, what is lost, what is finished in software."""

from __future__ import annotations

import json
import struct
import time
from typing import Any

import pytest
from accel.aio import IoThread
from accel.api import DeviceLock
from vmrun.backends.net.base import PyCard, PyNet, wire_pair

from vmrun.errors import BackendError
from vmrun.testing import QTest

FRAME = bytes(range(6)) + b"\x52\x54\x00\x12\x34\x56" + b"\x08\x00" + bytes(50)


class Card:
    """A card with room for `room` frames."""

    def __init__(self, room: int = 1000, takes: int = 0) -> None:
        self.room, self.frames, self.headers, self.links, self.sent = room, [], [], [], 0
        self.port = PyCard(self.receive, lambda: self.room > 0, self.links.append, self.on_sent, takes)
        self.frames: list[bytes]
        self.headers: list[Any]
        self.links: list[bool]

    def receive(self, frame: bytes, header: Any) -> bool:
        self.room -= 1
        self.frames.append(frame)
        self.headers.append(header)
        return True

    def on_sent(self) -> None:
        self.sent += 1


@pytest.fixture
def net() -> PyNet:
    return PyNet()


def test_a_frame_reaches_the_card(net: PyNet) -> None:
    card = Card()
    net.plug(card.port)
    assert net.incoming(FRAME)
    assert card.frames == [FRAME]
    assert net.frames_received == 1 and net.bytes_received == len(FRAME)


def test_frames_wait_for_room_and_keep_their_order(net: PyNet) -> None:
    card = Card(room=1)
    net.plug(card.port)
    for n in range(3):
        net.incoming(FRAME + bytes([n]))
    card.room = 2
    net.room_again()
    assert [frame[-1] for frame in card.frames] == [0, 1, 2]


def test_what_waits_is_bounded(net: PyNet) -> None:
    net.plug(Card(room=0).port)
    taken = sum(net.incoming(FRAME) for _ in range(2000))
    assert taken == net.held_count == 1024
    assert net.dropped == 2000 - 1024


def test_large_frames_that_wait_are_bounded_in_bytes(net: PyNet) -> None:
    net.plug(Card(room=0).port)
    for _ in range(100):
        net.incoming(FRAME + bytes(60000))
    assert net.held_bytes <= 1 << 21


def test_a_stopped_machine_gets_its_frames_when_it_goes_on(net: PyNet) -> None:
    card = Card()
    net.plug(card.port)
    net.set_running(False)
    net.incoming(FRAME)
    assert card.frames == []
    net.set_running(True)
    assert card.frames == [FRAME]


def test_a_pulled_cable_loses_frames_both_ways_and_the_card_is_told(net: PyNet) -> None:
    sent: list[bytes] = []
    net = PyNet(lambda frame, header: sent.append(frame))
    card = Card()
    net.plug(card.port)
    net.set_link(False)
    net.incoming(FRAME)
    net.transmit(FRAME)
    assert (card.frames, sent, card.links) == ([], [], [False])
    net.set_link(True)
    net.transmit(FRAME)
    assert (sent, card.links) == ([FRAME], [False, True])


@pytest.mark.parametrize("size", [1, 5, 13])
def test_a_card_gets_a_whole_header_of_a_runt(net: PyNet, size: int) -> None:
    card = Card()
    net.plug(card.port)
    net.incoming(b"!" * size)
    assert card.frames == [(b"!" * size).ljust(14, b"\0")]


@pytest.mark.parametrize("size", [0, 65559, 70000])
def test_frames_of_impossible_sizes_are_dropped(net: PyNet, size: int) -> None:
    card = Card()
    net.plug(card.port)
    net.incoming(bytes(size))
    net.transmit(bytes(size))
    assert card.frames == []
    assert net.dropped == 2


def test_a_card_waits_while_the_back_end_is_full(net: PyNet) -> None:
    card = Card()
    net.plug(card.port)
    net.block()
    assert not net.transmit(FRAME)
    assert card.sent == 0
    net.release()
    assert card.sent == 1 and net.transmit(FRAME)


def test_what_waits_is_lost_when_the_card_goes(net: PyNet) -> None:
    net.plug(Card(room=0).port)
    net.incoming(FRAME)
    net.plug(None)
    assert net.held_count == 0


def test_a_wire_joins_two_cards() -> None:
    a, b = wire_pair()
    left, right = Card(), Card()
    for end, card in ((a, left), (b, right)):
        end.plug(card.port)
        end.set_running(True)
    a.transmit(FRAME)
    b.transmit(FRAME[::-1])
    assert (left.frames, right.frames) == ([FRAME[::-1]], [FRAME])


def test_a_card_that_takes_no_headers_gets_finished_frames(net: PyNet) -> None:
    card = Card()
    net.plug(card.port)
    frame = FRAME[:14] + bytes(20) + b"\0\0" + b"\x12\x34" * 10
    assert net.incoming_with(frame, (1, 0, 0, 0, 34, 0))
    assert card.headers == [None]
    assert sum(struct.unpack(">11H", card.frames[0][34:])) % 0xFFFF == 0


def test_a_card_that_takes_headers_gets_the_frame_as_it_is(net: PyNet) -> None:
    card = Card(takes=1)
    net.plug(card.port)
    net.incoming_with(FRAME, (1, 0, 0, 0, 34, 16))
    assert (card.frames, card.headers) == ([FRAME], [(1, 0, 0, 0, 34, 16)])


def large(segments: int, size: int = 100) -> tuple[bytes, tuple[int, ...]]:
    """A TCP segment over IPv4 for whoever cuts it, and its header; each piece begins with its number."""
    data = b"".join(struct.pack(">I", n).ljust(size, b".") for n in range(segments))
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 40 + len(data), 1, 0, 64, 6, 0, 0x0A000001, 0x0A000002)
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 0, 0, 0x50, 0x10, 1000, 0, 0)
    return FRAME[:14] + ip + tcp + data, (1, 1, 54, size, 34, 16)


def numbers(frames: list[bytes]) -> list[int]:
    return [struct.unpack_from(">I", frame, 54)[0] for frame in frames]


def test_a_large_frame_for_a_card_that_takes_none_is_cut_as_it_has_room(net: PyNet) -> None:
    card = Card(room=3)
    net.plug(card.port)
    frame, header = large(10)
    assert net.incoming_with(frame, header)
    assert numbers(card.frames) == [0, 1, 2]
    assert net.incoming(FRAME) and net.held_count == 2
    card.room = 4
    net.room_again()
    assert numbers(card.frames) == [*range(7)] and all(told is None for told in card.headers)
    card.room = 100
    net.room_again()
    assert numbers(card.frames[:10]) == [*range(10)] and card.frames[10:] == [FRAME]
    assert net.held_count == net.held_bytes == 0 and net.frames_received == 11


def test_a_segment_that_a_card_does_not_take_comes_again(net: PyNet) -> None:
    seen: list[bytes] = []
    tried: list[int] = []

    def receive(frame: bytes, header: Any) -> bool:
        tried.append(len(frame))
        if len(tried) % 3:
            seen.append(frame)
        return bool(len(tried) % 3)

    net.plug(PyCard(receive))
    assert net.incoming_with(*large(10))
    assert net.incoming(FRAME)
    for _ in range(20):
        net.room_again()
    assert numbers(seen[:10]) == [*range(10)] and seen[10:] == [FRAME] and net.held_count == net.held_bytes == 0


def test_many_segments_for_a_card_come_in_turns(net: PyNet) -> None:
    """Each with the device lock let go in between: the other end chooses how many there are."""
    lock = DeviceLock()
    thread = IoThread(lock)
    card = Card(room=10000)
    net.rest_on(thread)
    try:
        with lock:
            net.plug(card.port)
            assert net.incoming_with(*large(1000, 8))
            first = len(card.frames)
            assert net.incoming(FRAME)  # has its turn behind them
            assert 0 < first == len(card.frames) <= 200
        thread.start()
        end = time.monotonic() + 20
        while len(card.frames) < 1001 and time.monotonic() < end:
            time.sleep(0.001)
        assert numbers(card.frames[:1000]) == [*range(1000)] and card.frames[1000:] == [FRAME]
    finally:
        thread.close()
        with lock:
            net.close()


@pytest.mark.parametrize("segments", [15, 63, 127])
def test_a_turn_that_ends_with_a_frame_is_not_the_last(net: PyNet, segments: int) -> None:
    """What waits behind it comes without the card's asking again."""
    lock = DeviceLock()
    thread = IoThread(lock)
    card = Card(room=0)
    net.rest_on(thread)
    wanted = 400 // segments + 1
    try:
        with lock:
            net.plug(card.port)
            for _ in range(wanted):
                assert net.incoming_with(*large(segments))
            card.room = 10000
            net.room_again()
        thread.start()
        end = time.monotonic() + 20
        while len(card.frames) < wanted * segments and time.monotonic() < end:
            time.sleep(0.001)
        assert len(card.frames) == wanted * segments
    finally:
        thread.close()
        with lock:
            net.close()


def test_another_card_gets_what_is_left_of_a_large_frame_as_it_takes_it(net: PyNet) -> None:
    net.plug(Card(room=3).port)
    frame, header = large(10)
    net.incoming_with(frame, header)
    after = Card(takes=0xFFFF)
    net.plug(after.port)
    assert after.frames == [frame] and after.headers == [header] and net.held_count == 0


def test_a_checksum_outside_the_frame_drops_it(net: PyNet) -> None:
    card = Card()
    net.plug(card.port)
    net.incoming_with(FRAME, (1, 0, 0, 0, 60, 16))
    assert card.frames == [] and net.dropped == 1


def test_a_capture_has_both_directions(net: PyNet, tmp_path: Any) -> None:
    net.plug(Card().port)
    net.capture(str(tmp_path / "net.pcap"), 40)
    net.incoming(FRAME)
    net.transmit(FRAME[::-1])
    net.end_capture()
    data = (tmp_path / "net.pcap").read_bytes()
    assert struct.unpack_from("=IHHiIII", data) == (0xA1B2C3D4, 2, 4, 0, 0, 40, 1)
    assert struct.unpack_from("=II", data, 24 + 8) == (40, 64)
    assert data[40:80] == FRAME[:40]
    assert data[96:136] == FRAME[::-1][:40]


def test_a_filter_can_keep_a_frame_and_let_it_go_later(net: PyNet) -> None:
    class Keeper:
        def __init__(self) -> None:
            self.kept: list[tuple[bool, bytes]] = []

        def passes(self, outgoing: bool, frame: bytes) -> bool:
            self.kept.append((outgoing, frame))
            return False

    card, keeper = Card(), Keeper()
    net.plug(card.port)
    net.add_filter(keeper)
    net.incoming(FRAME)
    assert card.frames == [] and keeper.kept == [(False, FRAME)]
    net.inject(False, FRAME, keeper)
    assert card.frames == [FRAME]


def test_views_and_checks_open_no_network(tmp_path: Any) -> None:
    from vmrun.config.resolve import resolve_file
    from vmrun.machine.examine import examine

    path = tmp_path / "m.json"
    cards = [{"driver": "virtio-net-pci", "netdev": id, "mq": True, "romfile": ""} for id in "ab"]
    netdevs = {"a": {"type": "stream", "addr": "unix:/no", "capture": "x.pcap"}, "b": {"type": "tap", "fds": "77:78"}}
    document = {"schema": "vmrun/machine/1", "machine": "pc-i440fx-7.2", "netdevs": netdevs, "devices": cards}
    path.write_text(json.dumps(document))
    assert examine(resolve_file(str(path))) == []
    assert not (tmp_path / "x.pcap").exists()


def test_a_netdev_that_no_card_has_is_opened() -> None:
    """It listens, and a card may come; what is wrong with it is said."""
    base = {"machine": "pc-i440fx-2.0", "memory": "16MiB"}
    with QTest({**base, "netdevs": {"u": {"type": "user", "hostfwd": "tcp:127.0.0.1:0-:22"}}}) as q:
        assert q.machine.board.netdevs["u"].forwards[0]["port"]
    with pytest.raises(BackendError, match="hostfwd"):
        QTest({**base, "netdevs": {"u": {"type": "user", "hostfwd": "xyz"}}})
