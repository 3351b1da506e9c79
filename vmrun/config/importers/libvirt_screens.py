"""What of a libvirt domain is seen, heard and typed on."""

from __future__ import annotations

from vmrun.config.importers.libvirt_places import Places
from vmrun.config.importers.qemuopts import join
from vmrun.config.importers.xmltree import Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.importers.libvirt_base import Pairs

_SOUND = {"ac97": "AC97", "es1370": "ES1370", "sb16": "sb16", "ich6": "intel-hda", "ich7": "ich9-intel-hda"}
_SOUND |= {"ich9": "ich9-intel-hda", "usb": "usb-audio"}
_VIDEO = {"cirrus": "cirrus-vga", "vga": "VGA", "qxl": "qxl-vga", "vmvga": "vmware-svga", "virtio": "virtio-vga"}
_VIDEO |= {"bochs": "bochs-display", "ramfb": "ramfb"}
_SECOND = {"qxl": "qxl", "virtio": "virtio-gpu-pci"}
_CODECS = {"duplex": "hda-duplex", "micro": "hda-micro", "output": "hda-output"}
_INPUTS = {"tablet": "usb-tablet", "mouse": "usb-mouse", "keyboard": "usb-kbd"}


class Screens(Places):
    """<input>, <graphics>, <video> and <sound>, read for Devices."""

    def _input(self, item: Item) -> None:
        kind, bus, number = item.get("type"), item.get("bus"), self.next("input")
        bus = bus or ("usb" if kind == "tablet" else "ps2")
        if bus == "usb" and kind in _INPUTS:
            self.add(item.line, "-device", join([("id", f"input{number}"), *self._usb(item)], _INPUTS[kind]))
        elif bus == "virtio" and kind in _INPUTS:
            self.device(item, f"virtio-{kind}-pci", [("id", f"input{number}")])
        elif bus != "ps2" or kind not in ("mouse", "keyboard"):
            self.domain.lost(item.line, f"<input type='{kind}' bus='{bus}'>")

    def _listen(self, item: Item) -> str:
        address = item.get("listen")
        listen = item.find("listen")
        if listen is not None:
            if listen.get("type") == "socket":
                return f"unix:{listen.get('socket') or item.get('type') + '.sock'}"
            address = listen.get("address") or address
            if listen.get("type") == "network":
                self.domain.lost(listen.line, f"network='{listen.get('network')}' of <listen>")
        return address or "127.0.0.1"

    def _graphics(self, item: Item) -> None:
        kind, domain = item.get("type"), self.domain
        port = item.get("port", "-1")
        auto = item.get("autoport") == "yes" or port in ("-1", "")
        if kind == "vnc":
            where = f"unix:{item.get('socket')}" if item.get("socket") else self._listen(item)
            pairs: Pairs = [("vnc", where)]
            if not where.startswith("unix:"):
                host = f"[{where}]" if ":" in where else where
                pairs = [("vnc", f"{host}:{0 if auto else max(int(port), 5900) - 5900}")]
                pairs += [("to", "99")] if auto else []
            pairs += [("password", "on")] if item.get("passwd") else []
            share = {"allow-exclusive": "allow-exclusive", "force-shared": "force-shared", "ignore": "ignore"}
            pairs += [("share", share[item.get("sharePolicy")])] if item.get("sharePolicy") in share else []
            websocket = item.get("websocket")
            if websocket:  # -1: libvirt chooses one, as it does for the display
                pairs += [("websocket", websocket if websocket != "-1" else "on")]
            pairs += [("power-control", "on")] if item.get("powerControl") == "yes" else []
            self.add(item.line, "-vnc", join(pairs))
            if item.get("keymap"):
                self.add(item.line, "-k", item.get("keymap"))
        elif kind == "spice":
            pairs = [("port", "5900" if auto else port)]
            pairs += [("tls-port", item.get("tlsPort"))] if item.get("tlsPort") not in ("", "-1") else []
            pairs += [("addr", self._listen(item))]
            mouse = item.attr("mouse", "mode")
            pairs += [("agent-mouse", "on" if mouse == "client" else "off")] if mouse else []
            if not item.get("passwd"):
                pairs.append(("disable-ticketing", "on"))
            for tag, key in (("image", "image-compression"), ("jpeg", "jpeg-wan-compression")):
                pairs += [(key, item.attr(tag, "compression"))] if item.attr(tag, "compression") else []
            zlib, playback = item.attr("zlib", "compression"), item.attr("playback", "compression")
            pairs += [("zlib-glz-wan-compression", zlib)] if zlib else []
            pairs += [("playback-compression", playback)] if playback else []
            streaming = item.attr("streaming", "mode")
            pairs += [("streaming-video", streaming)] if streaming else []
            pairs += [("disable-copy-paste", "on")] if item.attr("clipboard", "copypaste") == "no" else []
            pairs += [("disable-agent-file-xfer", "on")] if item.attr("filetransfer", "enable") == "no" else []
            pairs.append(("seamless-migration", "on"))
            self.add(item.line, "-spice", join(pairs))
            if item.get("keymap"):
                self.add(item.line, "-k", item.get("keymap"))
        else:
            domain.lost(item.line, f"<graphics type='{kind}'>")
            item.skip()
        if item.get("passwd"):
            domain.note(
                item.line, "passwd of <graphics> is not written down: a client is asked for one that is set by hand"
            )

    def _video(self, item: Item) -> None:
        number, model = self.next("video"), item.find("model")
        kind = (model.get("type") if model is not None else "") or "cirrus"
        get = model.get if model is not None else (lambda name, default="": default)
        get("primary")
        if kind == "none":
            return
        driver = _SECOND.get(kind, _VIDEO.get(kind, "")) if number else _VIDEO.get(kind, "")
        if not driver:
            self.domain.lost(item.line, f"type='{kind}' of <model>")
            return

        def kib(name: str, default: int) -> int:
            return int(get(name) or default)

        pairs: Pairs = [("id", f"video{number}")]
        heads = get("heads")
        if kind == "qxl":
            pairs.append(("max_outputs", heads or "1"))
            pairs += [("ram_size", kib("ram", 65536) * 1024), ("vram_size", kib("vram", 65536) * 1024)]
            pairs += [("vram64_size_mb", kib("vram64", 0) // 1024), ("vgamem_mb", kib("vgamem", 16384) // 1024)]
        elif kind in ("vga", "vmvga"):  # libvirt rounds up to a power of two
            pairs.append(("vgamem_mb", max(1, 1 << (kib("vram", 16384) // 1024 - 1).bit_length())))
        elif kind == "virtio":
            pairs.append(("max_outputs", heads or "1"))
        elif kind == "bochs":
            pairs.append(("vgamem", f"{kib('vram', 16384) // 1024}M"))
        if kind == "cirrus" and get("vram") not in ("", "9216", "16384"):  # its size is the type's
            self.domain.lost(item.line, f"vram='{get('vram')}' of <model>")
        if kind != "qxl" and kind != "virtio" and heads not in ("", "1"):
            self.domain.lost(item.line, f"heads='{heads}' of <model>")
        resolution = model.find("resolution") if model is not None else None
        if resolution is not None:
            pairs += [("xres", resolution.get("x")), ("yres", resolution.get("y"))]
        self.device(item, driver, pairs)

    def _sound(self, item: Item) -> None:
        number, model = self.next("sound"), item.get("model")
        if model == "pcspk":
            return
        if model not in _SOUND:
            self.domain.lost(item.line, f"model='{model}' of <sound>")
            return
        audio = item.find("audio")
        if audio is not None:
            audio.ignore("id")
        name = f"sound{number}"
        if model == "usb":
            self.add(item.line, "-device", join([("id", name), *self._usb(item)], _SOUND[model]))
            return
        self.device(item, _SOUND[model], [("id", name)])
        if model.startswith("ich"):
            for n, codec in enumerate([each.get("type") for each in item.all("codec")] or ["duplex"]):
                pairs: Pairs = [("id", f"{name}-codec{n}"), ("bus", f"{name}.0"), ("cad", n)]
                self.add(item.line, "-device", join(pairs, _CODECS.get(codec, codec)))

    def _audio(self, item: Item) -> None:
        item.skip()  # the host's sound
