"""Serial and parallel ports, consoles, channels and smart cards of a libvirt domain, and the host's side of each."""

from __future__ import annotations

from vmrun.config.importers.libvirt_base import element
from vmrun.config.importers.libvirt_places import Places
from vmrun.config.importers.qemuopts import join
from vmrun.config.importers.xmltree import Item, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.importers.libvirt_base import Pairs

_PORTS = 31  # of a controller


class Characters(Places):
    """All that has a -chardev, read for Devices."""

    port: dict[int, tuple[int, int]]  # of each channel and console on virtio-serial: the controller, its port

    def _number_ports(self) -> None:
        """Ports of virtio-serial in libvirt's order, and the controllers that they need."""
        number, rooms, waiting = self.domain.number, {}, []
        for each in self._of("controller"):
            if each.attributes.get("type") == "virtio-serial":
                rooms[self._number(each)] = min(
                    number(each, each.attributes.get("ports") or str(_PORTS), "ports"), _PORTS
                )
        present = set(rooms)
        for item in self._of("console", "channel"):
            target, said = (item.peek(tag) for tag in ("target", "address"))
            if target is None or target.attributes.get("type") != "virtio":
                continue
            row = said.attributes if said is not None and said.attributes.get("type") == "virtio-serial" else {}
            controller, port = (number(item, row.get(key) or "0", key) for key in ("controller", "port"))
            rooms.setdefault(controller, _PORTS)
            if port:
                self.port[id(item)] = controller, port
            elif row or item.tag == "channel":  # a console without an address is where QEMU puts it
                waiting.append((item, [controller] if row else None))
        taken = set(self.port.values())
        for item, among in waiting:
            spots = ((n, port) for n in among or sorted(rooms) for port in range(item.tag == "channel", rooms[n]))
            spot = next((spot for spot in spots if spot not in taken), None)
            if spot is None and among:
                raise wrong(f"virtio-serial{among[0]} has no port left", self.domain.file, item.line)
            if spot is None:
                spot = next(n for n in range(len(rooms) + 1) if n not in rooms), 1
                rooms[spot[0]] = _PORTS
            taken.add(spot)
            self.port[id(item)] = spot
        for n in sorted(set(rooms) - present):
            self.items.append(
                element("controller", self.domain.root.line, type="virtio-serial", index=str(n), model="")
            )

    def _characters(self, item: Item, id: str) -> bool:
        """The -chardev of an element; False when it has no equal."""
        sources, kind, domain = item.all("source"), item.get("type", "pty"), self.domain
        source = sources[0] if sources else Item("source", {}, item.line)
        protocol, log = item.find("protocol"), item.find("log")
        rest: Pairs = []
        backend = {"dev": "serial", "unix": "socket", "tcp": "socket"}.get(kind, kind)
        if kind == "dev" and item.tag == "parallel":
            backend = "parallel"
        if kind == "unix":
            rest = [("path", source.get("path") or f"{id}.sock")]
        elif kind == "tcp":
            rest = [("host", source.get("host", "localhost")), ("port", source.get("service", "0"))]
            rest += [("telnet", "on")] if protocol is not None and protocol.get("type") == "telnet" else []
        elif kind == "udp":
            for each in sources:
                bind = each.get("mode") == "bind"
                names = ("localaddr", "localport") if bind else ("host", "port")
                rest += [
                    (name, each.get(key)) for name, key in zip(names, ("host", "service"), strict=True) if each.get(key)
                ]
        elif kind in ("file", "dev", "pipe"):
            rest = [("path", source.get("path"))]
            if source.get("append"):
                rest.append(("append", source.get("append")))
        elif kind == "spicevmc":
            rest = [("name", {"redirdev": "usbredir", "smartcard": "smartcard"}.get(item.tag, "vdagent"))]
        elif kind == "spiceport":
            rest = [("name", source.get("channel"))]
        elif kind in ("pty", "null", "stdio", "vc"):
            if kind == "pty":
                source.ignore("path")  # where it was the last time
        else:
            domain.lost(item.line, f"type='{kind}' of <{item.tag}>")
            return False
        if protocol is not None and protocol.get("type") not in ("raw", "telnet" if kind == "tcp" else ""):
            domain.lost(protocol.line, f"type='{protocol.get('type')}' of <protocol>")
        if kind in ("unix", "tcp"):
            reconnect = source.find("reconnect")
            if source.get("mode") == "bind" or kind == "unix" and not source.get("mode") and item.tag == "channel":
                rest += [("server", "on"), ("wait", "off")]
            if reconnect is not None and reconnect.get("enabled") == "yes":
                rest.append(("reconnect", reconnect.get("timeout", "0")))
            if source.get("tls") == "yes":
                domain.lost(source.line, "tls='yes' of <source>")
        if log is not None:
            rest.append(("logfile", log.get("file")))
            if log.get("append"):
                rest.append(("logappend", log.get("append")))
        item.ignore("tty")
        self.add(item.line, "-chardev", join([("id", id), *rest], backend))
        return True

    def _serial(self, item: Item) -> None:
        number, target = self.next("serial"), item.find("target")
        port = (target.get("port") if target is not None else "") or str(number)
        if item.tag == "console":
            port = "0"  # its own number is that of a console
        kind = (target.get("type") if target is not None else "") or "isa-serial"
        model = item.find("target", "model")
        if model is not None:
            model.ignore("name")
        if not self._characters(item, f"charserial{number}"):
            return
        address = item.find("address")
        pairs: Pairs = [("chardev", f"charserial{number}"), ("id", f"serial{number}")]
        if kind in ("isa-serial", "serial"):
            pairs.append(("index", port))
            if address is not None and address.get("type") == "isa":
                pairs += [(key, address.get(key)) for key in ("iobase", "irq") if address.get(key)]
            self.add(item.line, "-device", join(pairs, "isa-serial"))
        elif kind == "usb-serial":
            self.add(item.line, "-device", join([*pairs, *self._usb(item)], kind))
        else:
            self.device(item, kind, pairs)

    def _parallel(self, item: Item) -> None:
        number, target = self.next("parallel"), item.find("target")
        if target is not None:
            target.ignore("type", "port")  # libvirt counts them by their order
        if self._characters(item, f"charparallel{number}"):
            pairs: Pairs = [("chardev", f"charparallel{number}"), ("id", f"parallel{number}")]
            self.add(item.line, "-device", join([*pairs, ("index", number)], "isa-parallel"))

    def _console(self, item: Item) -> None:
        number, target = self.next("console"), item.find("target")
        kind = (target.get("type") if target is not None else "") or "serial"
        if target is not None:
            target.ignore("port")
        if kind == "serial":
            if number == 0 and self._of("serial"):
                for child in item.children:
                    child.skip()  # the first is another view of the first serial port
                item.ignore("type", "tty")
            elif number == 0:
                self._serial(item)
            else:
                self.domain.lost(item.line, "<console> of a serial port, beyond the first,")
        elif kind == "virtio":
            # a console of virtio comes after the one that every PC has
            if not number and self._of("serial"):
                number = self.next("console")
            if self._characters(item, f"charconsole{number}"):
                pairs: Pairs = [("chardev", f"charconsole{number}"), ("id", f"console{number}")]
                self.add(item.line, "-device", join([*self._console_port(item), *pairs], "virtconsole"))
        else:
            self.domain.lost(item.line, f"type='{kind}' of <target>")

    def _console_port(self, item: Item) -> Pairs:
        address = item.find("address")
        return self._virtio_port(item) if address is not None and address.get("type") == "virtio-serial" else []

    def _virtio_port(self, item: Item) -> Pairs:
        address = item.find("address")
        if address is not None:
            address.ignore("type", "controller", "bus", "port")
        controller, port = self.port[id(item)]
        return [("bus", f"virtio-serial{controller}.0"), ("nr", port)]

    def _channel(self, item: Item) -> None:
        number, target = self.next("channel"), item.find("target")
        if target is None or target.get("type") != "virtio":
            self.domain.lost(item.line, f"<channel> of type '{target.get('type') if target is not None else ''}'")
            item.skip()
            return
        target.ignore("state")
        if self._characters(item, f"charchannel{number}"):
            name = [("name", target.get("name"))] if target.get("name") else []
            if not name and item.get("type") == "spicevmc":
                name = [("name", "com.redhat.spice.0")]
            pairs: Pairs = [("chardev", f"charchannel{number}"), ("id", f"channel{number}"), *name]
            self.add(item.line, "-device", join([*self._virtio_port(item), *pairs], "virtserialport"))

    def _smartcard(self, item: Item) -> None:
        number, mode = self.next("smartcard"), item.get("mode")
        address = item.find("address")
        slot = ""
        if address is not None and address.get("type") == "ccid":
            slot = address.get("slot")
            address.ignore("controller")
        pairs: Pairs = [("id", f"smartcard{number}"), ("bus", "ccid0.0"), *([("slot", slot)] if slot else [])]
        if mode == "passthrough" and self._characters(item, f"charsmartcard{number}"):
            self.add(item.line, "-device", join([("chardev", f"charsmartcard{number}"), *pairs], "ccid-card-passthru"))
        elif mode == "host":
            self.add(item.line, "-device", join([("backend", "nss-emulated"), *pairs], "ccid-card-emulated"))
        else:
            self.domain.lost(item.line, f"mode='{mode}' of <smartcard>")

    def _redirdev(self, item: Item) -> None:
        number = self.next("redir")
        if item.get("bus", "usb") != "usb":
            self.domain.lost(item.line, f"bus='{item.get('bus')}' of <redirdev>")
        if self._characters(item, f"charredir{number}"):
            pairs: Pairs = [("chardev", f"charredir{number}"), ("id", f"redir{number}"), *self._usb(item)]
            boot = item.find("boot")
            pairs += [("bootindex", boot.get("order"))] if boot is not None else []
            self.add(item.line, "-device", join(pairs, "usb-redir"))
