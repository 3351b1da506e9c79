"""Stock Linux drivers of display adapters: an initramfs that loads one and writes on the console it brings."""

from __future__ import annotations

import pathlib
import shutil
import stat
import subprocess
from typing import Any

import pytest

from tests.guest.linux import initramfs, kernel
from tests.up import Up
from vmrun.monitor.client import QmpClient
from vmrun.screen import Screen

BOOT_IMAGE = pathlib.Path("/usr/lib/grub/i386-pc/boot.img")
UNIFONT = pathlib.Path("/usr/share/grub/ascii.pf2")
PATIENCE = 400.0
SCRIPT = """
for m in {names}; do busybox insmod /$m || echo NO-MODULE $m; done
busybox cat /proc/fb
echo 'The quick brown fox jumps over the lazy dog 0123456789' > /dev/tty1
{more}
echo READY
busybox sleep 1000
"""


def modules(image: str, driver: str) -> list[pathlib.Path]:
    """The driver's file and all that it needs, in the order of loading."""
    place = pathlib.Path("/lib/modules") / image.partition("vmlinuz-")[2]
    needs = {}
    for line in (place / "modules.dep").read_text().splitlines():
        name, _, rest = line.partition(":")
        needs[name] = rest.split()
    found = next((name for name in needs if name.endswith(f"/{driver}.ko")), None)
    if found is None:
        pytest.skip(f"the kernel has no module {driver}")
    return [place / name for name in [*reversed(needs[found]), found]]


def linux(directory: pathlib.Path, driver: str, more: str = "", **keys: Any) -> Up:
    """A machine on soft whose kernel has loaded the driver, and said READY on its serial console."""
    image = kernel(cloud=False)
    files = list(dict.fromkeys(file for name in driver.split() for file in modules(image, name)))
    script = SCRIPT.format(names=" ".join(path.name for path in files), more=more)
    initrd = initramfs(directory, script, {p.name: (stat.S_IFREG | 0o644, p.read_bytes()) for p in files})
    serial = {"serial": {"type": "file", "path": str(directory / "serial")}}
    devices = [{"id": "com1", "driver": "isa-serial", "chardev": "serial"}, *keys.pop("devices", [])]
    cmdline = f"console=tty0 console=ttyS0 loglevel=4 vt.global_cursor_default=0 {keys.pop('cmdline', '')}"
    up = Up(
        directory,
        **{"machine": "pc-i440fx-2.0", "accel": "soft", "memory": "256MiB", **keys},
        kernel=image, initrd=initrd, cmdline=cmdline, chardevs=serial, devices=devices,
    )  # fmt: skip
    try:
        up.qmp("query-status")  # it waits for somebody to talk to
        up.until(lambda: "READY" in console(directory), PATIENCE)
        assert "NO-MODULE" not in console(directory), console(directory)
    except BaseException:
        up.__exit__()
        raise
    return up


def console(directory: pathlib.Path) -> str:
    return (directory / "serial").read_text(errors="replace").replace("\r\n", "\n")


def need_grub() -> None:
    if shutil.which("grub-mkimage") is None or not BOOT_IMAGE.exists() or not UNIFONT.exists():
        pytest.skip("grub-pc-bin is not installed")


def grub_disk(
    directory: pathlib.Path, config: str, *more: str, files: tuple[pathlib.Path, ...] = ()
) -> pathlib.Path:
    """A disk whose GRUB has its configuration, a font and `files` in memory."""
    import io
    import struct
    import tarfile

    need_grub()
    archive = directory / "memdisk.tar"
    with tarfile.open(archive, "w") as tar:
        inside = {"grub.cfg": config.encode(), "unicode.pf2": UNIFONT.read_bytes()}
        for name, data in (inside | {path.name: path.read_bytes() for path in files}).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    early = directory / "early.cfg"
    early.write_text("loadfont (memdisk)/unicode.pf2\nconfigfile (memdisk)/grub.cfg\n")
    core_path = directory / "grub.core"
    names = ["biosdisk", "memdisk", "tar", "normal", "configfile", "echo", "font", "video", "vbe", "gfxterm", *more]
    made = ["grub-mkimage", "-O", "i386-pc", "-o", core_path, "-p", "(memdisk)/", "-m", archive, "-c", early]
    subprocess.run([*made, *names], check=True)
    core = bytearray(core_path.read_bytes())
    core += bytes(-len(core) % 512)
    struct.pack_into("<QHH", core, 500, 2, len(core) // 512 - 1, 0x820)
    image = bytearray(4 << 20)
    image[:440] = BOOT_IMAGE.read_bytes()[:440]
    image[510:512] = b"\x55\xaa"
    image[512 : 512 + len(core)] = core
    path = directory / "grub.img"
    path.write_bytes(image)
    return path


def watch(up: Up) -> Screen:
    """Its screen, for as long as the test lasts."""
    return Screen(QmpClient(str(up.socket)), "guest")
