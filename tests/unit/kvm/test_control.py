"""Pausing, kicking, many processors, reset, state."""

from __future__ import annotations

import time

import pytest
from accel.api import DeviceLock, PyIoRegion
from accel.ram import RamBlock
from accel.run import RunControl
from accel.space import AddressSpace, Region

from accel.errors import AccelFailure
from accel.kvm import vm
from accel.kvm.accelerator import KvmAccelerator
from tests.unit.kvm.guests import IRQ5, OTHER, START_OTHERS
from tests.unit.kvm.pc import EXIT, Pc

pytestmark = pytest.mark.kvm

SPIN = "ebfe"  # jmp $
COUNT = "31c0 8ed8 ff060005 ebfa"  # inc word [500h] for ever


def test_processor_does_not_run_before_start(pc: type[Pc]) -> None:
    guest = pc("b042 e680 f4")
    guest.cpus()
    assert not guest.until(lambda: guest.logged, 0.05)


def test_paused_guest_stands_still_and_goes_on(pc: type[Pc]) -> None:
    guest = pc(COUNT)
    guest.cpus()
    guest.accel.start()
    assert guest.until(lambda: guest.ram.read(0x500, 2) != b"\0\0")
    guest.accel.stop()
    before = guest.ram.read(0x500, 2)
    time.sleep(0.02)
    assert guest.ram.read(0x500, 2) == before
    guest.accel.start()
    assert guest.until(lambda: guest.ram.read(0x500, 2) != before)


@pytest.mark.parametrize("code", [SPIN, "f4", COUNT])
@pytest.mark.parametrize("irqchip", ["on", "off"])
def test_stop_is_quick_whatever_the_guest_does(pc: type[Pc], code: str, irqchip: str) -> None:
    guest = pc(code, irqchip=irqchip)
    guest.cpus()
    taken = []
    for _ in range(50):
        guest.accel.start()
        time.sleep(0.0005)
        began = time.perf_counter()
        guest.accel.stop()
        taken.append(time.perf_counter() - began)
    # 0.03 ms on an idle host; the bound only tells a kick from a timer of the scheduler
    assert sorted(taken)[25] < 0.05


def test_many_starts_and_stops_lose_no_kick(pc: type[Pc]) -> None:
    guest = pc(COUNT)
    guest.cpus(2)
    for _ in range(1000):
        before = guest.ram.read(0x500, 2)
        guest.accel.start()
        assert guest.until(lambda: guest.ram.read(0x500, 2) != before)  # noqa: B023
        guest.accel.stop()
        stopped = guest.ram.read(0x500, 2)
        assert not guest.control.running and guest.ram.read(0x500, 2) == stopped


def test_port_read_is_finished_before_the_guest_stands_still(pc: type[Pc]) -> None:
    guest = pc("e4f5 e680 ebfa")
    guest.port(0xF5, read=lambda offset, size: 0x42)
    guest.cpus()
    for _ in range(20):
        guest.accel.start()
        time.sleep(0.001)
        guest.accel.stop()
        regs = guest.accel.save_vcpu(0)["regs"]
        assert regs["rip"] != 2 or regs["rax"] & 0xFF == 0x42


def test_halted_processor_stays_halted_over_a_pause(pc: type[Pc]) -> None:
    guest = pc("f4 b042 e680", irqchip="off")
    guest.cpus()
    for _ in range(3):
        guest.accel.start()
        time.sleep(0.01)
        guest.accel.stop()
    assert guest.logged == []


def test_signals_of_the_process_stay_with_the_main_thread(pc: type[Pc]) -> None:
    import os
    import signal

    guest = pc(SPIN)
    guest.cpus(4)
    guest.accel.start()
    caught: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: caught.append(number))
    try:
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert guest.until(lambda: caught)
            caught.clear()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_threads_have_the_names_of_their_processors(pc: type[Pc]) -> None:
    import pathlib

    guest = pc()
    guest.cpus(2)
    names = [path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
    assert {"CPU 0/KVM", "CPU 1/KVM"} <= set(names)


def test_stop_from_a_processors_own_thread_is_refused(pc: type[Pc]) -> None:
    caught: list[Exception] = []

    def write(offset: int, size: int, value: int) -> int:
        try:
            guest.control.stop()
        except RuntimeError as exc:
            caught.append(exc)
        return EXIT

    guest = pc("e690 f4")
    guest.port(0x90, write=write)
    guest.run()
    assert len(caught) == 1


@pytest.mark.parametrize("count", [2, 8, 64, 255])
def test_processors_started_by_init_and_sipi_count_themselves(pc: type[Pc], count: int) -> None:
    guest = pc("ea 0010 00f0" + "90" * 3, rom={0: OTHER, 0x1000: "90"})
    # The vector of a SIPI is a page number: f0h leads to f000:0000, so the first processor starts elsewhere.
    code = bytes.fromhex(START_OTHERS)
    moved = code.replace(bytes.fromhex("18000f20c0"), bytes.fromhex("18100f20c0"))
    moved = moved.replace(bytes.fromhex("66ea38000f00"), bytes.fromhex("66ea38100f00"))
    moved = moved.replace(bytes.fromhex("170020000f00"), bytes.fromhex("170020100f00"))
    guest.rom.write(0x1000, moved)
    guest.rom.write(0xFFF0, bytes.fromhex("ea 0010 00f0"))
    guest.ram.write(0x600, (count - 1).to_bytes(2, "little"))
    assert guest.run(count, seconds=60) == EXIT
    assert int.from_bytes(guest.ram.read(0x500, 2), "little") == count - 1
    began = time.perf_counter()
    guest.accel.start()
    guest.accel.stop()
    assert time.perf_counter() - began < 5


def test_others_wait_for_init_after_a_reset(pc: type[Pc]) -> None:
    guest = pc("b042 e680 b05a e6f4")
    guest.run(4)
    guest.accel.reset_vcpus()
    guest.go()
    assert guest.logged == [0x42, 0x42]


def test_reset_gives_the_state_of_power_on(pc: type[Pc]) -> None:
    guest = pc("b81111 89c3 89c6 0f20c0 0c20 0f22c0 b900 0c b05a e6f4")
    guest.cpus()
    fresh = guest.accel.save_vcpu(0)
    guest.go()
    used = guest.accel.save_vcpu(0)
    guest.accel.reset_vcpus()
    again = guest.accel.save_vcpu(0)
    moving = {0x10, 0x12, 0x4B564D01, 0x6E0, 0x11, 0x3B}
    assert used["regs"] != fresh["regs"]
    for part in ("regs", "sregs", "mp_state", "lapic", "xcrs", "debugregs"):
        assert again[part] == fresh[part], part
    assert {n: v for n, v in again["msrs"].items() if n not in moving} == {
        n: v for n, v in fresh["msrs"].items() if n not in moving
    }


def test_state_saved_and_loaded_is_the_same(pc: type[Pc]) -> None:
    guest = pc("b83412 89c3 b05a e6f4")
    guest.run()
    state = guest.accel.save_vcpu(0)
    guest.accel.reset_vcpus()
    guest.accel.load_vcpu(0, state)
    again = guest.accel.save_vcpu(0)
    assert again["regs"] == state["regs"]
    assert again["regs"]["rbx"] == 0x1234
    assert again["sregs"] == state["sregs"]


def test_chip_state_is_kept_over_save_and_load(pc: type[Pc]) -> None:
    guest = pc(IRQ5)
    guest.cpus()
    guest.accel.start()
    assert guest.until(lambda: 0x11 in guest.logged)
    guest.accel.stop()
    chips = guest.accel.irqchip
    before = chips.get_chip("pic0")
    assert (before["imr"], before["irq_base"]) == (0xDF, 0x28)
    chips.set_chip("pic0", chips.get_chip("pic1"))
    chips.set_chip("pic0", before)
    assert chips.get_chip("pic0") == before


def test_request_from_outside_wakes_the_main_loop() -> None:
    control = RunControl()
    control.ask(4)
    control.ask(1)
    assert control.take() == 5
    assert control.take() == 0


def test_two_processors_with_one_apic_id_are_refused(pc: type[Pc]) -> None:
    guest = pc()
    guest.accel.create_vcpu(0, 0, [])
    with pytest.raises(AccelFailure, match="cannot create processor 1"):
        guest.accel.create_vcpu(1, 0, [])


def test_more_processors_than_kvm_runs_are_refused(pc: type[Pc]) -> None:
    guest = pc()
    most = guest.accel.vm.extension_named("max_vcpus")
    with pytest.raises(AccelFailure, match="at most"):
        guest.accel.create_vcpu(most, most, [])


def test_apic_id_for_everybody_is_refused(pc: type[Pc]) -> None:
    with pytest.raises(AccelFailure, match="APIC id is 255"):
        pc().accel.create_vcpu(1, 255, [])


def test_impossible_cpuid_is_refused_and_the_thread_ends(pc: type[Pc]) -> None:
    import os

    guest = pc()
    before = len(os.listdir("/proc/self/task"))
    leaf = {"function": 1, "index": 0, "flags": 0, "eax": 0, "ebx": 0, "ecx": 0, "edx": 0}
    with pytest.raises(AccelFailure, match="CPUID"):
        guest.accel.create_vcpu(0, 0, [leaf] * 5000)
    assert guest.until(lambda: len(os.listdir("/proc/self/task")) == before)


def test_variable_mtrrs_are_cleared_by_a_reset(pc: type[Pc]) -> None:
    # wrmsr 200h: eax = 80000006h, edx = 0
    guest = pc("66b900020000 66b806000080 66ba00000000 0f30 b05a e6f4")
    guest.run(cpuid=guest.accel.supported_cpuid())
    assert guest.accel.save_vcpu(0)["msrs"].get(0x200) in (0x80000006, None)
    guest.accel.reset_vcpus()
    assert guest.accel.save_vcpu(0)["msrs"].get(0x200, 0) == 0


def test_layout_changes_while_many_processors_run(pc: type[Pc]) -> None:
    # All run from RAM at 700h: a fetch while its slot is away would end them.
    guest = pc("ea 0007 0000", ram=0x80000)
    guest.ram.write(0x700, bytes.fromhex("31c0 8ed8 ff060005 ebfa"))
    guest.cpus(4)
    for cpu in range(1, 4):
        guest.accel.load_vcpu(cpu, {"mp_state": 0, "regs": guest.accel.save_vcpu(0)["regs"]})
    guest.accel.start()
    over = RamBlock("over", 0x1000)
    for _ in range(200):
        with guest.lock:
            region = guest.root.add(Region.ram("over", over), 0x40000, 1)
        with guest.lock:
            guest.root.remove(region)
    guest.accel.stop()
    assert guest.control.take_reports() == []


def test_closed_machine_refuses_instead_of_crashing(pc: type[Pc]) -> None:
    guest = pc()
    guest.run(seconds=0.01)
    cpu = guest.accel.vcpus[0]
    intr, sink = guest.accel.cpu_input("intr"), guest.accel.irq_sink(24)
    guest.close()
    for call in (cpu.describe, cpu.reset, lambda: cpu.save([]), lambda: guest.accel.vm.get_clock()):
        with pytest.raises(AccelFailure):
            call()
    intr.drive(0, 1)
    sink.drive(5, 1)
    assert guest.accel.drain() == 0
    assert guest.accel.signal_msi(0xFEE00000, 0x41) < 0


def test_unknown_mode_of_the_chip_is_refused() -> None:
    with pytest.raises(AccelFailure, match="kernel_irqchip"):
        Pc(irqchip="maybe")


def test_no_kvm_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "DEVICE", "/dev/kvm-that-is-not-there")
    ok, reason, remedy = KvmAccelerator.probe()
    assert not ok
    assert "/dev/kvm-that-is-not-there" in reason
    assert "modprobe" in remedy


def test_file_that_is_not_kvm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "DEVICE", "/dev/null")
    ok, reason, _ = KvmAccelerator.probe()
    assert not ok
    assert "API version" in reason


def test_failed_build_leaves_nothing_open() -> None:
    import os

    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(AccelFailure):
            Pc(irqchip="maybe")
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_closing_gives_every_descriptor_and_thread_back() -> None:
    import os

    before, threads = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    for _ in range(3):
        guest = Pc("f4")
        guest.run(4, seconds=0.01)
        guest.close()
        del guest
    import gc

    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert len(os.listdir("/proc/self/task")) <= threads


def test_python_handlers_on_two_processors_do_not_deadlock_with_stop(pc: type[Pc]) -> None:
    guest = pc("e690 ebfc")
    guest.port(0x90, write=lambda offset, size, value: None)
    guest.cpus(1)
    for _ in range(100):
        guest.accel.start()
        guest.accel.stop()
    assert guest.control.take_reports() == []


def test_probe_needs_no_machine() -> None:
    lock, control = DeviceLock(), RunControl()
    memory = AddressSpace("memory", Region.container("memory", 0))
    io = AddressSpace("io", Region.container("io", 65536), ports=True)
    accel = KvmAccelerator(memory, io, lock, control, {})
    assert "kvm-pit" in accel.in_kernel
    assert PyIoRegion("unused").name == "unused"
    accel.close()
    accel.close()
