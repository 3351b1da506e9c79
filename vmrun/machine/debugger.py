"""A machine held by a debugger: break- and watchpoints, single steps, memory as the debugger wants to see it.

Software breakpoints are int3 (CCh) in the guest's memory, at linear addresses; whoever reads through the debugger sees
what was there before. An int3 of the guest's own is not the debugger's: the processor executes it as if nobody looked.
Hardware points are the processor's, or are counted by vmrun's own; the guest's debug registers rest meanwhile on KVM.

Main thread. One debugger for a machine, made when a client comes (vmrun.monitor.gdb).
"""

from __future__ import annotations

import struct

from accel.errors import AccelFailure
from vmrun.errors import StateError
from vmrun.machine import runstate
from vmrun.machine.paging import Standing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from vmrun.machine.machine import Machine

EXECUTE, WRITE, ACCESS = 0, 1, 3  # kinds of hardware points, as DR7 has them
INT3 = b"\xcc"
MOST_HARDWARE = 4
BLANK = 8  # zero bytes, which no code begins with
MOST_SOFTWARE = 4096


IN_USE = 512  # of an XSAVE area: a bit for each part that is not as at the start


NAMES = ("fcw", "fsw", "ftwx", "last_opcode", "last_ip", "last_dp", "mxcsr")
HEAD = "<HHBxHQQI"  # of an FXSAVE image, in the order of NAMES
X87, SSE = 1, 2


def fxsave(area: bytes) -> dict[str, Any]:
    """The x87 and SSE part of an XSAVE area, in KVM's layout; a part that is not in use is as after FNINIT."""
    used = area[IN_USE]
    fpu: dict[str, Any] = dict(zip(NAMES, struct.unpack_from(HEAD, area), strict=True))
    if not used & X87:
        fpu |= {**dict.fromkeys(NAMES[:-1], 0), "fcw": 0x37F}
    fpu["fpr"] = [bytes(area[at : at + 16]) if used & X87 else bytes(16) for at in range(32, 160, 16)]
    fpu["xmm"] = [bytes(area[at : at + 16]) if used & SSE else bytes(16) for at in range(160, 416, 16)]
    return fpu


def with_fxsave(area: bytes, fpu: dict[str, Any]) -> bytes:
    """The area with that part of it changed."""
    image = bytearray(area)
    struct.pack_into(HEAD, image, 0, *(fpu[name] for name in NAMES))
    for n, part in enumerate((*fpu["fpr"], *fpu["xmm"])):
        image[32 + 16 * n : 48 + 16 * n] = part[:16].ljust(16, b"\0")
    image[IN_USE] |= X87 | SSE
    return bytes(image)


class Stop:
    """Why a processor stopped: `why` is step, software, hardware or asked; `point` a hardware point."""

    def __init__(self, index: int, why: str, point: tuple[int, int, int] | None = None) -> None:
        self.index, self.why, self.point = index, why, point


class Debugger:
    """`on_stop(Stop)` is called when the machine stopped for the debugger, `on_end(code)` at its end."""

    def __init__(
        self, machine: Machine, on_stop: Callable[[Stop], object], on_end: Callable[[int], object]
    ) -> None:
        self.machine, self.on_stop, self.on_end = machine, on_stop, on_end
        self.software: dict[int, bytes] = {}  # linear address → the byte that the guest has there
        self.hardware: list[tuple[int, int, int]] = []
        self.early: list[int] = []  # software breakpoints where no code is yet: hardware points, too
        self.passing: int | None = None  # the processor that executes an int3 of the guest's own
        self.plan: tuple[frozenset[int], frozenset[int] | None] = (frozenset(), None)
        machine.debugger = self

    @property
    def processors(self) -> list[int]:
        """Those that are there, by number."""
        return [cpu.index for cpu in self.machine.accelerator.vcpus]

    # --- the state of a processor -------------------------------------------------------------------------

    def state(self, index: int) -> dict[str, Any]:
        """As Accelerator.save_vcpu, and always with `fpu`; NotImplementedError without processors."""
        with Standing(self.machine) as cpus:
            state = cpus.state(index)
        if "fpu" not in state:
            state["fpu"] = fxsave(state["xsave"])
        return state

    def change(self, index: int, state: dict[str, Any]) -> None:
        """Load some parts of it. AccelFailure, KeyError, OverflowError for what cannot be."""
        with Standing(self.machine) as cpus:
            if "fpu" in state and "xsave" in (whole := cpus.state(index)):
                state = {**state, "xsave": with_fxsave(whole["xsave"], state["fpu"])}
                del state["fpu"]
            self.machine.accelerator.load_vcpu(index, state)

    # --- memory -------------------------------------------------------------------------------------------

    def read(self, index: int, linear: int, size: int, physical: bool = False) -> bytes:
        """Up to `size` bytes, as far as they are mapped."""
        found = b""
        board = self.machine.board
        for at, count in self._pages(index, linear, size, physical):
            if at is None:
                break
            with board.lock:
                data = bytearray(board.memory.read_bytes(at, count))
            here = linear + len(found)
            if not physical:
                for place, byte in self.software.items():
                    if here <= place < here + count:
                        data[place - here : place - here + 1] = byte
            found += data
        return found

    def write(self, index: int, linear: int, data: bytes, physical: bool = False) -> bool:
        """All of it, or nothing: False where a page is not mapped."""
        pages = self._pages(index, linear, len(data), physical)
        if any(at is None for at, _ in pages):
            return False
        if not physical:
            kept = bytearray(data)
            for place in self.software:
                if linear <= place < linear + len(data):  # the breakpoint stays, the byte below it changes
                    self.software[place] = data[place - linear : place - linear + 1]
                    kept[place - linear : place - linear + 1] = INT3
            data = bytes(kept)
        self._put(pages, data)
        return True

    def _pages(self, index: int, linear: int, size: int, physical: bool) -> list[tuple[int | None, int]]:
        if physical:
            return [(linear, size)]
        with Standing(self.machine) as cpus:
            return cpus.pages(index, linear, size)

    def _put(self, pages: list[tuple[int | None, int]], data: bytes) -> None:
        """Into RAM, and into ROM too, where a firmware's code is."""
        board, done = self.machine.board, 0
        for at, count in pages:
            assert at is not None
            with board.lock:
                board.memory.poke(at, data[done : done + count])
            done += count

    # --- points -------------------------------------------------------------------------------------------

    def insert(self, index: int, linear: int) -> bool:
        """A software breakpoint; False where no memory is. Where nothing is yet whoever loads the guest's code would
        write over an int3: there it is a hardware point, as long as there are any.
        """
        if linear in self.software or linear in self.early:
            return True
        byte = self.read(index, linear, 1)
        if not any(self.read(index, linear, BLANK)) and self._room():
            self.early.append(linear)
            return True
        pages = self._pages(index, linear, 1, False)
        if not byte or len(self.software) >= MOST_SOFTWARE:
            return False
        self._put(pages, INT3)
        if self._raw(pages) != INT3:
            return False  # a ROM that cannot be changed, or a device's registers
        self.software[linear] = byte
        return True

    def _raw(self, pages: list[tuple[int | None, int]]) -> bytes:
        at, count = pages[0]
        if at is None:
            return b""
        with self.machine.board.lock:
            return bytes(self.machine.board.memory.read_bytes(at, count))

    def remove(self, index: int, linear: int) -> bool:
        if linear in self.early:
            self.early.remove(linear)
            return True
        byte = self.software.pop(linear, None)
        if byte is None:
            return False
        pages = self._pages(index, linear, 1, False)
        if pages[0][0] is not None and self._raw(pages) == INT3:  # else the guest has something else there now
            self._put(pages, byte)
        return True

    def insert_hardware(self, kind: int, linear: int, size: int) -> bool:
        """False when there is no room for another, or its address does not fit its size."""
        point = (kind, linear, size)
        if point in self.hardware:
            return True
        if not self._room() or size not in (1, 2, 4, 8) or linear & (size - 1):
            return False
        if kind == EXECUTE and size != 1:
            return False
        self.hardware.append(point)
        return True

    def _room(self) -> bool:
        return len(self.hardware) + len(self.early) < MOST_HARDWARE

    def remove_hardware(self, kind: int, linear: int, size: int) -> bool:
        if (kind, linear, size) not in self.hardware:
            return False
        self.hardware.remove((kind, linear, size))
        return True

    # --- running ------------------------------------------------------------------------------------------

    def resume(self, step: Iterable[int] = (), run: Iterable[int] | None = None) -> bool:
        """Processors of `step` execute one instruction, those of `run` (None: all others) go on, others stay. False
        when the machine cannot go on: it is over, or was saved.
        """
        self.plan = (frozenset(step), None if run is None else frozenset(run))
        self.machine.pause()
        self._watch()
        return self.machine.resume()

    def _watch(self) -> None:
        step, run = self.plan
        points = (*self.hardware, *((EXECUTE, linear, 1) for linear in self.early))
        for index in self.processors:
            going = index in step or run is None or index in run
            alone = self.passing is not None
            self.machine.accelerator.watch(
                index,
                step=index == self.passing if alone else index in step,
                software=not alone,
                hardware=() if alone else points,
                frozen=index != self.passing if alone else not going,
            )

    def interrupt(self) -> None:
        """Stop now, whatever the guest does."""
        if self.machine.running:
            self.machine.pause(runstate.DEBUG)
            self.on_stop(Stop(0, "asked"))

    def stopped(self) -> None:
        """The accelerator says that processors stopped for us."""
        accelerator = self.machine.accelerator
        if not self.machine.running:
            accelerator.debug_stops()
            return
        accelerator.stop()
        stops = accelerator.debug_stops()
        found = None
        for index, why, n in stops:
            if index == self.passing:
                self.passing = None
                if index in self.plan[0]:  # that was its step
                    found = Stop(index, "step")
            elif why == "software" and self._place(index) not in self.software:
                self.passing = index
            elif found is None and why == "hardware" and n >= len(self.hardware):
                found = Stop(index, "software")
            elif found is None:
                found = Stop(index, why, self.hardware[n] if why == "hardware" else None)
        if found is None:
            self._watch()
            accelerator.start()
            return
        self.machine.pause(runstate.DEBUG)
        self.on_stop(found)

    def gave_up(self, reports: list[dict[str, Any]]) -> bool:
        """True when it was a breakpoint of ours: a KVM that emulates the guest does not know int3."""
        report = reports[0] if len(reports) == 1 else {}
        if report.get("linear_rip") not in self.software:
            return False
        self.machine.pause(runstate.DEBUG)
        self.on_stop(Stop(int(report.get("cpu", 0)), "software"))
        return True

    def _place(self, index: int) -> int:
        """The linear address of the next instruction."""
        state = self.machine.accelerator.save_vcpu(index)
        rip: int = state["regs"]["rip"]
        if state["sregs"]["efer"] & 0x400 and state["sregs"]["cs"]["l"]:
            return rip
        base: int = state["sregs"]["cs"]["base"]
        return (base + rip) & 0xFFFFFFFF

    def close(self) -> None:
        """Take all points out; whether the machine runs is left as it is."""
        for linear in list(self.software):
            self.remove(0, linear)
        self.hardware.clear()
        self.early.clear()
        self.passing = None
        self.plan = (frozenset(), None)
        try:
            with Standing(self.machine):
                for index in self.processors:
                    self.machine.accelerator.watch(index)
        except (AccelFailure, NotImplementedError, StateError):
            pass  # there is nothing to watch
        self.machine.debugger = None
