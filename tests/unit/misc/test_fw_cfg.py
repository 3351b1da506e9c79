"""fw_cfg. Keys, directory and DMA block are those of QEMU's docs/specs/fw_cfg."""

import time

import pytest
from accel.aio import IoThread
from accel.api import DeviceLock
from accel.dma import Dma
from accel.ram import RamBlock
from accel.space import AddressSpace, Region
from hypothesis import given, settings
from hypothesis import strategies as st
from vmrun.devices.misc.fw_cfg_chip import FwCfg

from vmrun.errors import BuildError, StateError

ERROR, READ, SKIP, SELECT, WRITE = 1, 2, 4, 8, 16


class Board:
    def __init__(self, slots=32, dma=True, memory=1 << 20):
        self.ram = RamBlock("ram", memory)
        root = Region.container("system", 0)
        root.add(Region.ram("ram", self.ram), 0)
        self.space = AddressSpace("memory", root)
        self.chip = FwCfg(slots, Dma(self.space) if dma else None)
        ports = Region.container("io", 65536)
        ports.add(Region.device("fwcfg", self.chip, 2), 0x510)
        ports.add(Region.device("fwcfg.dma", self.chip.dma_port, 8), 0x514)
        self.io = AddressSpace("io", ports, True)

    def read(self, key, count):
        self.io.write(0x510, 2, key)
        return bytes(self.io.read(0x511, 1) for _ in range(count))

    def dma(self, control, length=0, address=0x8000, block=0x1000):
        """The control word that the device leaves."""
        data = control.to_bytes(4, "big") + length.to_bytes(4, "big") + address.to_bytes(8, "big")
        if block < 1 << 20:
            self.ram.write(block, data)
        swapped = block.to_bytes(8, "big")
        self.io.write(0x514, 4, int.from_bytes(swapped[:4], "little"))
        self.io.write(0x518, 4, int.from_bytes(swapped[4:], "little"))
        return int.from_bytes(self.ram.read(block, 4), "big") if block < 1 << 20 else None


@pytest.fixture
def board():
    return Board()


def test_signature(board):
    assert board.read(0x0000, 4) == b"QEMU"


@pytest.mark.parametrize(("dma", "version"), [(True, 3), (False, 1)])
def test_version_says_whether_there_is_dma(dma, version):
    assert Board(dma=dma).read(0x0001, 4) == bytes((version, 0, 0, 0))


def test_numbers_are_little_endian(board):
    board.chip.add_u16(0x05, 0x0102)
    board.chip.add_u64(0x03, 0x0102030405060708)
    assert board.read(0x05, 2) == b"\x02\x01"
    assert board.read(0x03, 8) == bytes((8, 7, 6, 5, 4, 3, 2, 1))


def test_keys_of_the_architecture_are_a_table_of_their_own(board):
    board.chip.add_bytes(0x8002, b"arch")
    assert board.read(0x8002, 4) == b"arch"
    assert board.read(0x0002, 4) == bytes(4)


def test_past_the_end_there_are_zeros(board):
    assert board.read(0x0000, 6) == b"QEMU\0\0"


def test_selecting_starts_again(board):
    board.read(0x0000, 2)
    assert board.read(0x0000, 2) == b"QE"


@pytest.mark.parametrize("key", [0x3FFF, 0x0040, 0xFFFF, 0x0002])
def test_a_key_without_contents_reads_zeros(board, key):
    assert board.read(key, 3) == bytes(3)


def test_the_write_bit_of_the_selector_is_ignored(board):
    assert board.read(0x4000, 4) == b"QEMU"


def directory(board):
    count = int.from_bytes(board.read(0x19, 4), "big")
    raw = board.read(0x19, 4 + 64 * count)[4:]
    return [
        (
            raw[i + 8 : i + 64].rstrip(b"\0").decode(),
            int.from_bytes(raw[i : i + 4], "big"),
            int.from_bytes(raw[i + 4 : i + 6], "big"),
        )
        for i in range(0, len(raw), 64)
    ]


def test_the_directory_is_sorted_by_name(board):
    board.chip.add_file("etc/system-states", b"123456")
    board.chip.add_file("bootorder", b"x\0")
    assert directory(board) == [("bootorder", 2, 0x20), ("etc/system-states", 6, 0x21)]
    assert board.read(0x20, 2) == b"x\0"


def test_the_directory_of_old_types_goes_by_priority(board):
    board.chip.set_order(False)
    for name in ("bootorder", "etc/acpi/tables", "genroms/vapic.bin", "etc/boot-fail-wait", "vgaroms/x.bin"):
        board.chip.add_file(name, b"-")
    names = [entry[0] for entry in directory(board)]
    assert names == [
        "etc/boot-fail-wait",
        "vgaroms/x.bin",
        "genroms/vapic.bin",
        "etc/acpi/tables",
        "bootorder",
    ]


def test_equal_priorities_keep_the_order_of_adding(board):
    board.chip.set_order(False)
    for name in ("genroms/b", "genroms/a"):
        board.chip.add_file(name, b"", order=80)
    assert [entry[0] for entry in directory(board)] == ["genroms/b", "genroms/a"]


def test_adding_a_file_again_replaces_it(board):
    board.chip.add_file("f", b"old")
    board.chip.add_file("f", b"newer")
    assert directory(board) == [("f", 5, 0x20)]


def test_one_file_too_many_is_an_error():
    board = Board(slots=16)
    for n in range(16):
        board.chip.add_file(f"f{n}", b"")
    with pytest.raises(BuildError, match="16 files"):
        board.chip.add_file("straw", b"")


@pytest.mark.parametrize("name", ["", "x" * 56])
def test_a_name_must_fit_the_directory(board, name):
    with pytest.raises(BuildError):
        board.chip.add_file(name, b"")


def test_a_name_of_55_bytes_fits(board):
    board.chip.add_file("x" * 55, b"")
    assert directory(board)[0][0] == "x" * 55


def test_contents_are_made_when_the_guest_selects_them(board):
    calls = []

    def make():
        calls.append(1)
        return b"fresh"

    board.chip.add_file("etc/acpi/tables", b"stale", make)
    assert calls == []
    assert board.read(0x20, 5) == b"fresh"
    assert directory(board)[0][1] == 5


def test_a_callback_that_raises_leaves_the_old_contents(board):
    from accel.api import set_callback_error_handler

    told = []
    set_callback_error_handler(lambda where, exc: told.append(where))
    board.chip.add_bytes(0x02, b"old", lambda: 1 / 0)
    assert board.read(0x02, 3) == b"old"
    set_callback_error_handler(None)
    assert told == ["fw_cfg item 0x2"]


def test_a_wide_read_gives_zero(board):
    board.io.write(0x510, 2, 0)
    assert board.io.read(0x510, 2) == 0


# --- DMA ----------------------------------------------------------------------------------------------------


def test_the_dma_register_reads_its_signature(board):
    raw = b"".join(board.io.read(port, 4).to_bytes(4, "little") for port in (0x514, 0x518))
    assert raw == b"QEMU CFG"


def test_dma_reads_into_memory(board):
    assert board.dma(READ | SELECT | 0x0000 << 16, 4) == 0
    assert board.ram.read(0x8000, 4) == b"QEMU"


def test_dma_goes_on_where_it_stopped(board):
    board.dma(READ | SELECT, 2)
    board.dma(READ, 2)
    assert board.ram.read(0x8000, 2) == b"MU"


def test_dma_skips(board):
    board.dma(SKIP | SELECT, 3)
    board.dma(READ, 1)
    assert board.ram.read(0x8000, 1) == b"U"


def test_dma_past_the_end_gives_zeros(board):
    board.ram.write(0x8000, b"\xaa" * 8)
    assert board.dma(READ | SELECT, 6) == 0
    assert board.ram.read(0x8000, 8) == b"QEMU\0\0\xaa\xaa"


def test_dma_across_a_large_item(board):
    data = bytes(n % 251 for n in range(100_000))
    board.chip.add_file("big", data)
    assert board.dma(READ | SELECT | 0x20 << 16, 100_000) == 0
    assert board.ram.read(0x8000, 100_000) == data


def test_dma_write_is_an_error(board):
    assert board.dma(WRITE | SELECT, 4) == ERROR


@pytest.mark.parametrize("address", [1 << 30, (1 << 64) - 2, (1 << 20) - 2])
def test_dma_outside_memory_is_an_error(board, address):
    assert board.dma(READ | SELECT, 4, address) == ERROR


def test_a_block_outside_memory_does_no_harm(board):
    board.dma(READ | SELECT, 4, block=1 << 40)


def test_a_huge_request_ends_where_memory_ends(board):
    assert board.dma(READ | SELECT, 0xFFFFFFFF) == ERROR


def test_only_the_low_half_starts_a_transfer(board):
    board.ram.write(0x8000, b"\xaa" * 4)
    board.io.write(0x514, 4, 0)
    assert board.ram.read(0x8000, 4) == b"\xaa" * 4


def test_state_survives(board):
    board.read(0x0000, 2)
    state = board.chip.save()
    other = Board()
    other.chip.load_state(state)
    assert other.io.read(0x511, 1) == ord("M")


@pytest.mark.parametrize("change", [{"of": "other"}, {"selected": 1 << 16}, {"computed": {"1": b""}}])
def test_impossible_state_is_refused(board, change):
    with pytest.raises(StateError):
        board.chip.load_state({**board.chip.save(), **change})


steps = st.tuples(
    st.booleans(), st.integers(0x50E, 0x51E), st.sampled_from((1, 2, 4)), st.integers(0, 0xFFFFFFFF)
)


@settings(max_examples=200)
@given(st.lists(steps, max_size=40))
def test_any_access_returns(script):
    board = Board()
    for write, port, size, value in script:
        if write:
            board.io.write(port, size, value)
        else:
            assert 0 <= board.io.read(port, size) < 1 << (8 * size)
    board.chip.load_state(board.chip.save())


# --- files that the guest writes ------------------------------------------------------------------------------


@pytest.fixture
def written(board):
    """A file of eight bytes that the guest can write, selected."""
    contents = bytearray(b"abcdefgh")
    board.chip.add_file("w", contents)
    board.read(0x20, 0)
    board.ram.write(0x8000, b"ABCDEFGHI")
    return contents


def test_the_guest_writes_to_a_bytearray(board, written):
    assert board.dma(WRITE | SELECT | 0x20 << 16, 8) == 0
    assert written == b"ABCDEFGH"
    assert board.read(0x20, 8) == b"ABCDEFGH"


def test_a_write_goes_on_where_the_last_access_stopped(board, written):
    assert board.dma(SKIP | SELECT | 0x20 << 16, 2) == 0
    assert board.dma(WRITE, 3) == 0
    assert written == b"abABCfgh"


@pytest.mark.parametrize("length", [9, 0xFFFFFFFF])
def test_a_write_past_the_end_writes_nothing(board, written, length):
    assert board.dma(WRITE | SELECT | 0x20 << 16, length) == ERROR
    assert written == b"abcdefgh"


def test_a_write_from_nowhere_is_an_error(board, written):
    assert board.dma(WRITE | SELECT | 0x20 << 16, 8, 1 << 40) == ERROR
    assert written == b"abcdefgh"


def test_other_files_cannot_be_written(board):
    board.chip.add_file("r", b"abcd")
    assert board.dma(WRITE | SELECT | 0x20 << 16, 4) == ERROR
    assert board.read(0x20, 4) == b"abcd"


@pytest.fixture
def apart():
    """With a thread for long reads, and 16 MiB."""
    board = Board(memory=16 << 20)
    thread = IoThread(DeviceLock())
    board.chip.add_file("big", bytes(range(256)) * (3 << 12))
    board.chip.serve_on(thread)
    thread.start()
    board.thread = thread
    yield board
    with thread.lock:
        board.chip.detach()
    thread.close()


def wait(board):
    deadline = time.monotonic() + 20
    while board.chip.left:
        assert time.monotonic() < deadline
        time.sleep(0.001)


LONG = (5 << 20) + 3


def test_a_long_read_goes_in_turns(apart):
    apart.ram.write(0x100000, b"x" * (LONG + 1))
    with apart.thread.lock:
        assert apart.dma(0x20 << 16 | SELECT | READ, LONG, 0x100000) != 0
        assert apart.chip.left == LONG
    wait(apart)
    with apart.thread.lock:
        assert apart.ram.read(0x1000, 4) == bytes(4)
    size = 3 << 20
    assert apart.ram.read(0x100000, LONG + 1) == bytes(range(256)) * (3 << 12) + bytes(LONG - size) + b"x"
    assert apart.thread.wakeups >= 5


def test_nothing_else_begins_during_a_long_read(apart):
    with apart.thread.lock:
        apart.dma(0x20 << 16 | SELECT | READ, LONG, 0x100000)
        assert apart.dma(0x00 << 16 | SELECT | READ, 4, 0x9000, block=0x2000) == 0x00 << 16 | SELECT | READ
        assert apart.read(0x0000, 4) == bytes(4)
    wait(apart)
    assert apart.ram.read(0x100000, 256) == bytes(range(256))
    assert apart.dma(SELECT | READ, 4, 0x9000, block=0x2000) == 0 and apart.ram.read(0x9000, 4) == b"QEMU"


def test_a_long_read_is_over_in_what_is_saved_and_forgotten_by_a_reset(apart):
    with apart.thread.lock:
        apart.dma(0x20 << 16 | SELECT | READ, LONG, 0x100000)
        assert apart.chip.save()["offset"] == 3 << 20
        assert apart.ram.read(0x1000, 4) == bytes(4) and apart.ram.read(0x100000 + LONG - 1, 1) == b"\0"
        apart.dma(0x20 << 16 | SELECT | READ, LONG, 0x100000)
        apart.chip.reset()
        assert apart.chip.left == 0
    assert apart.dma(SELECT | READ, 4, 0x9000) == 0


def test_a_long_read_past_the_end_of_memory_writes_nothing(apart):
    apart.ram.write(0xF00000, b"x" * 16)
    assert apart.dma(0x20 << 16 | SELECT | READ, LONG, 0xF00000) == ERROR and apart.chip.left == 0
    assert apart.ram.read(0xF00000, 16) == b"x" * 16
