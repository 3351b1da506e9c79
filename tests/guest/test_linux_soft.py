"""Debian's stock kernels on the soft processor: up to init and off again, without a complaint in the kernel's log.

Many boots in a row: `python -m tests.guest.boots --runs 20`.
"""

from __future__ import annotations

import pathlib
import re

import pytest

from accel.soft import accelerator
from tests.guest.boots import boot, load
from tests.guest.linux import LinuxGuest, kernel
from tests.guest.packing import Tree

pytestmark = [pytest.mark.guest, pytest.mark.slow]
MACHINES = ("rhel6.3.0", "pc-i440fx-2.0")
PATIENCE = 400.0


@pytest.mark.parametrize("cpus", [1, 4])
@pytest.mark.parametrize("machine", MACHINES)
def test_the_cloud_kernel_boots_and_switches_off(machine: str, cpus: int, tmp_path: pathlib.Path) -> None:
    wrong, text = boot(tmp_path, machine, cpus, cloud=True, patience=PATIENCE)
    assert not wrong, text[-3000:]


@pytest.mark.parametrize("cpus", [1, 4])
@pytest.mark.parametrize("machine", MACHINES)
def test_the_cloud_kernel_boots_beside_two_busy_processes(machine: str, cpus: int, tmp_path: pathlib.Path) -> None:
    with load(2):
        wrong, text = boot(tmp_path, machine, cpus, cloud=True, patience=PATIENCE)
    assert not wrong, text[-3000:]


@pytest.mark.parametrize(("machine", "cpus"), [("rhel6.3.0", 4), ("pc-i440fx-2.0", 1)])
def test_the_generic_kernel_boots_and_switches_off(machine: str, cpus: int, tmp_path: pathlib.Path) -> None:
    wrong, text = boot(tmp_path, machine, cpus, cloud=False, patience=PATIENCE)
    assert not wrong, text[-3000:]


@pytest.mark.parametrize("way", ["on", "always"])
def test_the_cloud_kernel_boots_with_room_for_a_few_blocks(
    way: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 KiB, where all code is dropped again and again, until what is translated is only what is hot."""
    monkeypatch.setattr(accelerator, "ROOM", 20 << 10)
    monkeypatch.setattr(accelerator, "TRANSLATE", way)
    wrong, text = boot(tmp_path, "pc-i440fx-2.0", 1, cloud=True, patience=PATIENCE)
    assert not wrong, text[-3000:]


SELF_TESTS = """
for module in $(busybox cat /modules); do busybox modprobe $module || echo NOT-LOADED $module; done
busybox modprobe test_bpf test_range=0,500
echo PASSED $(busybox grep -c 'selftest *: passed' /proc/crypto)
busybox grep 'selftest' /proc/crypto | busybox grep -v passed
busybox dmesg | busybox grep -E 'raid6|xor|test_user|static_keys|Summary|[^0] FAILED|alg:|jitter'
"""
# Without what needs instructions that the processor does not declare, is no test, or fails under QEMU as well (ecdh:
# when its random numbers have to come from the jitter of a clock that has none).
WITHOUT = re.compile(
    r"avx512|tcrypt|pcrypt|ansi_cprng|af_alg|algif|curve25519.x86|crypto_user|x509|pkcs|drbg|jitter"
    r"|lz4|zstd|ecdh"
)
WIDE = re.compile(r"avx|aesni|pclmul|clmulni")             # … that a Nehalem does not declare


@pytest.mark.parametrize(("machine", "model"), [("pc-i440fx-2.0", "Nehalem"), ("pc-i440fx-7.2", "Skylake-Client")])
def test_the_kernels_own_self_tests_pass(machine: str, model: str, tmp_path: pathlib.Path) -> None:
    """Ciphers and hashes in C, SSE, AVX and AES, RAID-6, XOR, copies from and to user space, static keys, BPF."""
    if model != "Nehalem" and "avx2" not in pathlib.Path("/proc/cpuinfo").read_text().split():
        pytest.skip("the host has no AVX2")
    image = kernel(cloud=False)
    version = image.partition("vmlinuz-")[2]
    place = pathlib.Path("/lib/modules") / version
    wanted = ("kernel/crypto", "kernel/arch/x86/crypto", "kernel/lib/crypto", "kernel/lib/raid6")
    found = [path for part in wanted for path in sorted((place / part).rglob("*.ko"))]
    found += [path for path in (place / "kernel/lib").glob("*.ko")]
    tree = Tree()
    for path in found:
        tree.add(str(path), path.read_bytes())
    for name in ("modules.dep", "modules.alias", "modules.symbols"):
        tree.add(str(place / name), (place / name).read_bytes())
    names = [path.stem for path in found if path.parent.name != "lib" and not WITHOUT.search(path.stem)]
    if model == "Nehalem":
        names = [name for name in names if not WIDE.search(name)]
    names += ["test_user_copy", "test_static_keys"]
    tree.add("/modules", "\n".join(names).encode())
    with LinuxGuest(
        tmp_path, "soft", machine=machine, memory="512MiB", kernel=image, cmdline="quiet mitigations=off",
        initrd=tree.write(tmp_path / "self.cpio", SELF_TESTS), cpus={"model": model, "count": 1},
    ) as guest:
        reason = guest.run_to_end(PATIENCE)
        text = guest.console()
        wrong = guest.complaints()
    assert reason == "shutdown", text[-3000:]
    assert not wrong, text[-3000:]
    assert "NOT-LOADED" not in text
    assert "test_user_copy: tests passed" in text
    assert "501 PASSED, 0 FAILED" in text
    assert f"raid6: using algorithm {'sse2' if model == 'Nehalem' else 'avx2'}" in text
    passed = int(text.partition("PASSED ")[2].split()[0])
    assert passed > (80 if model == "Nehalem" else 150), text[-3000:]
    assert not re.search(r"alg: .*(failed|Failed)", text)
