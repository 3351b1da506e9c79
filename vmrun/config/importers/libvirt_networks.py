"""The network cards of a libvirt domain and the host's side of each."""

from __future__ import annotations

from vmrun.config.importers.libvirt_base import Base
from vmrun.config.importers.qemuopts import join
from vmrun.config.importers.xmltree import Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.importers.libvirt_base import Pairs

_NETS = {"virtio": "virtio-net-pci", "virtio-transitional": "virtio-net-pci-transitional"}
_NETS |= {"virtio-non-transitional": "virtio-net-pci-non-transitional"}
_HARDWARE = ("hostdev", "vdpa")  # cards of the host: nothing stands for them
_SOCKETS = {"udp": "udp", "mcast": "mcast", "server": "listen", "client": "connect"}
# what <driver> turns off → the card's properties
_OFFLOADS = {
    "host": {
        **{"csum": "csum", "gso": "gso", "tso4": "host_tso4", "tso6": "host_tso6", "ecn": "host_ecn"},
        **{"ufo": "host_ufo", "mrg_rxbuf": "mrg_rxbuf"},
    },
    "guest": {
        **{"csum": "guest_csum", "tso4": "guest_tso4", "tso6": "guest_tso6", "ecn": "guest_ecn"},
        **{"ufo": "guest_ufo"},
    },
}
MOST_PORTS = 64  # of one range


class Networks(Base):
    """<interface>, read for Devices."""

    def _interface(self, item: Item) -> None:
        number = self.next("net")
        if item.get("type") in _HARDWARE:
            item.skip()
            self.domain.lost(item.line, f"type='{item.get('type')}' of <interface>")
            return
        model, mac = item.find("model"), item.find("mac")
        name = ((model.get("type") if model is not None else "") or "rtl8139").lower()
        props: Pairs = [("netdev", f"hostnet{number}"), ("id", f"net{number}")]
        if mac is not None:
            mac.ignore("type", "check")
            props.append(("mac", mac.get("address")))
        driver, mtu, link = item.find("driver"), item.find("mtu"), item.find("link")
        queues = driver.get("queues") if driver is not None else ""
        self._netdev(item, f"hostnet{number}", queues)
        if driver is not None:
            props += self._offloads(driver)
        if queues and name.startswith("virtio"):
            props += [("mq", "on"), ("vectors", 2 * self.domain.number(item, queues, "queues") + 2)]
        if mtu is not None:
            props.append(("host_mtu", mtu.get("size")))
        if link is not None and link.get("state", "up") != "up":
            self.domain.lost(link.line, f"state='{link.get('state')}' of <link>")
        self.device(item, _NETS.get(name, name), props)

    @staticmethod
    def _offloads(driver: Item) -> Pairs:
        driver.ignore("name")
        props: Pairs = []
        for key in ("ioeventfd", "event_idx", "rx_queue_size", "tx_queue_size"):
            props += [(key, driver.get(key))] if driver.get(key) else []
        driver.ignore(*(key for key in ("rss", "rss_hash_report") if driver.attributes.get(key) == "off"))
        if driver.get("txmode"):
            props.append(("tx", {"iothread": "bh"}.get(driver.get("txmode"), driver.get("txmode"))))
        for side, names in _OFFLOADS.items():
            found = driver.find(side)
            for key, name in names.items() if found is not None else ():
                props += [(name, found.get(key))] if found is not None and found.get(key) else []
        return props

    def _netdev(self, item: Item, id: str, queues: str) -> None:
        """The host's side."""
        domain, kind, source = self.domain, item.get("type"), item.find("source")
        source = source if source is not None else Item("source", {}, item.line)
        backend, target = item.find("backend"), item.find("target")
        pairs: Pairs = [("id", id)]
        if kind == "user":
            if backend is not None and backend.get("type") == "passt":
                domain.note(backend.line, "type='passt' of <backend>: `type: passt` of the netdev; here vmrun's own")
                backend.ignore("logFile")
            self._forwards(item, pairs)
            self.add(item.line, "-netdev", join(pairs, "user"))
            return
        if kind in _SOCKETS:
            where = f"{source.get('address')}:{source.get('port')}"
            pairs.append((_SOCKETS[kind], where))
            local = source.find("local")
            if local is not None:
                pairs.append(("localaddr", f"{local.get('address')}:{local.get('port')}"))
            self.add(item.line, "-netdev", join(pairs, "socket"))
            return
        if kind == "vhostuser":
            source.ignore("type", "path", "mode")
            domain.note(item.line, "vhostuser: no process can serve the rings; the card has a network of its own")
            self.add(item.line, "-netdev", f"user,id={id},restrict=on")
            return
        bridge = source.get("bridge") if kind == "bridge" else ""
        if kind == "network" and source.get("network") == "default":
            bridge = "virbr0"
            domain.note(source.line, "libvirt's network 'default' is its bridge virbr0")
        if bridge:
            if target is not None and target.get("dev"):
                domain.lost(target.line, f"dev='{target.get('dev')}' of <target>")  # the helper names it
            self.add(item.line, "-netdev", join([*pairs, ("br", bridge)], "bridge"))
            return
        if kind not in ("network", "ethernet", "direct", ""):
            domain.lost(item.line, f"type='{kind}' of <interface>")
        if kind == "direct":
            domain.note(source.line, "type='direct': make the macvtap interface and open it: `fd:` of the netdev")
            source.ignore("dev", "mode")
        script, tune = item.find("script"), item.find("tune", "sndbuf")
        if target is not None and target.get("dev"):
            target.ignore("managed")
            pairs.append(("ifname", target.get("dev")))
        pairs += [("script", script.get("path"))] if script is not None else []
        pairs += [("sndbuf", tune.text)] if tune is not None else []
        pairs += [("queues", queues)] if queues else []
        self.add(item.line, "-netdev", join(pairs, "tap"))

    def _forwards(self, item: Item, pairs: Pairs) -> None:
        """<ip> and <portForward> of a user network."""
        for each in item.all("ip"):
            prefix = each.get("prefix")
            if each.get("family", "ipv4") == "ipv4":
                pairs.append(("net", each.get("address") + (f"/{prefix}" if prefix else "")))
            else:
                pairs.append(("ipv6-prefix", each.get("address")))
                pairs += [("ipv6-prefixlen", prefix)] if prefix else []
        for each in item.all("portForward"):
            protocol, address = each.get("proto", "tcp"), each.get("address")
            for span in each.all("range"):
                if span.get("exclude") == "yes":
                    self.domain.lost(span.line, "exclude='yes' of <range>")
                    continue
                first = self.domain.number(span, span.get("start"), "start")
                last = self.domain.number(span, span.get("end") or str(first), "end")
                to = self.domain.number(span, span.get("to") or str(first), "to")
                if last - first >= MOST_PORTS:
                    self.domain.lost(span.line, f"more than {MOST_PORTS} ports of <range>")
                for port in range(first, min(last, first + MOST_PORTS - 1) + 1):
                    pairs.append(("hostfwd", f"{protocol}:{address}:{port}-:{to + port - first}"))
