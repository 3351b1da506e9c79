"""vmrun doctor: can this host run machines, and what to do where it cannot. Everything is tried, not guessed."""

from __future__ import annotations

FINE, NO = 0, 1


class Finding:
    def __init__(self, what: str, good: bool, detail: str, remedy: str = "", needed: bool = True) -> None:
        self.what, self.good, self.detail, self.remedy, self.needed = what, good, detail, remedy, needed


def run(argv: list[str]) -> int:
    import argparse

    from vmrun.cli.out import add_format

    parser = argparse.ArgumentParser("vmrun doctor", description="Say whether this host can run machines.")
    add_format(parser, "text", "json")
    args = parser.parse_args(argv)

    found = examine()
    from vmrun.cli.out import print_json, write

    if args.format == "json":
        rows = [
            {"what": f.what, "ok": f.good, "needed": f.needed, "detail": f.detail, "remedy": f.remedy}
            for f in found
        ]
        print_json(rows)
    else:
        import sys

        colour = sys.stdout.isatty()
        for finding in found:
            mark = "ok" if finding.good else "no" if finding.needed else "--"
            if colour:
                tint = "32" if finding.good else "31" if finding.needed else "33"
                mark = f"\x1b[{tint}m{mark}\x1b[0m"
            write(f"{mark}  {finding.what}: {finding.detail}\n")
            if finding.remedy and not finding.good:
                write(f"        {finding.remedy}\n")
    return FINE if all(f.good or not f.needed for f in found) else NO


def examine() -> list[Finding]:
    return [*_accelerators(), *_firmware(), *_transfers(), _network(), _page(), _disassembler(), _cache()]


def _accelerators() -> list[Finding]:
    from accel.accelerator import find

    found = []
    for name in ("kvm", "soft"):
        try:
            good, why, remedy = find(name).probe()
        except ImportError:
            good, why, remedy = False, "this build of vmrun does not have it", ""
        found.append(Finding(f"accelerator {name}", good, "runs a processor" if good else why, remedy, False))
        if good:
            found += _weakness(name)
    works = any(f.good for f in found)
    detail = "at least one accelerator works" if works else "no accelerator works"
    return [*found, Finding("running machines", works, detail, "see above")]


def _weakness(name: str) -> list[Finding]:
    """Whether stock kernels will run, where that does not follow from running a processor; what makes them slow."""
    from accel.accelerator import find

    lost = find(name).weakness()
    if name == "soft":
        remedy = "allow memfd_create and mmap with PROT_EXEC" if lost else ""
        detail = lost or "hot code of the guest becomes the host's"
        return [Finding("translation on soft", not lost, detail, remedy, False)]
    what = f"stock 64-bit kernels on {name}"
    if not lost:
        return [Finding(what, True, "what they do early works")]
    detail = f"this {name} gives up on them: {lost}"
    return [Finding(what, False, detail, "use --accel soft for guests with such a kernel", False)]


def _firmware() -> list[Finding]:
    from vmrun.errors import VmrunError
    from vmrun.firmware import images

    found = []
    wanted = (
        ("bios.bin", True),
        ("bios-256k.bin", True),
        ("vgabios-stdvga.bin", False),
        ("linuxboot.bin", False),  # for `kernel:` through the firmware
    )
    for name, needed in wanted:
        try:
            image = images.load(name)
        except VmrunError as exc:
            problem = exc.problems[0]
            found.append(Finding(f"firmware {name}", False, problem.message, problem.remedy, needed))
        else:
            found.append(Finding(f"firmware {name}", True, f"{image.path} sha256:{image.sha256[:16]}…"))
    return found


def _transfers() -> list[Finding]:
    from vmrun.backends.block.engine import KINDS, engine

    found = []
    for name in KINDS:
        try:
            engine(name)
            found.append(Finding(f"aio: {name}", True, "the kernel moves disks' data by itself", "", False))
        except OSError as error:
            remedy = "take `aio: threads`; sysctl kernel.io_uring_disabled and seccomp rules of containers forbid it"
            if name == "native":
                remedy = "take `aio: threads`; sysctl fs.aio-max-nr says how many requests there may be"
            found.append(Finding(f"aio: {name}", False, str(error.strerror), remedy, False))
    return found


def _network() -> Finding:
    from vmrun.machine.network import library

    version = library()
    remedy = "install libslirp-dev and build vmrun again; `segment`, `tap` and `socket` networks work without"
    detail = f"libslirp {version}" if version else "this build of vmrun has no libslirp"
    return Finding("user networks", bool(version), detail, remedy, False)


def _page() -> Finding:
    from vmrun.errors import BackendError
    from vmrun.ui.vnc.page import novnc

    try:
        return Finding("vmrun view", True, f"noVNC in {novnc()}", "", False)
    except BackendError as error:
        return Finding("vmrun view", False, error.problems[0].message, error.remedy, False)


def _disassembler() -> Finding:
    try:
        import capstone
    except ImportError:
        remedy = "pip install 'vmrun[disassembly]'"
        return Finding(
            "disassembly of failed instructions", False, "capstone is not installed", remedy, False
        )
    return Finding("disassembly of failed instructions", True, f"capstone {capstone.__version__}")


def _cache() -> Finding:
    import os

    from vmrun.config.kept import cache_dir

    path = cache_dir()
    if not path:
        return Finding("cache of resolved machines", False, "no home directory", "set HOME", False)
    probe = path
    while not os.path.isdir(probe):
        probe = os.path.dirname(probe)
    good = os.access(probe, os.W_OK)
    return Finding("cache of resolved machines", good, path, f"make {probe} writable", False)
