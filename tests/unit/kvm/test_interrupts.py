"""Lines, routes, messages and eventfds into the guest."""

from __future__ import annotations

import os

import pytest
from accel.aio import IoThread, PyIoHandler
from accel.api import IrqFan, Notifier, PyIrqSink
from accel.dma import Dma
from accel.run import PyIntAck
from accel.space import Region

from tests.unit.kvm.guests import IRQ5, MSI41, PROTECTED, PROTECTED_DONE
from tests.unit.kvm.pc import Pc

pytestmark = pytest.mark.kvm

MSI_ADDRESS = 0xFEE00000


def started(guest: Pc) -> Pc:
    """The guest has set itself up and waits in HLT."""
    guest.cpus()
    guest.accel.start()
    assert guest.until(lambda: 0x11 in guest.logged)
    return guest


def test_line_raises_the_interrupt_of_its_gsi(pc: type[Pc]) -> None:
    guest = started(pc(IRQ5))
    sink = guest.accel.irq_sink(24)
    sink.drive(5, 1)
    sink.drive(5, 0)
    assert guest.until(lambda: 0x22 in guest.logged)
    assert guest.logged == [0x11, 0x33, 0x22]


def test_gsi_wired_to_both_chips_interrupts_once(pc: type[Pc]) -> None:
    guest = started(pc(IRQ5))
    sink = guest.accel.irq_sink(24)
    fan = IrqFan("gsi", 24)
    fan.connect(5, sink, 5)
    fan.connect(5, sink, 5)
    fan.drive(5, 1)
    fan.drive(5, 0)
    assert guest.until(lambda: 0x22 in guest.logged)
    assert sink.deliveries == 2


def test_line_up_before_the_chip_exists_is_not_lost(pc: type[Pc]) -> None:
    guest = pc()
    guest.accel.irq_sink(24).drive(5, 1)
    guest.cpus()
    assert guest.accel.irqchip.get_chip("pic0")["irr"] == 1 << 5


def test_masked_line_does_not_interrupt(pc: type[Pc]) -> None:
    guest = started(pc(IRQ5))
    guest.accel.irq_sink(24).drive(6, 1)
    assert not guest.until(lambda: 0x33 in guest.logged, 0.05)


def test_message_interrupts_its_vector(pc: type[Pc]) -> None:
    guest = started(pc(MSI41))
    assert guest.accel.signal_msi(MSI_ADDRESS, 0x41) == 1
    assert guest.until(lambda: 0x33 in guest.logged)


def test_message_written_by_a_bus_master_interrupts_its_vector(pc: type[Pc]) -> None:
    guest = pc(MSI41)
    for base, size, region in guest.accel.memory_regions:
        guest.root.add(Region.device("apic-msi", region, size), base, 1)
    started(guest)
    with guest.lock:
        Dma(guest.memory, registers=True).write(MSI_ADDRESS, (0x41).to_bytes(4, "little"))
    assert guest.until(lambda: 0x33 in guest.logged)


def test_message_to_a_processor_that_is_not_there_is_not_delivered(pc: type[Pc]) -> None:
    guest = started(pc(MSI41))
    assert guest.accel.signal_msi(MSI_ADDRESS | 7 << 12, 0x41) <= 0


def test_irqfd_interrupts_without_our_help(pc: type[Pc]) -> None:
    guest = started(pc(IRQ5))
    notifier = Notifier()
    assert guest.accel.add_irqfd(5, notifier.fileno())
    notifier.notify()
    assert guest.until(lambda: 0x33 in guest.logged)


def test_irqfd_of_a_message_route_interrupts_its_vector(pc: type[Pc]) -> None:
    guest = started(pc(MSI41))
    gsi = guest.accel.add_msi_route(MSI_ADDRESS, 0x41)
    notifier = Notifier()
    assert gsi >= 24
    assert guest.accel.add_irqfd(gsi, notifier.fileno())
    notifier.notify()
    assert guest.until(lambda: 0x33 in guest.logged)


def test_end_of_a_level_interrupt_is_told_to_our_own_ioapic(pc: type[Pc]) -> None:
    ended: list[int] = []
    level = 1 << 15 | 1 << 14
    guest = pc(MSI41, irqchip="split")
    guest.accel.set_eoi_handler(PyIrqSink(lambda vector, level: ended.append(vector)))
    started(guest)
    for n in range(3):
        guest.accel.signal_msi(MSI_ADDRESS, 0x41 | level)
        assert guest.until(lambda n=n: len(ended) > n)
    assert ended == [0x41] * 3


def test_routes_of_many_level_messages_stay_within_the_pins(pc: type[Pc]) -> None:
    guest = started(pc(MSI41, irqchip="split"))
    for vector in range(0x20, 0x60):
        guest.accel.signal_msi(MSI_ADDRESS | 9 << 12, vector | 0xC000)
    assert set(guest.accel.irqchip.table()) == set(range(24))


def test_irqfd_taken_back_does_nothing(pc: type[Pc]) -> None:
    guest = started(pc(IRQ5))
    notifier = Notifier()
    guest.accel.add_irqfd(5, notifier.fileno())
    guest.accel.remove_irqfd(5, notifier.fileno())
    notifier.notify()
    assert not guest.until(lambda: 0x33 in guest.logged, 0.05)


def test_ioeventfd_takes_the_write_and_no_region_sees_it(pc: type[Pc]) -> None:
    seen: list[int] = []
    guest = pc("b80700 e790 b80800 e790 b05a e6f4")  # out 90h, ax with 7, then with 8
    guest.port(0x90, 2, write=lambda offset, size, value: seen.append(value))
    notifier = Notifier()
    assert guest.accel.add_ioeventfd(guest.io, 0x90, 2, notifier, 7)
    guest.run()
    assert seen == [8]
    assert int.from_bytes(os.read(notifier.fileno(), 8), "little") == 1


def test_ioeventfd_in_memory_and_taken_back(pc: type[Pc]) -> None:
    seen: list[int] = []
    guest = pc("b800d0 8ed8 c70610000100 b001 e6f4 c70610000200 b002 e6f4")
    guest.mmio(0xD0000, write=lambda offset, size, value: seen.append(value))
    notifier = Notifier()
    assert guest.accel.add_ioeventfd(guest.memory, 0xD0010, 2, notifier)
    guest.run()
    guest.accel.remove_ioeventfd(guest.memory, 0xD0010, 2, notifier)
    guest.go()
    assert seen == [2]


def test_a_kick_by_ioeventfd_reaches_the_io_thread(pc: type[Pc]) -> None:
    guest = pc("b80700 e790 b05a e6f4")
    kicks: list[int] = []
    notifier, thread = Notifier(), IoThread(guest.lock)

    def kicked(events: int) -> None:
        notifier.drain()
        kicks.append(1)

    handler = PyIoHandler(notifier.fileno(), kicked)
    thread.add(handler)
    thread.start()
    assert guest.accel.add_ioeventfd(guest.io, 0x90, 2, notifier)
    guest.run()
    assert guest.until(lambda: kicks == [1])
    thread.close()


@pytest.mark.parametrize("irqchip", ["off", "split"])
def test_our_own_8259a_interrupts_through_intr(pc: type[Pc], irqchip: str) -> None:
    guest = pc(IRQ5, irqchip=irqchip)
    intr = guest.accel.cpu_input("intr")

    def acknowledge() -> int:
        intr.drive(0, 0)
        return 0x2D

    guest.accel.set_int_ack(PyIntAck(acknowledge))
    started(guest)
    intr.drive(0, 1)
    assert guest.until(lambda: 0x22 in guest.logged)
    assert guest.logged == [0x11, 0x33, 0x22]


@pytest.mark.parametrize("irqchip", ["off", "split"])
def test_intr_waits_until_the_guest_takes_interrupts(pc: type[Pc], irqchip: str) -> None:
    # IVT entry 2dh, interrupts off, log 11h, a long loop, log 12h, sti, log 22h; the handler logs 33h.
    code = (
        "fa 31c0 8ed8 8ed0 bc0070 c706b4003000 c706b60000f0 b011 e680 b9204e e2fe b012 e680 fb b022 e680 f4"
    )
    guest = pc(code, irqchip=irqchip, rom={0x30: "b033 e680 cf"})
    intr = guest.accel.cpu_input("intr")

    def acknowledge() -> int:
        intr.drive(0, 0)
        return 0x2D

    guest.accel.set_int_ack(PyIntAck(acknowledge))
    started(guest)
    intr.drive(0, 1)
    assert guest.until(lambda: 0x33 in guest.logged)
    assert guest.logged.index(0x33) > guest.logged.index(0x12)


def test_no_vector_from_our_own_chip_means_no_interrupt(pc: type[Pc]) -> None:
    guest = pc(IRQ5, irqchip="off")
    guest.accel.set_int_ack(PyIntAck(lambda: -1))
    started(guest)
    guest.accel.cpu_input("intr").drive(0, 1)
    assert not guest.until(lambda: 0x33 in guest.logged, 0.05)


@pytest.mark.parametrize("irqchip", ["off", "split"])
def test_nmi_ends_a_halt(pc: type[Pc], irqchip: str) -> None:
    # nmi handler at f000:0020: out 80h, 33h; iret. main: vector 2, log 11h, hlt
    guest = pc(
        "fa 31c0 8ed8 8ed0 bc0070 c70608002000 c7060a0000f0 b011 e680 f4" + "90" * 5 + "b033 e680 cf",
        irqchip=irqchip,
    )
    started(guest)
    guest.accel.cpu_input("nmi").drive(0, 1)
    assert guest.until(lambda: 0x33 in guest.logged)


def test_timer_in_the_kernel_ticks(pc: type[Pc]) -> None:
    # Channel 0, mode 2, count 1000h, latched and read twice: the high byte of the count moves.
    guest = pc(
        PROTECTED + "b034 e643 b000 e640 b010 e640 b900100000 e2fe b000 e643 e440 e440 e680" + PROTECTED_DONE
    )
    guest.accel.irqchip.want_pit = True
    guest.run()
    assert guest.logged[0] < 0x10
