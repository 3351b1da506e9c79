"""Text read off graphics screens of real guests: GRUB's terminal, Linux's console on a frame buffer."""

from __future__ import annotations

import pathlib
import re
import socket
import struct
import time

import pytest

from tests.guest.screens import console, grub_disk, linux, watch
from tests.unit.ui.rfb import RAW, Rfb
from tests.up import Up

pytestmark = [pytest.mark.guest, pytest.mark.slow]
EXTENDED_DESKTOP_SIZE, SET_DESKTOP_SIZE = -308, 251
UEFI = pathlib.Path("/usr/share/qemu/OVMF.fd")
CONFIG = """
set gfxmode={mode}
terminal_output gfxterm
"""


@pytest.mark.parametrize("mode", ["640x480", "1024x768x16"])
def test_grubs_graphical_terminal_is_read(mode: str, tmp_path: pathlib.Path) -> None:
    grub_disk(tmp_path, CONFIG.format(mode=mode))
    keys = {"machine": "pc-i440fx-2.0", "accel": "soft", "memory": "64MiB", "display": "std"}
    with Up(tmp_path, **keys, disks=["grub.img"]) as up:
        screen = watch(up)
        screen.wait_for("grub>", 240)
        text = screen.read()
        assert (text.mode, f"{text.width}x{text.height}") == ("graphics", mode[:8].rstrip("x"))
        assert text.font == "Unifont Regular 16"
        screen.type("echo typed-and-read\n")
        screen.wait_for(re.compile("^ *typed-and-read$", re.MULTILINE))


@pytest.mark.parametrize(
    ("driver", "card"),
    [
        ("bochs", "VGA"),
        ("cirrus", "cirrus-vga"),
        ("bochs", "bochs-display"),
        ("virtio_pci virtio-gpu", "virtio-gpu-pci"),
        ("virtio_pci virtio-gpu", "virtio-vga"),
        ("vmwgfx", "vmware-svga,vmwgfx"),
    ],
)
def test_linux_on_its_driver_is_read(driver: str, card: str, tmp_path: pathlib.Path) -> None:
    card, *options = card.split(",")
    with linux(tmp_path, driver, devices=[{"id": "card", "driver": card, **dict.fromkeys(options, True)}]) as up:
        screen = watch(up)
        screen.wait_for("The quick brown fox jumps over the lazy dog 0123456789")
        text = screen.read()
        assert (text.mode, text.font) == ("graphics", "console 8x16")


@pytest.mark.parametrize(
    ("card", "mode", "size"),
    [
        ("VGA", 791, (1024, 768)), ("VGA", 788, (800, 600)), ("cirrus-vga", 785, (640, 480)),
        ("virtio-vga", 792, (1024, 768)),
    ],
)
def test_a_linux_without_a_driver_is_read_in_the_mode_of_the_video_bios(
    card: str, mode: int, size: tuple[int, int], tmp_path: pathlib.Path
) -> None:
    """`vga=`: the kernel's start asks the video BIOS for a frame buffer, which vesafb draws on."""
    with linux(tmp_path, "", devices=[{"id": "card", "driver": card}], cmdline=f"vga={mode}") as up:
        assert "VESA VGA" in console(tmp_path)
        screen = watch(up)
        screen.wait_for("The quick brown fox jumps over the lazy dog 0123456789")
        text = screen.read()
        assert (text.mode, text.font, text.width, text.height) == ("graphics", "console 8x16", *size)


@pytest.mark.long
@pytest.mark.parametrize("card", ["VGA", "virtio-vga", "bochs-display", "cirrus-vga"])
def test_a_linux_that_uefi_started_is_read_on_its_frame_buffer(card: str, tmp_path: pathlib.Path) -> None:
    """EDK II's firmware sets the mode, efifb draws on it."""
    if not UEFI.exists():
        pytest.skip("ovmf is not installed")
    keys = {"memory": "512MiB", "firmware": {"bios": str(UEFI)}}
    with linux(tmp_path, "", devices=[{"id": "card", "driver": card}], **keys) as up:
        assert "EFI VGA" in console(tmp_path)
        screen = watch(up)
        screen.wait_for("The quick brown fox jumps over the lazy dog 0123456789")
        text = screen.read()
        assert (text.mode, text.font) == ("graphics", "console 8x16") and text.width >= 800


@pytest.mark.long
@pytest.mark.parametrize(("mode", "columns", "lines"), [("0x200", 40, 25), ("0xf01", 80, 50), ("0xf05", 80, 30)])
def test_text_of_other_sizes_is_read(mode: str, columns: int, lines: int, tmp_path: pathlib.Path) -> None:
    with linux(tmp_path, "", devices=[{"id": "card", "driver": "VGA"}], cmdline=f"vga={mode}") as up:
        screen = watch(up)
        screen.wait_for("The quick brown fox jumps over the lazy")
        text = screen.read()
        assert (text.mode, text.width, text.height) == ("text", columns, lines)


def test_a_viewer_chooses_the_size_of_virtios_display(tmp_path: pathlib.Path) -> None:
    vnc = {"listen": f"unix:{tmp_path / 'vnc'}"}
    with (
        linux(tmp_path, "virtio_pci virtio-gpu", devices=[{"id": "card", "driver": "virtio-vga"}], vnc=vnc) as up,
        socket.socket(socket.AF_UNIX) as peer,
    ):
        peer.connect(str(tmp_path / "vnc"))
        viewer = Rfb(peer, lambda: time.sleep(0.01))
        viewer.connect()
        assert (viewer.width, viewer.height) == (1280, 800)
        viewer.encodings(RAW, EXTENDED_DESKTOP_SIZE)
        viewer.send(struct.pack(">BxHHBx", SET_DESKTOP_SIZE, 800, 600, 1) + struct.pack(">I4HI", 0, 0, 0, 800, 600, 0))
        screen = watch(up)
        up.until(lambda: (screen.read().width, screen.read().height) == (800, 600), 60)
