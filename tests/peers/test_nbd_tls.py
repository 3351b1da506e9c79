"""NBD in TLS, both ways, and the rest of qemu-nbd's command line."""

from __future__ import annotations

import json
import pathlib
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.certificates import make_credentials
from tests.peers.qmp_session import Talk
from tests.peers.test_nbd import MIB, ROOT, server
from vmrun.backends.block.images import Access, open_options
from vmrun.backends.objects.tls import X509Creds
from vmrun.errors import BackendError

pytestmark = pytest.mark.peer
OUR_NBD = [sys.executable, str(ROOT / "bin/vmrun-nbd")]
@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The files of a server called localhost and a client called guest, as QEMU and libnbd name them."""
    place = tmp_path_factory.mktemp("keys")
    make_credentials(place, client="guest")
    return place


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(range(256)) * (MIB // 256) + bytes(MIB))
    return path


def serving(program: list[str], keys: pathlib.Path, image: pathlib.Path, *more: str) -> list[str]:
    creds = ["--object", f"tls-creds-x509,id=t,endpoint=server,dir={keys}", "--tls-creds", "t"]
    return [*program, *creds, *more, "-t", "-e", "8", "-f", "raw", "-k", str(image.parent / "s"), str(image)]


def qemus_read(keys: pathlib.Path, at: pathlib.Path) -> subprocess.CompletedProcess[str]:
    where = {"type": "unix", "path": str(at)}
    place = {"driver": "nbd", "server": where, "tls-creds": "c", "tls-hostname": "localhost"}
    words = ["--object", f"tls-creds-x509,id=c,endpoint=client,dir={keys}", "-r", "-c", "read -P 0 1M 1M"]
    return subprocess.run(
        ["qemu-io", *words, f"json:{json.dumps({'driver': 'raw', 'file': place})}"], capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip


def test_clients_of_others_in_tls(keys: pathlib.Path, image: pathlib.Path) -> None:
    at = image.parent / "s"
    url = f"?socket={at}&tls-certificates={keys}&tls-hostname=localhost"
    with server(serving(OUR_NBD, keys, image), at):
        told = subprocess.run(["nbdinfo", f"nbds+unix:///{url}"], capture_output=True, text=True, timeout=60)
        assert "newstyle-fixed with TLS" in told.stdout, told.stderr
        assert f"export-size: {2 * MIB}" in told.stdout
        copied = subprocess.run(["nbdcopy", f"nbds+unix:///{url}", str(at.parent / "copy")], timeout=60)
        assert copied.returncode == 0 and (at.parent / "copy").read_bytes() == image.read_bytes()
        read = qemus_read(keys, at)
        assert "read 1048576/1048576" in read.stdout and "Pattern" not in read.stdout, read.stderr
        clear = subprocess.run(["nbdinfo", f"nbd+unix:///?socket={at}"], capture_output=True, text=True, timeout=60)
        assert clear.returncode != 0  # nobody is told anything in the clear
        listed = ["--object", f"tls-creds-x509,id=c,endpoint=client,dir={keys}", "--tls-creds", "c"]
        for program in (["qemu-nbd"], OUR_NBD):
            words = [*program, "--list", *listed, "--tls-hostname", "localhost", "-k", str(at)]
            shown = subprocess.run(words, capture_output=True, text=True, timeout=60)
            assert f"  size:  {2 * MIB}\n" in shown.stdout, shown.stderr


def test_a_name_that_is_not_let_in(keys: pathlib.Path, image: pathlib.Path) -> None:
    at = image.parent / "s"
    for identity, let_in in (("CN=guest", True), ("CN=other", False)):
        more = ["--object", f"authz-simple,id=a,identity={identity}", "--tls-authz", "a"]
        with server(serving(OUR_NBD, keys, image, *more), at):
            assert ("read 1048576" in qemus_read(keys, at).stdout) == let_in


def ours(keys: pathlib.Path, at: pathlib.Path, **more: object) -> dict[str, object]:
    server = {"type": "unix", "path": str(at)}
    place = {"driver": "nbd", "server": server, "tls-creds": "c", "tls-hostname": "localhost", **more}
    return {"driver": "raw", "file": {key: value for key, value in place.items() if value is not None}}


def client(keys: pathlib.Path) -> dict[str, X509Creds]:
    made = X509Creds("c")
    made.dir, made.endpoint = str(keys), "client"
    made.complete(None)  # type: ignore[arg-type]
    return {"c": made}


@pytest.mark.parametrize("program", [["qemu-nbd"], OUR_NBD], ids=["qemu-nbd", "ours"])
def test_our_client_in_tls(keys: pathlib.Path, image: pathlib.Path, program: list[str]) -> None:
    at, objects = image.parent / "s", client(keys)
    with server(serving(program, keys, image), at):
        node = open_options(ours(keys, at), Access().with_objects(objects))
        assert node.read(0, 2 * MIB) == image.read_bytes()
        node.write(MIB, b"w" * MIB)
        node.sync()
        assert node.read(MIB - 256, 512) == bytes(range(256)) + b"w" * 256
        node.close()
        assert image.read_bytes()[MIB:] == b"w" * MIB
        for name, told in (("elsewhere", "match the hostname elsewhere"), (None, "No hostname for certificate")):
            with pytest.raises(BackendError, match=told):
                open_options(ours(keys, at, **{"tls-hostname": name}), Access().with_objects(objects))
        with pytest.raises(BackendError, match="not available") as held:  # and all that it knows
            open_options(ours(keys, at, export="nix"), Access().with_objects(objects))
        end = time.monotonic() + 30
        while carriers := [one for one in threading.enumerate() if one.name == "nbd tls"]:
            assert time.monotonic() < end, (carriers, held)
            time.sleep(0.01)
        bare = {"driver": "nbd", "server": {"type": "unix", "path": str(at)}}
        with pytest.raises(BackendError, match="forget a valid tls-creds"):
            open_options({"driver": "raw", "file": bare}, Access())
    with server([*OUR_NBD, "-t", "-f", "raw", "-k", str(at), str(image)], at), pytest.raises(BackendError) as found:
        open_options(ours(keys, at), Access().with_objects(objects))
    assert "Denied by server for option 5 (starttls)" in found.value.text  # type: ignore[attr-defined]


def test_a_machine_s_exports_in_tls(keys: pathlib.Path, image: pathlib.Path) -> None:
    """With a description and which image of a chain has what, too."""
    disk = image.parent / "top.qcow2"
    make = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image), "-F", "raw", str(disk)]
    subprocess.run(make, check=True)
    subprocess.run(["qemu-io", "-c", "write 64k 64k", str(disk)], check=True, stdout=subprocess.DEVNULL)
    line = ["-accel", "tcg", "-m", "16", "-S", "-nodefaults", "-display", "none", "-qmp", "stdio"]
    line += ["-object", f"tls-creds-x509,id=t,endpoint=server,dir={keys}"]
    line += ["-blockdev", f"driver=qcow2,node-name=n,file.driver=file,file.filename={disk}"]
    told = []
    for number, program in enumerate((["qemu-system-x86_64"], [sys.executable, str(ROOT / "bin" / "vmrun-qemu")])):
        at = image.parent / f"machine{number}"
        talk = Talk([*program, *line], image.parent)
        try:
            where = {"type": "unix", "data": {"path": str(at)}}
            assert "No TLS cred" in talk.ask("nbd-server-start", addr=where, **{"tls-creds": "x"})["error"]["desc"]
            assert talk.ask("nbd-server-start", addr=where, **{"tls-creds": "t"}) == {"return": {}}
            export = {"type": "nbd", "id": "e", "node-name": "n", "allocation-depth": True, "description": "the disk"}
            assert talk.ask("block-export-add", **export) == {"return": {}}
            url = f"nbds+unix:///n?socket={at}&tls-certificates={keys}&tls-hostname=localhost"
            for words in (["--json"], ["--map=qemu:allocation-depth"]):
                shown = subprocess.run(["nbdinfo", *words, url], capture_output=True, text=True, timeout=60)
                assert shown.returncode == 0, shown.stderr
                told.append(shown.stdout.replace(str(at), ""))
            assert talk.ask("quit") == {"return": {}}
            talk.process.wait(60)
        finally:
            talk.close()
    assert "the disk" in told[0] and "backing depth" in told[1]
    assert told[2:] == told[:2]


def test_what_the_command_line_shows_is_what_qemus_shows(tmp_path: pathlib.Path) -> None:
    disk = tmp_path / "d.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "8M"], check=True)
    subprocess.run(["qemu-img", "bitmap", "--add", str(disk), "b0"], check=True)
    subprocess.run(["qemu-io", "-c", "write 1M 64k", str(disk)], check=True, stdout=subprocess.DEVNULL)
    listed, mapped = set(), set()
    for number, program in enumerate((["qemu-nbd"], OUR_NBD)):
        at = tmp_path / f"s{number}"
        line = ["-t", "-r", "-e", "4", "-f", "qcow2", "-A", "-B", "b0", "-x", "e", "-D", "a disk"]
        line += ["-k", str(at), str(disk)]
        with server([*program, *line], at):
            for asks in (["qemu-nbd"], OUR_NBD):
                done = subprocess.run([*asks, "-L", "-k", str(at)], capture_output=True, text=True, timeout=60)
                listed.add(done.stdout)
            for context in ("base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0"):
                words = ["nbdinfo", f"--map={context}", f"nbd+unix:///e?socket={at}"]
                mapped.add((context, subprocess.run(words, capture_output=True, text=True, timeout=60).stdout))
    assert len(listed) == 1 and "qemu:dirty-bitmap:b0" in listed.pop()
    assert len(mapped) == 3


def test_zeros_that_are_detected_are_not_stored(image: pathlib.Path) -> None:
    at = image.parent / "s"
    words = ["-t", "-f", "raw", "--discard=unmap", "--detect-zeroes=unmap", "-k", str(at), str(image)]
    with server([*OUR_NBD, *words], at) as url:
        write = ["qemu-io", "-f", "raw", "-c", "write -P 0 0 1M", "-c", "flush", url]
        subprocess.run(write, check=True, stdout=subprocess.DEVNULL, timeout=60)
    assert image.stat().st_blocks < 3000  # the other half
    assert image.read_bytes() == bytes(2 * MIB)


def test_a_socket_that_the_starter_listens_on(image: pathlib.Path) -> None:
    """As systemd starts a server, and libnbd."""
    code = "import os,sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')"
    code += "; os.execv(sys.argv[2], sys.argv[2:])"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(image.parent / "s"))
        listener.listen(4)
        words = [sys.executable, "-c", code, str(listener.fileno()), *OUR_NBD, "-r", "-f", "raw", str(image)]
        process = subprocess.Popen(words, pass_fds=(listener.fileno(),))
    url = f"nbd+unix:///?socket={image.parent}/s"
    done = subprocess.run(["nbdinfo", "--size", url], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{2 * MIB}\n", done.stderr
    assert process.wait(30) == 0
    assert (image.parent / "s").exists()  # it is the starter's


def test_a_line_that_fails_leaves_the_image_as_it_was(tmp_path: pathlib.Path) -> None:
    """It had been opened for writing: its bitmaps would be in use for ever."""
    disk = tmp_path / "d.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "8M"], check=True)
    subprocess.run(["qemu-img", "bitmap", "--add", str(disk), "b0"], check=True)
    for words in (["-B", "nix"], ["-l", "nix"], ["-o", "9M"], ["-p", "1", "-b", "192.0.2.1"]):
        done = subprocess.run([*OUR_NBD, "-f", "qcow2", *words, str(disk)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
    pid = tmp_path / "pid"
    pid.write_text("1\n")
    words = [*OUR_NBD, f"--pid-file={pid}", "-k", str(tmp_path / "no" / "s"), str(disk)]
    assert subprocess.run(words, capture_output=True, timeout=60).returncode == 1
    assert pid.read_text() == "1\n"  # of the server that has its place
    info = subprocess.run(["qemu-img", "info", str(disk)], capture_output=True, text=True, timeout=60).stdout
    assert "in-use" not in info and "auto" in info


def test_a_first_sector_does_not_become_another_format_s(tmp_path: pathlib.Path) -> None:
    """Of an image that was only taken for raw, by QEMU and here."""
    (tmp_path / "head").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(504))
    for tool in (["qemu-io"], [sys.executable, str(ROOT / "bin/vmrun-io")]):
        disk = tmp_path / "disk"
        disk.write_bytes(bytes(MIB))
        words = [*tool, "-c", f"write -s {tmp_path}/head 0 512", "-c", "write -P 1 0 1k", str(disk)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert "Operation not permitted" in done.stdout and "1 KiB" in done.stdout
        assert disk.read_bytes()[:1024] == b"\1" * 1024
        subprocess.run([*tool, "-f", "raw", *words[len(tool) : len(tool) + 2], str(disk)], check=True, timeout=60,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        assert disk.read_bytes()[:4] == b"QFI\xfb"
