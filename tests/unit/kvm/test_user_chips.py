"""vmrun's own 8259A and I/O APIC under KVM, where the kernel has none."""

from __future__ import annotations

import types
from typing import Any

import pytest

from tests.unit.kvm.guests import IRQ5, MSI41
from tests.unit.kvm.pc import Pc
from vmrun.bus.isa import IsaBus
from vmrun.devices.intc.ioapic import IoapicDevice
from vmrun.devices.intc.isa_i8259 import IsaI8259

pytestmark = pytest.mark.kvm


def platform(guest: Pc) -> Any:
    return types.SimpleNamespace(
        accelerator=guest.accel, system_io=guest.ports, system_memory=guest.root, lock=guest.lock
    )


def pics(guest: Pc) -> dict[str, IsaI8259]:
    bus = IsaBus("isa.0", platform(guest))
    made: dict[str, IsaI8259] = {}
    for name, iobase, elcr, master in (("pic0", 0x20, 0x4D0, True), ("pic1", 0xA0, 0x4D1, False)):
        device = IsaI8259(name)
        device.set_props({"iobase": iobase, "elcr_addr": elcr, "elcr_mask": 0xF8, "master": master})
        device.parent_bus = bus
        bus.devices.append(device)
        device.realize(bus.platform)
        device.realized = True
        device.reset()
        made[name] = device
    made["pic1"].outputs["int"][0].connect(made["pic0"].inputs["in"], 2)
    made["pic0"].outputs["int"][0].connect(guest.accel.cpu_input("intr"), 0)
    return made


@pytest.mark.parametrize("irqchip", ["off", "split"])
def test_our_8259a_interrupts_a_halted_guest_again_and_again(pc: type[Pc], irqchip: str) -> None:
    guest = pc(IRQ5, irqchip=irqchip)
    chips = pics(guest)
    guest.cpus()
    guest.accel.start()
    assert guest.until(lambda: 0x11 in guest.logged)
    for n in range(1, 6):
        with guest.lock:
            chips["pic0"].inputs["in"].drive(5, 1)
            chips["pic0"].inputs["in"].drive(5, 0)
        assert guest.until(lambda n=n: guest.logged.count(0x22) == n)
    assert guest.logged == [0x11] + [0x33, 0x22] * 5


def test_masked_input_of_our_8259a_stays_pending(pc: type[Pc]) -> None:
    guest = pc(IRQ5, irqchip="off")
    chips = pics(guest)
    guest.cpus()
    guest.accel.start()
    assert guest.until(lambda: 0x11 in guest.logged)
    with guest.lock:
        chips["pic0"].inputs["in"].drive(6, 1)
    assert not guest.until(lambda: 0x33 in guest.logged, 0.05)


def test_our_ioapic_with_local_apics_in_the_kernel(pc: type[Pc]) -> None:
    guest = pc(MSI41, irqchip="split")
    device = IoapicDevice("ioapic")
    device.realize(platform(guest))
    device.reset()
    guest.cpus()
    guest.accel.start()
    assert guest.until(lambda: 0x11 in guest.logged)
    with guest.lock:  # pin 5: level, vector 41h, to APIC 0
        for register, value in ((0x10 + 2 * 5, 0x8041), (0x11 + 2 * 5, 0)):
            guest.memory.write(0xFEC00000, 4, register)
            guest.memory.write(0xFEC00010, 4, value)
    for n in range(1, 4):
        with guest.lock:
            device.inputs["in"].drive(5, 1)
        assert guest.until(lambda n=n: guest.logged.count(0x33) >= n)
        with guest.lock:
            device.inputs["in"].drive(5, 0)
