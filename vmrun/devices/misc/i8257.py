"""The DMA controller of the PC, an 8237A; the board has two, the second in 16-bit words.

Ref: Intel 8237A (231466); page registers: IBM AT technical reference. Not modelled: memory-to-memory,
compressed timing, priorities (a transfer runs whole when its device asks), extended page registers.

A device with a channel calls `transfer(channel, data)`: bytes go to or come from memory as the guest says. `wait` tells
it when the channel is free.
"""

from __future__ import annotations

from accel.api import PyIoRegion
from accel.dma import Dma

from vmrun.bus.isa import IsaDevice
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import KEEP, U8, U16, Flag, Parts, Stateful, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmrun.core.platform import Platform

# page register of each channel, from page-base: 87h, 83h, 81h, 82h
PAGE_PORTS = {7: 0, 3: 1, 1: 2, 2: 3}
VERIFY, WRITE_MEMORY, READ_MEMORY = 0, 1, 2
AUTO_INIT, DECREMENT = 0x10, 0x20


class Channel(Stateful):
    # A master clear leaves all of it.
    state = Table(
        "i8257-channel",
        1,
        *(U16(name, KEEP) for name in ("address", "base_address", "base_count", "count")),
        U8("mode", KEEP),
        U8("page", KEEP),
    )

    def __init__(self) -> None:
        self.address = self.count = self.base_address = self.base_count = self.mode = self.page = 0


@register("i8257", description="ISA DMA controller with four channels")
class I8257(IsaDevice):
    user_creatable = False
    resources = {"ports": [["base", 16], ["page-base", 3, 1], ["page-base", 1, 7]]}

    state = Table(
        "i8257",
        1,
        U8("command"),
        U8("status"),
        U8("request", most=15),
        U8("mask", 15, most=15),
        Flag("high"),
        Parts("channels"),
    )

    base = Prop("int32", 0, "first port of the channels")
    page_base = named("page-base", "int32", 0x80, "first port of the page registers")
    pageh_base = named(
        "pageh-base", "int32", 0x480, "high page registers; not modelled", visible=False,
        idle="no board has high page registers",
    )
    dshift = Prop("int32", 0, "0: bytes, 1: 16-bit words and ports two apart", min=0, max=1)

    def realize(self, platform: Platform) -> None:
        self.memory = Dma(platform.memory)
        self.channels = [Channel() for _ in range(4)]
        step = 1 << self.dshift
        io = PyIoRegion("i8257-channels", self._read_channel, self._write_channel, 1, 1)
        self.map_io(io, self.base, 8 * step)
        io = PyIoRegion("i8257-control", self._read_control, self._write_control, 1, 1)
        self.map_io(io, self.base + 8 * step, 8 * step)
        page = PyIoRegion("i8257-page", self._read_page, self._write_page, 1, 1, widest=2)
        self.map_io(page, self.page_base + 1, 3)
        single = PyIoRegion(
            "i8257-page", lambda o, s: self._read_page(6, s), lambda o, s, v: self._write_page(6, s, v), 1, 1, 2
        )
        self.map_io(single, self.page_base + 7, 1)
        first = 4 if self.dshift else 0
        for n in range(4):
            self.parent_bus.dma[first + n] = (self, n)
        self.command = self.status = self.request = 0
        self.mask, self.high = 0xF, False
        self.waiting: dict[int, Callable[[], None]] = {}

    def settle(self) -> None:
        self._look()

    # --- registers --------------------------------------------------------------------------------------

    def _half(self, value: int) -> int:
        self.high = not self.high
        return value & 0xFF if self.high else value >> 8 & 0xFF

    def _read_channel(self, offset: int, size: int) -> int:
        offset >>= self.dshift
        channel = self.channels[offset >> 1]
        return self._half(channel.count if offset & 1 else channel.address)

    def _write_channel(self, offset: int, size: int, value: int) -> None:
        offset >>= self.dshift
        channel = self.channels[offset >> 1]
        value &= 0xFF
        old = channel.base_count if offset & 1 else channel.base_address
        new = old & 0x00FF | value << 8 if self.high else old & 0xFF00 | value
        self.high = not self.high
        if offset & 1:
            channel.base_count = channel.count = new
        else:
            channel.base_address = channel.address = new

    def _read_control(self, offset: int, size: int) -> int:
        offset >>= self.dshift
        if offset == 0:  # status: the terminal counts are told once
            status = self.status
            self.status &= 0xF0
            return status
        return self.mask | 0xF0 if offset == 7 else 0

    def _write_control(self, offset: int, size: int, value: int) -> None:
        offset >>= self.dshift
        value &= 0xFF
        bit = 1 << (value & 3)
        if offset == 0:
            self.command = value
        elif offset == 1:
            self.request = self.request | bit if value & 4 else self.request & ~bit
            self.status = self.status & 0x0F | self.request << 4
        elif offset == 2:
            self.mask = self.mask | bit if value & 4 else self.mask & ~bit
        elif offset == 3:
            self.channels[value & 3].mode = value
        elif offset == 4:
            self.high = False
        elif offset == 5:
            self.reset()
        elif offset == 6:
            self.mask = 0
        elif offset == 7:
            self.mask = value & 0xF
        self._look()

    def _read_page(self, offset: int, size: int) -> int:
        return self.channels[PAGE_PORTS[offset + 1]].page

    def _write_page(self, offset: int, size: int, value: int) -> None:
        self.channels[PAGE_PORTS[offset + 1]].page = value & 0xFF

    # --- transfers --------------------------------------------------------------------------------------

    def wait(self, n: int, callback: Callable[[], None]) -> None:
        """A device asks for channel `n`: it is called when the guest lets the channel go, maybe at once, until it says
        `forget`.
        """
        self.waiting[n] = callback
        self.drq(n, 1)
        self._look()

    def forget(self, n: int) -> None:
        """The device asks no more."""
        if self.waiting.pop(n, None) is not None:
            self.drq(n, 0)

    def _look(self) -> None:
        for n in list(self.waiting):
            if n in self.waiting and self.ready(n):
                self.waiting[n]()

    def move(self, n: int, data: bytes) -> int:
        """`data` to memory; how many bytes the channel took."""
        count = min(len(data), self.room(n)) if self.ready(n) else 0
        self.transfer(n, data[:count])
        return count

    def ready(self, n: int) -> bool:
        """The guest let channel `n` go (not masked, controller enabled)."""
        return not self.mask >> n & 1 and not self.command & 4

    def drq(self, n: int, level: int) -> None:
        """A device asks for service on channel `n`: status bits 4 to 7, which some drivers poll."""
        bit = 0x10 << n
        self.status = self.status | bit if level else self.status & ~bit

    def room(self, n: int) -> int:
        """Bytes until terminal count."""
        room: int = (self.channels[n].count + 1) << self.dshift
        return room

    def direction(self, n: int) -> int:
        mode: int = self.channels[n].mode
        return mode >> 2 & 3

    def transfer(self, n: int, data: bytes | int) -> bytes:
        """Move `data` to memory, or that many bytes from it (returned). Stops at terminal count."""
        channel = self.channels[n]
        count = min(data if isinstance(data, int) else len(data), self.room(n))
        count &= ~((1 << self.dshift) - 1)
        if not count or not self.ready(n):
            return b""
        at = channel.page << 16
        at = (at & ~0x1FFFF) + (channel.address << 1) if self.dshift else at + channel.address
        units = count >> self.dshift
        down = bool(channel.mode & DECREMENT)
        start = at - count + (1 << self.dshift) if down else at
        result = b""
        if isinstance(data, int):
            result = self.memory.read(start, count) or b"\xff" * count
        elif self.direction(n) == WRITE_MEMORY:
            self.memory.write(start, data[:count])
        channel.address = (channel.address + (-units if down else units)) & 0xFFFF
        channel.count = (channel.count - units) & 0xFFFF
        if channel.count == 0xFFFF:
            self.status |= 1 << n
            if channel.mode & AUTO_INIT:
                channel.address, channel.count = channel.base_address, channel.base_count
            else:
                self.mask |= 1 << n
        return result
