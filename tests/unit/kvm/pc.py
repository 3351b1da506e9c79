"""A least PC for the KVM tests: RAM from 0, 64 KiB of ROM below 1 MiB and 4 GiB, two ports."""

from __future__ import annotations

import select
from typing import Any

from accel.api import DeviceLock, PyIoRegion
from accel.ram import RamBlock
from accel.run import RunControl
from accel.space import AddressSpace, Region

from accel.accelerator import Accelerator
from accel.kvm.accelerator import KvmAccelerator

LOG, END = 0x80, 0xF4  # a port whose writes are kept, and one that ends the run (ACTION_EXIT)
EXIT = 32
FAILED = 1 << 30


class Pc:
    """`code` runs in real mode at f000:0000; `rom` adds bytes at other offsets of the ROM."""

    def __init__(
        self,
        code: str = "f4",
        *,
        irqchip: str = "on",
        ram: int = 0x80000,
        rom: dict[int, str] | None = None,
        accel: type[Accelerator] = KvmAccelerator,
    ) -> None:
        self.logged: list[int] = []
        self.ended: list[int] = []
        self.root, self.ports = Region.container("memory", 0), Region.container("io", 65536)
        self.memory = AddressSpace("memory", self.root)
        self.io = AddressSpace("io", self.ports, ports=True)
        self.lock, self.control = DeviceLock(), RunControl()
        self.ram, self.rom = RamBlock("ram", ram), RamBlock("rom", 0x10000)
        self.rom.fill(0xF4)
        self.rom.write(0, bytes.fromhex(code))
        for offset, text in (rom or {}).items():
            self.rom.write(offset, bytes.fromhex(text))
        self.rom.write(0xFFF0, bytes.fromhex("ea 0000 00f0"))  # jmp f000:0000
        self.accel: Any = accel(self.memory, self.io, self.lock, self.control, {"kernel_irqchip": irqchip})
        self.root.add(Region.ram("ram", self.ram), 0)
        rom_region = Region.rom("rom", self.rom)
        self.root.add(rom_region, 0xFFFF0000)
        self.root.add(Region.alias("rom-low", rom_region, 0, 0x10000), 0xF0000)
        self.port(LOG, write=lambda offset, size, value: self.logged.append(value))
        self.port(END, write=self._end)

    def _end(self, offset: int, size: int, value: int) -> int:
        self.ended.append(value)
        return EXIT

    def port(self, base: int, size: int = 1, read: Any = None, write: Any = None) -> None:
        self.ports.add(Region.device(f"port {base:#x}", PyIoRegion(f"{base:#x}", read, write), size), base)

    def mmio(self, base: int, size: int = 0x1000, read: Any = None, write: Any = None) -> None:
        region = PyIoRegion(f"{base:#x}", read, write, max_access=8)
        self.root.add(Region.device(f"mmio {base:#x}", region, size), base)

    def cpus(self, count: int = 1, cpuid: list[dict[str, int]] | None = None) -> None:
        for index in range(count):
            self.accel.create_vcpu(index, index, cpuid or [])

    def wait(self, seconds: float = 10.0) -> bool:
        """True when a request arrived in time."""
        waiting = select.poll()  # select(2) knows no descriptor above 1023
        waiting.register(self.control.notifier.fileno(), select.POLLIN)
        return bool(waiting.poll(seconds * 1000))

    def run(self, count: int = 1, seconds: float = 10.0, cpuid: list[dict[str, int]] | None = None) -> int:
        """Create processors, run until one asks for something, stop; the requests."""
        self.cpus(count, cpuid)
        return self.go(seconds)

    def go(self, seconds: float = 10.0) -> int:
        self.accel.start()
        self.wait(seconds)
        self.accel.stop()
        return self.control.take()

    def until(self, condition: Any, seconds: float = 10.0) -> bool:
        """Poll for what no request announces."""
        import time

        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.0005)
        return True

    def close(self) -> None:
        self.accel.close()
