"""-sandbox: system calls that this process and all its threads do without, from when the machine is built.

Ref: seccomp(2), QEMU's qemu-sandbox options. A denied call fails with EPERM; QEMU's process is killed by it.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Numbers of x86-64. What no machine needs, denied whenever the sandbox is on:
ALWAYS = {
    "reboot": 169, "swapon": 167, "swapoff": 168, "syslog": 103, "mount": 165, "umount2": 166, "pivot_root": 155,
    "chroot": 161, "acct": 163, "settimeofday": 164, "sethostname": 170, "setdomainname": 171, "iopl": 172,
    "ioperm": 173, "init_module": 175, "delete_module": 176, "quotactl": 179, "kexec_load": 246, "finit_module": 313,
    "kexec_file_load": 320, "bpf": 321, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311,
    "add_key": 248, "request_key": 249, "keyctl": 250, "setns": 308, "unshare": 272,
}  # fmt: skip
GROUPS = {
    "obsolete": {"_sysctl": 156, "create_module": 174, "get_kernel_syms": 177, "query_module": 178, "uselib": 134,
                 "ustat": 136, "sysfs": 139},
    "elevateprivileges": {"setuid": 105, "setgid": 106, "setpgid": 109, "setsid": 112, "setreuid": 113, "setregid": 114,
                          "setgroups": 116, "setresuid": 117, "setresgid": 119, "setfsuid": 122, "setfsgid": 123,
                          "capset": 126},
    "spawn": {"fork": 57, "vfork": 58, "execve": 59, "execveat": 322},
    "resourcecontrol": {"getpriority": 140, "setpriority": 141, "sched_setparam": 142, "sched_getparam": 143,
                        "sched_setscheduler": 144, "sched_getscheduler": 145, "sched_get_priority_max": 146,
                        "sched_get_priority_min": 147, "sched_setaffinity": 203, "sched_getaffinity": 204},
}  # fmt: skip
CLONE, CLONE3, CLONE_THREAD, ENOSYS = 56, 435, 0x00010000, 38
PR_SET_NO_NEW_PRIVS, SECCOMP, SET_FILTER, ALL_THREADS = 38, 317, 1, 1
X86_64, X32 = 0xC000003E, 0x40000000
ALLOW, ERRNO, EPERM = 0x7FFF0000, 0x00050000, 1
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF
NUMBER, ARCHITECTURE, FIRST = 0, 4, 16  # offsets in struct seccomp_data


def program(wanted: dict[str, str]) -> bytes:
    """The filter for `obsolete`, `elevateprivileges`, `spawn` and `resourcecontrol`, each `deny` or something else."""
    denied = set(ALWAYS.values())
    for group, calls in GROUPS.items():
        if wanted.get(group, "deny" if group == "obsolete" else "allow") == "deny":
            denied |= set(calls.values())
    no = (RETURN, 0, 0, ERRNO | EPERM)
    rows = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, X86_64), no, (LOAD, 0, 0, NUMBER), (AT_LEAST, 0, 1, X32), no]
    for number in sorted(denied):
        rows += [(EQUAL, 0, 1, number), no]
    if wanted.get("spawn") == "deny":  # threads may come; whoever tries clone3 first then takes clone
        rows += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ERRNO | ENOSYS), (EQUAL, 0, 3, CLONE), (LOAD, 0, 0, FIRST)]
        rows += [(ANY_BIT, 1, 0, CLONE_THREAD), no]
    rows.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("<HBBI", *row) for row in rows)


def enter(wanted: dict[str, Any]) -> None:
    """OSError when the kernel has no such filters."""
    import ctypes
    import os

    class Filter(ctypes.Structure):
        _fields_ = (("count", ctypes.c_ushort), ("rows", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    rows = program(wanted)
    made = Filter(len(rows) // 8, rows)
    kept = libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if kept or libc.syscall(SECCOMP, SET_FILTER, ALL_THREADS, ctypes.byref(made)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
