"""What a device is handed at realize: the machine around it, without knowing the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from accel.aio import IoThread
    from accel.api import DeviceLock, IrqSink
    from accel.clock import Clock, TimerQueue
    from accel.run import IntAck, MsiSink
    from accel.space import AddressSpace, Region

    from vmrun.core.console import Console, TextReader
    from vmrun.core.input import InputRouter
    from vmrun.core.object import Device
    from vmrun.core.surface import Scanout


class InterruptHost(Protocol):
    """What devices see of the accelerator."""

    name: str
    in_kernel: frozenset[str]       # drivers of interrupt controllers and timers that it has inside
    irqchip: Any                    # the chip inside (accel.kvm.irq), where there is one
    doorbells: bool                 # guests' writes to a region's doorbells signal their notifiers, without an exit

    def msi_sink(self) -> MsiSink:
        """Takes message-signalled interrupts without the GIL."""

    def set_int_ack(self, source: IntAck) -> None:
        """Who answers the interrupt acknowledge cycle."""

    def set_eoi_handler(self, sink: IrqSink) -> None:
        """sink.set_irq(vector, 1) for each broadcast end of interrupt."""


class Platform(Protocol):
    """Lives as long as the machine. Everything here is used with the device lock held."""

    lock: DeviceLock
    memory: AddressSpace            # system memory: what processors and bus masters see
    io: AddressSpace                # 64 KiB of ports
    system_memory: Region           # root container of `memory`
    system_io: Region               # root container of `io`
    pci_memory: Region              # the 4 GiB-wide container that PCI memory BARs live in, below RAM in priority
    ram_low: Region                 # RAM from address 0 up (the part below 4 GiB), as one Region
    ram_size: int                   # bytes, all of it
    memory_map: dict[str, Any]      # the machine type's memory-map
    low_rom_block: Any              # RamBlock behind the option-ROM area and the BIOS window (pc.rom)
    virtual: Clock                  # stops with the machine
    host: Clock                     # wall clock, ns since 1970 UTC
    iothread: IoThread              # descriptors, kicks and completions without the GIL; it runs the timers too
    timers: TimerQueue              # on `virtual`
    host_timers: TimerQueue         # on `host`; with `rtc: {clock: rt}` on a clock that nobody sets
    processors: list[int]           # which of those that there can be are there, by number, ascending
    possible_apic_ids: list[int]    # of all that there can be
    limit_groups: dict[str, Any]    # vmrun.backends.block.limits.LimitGroup by name
    input: InputRouter              # where keyboards, mice and tablets take the user's events from
    rtc: dict[str, Any]             # the machine file's `rtc`: base, clock, driftfix
    uuid: str                       # the machine's, all zeros when it was given none
    hw_version: str                 # what disks of this machine type say their firmware is

    @property
    def accelerator(self) -> InterruptHost:
        """Whoever delivers interrupts to the processors."""

    def device(self, id: str) -> Device:
        """Another device by id (link properties). BuildError when there is none."""

    def add_output_sink(self, name: str, sink: IrqSink) -> None:
        """Offer an input under a board-wide name (`gsi`, `cpus.intr`)."""

    def drive(self, id: str) -> Any:
        """The block back end of a drive (vmrun.backends.protocols.BlockBackend). BuildError when there is none."""

    def bay(self, device: Device) -> Any:
        """The block back end of a removable drive that was given none: empty until a monitor puts a medium in."""

    def user_object(self, id: str) -> Any:
        """The object of the host's side of that id (vmrun.core.userobject). BuildError when there is none."""

    def chardev(self, id: str) -> Any:
        """The character back end (vmrun.backends.protocols.CharBackend)."""

    def chardev_spec(self, id: str) -> dict[str, Any] | None:
        """What a chardev shall be, for an object that opens it itself."""

    def watch_descriptor(self, fd: int, ready: Callable[[], None] | None) -> None:
        """ready() on the main thread, without the device lock, while `fd` can be read; None ends it."""

    def add_iothread(self, name: str) -> IoThread:
        """One more, for devices that shall have it to themselves. It stands still while the machine does."""

    def remove_iothread(self, thread: IoThread) -> None:
        """Nobody uses it any more."""

    def netdev(self, id: str) -> Any:
        """The network back end of that id (vmrun.backends.protocols.NetBackend). BuildError when there is none."""

    def add_fw_cfg_file(self, name: str, data: bytes | bytearray) -> None:
        """A file that the firmware shall find (etc/pvpanic-port). The guest can write to a bytearray, where the machine
        type's firmware interface has DMA (`writes_to_fw_cfg`).
        """

    def writes_to_fw_cfg(self) -> bool:
        """Whether the guest can write to files."""

    memory_slots: Any               # who is where in the range kept free for modules (vmrun.machine.memoryslots)

    def ospm_told(self, row: dict[str, Any]) -> None:
        """The guest said what became of something that ACPI told it of; any thread, the device lock is held."""

    def acpi_event(self, bits: int) -> None:
        """Set these bits of the general-purpose events' status; nothing comes of it on a board without them."""

    def add_option_rom(self, file: str) -> bytes:
        """Contents of a ROM file found in the firmware directories. BuildError names where it was looked for."""

    def add_console(
        self, device: Device, scanout: Scanout, head: int = 0, text: TextReader | None = None
    ) -> Console:
        """A screen of the machine, that `scanout` draws and `text` reads."""

    def remove_console(self, console: Console) -> None:
        """The adapter goes; its viewers keep the last picture."""

    def let_go(self, device: Device) -> None:
        """The guest let go of a device that it was asked for: take it out of the machine."""

    def processor_let_go(self, index: int) -> None:
        """The guest let go of a processor, the last of those that are there: take it out of the machine."""

    def filters_changed(self, device: Any) -> None:
        """What a network card receives is another now."""

    def balloon_changed(self, device: Any) -> None:
        """The guest gave memory back, or took some again. On a processor's thread."""

    def tray_moved(self, device: Any, opened: bool) -> None:
        """The guest has moved a drive's tray; any thread, the device lock is held."""

    def tell(self, event: str, /, **data: Any) -> None:
        """An event for monitors, by QEMU's name; any thread, the device lock may be held."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run on the main thread, without the device lock."""

    def want_registers(self) -> None:
        """At realize, of a device that uses cpu_registers: an accelerator can make that cheap."""

    def cpu_registers(self) -> Any:
        """registers[name], name eax … edi, to read and to write, of the processor whose access this is; None when no
        processor makes it.
        """

    def inject_nmi(self) -> None:
        """Pin NMI of the first processor, for a moment."""

    def wakeup(self, reason: str) -> None:
        """Something that may end S3 happened: "rtc", "pmtimer" or "other". Nothing comes of it at other times."""

    def request(self, action: int, **details: Any) -> None:
        """Ask for an Action (reset, shutdown, …) from outside an access, e.g. a timer."""
