"""A guest's file tree out of the host's own programs: what they need to run, at the same paths, as an initramfs."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable

import pytest

from benchmarks.beside.linux import BUSYBOX, archive

WORK = pathlib.Path(__file__).with_name("userland")
# x86-64-v1 everywhere: the C library's variants for newer processors round differently.
ENVIRONMENT = {"PATH": "/usr/bin", "LC_ALL": "C", "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX"}
PROGRAMS = (
    "bash", "dash", "sort", "seq", "sha256sum", "cksum", "cat", "cp", "cmp", "sed", "tail", "sleep", "awk", "gzip",
    "xz", "openssl", "perl", "python3", "gcc", "as", "ld",
)

INIT = """#!/usr/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
busybox mkdir -p /dev/shm /work
busybox mount -t tmpfs tmp /tmp
echo GUEST-UP $(busybox nproc)
{script}
echo GUEST-DOWN
busybox poweroff -f
"""


def _run(*command: str, **keys: object) -> str:
    return subprocess.run(
        command, check=True, timeout=120, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **keys,  # type: ignore[call-overload]
    ).stdout


def libraries(path: str) -> set[str]:
    """Of a dynamic program, its loader included."""
    done = subprocess.run(["ldd", path], timeout=60, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return set(re.findall(r"(/\S+) \(0x", done.stdout))


def of_python() -> set[str]:
    """Modules that work.py imports, extension modules and their libraries included."""
    listing = (
        "import sys, runpy, io; out, sys.stdout = sys.stdout, io.StringIO(); runpy.run_path(sys.argv[1])\n"
        "print(*[m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)], sep='\\n', file=out)"
    )
    found = _run("/usr/bin/python3", "-S", "-E", "-c", listing, str(WORK / "work.py")).split()
    encodings = pathlib.Path("/usr/lib/python3.11/encodings")
    files = {name for name in found if name.startswith("/") and str(WORK) not in name}
    return files | {str(p) for n in ("aliases", "ascii", "latin_1") if (p := encodings / f"{n}.py").exists()}


def of_perl() -> set[str]:
    listing = "print join qq(\\n), values %INC"
    found = _run("/usr/bin/perl", "-e", (WORK / "work.pl").read_text() + ";print qq(\\n--\\n);" + listing)
    return set(found.partition("--\n")[2].split())


def of_gcc(directory: pathlib.Path) -> set[str]:
    """What a compilation of hello.c reads and runs."""
    found = {_run("gcc", f"-print-prog-name={name}").strip() for name in ("cc1", "collect2")}
    found.add(_run("gcc", "-print-file-name=liblto_plugin.so").strip())
    headers = _run("gcc", "-O2", "-M", str(WORK / "hello.c")).replace("\\\n", " ").split()
    found |= {name for name in headers if name.startswith("/") and str(WORK) not in name}
    linked = _run("gcc", "-o", str(directory / "hello"), str(WORK / "hello.c"), "-lm", "-Wl,-t")
    found |= {name for name in linked.split() if name.startswith("/usr") or name.startswith("/lib")}
    found |= {_run("gcc", f"-print-file-name={name}").strip() for name in ("libgcc_s.so", "libgcc_s.so.1")}
    for script in (name for name in list(found) if name.endswith(".so") and os.path.getsize(name) < 1000):
        text = pathlib.Path(script).read_bytes()        # a linker script names more
        found |= {name.decode() for name in re.findall(rb"/[\w./+-]+", text) if os.path.exists(name)}
    return {name for name in found if os.path.isfile(name)}


class Tree:
    """Files of a guest. /bin, /lib … are links into /usr, as in Debian."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[int, bytes]] = {}
        for name in ("usr", "dev", "proc", "sys", "tmp", "etc", "root"):
            self.directory(name)
        for name in ("bin", "lib", "lib64", "sbin"):
            self.directory(f"usr/{name}")
            self.files[name] = (stat.S_IFLNK | 0o777, f"usr/{name}".encode())

    def directory(self, name: str) -> None:
        parts = name.split("/")
        for n in range(1, len(parts) + 1):
            self.files.setdefault("/".join(parts[:n]), (stat.S_IFDIR | 0o755, b""))

    def add(self, path: str, data: bytes, mode: int = 0o755) -> None:
        name = path.lstrip("/")
        if name.split("/")[0] in ("bin", "lib", "lib64", "sbin"):
            name = "usr/" + name
        self.directory(os.path.dirname(name))
        self.files[name] = (stat.S_IFREG | mode, data)

    def copy(self, paths: Iterable[str]) -> None:
        """Host files by the path they are used by, links followed; with their libraries."""
        wanted = set(paths)
        for path in list(wanted):
            wanted |= libraries(path)
        for path in sorted(wanted):
            # "/usr/lib/gcc/…/../../x": both the directories of the way and the file must be there
            self.directory(os.path.dirname(path).lstrip("/").split("/..")[0])
            self.add(os.path.normpath(path), pathlib.Path(path).read_bytes(), os.stat(path).st_mode & 0o777)

    def write(self, path: pathlib.Path, script: str) -> str:
        """The archive; its init runs `script` with busybox's shell."""
        busybox = next((name for name in BUSYBOX if os.path.exists(name)), None)
        if busybox is None:
            pytest.skip("no busybox: apt-get install busybox-static")
        self.add("/usr/bin/busybox", pathlib.Path(busybox).read_bytes())
        self.add("/init", INIT.format(script=script).encode())
        path.write_bytes(archive(self.files))
        return str(path)


def userland(directory: pathlib.Path) -> Tree:
    """All that work.sh needs."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path="/usr/bin")]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    tree = Tree()
    tree.copy(f"/usr/bin/{name}" for name in PROGRAMS)
    tree.copy(of_python() | of_perl() | of_gcc(directory))
    for path in WORK.iterdir():
        if path.is_file():
            tree.add(f"/src/{path.name}", path.read_bytes())
    for name in ("/etc/ssl/openssl.cnf", "/usr/lib/ssl/openssl.cnf"):
        if os.path.exists(name):
            tree.add(name, pathlib.Path(name).read_bytes(), 0o644)
    return tree
