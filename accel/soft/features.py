"""What the soft processor has, as CPUID leaves: a declared model is cut to this.

A bit is here when its instructions, MSRs and control bits are implemented; the names are those of CPUID in the Intel
and AMD manuals.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def _bits(numbers: Iterable[int]) -> int:
    return sum(1 << n for n in numbers)


# FPU VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2
FEATURES_EDX = _bits((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26))
# SSE3 SSSE3 CX16 PCID SSE4.1 SSE4.2 x2APIC MOVBE POPCNT TSC-deadline XSAVE RDRAND hypervisor
FEATURES_ECX = _bits((0, 9, 13, 17, 19, 20, 21, 22, 23, 24, 26, 30, 31))
# PCLMULQDQ AES, which are the host's
CIPHERS_ECX = _bits((1, 25))
# What the host's instructions do: FMA AVX F16C; BMI1 AVX2 BMI2 SHA; VAES VPCLMULQDQ
HOST_ECX, HOST_7_EBX, HOST_7_ECX = _bits((12, 28, 29)), _bits((3, 5, 8, 29)), _bits((9, 10))
XSAVES = _bits((0, 1, 2, 3))  # XSAVEOPT XSAVEC XGETBV with ECX 1, XSAVES
XSAVE_YMM, XSAVE_KEYS = 1 << 2, 1 << 9
KEYS_SIZE, KEYS_AT = 8, 2688  # of PKRU, in the standard form
# SYSCALL NX MMXEXT FFXSR PDPE1GB RDTSCP LM, and what AMD repeats of 1.EDX
EXTENDED_EDX = _bits((11, 20, 22, 25, 26, 27, 29)) | FEATURES_EDX & 0x0183F3FF
# LAHF_LM CMP_LEGACY CR8_LEGACY ABM SSE4A MISALIGNSSE 3DNOWPREFETCH OSVW TOPOEXT PERFCTR_CORE
EXTENDED_ECX = _bits((0, 1, 4, 5, 6, 7, 8, 9, 22, 23))
# FSGSBASE HLE SMEP ERMS INVPCID RTM (each transaction aborts at once) RDSEED ADX SMAP CLFLUSHOPT CLWB
STRUCTURED_EBX = _bits((0, 4, 7, 9, 10, 11, 18, 19, 20, 23, 24))
STRUCTURED_EDX = _bits((4, 26, 27, 31))  # FSRM; SPEC_CTRL with IBRS, STIBP, SSBD, which there is no need of here
STRUCTURED_ECX = _bits((2, 3, 22, 31))  # UMIP PKU RDPID PKS
# CLZERO, x87 pointers saved always, WBNOINVD, IBPB, IBRS, STIBP, SSBD
EXTENDED_8_EBX = _bits((0, 2, 9, 12, 14, 15, 24))
# KVM's clock under both its MSR numbers, no delay of I/O ports, a stable clock; and what a host may offer without ever
# making use of it: page faults told before they are resolved, stolen time (always none), interrupts that need no EOI
PARAVIRTUAL = _bits((0, 1, 3, 4, 5, 6, 24))
# Version 2; four counters and three fixed ones, all of 48 bits; of seven events cycles, instructions, reference cycles
COUNTERS = (2 | 4 << 8 | 48 << 16 | 7 << 24, 0b1111000, 3 | 48 << 5)
INVARIANT_TSC = 1 << 8
ARAT = 1 << 2
PHYSICAL_BITS, LINEAR_BITS = 40, 48
VENDOR = (0x756E6547, 0x6C65746E, 0x49656E69)  # GenuineIntel: EBX, ECX, EDX


def supported_cpuid() -> list[dict[str, int]]:
    """Leaves as KVM_GET_SUPPORTED_CPUID gives them."""
    from accel.soft.stub import host_has_aes, host_word

    ebx, ecx, edx = VENDOR
    features = FEATURES_ECX | (CIPHERS_ECX if host_has_aes() else 0) | HOST_ECX & host_word(1, 2)
    structured = STRUCTURED_EBX | HOST_7_EBX & host_word(7, 1)
    structured_ecx = STRUCTURED_ECX | HOST_7_ECX & host_word(7, 2)
    avx = bool(features >> 28 & 1)
    area = KEYS_AT + KEYS_SIZE
    leaves = [
        (0, 0, 0xD, ebx, ecx, edx),
        (1, 0, 0x000306A9, 0x800, features, FEATURES_EDX),
        (6, 0, ARAT, 0, 0, 0),
        (0xA, 0, COUNTERS[0], COUNTERS[1], 0, COUNTERS[2]),
        (7, 0, 0, structured, structured_ecx, STRUCTURED_EDX),
        (0xD, 0, 3 | XSAVE_KEYS | (XSAVE_YMM if avx else 0), area, area, 0),
        (0xD, 1, XSAVES, (832 if avx else 576) + KEYS_SIZE, 0, 0),
        *([(0xD, 2, 256, 576, 0, 0)] if avx else []),
        (0xD, 9, KEYS_SIZE, KEYS_AT, 0, 0),
        (0x40000000, 0, 0x40000001, 0x4B4D564B, 0x564B4D56, 0x4D),
        (0x40000001, 0, PARAVIRTUAL, 0, 0, 0),
        (0x80000000, 0, 0x80000008, ebx, ecx, edx),
        (0x80000001, 0, 0, 0, EXTENDED_ECX, EXTENDED_EDX),
        (0x80000007, 0, 0, 0, 0, INVARIANT_TSC),
        (0x80000008, 0, LINEAR_BITS << 8 | PHYSICAL_BITS, EXTENDED_8_EBX, 0, 0),
    ]
    names = ("function", "index", "eax", "ebx", "ecx", "edx")
    return [{"flags": int(leaf[0] in (7, 0xD)), **dict(zip(names, leaf, strict=True))} for leaf in leaves]
