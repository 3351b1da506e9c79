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
    ("cr3", "cr4", "cr8", "efer"),
)
SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")

# KVM's own exits, with the sentence that says what they mean
OF_KVM = {
    "INTERNAL_ERROR": "KVM could not execute what the guest does here",
    "FAIL_ENTRY": "the host's processor refused the state of the guest's",
    "KVM_RUN": "the host's kernel refused to run the guest",
    "UNKNOWN": "the host's processor left the guest for a reason that KVM does not know",
}
TRY_SOFT = "run it on vmrun's own processor, which does not depend on the host's: --accel soft"
ASK_DOCTOR = "`vmrun doctor` tells what this host's KVM can do"
LOOK_AT_GUEST = "the guest ended up in an exception that it could not handle; look at RIP, and at what it did before"
REMEDIES = {**dict.fromkeys(OF_KVM, f"{TRY_SOFT}; {ASK_DOCTOR}"), "SHUTDOWN": LOOK_AT_GUEST}


def of_kvm(report: dict[str, Any]) -> bool:
    """True when it is KVM that gave up, not the guest that failed."""
    return report.get("exit") != "SHUTDOWN"


def text(report: dict[str, Any]) -> str:
    """The report as lines."""
    exit = str(report.get("exit", "unknown reason"))
    why = str(report.get("why") or report.get("error") or "")
    lines = [f"vmrun: processor {report.get('cpu', 0)} gave up: {exit}{f' ({why})' if why else ''}"]
    if exit in OF_KVM:
        lines.append(f"    {OF_KVM[exit]}")
    for key in ("suberror", "hardware_reason", "data", "problem"):
        value = report.get(key)
        if value:
            shown = " ".join(f"{n:x}" for n in value) if isinstance(value, list) else value
            lines.append(f"    {key.replace('_', ' ')}: {shown}")
    lines += _registers(report)
    lines += _code(report)
    if exit in REMEDIES:
        lines.append(f"    remedy: {REMEDIES[exit]}")
    return "\n".join(lines) + "\n"


def _registers(report: dict[str, Any]) -> list[str]:
    sregs = report.get("sregs", {})
    values = {**sregs, **report.get("regs", {})}
    lines = []
    for row in ORDER:
        shown = [f"{name:>6} {values[name]:016x}" for name in row if isinstance(values.get(name), int)]
        if shown:
            lines.append("  " + "  ".join(shown))
    for name in SEGMENTS:
        segment = sregs.get(name)
        if isinstance(segment, dict):
            lines.append(
                f"  {name:>6} {segment['selector']:04x} base {segment['base']:x} limit {segment['limit']:x}"
                f" type {segment['type']:x} dpl {segment['dpl']}{'' if segment['present'] else ' not present'}"
            )
    for name in ("gdt", "idt"):
        table = sregs.get(name)
        if isinstance(table, dict):
            lines.append(f"  {name:>6} base {table['base']:x} limit {table['limit']:x}")
    return lines


def _code(report: dict[str, Any]) -> list[str]:
    """The bytes at RIP, or that nothing is mapped there."""
    if "linear_rip" not in report:
        return []
    code, linear, bits = bytes(report.get("code") or b""), int(report["linear_rip"]), int(report.get("mode", 64))
    if not code:
        return [f"    nothing is mapped at RIP (linear address {linear:x})"]
    lines = [f"    {bits}-bit code at {linear:x}: {code.hex(' ')}", *_disassembly(code, linear, bits)]
    if not code.strip(b"\xff"):
        lines.append("    all ones: there is no memory at this address")
    return lines


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
    """On standard error; after one of KVM's own failures also what this host's KVM is found to give up on."""
    sys.stderr.write(text(report))
    if of_kvm(report):
        from accel.accelerator import find

        lost = find("kvm").weakness()
        if lost:
            sys.stderr.write(f"    this host's KVM gives up on what stock kernels do: {lost}\n")
