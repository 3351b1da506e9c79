"""An NVMe controller's own memory (1.4, 4.7 and 4.8): its registers are QEMU's, and queues and data may lie in it."""

from __future__ import annotations

import pathlib
import random
import struct
from typing import Any

import pytest

from tests.devices.nvme import BAR, CC, DATA, IO, QUEUES, SLOT, Driver
from tests.peers.oracle import QEMU
from vmrun.errors import VmrunError
from vmrun.testing import QTest, QtestProgram

MIB = 1 << 20
BUFFER, REGION, ELSEWHERE = 0xE0000000, 0xE8000000, 0xC0000000
CAP, CMBLOC, CMBSZ, CMBMSC, CMBSTS = 0, 0x38, 0x3C, 0x50, 0x58
PMRCAP, PMRCTL, PMRSTS, PMRMSCL, PMRMSCU = 0xE00, 0xE04, 0xE08, 0xE14, 0xE18
CRE, CMSE = 1, 2
WITH = [{"cmb_size_mb": 2}, {"cmb_size_mb": 16, "legacy-cmb": True}, {"pmrdev": "p"}, {"cmb_size_mb": 1, "pmrdev": "p"}]


def machine(side: str, directory: pathlib.Path, **props: Any) -> Any:
    disk = directory / "disk.img"
    disk.write_bytes(random.Random(7).randbytes(MIB))
    if side == "vmrun":
        device = {"id": "n", "driver": "nvme", "drive": "d", "serial": "x", "addr": f"{SLOT:02x}.0", **props}
        objects = {"p": {"type": "memory-backend-ram", "size": "8MiB", "share": True}}
        return QTest(
            {
                "machine": "pc-i440fx-7.2", "memory": "64MiB", "drives": {"d": {"file": str(disk), "format": "raw"}},
                "objects": objects, "devices": [device],
            }
        )  # fmt: skip
    firmware = directory / "halt.bin"
    firmware.write_bytes((b"\xf4" * 0xFFF0 + b"\xfa\xf4\xeb\xfd").ljust(0x10000, b"\xf4"))
    command = [QEMU or "", "-M", "pc-i440fx-7.2", "-m", "64", "-accel", "tcg", "-nodefaults", "-display", "none"]
    command += ["-bios", str(firmware), "-object", "memory-backend-ram,id=p,share=on,size=8M"]
    command += ["-drive", f"if=none,id=d,format=raw,file={disk}"]
    more = "".join(f",{key}={'on' if value is True else value}" for key, value in props.items())
    return QtestProgram([*command, "-device", f"nvme,drive=d,serial=x,addr={SLOT}{more}"])


def places(q: Any) -> None:
    """BARs 2 and 4 get theirs."""
    for bar, address in ((0x18, BUFFER), (0x20, REGION)):
        q.pci_write(SLOT, 0, bar, address)
        q.pci_write(SLOT, 0, bar + 4, 0)


def registers(q: Any) -> list[int]:
    return [q.readl(BAR + n) for n in (*range(0, 0x14, 4), *range(0x38, 0x60, 4), *range(0xE00, 0xE20, 4))]


def answers(q: Any) -> list[Any]:
    """What a driver sees of both memories while it turns them on and off."""
    found: list[Any] = [[q.pci_read(SLOT, 0, n) for n in range(0x10, 0x28, 4)]]
    for n in range(0x10, 0x28, 4):
        q.pci_write(SLOT, 0, n, 0xFFFFFFFF)
    found.append([q.pci_read(SLOT, 0, n) for n in range(0x10, 0x28, 4)])
    Driver(q)
    places(q)
    has_buffer = q.pci_read(SLOT, 0, 0x18) & ~15
    for value in (CRE, BUFFER | CRE, BUFFER | CRE | CMSE, 0x1003, 0) if has_buffer else ():
        q.writeq(BAR + CMBMSC, value)
        found.append(registers(q))
    for address in (BUFFER, BUFFER + 0x1000) if has_buffer else ():
        q.writel(address, 0xCCBBAA99)
        found.append((q.readb(address), q.readw(address + 1), q.readl(address)))
    for control in (0, 1, 0, 1) if q.pci_read(SLOT, 0, 0x20) & ~15 else ():
        q.writel(BAR + PMRCTL, control)
        found.append(registers(q))
        if control:
            q.writel(REGION, 0x44332211 + control)
            found.append(q.readl(REGION))
    q.writel(BAR + PMRMSCL, REGION | CMSE)
    q.writel(BAR + PMRMSCU, 0)
    return [*found, registers(q)]


@pytest.mark.peer
@pytest.mark.parametrize("props", [{}, *WITH], ids=["none", "buffer", "legacy", "region", "both"])
def test_registers_and_bars_are_qemus(props: dict[str, Any], tmp_path: pathlib.Path) -> None:
    found = []
    for side in ("vmrun", "qemu"):
        with machine(side, tmp_path, **props) as q:
            found.append(answers(q))
    assert found[0] == found[1]


@pytest.mark.parametrize("side", ["vmrun", pytest.param("qemu", marks=pytest.mark.peer)])
@pytest.mark.parametrize("base", [BUFFER, ELSEWHERE], ids=["at its BAR", "elsewhere"])
def test_queues_and_data_lie_in_the_buffer(
    side: str, base: int, tmp_path: pathlib.Path
) -> None:
    with machine(side, tmp_path, cmb_size_mb=2) as q:
        driver = Driver(q)
        places(q)
        q.writeq(BAR + CMBMSC, base | CRE | CMSE)
        driver.enable()
        driver.make_io()
        # the pair anew, its submissions in the buffer: where the driver puts them is the BAR
        assert driver.admin(0x00, cdw10=IO)[0] == 0 and driver.admin(0x04, cdw10=IO)[0] == 0
        completions = QUEUES[IO][1]
        driver.queues[IO] = (BUFFER + 0x10000, completions)
        driver.begin(IO)
        assert driver.admin(0x05, prp1=completions, cdw10=15 << 16 | IO, cdw11=3)[0] == 0
        assert driver.admin(0x01, prp1=base + 0x10000, cdw10=15 << 16 | IO, cdw11=IO << 16 | 1)[0] == 0
        disk = (tmp_path / "disk.img").read_bytes()
        assert driver.io(2, prp1=base + 0x20000, cdw10=5, cdw12=7)[0] == 0
        assert q.read(BUFFER + 0x20000, 4096) == disk[5 * 512 : 13 * 512]
        q.write(BUFFER + 0x30000, struct.pack("<2Q", base + 0x50000, base + 0x40000))
        assert driver.io(2, prp1=base + 0x21000, prp2=base + 0x30000, cdw10=8, cdw12=23)[0] == 0
        pieces = [q.read(BUFFER + n, 4096) for n in (0x21000, 0x50000, 0x40000)]
        assert b"".join(pieces) == disk[4096:16384]
        for first, second in ((DATA, base), (base, DATA)):  # here and there: neither can do that
            assert driver.io(2, prp1=first, prp2=second, cdw10=8, cdw12=15)[0] == 0x4012


def test_a_buffer_without_a_place_is_not_the_guests_memory(tmp_path: pathlib.Path) -> None:
    with machine("vmrun", tmp_path, cmb_size_mb=1) as q:
        driver = Driver(q)
        places(q)
        q.writel(BAR + CMBMSC, ELSEWHERE & 0xFFFFFFFF | CRE | CMSE)
        q.writel(BAR + CMBMSC + 4, ELSEWHERE >> 32)
        driver.enable()
        driver.make_io()
        assert driver.io(2, prp1=ELSEWHERE + 0x5000, cdw10=1, cdw12=0)[0] == 0
        q.pci_write(SLOT, 0, 0x18, 0)
        q.pci_write(SLOT, 0, 0x1C, 0)
        q.write(0x5000, bytes(512))
        assert driver.io(2, prp1=ELSEWHERE + 0x5000, cdw10=1, cdw12=0)[0] == 0x4004
        assert q.read(0x5000, 512) == bytes(512)


def test_a_region_holds_data_while_it_is_on(tmp_path: pathlib.Path) -> None:
    with machine("vmrun", tmp_path, pmrdev="p") as q:
        driver = Driver(q)
        places(q)
        q.writel(BAR + PMRCTL, 1)
        q.writel(BAR + PMRMSCL, ELSEWHERE & 0xFFFFFFFF | CMSE)
        q.writel(BAR + PMRMSCU, ELSEWHERE >> 32)
        driver.enable()
        driver.make_io()
        assert driver.io(2, prp1=ELSEWHERE + 0x1000, cdw10=1, cdw12=0)[0] == 0
        assert q.read(REGION + 0x1000, 512) == (tmp_path / "disk.img").read_bytes()[512:1024]
        q.writel(BAR + PMRCTL, 0)
        assert driver.io(2, prp1=ELSEWHERE + 0x1000, cdw10=2, cdw12=0)[0] == 0x4004
        assert q.read(REGION + 0x1000, 4) == b"\xff" * 4


def test_a_base_that_wraps_is_told_and_leads_nowhere(tmp_path: pathlib.Path) -> None:
    with machine("vmrun", tmp_path, cmb_size_mb=2) as q:
        driver = Driver(q)
        places(q)
        q.writeq(BAR + CMBMSC, (1 << 64) - 4096 | CRE | CMSE)
        assert q.readl(BAR + CMBSTS) == 1
        driver.enable()
        driver.make_io()
        assert driver.io(2, prp1=(1 << 64) - 4096, cdw10=0, cdw12=0)[0] == 0x4004


def test_a_reset_turns_both_off_and_a_state_brings_them_back(tmp_path: pathlib.Path) -> None:
    with machine("vmrun", tmp_path, cmb_size_mb=2, pmrdev="p") as q:
        Driver(q)
        places(q)
        q.writeq(BAR + CMBMSC, BUFFER | CRE | CMSE)
        q.writel(BAR + PMRCTL, 1)
        q.writel(REGION, 0x11223344)
        device = q.machine.devices["n"]
        before, state = registers(q), device.save()
        q.writel(BAR + CC, 0)
        assert registers(q) == before
        device.reset()
        Driver(q)
        places(q)
        assert (q.readl(BAR + CMBLOC), q.readl(BAR + PMRCTL), q.readl(REGION)) == (0, 0, 0xFFFFFFFF)
        device.load(state)
        assert registers(q) == before and q.readl(REGION) == 0x11223344


def test_a_state_from_before_there_was_such_memory_is_taken(tmp_path: pathlib.Path) -> None:
    with machine("vmrun", tmp_path) as q:
        device = q.machine.devices["n"]
        state = device.save()
        old = {key: value for key, value in state.items() if key != "memory"} | {"version": 1}
        device.load(old)
        assert device.save() == state


@pytest.mark.parametrize(
    ("props", "why"),
    [
        ({"cmb_size_mb": 3}, "power of two"),
        ({"pmrdev": "p", "msix-exclusive-bar": True}, "BAR 4"),
        ({"pmrdev": "q"}, "q"),
    ],
)
def test_what_cannot_be_is_refused(props: dict[str, Any], why: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(VmrunError, match=why), machine("vmrun", tmp_path, **props):
        pass
