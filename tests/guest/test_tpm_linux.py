"""swtpm's TPM as a stock Linux on soft uses it, through both interfaces."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel

SWTPM = shutil.which("swtpm")
pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(SWTPM is None, reason="swtpm is not installed"),
]
PATIENCE = 90.0
SCRIPT = """
cd /sys/class/tpm/tpm0 || echo NO-TPM
echo TPM $(cat tpm_version_major) $(cat device/driver/uevent; basename $(readlink device/driver))
echo PCR $(cat pcr-sha256/0)
echo DONE
poweroff -f
"""


@pytest.fixture
def program(tmp_path: pathlib.Path) -> Iterator[str]:
    """The socket of an swtpm that has just been made."""
    path = str(tmp_path / "tpm.sock")
    state = tmp_path / "state"
    state.mkdir()
    command = [SWTPM or "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--ctrl", f"type=unixio,path={path}"]
    process = subprocess.Popen([*command, "--daemon", "--pid", f"file={tmp_path / 'pid'}"])
    assert process.wait(30) == 0
    yield path
    number = tmp_path / "pid"
    if number.exists():  # it ends by itself when the machine has closed the connection
        subprocess.run(["kill", number.read_text().strip()], check=False, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize(("driver", "module"), [("tpm-tis", "tpm_tis"), ("tpm-crb", "tpm_crb")])
def test_linux_reads_a_register_of_the_tpm(driver: str, module: str, program: str, tmp_path: pathlib.Path) -> None:
    chosen = kernel(cloud=False)
    with LinuxGuest(
        tmp_path,
        "soft",
        "quiet",
        machine="pc-i440fx-7.2",
        kernel=chosen,
        initrd=initramfs(tmp_path, SCRIPT),
        chardevs={"t": {"type": "socket", "path": program}},
        objects={"tpm0": {"type": "tpm-emulator", "chardev": "t"}},
        devices=[{"driver": driver, "id": "tpm", "tpmdev": "tpm0"}],
    ) as pc:
        pc.run_to_end(PATIENCE)
        console = pc.console()
    assert f"TPM 2 {module}" in console, console[-3000:]
    pcr = next(line for line in console.splitlines() if line.startswith("PCR "))
    assert len(pcr.split()[1]) == 64, pcr
