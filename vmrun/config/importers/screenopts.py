"""Options about what is seen and heard: display adapters, SPICE, VNC, sound; and USB, balloon, watchdog."""

from __future__ import annotations

from vmrun.config.importers.qemuopts import Option, boolean, number, only, settings
from vmrun.config.importers.state import Line, Opt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.importers.qemuopts import Option

ADAPTERS = {"std": "VGA", "cirrus": "cirrus-vga", "qxl": "qxl-vga", "vmware": "vmware-svga", "virtio": "virtio-vga"}
_SPICE_TEXT = (
    "addr",
    "password",
    "x509-dir",
    "tls-ciphers",
    "image-compression",
    "jpeg-wan-compression",
    "zlib-glz-wan-compression",
    "streaming-video",
)
_SPICE_FLAGS = (
    "disable-ticketing",
    "disable-copy-paste",
    "disable-agent-file-xfer",
    "ipv4",
    "ipv6",
    "sasl",
    "agent-mouse",
    "playback-compression",
    "seamless-migration",
)
_SPICE_OTHER = (
    "tls-channel",
    "plaintext-channel",
    "x509-key-file",
    "x509-key-password",
    "x509-cert-file",
    "x509-cacert-file",
    "x509-dh-key-file",
    "unix",
    "gl",
    "rendernode",
    "password-secret",
    "disable-agent",
)
_VNC_FLAGS = (
    "password", "reverse", "power-control", "ipv4", "ipv6", "sasl", "lossy", "non-adaptive", "lock-key-sync",
)  # fmt: skip
_VNC_TEXT = ("share", "tls-creds", "password-secret", "tls-authz", "sasl-authz", "id", "display")
_VNC_NUMBERS = ("to", "key-delay-ms", "connections", "head")
_USB = {
    "tablet": "usb-tablet",
    "mouse": "usb-mouse",
    "keyboard": "usb-kbd",
    "ccid": "usb-ccid",
    "net": "usb-net",
    "audio": "usb-audio",
}
_SOUND = {
    "ac97": ("AC97",),
    "es1370": ("ES1370",),
    "sb16": ("sb16",),
    "adlib": ("adlib",),
    "gus": ("gus",),
    "cs4231a": ("cs4231a",),
    "hda": ("intel-hda", "hda-duplex"),
    "pcspk": (),
}


# -display's kinds, and what each has of its own
_DISPLAYS = {
    "none": (), "gtk": ("grab-on-hover", "zoom-to-fit", "show-tabs", "show-menubar"), "sdl": ("grab-mod",),
    "curses": ("charset",), "egl-headless": ("rendernode",), "spice-app": (),
    "dbus": ("rendernode", "addr", "p2p", "audiodev"),
}  # fmt: skip
_WINDOW_FLAGS = ("full-screen", "window-close", "show-cursor", "gl")


def vga(line: Line, option: Option) -> None:
    given = settings(option, "type")
    kind = given.pop("type", "")
    if kind not in (*ADAPTERS, "none", "xenfb"):
        raise option.wrong(f"unknown vga type: {kind}", str(kind))
    for key in given:
        if key != "retrace":
            raise option.wrong(f"Invalid parameter '{key}'", key)
        line.no_equal(option, key)
    line.file.pop("display", None)
    if kind in ADAPTERS:
        line.file["display"] = kind


def std_vga(line: Line, option: Option) -> None:
    line.file["display"] = "std"


def spice(line: Line, option: Option) -> None:
    table = line.file.setdefault("spice", {})
    for key, value in settings(option).items():
        if key in ("port", "tls-port"):
            table[key] = number(option, key, value)
            if not 0 <= table[key] < 65536:
                raise option.wrong(f"spice {key} is out of range", key)
            if not table[key]:
                del table[key]
        elif key in _SPICE_FLAGS:
            table[key] = boolean(option, key, value)
        elif key in _SPICE_TEXT:
            table[key] = value
        elif key in _SPICE_OTHER:
            line.no_equal(option, key)
        else:
            raise option.wrong(f"Invalid parameter '{key}'", key)


def vnc(line: Line, option: Option) -> None:
    _vnc(line, option, settings(option, "vnc"))


def _vnc(line: Line, option: Option, given: dict[str, Any]) -> None:
    """One more server."""
    listen = str(given.pop("vnc", ""))
    if listen == "none":
        return
    table: dict[str, Any] = {"listen": listen}
    for key, value in given.items():
        if key in _VNC_FLAGS:
            table[key] = boolean(option, key, value)
        elif key in _VNC_TEXT:
            table[key] = value
        elif key in _VNC_NUMBERS:
            table[key] = number(option, key, value)
        elif key == "websocket":
            if value != "off":
                table[key] = True if value in ("", "on") else value
        elif key == "audiodev":
            line.run.setdefault("audible", []).append((option, value))
        else:
            line.no_equal(option, key)
    before = line.file.get("vnc")
    if before is None:
        line.file["vnc"] = table
    elif isinstance(before, list):
        before.append(table)
    else:
        line.file["vnc"] = [before, table]


def _silent(line: Line, id: str) -> bool:
    """Whether an -audiodev is of the driver that plays nothing."""
    for option in line.given.get("audiodev", ()):
        given = settings(option, "driver", json=True)
        if given.get("id") == id:
            return bool(given.get("driver") == "none")
    return False


def display(line: Line, option: Option) -> None:
    kind = str(option.value).partition(",")[0].partition("=")[0]
    if kind == "vnc":
        given = settings(option, "type")
        _vnc(line, option, {"vnc": given.pop("vnc", ""), **given})
    elif kind not in _DISPLAYS:
        raise option.wrong(f"Parameter 'type' does not accept value '{kind}'", kind)
    else:
        _window_options(line, option, kind)
    line.run["display"] = option.value


def _window_options(line: Line, option: Option, kind: str) -> None:
    """How the host shows its window: known, and without effect here."""
    for key, value in settings(option, "type").items():
        if key == "type":
            if kind == "egl-headless":
                line.no_equal(option, kind, host=True)
        elif key not in (*_WINDOW_FLAGS, *_DISPLAYS[kind]):
            raise option.wrong(f"Parameter '{key}' is unexpected", key)
        else:
            if key in _WINDOW_FLAGS and key != "gl" or key in ("zoom-to-fit", "grab-on-hover", "p2p"):
                boolean(option, key, value)
            line.no_equal(option, key, host=True)


def window(line: Line, option: Option) -> None:
    line.run["display"] = option.name


def keyboard(line: Line, option: Option) -> None:
    from vmrun.config import keymaps

    if option.value not in keymaps.names():
        raise option.wrong(f"could not read keymap file: '{option.value}'", str(option.value))
    line.file["keyboard"] = option.value


def usb_host(line: Line, option: Option | None = None) -> None:
    """The PIIX3's USB controller, once."""
    if not any(device["driver"] == "piix3-usb-uhci" for device, _ in line.early):
        line.add(option, {"id": "usb", "driver": "piix3-usb-uhci", "bus": "pci.0", "addr": "01.2"})


def usb(line: Line, option: Option) -> None:
    usb_host(line, option)


def usbdevice(line: Line, option: Option) -> None:
    kind, _, rest = str(option.value).partition(":")
    usb_host(line, option)
    if kind in _USB and kind != "net":
        line.add(option, {"driver": _USB[kind], "bus": "usb.0"})
    elif kind == "disk" and rest:
        spec: dict[str, Any] = {}
        if rest.startswith("format="):
            form, _, rest = rest[7:].partition(":")
            spec["format"] = form
        spec["file"] = rest
        id = line.put(option, "drives", f"usb{len(line.drives)}", spec)
        line.add(option, {"driver": "usb-storage", "bus": "usb.0", "drive": id})
    elif kind == "host" and rest:
        dot = "." in rest
        first, _, second = rest.partition("." if dot else ":")
        names = ("hostbus", "hostaddr") if dot else ("vendorid", "productid")
        given = zip(names, (first, second), strict=True)
        base = "" if dot else "0x"
        line.add(
            option, {"driver": "usb-host", "bus": "usb.0", **{key: number(option, key, base + v) for key, v in given}}
        )
    elif kind in ("serial", "braille", "wacom-tablet", "net", "bt"):
        line.no_equal(option, kind)
    else:
        raise option.wrong(f"could not add USB device '{option.value}'", kind)


def sound(line: Line, option: Option) -> None:
    names = list(_SOUND) if option.value == "all" else str(option.value).split(",")
    for name in names:
        if name not in _SOUND:
            from vmrun.config.near import nearest

            raise option.wrong(f"Unknown sound card name `{name}'", name, nearest(name, _SOUND))
        for driver in _SOUND[name]:
            line.add(option, {"driver": driver})


def balloon(line: Line, option: Option) -> None:
    kind, *rest = str(option.value).split(",")
    if kind not in ("none", "virtio"):
        raise option.wrong(f"unknown balloon type '{kind}'", kind)
    if kind == "virtio":
        device: dict[str, Any] = {"driver": "virtio-balloon-pci"}
        for part in rest:
            key, _, value = part.partition("=")
            device[key] = line.value(option, "virtio-balloon-pci", key, value)
        line.add(option, device)


def watchdog(line: Line, option: Option) -> None:
    if option.value not in ("i6300esb", "ib700"):
        raise option.wrong(f"Unknown -watchdog device '{option.value}'", str(option.value))
    line.add(option, {"driver": option.value})


def pcidevice(line: Line, option: Option) -> None:
    given = settings(option)
    line.add(option, {"driver": "pci-assign", **{key: value for key, value in given.items() if key in ("host", "id")}})


def no_equal(line: Line, option: Option) -> None:
    line.no_equal(option)


def host_only(line: Line, option: Option) -> None:
    line.no_equal(option, host=True)


def audiodev(line: Line, option: Option) -> None:
    given = settings(option, "driver", json=True)
    if not given.get("driver"):
        raise option.wrong("Parameter 'driver' is missing")
    if given["driver"] != "none":
        line.no_equal(option, host=True)


def audio(line: Line, option: Option) -> None:
    given = settings(option, "driver", json=True)
    if "model" not in given:
        raise option.wrong("Parameter 'model' is missing")
    sound(line, Option(option.name, str(given["model"]), option.index, option.text))
    if given.get("driver") != "none":
        line.no_equal(option, str(given.get("driver", "")), host=True)


def tpmdev(line: Line, option: Option) -> None:
    given = settings(option, "type")
    kind = given.pop("type", "")
    if kind == "passthrough":
        raise option.wrong("vmrun passes no TPM of the host through: use 'emulator'", kind)
    if kind != "emulator":
        raise option.wrong("Parameter 'type' expects a TPM backend type", kind)
    only(option, given, ("id", "chardev"))
    if "id" not in given:
        raise option.wrong("Parameter 'id' is missing")
    line.run.setdefault("objects", []).append((option.shown(), {"qom-type": "tpm-emulator", **given}))
    line.sources[f"objects.{given.get('id')}"] = option


def finish(line: Line) -> None:
    for option, id in line.run.pop("audible", ()):
        if not _silent(line, id):
            line.no_equal(option, "audiodev")
    if "speaker" in line.run:
        option, id = line.run.pop("speaker")
        if not any(settings(each, "driver", json=True).get("id") == id for each in line.given.get("audiodev", ())):
            raise option.wrong(f"Property 'isa-pcspk.audiodev' can't find value '{id}'", id)
        if not _silent(line, id):
            line.no_equal(option, "pcspk-audiodev", host=True)
    if line.has("usb"):
        usb_host(line)
    adapters = {*ADAPTERS.values(), "secondary-vga", "isa-vga", "isa-cirrus-vga"}
    if line.has("vga") or line.has("std-vga") or line.has("nodefaults") or adapters & line.spoken_for():
        return
    # The board's own display adapter is no console of the host: the guest sees it, so it is always said.
    line.file["display"] = line.default("display") or "std"


OPTIONS = (
    Opt("vga", True, vga, "display adapter: display"),
    Opt("spice", True, spice, "SPICE server: spice"),
    Opt("vnc", True, vnc, "VNC server: vnc"),
    Opt("display", True, display, "the host's window"),
    Opt("sdl", False, window, "the host's window"),
    Opt("curses", False, window, "the screen on the terminal"),
    Opt("full-screen", False, host_only, "the host's window"),
    Opt("no-frame", False, host_only, "the host's window"),
    Opt("no-quit", False, host_only, "the host's window"),
    Opt("alt-grab", False, host_only, "the host's window"),
    Opt("ctrl-grab", False, host_only, "the host's window"),
    Opt("show-cursor", False, host_only, "the host's window"),
    Opt("k", True, keyboard, "keyboard layout: keyboard"),
    Opt("usb", False, usb, "USB controller: devices"),
    Opt("usbdevice", True, usbdevice, "USB device: devices"),
    Opt("soundhw", True, sound, "sound cards: devices"),
    Opt("audiodev", True, audiodev, "the host's sound"),
    Opt("audio", True, audio, "a sound card and the host's sound: devices"),
    Opt("balloon", True, balloon, "memory balloon: devices"),
    Opt("watchdog", True, watchdog, "watchdog: devices"),
    Opt("pcidevice", True, pcidevice, "a device of the host: devices"),
    Opt("std-vga", False, std_vga, "standard VGA: display: std"),
    Opt("portrait", False, host_only, "the host's window"),
    Opt("rotate", True, host_only, "the host's window"),
    Opt("bt", True, no_equal, "Bluetooth"),
    Opt("tpmdev", True, tpmdev, "a TPM in another program: objects of type tpm-emulator"),
    Opt("prom-env", True, no_equal, "OpenBIOS variables"),
)
