"""The one builder: a resolved machine in, a Machine that is ready to run out.

It knows no chip. What is on the board, where, and how it is wired stands in the resolved machine; the builder makes the
objects, gives them their properties, realizes them in order, connects the wires, creates the processors and lets the
firmware's data be filled in. A failure takes everything back.
"""

from __future__ import annotations

from accel.api import IrqFan
from accel.errands import ErrandLock
from accel.space import Region

from accel.errors import AccelFailure
from vmrun.core.interfaces import Coalesced
from vmrun.core.loop import Loop
from vmrun.core.values import seconds
from vmrun.errors import AccelError, BuildError, about
from vmrun.machine import processor
from vmrun.machine.accelerators import choose
from vmrun.machine.assembly import Assembly
from vmrun.machine.board import Board
from vmrun.machine.machine import Machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from vmrun.config.sections import MachineData
    from vmrun.machine.direct import DirectBoot

GSIS = 24
CPU_PINS = ("intr", "nmi", "smi", "a20")


def build(
    config: MachineData,
    *,
    accel: list[str] | None = None,
    mux: Any = None,
    drives: dict[str, Any] | None = None,
    cpuid: dict[int, Any] | None = None,
    bios: Any = None,
    objects: Sequence[dict[str, Any]] = (),
    blockdevs: Sequence[dict[str, Any]] = (),
    board: Board | None = None,
) -> Machine:
    """`config`: ResolvedMachine.data. `accel` replaces the machine's list. `mux`: makes the shared terminal, called
    as mux(loop, lock). `drives`: back ends that are open already. `cpuid`: that of the processors of a machine which
    goes on; StateError when the host lacks a feature of it. `bios`: a firmware (vmrun.firmware.images.Image) in place
    of the machine's. `objects`: of the host's side (vmrun.core.userobject), made before there is memory. `blockdevs`:
    nodes with names (vmrun.machine.nodes), opened before there are drives. `board`: one with back ends and nothing else
    (vmrun.machine.preconfig), which stays its owner's when this fails.

    Raises BuildError, BackendError, AccelError; nothing is left open then.
    """
    undo: list[Callable[[], object]] = []
    if board is None:
        lock = ErrandLock()
        loop = Loop(lock)
        board = Board(config, loop, lock)
        undo += [loop.close, board.close]
    board.drives.update(drives or {})
    try:
        if mux is not None:
            board.mux = mux(board.loop, board.lock)
            undo.append(board.mux.close)
        return _Builder(config, board, undo, cpuid, objects, blockdevs).build(accel or config["accel"], bios)
    except BaseException as exc:
        for step in reversed(undo):
            try:
                step()
            except Exception as fault:  # what went wrong first is what the user shall read
                exc.add_note(f"while taking it back: {fault!r}")
        if isinstance(exc, AccelFailure):
            raise AccelError(str(exc), remedy=exc.remedy) from exc
        raise


# what block nodes name
FOR_NODES = ("throttle-group", "secret", "tls-creds-x509", "tls-creds-anon")


class _Builder:
    def __init__(
        self,
        config: MachineData,
        board: Board,
        undo: list[Callable[[], object]],
        cpuid: dict[int, Any] | None,
        objects: Sequence[dict[str, Any]],
        blockdevs: Sequence[dict[str, Any]],
    ) -> None:
        self.objects, self.blockdevs = objects, blockdevs
        self.config, self.board, self.undo, self.saved_cpuid = config, board, undo, cpuid
        self.cpuid: dict[int, list[dict[str, int]]] = {}
        self.assembly = Assembly(board)
        self.direct: DirectBoot | None = None

    def build(self, accel: list[str], bios: Any = None) -> Machine:
        from vmrun import firmware

        board, config = self.board, self.config
        early = [wanted for wanted in self.objects if wanted.get("qom-type") in FOR_NODES]
        for wanted in early:
            with about(f"objects.{wanted.get('id')}"):
                board.add_object(wanted)
        for options in self.blockdevs:
            board.nodes.begin(options)
        without = config["firmware"]["bios"] == firmware.NO_FIRMWARE
        flash = firmware.parts.flash(config)
        image = bios or (None if without or flash else firmware.images.load_bios_image(config))
        if flash and image is None:
            image = firmware.images.of_flash(str(config["drives"][flash].get("file")), board.drive(flash))
        kvm = config["memory-map"].get("kvm", {})
        options = {
            "kernel_irqchip": config.get("kernel_irqchip", "on"),
            "translate": config.get("translate"),
            "thread": config.get("thread"),
            "clock": config.get("clock", {}).get("mode"),
            "shift": config.get("clock", {}).get("shift"),
            "sleep": config.get("clock", {}).get("sleep"),
            "started": seconds(config["rtc"]["base"]) if "clock" in config else None,
            "tss": kvm.get("tss"),
            "identity_map": kvm.get("identity-map"),
            "kvmclock": bool(config["cpus"].get("kvmclock", True)),
        }
        choice = choose(accel, board, {name: value for name, value in options.items() if value is not None})
        board.accelerator = choice.accelerator
        self.undo.append(choice.accelerator.close)
        if choice.accelerator.clock is not None:
            board.use_clock(choice.accelerator.clock)
        if choice.accelerator.own_apic:
            from vmrun.machine import apics

            self.assembly.apic_system = apics.apic_system()
            choice.accelerator.set_message_bus(self.assembly.apic_system.bus)
        for id, values in config.get("objects", {}).items():
            rest = {name: value for name, value in values.items() if name != "type"}
            with about(f"objects.{id}", "VR0635", BuildError):
                board.add_object({"qom-type": values["type"], "id": id, **rest})
        for wanted in self.objects:
            if wanted not in early:
                with about(f"objects.{wanted.get('id')}"):
                    board.add_object(wanted)
        if image is None:
            from vmrun.machine.direct import DirectBoot

            self.direct = DirectBoot(config, self._kvm_pages())
            image = firmware.images.Image(firmware.NO_FIRMWARE, "", self.direct.rom)
        with board.lock:
            with board.memory.transaction(), board.io.transaction():
                board.lay_out_memory(image.data, bool(flash))
                for addr, size, io in choice.accelerator.memory_regions:
                    board.system_memory.add(Region.device(io.name, io, size), addr, 1)
                self._create_devices()
            self._connect()
        for id in config["netdevs"]:
            board.netdev(id)  # one that no card has yet, too: it listens, and a card may be plugged
        missing = self._create_processors()
        machine = Machine(config, board, self.assembly, choice)
        machine.missing_features = missing
        machine.cpuid = self.cpuid
        machine.bios = image
        machine.direct = self.direct
        if self.blockdevs:
            from vmrun.machine.blocks import blocks

            blocks(machine).offer_rest()
        self._fill_firmware(machine, firmware)
        from vmrun.firmware.romspace import refuse_roms

        own = {name.rpartition("/")[2]: image for name, image in machine.firmware.roms.items()}
        refuse_roms(config, {**own, **board.option_roms})
        for device in machine.all(Coalesced):
            for space, addr, size in device.coalesced:
                zone = board.memory if space == "memory" else board.io
                board.accelerator.add_coalesced(zone, addr, size)
        if not board.accelerator.run_timers(board.timers):
            board.iothread.add_timers(board.timers)
        board.iothread.add_timers(board.host_timers)
        machine.attach_loop()
        machine.cold_reset()
        return machine

    # --- devices ----------------------------------------------------------------------------------------

    def _kvm_pages(self) -> bool:
        """Whether the guest is told of the pages that KVM takes: on each accelerator of a list that names KVM, so
        that a machine is the same on all of them.
        """
        name, listed = self.board.accelerator.name, self.config["accel"]
        return name == "kvm" or (name in listed and "kvm" in listed)

    def _create_devices(self) -> None:
        for entry in self.config["devices"]:
            with about(f"devices.{entry['id']}", "VR0410", BuildError):
                device = self.assembly.create(entry)
            self.undo.append(device.unrealize)

    def _connect(self) -> None:
        wiring = self.assembly.wiring
        wiring.fans["gsi"] = IrqFan("gsi", GSIS)
        for pin in CPU_PINS:
            wiring.sinks[f"cpus.{pin}"] = self.board.accelerator.cpu_input(pin)
        wiring.sinks.update(self.board.sinks)
        wiring.connect_all([(source, target) for source, target in self.config["wires"]])

    # --- processors and firmware ----------------------------------------------------------------------------

    def _create_processors(self) -> list[str]:
        """A thread for each, created and waiting. Returns the features that the host lacks."""
        from vmrun.firmware.parts import place_index, processor_of
        from vmrun.machine.cpuid import make_cpuid

        accelerator, cpus = self.board.accelerator, self.config["cpus"]
        host = accelerator.supported_cpuid()
        missing: list[str] = []
        plugged = {place_index(row, cpus): str(row["id"]) for row in cpus.get("plugged", ())}
        for index in self.board.processors:
            apic_id = self.board.possible_apic_ids[index]
            cpuid = make_cpuid(
                cpus, cpus["model-data"], apic_id, host, kernel_apic=accelerator.has_local_apic
            )
            entries = cpuid.entries
            if self.saved_cpuid is not None and index in self.saved_cpuid:
                from vmrun.machine import crossing

                entries = crossing.same_cpuid(
                    self.saved_cpuid[index], index, entries, any_layout=accelerator.name == "soft"
                )
            self.cpuid[index] = entries
            if not index:
                missing = cpuid.missing
                self.processor = processor_of(entries)
                if self.direct is not None:
                    self.direct.prepare(entries)
            id, system = plugged.get(index, ""), self.assembly.apic_system
            processor.create(self.board, self.assembly, index, entries, id=id, system=system)
        return missing

    def _fill_firmware(self, machine: Machine, firmware: Any) -> None:
        from vmrun.config.cache import kept

        by_driver = {device.driver: device for device in self.board.devices.values()}
        fw_cfg, rtc = by_driver.get("fw_cfg_io"), by_driver.get("mc146818rtc")
        if fw_cfg is None or rtc is None:
            raise BuildError(
                "a PC needs a fw_cfg_io and an mc146818rtc for its firmware", code="VR0408", path="remove"
            )
        machine.firmware = firmware.prepare(
            self.board,
            fw_cfg,
            rtc,
            self.config,
            kvm=self._kvm_pages(),
            files=self.board.fw_cfg_files,
            disk_size=lambda id: int(self.board.drive(id).size),
            processor=self.processor,
            kept=lambda of, make: kept("acpi", of, "../firmware", make),
        )
        boot = machine.firmware.boot
        if boot is not None and boot.jumps_in_rom and self.board.accelerator.name == "kvm":
            with self.board.lock:
                self.board.keep_roms_writable()
