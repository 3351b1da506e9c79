"""Objects of the host's side, descriptors, block nodes, character back ends and dumps, by QMP."""

from __future__ import annotations

import array
import base64
import gc
import json
import os
import pathlib
import socket
import ssl
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.board import Driven
from tests.unit.monitor.test_ports import read, turn
from tests.unit.monitor.test_qmp import Talk, finish
from vmrun.core import fdsets
from vmrun.machine.paging import walk
from vmrun.monitor.server import Monitors


@pytest.fixture
def pc(tmp_path: pathlib.Path) -> Iterator[Driven]:
    devices = [{"driver": "isa-serial", "id": "com", "chardev": "c"}]
    chardevs = {"c": {"type": "null"}}
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="16MiB", chardevs=chardevs, devices=devices) as pc:
        yield pc


@pytest.fixture
def talk(pc: Driven) -> Talk:
    talk = Talk(pc)
    talk.ask("qmp_capabilities")
    return talk


def desc(answer: dict[str, Any]) -> str:
    return str(answer["error"]["desc"])


# --- objects ----------------------------------------------------------------------------------------------------


def test_an_object_is_made_looked_at_changed_and_deleted(talk: Talk) -> None:
    talk.result("object-add", qom_type="iothread", id="io", poll_max_ns=5)
    assert talk.result("qom-get", path="/objects/io", property="poll-max-ns") == 5
    talk.result("qom-set", path="/objects/io", property="poll-max-ns", value=9)
    (row,) = talk.result("query-iothreads")
    assert row["id"] == "io" and row["poll-max-ns"] == 9 and row["thread-id"] > 0
    talk.result("object-del", id="io")
    assert talk.result("query-iothreads") == []


@pytest.mark.parametrize(
    ("kind", "props", "message"),
    [
        ("memory-backend-ram", {"size": "1048576"}, "Invalid parameter type for 'size', expected: integer"),
        ("memory-backend-ram", {"size": 4096, "share": "on"}, "Invalid parameter type for 'share', expected: boolean"),
        ("iothread", {"poll-max-ns": "5"}, "Invalid parameter type for 'poll-max-ns', expected: integer"),
        ("iothread", {"x": "5"}, "Parameter 'x' is unexpected"),
    ],
)
def test_text_is_no_number_and_no_switch_in_json(talk: Talk, kind: str, props: dict[str, Any], message: str) -> None:
    assert desc(talk.ask("object-add", **{"qom-type": kind, "id": "o"}, **props)) == message


def test_an_object_that_somebody_holds_stays(pc: Driven, talk: Talk) -> None:
    talk.result("object-add", qom_type="secret", id="s", data="x")
    pc.machine.board.user_object("s").users.append("vnc")
    assert desc(talk.ask("object-del", id="s")) == "object 's' is in use, can not be deleted"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"qom_type": "nothing", "id": "a"}, "Parameter 'qom-type' does not accept value 'nothing'"),
        ({"qom_type": "iothread", "id": "a", "more": 1}, "Parameter 'more' is unexpected"),
        ({"qom_type": "iothread", "id": "a", "poll_grow": "x"}, "Invalid parameter type for 'poll-grow', expected"),
        ({"qom_type": "secret", "id": "a"}, "Either 'file' or 'data' must be provided"),
        ({"qom_type": "secret", "id": "a", "data": "x", "file": "y"}, "'file' and 'data' are mutually exclusive"),
        ({"qom_type": "secret", "id": "a", "data": "x", "format": "z"}, "Parameter 'format' does not accept"),
        ({"qom_type": "rng-random", "id": "a", "filename": "/etc/passwd"}, "rng-random reads"),
    ],
)
def test_what_is_no_object_is_refused_and_nothing_is_left(talk: Talk, given: dict[str, Any], words: str) -> None:
    assert desc(talk.ask("object-add", **given)).startswith(words)
    assert talk.result("qom-list", path="/objects") == [{"name": "type", "type": "string"}]


def test_a_secret_is_never_told(pc: Driven, talk: Talk) -> None:
    data = base64.b64encode(b"hush").decode()
    talk.result("object-add", qom_type="secret", id="s", data=data, format="base64")
    made: Any = pc.machine.board.user_object("s")
    assert made.value == b"hush"
    assert "error" in talk.ask("qom-get", path="/objects/s", property="data")


# --- descriptors ------------------------------------------------------------------------------------------------


def with_fd(monitors: Monitors, peer: socket.socket, name: str, fd: int, **arguments: Any) -> dict[str, Any]:
    """A command with a descriptor beside it; the answer."""
    given = {key.replace("_", "-"): value for key, value in arguments.items()}
    data = json.dumps({"execute": name, "arguments": given}).encode()
    peer.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    return dict(read(monitors, peer)[-1])


@pytest.fixture
def peer(pc: Driven, tmp_path: pathlib.Path) -> Iterator[tuple[Monitors, socket.socket]]:
    monitors = Monitors(pc.machine)
    path = str(tmp_path / "m")
    monitors.listen({"path": path})
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(path)
        made.setblocking(False)
        read(monitors, made)
        made.send(b'{"execute": "qmp_capabilities"}')
        read(monitors, made)
        yield monitors, made
    monitors.close()


def test_a_set_of_descriptors_opens_like_a_file(peer: tuple[Monitors, socket.socket], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"inside")
    with open(path, "rb") as file:
        made = with_fd(*peer, "add-fd", file.fileno(), opaque="mine")["return"]
    number = made["fdset-id"]
    fd = fdsets.open_file(f"/dev/fdset/{number}", os.O_RDONLY)
    assert os.pread(fd, 6, 0) == b"inside"
    os.close(fd)
    with pytest.raises(FileNotFoundError):  # there is none to write with
        fdsets.open_file(f"/dev/fdset/{number}", os.O_WRONLY)
    assert fdsets.remove(number, made["fd"]) and not fdsets.remove(number)


def test_descriptors_go_with_their_client(peer: tuple[Monitors, socket.socket]) -> None:
    monitors, made = peer
    before = len(os.listdir("/proc/self/fd"))
    with open("/dev/null", "rb") as file:
        assert with_fd(monitors, made, "getfd", file.fileno(), fdname="n") == {"return": {}}
        for _ in range(40):  # that no command asks for
            with_fd(monitors, made, "query-name", file.fileno())
    made.close()
    turn(monitors, lambda: not monitors.ports)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_machine_goes_to_a_descriptor(
    peer: tuple[Monitors, socket.socket], pc: Driven, tmp_path: pathlib.Path
) -> None:
    monitors, made = peer
    path = tmp_path / "state"
    with open(path, "wb") as file:
        file.write(b"somebody's head")
        file.flush()
        with_fd(monitors, made, "getfd", file.fileno(), fdname="out")
    made.send(b'{"execute": "migrate", "arguments": {"uri": "fd:out"}}')
    turn(monitors, lambda: pc.machine.migration.get("status") == "completed")
    assert path.read_bytes().startswith(b"somebody's head") and path.stat().st_size > 1000
    made.send(b'{"execute": "query-migrate", "id": 1}')
    told: dict[str, Any] = {}
    while not told:
        told = next((line["return"] for line in read(monitors, made) if line.get("id") == 1), {})
    assert told["status"] == "completed" and told["ram"]["remaining"] == 0 and told["ram"]["transferred"] > 1000


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("device_add", {"driver": "virtio-rng-pci"}),
        ("netdev_add", {"type": "user"}),
        ("object-add", {"qom_type": "iothread"}),
    ],
)
@pytest.mark.parametrize("id", ["", "1x", "a/b", "\xe4"])
def test_an_id_is_an_identifier(talk: Talk, name: str, given: dict[str, Any], id: str) -> None:
    assert desc(talk.ask(name, id=id, **given)) == "Parameter 'id' expects an identifier"


# --- block nodes ------------------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "image.raw"
    with open(path, "wb") as file:
        file.truncate(1 << 20)
    return path


def test_named_nodes_become_a_disk_and_go_with_it(pc: Driven, talk: Talk, image: pathlib.Path) -> None:
    talk.result("blockdev-add", driver="file", node_name="low", filename=str(image))
    talk.result("blockdev-add", driver="raw", node_name="top", file="low")
    assert desc(talk.ask("blockdev-del", node_name="low")) == "Block device low is in use"
    talk.result("device_add", driver="virtio-blk-pci", id="disk", drive="top")
    assert desc(talk.ask("blockdev-del", node_name="top")) == "Node top is in use"
    (row,) = [row for row in talk.result("query-block") if "disk" in row.get("qdev", "")]
    assert row["inserted"]["node-name"] == "top" and row["inserted"]["image"]["virtual-size"] == 1 << 20
    assert {row["node-name"] for row in talk.result("query-named-block-nodes")} == {"top", "low"}
    absent = "Cannot find device='top' nor node-name=''"  # a node's name is no drive's, for these two commands
    assert desc(talk.ask("block_resize", device="top", size=2 << 20)) == absent
    assert desc(talk.ask("blockdev-snapshot-sync", device="top", snapshot_file=str(image) + ".2")) == absent
    talk.result("block_resize", node_name="top", size=2 << 20)
    assert image.stat().st_size == 2 << 20
    pc.machine.board.let_go(pc.machine.devices["disk"])
    pc.machine.loop.run_once(0.0)
    talk.result("blockdev-del", node_name="top")
    talk.result("blockdev-del", node_name="low")
    assert talk.result("query-named-block-nodes") == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"driver": "file", "node_name": "n"}, "Parameter 'filename' is missing"),
        ({"driver": "nothing", "node_name": "n"}, "Parameter 'driver' does not accept value 'nothing'"),
        ({"driver": "raw", "node_name": "n", "file": "m"}, "Cannot find device='m' nor node-name='m'"),
        ({"driver": "file", "filename": "/no/such/place"}, "'node-name' must be specified for the root node"),
        ({"driver": "file", "node_name": "n", "filename": "/no/such/place"}, "Could not open '/no/such/place'"),
    ],
)
def test_what_is_no_node_is_refused(talk: Talk, given: dict[str, Any], words: str) -> None:
    assert desc(talk.ask("blockdev-add", **given)).startswith(words)
    assert desc(talk.ask("blockdev-del", node_name="n")) == "Failed to find node with node-name='n'"


# --- character back ends -------------------------------------------------------------------------------------------


def test_a_port_s_back_end_is_changed_while_it_runs(pc: Driven, talk: Talk, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "out"
    pc.outb(0x3F8, ord("a"))
    talk.result("chardev-change", id="c", backend={"type": "file", "data": {"out": str(path)}})
    pc.outb(0x3F8, ord("b"))
    pc.machine.board.chardevs["c"].flush()
    assert path.read_bytes() == b"b"
    assert desc(talk.ask("chardev-change", id="c", backend={"type": "file", "data": {"out": "/no/such/place"}}))
    pc.outb(0x3F8, ord("c"))
    pc.machine.board.chardevs["c"].flush()
    assert path.read_bytes() == b"bc"


def test_back_ends_come_and_go(pc: Driven, talk: Talk, tmp_path: pathlib.Path) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    address = {"type": "unix", "data": {"path": str(tmp_path / "s")}}
    talk.result("chardev-add", id="s", backend={"type": "socket", "data": {"addr": address}})
    assert talk.result("chardev-add", id="p", backend={"type": "pty", "data": {}})["pty"].startswith("/dev/pts/")
    labels = {row["label"]: row["filename"] for row in talk.result("query-chardev")}
    assert labels["s"] == f"disconnected:unix:{tmp_path}/s,server=on" and labels["p"].startswith("pty:/dev/pts/")
    assert desc(talk.ask("chardev-remove", id="c")) == "Chardev 'c' is busy"
    talk.result("chardev-remove", id="s")
    talk.result("chardev-remove", id="p")
    assert not (tmp_path / "s").exists()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_rule_is_for_those_who_show_a_certificate(talk: Talk, tmp_path: pathlib.Path) -> None:
    data = {"addr": {"type": "unix", "data": {"path": str(tmp_path / "s")}}, "tls-authz": "a"}
    answer = talk.ask("chardev-add", id="s", backend={"type": "socket", "data": data})
    assert "requires 'tls-creds'" in desc(answer)
    assert not (tmp_path / "s").exists()


def test_the_board_asks_the_object_of_tls_authz(pc: Driven, talk: Talk) -> None:
    class Creds:
        driver, endpoint, context = "tls-creds-x509", "server", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    board = pc.machine.board
    board.objects.children["t"] = Creds()
    spec = {"tls-creds": "t", "tls-authz": "a", "server": True}
    tls = board.tls(spec)
    assert not tls.allows("CN=one")  # there is no such object
    talk.result("object-add", qom_type="authz-simple", id="a", identity="CN=one")
    assert tls.allows("CN=one") and not tls.allows("CN=two")
    assert board.tls({**spec, "tls-authz": None}) is Creds.context
    Creds.driver = "tls-creds-anon"  # nobody shows anything
    assert board.tls(spec) is Creds.context
    del board.objects.children["t"]


def test_an_address_says_of_which_kind_it_is_and_up_to_which_port(talk: Talk) -> None:
    def add(**data: Any) -> dict[str, Any]:
        address = {"type": "inet", "data": {"port": "0", **data}}
        return talk.ask("chardev-add", id="s", backend={"type": "socket", "data": {"addr": address}})

    assert "no address of the kind" in desc(add(host="127.0.0.1", ipv4=False))
    assert "Cannot disable IPv4 and IPv6" in desc(add(host="localhost", ipv4=False, ipv6=False))
    assert "resolution failed" in desc(add(host="localhost", numeric=True))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "in use" in desc(add(host="127.0.0.1", port=str(port)))
        if port < 65000:
            assert "return" in add(host="127.0.0.1", port=str(port), to=port + 40, numeric=True)
            (row,) = (row for row in talk.result("query-chardev") if row["label"] == "s")
            assert port < int(row["filename"].split(":")[3].split(",")[0]) <= port + 40


def test_a_ring_is_written_and_read_in_two_forms(pc: Driven, talk: Talk) -> None:
    talk.result("chardev-add", id="r", backend={"type": "ringbuf", "data": {"size": 8}})
    talk.result("ringbuf-write", device="r", data="AAECAwQFBgcICQ==", format="base64")
    assert talk.result("ringbuf-read", device="r", size=99, format="base64") == "AgMEBQYHCAk="
    assert talk.result("ringbuf-read", device="r", size=99) == ""
    assert desc(talk.ask("ringbuf-read", device="c", size=1)) == "c is not a ringbuf device"


# --- memory -----------------------------------------------------------------------------------------------------


def test_a_dump_is_an_elf_core_with_all_of_memory(pc: Driven, talk: Talk, tmp_path: pathlib.Path) -> None:
    pc.write(0x200000, b"find me")
    path = tmp_path / "core"
    given = {"paging": False, "protocol": f"file:{path}"}
    talk.session.feed(json.dumps({"execute": "dump-guest-memory", "id": 1, "arguments": given}).encode())
    finish(talk)
    data = path.read_bytes()
    assert data[:6] == b"\x7fELF\x02\x01" and struct.unpack_from("<HH", data, 16) == (4, 62)
    offset, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    loads = []
    for n in range(count):
        kind, _, at, _, physical, size, _, _ = struct.unpack_from("<IIQQQQQQ", data, offset + 56 * n)
        if kind == 1:
            loads.append((physical, size, at))
    assert sum(size for _, size, _ in loads) >= (16 << 20) - (1 << 18)
    (at,) = [at + 0x200000 - first for first, size, at in loads if first <= 0x200000 < first + size]
    assert data[at : at + 7] == b"find me"
    assert [event["data"]["result"]["status"] for event in talk.events()] == ["completed"]


def flat(data: bytes) -> bytes:
    """makedumpfile -R: a flattened file in order."""
    assert data[:16] == b"makedumpfile\0\0\0\0" and struct.unpack_from(">qq", data, 16) == (1, 1)
    whole, at = bytearray(), 4096
    while True:
        offset, size = struct.unpack_from(">qq", data, at)
        if offset == -1:
            assert at + 16 == len(data)
            return bytes(whole)
        whole.extend(bytes(max(0, offset + size - len(whole))))
        whole[offset : offset + size] = data[at + 16 : at + 16 + size]
        at += 16 + size


def test_a_compressed_dump_has_every_page(pc: Driven, talk: Talk, tmp_path: pathlib.Path) -> None:
    noise = os.urandom(4096)
    pc.write(0x200000, b"find me")
    pc.write(0x300000, noise)
    path = tmp_path / "core"
    given = {"paging": False, "protocol": f"file:{path}", "format": "kdump-zlib"}
    talk.session.feed(json.dumps({"execute": "dump-guest-memory", "id": 1, "arguments": given}).encode())
    finish(talk)
    data = flat(path.read_bytes())
    assert data[:8] == b"KDUMP   " and struct.unpack_from("<I", data, 8)[0] == 6
    status, block, sub_blocks, map_blocks, most = struct.unpack_from("<5I", data, 424)
    assert (status, block) == (1, 4096)
    bitmap = data[(1 + sub_blocks) * 4096 :][: map_blocks * 2048]
    pages = [n for n in range(most) if bitmap[n // 8] >> n % 8 & 1]
    assert set(range(0x200, 0x1000)) <= set(pages)
    table = (1 + sub_blocks + map_blocks) * 4096

    def page(number: int) -> bytes:
        at, size, flags, _ = struct.unpack_from("<QIIQ", data, table + 24 * pages.index(number))
        return zlib.decompress(data[at : at + size]) if flags else data[at : at + size]

    assert page(0x200) == b"find me".ljust(4096, b"\0") and page(0x300) == noise and page(0x400) == bytes(4096)
    assert [event["data"]["result"]["status"] for event in talk.events()] == ["completed"]


def test_dumps_have_the_formats_that_they_say(talk: Talk) -> None:
    assert talk.result("query-dump-guest-memory-capability") == {"formats": ["elf", "kdump-zlib"]}
    given = {"paging": False, "protocol": "file:/no/such/place"}
    assert desc(talk.ask("dump-guest-memory", format="kdump-lzo", **given)) == "kdump-lzo is not available now"
    part = talk.ask("dump-guest-memory", format="kdump-zlib", begin=0, length=4096, **given)
    assert desc(part) == "kdump-compressed format doesn't support paging or filter"
    assert "kdump-snappy is not available now" in talk.hmp("dump-guest-memory -s /no/such/place")
    assert "only one of" in talk.hmp("dump-guest-memory -z -s /no/such/place")


def test_a_dump_that_cannot_be_written_says_so(talk: Talk) -> None:
    answer = talk.ask("dump-guest-memory", paging=False, protocol="file:/no/such/place")
    assert desc(answer).startswith("Could not open '/no/such/place'")
    assert desc(talk.ask("dump-guest-memory", paging=False, protocol="tape:")) == "Invalid parameter 'protocol'"
    assert "physical memory alone" in desc(talk.ask("dump-guest-memory", paging=True, protocol="file:x"))


class Physical:
    """Memory of numbers, by address."""

    def __init__(self, words: dict[int, int]) -> None:
        self.words = words

    def __call__(self, addr: int, size: int) -> int:
        return self.words.get(addr, 0)


PG, PAE, PSE, LMA = 1 << 31, 1 << 5, 1 << 4, 1 << 10


@pytest.mark.parametrize(
    ("words", "registers", "linear", "physical"),
    [
        ({}, {"cr0": 0, "cr4": 0, "efer": 0, "cr3": 0}, 0x12345678, 0x12345678),
        # two levels, then a page of 4 MiB whose bits 20..13 are bits 39..32
        ({0x1000: 0x2001, 0x2004: 0x5001}, {"cr0": PG, "cr4": 0, "efer": 0, "cr3": 0x1000}, 0x1234, 0x5234),
        ({0x1000: 0x402081}, {"cr0": PG, "cr4": PSE, "efer": 0, "cr3": 0x1000}, 0x123456, 0x100523456),
        # three levels
        (
            {0x1000: 0x2001, 0x2000: 0x3001, 0x3008: 0x8000001},
            {"cr0": PG, "cr4": PAE, "efer": 0, "cr3": 0x1000}, 0x1042, 0x8000042,
        ),
        # four levels, and a page of 2 MiB
        (
            {0x1000: 0x2003, 0x2000: 0x3003, 0x3000: 0x4003, 0x4008: 0x9000003},
            {"cr0": PG, "cr4": PAE, "efer": LMA, "cr3": 0x1000}, 0x1042, 0x9000042,
        ),
        (
            {0x1FF8: 0x2003, 0x2FF0: 0x3003, 0x3000: 0x80000183},
            {"cr0": PG, "cr4": PAE, "efer": LMA, "cr3": 0x1000}, 0xFFFFFFFF80012345, 0x80012345,
        ),
        ({}, {"cr0": PG, "cr4": PAE, "efer": LMA, "cr3": 0x1000}, 0x1000, None),
        ({}, {"cr0": PG, "cr4": PAE, "efer": LMA, "cr3": 0x1000}, 0x8000000000000000, None),
    ],
)  # fmt: skip
def test_tables_are_walked_as_the_manual_says(
    words: dict[int, int], registers: dict[str, int], linear: int, physical: int | None
) -> None:
    assert walk(Physical(words), registers, linear) == physical




def test_a_device_is_plugged_into_a_machine_whose_memory_is_an_object(pc: Driven, talk: Talk) -> None:
    pc.machine.config = pc.machine.board.config = {**pc.machine.config, "memory-backing": {"memdevs": ["pc.ram"]}}
    talk.result("device_add", driver="virtio-rng-pci", id="rng")
