"""Task switches by call, jmp, iret and gates, and exceptions on the way to a handler: what the manual's tables say.

Each exception has a task of its own, so that it is told whatever the stack looks like: its number, its error code, the
task that was interrupted, what its TSS has as EIP (from `fault` in it on) and as RF.

Ref: Intel SDM volume 3, chapter 8 (table 8-1: what is checked in a switch), 6.13 (error codes), 6.15 (#DF, its table),
17.3.1.4 (the T flag), 5.8.6 (returns).
"""

from __future__ import annotations

import pathlib

import pytest

from accel.soft.accelerator import SoftAccelerator
from accel.soft.features import supported_cpuid
from tests.soft.lab import QEMU, TOOLS, SoftRun, assemble, qemu_run, words

pytestmark = [
    pytest.mark.skipif(not TOOLS, reason="needs an assembler"),
    pytest.mark.skipif(not SoftAccelerator.probe()[0], reason="needs the soft accelerator"),
    pytest.mark.usefixtures("either_way"),
]
TABLES, IDT, DIRECTORY = 0x2000, 0x2800, 0x1000
CODE, DATA, MAIN, OTHER, SMALL, GATE = 8, 16, 24, 32, 40, 48
ABSENT, READ_ONLY, NO_CODE, LDT, NO_LDT, SHORT, BUSY, USERS, NO_TSS, ITS_GATE = range(56, 136, 8)
PLACES = {MAIN: 0x3000, OTHER: 0x3100, SMALL: 0x3200}
DB, UD, DF, TS, NP, SS, GP, PF = 1, 6, 8, 10, 11, 12, 13, 14
TOLD = (0, DB, 3, UD, DF, TS, NP, SS, GP, PF)
WITH_ERROR = (DF, TS, NP, SS, GP, PF)
EXT, NOTHING = 1, 0xFFFFFFFF
RF, NT = 0x10000, 0x4000


def its_task(vector: int) -> int:
    return 0x100 + 8 * vector


def place(sel: int) -> int:
    return PLACES.get(sel, 0x4000 + (sel - 0x100) * 16)


def segment(base: int, limit: int, access: int, flags: int = 0) -> str:
    value = limit & 0xFFFF | (base & 0xFFFFFF) << 16 | access << 40 | (limit >> 16 | flags << 4) << 48
    return f".quad {value:#x}"


def gate(sel: int, access: int = 0x85, offset: str = "0") -> str:
    return f".word {offset}, {sel}, {access << 8:#x}, {'0xf' if offset != '0' else 0}"


def tss(**fields: str | int) -> str:
    names = "link esp0 ss0 esp1 ss1 esp2 ss2 cr3 eip eflags eax ecx edx ebx esp ebp esi edi es cs ss ds fs gs ldt trap"
    values = {"cr3": DIRECTORY, "eflags": 2, "cs": CODE, "trap": 0x680000}
    values |= dict.fromkeys(("es", "ss", "ds"), DATA) | {"ldt": 0, "fs": 0, "gs": 0, **fields}  # type: ignore[arg-type]
    return ".long " + ", ".join(str(values.get(name, 0)) for name in names.split())


def tables(other: dict[str, str | int]) -> str:
    """The RAM from TABLES on."""
    descriptors = {
        CODE: segment(0, 0xFFFFF, 0x9B, 12), DATA: segment(0, 0xFFFFF, 0x93, 12), MAIN: segment(0x3000, 103, 0x89),
        OTHER: segment(0x3100, 103, 0x89), SMALL: segment(0x3200, 43, 0x81), GATE: gate(OTHER),
        ABSENT: segment(0, 0xFFFFF, 0x13, 12), READ_ONLY: segment(0, 0xFFFFF, 0x91, 12),
        NO_CODE: segment(0, 0xFFFFF, 0x1B, 12), LDT: segment(0x3380, 15, 0x82), NO_LDT: segment(0x3380, 15, 2),
        SHORT: segment(0x3100, 102, 0x89), BUSY: segment(0x3100, 103, 0x8B), USERS: segment(0, 0xFFFFF, 0xF3, 12),
        NO_TSS: segment(0x3100, 103, 9), ITS_GATE: gate(OTHER),
    }  # fmt: skip
    lines = []
    for vector in TOLD:
        descriptors[its_task(vector)] = segment(place(its_task(vector)), 103, 0x89)
    for sel, text in descriptors.items():
        lines += [f".org tables + {sel}", text]
    for vector in TOLD:
        lines += [f".org tables + {IDT - TABLES + 8 * vector}", gate(its_task(vector))]
        own = tss(eip=f"told_{vector}", esp=0x7000 + 64 * vector)
        lines += [f".org tables + {place(its_task(vector)) - TABLES}", own]
    lines = sorted("\n".join(lines[n : n + 2]) for n in range(0, len(lines), 2))
    of_other = tss(**{"eip": "other", "esp": 0x6000, **other})
    rest = {
        IDT + 8 * 0x40: gate(OTHER, 0xE5), IDT + 8 * 0x41: gate(CODE, 0x8E, "(ordinary - 0xf0000)"),
        IDT + 8 * 0x42: gate(CODE, 0x0E), IDT + 8 * 0x43: gate(BUSY), IDT + 8 * 0x44: gate(NO_TSS),
        IDT + 8 * 0x45: gate(ABSENT, 0x8E), IDT + 8 * 0x46: gate(0, 0x8E), IDT + 8 * 0x47: gate(NO_CODE, 0x8E),
        place(MAIN): tss(), place(OTHER): of_other, 0x3388: segment(0, 0xFFFFF, 0x93, 12),
        place(SMALL): ".word 0, 0, 0, 0, 0, 0, 0, small - 0xf0000, 2, 0x1111, 0, 0, 0, 0x6800, 0, 0, 0"
        f", {DATA}, {NARROW}, {DATA}, {DATA}, 0",
        TABLES + NARROW: segment(0xF0000, 0xFFFF, 0x9B), TABLES + USERS_CODE: segment(0, 0xFFFFF, 0xFB, 12),
    }  # fmt: skip
    for at, text in rest.items():
        lines.append(f".org tables + {at - TABLES}\n{text}")
    lines.sort(key=lambda text: eval(text.split("+ ")[1].split("\n")[0]))  # noqa: S307 a number of ours
    return "\n".join(lines)


NARROW, USERS_CODE = 0x90, 0x98  # the first of 16 bits
SEGMENTS = ("ds", "es", "fs", "gs")
FRAME = """
.macro  say
        .rept   4
        outb    %al, $0xe9
        rorl    $8, %eax
        .endr
.endm
.macro  note value
        movl    \\value, %eax
        say
.endm
.macro  end
        outb    %al, $0xf4
1:      jmp     1b
.endm
.code16
start:  cli
        lgdtl   %cs:(at_first - 0xf0000)
        movl    $1, %eax
        movl    %eax, %cr0
        ljmpl   $8, $wide
.code32
wide:   movl    $16, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $0x8000, %esp
        movl    $tables, %esi
        movl    $0x2000, %edi
        movl    $(tables_end - tables), %ecx
        cld
        rep movsb
        lgdtl   table
        lidtl   idtr
        movl    $24, %eax
        ltr     %ax
        movl    $0x87, 0x1000           # 4 MiB, and nothing behind
        movl    $0x1000, %eax
        movl    %eax, %cr3
        movl    $0x10, %eax             # CR4.PSE
        movl    %eax, %cr4
        movl    $0x80000001, %eax
        movl    %eax, %cr0
        jmp     main
ordinary:
        note    $0x0d
        end
.balign 8
at_first:
        .word   23
        .long   first
table:  .word   0x7ff
        .long   0x2000
idtr:   .word   0x7ff
        .long   0x2800
first:  .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff
"""


def teller(vector: int) -> str:
    """What the task of an exception does."""
    error = "popl %eax\nsay" if vector in WITH_ERROR else f"note ${NOTHING}"
    return f"""
told_{vector}:
        note    ${vector}
        {error}
        movzwl  {place(its_task(vector))}, %ebx     # the task before
        movl    %ebx, %eax
        say
        movzwl  {TABLES} + 2(%ebx), %ebx            # its TSS
        movl    0x20(%ebx), %eax
        subl    $fault, %eax
        say
        movl    0x24(%ebx), %eax
        andl    ${RF}, %eax
        say
        end
"""


def rom(main: str, other: str, small: str, directory: pathlib.Path, fields: dict[str, str | int]) -> bytes:
    source = FRAME + "".join(teller(vector) for vector in TOLD)
    source += f"main:\n{main}\nend\nother:\n{other}\nend\n.code16\nsmall:\n{small}\nend\n.code32\n"
    if "fault:" not in source:
        source += "fault:\n"
    return assemble(source + ".balign 16\ntables:\n" + tables(fields) + "\ntables_end:\n", directory)


def run(
    main: str, directory: pathlib.Path, other: str = "", small: str = "", beside: bool = True, **fields: str | int
) -> list[int]:
    """The log, which QEMU has too, where it does what the manual says."""
    image = rom(main, other, small, directory, fields)
    soft = SoftRun(image, supported_cpuid(), 20)
    assert soft.ended or not soft.log, (words(soft.log), soft.reports)
    if beside and QEMU:
        assert words(qemu_run(image, directory)[0]) == words(soft.log)
    return words(soft.log)


FLAGS = "pushfl\npopl %eax\nsay\n"
TASK = "xorl %eax, %eax\nstr %ax\nsay\n"
LINK = f"movzwl {PLACES[OTHER]}, %eax\nsay\n"


def call(sel: int) -> str:
    return f"lcall ${sel}, $0\n"


@pytest.mark.parametrize("way", [call(OTHER), call(GATE), "int $0x40\n"])
def test_a_called_task_is_linked_and_comes_back(way: str, tmp_path: pathlib.Path) -> None:
    found = run(
        f"movl $7, %ebx\n{way}movl %ebx, %eax\nsay\n{FLAGS}{TASK}note {TABLES + OTHER + 4}\n{way}",
        tmp_path, other=f"{FLAGS}{TASK}{LINK}movl $9, %ebx\nmovl %cr0, %eax\nsay\niret\nmovl %ebx, %eax\nsay\nend",
    )  # fmt: skip
    inside, outside = found[:4], found[4:]
    assert (inside[0] & NT, inside[1], inside[2], inside[3] & 8) == (NT, OTHER, MAIN, 8)
    # The second time the task goes on behind its iret, with its registers.
    assert (outside[0], outside[1] & NT, outside[2], outside[3] >> 8 & 0xFF) == (7, 0, MAIN, 0x89)
    assert outside[4:] == [9]


def test_a_jump_to_a_task_links_nothing_and_frees_the_old(tmp_path: pathlib.Path) -> None:
    found = run(f"ljmp ${OTHER}, $0\n", tmp_path, other=f"{FLAGS}{TASK}{LINK}note {TABLES + MAIN + 4}\n")
    assert (found[0] & NT, found[1], found[2], found[3] >> 8 & 0xFF) == (0, OTHER, 0, 0x89)


def test_a_task_of_16_bits_between_two_of_32(tmp_path: pathlib.Path) -> None:
    found = run(
        f"movl $0x12345678, %ecx\n{call(SMALL)}movl %ecx, %eax\nsay\n{TASK}", tmp_path,
        small=f"movzwl %ax, %eax\nsay\n{TASK}lcallw ${OTHER}, $0\n{TASK}iretw", other=f"{TASK}{LINK}iret",
    )  # fmt: skip
    assert found == [0x1111, SMALL, OTHER, SMALL, SMALL, 0x12345678, MAIN]


def test_a_tasks_ldt_and_the_local_breakpoints(tmp_path: pathlib.Path) -> None:
    found = run(
        f"movl $0x703, %eax\nmovl %eax, %dr7\n{call(OTHER)}", tmp_path, beside=False, ldt=LDT, ds=0xC,
        other="xorl %eax, %eax\nsldt %ax\nsay\nmovl %ds, %eax\nsay\nmovl %dr7, %eax\nsay",
    )  # fmt: skip
    assert found == [LDT, 0xC, 0x602]


def test_the_t_flag_is_a_trap_before_the_first_instruction(tmp_path: pathlib.Path) -> None:
    found = run(call(OTHER), tmp_path, beside=False, trap=0x680001, other="fault: nop")
    assert found == [DB, NOTHING, OTHER, 0, 0]


# What the old task's checks find leaves it running; the exception's RIP is the instruction's own.
OLD = {
    "a TSS that is too short": (call(SHORT), TS, SHORT),
    "a busy one": (call(BUSY), GP, BUSY),
    "its own": (call(MAIN), GP, MAIN),
    "one that is not present": (call(NO_TSS), NP, NO_TSS),
    "a gate to a busy one": ("int $0x43\n", GP, BUSY),
    "a gate to one that is not present": ("int $0x44\n", NP, NO_TSS),
    "no gate": ("int $0xff\n", GP, 0xFF * 8 + 2),
    "a gate that is not present": ("int $0x42\n", NP, 0x42 * 8 + 2),
    "a gate to data": ("int $0x45\n", GP, ABSENT),
    "a gate to nothing": ("int $0x46\n", GP, 0),
    "a gate to code that is not present": ("int $0x47\n", NP, NO_CODE),
    "iret to a task that is not busy": (
        f"pushl ${NT}\npopfl\nmovw ${OTHER}, {PLACES[MAIN]}\nfault: iret\n", TS, OTHER),
    "iret to the LDT": (f"pushl ${NT}\npopfl\nmovw $0xc, {PLACES[MAIN]}\nfault: iret\n", TS, 0xC),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_a_switch_that_does_not_begin(name: str, tmp_path: pathlib.Path) -> None:
    code, vector, error = OLD[name]
    found = run(code if "fault:" in code else "fault: " + code, tmp_path, beside=False)
    assert found == [vector, error, MAIN, 0, RF]


# What the new one's checks find is its own exception, before its first instruction.
NEW: dict[str, tuple[dict[str, str | int], int, int]] = {
    "code not present": ({"cs": NO_CODE}, NP, NO_CODE),
    "data for code": ({"cs": DATA}, TS, DATA),
    "no code": ({"cs": 0}, TS, 0),
    "code beyond the table": ({"cs": 0x7F8 + 0x800}, TS, 0xFF8),
    "a stack of another privilege": ({"ss": USERS}, TS, USERS),
    "a stack that cannot be written": ({"ss": READ_ONLY}, TS, READ_ONLY),
    "no stack": ({"ss": 0}, TS, 0),
    "a stack that is not present": ({"ss": ABSENT}, SS, ABSENT),
    "data that is not present": ({"ds": ABSENT}, NP, ABSENT),
    "a TSS for data": ({"gs": MAIN}, TS, MAIN),
    "an LDT that is not present": ({"ldt": NO_LDT}, TS, NO_LDT),
    "an LDT that is none": ({"ldt": DATA}, TS, DATA),
}


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize(("way", "ext"), [(call(OTHER), 0), ("int $0x40\n", 0), ("divl %ecx\n", EXT)])
def test_a_switch_that_ends_in_an_exception(name: str, way: str, ext: int, tmp_path: pathlib.Path) -> None:
    fields, vector, error = NEW[name]
    to_gate = f"movw ${OTHER}, {IDT + 2}\nxorl %ecx, %ecx\n" if ext else ""
    found = run(to_gate + way, tmp_path, beside=False, other="fault: nop", **fields)
    if ext:  # of two contributory exceptions the second is a double fault
        assert found == [DF, 0, OTHER, 0, 0]
    else:
        assert found == [vector, error, OTHER, 0, RF]


def test_an_exception_within_a_benign_ones_switch_is_external(tmp_path: pathlib.Path) -> None:
    main = f"movw ${OTHER}, {IDT + 8 * UD + 2}\nud2\n"
    found = run(main, tmp_path, beside=False, other="fault: nop", ds=ABSENT)
    assert found == [NP, ABSENT | EXT, OTHER, 0, RF]


def test_a_faults_task_finds_its_error_code_and_where_it_was(tmp_path: pathlib.Path) -> None:
    assert run("nop\nfault: movl $0, 0x500000\n", tmp_path, beside=False) == [PF, 2, MAIN, 0, RF]


def test_a_task_without_room_for_the_error_code(tmp_path: pathlib.Path) -> None:
    main = f"movw ${OTHER}, {IDT + 8 * GP + 2}\nlcall $0x7f0, $0\n"
    found = run(main, tmp_path, beside=False, other="fault: nop", esp=0x500002)
    assert found == [PF, 2, OTHER, 0, RF]


# --- a return to an outer level ---------------------------------------------------------------------------------------

OUTWARD = {
    "iret": f"pushl ${USERS | 3}\npushl $0x6000\npushl $0x3002\npushl ${USERS_CODE | 3}\npushl $fault\niret",
    "lret": f"pushl $0x3002\npopfl\npushl ${USERS | 3}\npushl $0x6000\npushl ${USERS_CODE | 3}\npushl $fault\nlret",
}


# Linux sets the RPL of null selectors as it returns from a signal, and its own tests ask for the 0 that was there.
@pytest.mark.parametrize("way", OUTWARD)
def test_a_null_selector_is_0_after_a_return_to_an_outer_level(way: str, tmp_path: pathlib.Path) -> None:
    loads = "".join(f"movl ${n % 4}, %eax\nmovl %eax, %{name}\n" for n, name in enumerate(SEGMENTS, 1))
    told = "".join(f"movl %{name}, %eax\nsay\n" for name in SEGMENTS)
    assert run(f"{loads}{OUTWARD[way]}\nfault:\n{told}", tmp_path, beside=False) == [0] * len(SEGMENTS)


@pytest.mark.parametrize("way", OUTWARD)
def test_a_segment_of_the_inner_level_is_gone_after_a_return_from_it(way: str, tmp_path: pathlib.Path) -> None:
    load = f"movl ${USERS | 3}, %eax\nmovl %eax, %fs\n"
    told = "".join(f"movl %{name}, %eax\nsay\n" for name in SEGMENTS)
    assert run(f"{load}{OUTWARD[way]}\nfault:\n{told}", tmp_path, beside=False) == [0, 0, USERS | 3, 0]


# --- an exception on the way to another's handler --------------------------------------------------------------------

FIRST = {
    "#DE": (0, "xorl %ecx, %ecx\nfault: divl %ecx"), "#BP": (3, "fault: int3"), "#UD": (UD, "fault: ud2"),
    "#NP": (NP, f"movl ${ABSENT}, %eax\nfault: movl %eax, %es"), "#GP": (GP, "fault: lcall $0x7f0, $0"),
    "#PF": (PF, "fault: movl 0x500000, %eax"),
}  # fmt: skip
CONTRIBUTORY = ("#DE", "#NP", "#GP")


def absent(vector: int) -> str:
    """Its gate is not present: #NP."""
    return f"movw $0x0e00, {IDT + 8 * vector + 4}\n"


def stackless(vector: int) -> str:
    """Its handler has no stack: #PF."""
    return f"""
        movw    $(ordinary - 0xf0000), {IDT + 8 * vector}
        movw    ${CODE}, {IDT + 8 * vector + 2}
        movl    $0xf8e00, {IDT + 8 * vector + 4}
        movl    $0x500000, %esp
"""


@pytest.mark.parametrize("name", FIRST)
def test_a_contributory_exception_on_the_way_to_a_handler(name: str, tmp_path: pathlib.Path) -> None:
    vector, code = FIRST[name]
    if name in (*CONTRIBUTORY, "#PF"):
        wanted = [DF, 0, MAIN, 0, 0]
    else:
        wanted = [NP, vector * 8 + 2 + (EXT if name != "#BP" else 0), MAIN, 0, RF]
    if name == "#NP":  # whose own gate it is, needs another second
        found = run(f"movw $0, {IDT + 8 * NP + 2}\n{code}\n", tmp_path, beside=False)
    else:
        found = run(absent(vector) + code + "\n", tmp_path, beside=False)
    assert found == wanted


@pytest.mark.parametrize("name", FIRST)
def test_a_page_fault_on_the_way_to_a_handler(name: str, tmp_path: pathlib.Path) -> None:
    vector, code = FIRST[name]
    found = run(stackless(vector) + code + "\n", tmp_path, beside=False)
    assert found == ([DF, 0, MAIN, 0, 0] if name == "#PF" else [PF, 2, MAIN, 0, RF])


@pytest.mark.parametrize("second", [absent, stackless])
def test_an_exception_on_the_way_to_the_double_faults_handler_ends_all(second, tmp_path: pathlib.Path) -> None:  # type: ignore[no-untyped-def]
    main = absent(GP) + second(DF) + FIRST["#GP"][1] + "\n"
    assert run(main, tmp_path, beside=False) == []
