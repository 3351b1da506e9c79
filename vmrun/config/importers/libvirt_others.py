"""Of a libvirt domain: memory modules, balloon, random numbers, panic, TPM, shared memory, watchdog and their kin."""

from __future__ import annotations

from vmrun.config.importers.libvirt_base import Base
from vmrun.config.importers.qemuopts import join
from vmrun.config.importers.xmltree import Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.importers.libvirt_base import Pairs


class Others(Base):
    """The elements of <devices> that have little to say, read for Devices."""

    def _memballoon(self, item: Item) -> None:
        model = item.get("model", "virtio")
        if model == "none":
            return
        if not model.startswith("virtio"):
            self.domain.lost(item.line, f"model='{model}' of <memballoon>")
            return
        pairs: Pairs = [("id", f"balloon{self.next('balloon')}")]
        pairs += [("deflate-on-oom", item.get("autodeflate"))] if item.get("autodeflate") else []
        if item.get("freePageReporting"):
            pairs.append(("free-page-reporting", item.get("freePageReporting")))
        stats = item.find("stats")
        if stats is not None:
            stats.ignore("period")  # how often a manager asks
        self.device(item, f"virtio-balloon-pci{model.removeprefix('virtio')}", pairs)

    def _memory(self, item: Item) -> None:
        """A module, <memory model='dimm'> or 'nvdimm'; other models are named as QEMU's devices."""
        model, target, source = item.get("model"), item.find("target"), item.find("source")
        size = target.find("size") if target is not None else None
        if target is None or size is None or model not in ("dimm", "nvdimm"):
            self.domain.lost(item.line, f"model='{model}' of <memory>")
            item.skip()
            return
        item.ignore("discard")  # memory of vmrun's own is gone with its process; a file's stays
        number, node, spot = self.next(model), target.find("node"), item.find("address")
        if spot is not None and spot.get("slot"):
            number = self.domain.number(spot, spot.get("slot"), "slot")
        amount = self.domain.module_size(size)
        name, pairs = f"mem{model}{number}", [("node", node.text)] if node is not None else []
        path, align = (source.find(tag) if source is not None else None for tag in ("path", "alignsize"))
        place = self.domain.place_of(node, source)
        access = self.domain.access(item, "access") or self.domain.shared
        if path is not None:
            backend: Pairs = [("id", name), ("mem-path", path.text)]
            backend += [("share", "on" if access == "shared" else "off")] if access else []
            backend += [("prealloc", "on")] if model == "nvdimm" else []
            backend += [("size", amount), *place]
            if align is not None:
                backend.append(("align", self.domain.amount(align, align.text, align.get("unit"))))
            self.add(item.line, "-object", join(backend, "memory-backend-file"))
        else:
            self.domain.backend(item.line, name, amount, access, place)
        label = target.find("label", "size")
        if label is not None:
            pairs.append(("label-size", str(self.domain.amount(label, label.text, label.get("unit")))))
        if target.find("readonly") is not None:
            pairs.append(("unarmed", "on"))
        uuid = item.find("uuid")
        pairs += [("uuid", uuid.text)] if uuid is not None else []
        pairs += [("memdev", name), ("id", f"{model}{number}")]
        if spot is not None and spot.get("type") == "dimm":
            pairs += [(name, spot.get(key)) for key, name in (("slot", "slot"), ("base", "addr")) if spot.get(key)]
        if model == "nvdimm":
            self.add(item.line, "-machine", "nvdimm=on")
        self.add(item.line, "-device", join(pairs, "pc-dimm" if model == "dimm" else model))

    def _tpm(self, item: Item) -> None:
        number, backend = self.next("tpm"), item.find("backend")
        kind = backend.get("type") if backend is not None else ""
        id, chardev = f"tpm-tpm{number}", f"chrtpm{number}" if number else "chrtpm"
        version = (backend.get("version") if backend is not None else "") or "2.0"
        if kind == "emulator":
            assert backend is not None
            path = f"{self.domain.name}-swtpm.sock"
            for tag in ("encryption", "active_pcr_banks"):
                found = backend.find(tag)
                if found is not None:
                    found.skip()  # swtpm's own business
            backend.ignore("persistent_state", "debug")
            two = " --tpm2" if version == "2.0" else ""
            command = f"swtpm socket{two} --tpmstate dir=DIR --ctrl type=unixio,path={path}"
            self.domain.note(item.line, f"libvirt starts the TPM; here: {command}")
            self.add(item.line, "-chardev", join([("id", chardev), ("path", path)], "socket"))
            self.add(item.line, "-tpmdev", join([("id", id), ("chardev", chardev)], "emulator"))
            self.device(item, item.get("model", "tpm-tis"), [("tpmdev", id), ("id", f"tpm{number}")])
        else:
            item.skip()
            self.domain.lost(item.line, f"a TPM of kind '{kind}'")

    def _shmem(self, item: Item) -> None:
        number, size = self.next("shmem"), item.find("size")
        model = item.attr("model", "type") or "ivshmem"
        amount = self.domain.amount(size, size.text, size.get("unit", "B")) if size is not None else 4 << 20
        name = item.get("name")
        if model == "ivshmem-plain":
            role = item.get("role")
            path = [("mem-path", f"/dev/shm/{name}"), ("share", "on"), ("size", amount)]
            self.add(item.line, "-object", join([("id", f"shmmem-shmem{number}"), *path], "memory-backend-file"))
            master = [("master", "on" if role == "master" else "off")] if role in ("master", "peer") else []
            self.device(item, model, [("memdev", f"shmmem-shmem{number}"), *master, ("id", f"shmem{number}")])
            return
        self.domain.lost(item.line, f"model='{model}' of <shmem>")
        item.skip()

    def _vsock(self, item: Item) -> None:
        cid = item.find("cid")
        number = cid.get("address") if cid is not None and cid.get("auto") != "yes" else "3"
        self.device(item, "vhost-vsock-pci", [("guest-cid", number), ("id", f"vsock{self.next('vsock')}")])

    def _iommu(self, item: Item) -> None:
        model = item.get("model")
        if model == "virtio":
            self.device(item, "virtio-iommu-pci", [])
        else:
            self.domain.lost(item.line, f"model='{model}' of <iommu>")  # of Q35 alone
            item.skip()

    def _crypto(self, item: Item) -> None:
        backend, number = item.find("backend"), self.next("crypto")
        kind = backend.get("model", "builtin") if backend is not None else "builtin"
        queues = [("queues", backend.get("queues"))] if backend is not None and backend.get("queues") else []
        item.ignore("type", "model")
        self.add(item.line, "-object", join([("id", f"objcrypto{number}"), *queues], f"cryptodev-backend-{kind}"))
        self.device(item, "virtio-crypto-pci", [("cryptodev", f"objcrypto{number}"), ("id", f"crypto{number}")])

    def _rng(self, item: Item) -> None:
        number, model, backend = self.next("rng"), item.get("model", "virtio"), item.find("backend")
        pairs: Pairs = [("rng", f"objrng{number}"), ("id", f"rng{number}")]
        rate = item.find("rate")
        if rate is not None:
            pairs += [("max-bytes", rate.get("bytes")), ("period", rate.get("period", "1000"))]
        kind = backend.get("model", "random") if backend is not None else "random"
        if kind == "random":
            path = (backend.text if backend is not None else "") or "/dev/random"
            self.add(item.line, "-object", join([("id", f"objrng{number}"), ("filename", path)], "rng-random"))
        elif kind == "builtin":
            self.add(item.line, "-object", f"rng-builtin,id=objrng{number}")
        else:
            item.skip()
            self.domain.lost(item.line, f"<rng> with a backend of model '{kind}'")
            return
        self.device(item, f"virtio-rng-pci{model.removeprefix('virtio')}", pairs)

    def _panic(self, item: Item) -> None:
        address, model = item.find("address"), item.get("model", "isa")
        if model == "hyperv":
            return  # a feature of the processors
        if model == "pvpanic":
            self.device(item, "pvpanic-pci", [("id", f"panic{self.next('panic')}")])
        elif model != "isa":
            self.domain.lost(item.line, f"model='{model}' of <panic>")
        else:
            port: Pairs = []
            if address is not None and address.get("type") == "isa" and address.get("iobase"):
                port = [("ioport", int(address.get("iobase"), 0))]
            self.add(item.line, "-device", join(port, "pvpanic"))

    def _watchdog(self, item: Item) -> None:
        model, action = item.get("model", "i6300esb"), item.get("action", "reset")
        if model in ("itco", "diag288"):
            self.domain.lost(item.line, f"model='{model}' of <watchdog>")
            return
        self.device(item, model, [("id", f"watchdog{self.next('watchdog')}")])
        action = {"dump": "pause"}.get(action, action)
        if action != "reset":
            self.add(item.line, "-watchdog-action", action)
