"""What is dumped of a Linux guest is opened by those who read such files: makedumpfile, crash, gdb, elfutils."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.guest.linux import kernel
from tests.guest.test_misc_devices_linux import PATIENCE, Driven
from tests.unit.monitor.test_qmp import Talk, finish

pytestmark = [pytest.mark.guest, pytest.mark.slow]

SCRIPT = """
echo FIND-ME-IN-THE-LOG >/dev/kmsg
echo READY
sleep 600
"""


class Dumps:
    """One guest, dumped in both formats while it stands; its release and registers as its processor had them."""

    def __init__(self, pc: Driven, directory: pathlib.Path) -> None:
        self.files = {}
        talk = Talk(pc)  # type: ignore[arg-type]
        talk.ask("qmp_capabilities")
        talk.result("stop")
        self.registers = talk.hmp("info registers")
        for format in ("elf", "kdump-zlib"):
            path = directory / format
            given = {"paging": False, "protocol": f"file:{path}", "format": format}
            talk.session.feed(json.dumps({"execute": "dump-guest-memory", "id": 1, "arguments": given}).encode())
            finish(talk)
            self.files[format] = path
        self.release = re.sub("vmlinuz-", "", pathlib.Path(kernel(cloud=False)).name)


def run(*words: str | pathlib.Path) -> str:
    if shutil.which(str(words[0])) is None:
        pytest.skip(f"{words[0]} is not installed")
    done = subprocess.run([*words], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, (words, done.stdout[-2000:] + done.stderr[-2000:])
    return done.stdout


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dumps]:
    directory = tmp_path_factory.mktemp("dumps")
    devices = [{"id": "note", "driver": "vmcoreinfo"}]
    with Driven(directory, {"firmware/qemu_fw_cfg": ""}, SCRIPT, devices=devices) as pc:
        pc.run_until(lambda: "READY" in pc.console(), PATIENCE)
        yield Dumps(pc, directory)


@pytest.fixture(params=["elf", "kdump-zlib"])
def path(dumps: Dumps, request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> pathlib.Path:
    """A dump as its readers take it: what is written in pieces is put in order first."""
    made = dumps.files[request.param]
    if request.param == "elf":
        return made
    ordered = tmp_path / "ordered"
    if shutil.which("makedumpfile") is None:
        pytest.skip("makedumpfile is not installed")
    with made.open("rb") as file:
        subprocess.run(["makedumpfile", "-R", ordered], stdin=file, check=True, capture_output=True, timeout=120)
    return ordered


def test_makedumpfile_finds_the_kernel_s_log(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run("makedumpfile", "--dump-dmesg", path, tmp_path / "log")
    text = (tmp_path / "log").read_text(errors="replace")
    assert "Linux version 6." in text and "FIND-ME-IN-THE-LOG" in text


def test_crash_knows_the_release(dumps: Dumps, path: pathlib.Path) -> None:
    assert run("crash", "--osrelease", path).strip() == dumps.release


def test_elfutils_and_gdb_see_the_processor(dumps: Dumps) -> None:
    path = dumps.files["elf"]
    notes = run("eu-readelf", "-n", path)
    assert "OSRELEASE=6." in notes and re.search(r"QEMU +\d+ ", notes)
    found = re.search(r"RIP=([0-9a-f]{16})", dumps.registers)
    assert found is not None
    told = run("gdb", "-nx", "-batch", "-ex", f"core-file {path}", "-ex", 'printf "%016lx\\n", $rip')
    assert found[1] in told
