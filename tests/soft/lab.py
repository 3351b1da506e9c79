"""Small guests as ROMs: assembled here, run by the soft processor and by QEMU, their logs compared.

A guest writes its log byte by byte to port 0xe9 and ends with a write to port 0xf4 (isa-debugcon, isa-debug-exit).
Its 64 KiB lie below 1 MiB and below 4 GiB, linked at 0xf0000; the symbol `start` is 16-bit code.
"""

from __future__ import annotations

import pathlib
import shutil
import struct
import subprocess

from accel.soft.accelerator import SoftAccelerator
from tests.unit.kvm.pc import Pc

LOG_PORT, END_PORT = 0xE9, 0xF4
QEMU = shutil.which("qemu-system-x86_64")
TOOLS = bool(shutil.which("as") and shutil.which("ld"))
ROM_BASE = 0xF0000


def assemble(source: str, directory: pathlib.Path) -> bytes:
    """64 KiB with `source` (AT&T syntax) at the beginning and a jump to its `start` at the reset vector."""
    text, object_file, flat = (directory / name for name in ("guest.s", "guest.o", "guest.bin"))
    reset = "\n.section .reset,\"ax\"\n.code16\nljmp $0xf000, $(start - 0xf0000)\n"
    text.write_text(source + reset)
    subprocess.run(["as", "--64", "-o", str(object_file), str(text)], check=True, timeout=60)
    link = ["ld", "-m", "elf_x86_64", "--oformat", "binary", "-e", "0", "-Ttext", hex(ROM_BASE)]
    link += ["--section-start=.reset=0xffff0", "-o", str(flat), str(object_file)]
    subprocess.run(link, check=True, timeout=60, stderr=subprocess.DEVNULL)
    return flat.read_bytes().ljust(0x10000, b"\xf4")


def words(log: bytes) -> list[int]:
    """The log as dwords."""
    return [value for (value,) in struct.iter_unpack("<I", log[: len(log) // 4 * 4])]


class SoftRun:
    """One run on the soft processor. `log`, `reports` (of a processor that gave up), `ended`, counts of work."""

    def __init__(self, rom: bytes, cpuid: list[dict[str, int]], seconds: float = 30.0) -> None:
        self.pc = Pc("f4", accel=SoftAccelerator)
        try:
            self.pc.rom.write(0, rom)
            log = bytearray()
            self.pc.port(LOG_PORT, write=lambda offset, size, value: log.append(value & 0xFF))
            self.pc.run(1, seconds, cpuid)
            self.log = bytes(log)
            self.ended = bool(self.pc.ended)
            self.reports = self.pc.control.take_reports()
            counts = self.pc.accel.machine.statistics
            self.fills, self.builds, self.misses = (int(counts[name]) for name in ("fills", "builds", "misses"))
            self.slow = int(counts["slow"])  # accesses that went item by item
        finally:
            self.pc.close()


def qemu_run(rom: bytes, directory: pathlib.Path, cpu: str = "qemu64") -> tuple[bytes, int]:
    """The log of the same ROM under QEMU TCG, and QEMU's exit code (0 after a triple fault, else odd)."""
    image, log = directory / "rom.bin", directory / "qemu.log"
    image.write_bytes(rom)
    log.write_bytes(b"")
    command = [
        str(QEMU), "-M", "pc,accel=tcg", "-cpu", cpu, "-m", "2", "-nodefaults", "-display", "none", "-no-reboot",
        "-bios", str(image), "-chardev", f"file,id=log,path={log}",
        "-device", f"isa-debugcon,iobase={LOG_PORT:#x},chardev=log",
        "-device", f"isa-debug-exit,iobase={END_PORT:#x}",
    ]
    code = subprocess.run(command, timeout=60, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE).returncode
    return log.read_bytes(), code


# In 32-bit mode, the code between `copy` and `copied` runs at 0x10000; `label@` is where a label of it is there.
PROTECTED = """
.macro log
    movb %dl, %al
    outb %al, $0xe9
.endm
.code16
start:
    cli
    lgdtl %cs:(table - 0xf0000)
    movl $1, %eax
    movl %eax, %cr0
    ljmpl $8, $wide
.code32
wide:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $0x8000, %esp
    movl $copy, %esi
    movl $0x10000, %edi
    movl $(copied - copy), %ecx
    cld
    rep movsb
    {body}
    outb %al, $0xf4
table: .word 23
    .long gdt
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
copy:
    {code}
copied:
"""


def log_of(body: str, code: str, directory: pathlib.Path) -> list[int]:
    """What `log` in `body` has written of DL, on the soft processor in 32-bit mode, with `code` at 0x10000."""
    from tests.soft.native import cpuid

    source = PROTECTED.format(body=body, code=code).replace("@", " - copy + 0x10000")
    run = SoftRun(assemble(source, directory), cpuid())
    assert run.ended
    return list(run.log)
