"""Every command line of README and docs is run, in a directory with what its page says is there."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples/README.md"]
COMMAND = re.compile(r"^(?: {4}|\$ |#   )((?:\.venv/bin/)?(?:vmrun|vmrun-qemu|truncate) .*)$", re.M)
ENDS = {
    "types --diff": {1}, "wait": {0, 1}, "view": {0, 3},
    "--pid": {0, 1, 3}, "up": {0, 4}, "broken.yaml": {1}, "console": {0, 3},
    "password": {0, 1},
}  # fmt: skip
LAB = (
    "lab.yaml",
    "schema: vmrun/machine/1\nname: lab\nmachine: rhel6.3.0\ndisplay: std\nserial: pty\nnetdevs: {lan: {type: user}}\n"
    'devices:\n  - {id: net0, driver: virtio-net-pci, netdev: lan, mac: "52:54:00:12:34:56", romfile: ""}\n',
)


def lines() -> Iterator[tuple[pathlib.Path, str]]:
    for page in [*PAGES, *sorted((ROOT / "examples").glob("*.yaml"))]:
        for line in COMMAND.findall(page.read_text()):
            yield page, re.split(r"\s{2,}#|\s#\s", line)[0].strip()


def blocks(page: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.S)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[pathlib.Path, Lab]]:
    """A directory with the files that the pages make or name, and the machine called lab."""
    here = tmp_path_factory.mktemp("pages")
    shutil.copytree(ROOT / "examples", here / "examples")
    for name in ("disk.img", "examples/system.img", "examples/data.img"):
        with open(here / name, "wb") as file:
            file.truncate(64 << 20)
    (here / "first.yaml").write_text(blocks("README.md")[0])
    (here / "direct.yaml").write_text(blocks("docs/boot.md")[0])
    (here / LAB[0]).write_text(LAB[1])
    (here / "broken.yaml").write_text("schema: vmrun/machine/1\nmachine: rhel6.3.0\nmemroy: 1GiB\n")
    own = next(block for block in blocks("docs/machine-types.md") if "vmrun/machine-type/1" in block)
    (here / "office-pc.yaml").write_text(own)
    (here / "start.sh").write_text("#!/bin/sh\nexec qemu-system-x86_64 -M pc-i440fx-2.0 -m 64 -nodefaults\n")
    (here / "domain.xml").write_text(
        "<domain type='kvm'><name>d</name><memory>65536</memory><vcpu>1</vcpu>"
        "<os><type arch='x86_64' machine='pc-i440fx-2.0'>hvm</type></os></domain>"
    )
    for image in ("vmlinuz", "initrd.img"):
        newest = sorted(pathlib.Path("/boot").glob(f"{image}-*"))
        if newest:
            (here / image).symlink_to(newest[-1])
    lab = Lab(here)
    yield here, lab
    lab.stop()


class Lab:
    """The machine called lab, which runs whenever a line talks to it."""

    def __init__(self, here: pathlib.Path) -> None:
        self.here = here
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.process is not None and self.process.poll() is None:
            return
        run = ["vmrun", "up", "--accel", "soft", "--paused", "--quiet", LAB[0]]
        env, nowhere = environment(self.here), subprocess.DEVNULL
        self.process = subprocess.Popen(run, cwd=self.here, env=env, stdin=nowhere, stdout=nowhere, stderr=nowhere)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            asked = subprocess.run(["vmrun", "monitor", "lab", "info", "status"], env=env, capture_output=True)
            if asked.returncode == 0:
                return
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def environment(here: pathlib.Path) -> dict[str, str]:
    bin = here / "bin"
    if not bin.exists():
        bin.mkdir()
        for name in ("vmrun", "vmrun-qemu"):
            (bin / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/bin/{name}" "$@"\n')
            (bin / name).chmod(0o755)
        (here / ".venv").mkdir()
        (here / ".venv/bin").symlink_to(bin)
    path = f"{bin}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "XDG_RUNTIME_DIR": str(here), "XDG_CACHE_HOME": str(here / "cache")}


@pytest.mark.slow
@pytest.mark.parametrize("page, line", list(lines()), ids=lambda value: getattr(value, "name", value))
def test_a_command_line_of_the_pages_works(place: tuple[pathlib.Path, Lab], page: pathlib.Path, line: str) -> None:
    here, lab = place
    talks = "monitor|console|screenshot|stop|save|screen|wait|view|type|pause|resume|reset|logs|attach"
    if re.match(f"vmrun ({talks}) ", line):
        lab.start()
    asked = line.replace("4711", str(os.getpid())).replace("/tmp/", f"{here}/")
    if re.match(r"\S*vmrun up ", asked):
        asked = asked.replace(" up ", " up --accel soft --timeout 1 ")
    if asked.startswith("vmrun wait"):
        asked += " --timeout 0.5"
    asked = asked.replace("-enable-kvm", "-accel tcg")
    if asked.startswith("vmrun stop"):
        asked = asked.replace("stop", "stop --force")
    waits = asked.startswith("vmrun-qemu") and "help" not in asked
    if page.name == "lock.md" and ("lab.lock" in asked or "--check" in asked or "--locked" in asked):
        subprocess.run(["vmrun", "lock", "lab.yaml"], cwd=here, env=environment(here), check=True, capture_output=True)
    if "first.yaml" in asked and "office-pc.yaml" not in asked:
        (here / "first.yaml").write_text(blocks("README.md")[0])
    if "init " in asked:
        (here / "first.yaml").unlink()
    if "-qtest unix:" in asked:  # somebody listens there
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(here / "q"))
        listener.listen()
    if "machine.yaml" in asked:
        (here / "machine.yaml").write_text(LAB[1])
    if "--screen" in asked:  # it wants a terminal
        asked = f"script -qec {shlex.quote(asked)} /dev/null"
    shell = ["sh", "-c", asked] if not waits else ["timeout", "-k", "5", "2", "sh", "-c", f"exec {asked}"]
    done = subprocess.run(
        shell, cwd=here, env=environment(here), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said and "fault of vmrun's own" not in said, said
    expected = next((codes for word, codes in ENDS.items() if f" {word} " in f" {asked} "), {0})
    assert done.returncode in expected | ({124} if waits else set()), said
