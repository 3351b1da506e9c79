"""Starting a kernel without a firmware: after each reset memory, PCI bus and processors are made ready for it.

What goes where is vmrun.firmware.direct's; this is the part that touches the machine.
Ref: Intel SDM volume 3, 3.4.5 (segments), 4.5 (paging), 12.11 (MTRRs).
"""

from __future__ import annotations

from vmrun.errors import BuildError
from vmrun.firmware import direct, kernel, lowmem, pcisetup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import MachineData
    from vmrun.machine.board import Board

CR0_PE, CR0_ET, CR0_PG = 1, 1 << 4, 1 << 31
CR4_PAE, EFER_LME, EFER_LMA = 1 << 5, 1 << 8, 1 << 10
CODE_TYPE, DATA_TYPE, BUSY_TSS = 11, 3, 11
LONG_MODE, MTRR = 1 << 29, 1 << 12
WAKING_VECTOR, MEBIBYTE = 12, 1 << 20
GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)))
WRITE_BACK, UNCACHED, PROTECTED, VALID = 6, 0, 5, 0x800
DEF_TYPE, FIXED_64K, FIXED_16K, FIXED_4K, FIRST_BASE = 0x2FF, 0x250, (0x258, 0x259), range(0x268, 0x270), 0x200


class DirectBoot:
    """Of a machine without a firmware. `rom` is known at once, the rest when there are processors."""

    def __init__(self, config: MachineData, kvm: bool) -> None:
        if not config.get("kernel"):
            raise BuildError(
                "there is no firmware and no kernel, so nothing would run",
                code="VR0710",
                path="firmware",
                remedy="add `kernel:`, or take `firmware: none` away",
            )
        self.config = config
        self.kernel = kernel.read(config)
        self.low = lowmem.LowMemory(config, kvm)
        self.warnings: list[str] = []
        self.plan: direct.Plan | None = None
        self.phys_bits = 36
        self.mtrr = False

    @property
    def rom(self) -> bytes:
        return self.low.rom

    def prepare(self, cpuid: list[dict[str, int]]) -> None:
        """`cpuid`: of the first processor."""
        leaves = {entry["function"]: entry for entry in reversed(cpuid)}
        wide = bool(leaves.get(0x80000001, {}).get("edx", 0) & LONG_MODE)
        self.mtrr = bool(leaves.get(1, {}).get("edx", 0) & MTRR)
        self.phys_bits = leaves.get(0x80000008, {}).get("eax", 36) & 0xFF or 36
        self.plan = direct.plan(self.kernel, self.low, wide)

    def fill_memory(self, board: Board) -> None:
        """Devices are reset; the bus is set up and everything is in its place."""
        assert self.plan is not None
        self.set_up_bus(board)
        put(board, self.plan.pieces)
        files = board.fw_cfg_files
        for name in self.low.others.keys() & files.keys():
            board.ram.write(self.low.others[name], bytes(files[name]))
        for name, offset, value in self.low.told:
            file = files[name]
            assert isinstance(file, bytearray), name
            file[offset : offset + len(value)] = value

    def set_up_bus(self, board: Board) -> None:
        self.warnings = pcisetup.set_up(
            board.io.read,
            lambda port, size, value: board.io.write(port, size, value),
            int(board.memory_map["below-4g"]),
            self.low.pm_base,
        )

    def start_processors(self, accelerator: Any, waking_vector: int = 0) -> None:
        """Processors are reset; the first one begins in the kernel, or in real mode where a guest wants to wake."""
        assert self.plan is not None
        for index in (cpu.index for cpu in accelerator.vcpus):
            if self.mtrr:
                accelerator.load_vcpu(index, {"msrs": self.mtrrs()})
            if index == 0:
                state = accelerator.save_vcpu(0)
                first = wake(waking_vector, state) if waking_vector else begin(self.plan.start, state)
                accelerator.load_vcpu(0, first)

    def waking_vector(self, board: Board) -> int:
        """What the guest wrote into the FACS; 0 when it is nowhere in the first MiB."""
        vector = int.from_bytes(board.ram.read(self.low.facs + WAKING_VECTOR, 4), "little")
        return vector if vector < MEBIBYTE else 0

    def mtrrs(self) -> dict[int, int]:
        """RAM is write-back, the hole below 4 GiB and the VGA window are not cached: as firmware leaves it."""
        hole = 0xE0000000 if int(self.config["memory-map"]["below-4g"]) > 0xC0000000 else 0xC0000000
        mask = (1 << self.phys_bits) - ((1 << 32) - hole)
        found = {FIRST_BASE: hole | UNCACHED, FIRST_BASE + 1: mask | VALID}
        found[FIXED_64K] = found[FIXED_16K[0]] = int.from_bytes(bytes([WRITE_BACK] * 8), "little")
        found[FIXED_16K[1]] = UNCACHED
        found |= dict.fromkeys(FIXED_4K, int.from_bytes(bytes([PROTECTED] * 8), "little"))
        return {**found, DEF_TYPE: 0xC00 | WRITE_BACK}


def put(board: Board, pieces: list[Any]) -> None:
    """Write pieces (vmrun.firmware.elf.Piece) into RAM below 4 GiB."""
    for piece in pieces:
        board.ram.write(piece.addr, piece.data)
        rest, at = piece.size - len(piece.data), piece.addr + len(piece.data)
        while rest > 0:
            part = min(rest, 1 << 20)
            board.ram.write(at, bytes(part))
            rest, at = rest - part, at + part


def wake(vector: int, state: dict[str, Any]) -> dict[str, Any]:
    """Of a processor after reset: real mode, CS:IP the vector."""
    cs = {**state["sregs"]["cs"], "selector": vector >> 4, "base": vector & ~15}
    return {"regs": {**state["regs"], "rip": vector & 15}, "sregs": {**state["sregs"], "cs": cs}}


def begin(start: direct.Start, state: dict[str, Any]) -> dict[str, Any]:
    """The parts of a processor's state that differ from a reset's, in KVM's own layout."""
    registers = {**dict.fromkeys(GENERAL, 0), "rip": start.entry, "rflags": 2, **start.registers}
    sregs = dict(state["sregs"])
    wide = start.long_mode
    code = _segment(lowmem.CODE, CODE_TYPE, long_mode=wide)
    data = _segment(lowmem.DATA, DATA_TYPE)
    sregs.update(cs=code, ds=data, es=data, fs=data, gs=data, ss=data)
    task = {**_segment(lowmem.TASK, BUSY_TSS), "base": lowmem.TSS_AT, "limit": lowmem.TSS_SIZE - 1}
    sregs["tr"] = {**task, "s": 0, "g": 0, "db": 0}
    sregs["gdt"] = {"base": lowmem.GDT_AT, "limit": 0x2F if wide else 0x27}
    sregs["idt"] = {"base": 0, "limit": 0}
    sregs["cr0"] = CR0_PE | CR0_ET
    if wide:
        sregs["cr0"] |= CR0_PG
        sregs["cr3"], sregs["cr4"], sregs["efer"] = lowmem.PAGES_AT, CR4_PAE, EFER_LME | EFER_LMA
    return {"regs": registers, "sregs": sregs}


def _segment(selector: int, kind: int, *, long_mode: bool = False) -> dict[str, int]:
    return {
        "base": 0, "limit": 0xFFFFFFFF, "selector": selector, "type": kind, "s": 1, "dpl": 0, "present": 1, "avl": 0,
        "l": int(long_mode), "db": int(not long_mode), "g": 1, "unusable": 0,
    }  # fmt: skip
