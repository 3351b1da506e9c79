"""The platform that devices are realized on: spaces, memory, clocks, back ends. Devices see it as core.platform."""

from __future__ import annotations

from accel.aio import IoThread
from accel.api import Action, DeviceLock, Notifier
from accel.clock import Clock, HostClock, TimerQueue, VirtualClock
from accel.ram import RamBlock
from accel.run import RunControl
from accel.space import AddressSpace, Region

from vmrun.core.clipboard import Clipboard
from vmrun.core.input import InputRouter
from vmrun.core.interfaces import AcpiEvents
from vmrun.core.object import Object
from vmrun.errors import BackendError, BuildError, about
from vmrun.firmware.parts import present
from vmrun.machine.cpuid import apic_ids
from vmrun.machine.memoryslots import MemorySlots
from vmrun.machine.nodes import Nodes
from vmrun.machine.runstate import CAUSES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from accel.api import IrqSink

    from accel.accelerator import Accelerator
    from vmrun.backends.block.drive import Drive
    from vmrun.backends.chardev.socket import Given
    from vmrun.backends.protocols import CharBackend
    from vmrun.config.sections import MachineData
    from vmrun.core.console import Console, TextReader
    from vmrun.core.keymap import Layout
    from vmrun.core.loop import Loop
    from vmrun.core.object import Device
    from vmrun.core.surface import Scanout
    from vmrun.core.userobject import UserObject

LOW_ROM, MEBIBYTE = 0xC0000, 1 << 20
PAGE = 0xFFF
GENERAL = {"eax": 0, "ecx": 1, "edx": 2, "ebx": 3, "esp": 4, "ebp": 5, "esi": 6, "edi": 7}
SURELY_THERE = 1 << 30  # bytes of memory that no host is asked about


class Board:
    """Everything around the devices. `close` gives it all back, in the opposite order."""

    def __init__(self, config: MachineData, loop: Loop, lock: DeviceLock) -> None:
        self.config, self.loop, self.lock = config, loop, lock
        self.memory_map: dict[str, Any] = {**config["memory-map"]}
        self.ram_size: int = config["memory"]
        self.rtc: dict[str, Any] = {**config.get("rtc", {})}
        self.uuid = str(config.get("uuid") or "00000000-0000-0000-0000-000000000000")
        self.hw_version = str(config.get("hw-version") or "2.5+")
        self.possible_apic_ids = apic_ids(config["cpus"])
        self.processors = present(config["cpus"])
        self.control = RunControl(Notifier())
        self.system_memory = Region.container("system", 0)
        self.system_io = Region.container("io", 0x10000)
        self.memory = AddressSpace("memory", self.system_memory)
        self.io = AddressSpace("io", self.system_io, True)
        self.pci_memory = Region.container("pci", 0)
        self.virtual: Any = VirtualClock()
        self.host: Clock = HostClock()
        self.timers = TimerQueue(self.virtual)
        real = config.get("rtc", {}).get("clock") == "rt"  # the host's time that nobody sets
        self.host_timers = TimerQueue(Clock() if real else self.host)
        self.iothread = IoThread(lock)
        self.iothreads = [self.iothread]  # and those of objects
        self.accelerator: Accelerator = None  # type: ignore[assignment]
        self.ram: RamBlock = None  # type: ignore[assignment]
        self.devices: dict[str, Device] = {}
        self.sinks: dict[str, IrqSink] = {}
        self.flash = False  # whether the firmware is in a flash (cfi.pflash01)
        self.drives: dict[str, Drive] = {}
        self.chardevs: dict[str, CharBackend] = {}
        self.listened: set[str] = set()  # chardevs that monitors have
        self.netdevs: dict[str, Any] = {}
        self.hubs: dict[int, Any] = {}  # vmrun.backends.net.hub.Hub by number
        self.on_drive_error: Callable[..., object] | None = None  # (drive, op, errno, policy), from a worker
        self.fw_cfg_files: dict[str, bytes | bytearray] = {}
        self.option_roms: dict[str, Any] = {}
        self.node_drives: set[str] = set()  # drives without a name of their own: monitors know their nodes and devices
        self.bays: dict[str, Device] = {}  # of these, those of devices that were given no drive
        self.thresholds: Any = None  # vmrun.machine.thresholds
        self.nbd: Any = None  # vmrun.machine.exports
        self.jobs: Any = None  # vmrun.machine.jobs
        self.blocks: Any = None  # named block nodes: vmrun.machine.blocks
        self.objects = Object("objects")  # what -object and object-add made: vmrun.core.userobject
        self.limit_groups: dict[str, Any] = {}  # vmrun.backends.block.limits: drives that share limits
        self.nodes = Nodes(self.objects.children, self.drives)  # of -blockdev and blockdev-add
        self.consoles: list[Console] = []
        self.input = InputRouter(lock)
        self.clipboard = Clipboard()
        self.memory_slots = MemorySlots(self)
        self.ospm_told: Callable[[dict[str, Any]], None] = lambda row: None  # the machine's
        self.typing: list[Any] = []  # chords that monitors want typed (vmrun.monitor.commands.remote)
        self.open_page: Callable[[], str] | None = None  # the address of a page with the screen; its runner sets it
        self.viewers: dict[str, Any] = {}  # servers for remote viewers that run: "vnc:NAME", "page", "window"
        self.reader: Any = None  # of text in pictures (vmrun.core.fonts), once somebody has asked
        self.mux: Any = None
        self.shared: dict[str, Any] = {}  # chardevs with `mux: true`, by id
        self.processor_let_go: Callable[[int], None] = lambda index: None  # likewise
        self.tell: Callable[..., None] = lambda event, **data: None  # likewise
        self.let_go: Callable[[Device], None] = lambda device: None  # the machine's: vmrun.machine.hotplug
        self.on_filters: Callable[[Any], object] | None = None  # the machine's: a card receives something else
        self.balloon_changed: Callable[[Any], None] = lambda device: None  # the machine's
        self.on_stream: Callable[[str, dict[str, str] | None], object] | None = None  # … a netdev's peer came or went
        self.tray_moved: Callable[[Any, bool], None] = lambda device, opened: None  # the machine's: vmrun.machine.media

    @property
    def layout(self) -> Layout:
        """The keyboard layout that the guest is believed to have."""
        from vmrun.machine import keyboards

        return keyboards.load(str(self.config.get("keyboard") or ""))

    def use_clock(self, clock: Any) -> None:
        """The accelerator's own virtual time instead of the host's; before there are devices."""
        self.virtual = clock
        self.timers = TimerQueue(clock)

    # --- memory -----------------------------------------------------------------------------------------

    def lay_out_memory(self, bios: bytes, flash: bool = False) -> None:
        """RAM below and above the PCI hole, the firmware below 4 GiB and again below 1 MiB, the option-ROM area.

        flash: the firmware is in a flash, which shows itself below 4 GiB; the copy below 1 MiB is a ROM all the same.
        """
        layout = self.memory_map
        low, high = int(layout["below-4g"]), int(layout["above-4g"])
        if low + high > SURELY_THERE and self.accelerator.name != "qtest":
            from vmrun.config import files

            most = files.host_memory()
            if low + high > most:
                raise BuildError(
                    files.too_large(low + high, most), code="VR0633", path="memory", remedy=files.LESS_MEMORY
                )
        try:
            self.ram = RamBlock("pc.ram", (low + high + PAGE) & ~PAGE)
        except MemoryError as exc:
            raise BuildError(
                str(exc),
                code="VR0633",
                path="memory",
                remedy="give the machine less `memory:`, or free some of the host's",
            ) from None
        self._back_memory(low + high)
        self.ram_low = Region.ram("pc.ram", self.ram)
        with self.memory.transaction():
            self.system_memory.add(self.pci_memory, 0, -1)
            self.system_memory.add(Region.alias("ram-below-4g", self.ram_low, 0, low), 0)
            if high:
                above = Region.alias("ram-above-4g", self.ram_low, low, high)
                self.system_memory.add(above, int(layout["high-ram"]))
            self._add_firmware(bios, layout, flash)

    def _back_memory(self, size: int) -> None:
        """What `memory-backing` says of the host's side: objects by their ids, or how it shall be in itself."""
        wanted = dict(self.config.get("memory-backing") or {})
        if not wanted:
            return
        ids = wanted.get("memdevs") or ([wanted["memdev"]] if "memdev" in wanted else [])
        with about("memory-backing", "VR0634"):
            if ids:
                parts = [self._memory_object(id) for id in ids]
            else:
                from vmrun.backends.objects import make

                kind = "file" if "mem-path" in wanted else "memfd" if wanted.get("share") else "ram"
                parts = [make({"qom-type": f"memory-backend-{kind}", "id": "pc.ram", "size": size, **wanted})]
                parts[0].complete(self)
            if sum(part.size for part in parts) != size:
                raise BuildError("Machine memory size does not match the size of the memory backend")
            offset = 0
            for part in parts:
                part.lay_under(self.ram, offset, part.size)
                part.users.append("the machine's memory")
                offset += part.size

    def _memory_object(self, id: str) -> Any:
        found = self.user_object(id)
        if not found.driver.startswith("memory-backend-"):
            raise BuildError(f"object '{id}' is no memory backend")
        if found.users:
            raise BuildError(f"memory backend '{id}' is in use")
        return found

    def _add_firmware(self, bios: bytes, layout: dict[str, Any], flash: bool) -> None:
        self.flash = flash
        window = min(int(layout["bios"]["isa-window"]), len(bios))
        if flash:
            bios = bios[-window:]
        self.bios = bios
        block = RamBlock("pc.bios", len(bios))
        block.write(0, bios)
        rom = Region.rom("pc.bios", block)
        if not flash:
            self.pci_memory.add(rom, int(layout["bios"]["end"]) - len(bios), 1)
        shadow = Region.alias("isa-bios", rom, len(bios) - window, window)
        self.pci_memory.add(shadow, MEBIBYTE - window, 1)
        roms = layout["option-roms"]
        self.low_rom_block = RamBlock("pc.rom", int(roms["size"]))
        self.pci_memory.add(Region.rom("pc.rom", self.low_rom_block), int(roms["base"]), 1)

    def load_shadow(self) -> None:
        """At reset: where low ROM is plain RAM, the firmware's tail is copied there and the rest cleared."""
        if not self.memory_map.get("low-rom-ram-backed"):
            return
        window = min(int(self.memory_map["bios"]["isa-window"]), len(self.bios))
        for at, data in ((LOW_ROM, bytes(MEBIBYTE - window - LOW_ROM)), (MEBIBYTE - window, self.bios[-window:])):
            if at < self.ram.size:  # a machine may have less than a MiB
                self.ram.write(at, data[: self.ram.size - at])

    def keep_roms_writable(self) -> None:
        """The option-ROM area is RAM whatever the chipset says. KVM never gets past a far jump whose descriptor lies in
        read-only memory and is not marked accessed, as in the ROMs that start multiboot and PVH kernels.
        """
        roms = self.memory_map["option-roms"]
        base, size = int(roms["base"]), int(roms["size"])
        self.system_memory.add(Region.alias("option-roms-writable", self.ram_low, base, size), base, 2)

    # --- objects of the host's side -----------------------------------------------------------------------

    def add_iothread(self, name: str) -> IoThread:
        thread = IoThread(self.lock, name)
        self.iothreads.append(thread)
        thread.pause()
        thread.start()
        if self.control.running:
            thread.resume()
        return thread

    def remove_iothread(self, thread: IoThread) -> None:
        self.iothreads.remove(thread)
        thread.close()

    def add_object(self, values: dict[str, Any], typed: bool = False) -> UserObject:
        """Make one, of `qom-type`, `id` and its properties. typed: of JSON. BuildError in QEMU's words."""
        from vmrun.backends.objects import make

        made = make(values, typed)
        if made.name in self.objects.children:
            raise BuildError(f"attempt to add duplicate property '{made.name}' to object (type 'container')")
        made.complete(self)
        self.objects.add_child(made)
        return made

    def user_object(self, id: str) -> UserObject:
        """BuildError when there is none."""
        found: Any = self.objects.children.get(id)
        if found is None:
            raise BuildError(f"object '{id}' not found")
        made: UserObject = found
        return made

    def delete_object(self, id: str) -> None:
        """BuildError when somebody holds it, or there is none."""
        made = self.user_object(id)
        if made.in_use():
            raise BuildError(f"object '{id}' is in use, can not be deleted")
        del self.objects.children[id]
        made.release()

    # --- what devices ask for -----------------------------------------------------------------------------

    def device(self, id: str) -> Device:
        found = self.devices.get(id)
        if found is None:
            raise BuildError(f"there is no device '{id}'")
        return found

    def add_output_sink(self, name: str, sink: IrqSink) -> None:
        self.sinks[name] = sink

    def drive(self, id: str) -> Drive:
        if id not in self.drives:
            from vmrun.backends.block import open_drive

            spec = self.config["drives"].get(id)
            if spec is None:
                raise BuildError(f"there is no drive '{id}'")
            if "node-name" in spec and id not in self.nodes.roots and self.nodes.taken(spec["node-name"]):
                raise BuildError(f"Duplicate nodes with node-name='{spec['node-name']}'")
            with about(f"drives.{id}"):
                node, objects = self._node(id, spec), self.objects.children
                self.drives[id] = open_drive(id, spec, self.lock, node, self.limit_groups, objects)
            self.drives[id].on_error = self._drive_failed
            root: Any = self.drives[id].node
            if root is not None and "node-name" in spec:
                root.name = spec["node-name"]
        return self.drives[id]

    def bay(self, device: Device) -> Drive:
        """An empty drive for a device that was given none; monitors put media into it."""
        from vmrun.backends.block.drive import Drive

        name = str(device.id)
        while name in self.drives or name in self.config["drives"]:
            name += "-bay"
        self.bays[name] = device
        self.node_drives.add(name)
        drive = self.drives[name] = Drive(name, None, self.lock)
        drive.on_error = self._drive_failed
        return drive

    def close_bay(self, device: Device, filled: bool = True) -> None:
        """The device is gone. filled: with a medium too; then without the device lock."""
        found = [name for name, one in self.bays.items() if one is device]
        for name in found if filled else [name for name in found if self.drives[name].node is None]:
            del self.bays[name]
            self.node_drives.discard(name)
            self.drives.pop(name).close()

    def _node(self, id: str, spec: dict[str, Any]) -> Any:
        """The node that a drive of its name shows, None for a drive with an image of its own."""
        node: Any = self.nodes.root(id)
        mine = node is not None
        if node is None and (node := self.nodes.held(id)) is not None:
            self.node_drives.add(id)
        if node is not None and not spec.get("readonly") and spec.get("media") != "cdrom":
            try:
                writable(node)
            except BuildError as error:
                node.close()
                raise BackendError(f"drive {id}: {error.problems[0].message}", remedy=error.remedy) from None
        if mine and spec.get("copy-on-read") and not node.readonly:
            from vmrun.backends.block.tap import CopyOnReadNode

            node = CopyOnReadNode(node)
        return node

    def _drive_failed(self, *what: Any) -> None:
        if self.on_drive_error is not None:
            self.on_drive_error(*what)

    def chardev(self, id: str, *, many: bool = False, given: Given | None = None) -> CharBackend:
        """The chardev of that id; of one with `mux: true` a port of its own for each who asks. many: whoever asks can
        serve any number of clients of a server socket; given: that socket, where there is one already.
        """
        spec = self.config["chardevs"].get(id)
        if spec is None:
            raise BuildError(f"there is no chardev '{id}'")
        if spec.get("mux"):
            return self._port(id, spec)
        if id not in self.chardevs:
            from vmrun.backends.chardev import open_chardev

            with about(f"chardevs.{id}"):
                self.chardevs[id] = open_chardev(
                    id, spec, self.loop, self.lock, self.mux, self.tls(spec), many=many, given=given
                )
            self._show(self.chardevs[id])
        return self.chardevs[id]

    def _show(self, chardev: Any) -> None:
        """A terminal is a screen of the machine's, behind those of its adapters."""
        if hasattr(chardev, "typed"):
            from vmrun.core.textconsole import TextConsole

            console = TextConsole(chardev.name, chardev.terminal, chardev.typed, self.accelerator, self._font)
            self.consoles.append(console)
            order = list(self.config["chardevs"])
            self.consoles.sort(key=lambda each: order.index(each.name) if isinstance(each, TextConsole) else -1)
            chardev.on_close = lambda: self.remove_console(console)

    def _font(self) -> bytes:
        from vmrun.firmware import images

        try:
            return images.load_rom("vgabios-stdvga.bin", self.config["firmware"].get("dirs", ())).data
        except BuildError:
            return b""

    def chardev_spec(self, id: str) -> dict[str, Any] | None:
        spec: dict[str, Any] | None = self.config["chardevs"].get(id)
        self.listened.add(id)
        return spec

    def watch_descriptor(self, fd: int, ready: Callable[[], None] | None) -> None:
        if ready is None:
            self.loop.remove_fd(fd)
        else:
            self.loop.add_fd(fd, ready)

    def netdev(self, id: str) -> Any:
        """The network back end of that id (vmrun.backends.net.base.HostNet), opened when it is asked for first."""
        if id not in self.netdevs:
            from vmrun.backends.net import open_netdev

            spec = self.config["netdevs"].get(id)
            if spec is None:
                raise BuildError(f"there is no netdev '{id}'")
            with about(f"netdevs.{id}"):
                self.netdevs[id] = open_netdev(id, spec, self)
        return self.netdevs[id]

    def tls(self, spec: dict[str, Any]) -> Any:
        """The context that the object of `tls-creds` has; None where none is asked for. BuildError."""
        id = spec.get("tls-creds")
        if not id:
            return None
        made: Any = self.objects.children.get(str(id))
        if made is None or not hasattr(made, "context"):
            raise BuildError(f"No TLS credentials with id '{id}'")
        wanted = "server" if spec.get("server") else "client"
        if made.endpoint != wanted:
            raise BuildError(f"Expecting TLS credentials with a {wanted} endpoint")
        authz = str(spec.get("tls-authz") or "")
        if not authz or wanted == "client" or made.driver == "tls-creds-anon":
            return made.context
        from vmrun.backends.objects.tls import Asked

        def allows(name: str) -> bool:
            """By the object as it is now; nobody is let in by one that is gone."""
            rule: Any = self.objects.children.get(authz)
            return hasattr(rule, "allows") and bool(rule.allows(name))

        return Asked(made.context, allows)

    def _port(self, id: str, spec: dict[str, Any]) -> CharBackend:
        if id not in self.shared:
            from vmrun.backends.chardev.mux import shared

            on_terminal = spec["type"] == "stdio" and self.mux is not None
            self.shared[id] = (
                self.mux if on_terminal else shared(id, spec, self.loop, self.lock, self.mux, self.tls(spec))
            )
            if spec.get("logfile"):
                from vmrun.backends.chardev import log

                log(self.shared[id], spec["logfile"], bool(spec.get("logappend")))
            self._show(self.shared[id])
        port: CharBackend = self.shared[id].add_port(id)
        self.chardevs.setdefault(id, port)
        return port

    def awaited(self) -> Iterator[Any]:
        """Server sockets whose first client the machine waits for."""
        for id, chardev in self.chardevs.items():
            found = self.shared.get(id, chardev)
            if getattr(found, "must_wait", False):
                yield found

    def add_fw_cfg_file(self, name: str, data: bytes | bytearray) -> None:
        self.fw_cfg_files[name] = data

    def writes_to_fw_cfg(self) -> bool:
        from vmrun.firmware import fwcfg

        return fwcfg.has_dma(self.config)

    def acpi_event(self, bits: int) -> None:
        for device in self.devices.values():
            if isinstance(device, AcpiEvents):
                device.acpi_event(bits)

    def add_option_rom(self, file: str) -> bytes:
        from vmrun.firmware import images

        image = images.load_rom(file, self.config["firmware"].get("dirs", ()))
        self.option_roms[file] = image
        return image.data

    def add_console(
        self, device: Device, scanout: Scanout, head: int = 0, text: TextReader | None = None
    ) -> Console:
        from vmrun.core.console import Console

        console = Console(device, scanout, self.accelerator, head, text)
        screens = sum(each.device is not None for each in self.consoles)
        self.consoles.insert(screens, console)
        return console

    def remove_console(self, console: Console) -> None:
        console.close()
        self.consoles.remove(console)

    def filters_changed(self, device: Any) -> None:
        if self.on_filters is not None:
            self.on_filters(device)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.loop.call_soon(callback)

    def request(self, action: int, **details: Any) -> None:
        self.control.ask(action)

    def cpu_registers(self) -> Registers | None:
        return Registers(self.control) if self.control.accessing else None

    def want_registers(self) -> None:
        self.accelerator.want_registers()

    def inject_nmi(self) -> None:
        pin = self.accelerator.cpu_input("nmi")
        pin.drive(0, 1)
        pin.drive(0, 0)

    def wakeup(self, reason: str) -> None:
        self.control.ask(Action.WAKEUP, CAUSES.index(reason))

    # --- the end ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Images are flushed, terminals restored. The host has the guest's memory back, whoever still knows the
        machine; it may be garbage for long. OSError, when all is closed: a flush failed.
        """
        for thread in self.iothreads:
            thread.close()
        for netdev in self.netdevs.values():
            netdev.close()
        self.netdevs.clear()
        failed: OSError | None = None
        for id, drive in self.drives.items():
            _let_go(getattr(drive, "node", None))
            try:
                drive.close()
            except OSError as error:  # the other images are closed, too
                said = f"drive {id}: what was written last may not be in its image: {error.strerror}"
                failed = failed or OSError(error.errno, said)
        self.drives.clear()
        self.nodes.close()
        if self.thresholds is not None:
            self.thresholds.close()
        for chardev in (*self.shared.values(), *self.chardevs.values()):
            if chardev is not self.mux:
                chardev.close()
        self.chardevs.clear()
        self.shared.clear()
        made: Any
        for made in self.objects.children.values():
            made.release()
        self.objects.children.clear()
        for block in (self.ram, *(block for device in self.devices.values() for block in device.ram_blocks)):
            if block is not None:  # it may never have come so far
                block.give_back()
        if failed is not None:
            raise failed


def writable(node: Any) -> None:
    """A node that was opened for reading until a device that writes has it. BuildError."""
    from vmrun.backends.block.errors import ImageError
    from vmrun.backends.block.reopening import reopen

    if node.lazy:
        try:
            reopen(node, False)
        except ImageError as error:
            raise BuildError(error.text, remedy=error.remedy) from None


def _let_go(node: Any) -> None:
    """Requests that a breakpoint of blkdebug holds would never end."""
    if node is not None:
        if str(node.driver) == "blkdebug":
            node.let_all_go()
        for _, child in node.children():
            _let_go(child)


class Registers:
    """The low halves of the general registers of the processor whose access is being dispatched."""

    def __init__(self, control: RunControl) -> None:
        self.control = control

    def __getitem__(self, name: str) -> int:
        return int(self.control.register(GENERAL[name])) & 0xFFFFFFFF

    def __setitem__(self, name: str, value: int) -> None:
        self.control.put_register(GENERAL[name], value & 0xFFFFFFFF)
