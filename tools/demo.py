"""`make demo`: the main job on real input, visibly. Real firmware finds an IDE disk and boots it; then a stock Linux
starts without a firmware, where one is installed.

The disk's boot sector prints a line through the firmware's video service and on the serial port, writes a line back to
the disk, and switches the machine off through ACPI. Neither needs /dev/kvm: what was tried and what runs is printed.
"""

from __future__ import annotations

import argparse
import glob
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
GREETING = b"Booted from the IDE disk of a declared rhel6.3.0.\r\n"
PROOF = b"written by the guest"


def boot_sector() -> bytes:
    """512 bytes of 16-bit code, by hand."""
    text_at = 0x7C00 + 0x60
    code = bytes.fromhex(
        "fa31c08ed88ec08ed0bc007cfb"  # cli; segments 0; stack below 0x7c00; sti
    )
    code += b"\xbe" + text_at.to_bytes(2, "little")  # mov si, text
    code += bytes.fromhex(
        "ac08c07414"  # next: lodsb; or al,al; jz done
        "b40ebb0700cd10"  # int 10h, teletype
        "88c4bafd03eca82074fb88e0b2f8ee"  # wait for LSR.THRE; out 3f8h, al
        "ebe4"  # jmp next
    )
    # done: write sector 2 (LBA 1) from 0x7c00+0xa0 with int 13h
    code += b"\xbb" + (0x7C00 + 0xA0).to_bytes(2, "little")  # mov bx, proof
    code += bytes.fromhex("b80103b90200ba8000cd13")  # ax=0301 cx=0002 dx=0080; int 13h
    code += bytes.fromhex("ba04b0b80020ef")  # PM1_CNT at 0xb004: SLP_EN, S5
    code += bytes.fromhex("f4ebfd")  # hlt; jmp $-1
    # the jump over the loop body: from after `jz` to `done`
    code = bytearray(code)
    jump = code.index(b"\x74\x14")
    done = code.index(b"\xbb" + (0x7C00 + 0xA0).to_bytes(2, "little"))
    code[jump + 1] = done - (jump + 2)
    loop = code.index(b"\xac\x08\xc0")
    back = code.index(b"\xeb\xe4")
    code[back + 1] = (loop - (back + 2)) & 0xFF
    image = bytearray(512)
    image[: len(code)] = code
    assert len(code) <= 0x60
    image[0x60 : 0x60 + len(GREETING)] = GREETING
    image[0xA0 : 0xA0 + len(PROOF)] = PROOF
    image[510:512] = b"\x55\xaa"
    return bytes(image)


def linux(directory: pathlib.Path) -> tuple[str, str] | None:
    """(kernel, initramfs) for a Linux guest, or None where the host has no kernel that may be read."""
    kernels = [path for path in sorted(glob.glob("/boot/vmlinuz-*")) if os.access(path, os.R_OK)]
    if not kernels or shutil.which("gcc") is None:
        return None
    program = directory / "init"
    flags = ["-static", "-nostdlib", "-fno-pie", "-no-pie", "-fno-stack-protector", "-O1", "-mno-sse"]
    subprocess.run(["gcc", *flags, "-o", program, ROOT / "tools" / "demo_init.c"], check=True)
    sys.path.insert(0, str(ROOT))
    from benchmarks.beside.linux import archive

    image = directory / "initramfs.cpio"
    image.write_bytes(archive({"init": (stat.S_IFREG | 0o755, program.read_bytes())}))
    # the cloud flavour is the smaller
    return min(kernels, key=lambda path: ("cloud" not in path, path)), str(image)


def main() -> int:
    parser = argparse.ArgumentParser(description="The main job, visibly.")
    parser.add_argument("--accel", help="accelerators to try for all guests, instead of the machines' own lists")
    chosen = parser.parse_args().accel
    accel = ["--accel", chosen] if chosen else []
    vmrun = [sys.executable, "-m", "vmrun"]

    def step(title: str, *argv: str) -> int:
        print(f"\n$ vmrun {' '.join(argv)}    # {title}", flush=True)
        return subprocess.run([*vmrun, *argv], cwd=ROOT, check=False).returncode

    with tempfile.TemporaryDirectory(prefix="vmrun-demo-") as name:
        directory = pathlib.Path(name)
        disk = directory / "disk.img"
        disk.write_bytes(boot_sector() + bytes((4 << 20) - 512))
        machine = directory / "demo.yaml"
        machine.write_text(
            "schema: vmrun/machine/1\nname: demo\nmachine: rhel6.3.0\nmemory: 1111MiB\n"
            "rtc: {base: localtime, clock: vm, driftfix: slew}\ndisplay: std\ndisks: [disk.img]\nserial: stdio\n"
        )
        step("can this host run machines?", "doctor")
        if step("is the machine right?", "validate", str(machine)):
            return 1
        step("what is it made of?", "tree", "--view", "pci", str(machine))
        code = step("run it", "up", "--timeout", "120", *accel, str(machine))
        written = disk.read_bytes()[512 : 512 + len(PROOF)]
        if code != 0 or written != PROOF:
            print(f"\nthe demo failed: exit code {code}, the disk holds {written!r}")
            return 1
        print(f"the guest booted, wrote {written.decode()!r} to its disk and switched itself off")
        found = linux(directory)
        if found is None:
            print("\n(with a kernel in /boot, e.g. from linux-image-cloud-amd64, the demo starts Linux as well)")
            return 0
        guest = directory / "linux.yaml"
        guest.write_text(
            "schema: vmrun/machine/1\nname: linux\nmachine: pc-i440fx-2.0\nmemory: 256MiB\ncpus: {count: 2}\n"
            f"firmware: none\nkernel: {found[0]}\ninitrd: {found[1]}\ncmdline: console=ttyS0 loglevel=5\n"
            "serial: stdio\n"
        )
        # vmrun's own processor: there a stock kernel runs whatever KVM is like, and without any
        title = "a stock Linux without a firmware"
        code = step(title, "up", "--timeout", "300", "--accel", chosen or "soft", str(guest))
    print(f"\nthe demo failed: Linux ended with exit code {code}" if code else "Linux booted and switched itself off")
    return 1 if code else 0


if __name__ == "__main__":
    sys.exit(main())
