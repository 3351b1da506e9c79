"""Firmware and option ROM images of the host: where they are, what they are, whether they can be what they
claim.

Looked for in the machine's `firmware.dirs`, in $VMRUN_FIRMWARE (directories, separated by colons), then where
distributions put them. An image is known by its SHA-256, which a lock file and `vmrun doctor` show.
"""

from __future__ import annotations

import os

from vmrun.errors import BuildError, about

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from vmrun.config.sections import MachineData

DIRECTORIES = (
    "/usr/share/seabios",
    "/usr/share/qemu",
    "/usr/share/qemu-kvm",
    "/usr/local/share/qemu",
    "/usr/share/ipxe/qemu",
    "/usr/lib/ipxe/qemu",
    "/usr/share/vgabios",
)
VARIABLE = "VMRUN_FIRMWARE"
PACKAGES = (  # beginning of a name, Debian's package
    ("bios", "seabios"),
    ("vgabios", "seabios"),
    ("pxe-", "ipxe-qemu"),
    ("efi-", "ipxe-qemu"),
    ("", "qemu-system-data"),
)
BIOS_STEP, BIOS_MOST = 0x10000, 8 << 20
ROM_MOST = 16 << 20


class Image:
    """A file's contents with its name, path and SHA-256 (lower-case hex)."""

    __slots__ = ("_sha256", "data", "name", "path")

    def __init__(self, name: str, path: str, data: bytes) -> None:
        self.name, self.path, self.data = name, path, data
        self._sha256 = ""

    @property
    def sha256(self) -> str:
        if not self._sha256:
            from hashlib import sha256

            self._sha256 = sha256(self.data).hexdigest()
        return self._sha256

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self.data)} bytes of {self.path}, sha256 {self.sha256[:12]}>"


def directories(extra: Sequence[str] = ()) -> list[str]:
    """Where to look, in order."""
    own = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    return [*extra, *own, *DIRECTORIES]


def locate(name: str, extra: Sequence[str] = ()) -> str | None:
    """The path of an image, or None. A name with a slash is a path."""
    if "/" in name:
        return name if os.path.isfile(name) else None
    for wanted in (name, _successor(name)):
        for directory in directories(extra) if wanted else ():
            path = os.path.join(directory, wanted)
            if os.path.isfile(path):
                return path
    return None


def _successor(name: str) -> str:
    """iPXE's name today of the network ROM that RHEL 6's and RHEL 7's qemu-kvm know by another, or ''."""
    if name.startswith("pxe-") and name.endswith(".bin"):
        return f"{name[:-4]}.rom"
    if name.startswith("rhel6-") and name.endswith(".rom"):
        return f"pxe-{name[6:]}"
    return ""


def load(name: str, extra: Sequence[str] = (), most: int = ROM_MOST) -> Image:
    """Read an image. BuildError says where it was looked for and what to install."""
    path = locate(name, extra)
    if path is None:
        where = name if "/" in name else ", ".join(directories(extra))
        raise BuildError(
            f"there is no firmware image '{name}'; looked in {where}", code="VR0620", remedy=_remedy(name)
        )
    try:
        size = os.stat(path).st_size
        if size > most:
            raise BuildError(f"{path} has {size} bytes; a firmware image has at most {most}", code="VR0632")
        with open(path, "rb") as file:
            data = file.read(most)
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}", code="VR0622", remedy=_remedy(name)) from None
    if not data:
        raise BuildError(f"{path} is empty", remedy=_remedy(name))
    return Image(name, path, data)


def load_bios_image(machine: MachineData) -> Image:
    """The machine's firmware: a multiple of 64 KiB, at most 8 MiB."""
    with about("firmware.bios", "VR0632"):
        return _load_bios(machine)


def _load_bios(machine: MachineData) -> Image:
    firmware = machine["firmware"]
    image = load(str(firmware["bios"]), firmware.get("dirs", ()), BIOS_MOST)
    size = len(image.data)
    if size % BIOS_STEP:
        raise BuildError(
            f"{image.path} has {size} bytes, which is no multiple of 64 KiB, so it is no PC firmware",
            remedy=_remedy(image.name),
        )
    if not image.data.strip(image.data[:1]):
        raise BuildError(f"{image.path} holds nothing but one byte value", remedy=_remedy(image.name))
    # The processor's first instruction is 16 bytes below the end.
    if image.data[-16:] in (bytes(16), b"\xff" * 16):
        raise BuildError(f"{image.path} has no code at the reset vector", remedy=_remedy(image.name))
    return image


def of_flash(path: str, drive: Any) -> Image:
    """The firmware that a flash holds when the machine starts."""
    size = int(drive.size)
    if not size or size > BIOS_MOST:
        raise BuildError(f"{path} has {size} bytes; flash of a PC has 4 KiB to {BIOS_MOST >> 20} MiB")
    data = drive.read_bytes(0, size)
    return Image(os.path.basename(path), path, data)


def load_rom(name: str, extra: Sequence[str] = ()) -> Image:
    """An option ROM: signature 55 aa, and a length that the file has."""
    with about(".romfile", "VR0632"):
        image = load(name, extra)
        data = image.data
        if data[:2] != b"\x55\xaa" or len(data) < 3 or data[2] * 512 > len(data):
            raise BuildError(f"{image.path} is no option ROM", remedy=_remedy(name))
    return image


def _remedy(name: str) -> str:
    base = os.path.basename(name)
    package = next(package for start, package in PACKAGES if base.startswith(start))
    return f"apt install {package}, or name its directory in ${VARIABLE} or under firmware.dirs"
