"""Handlers of the soft processor are tail calls without a stack frame: else a long block overflows the stack."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.skipif(not shutil.which("objdump"), reason="needs objdump")

HOT = {
    "accel.soft.alu": ("add_rr64_0", "add_rm64_1", "sub_mr32_1_b"),
    "accel.soft.fused": ("cmp_jz_rm32", "cmp_jz_rm32_quiet_b", "dec_jnz_r64", "dec_jnz_r64_quiet"),
    "accel.soft.move": ("mov_rr64", "mov_rm64", "mov_mr64", "mov_mi8", "movzx8_32_m", "push_r64", "pop_r64", "lea64"),
    "accel.soft.ssedirect": ("addsd_r", "mulsd_m_b", "paddd_m", "movsd_m"),
    "accel.soft.branch": ("op_jz", "op_jmp", "op_call64", "op_ret64", "op_jmp_r64"),
}


def bodies(module: str) -> dict[str, list[str]]:
    """Instructions of each function of a compiled module."""
    path = importlib.import_module(module).__file__
    command = ["objdump", "-d", "--no-show-raw-insn", str(path)]
    text = subprocess.run(command, check=True, timeout=120, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, list[str]] = {}
    for part in text.split("\n\n"):
        name = re.match(r"\s*[0-9a-f]+ <(__pyx_f_\w+)>:", part)
        if name:
            found[name[1]] = [line.split("\t")[-1].strip() for line in part.splitlines() if "\t" in line]
    return found


@pytest.mark.parametrize("module", HOT)
def test_hot_handlers_call_nothing_and_leave_by_a_jump(module: str) -> None:
    found = bodies(module)
    last = module.rpartition(".")[2]
    for name in HOT[module]:
        body = found[f"__pyx_f_5accel_4soft_{len(last)}{last}_{name}"]
        assert not [line for line in body if line.startswith("call")], name
        assert not [line for line in body if line.startswith("push")], name
        assert [line for line in body if re.match(r"(notrack )?jmp\s+\*", line)], name
