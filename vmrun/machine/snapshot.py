"""A stopped machine into a file, and a machine out of it that goes on where that one stopped.

    work = outgoing(machine, path); …          # the machine is in finish-migrate; may run on another thread
    machine = restore(path)                    # a new process: built from the file alone
    load(machine, reader)                      # or into a machine that was built from the same description

The order of the file is that of loading: what machine it is and its clocks, memory, devices, processors. Devices whose
lines others watch come before those that watch them (`controls_interrupts`). All states are looked at before the first
is taken.

A machine is built as the saved one was, without what went since; then the devices and processors that came while it ran
come again. One that was built with all of them (as libvirt does) is as good.

Not saved: what is the host's (images, sockets, terminals).
"""

from __future__ import annotations

import hashlib

from vmrun.errors import BuildError, StateError, VmrunError
from vmrun.firmware.parts import present
from vmrun.machine import crossing, hotplug, runstate
from vmrun.machine.snapfile import PIECE, Reader, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from accel.ram import RamBlock

    from vmrun.config.sections import MachineData
    from vmrun.core.object import Device
    from vmrun.machine.machine import Machine

FORMAT = 1
# entries of the resolved machine that say where the host has things; they may differ where a machine goes on
BACKENDS = ("drive", "chardev", "netdev")
HOSTS = (
    "accel", "drives", "chardevs", "monitors", "netdevs", "paused", "name", "kernel", "initrd", "cmdline",
    "memory-backing", "objects", "on", "translate", "thread",
)  # fmt: skip


def blocks(machine: Machine) -> dict[str, RamBlock]:
    """All memory that a guest can change, by name."""
    board = machine.board
    found = {board.ram.name: board.ram}
    if machine.firmware is not None:
        found["pc.rom"] = board.low_rom_block
    for id, device in board.devices.items():
        for block in device.ram_blocks:
            found[f"{id}:{block.name}"] = block
    return found


def firmware(machine: Machine) -> dict[str, str]:
    """SHA-256 of each image that the guest has as ROM."""
    images = {} if machine.board.flash else {"bios": machine.bios.data}  # a flash is memory of its device
    images |= {name: image.data for name, image in machine.board.option_roms.items()}
    return {name: hashlib.sha256(data).hexdigest() for name, data in images.items()}


# --- out ------------------------------------------------------------------------------------------------------


class Outgoing:
    """What a machine that stands still is, taken at once; memory is read by `write`, which may take its time."""

    def __init__(self, machine: Machine, state: str) -> None:
        """`state`: the run state to go on in. StateError when the machine cannot be saved."""
        self.machine = machine
        if runstate.mode(machine.state) != runstate.STILL:
            raise StateError(f"a machine that is '{machine.state}' cannot be saved; pause it first")
        self._settle()
        board = machine.board
        with board.lock:
            self.blocks = blocks(machine)
            devices = {id: {"driver": d.driver, "state": d.save()} for id, d in board.devices.items()}
        processors = [_processor(machine, index) for index in board.processors]
        self.state = {"devices": devices, "processors": processors}
        self.manifest = {
            "format": FORMAT,
            "machine": {**machine.config, "devices": hotplug.lasting(machine), "cpus": machine.built["cpus"]},
            "now": hotplug.what_became(machine),
            "firmware": firmware(machine),
            "accelerator": machine.accelerator.name,
            "cpuid": [machine.cpuid[index] for index in board.processors if index in machine.cpuid],
            "run": {"state": state, "asleep": machine.asleep, "resets": machine.resets},
            "clocks": {"virtual": board.virtual.time(), "guest": machine.accelerator.get_clock()},
            "blocks": [{"name": name, "size": block.size} for name, block in self.blocks.items()],
        }

    def _settle(self) -> None:
        """No request of a disk under way, no timer due: what happens next happens in the machine that goes on."""
        machine = self.machine
        board = machine.board
        for id, device in board.devices.items():
            if not device.realized:
                raise StateError(f"{id} is just being taken out; try again")
        for _ in range(100):
            for id, drive in board.drives.items():
                drive.drain()
                if drive.has_parked:
                    raise StateError(f"a request of drive {id} failed and waits; let the machine go on or reset it")
            with board.lock:
                ran = sum(int(queue.run()) for queue in (board.timers, board.host_timers))
            if not ran:
                return

    @property
    def total(self) -> int:
        """Bytes of memory."""
        return sum(block.size for block in self.blocks.values())

    def write(
        self,
        path: str,
        ended: Callable[[], bool] = lambda: False,
        fd: int = -1,
        told: Callable[[int, int], object] = lambda done, written: None,
    ) -> None:
        """StateError when it cannot be written; nothing is left then. `ended`: asks whether to give up. `fd`: as of
        Writer. `told(bytes of memory that are done, bytes written)`, now and then.
        """
        done = 0
        with Writer(path, fd) as file:
            file.manifest(self.manifest)
            for number, block in enumerate(self.blocks.values()):
                for offset in range(0, block.size, PIECE):
                    if ended():
                        raise StateError(f"{path} was given up")
                    size = min(PIECE, block.size - offset)
                    file.piece(number, offset, block.read(offset, size))
                    done += size
                    told(done, file.written)
            file.state(self.state)


def _processor(machine: Machine, n: int) -> dict[str, Any]:
    try:
        return machine.accelerator.save_vcpu(n)
    except NotImplementedError:  # the accelerator has none
        return {}


def save(machine: Machine, path: str, state: str = runstate.PAUSED) -> None:
    Outgoing(machine, state).write(path)


# --- in -------------------------------------------------------------------------------------------------------


def config_of(reader: Reader) -> MachineData:
    """The resolved machine in the file. StateError when this vmrun cannot go on with it."""
    manifest = reader.manifest
    if manifest.get("format") != FORMAT:
        raise StateError(f"{reader.path} has format {manifest.get('format')!r}, not {FORMAT}")
    config = manifest.get("machine")
    if not isinstance(config, dict):
        raise StateError(f"{reader.path} does not say what machine it is")
    found: MachineData = config  # type: ignore[assignment]  # of whatever shape: it is held against a machine that was built
    return found


def cpuid_of(manifest: dict[str, Any]) -> dict[int, Any]:
    """The saved entries of each processor that there was, by its number."""
    rows, now = manifest.get("cpuid"), manifest.get("now")
    try:
        there = present(now["cpus"])  # type: ignore[index]  # of whatever shape
        return dict(zip(there, rows, strict=False))  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StateError("the saved machine does not say which processors it had") from None


def restore(
    path: str,
    *,
    accel: list[str] | None = None,
    mux: Callable[[MachineData], Any] = lambda config: None,
    vary: Callable[[MachineData], MachineData] = lambda config: config,
) -> Machine:
    """A machine in state prelaunch that has all that the saved one had; `machine.restored` is the state to go on in.
    `mux(config)` gives what build() takes as `mux`; vary(config) is the resolved machine with another host's side.
    """
    from vmrun.machine.builder import build

    with Reader(path) as reader:
        config = config_of(reader)
        try:
            config = vary(config)
            terminal = mux(config)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise StateError(f"{path} describes no machine: {type(exc).__name__}: {exc}") from None
        manifest = reader.manifest
        try:
            machine = build(
                config, accel=accel or preferred(config, manifest), mux=terminal, cpuid=cpuid_of(manifest)
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as exc:
            raise StateError(f"{path} describes no machine: {type(exc).__name__}: {exc}") from None
        try:
            load(machine, reader)
        except BaseException:
            machine.close()
            raise
    return machine


def preferred(config: MachineData, manifest: dict[str, Any]) -> list[str]:
    """The machine's accelerators, that of the saved machine first: another one needs more care."""
    listed = [name for name in config["accel"] if isinstance(name, str)]
    before = manifest.get("accelerator")
    return sorted(listed, key=lambda name: name != before)


def load(machine: Machine, reader: Reader, before: Callable[[], object] = lambda: None) -> None:
    """Into a machine that was built from the same description and has not run; or has, then `before` resets it. It is
    called when all that can be checked is right. StateError leaves the machine unfit to run from then on.
    """
    manifest = reader.manifest
    now = manifest.get("now")
    if not isinstance(now, dict):
        raise StateError(f"{reader.path} does not say what the machine had become")
    config = config_of(reader)
    if not _is(machine, {**config, "devices": now.get("devices"), "cpus": now.get("cpus")}):
        _same_machine(machine, {**config})
        try:
            hotplug.become(machine, now)
        except (BuildError, KeyError, TypeError, ValueError, AttributeError, IndexError) as exc:
            raise StateError(f"{reader.path}: the machine cannot become what it was: {exc}") from None
    for id, device in machine.board.devices.items():
        device.leaving = id in now.get("leaving", ())
    saved = cpuid_of(manifest)
    for index, entries in machine.cpuid.items():
        kept = crossing.same_cpuid(saved.get(index), index, entries)
        if machine.config["cpus"].get("features") != config["cpus"].get("features") and kept != entries:
            raise StateError("the saved machine is another one: its `cpus` differs")
    for name, digest in firmware(machine).items():
        if (manifest.get("firmware") or {}).get(name) != digest:
            raise StateError(
                f"{name} is another image than the saved machine had", remedy="start it with the firmware of then"
            )
    try:
        run, clocks = manifest["run"], manifest["clocks"]
        state, asleep, resets = str(run["state"]), bool(run["asleep"]), int(run["resets"])
        virtual, guest = int(clocks["virtual"]), int(clocks["guest"])
        sizes = [(str(row["name"]), int(row["size"])) for row in manifest["blocks"]]
    except (KeyError, TypeError, ValueError):
        raise StateError(f"{reader.path} does not say how the machine was") from None
    if state not in runstate.FOLLOWS or not 0 <= virtual < 1 << 62 or not 0 <= resets < 1 << 31:
        raise StateError(f"{reader.path} does not say how the machine was")
    held = blocks(machine)
    if sizes != [(name, block.size) for name, block in held.items()]:
        raise StateError(f"{reader.path}: the machine's memory was another")
    whole = reader.state()
    devices, processors = crossing.fit(whole, manifest.get("accelerator"), machine)
    board = machine.board
    with board.lock:
        checked = _check(board.devices, devices)
    before()
    machine.firmware.look_again(machine.config)
    board.virtual.set_time(virtual)
    with board.lock:
        _load_memory(list(held.values()), reader)
        with board.memory.transaction(), board.io.transaction():
            for device, values in checked:
                device.apply(values)
    _load_processors(machine, processors)
    machine.accelerator.set_clock(guest)
    machine.asleep, machine.resets = asleep, resets
    if resets >= 2:
        machine.firmware.second_boot()
    machine.restored = state


def _is(machine: Machine, saved: dict[str, Any]) -> bool:
    """Whether it was built as the saved machine was at its end; devices may come in another order."""
    own: dict[str, Any] = {**machine.config}
    return all(
        _by_id(own.get(name)) == _by_id(saved.get(name)) if name == "devices" else _alike(name, own, saved)
        for name in own.keys() | saved.keys()
        if name not in HOSTS
    )


def _alike(name: str, own: dict[str, Any], saved: dict[str, Any]) -> bool:
    """Whether both say the same of one thing. Features of the processors may be written otherwise, when what the guest
    sees is equal: `load` looks at that.
    """
    mine, theirs = own.get(name), saved.get(name)
    if name == "cpus" and isinstance(mine, dict) and isinstance(theirs, dict):
        mine, theirs = ({key: value for key, value in one.items() if key != "features"} for one in (mine, theirs))
    if name == "devices":
        try:
            mine, theirs = ([_guest_side(row) for row in rows or ()] for rows in (mine, theirs))
        except (KeyError, TypeError, AttributeError):
            pass
    return bool(mine == theirs)


def _guest_side(row: dict[str, Any]) -> dict[str, Any]:
    """An entry of a device without the names of its back ends."""
    from vmrun.config.catalogue import device_rows

    known = {prop["name"]: prop["type"] for prop in device_rows()[row["driver"]]["props"]}
    props = {name: value for name, value in row["props"].items() if known.get(name) not in BACKENDS}
    return {**row, "props": props}


def _by_id(rows: Any) -> Any:
    try:
        return {row["id"]: _guest_side(row) for row in rows}
    except (KeyError, TypeError, AttributeError):
        return rows


def _same_machine(machine: Machine, saved: dict[str, Any]) -> None:
    own: dict[str, Any] = {**machine.config}
    for name in sorted(own.keys() | saved.keys()):
        if name not in HOSTS and not _alike(name, own, saved):
            raise StateError(f"the saved machine is another one: its `{name}` differs")


def _check(devices: dict[str, Device], states: dict[str, Any]) -> list[tuple[Device, dict[str, Any]]]:
    """What to apply, in order."""
    if set(states) != set(devices):
        odd = sorted(set(states) ^ set(devices))
        raise StateError(f"the saved machine had other devices: {', '.join(map(str, odd[:5]))}")
    checked = []
    for id, device in devices.items():
        row = states[id]
        if not isinstance(row, dict) or not isinstance(row.get("state"), dict):
            raise StateError(f"{id}: there is no state of it")
        checked.append((device, device.check(row["state"])))
    return sorted(checked, key=lambda pair: pair[0].controls_interrupts)


def _load_memory(held: list[RamBlock], reader: Reader) -> None:
    for block in held:
        block.clear()
    for number, offset, data in reader.pieces():
        if number >= len(held) or offset % PIECE or offset + len(data) > held[number].size:
            raise StateError(f"{reader.path}: a piece of memory lies outside it")
        held[number].write(offset, data)


def _load_processors(machine: Machine, processors: list[Any]) -> None:
    if len(processors) != len(machine.board.processors):
        raise StateError(f"the saved machine had {len(processors)} processors")
    for n, state in zip(machine.board.processors, processors, strict=True):
        own = _processor(machine, n)
        if "xcrs" in own and "xcrs" not in state:  # from an accelerator that has no XSAVE
            state = {**state, "xcrs": own["xcrs"]}
        crossing.check_shape(state, own, f"processor {n}")
        try:
            refused = machine.accelerator.load_vcpu(n, state)
        except NotImplementedError:
            refused = []
        except VmrunError:
            raise
        except Exception as exc:  # a value that no processor can have: of Python's conversions, or the kernel's no
            raise StateError(f"processor {n} cannot be in this state: {type(exc).__name__}: {exc}") from None
        crossing.check_refused(n, state, refused or [])


def go_on(machine: Machine, paused: bool = False) -> None:
    """Let a restored machine run, or stand as the saved one stood."""
    state = machine.restored or runstate.PAUSED
    if paused and state in (runstate.RUNNING, runstate.SUSPENDED):
        state = runstate.PAUSED
    if state != machine.state:
        if machine.state == runstate.PRELAUNCH:
            machine.go(runstate.INMIGRATE)
        machine.go(state if state in runstate.FOLLOWS[machine.state] else runstate.PAUSED)
