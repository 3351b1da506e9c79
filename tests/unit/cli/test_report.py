"""The report of a processor that gave up says all that is known, and what to do."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from vmrun.cli import report

SEGMENT = {"selector": 0x10, "base": 0, "limit": 0xFFFFFFFF, "type": 11, "dpl": 0, "present": 1}
FOUND: dict[str, Any] = {
    "cpu": 3,
    "exit": "INTERNAL_ERROR",
    "why": "emulation",
    "suberror": 1,
    "data": [1, 0xCC],
    "regs": {"rax": 0x1234, "rip": 0x200007, "rflags": 2},
    "sregs": {"cs": SEGMENT, "gdt": {"base": 0x98000, "limit": 0x27}, "cr0": 0x11},
    "mode": 32,
    "linear_rip": 0x200007,
    "code": b"\xcc\xf4",
}


def test_it_names_the_processor_the_exit_and_the_reason() -> None:
    assert report.text(FOUND).startswith("vmrun: processor 3 gave up: INTERNAL_ERROR (emulation)\n")


def test_it_shows_registers_segments_tables_and_bytes() -> None:
    text = report.text(FOUND)
    for part in ("rax 0000000000001234", "cs 0010 base 0 limit ffffffff type b dpl 0", "gdt base 98000 limit 27",
                 "32-bit code at 200007: cc f4", "data: 1 cc", "cr0 0000000000000011"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(
    ("mode", "code", "meaning"),
    [(16, "a10000", "mov ax, word ptr [0]"), (32, "a100000000", "mov eax, dword ptr [0]"), (64, "48ffc0", "inc rax")],
)
def test_bytes_are_disassembled_for_the_mode_the_processor_was_in(mode: int, code: str, meaning: str) -> None:
    assert meaning in report.text({**FOUND, "mode": mode, "code": bytes.fromhex(code)})


def test_without_capstone_it_has_the_bytes_and_says_what_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name == "capstone":
            raise ImportError
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    text = report.text(FOUND)
    assert "cc f4" in text and "vmrun[disassembly]" in text


@pytest.mark.parametrize("exit", ["INTERNAL_ERROR", "FAIL_ENTRY", "KVM_RUN", "UNKNOWN"])
def test_a_failure_of_kvm_is_answered_with_the_soft_accelerator(exit: str) -> None:
    assert "--accel soft" in report.text({**FOUND, "exit": exit})
    assert report.of_kvm({**FOUND, "exit": exit})


def test_a_triple_fault_is_the_guests() -> None:
    text = report.text({**FOUND, "exit": "SHUTDOWN", "why": "triple fault"})
    assert "--accel soft" not in text and "the guest ended up in an exception" in text
    assert not report.of_kvm({"exit": "SHUTDOWN"})


def test_code_that_is_not_mapped_is_called_so() -> None:
    assert "nothing is mapped at RIP (linear address 200007)" in report.text({**FOUND, "code": b""})


def test_an_empty_report_is_still_a_report() -> None:
    assert report.text({}) == "vmrun: processor 0 gave up: unknown reason\n"
