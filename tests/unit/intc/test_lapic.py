"""Local APIC. Register offsets, modes and error bits are those of Intel SDM vol. 3, chapter 11."""

import pytest
from accel.api import PyIrqSink
from accel.clock import SteppedClock, TimerQueue
from accel.cpuport import PyCpuPort
from accel.run import PyIntAck
from vmrun.devices.intc.lapic import ApicBus, ApicWindow, Lapic

from vmrun.errors import StateError

ID, VERSION, TPR, PPR, EOI, LDR, DFR, SVR = 0x20, 0x30, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0
ISR, TMR, IRR, ESR, ICR_LOW, ICR_HIGH = 0x100, 0x180, 0x200, 0x280, 0x300, 0x310
LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR = 0x320, 0x350, 0x360, 0x370
INITIAL, CURRENT, DIVIDE = 0x380, 0x390, 0x3E0
MASKED = 0x10000
APIC_BASE, TSC_DEADLINE, X2APIC = 0x1B, 0x6E0, 0x800


class Board:
    """`count` processors with their APICs enabled; `events` is what reached the processors' pins."""

    def __init__(self, count=1, enable=True):
        self.clock = SteppedClock()
        self.timers = TimerQueue(self.clock)
        self.bus = ApicBus()
        self.events = []
        self.eois = []
        self.bus.set_eoi_handler(PyIrqSink(lambda vector, level: self.eois.append(vector)))
        self.apics = []
        for n in range(count):
            apic = Lapic(self.bus, self.clock, self.timers, n, n == 0)
            apic.port = PyCpuPort(lambda event, value, n=n: self.events.append((n, event, value)))
            apic.x2apic_allowed = apic.deadline_allowed = True
            if enable:
                apic.write_register(SVR, 0x1FF)
            self.apics.append(apic)

    def step(self, ns):
        self.clock.set_time(self.clock.time() + ns)
        self.timers.run()

    def fixed(self, vector, dest=0, level=False):
        return self.bus.signal(0xFEE00000 | dest << 12, vector | (0xC000 if level else 0))


@pytest.fixture
def board():
    return Board()


def test_registers_after_reset():
    apic = Board(enable=False).apics[0]
    assert apic.read_register(VERSION) == 0x00050014
    assert apic.read_register(SVR) == 0xFF
    assert apic.read_register(DFR) == 0xFFFFFFFF
    assert apic.read_register(LVT_TIMER) == MASKED
    assert apic.read_msr(APIC_BASE) == 0xFEE00900


def test_first_processor_takes_extint_after_reset_others_mask_it():
    board = Board(2, enable=False)
    assert [a.read_register(LVT_LINT0) for a in board.apics] == [0x700, MASKED]


def test_fixed_interrupt_raises_intr_and_gives_its_vector(board):
    assert board.fixed(0x51) == 1
    assert board.events == [(0, "intr", 1)]
    assert board.apics[0].ack() == 0x51
    assert board.events[-1] == (0, "intr", 0)
    assert board.apics[0].read_register(ISR + 0x20) == 1 << 0x11


def test_higher_class_preempts_and_lower_waits_for_eoi(board):
    apic = board.apics[0]
    board.fixed(0x51)
    assert apic.ack() == 0x51
    board.fixed(0x41)
    assert apic.ack() == -1
    board.fixed(0x61)
    assert apic.ack() == 0x61
    apic.write_register(EOI, 0)
    assert apic.ack() == -1
    apic.write_register(EOI, 0)
    assert apic.ack() == 0x41


def test_same_class_does_not_preempt(board):
    apic = board.apics[0]
    board.fixed(0x51)
    apic.ack()
    board.fixed(0x5F)
    assert apic.ack() == -1


@pytest.mark.parametrize(("tpr", "vector"), [(0x50, -1), (0x5F, -1), (0x4F, 0x51)])
def test_task_priority_holds_its_class_and_below(board, tpr, vector):
    board.apics[0].tpr = tpr
    board.fixed(0x51)
    assert board.apics[0].ack() == vector


def test_ppr_is_the_class_in_service_above_tpr(board):
    apic = board.apics[0]
    apic.tpr = 0x23
    assert apic.read_register(PPR) == 0x23
    board.fixed(0x51)
    apic.ack()
    assert apic.read_register(PPR) == 0x50


def test_eoi_of_level_interrupt_is_broadcast_and_of_edge_is_not(board):
    apic = board.apics[0]
    board.fixed(0x60, level=True)
    assert apic.read_register(TMR + 0x30) == 1
    apic.ack()
    apic.write_register(EOI, 0)
    board.fixed(0x60)
    apic.ack()
    apic.write_register(EOI, 0)
    assert board.eois == [0x60]


def test_disabled_apic_takes_no_fixed_interrupt_but_nmi():
    board = Board(enable=False)
    assert board.fixed(0x51) == 0
    assert board.bus.signal(0xFEE00000, 0x400) == 1
    assert board.events == [(0, "nmi", 1)]


def test_software_disable_masks_every_lvt(board):
    apic = board.apics[0]
    apic.write_register(LVT_TIMER, 0x40)
    apic.write_register(SVR, 0xFF)
    assert apic.read_register(LVT_TIMER) == MASKED | 0x40
    apic.write_register(LVT_ERROR, 0x41)
    assert apic.read_register(LVT_ERROR) == MASKED | 0x41


def test_illegal_vector_received_is_an_error_shown_after_a_write_to_esr(board):
    board.fixed(0x0F)
    assert board.apics[0].read_register(ESR) == 0
    board.apics[0].write_register(ESR, 0)
    assert board.apics[0].read_register(ESR) == 0x40
    board.apics[0].write_register(ESR, 0)
    assert board.apics[0].read_register(ESR) == 0


def test_illegal_register_raises_error_interrupt(board):
    apic = board.apics[0]
    apic.write_register(LVT_ERROR, 0xFE)
    apic.write_register(0x3A0, 1)
    assert apic.ack() == 0xFE
    apic.write_register(ESR, 0)
    assert apic.read_register(ESR) == 0x80


def test_ipi_with_illegal_vector_is_not_sent(board):
    apic = board.apics[0]
    apic.write_register(ICR_LOW, 0x40003)
    apic.write_register(ESR, 0)
    assert apic.read_register(ESR) == 0x20
    assert board.events == []


@pytest.mark.parametrize(
    ("icr", "targets"),
    [(0x40000, {0}), (0x80000, {0, 1, 2, 3}), (0xC0000, {1, 2, 3})],
    ids=["self", "all", "all-but-self"],
)
def test_shorthands(icr, targets):
    board = Board(4)
    board.apics[0].write_register(ICR_LOW, icr | 0x51)
    assert {n for n, a in enumerate(board.apics) if a.ack() == 0x51} == targets


def test_physical_destination_reaches_one_and_ff_reaches_all():
    board = Board(3)
    board.apics[0].write_register(ICR_HIGH, 2 << 24)
    board.apics[0].write_register(ICR_LOW, 0x51)
    assert [a.ack() for a in board.apics] == [-1, -1, 0x51]
    board.apics[0].write_register(ICR_HIGH, 0xFF << 24)
    board.apics[0].write_register(ICR_LOW, 0x61)
    assert [a.ack() for a in board.apics] == [0x61, 0x61, 0x61]


def test_logical_flat_destination_is_a_mask():
    board = Board(3)
    for n, apic in enumerate(board.apics):
        apic.write_register(LDR, 1 << (24 + n))
    board.apics[0].write_register(ICR_HIGH, 0b101 << 24)
    board.apics[0].write_register(ICR_LOW, 0x851)
    assert [a.ack() for a in board.apics] == [0x51, -1, 0x51]


def test_logical_cluster_destination_is_cluster_and_mask():
    board = Board(3)
    for apic, ldr in zip(board.apics, (0x11, 0x12, 0x21), strict=True):
        apic.write_register(DFR, 0)
        apic.write_register(LDR, ldr << 24)
    board.apics[0].write_register(ICR_HIGH, 0x13 << 24)
    board.apics[0].write_register(ICR_LOW, 0x851)
    assert [a.ack() for a in board.apics] == [0x51, 0x51, -1]


def test_lowest_priority_goes_to_the_processor_with_the_lowest_ppr():
    board = Board(3)
    for n, apic in enumerate(board.apics):
        apic.write_register(LDR, 1 << (24 + n))
        apic.tpr = (0x30, 0x10, 0x20)[n]
    board.bus.signal(0xFEE00000 | 7 << 12 | 4, 0x151)
    assert [a.ack() for a in board.apics] == [-1, 0x51, -1]


def test_lowest_priority_takes_turns_among_equals():
    board = Board(2)
    for n, apic in enumerate(board.apics):
        apic.write_register(LDR, 1 << (24 + n))
    for vector in (0x51, 0x61):
        board.bus.signal(0xFEE00000 | 3 << 12 | 4, 0x100 | vector)
    assert {a.ack() for a in board.apics} == {0x51, 0x61}


def test_init_sipi_starts_another_processor():
    board = Board(2)
    board.apics[0].write_register(ICR_HIGH, 1 << 24)
    board.apics[0].write_register(ICR_LOW, 0x4500)
    board.apics[0].write_register(ICR_LOW, 0x8500)      # de-assert is nothing
    board.apics[0].write_register(ICR_LOW, 0x4608)
    assert board.events == [(1, "init", 1), (1, "sipi", 8)]


def test_init_resets_the_apic_but_not_its_id():
    board = Board(2)
    board.apics[1].write_register(ID, 7 << 24)
    board.bus.signal(0xFEE07000, 0x500)
    assert board.apics[1].read_register(SVR) == 0xFF
    assert board.apics[1].read_register(ID) == 7 << 24


def test_nmi_and_smi_ipis_reach_their_pins():
    board = Board(2)
    board.apics[0].write_register(ICR_HIGH, 1 << 24)
    board.apics[0].write_register(ICR_LOW, 0x4400)
    board.apics[0].write_register(ICR_LOW, 0x4200)
    assert board.events == [(1, "nmi", 1), (1, "smi", 1)]


def test_extint_through_lint0_takes_the_vector_of_the_8259a(board):
    apic = board.apics[0]
    apic.pic = PyIntAck(lambda: 0x08)
    apic.write_register(LVT_LINT0, 0x700)
    apic.drive(0, 1)
    assert board.events == [(0, "intr", 1)]
    assert apic.ack() == 0x08
    apic.drive(0, 0)
    assert board.events[-1] == (0, "intr", 0)


def test_masked_lint0_keeps_the_8259a_out(board):
    board.apics[0].write_register(LVT_LINT0, MASKED | 0x700)
    board.apics[0].drive(0, 1)
    assert board.events == []


def test_disabled_apic_leaves_intr_to_the_8259a(board):
    apic = board.apics[0]
    apic.pic = PyIntAck(lambda: 0x70)
    assert apic.write_msr(APIC_BASE, 0xFEE00100)
    apic.drive(0, 1)
    assert apic.ack() == 0x70


def test_lint1_as_nmi(board):
    board.apics[0].write_register(LVT_LINT1, 0x400)
    board.apics[0].drive(1, 1)
    assert board.events == [(0, "nmi", 1)]


@pytest.mark.parametrize(
    ("code", "divider"), [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)]
)
def test_divide_configuration(board, code, divider):
    apic = board.apics[0]
    apic.write_register(DIVIDE, code)
    apic.write_register(INITIAL, 1000)
    board.step(10 * divider)
    assert apic.read_register(CURRENT) == 990


def test_one_shot_interrupts_once_at_its_time(board):
    apic = board.apics[0]
    apic.write_register(LVT_TIMER, 0x40)
    apic.write_register(DIVIDE, 0xB)
    apic.write_register(INITIAL, 1_000_000)
    board.step(999_999)
    assert apic.ack() == -1
    board.step(1)
    assert apic.ack() == 0x40
    apic.write_register(EOI, 0)
    board.step(10_000_000)
    assert apic.ack() == -1
    assert apic.read_register(CURRENT) == 0


def test_a_one_shot_that_is_due_comes_although_its_divider_is_written_before(board):
    apic = board.apics[0]
    apic.write_register(LVT_TIMER, 0x40)
    apic.write_register(DIVIDE, 0xB)
    apic.write_register(INITIAL, 1_000_000)
    board.clock.set_time(board.clock.time() + 1_500_000)        # whoever runs the timers is late
    apic.write_register(DIVIDE, 0xB)
    board.timers.run()
    assert apic.ack() == 0x40


def test_periodic_timer_keeps_its_phase(board):
    apic = board.apics[0]
    apic.write_register(LVT_TIMER, 0x20040)
    apic.write_register(DIVIDE, 0xB)
    apic.write_register(INITIAL, 1_000_000)
    board.step(1_400_000)
    assert apic.ack() == 0x40
    apic.write_register(EOI, 0)
    assert apic.read_register(CURRENT) == 600_000
    board.step(599_999)
    assert apic.ack() == -1
    board.step(1)
    assert apic.ack() == 0x40


def test_thousand_periods_give_a_thousand_interrupts(board):
    apic, count = board.apics[0], 0
    apic.write_register(LVT_TIMER, 0x20040)
    apic.write_register(DIVIDE, 0xB)
    apic.write_register(INITIAL, 1_000_000)
    for _ in range(1000):
        board.step(1_000_000)
        count += apic.ack() == 0x40
        apic.write_register(EOI, 0)
    assert count == 1000


def test_tiny_period_cannot_flood_the_host(board):
    apic = board.apics[0]
    apic.write_register(LVT_TIMER, 0x20040)
    apic.write_register(DIVIDE, 0xB)
    apic.write_register(INITIAL, 1)
    board.step(50_000)
    assert board.timers.deadline() >= board.clock.time() + 50_000


def test_writing_zero_stops_the_timer(board):
    board.apics[0].write_register(INITIAL, 1000)
    board.apics[0].write_register(INITIAL, 0)
    assert board.timers.deadline() == -1


def test_tsc_deadline_fires_once_and_reads_zero(board):
    apic = board.apics[0]
    apic.write_register(LVT_TIMER, 0x40040)
    assert apic.write_msr(TSC_DEADLINE, 5000)
    assert apic.read_msr(TSC_DEADLINE) == 5000
    board.step(5000)
    assert apic.ack() == 0x40
    assert apic.read_msr(TSC_DEADLINE) == 0


def test_deadline_outside_its_mode_is_ignored(board):
    assert board.apics[0].write_msr(TSC_DEADLINE, 5000)
    assert board.apics[0].read_msr(TSC_DEADLINE) == 0


def test_x2apic_needs_enable_and_cannot_go_back():
    apic = Board().apics[0]
    assert apic.read_msr(X2APIC + 0x02) is None
    assert not apic.write_msr(APIC_BASE, 0xFEE00500)
    assert apic.write_msr(APIC_BASE, 0xFEE00D00)
    assert not apic.write_msr(APIC_BASE, 0xFEE00900)
    assert apic.write_msr(APIC_BASE, 0xFEE00100)
    assert not apic.write_msr(APIC_BASE, 0xFEE00D00)
    assert apic.write_msr(APIC_BASE, 0xFEE00900)


def test_x2apic_refused_where_the_model_has_none(board):
    board.apics[0].x2apic_allowed = False
    assert not board.apics[0].write_msr(APIC_BASE, 0xFEE00D00)


@pytest.fixture
def wide():
    board = Board(20)
    for n, apic in enumerate(board.apics):
        assert apic.write_msr(APIC_BASE, 0xFEE00C00 | (0x100 if n == 0 else 0))
    return board


def test_x2apic_id_and_logical_id(wide):
    assert wide.apics[17].read_msr(X2APIC + 0x02) == 17
    assert wide.apics[17].read_msr(X2APIC + 0x0D) == 1 << 16 | 1 << 1


def test_x2apic_ipi_is_one_write(wide):
    assert wide.apics[0].write_msr(X2APIC + 0x30, 19 << 32 | 0x51)
    assert [n for n, a in enumerate(wide.apics) if a.ack() == 0x51] == [19]


def test_x2apic_logical_ipi_names_cluster_and_members(wide):
    assert wide.apics[0].write_msr(X2APIC + 0x30, (1 << 16 | 0b1010) << 32 | 0x851)
    assert [n for n, a in enumerate(wide.apics) if a.ack() == 0x51] == [17, 19]


def test_x2apic_broadcast(wide):
    assert wide.apics[3].write_msr(X2APIC + 0x30, 0xFFFFFFFF << 32 | 0x51)
    assert all(a.ack() == 0x51 for a in wide.apics)


def test_x2apic_self_ipi(wide):
    assert wide.apics[5].write_msr(X2APIC + 0x3F, 0x51)
    assert wide.apics[5].ack() == 0x51


@pytest.mark.parametrize(
    ("n", "value"),
    [(0x02, 0), (0x03, 0), (0x0B, 1), (0x0D, 0), (0x0E, 0), (0x31, 0), (0x08, 0x100), (0x20, 0), (0x3A, 0)],
)
def test_x2apic_illegal_writes_are_gp(wide, n, value):
    assert not wide.apics[0].write_msr(X2APIC + n, value)


@pytest.mark.parametrize("n", [0x0B, 0x0E, 0x31, 0x3F, 0x3A, 0x00, 0x09])
def test_x2apic_illegal_reads_are_gp(wide, n):
    assert wide.apics[0].read_msr(X2APIC + n) is None


def test_x2apic_hides_the_window(wide):
    assert wide.apics[0].read_register(VERSION) == 0xFFFFFFFF


def test_message_outside_the_window_is_refused(board):
    assert board.bus.signal(0xFED00000, 0x51) == -1


def test_window_write_past_its_first_page_is_a_message():
    board = Board(2)
    window = ApicWindow(board.bus, board.apics[0])
    window.store(0x1000, 4, 0x51)
    assert board.apics[1].ack() == 0x51
    window.store(TPR, 4, 0x20)
    assert board.apics[0].tpr == 0x20
    assert window.load(VERSION, 4) == 0x50014


def test_state_comes_back_with_the_timer_running():
    board, other = Board(), Board(enable=False)
    apic = board.apics[0]
    apic.write_register(LVT_TIMER, 0x20040)
    apic.write_register(DIVIDE, 0xB)
    apic.write_register(INITIAL, 1_000_000)
    board.step(250_000)
    board.fixed(0x61)
    other.apics[0].load_state(apic.save())
    assert other.apics[0].save() == apic.save()
    assert other.events == [(0, "intr", 1)]
    assert other.timers.deadline() == 750_000


@pytest.mark.parametrize("change", [{"tpr_value": 256}, {"lvt": [0] * 5}, {"irr": [1 << 32] * 8}, {"svr": None}])
def test_impossible_state_is_refused_unchanged(board, change):
    apic = board.apics[0]
    before = apic.save()
    with pytest.raises(StateError):
        apic.load_state({**before, **change})
    assert apic.save() == before


def test_deadline_that_is_past_fires_at_once(board):
    apic = board.apics[0]
    board.step(9000)
    apic.write_register(LVT_TIMER, 0x40040)
    assert apic.write_msr(TSC_DEADLINE, 5000)
    assert apic.read_msr(TSC_DEADLINE) == 0
    assert apic.ack() == 0x40


def test_one_shot_that_has_run_down_stays_so_when_it_is_made_periodic(board):
    apic = board.apics[0]
    apic.write_register(LVT_TIMER, 0x40)
    apic.write_register(DIVIDE, 0xB)
    apic.write_register(INITIAL, 1_000_000)
    board.step(1_000_000)
    assert apic.ack() == 0x40
    apic.write_register(EOI, 0)
    apic.write_register(LVT_TIMER, 0x20040)
    assert apic.read_register(CURRENT) == 0
    board.step(5_000_000)
    assert apic.ack() == -1
    apic.write_register(INITIAL, 1_000_000)
    board.step(1_000_000)
    assert apic.ack() == 0x40
