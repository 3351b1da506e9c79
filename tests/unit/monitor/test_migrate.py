"""QMP's migrate and -incoming, with a file, a socket or a command at the other end."""

from __future__ import annotations

import os
import pathlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.board import Driven
from tests.ports import free_port
from tests.unit.monitor.test_qmp import Talk
from vmrun.backends.block.create import create_qcow2, new_file
from vmrun.errors import BackendError
from vmrun.machine import bitmaps, handover
from vmrun.machine.blocks import blocks
from vmrun.machine.snapshot import save
from vmrun.monitor.commands.migrate import RUNNING, incoming
from vmrun.monitor.errors import QmpError

KEYS = {"machine": "pc-i440fx-2.0", "memory": "16MiB"}


@pytest.fixture
def talk(tmp_path: pathlib.Path) -> Iterator[Talk]:
    with Driven(tmp_path, **KEYS) as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        yield talk
        talk.monitors.close()


def finish(talk: Talk) -> dict[str, str]:
    """query-migrate when it is over."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        talk.machine.loop.run_once(0.01)
        told: dict[str, str] = talk.result("query-migrate")
        if told.get("status") not in RUNNING:
            return told
    raise AssertionError("it does not end")


def statuses(talk: Talk) -> list[str]:
    return [event["data"]["status"] for event in talk.events() if event["event"] == "MIGRATION"]


def test_a_machine_goes_out_to_a_file_and_comes_in_again(talk: Talk, tmp_path: pathlib.Path) -> None:
    machine = talk.machine
    machine.board.ram.write(0x2000, b"what the guest has")
    machine.resume()
    uri = f"file:{tmp_path}/pc.vm"
    assert talk.result("query-migrate") == {}
    talk.result("migrate", uri=uri)
    assert finish(talk)["status"] == "completed"
    assert talk.result("query-status")["status"] == "postmigrate"
    assert statuses(talk) == ["setup", "active", "completed"]
    with Driven(tmp_path, **KEYS) as other:
        other.machine.go("inmigrate")
        incoming(other.machine, uri)
        assert other.machine.board.ram.read(0x2000, 18) == b"what the guest has"
        assert other.machine.state == "running"


def test_what_was_paused_comes_in_paused(talk: Talk, tmp_path: pathlib.Path) -> None:
    talk.machine.resume()
    talk.machine.pause()
    talk.result("migrate", uri=f"file:{tmp_path}/pc.vm")
    finish(talk)
    with Driven(tmp_path, **KEYS) as other:
        other.machine.go("inmigrate")
        incoming(other.machine, f"file:{tmp_path}/pc.vm")
        assert other.machine.state == "paused"


def test_a_machine_whose_file_cannot_be_written_goes_on(talk: Talk, tmp_path: pathlib.Path) -> None:
    talk.machine.resume()
    assert "error" in talk.ask("migrate", uri=f"file:{tmp_path}/nowhere/pc.vm") or finish(talk)["status"] == "failed"
    assert "cannot be written" in talk.result("query-migrate")["error-desc"]
    assert talk.machine.state == "running"
    assert statuses(talk)[-1] == "failed"


def test_nothing_changes_while_the_state_goes_out(talk: Talk, tmp_path: pathlib.Path) -> None:
    talk.result("device_add", driver="virtio-rng-pci", id="a")
    talk.machine.resume()
    talk.result("migrate", uri=f"file:{tmp_path}/pc.vm")
    assert talk.result("query-status")["status"] == "finish-migrate"
    assert talk.ask("cont")["error"]["desc"] == "Migration is not finalized yet"
    again = talk.ask("migrate", uri=f"file:{tmp_path}/b.vm")
    assert again["error"]["desc"] == "There's a migration process in progress"
    assert not talk.machine.resume()
    for name, how in (("device_add", {"driver": "virtio-rng-pci", "id": "b"}), ("device_del", {"id": "a"})):
        assert talk.ask(name, **how)["error"]["desc"] == f"{name} not allowed while migrating"
    finish(talk)


def test_a_migration_can_be_given_up(talk: Talk, tmp_path: pathlib.Path) -> None:
    talk.machine.board.ram.write(0, bytes(range(256)) * 65536)  # something to write
    talk.machine.resume()
    talk.result("migrate", uri=f"file:{tmp_path}/pc.vm")
    talk.result("migrate_cancel")
    assert finish(talk)["status"] in ("cancelled", "completed")
    if talk.result("query-migrate")["status"] == "cancelled":
        assert talk.machine.state == "running"
        assert not (tmp_path / "pc.vm").exists()


@pytest.mark.parametrize("command", ["cat > {}", "cat>{}", "/bin/cat >'{}'"])
def test_cat_to_a_file_is_that_file(talk: Talk, tmp_path: pathlib.Path, command: str) -> None:
    """As openQA and old scripts say it."""
    talk.result("migrate-set-capabilities", capabilities=[{"capability": "compress", "state": True}])
    talk.result("migrate", uri="exec:" + command.format(tmp_path / "pc.vm"))
    assert finish(talk)["status"] == "completed"
    assert (tmp_path / "pc.vm").read_bytes()[:7] == b"vmrunsn"


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("rdma:host:1", "'rdma:' is not there; vmrun migrates to file:PATH, fd:NAME, tcp:HOST:PORT, unix:PATH or "
                        "exec:COMMAND"),
        ("exec:", "exec: needs a command"),
        ("unix:", "unix: needs a path"),
        ("tcp:localhost", "error parsing address 'localhost'"),
        ("tcp:localhost:99999", "error parsing address 'localhost:99999'"),
        ("fd:nobody", "File descriptor named 'nobody' has not been found"),
        ("fd:99999", "File descriptor named '99999' has not been found"),
        ("nothing", "Parameter 'uri' expects a valid migration protocol"),
        ("file:", "file: needs a path"),
        ("file:/x,offset=4096", "file: takes no offset; the state has a file of its own"),
    ],
)
def test_other_ends_are_refused(talk: Talk, uri: str, told: str) -> None:
    assert talk.ask("migrate", uri=uri)["error"]["desc"] == told


def test_a_machine_that_waits_for_nothing_takes_nothing_in(talk: Talk) -> None:
    assert talk.ask("migrate-incoming", uri="file:/x")["error"]["desc"].startswith("'-incoming' was not specified")


def test_a_machine_that_waits_tells_why_a_file_is_refused_and_waits_on(talk: Talk, tmp_path: pathlib.Path) -> None:
    (tmp_path / "odd.vm").write_bytes(b"vmrunsn1 and no more")
    talk.machine.go("inmigrate")
    told = talk.ask("migrate-incoming", uri=f"file:{tmp_path}/odd.vm")["error"]["desc"]
    assert told == f"load of migration failed: {tmp_path}/odd.vm is not whole"
    assert talk.machine.state == "inmigrate"
    with pytest.raises(QmpError):
        incoming(talk.machine, f"file:{tmp_path}/none.vm")


# --- sockets and commands as the other end -----------------------------------------------------------------


def settle(machines: tuple[Any, ...], ends: tuple[str, ...]) -> None:
    """Let their loops run until the migration of each has come to one of the ends."""
    end = time.monotonic() + 60
    while any(machine.migration["status"] not in ends for machine in machines):
        assert time.monotonic() < end
        for machine in machines:
            machine.loop.run_once(0.02)


@contextmanager
def awaited(tmp_path: pathlib.Path, keys: dict[str, Any]) -> Iterator[Driven]:
    """Where a machine of that description is waited for: on the images of the one that it is."""
    with handover.waiting():
        other = Driven(tmp_path, **keys)
    with other:
        other.machine.go("inmigrate")
        yield other


@pytest.mark.parametrize("kind", ["unix", "tcp", "exec"])
def test_a_machine_goes_over_to_another(talk: Talk, tmp_path: pathlib.Path, kind: str) -> None:
    port = free_port()
    ways = {"unix": f"unix:{tmp_path}/way", "tcp": f"tcp:127.0.0.1:{port}", "exec": f"exec:cat {tmp_path}/fifo; true"}
    uri = ways[kind]
    os.mkfifo(tmp_path / "fifo")
    talk.machine.board.ram.write(0x1000, b"carried over")
    talk.machine.resume()
    with Driven(tmp_path, **KEYS) as other:
        other.machine.go("inmigrate")
        incoming(other.machine, uri)
        status = other.machine.migration["status"]
        assert status == "active" if kind == "exec" else status == "setup"
        with pytest.raises(QmpError, match="already been started"):
            incoming(other.machine, uri)
        talk.result("migrate", uri=f"exec:cat > {tmp_path}/fifo ; true" if kind == "exec" else uri)
        settle((talk.machine, other.machine), ("completed", "failed"))
        assert talk.machine.migration["status"] == "completed"
        assert other.machine.migration == {"status": "completed"}
        assert (talk.machine.state, other.machine.state) == ("postmigrate", "running")
        assert other.machine.board.ram.read(0x1000, 12) == b"carried over"
    assert not (tmp_path / "way").exists()


def test_an_end_that_is_not_there_lets_the_machine_go_on(talk: Talk, tmp_path: pathlib.Path) -> None:
    talk.machine.resume()
    ends = (f"unix:{tmp_path}/nobody", "Failed to connect"), ("exec:cat > /dev/null; exit 3", "ended with 3")
    for uri, told in ends:
        talk.result("migrate", uri=uri)
        assert finish(talk)["status"] == "failed"
        assert told in talk.result("query-migrate")["error-desc"]
        assert talk.machine.state == "running"


def test_what_comes_and_is_no_state_is_told(tmp_path: pathlib.Path) -> None:
    with Driven(tmp_path, **KEYS) as pc:
        pc.machine.go("inmigrate")
        incoming(pc.machine, f"unix:{tmp_path}/way")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "way"))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        settle((pc.machine,), ("failed",))
        assert "is no saved machine" in pc.machine.migration["error-desc"]
        assert pc.machine.state == "inmigrate"


def test_a_machine_that_waits_for_a_state_ends_at_once(tmp_path: pathlib.Path) -> None:
    with Driven(tmp_path, **KEYS) as pc:
        pc.machine.go("inmigrate")
        incoming(pc.machine, f"unix:{tmp_path}/way")
    assert not (tmp_path / "way").exists()


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.0\r\n\r\n", b"vmru", b"vmrunsn1JUNK" + bytes(8)])
def test_who_brings_no_state_is_not_waited_for(tmp_path: pathlib.Path, garbage: bytes) -> None:
    """Its end stays open, but for one that may still become a state. One that is left in the middle is no crash."""
    with Driven(tmp_path, **KEYS) as pc:
        pc.machine.go("inmigrate")
        incoming(pc.machine, f"unix:{tmp_path}/way")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "way"))
            client.sendall(garbage)
            if garbage == b"vmru":
                client.close()
            settle((pc.machine,), ("failed",))


def test_the_sockets_file_may_be_gone_when_the_state_comes(tmp_path: pathlib.Path) -> None:
    with Driven(tmp_path, **KEYS) as pc:
        pc.machine.go("inmigrate")
        incoming(pc.machine, f"unix:{tmp_path}/way")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "way"))
            (tmp_path / "way").unlink()
            client.sendall(b"nothing")
        settle((pc.machine,), ("failed",))


def test_only_a_socket_is_taken_away_for_a_listener(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "way")
    with Driven(tmp_path, **KEYS) as pc:
        pc.machine.go("inmigrate")
        with pytest.raises(QmpError, match="Failed to listen at '.*way': Address already in use"):
            incoming(pc.machine, f"unix:{tmp_path}/way")
    assert (tmp_path / "way").is_fifo()


def test_a_daemons_socket_goes_though_it_left_its_directory(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Driven(tmp_path, **KEYS) as pc:
        pc.machine.go("inmigrate")
        monkeypatch.chdir(tmp_path)
        incoming(pc.machine, "unix:way")
        monkeypatch.chdir("/")
    assert not (tmp_path / "way").exists()


def test_names_that_cannot_be_are_told(talk: Talk) -> None:
    talk.result("migrate", uri=f"tcp:{'x' * 70}:5")
    assert "internal" not in finish(talk)["error-desc"]
    talk.machine.go("inmigrate")
    for uri in (f"tcp:{'x' * 70}:5", "unix:" + "x" * 200, "exec:true \0"):
        with pytest.raises(QmpError, match="Failed to listen|cannot be started"):
            incoming(talk.machine, uri)


def test_a_command_that_does_not_end_is_given_up(talk: Talk, tmp_path: pathlib.Path) -> None:
    """By migrate_cancel, and by the machine's end, which waits for no command."""
    uri = f"exec:cat > {tmp_path}/kept; exec sleep 1000"
    talk.machine.resume()
    talk.result("migrate", uri=uri)
    talk.result("migrate_cancel")
    assert talk.ask("migrate", uri=uri)["error"]["desc"] == "There's a migration process in progress"
    assert finish(talk) == {"status": "cancelled"}
    assert talk.machine.state == "running"
    talk.result("migrate", uri=uri)
    talk.machine.close()


def test_a_state_that_comes_in_cannot_be_cancelled(talk: Talk, tmp_path: pathlib.Path) -> None:
    talk.machine.go("inmigrate")
    os.mkfifo(tmp_path / "fifo")
    incoming(talk.machine, f"exec:cat {tmp_path}/fifo")
    talk.result("migrate_cancel")
    assert talk.machine.migration == {"status": "active"}


def test_cat_of_the_other_direction_is_a_command(talk: Talk, tmp_path: pathlib.Path) -> None:
    """What the state goes out to is not the file that the command reads."""
    (tmp_path / "precious").write_bytes(b"precious")
    talk.result("migrate", uri=f"exec:cat {tmp_path}/precious > {tmp_path}/copy")
    finish(talk)
    talk.result("migrate", uri=f"exec:cat {tmp_path}/precious")
    finish(talk)
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("way", ["file", "fd"])
def test_the_machine_is_there_while_a_pipe_brings_nothing(talk: Talk, tmp_path: pathlib.Path, way: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    ours, theirs = os.pipe()
    talk.result("migrate", uri=f"file:{tmp_path}/pc.vm")
    assert finish(talk)["status"] == "completed"
    with Driven(tmp_path, **KEYS) as other:
        other.machine.go("inmigrate")
        incoming(other.machine, f"file:{tmp_path}/pipe" if way == "file" else f"fd:{ours}")
        assert other.machine.migration == {"status": "active"}
        if way == "file":
            os.close(theirs)
            theirs = os.open(tmp_path / "pipe", os.O_WRONLY)
        os.set_blocking(theirs, True)
        left = (tmp_path / "pc.vm").read_bytes()
        while left:
            left = left[os.write(theirs, left[:4096]) :]
            other.machine.loop.run_once(0)
        settle((other.machine,), ("completed", "failed"))
        assert other.machine.state == "prelaunch" or other.machine.state == "paused"
    for fd in (ours, theirs):
        os.close(fd)


# --- images that both programs have open ------------------------------------------------------------------------------


def image(path: pathlib.Path, format: str) -> dict[str, Any]:
    new_file(str(path), 1 << 20 if format == "raw" else 0)
    if format == "qcow2":
        create_qcow2(str(path), 1 << 20, {"lazy_refcounts": "on"})
    drive = {"hd": {"file": str(path), "format": format}}
    return {**KEYS, "drives": drive, "devices": [{"driver": "virtio-blk-pci", "drive": "hd"}]}


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_an_image_goes_with_the_machine(tmp_path: pathlib.Path, format: str) -> None:
    """It is one image: who awaits the machine takes no lock, and sees what was written until it left."""
    keys, uri = image(tmp_path / "disk", format), f"file:{tmp_path}/pc.vm"
    with Driven(tmp_path, **keys) as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        with awaited(tmp_path, keys) as other:
            here, there = (machine.board.drives["hd"].node for machine in (pc.machine, other.machine))
            here.write(0x18000, b"until it left")
            talk.result("migrate", uri=uri)
            assert finish(talk)["status"] == "completed"
            incoming(other.machine, uri)
            assert other.machine.state == "prelaunch"
            assert there.read(0x18000, 13) == b"until it left"
            there.write(0x28000, b"since it came")
            assert 'Failed to get "write" lock' in talk.ask("cont")["error"]["desc"]
            assert pc.machine.state == "postmigrate"
        talk.result("cont")  # the other one has ended
        assert here.read(0x28000, 13) == b"since it came"
        assert pc.machine.state == "running"
        talk.monitors.close()


def test_who_awaits_a_machine_gets_no_image_that_is_in_use(tmp_path: pathlib.Path) -> None:
    """Its state was saved to a file, and then it went on: the images are its own, and stay so."""
    keys = image(tmp_path / "disk", "qcow2")
    with Driven(tmp_path, **keys) as pc:
        save(pc.machine, f"{tmp_path}/pc.vm")
        with awaited(tmp_path, keys) as other:
            with pytest.raises(QmpError, match='Failed to get "write" lock'):
                incoming(other.machine, f"file:{tmp_path}/pc.vm")
            assert other.machine.migration["status"] == "failed"
            assert other.machine.board.drives["hd"].node.asleep
        pc.machine.board.drives["hd"].node.write(0, b"still here")


def test_a_machine_that_cannot_leave_has_its_images(tmp_path: pathlib.Path) -> None:
    keys = image(tmp_path / "disk", "qcow2")
    with Driven(tmp_path, **keys) as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        talk.result("migrate", uri=f"file:{tmp_path}/no/such/directory")
        assert finish(talk)["status"] == "failed"
        node = pc.machine.board.drives["hd"].node
        assert not node.asleep
        assert not node.file.asleep
        with pytest.raises(BackendError, match="in use by another process"):
            Driven(tmp_path, **keys)
        talk.monitors.close()


def test_bitmaps_of_an_image_go_on_when_the_machine_could_not_leave(tmp_path: pathlib.Path) -> None:
    """Its image was at rest, and is read anew: what is kept in it notes what the guest writes then."""
    with Driven(tmp_path, **image(tmp_path / "disk", "qcow2")) as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        bitmaps.add(pc.machine, "hd", "kept", persistent=True)
        node = pc.machine.board.drives["hd"].node
        node.write(0x18000, b"before")
        talk.result("migrate", uri=f"file:{tmp_path}/no/such/directory")
        told = finish(talk)
        assert told["status"] == "failed"
        assert told["error-desc"].startswith(f"{tmp_path}/no/such/directory cannot be written")
        node.write(0x88000, b"since")
        assert bitmaps.find(pc.machine, "hd", "kept").bits.count == 2 << 16
        bitmaps.remove(pc.machine, bitmaps.find(pc.machine, "hd", "kept"))
        talk.monitors.close()


# --- what programs that move machines ask for ------------------------------------------------------------------------


def pausing(talk: Talk) -> None:
    talk.result("migrate-set-capabilities", capabilities=[{"capability": "pause-before-switchover", "state": True}])


def until(talk: Talk, status: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if talk.result("query-migrate").get("status") == status:
            return
        talk.machine.loop.run_once(0.01)
    raise AssertionError(talk.result("query-migrate"))


def test_a_migration_can_be_held_before_the_switch_over(tmp_path: pathlib.Path) -> None:
    """The images are this machine's until it is told to go on."""
    with Driven(tmp_path, **image(tmp_path / "disk", "qcow2")) as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        node = pc.machine.board.drives["hd"].node
        pausing(talk)
        talk.result("migrate", uri=f"file:{tmp_path}/pc.vm")
        until(talk, "pre-switchover")
        assert not node.asleep
        wrong = talk.ask("migrate-continue", state="device")["error"]["desc"]
        assert wrong == "Migration not in expected state: pre-switchover"
        talk.result("migrate-continue", state="pre-switchover")
        assert finish(talk)["status"] == "completed"
        assert node.asleep
        assert statuses(talk) == ["setup", "active", "pre-switchover", "device", "completed"]
        talk.monitors.close()


def test_a_migration_that_is_held_can_be_given_up(talk: Talk, tmp_path: pathlib.Path) -> None:
    pausing(talk)
    talk.machine.resume()
    talk.result("migrate", uri=f"file:{tmp_path}/pc.vm")
    until(talk, "pre-switchover")
    talk.result("migrate_cancel")
    assert finish(talk)["status"] == "cancelled"
    assert talk.machine.state == "running"
    assert not (tmp_path / "pc.vm").exists()
    assert "not in expected state: cancelled" in talk.hmp("migrate_continue pre-switchover")


def test_who_came_may_be_gone_and_another_comes(talk: Talk, tmp_path: pathlib.Path) -> None:
    """A wake-up for nobody holds up nothing."""
    talk.machine.go("inmigrate")
    incoming(talk.machine, f"unix:{tmp_path}/way")
    (listener,) = talk.machine.works
    listener._come()
    assert talk.result("query-migrate")["status"] == "setup"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "way"))
        until(talk, "active")
    assert "socket-address" not in finish(talk)  # nobody is awaited there any more


def test_who_reaches_nobody_never_was_active(talk: Talk, tmp_path: pathlib.Path) -> None:
    talk.result("migrate", uri=f"unix:{tmp_path}/nobody")
    assert finish(talk)["status"] == "failed"
    assert statuses(talk) == ["setup", "failed"]


def test_who_waits_for_a_machine_says_where_and_takes_settings(talk: Talk, tmp_path: pathlib.Path) -> None:
    talk.machine.go("inmigrate")
    incoming(talk.machine, "tcp:127.0.0.1:0")
    (row,) = talk.result("query-migrate")["socket-address"]
    assert (row["type"], row["host"]) == ("inet", "127.0.0.1")
    assert int(row["port"]) > 0
    talk.result("migrate-set-capabilities", capabilities=[{"capability": "xbzrle", "state": True}])
    with socket.create_connection((row["host"], int(row["port"]))):
        until(talk, "active")
    assert finish(talk)["status"] == "failed"


@pytest.mark.parametrize("driver", ["virtio-blk-pci", "nvme"])
def test_a_disk_is_not_plugged_in_without_a_medium(tmp_path: pathlib.Path, driver: str) -> None:
    with Driven(tmp_path, **KEYS, drives={"e": {}}) as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        pc.board.drive("e")
        more = {"serial": "1"} if driver == "nvme" else {}
        answer = talk.ask("device_add", driver=driver, drive="e", **more)
        assert answer["error"]["desc"] == "Device needs media, but drive is empty"
        talk.monitors.close()


# --- images that are another's for now --------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_who_has_left_changes_no_image(tmp_path: pathlib.Path, format: str) -> None:
    """Who has the machine now has its images."""
    with Driven(tmp_path, **image(tmp_path / "disk", format)) as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        if format == "qcow2":
            talk.hmp("savevm one")
        talk.result("migrate", uri=f"file:{tmp_path}/pc.vm")
        assert finish(talk)["status"] == "completed"
        before, node = (tmp_path / "disk").read_bytes(), pc.machine.board.drives["hd"].node
        for change in (lambda: node.write(0x3000, b"after"), lambda: node.write_zeroes(0, 1 << 16, unmap=True)):
            with pytest.raises(PermissionError):
                change()
        assert talk.ask("block_resize", device="hd", size=2 << 20)["error"]["desc"] == "Operation not permitted"
        for line in ("delvm one", "loadvm one"):
            assert "does not support snapshots" in talk.hmp(line)
        assert (tmp_path / "disk").read_bytes() == before
        talk.result("cont")  # nobody took them
        node.write(0x3000, b"after")
        talk.monitors.close()


def test_disks_may_be_copied_before_the_machine_comes(tmp_path: pathlib.Path) -> None:
    """Through an export that can be written, whose images are this program's from then on."""
    keys, uri = image(tmp_path / "disk", "qcow2"), f"file:{tmp_path}/pc.vm"
    with Driven(tmp_path, **keys) as pc:
        save(pc.machine, f"{tmp_path}/pc.vm")
        with awaited(tmp_path, keys) as other:
            talk = Talk(other)
            talk.result("qmp_capabilities")
            there = {"type": "unix", "data": {"path": f"{tmp_path}/nbd"}}
            talk.result("nbd-server-start", addr=there)
            told = talk.ask("nbd-server-add", device="hd", writable=True)["error"]["desc"]
            assert 'Failed to get "write" lock' in told
            talk.result("nbd-server-add", device="hd")
            talk.hmp("nbd_server_remove hd")
            pc.machine.close()
            talk.result("nbd-server-add", device="hd", writable=True)
            node = other.machine.board.drives["hd"].node
            assert not node.asleep
            node.write(0x8000, b"copied")
            incoming(other.machine, uri)
            assert node.read(0x8000, 6) == b"copied"
            talk.monitors.close()


def test_an_image_that_grew_meanwhile_is_seen_as_long_as_it_is(tmp_path: pathlib.Path) -> None:
    keys, uri = image(tmp_path / "disk", "raw"), f"file:{tmp_path}/pc.vm"
    with Driven(tmp_path, **keys) as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        with awaited(tmp_path, keys) as other:
            talk.result("block_resize", device="hd", size=3 << 20)
            talk.result("migrate", uri=uri)
            assert finish(talk)["status"] == "completed"
            incoming(other.machine, uri)
            drive = other.machine.board.drives["hd"]
            assert (drive.size, drive.node.size) == (3 << 20, 3 << 20)
            drive.node.write(2 << 20, b"there")
        talk.monitors.close()


def test_what_cannot_be_written_back_is_kept(tmp_path: pathlib.Path) -> None:
    """The machine goes on with what it knows of its image, not with what the image says of itself."""
    with Driven(tmp_path, **image(tmp_path / "disk", "qcow2")) as pc:
        node = pc.machine.board.drives["hd"].node
        node.write(0x8000, b"only known here")
        kept, full = os.dup(node.file.fd), os.open("/dev/full", os.O_RDWR)
        os.dup2(full, node.file.fd)
        with pytest.raises(BackendError, match="No space left"):
            handover.let_go(pc.machine)
        os.dup2(kept, node.file.fd)
        for fd in (kept, full):
            os.close(fd)
        assert not pc.machine.left
        assert node.read(0x8000, 15) == b"only known here"


def test_images_that_somebody_had_can_be_tried_again(tmp_path: pathlib.Path) -> None:
    keys, uri = image(tmp_path / "disk", "qcow2"), f"file:{tmp_path}/pc.vm"
    with Driven(tmp_path, **keys) as pc:
        save(pc.machine, f"{tmp_path}/pc.vm")
        with awaited(tmp_path, keys) as other:
            talk = Talk(other)
            talk.result("qmp_capabilities")
            assert "lock" in talk.ask("migrate-incoming", uri=uri)["error"]["desc"]
            pc.machine.close()
            talk.result("migrate-incoming", uri=uri)
            assert other.machine.migration["status"] == "completed"
            talk.monitors.close()


def test_who_cannot_leave_hangs_up(talk: Talk, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other end does not wait for a state that nobody sends."""

    def stuck(machine: Any) -> None:
        raise BackendError("the images cannot be written: No space left on device")

    monkeypatch.setattr(handover, "let_go", stuck)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "way"))
        server.listen()
        talk.result("migrate", uri=f"unix:{tmp_path}/way")
        assert "No space left" in finish(talk)["error-desc"]
        client, _ = server.accept()
        with client:
            client.settimeout(60)
            assert client.recv(1) == b""


def test_a_mirror_may_end_before_the_switch_over(tmp_path: pathlib.Path) -> None:
    """As programs do that move a machine with its disks."""
    with Driven(tmp_path, **image(tmp_path / "disk", "qcow2")) as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        uri = f"file:{tmp_path}/pc.vm"
        mirror = {"device": "hd", "job-id": "m", "target": f"{tmp_path}/copy", "format": "raw", "sync": "full"}
        talk.result("drive-mirror", **mirror)
        assert "a block job (mirror) works" in talk.ask("migrate", uri=uri)["error"]["desc"]
        pausing(talk)
        talk.result("migrate", uri=uri)
        until(talk, "pre-switchover")
        refused = talk.ask("migrate-continue", state="pre-switchover")["error"]["desc"]
        assert "a block job (mirror) works" in refused
        end = time.monotonic() + 60
        while not any(event["event"] == "BLOCK_JOB_READY" for event in talk.events()) and time.monotonic() < end:
            talk.machine.loop.run_once(0.01)
        talk.result("block-job-cancel", device="m")
        while talk.result("query-block-jobs") and time.monotonic() < end:
            talk.machine.loop.run_once(0.01)
        talk.result("migrate-continue", state="pre-switchover")
        assert finish(talk)["status"] == "completed"
        talk.monitors.close()


def test_disks_may_be_named_while_a_machine_is_awaited(tmp_path: pathlib.Path) -> None:
    """They are the other program's until it comes, as those of the start."""
    keys, uri = image(tmp_path / "disk", "raw"), f"file:{tmp_path}/pc.vm"
    new_file(str(tmp_path / "more"), 1 << 20)
    new_file(str(tmp_path / "third"), 1 << 20)
    more = {"driver": "file", "node-name": "more", "filename": f"{tmp_path}/more"}
    third = f"drive_add 0 if=none,id=third,format=raw,file={tmp_path}/third"
    with Driven(tmp_path, **keys) as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        talk.result("blockdev-add", **more)
        assert talk.hmp(third) == "OK\r\n"
        with awaited(tmp_path, keys) as other:
            there = Talk(other)
            there.result("qmp_capabilities")
            there.result("blockdev-add", **more)
            assert there.hmp(third) == "OK\r\n"
            talk.result("migrate", uri=uri)
            assert finish(talk)["status"] == "completed"
            incoming(other.machine, uri)
            assert not any(node.asleep for node, _ in blocks(other.machine).nodes())
            assert "lock" in talk.ask("cont")["error"]["desc"]
            there.monitors.close()
        talk.monitors.close()
