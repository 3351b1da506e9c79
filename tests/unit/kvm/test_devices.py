"""kvm-ioapic, kvm-i8259 and kvm-pit as devices of a board."""

from __future__ import annotations

import types
from typing import Any

import pytest
from accel.api import IrqFan

from tests.unit.kvm.guests import IRQ5, PROTECTED, PROTECTED_DONE
from tests.unit.kvm.pc import Pc
from vmrun.core.object import Device
from vmrun.devices.intc.kvm_irqchip import KvmI8259, KvmIoapic, KvmPit
from vmrun.errors import BuildError, StateError

pytestmark = pytest.mark.kvm

CASCADE = {
    "pic0": {"iobase": 0x20, "elcr_addr": 0x4D0, "elcr_mask": 0xF8, "master": True},
    "pic1": {"iobase": 0xA0, "elcr_addr": 0x4D1, "elcr_mask": 0xDE, "master": False},
}


def made(guest: Pc, cls: type[Device], **props: Any) -> Any:
    device = cls()
    device.set_props(props)
    device.realize(types.SimpleNamespace(accelerator=guest.accel))  # type: ignore[arg-type]
    return device


def board(guest: Pc) -> dict[str, Any]:
    """The four chips, with the wires of the i440FX board from a fan of GSIs."""
    chips = {
        "ioapic": made(guest, KvmIoapic),
        "pic0": made(guest, KvmI8259, **CASCADE["pic0"]),
        "pic1": made(guest, KvmI8259, **CASCADE["pic1"]),
        "pit": made(guest, KvmPit),
    }
    gsi = IrqFan("gsi", 24)
    for n in (0, 1, *range(3, 24)):
        gsi.connect(n, chips["ioapic"].inputs["in"], 2 if n == 0 else n)
        if n < 16:
            gsi.connect(n, chips["pic0" if n < 8 else "pic1"].inputs["in"], n & 7)
    chips["gsi"] = gsi
    return chips


def test_gsi_through_the_boards_wires_is_one_change_for_the_kernel(pc: type[Pc]) -> None:
    guest = pc(IRQ5)
    gsi = board(guest)["gsi"]
    guest.cpus()
    guest.accel.start()
    assert guest.until(lambda: 0x11 in guest.logged)
    gsi.drive(5, 1)
    gsi.drive(5, 0)
    assert guest.until(lambda: 0x22 in guest.logged)
    assert guest.logged.count(0x33) == 1
    assert guest.accel.irq_sink(24).deliveries == 2


def test_timer_is_pin_2_of_the_ioapic_and_input_0_of_the_8259a(pc: type[Pc]) -> None:
    guest = pc()
    chips = board(guest)
    guest.cpus()
    chips["gsi"].drive(0, 1)
    assert guest.accel.irqchip.get_chip("ioapic")["irr"] == 1 << 2
    assert guest.accel.irqchip.get_chip("pic0")["irr"] & 1


@pytest.mark.parametrize("gsi", [16, 23])
def test_gsi_above_15_reaches_the_ioapic_only(pc: type[Pc], gsi: int) -> None:
    guest = pc()
    chips = board(guest)
    guest.cpus()
    chips["gsi"].drive(gsi, 1)
    assert guest.accel.irqchip.get_chip("ioapic")["irr"] == 1 << gsi
    assert guest.accel.irqchip.get_chip("pic0")["irr"] | guest.accel.irqchip.get_chip("pic1")["irr"] == 0


@pytest.mark.parametrize("name", ["ioapic", "pic0", "pic1", "pit"])
def test_state_saved_loaded_and_saved_again_is_the_same(pc: type[Pc], name: str) -> None:
    guest = pc(IRQ5)
    chips = board(guest)
    guest.cpus()
    guest.accel.start()
    assert guest.until(lambda: 0x11 in guest.logged)
    guest.accel.stop()
    saved = chips[name].save()
    chips[name].reset()
    chips[name].load(saved)
    assert chips[name].save() == saved


@pytest.mark.parametrize("name", ["ioapic", "pic0", "pic1", "pit"])
def test_reset_gives_what_power_on_gave(pc: type[Pc], name: str) -> None:
    guest = pc(IRQ5)
    chips = board(guest)
    chips[name].reset()
    fresh = chips[name].save()
    guest.cpus()
    guest.accel.start()
    assert guest.until(lambda: 0x11 in guest.logged)
    guest.accel.stop()
    chips[name].reset()
    assert chips[name].save() == fresh


@pytest.mark.parametrize(
    "name, field, value",
    [
        ("pic0", "imr", 256),
        ("pic1", "irq_base", -1),
        ("pit", "channels", []),
        ("ioapic", "redirtbl", [1, 2]),
    ],
)
def test_impossible_state_is_refused_and_changes_nothing(
    pc: type[Pc], name: str, field: str, value: Any
) -> None:
    guest = pc()
    chips = board(guest)
    guest.cpus()
    before = chips[name].save()
    with pytest.raises(StateError, match=field):
        chips[name].load({**before, "registers": {**before["registers"], field: value}})
    assert chips[name].save() == before


@pytest.mark.parametrize(
    "cls, props",
    [(KvmIoapic, {"base": 0xFEC10000}), (KvmI8259, {"iobase": 0x30}), (KvmPit, {"iobase": 0x50})],
)
def test_address_that_the_kernel_does_not_know_is_refused(
    pc: type[Pc], cls: type[Device], props: dict[str, Any]
) -> None:
    with pytest.raises(BuildError, match="KVM has its"):
        made(pc(), cls, **props)


def test_chip_without_a_kernel_chip_is_refused(pc: type[Pc]) -> None:
    with pytest.raises(BuildError, match="kernel_irqchip"):
        made(pc(irqchip="split"), KvmPit)


def test_timer_exists_only_where_the_board_has_it(pc: type[Pc]) -> None:
    guest = pc()
    guest.cpus()
    assert not guest.accel.irqchip.pit_created


def test_speaker_port_shows_output_2_without_an_exit(pc: type[Pc]) -> None:
    # 61h: gate on; 43h: channel 2 mode 0; a short count; then poll bit 5 of 61h until it is up.
    guest = pc(PROTECTED + "b001 e661 b0b0 e643 b010 e642 b000 e642 e461 a820 74fa" + PROTECTED_DONE)
    board(guest)
    guest.run()
    assert guest.ended == [0x5A]
    assert guest.accel.vcpus[0].io_exits == 1


def test_counter_stands_still_while_the_machine_is_stopped(pc: type[Pc]) -> None:
    guest = pc("b034 e643 b000 e640 e640 b05a e6f4 f4")
    chips = board(guest)
    guest.run()
    frozen = chips["pit"].save()
    assert frozen["registers"]["channels"][0]["mode"] == 2
    guest.accel.start()
    guest.accel.stop()
    assert chips["pit"].save() == frozen
