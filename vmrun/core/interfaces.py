"""What a device can be beside a device: whoever needs one of these asks for the class, not for a method's name.

    for button in machine.all(PowerButton): button.powerdown()

A device declares it by deriving from it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from accel.aio import IoThread

    from vmrun.core.platform import Platform


class PowerButton:
    """The user's finger on it. The device lock is held."""

    def powerdown(self) -> None:
        raise NotImplementedError


class ThreadOwner:
    """An object with an I/O thread that devices may have to themselves; `users` names them."""

    thread: IoThread
    users: list[str]


class ProcessorSlots:
    """Tells the guest of processors that come and go while it runs. The device lock is held."""

    def processor_plugged(self, index: int) -> None:
        """Number `index` of those that there can be is there now."""
        raise NotImplementedError

    def processor_gone(self, index: int) -> None:
        """It is not there any more."""
        raise NotImplementedError

    def ask_processor(self, index: int) -> bool:
        """Ask the guest to let go of one; platform.processor_let_go() follows when it does. False: it cannot be."""
        raise NotImplementedError


class AcpiEvents:
    """Has the general-purpose events that the firmware's tables name. The device lock is held."""

    def acpi_event(self, bits: int) -> None:
        """These bits of the status are set now, and the guest hears of it."""
        raise NotImplementedError


class MemoryModule:
    """Memory that is plugged in: its `address` and `size`, `slot_number` and `node`; `hotplug` is the controller that
    tells of it.
    """

    id: Any
    address: int
    size: int
    slot_number: int
    node: int
    alignment: int  # of its address, in bytes
    hotplug: Any

    def memory_info(self) -> dict[str, Any]:
        """A row of query-memory-devices."""
        raise NotImplementedError


class PersistentModule(MemoryModule):
    """One that keeps its content: with a label area of `label_size` bytes, which the guest reaches by methods alone.
    `unarmed`: it does not keep what is written.
    """

    label_size: int
    unarmed: bool

    def read_label(self, offset: int, length: int) -> bytes:
        raise NotImplementedError

    def write_label(self, offset: int, data: bytes) -> None:
        raise NotImplementedError


class TrustedModule:
    """A TPM: `version` 1 or 2."""

    version: int

    def module(self) -> dict[str, Any]:
        """A row of query-tpm."""
        raise NotImplementedError


class Generation:
    """Tells a guest that it is a copy: `generation` is a UUID that no other run of the machine has."""

    generation: str


class CoreInfo:
    """Where a guest says what tools need to read a dump of it."""

    def note(self) -> tuple[int, int] | None:
        """(address, bytes) of an ELF note in guest memory; None when the guest has said nothing usable."""
        raise NotImplementedError


class Sleeper:
    """Takes part in S3. The device lock is held."""

    # It has power while the machine sleeps, and so is not reset on waking.
    suspend_well = False

    def sleep(self) -> None:
        """The machine falls asleep."""

    def awaken(self, reset: Callable[[], None]) -> None:
        """The machine wakes. `reset`: the device's own, for what had no power meanwhile."""
        if not self.suspend_well:
            reset()


class Waker(Sleeper):
    """Decides what ends a sleep: rtc, pmtimer, other."""

    def wakes(self, reason: str) -> bool:
        raise NotImplementedError

    def woken(self, reason: str) -> None:
        raise NotImplementedError


class GuestExit:
    """Ends vmrun with a code of the guest's choice (Action.EXIT)."""

    exit_code: int | None = None


class Coalesced:
    """Has zones whose writes may come late, as long as they come in order: (`memory` or `io`, address, size)."""

    coalesced: tuple[tuple[str, int, int], ...] = ()


class BusOwner:
    """Provides buses: called before realize, it puts them into `buses` by the names of the machine file."""

    def make_buses(self, names: list[str], platform: Platform) -> None:
        raise NotImplementedError


class PciFunction:
    """Answers in configuration space: `devfn` is its slot and function, `config` the space, `bars` its windows."""

    driver: str
    parent_bus: Any
    devfn: int
    config: Any
    bars: dict[int, Any]


class DiskGeometry:
    """A disk that tells cylinders, heads and sectors; `backend` is its medium."""

    backend: Any

    def geometry(self) -> tuple[int, int, int]:
        raise NotImplementedError


class Removable:
    """A drive whose medium goes in and out through a tray; `drive` is the id of its back end.

    The device lock is held.
    """

    id: Any
    drive: Any
    path: Any
    removable = True  # False: this one is none after all (RHEL 6's ide-drive with a disk)
    has_tray = True  # False: a disk is just pulled out, and nobody is told of a tray
    reads_only = False  # True: its media are discs

    @property
    def tray_is_open(self) -> bool:
        raise NotImplementedError

    def open_tray(self, force: bool) -> tuple[bool, bool]:
        """(whether it opened now, whether the guest holds it closed; it is told then)"""
        raise NotImplementedError

    def close_tray(self) -> bool:
        """Whether it closed now; the guest is told of the medium."""
        raise NotImplementedError


class NetworkCard:
    """Has a station address and a cable: `netdev` is the id of the host's side. The device lock is held."""

    netdev: Any
    address: bytes  # six bytes
    tells_filters = False  # whether query-rx-filter knows it

    def set_link(self, up: bool) -> None:
        """The cable is plugged in or pulled."""
        raise NotImplementedError

    def filters(self) -> dict[str, Any]:
        """What it receives, of cards with `tells_filters`: promiscuous, unicast and multicast (none, normal, all),
        broadcast, unicasts and multicasts (lists of six bytes), their overflows, vlans (numbers; None: all).
        """
        raise NotImplementedError

    def announce(self) -> bool:
        """Ask the guest to announce itself. False: it cannot be asked, so that somebody else does it."""
        return False

    def current_address(self) -> bytes:
        """The address that the guest has given it."""
        return self.address
