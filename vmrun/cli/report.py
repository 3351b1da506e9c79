"""What a person sees when a processor gave up: why, registers, the bytes at RIP, their disassembly, the remedy."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ORDER = (
    ("rax", "rbx", "rcx", "rdx"),
    ("rsi", "rdi", "rbp", "rsp"),
    ("r8", "r9", "r10", "r11"),
    ("r12", "r13", "r14", "r15"),
    ("rip", "rflags", "cr0", "cr2"),
    ("cr3", "cr4", "efer"),
)

MODES = {"real": 16, "virtual-8086": 16, "protected 16-bit": 16, "protected 32-bit": 32}


def text(report: dict[str, Any]) -> str:
    """The report as lines."""
    lines = [f"vmrun: processor {report.get('cpu', 0)} gave up: {report.get('exit', 'unknown reason')}"]
    for key in ("why", "error"):
        if report.get(key):
            lines.append(f"    {report[key]}")
    for key in ("suberror", "hardware_reason", "data"):
        if report.get(key):
            lines.append(f"    {key}: {report[key]}")
    registers = {**report.get("sregs", {}), **report.get("regs", {}), **report.get("registers", {})}
    for row in ORDER:
        shown = [f"{name:>6} {registers[name]:016x}" for name in row if isinstance(registers.get(name), int)]
        if shown:
            lines.append("  " + "  ".join(shown))
    sregs = report.get("sregs", {})
    for name in ("cs", "ss", "ds", "es"):
        segment = sregs.get(name)
        if isinstance(segment, dict):
            lines.append(
                f"  {name:>6} {segment['selector']:04x} base {segment['base']:x} limit {segment['limit']:x}"
            )
    code = report.get("code") or b""
    if code:
        lines.append(f"    bytes at RIP: {bytes(code).hex(' ')}")
        lines += _disassembly(
            bytes(code), int(report.get("linear_rip", 0)), MODES.get(str(report.get("mode")), 64)
        )
    if report.get("exit") in ("INTERNAL_ERROR", "FAIL_ENTRY", "KVM_RUN"):
        lines.append("    remedy: KVM cannot run this guest here; try `--accel soft`")
    return "\n".join(lines) + "\n"


def _disassembly(code: bytes, address: int, bits: int) -> list[str]:
    """A few instructions, when the extra `disassembly` is installed."""
    try:
        capstone: Any = __import__("capstone")
    except ImportError:
        return ["    (pip install 'vmrun[disassembly]' names the instruction here)"]
    mode = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32}.get(bits, capstone.CS_MODE_64)
    found = list(capstone.Cs(capstone.CS_ARCH_X86, mode).disasm(code, address, 3))
    return [f"    {one.address:x}: {one.mnemonic} {one.op_str}".rstrip() for one in found]


def print_report(report: dict[str, Any]) -> None:
    sys.stderr.write(text(report))
