"""Reads what every start reads, once, for all users of this tree: vmrun's own machine types and lists as plain data,
and the code of the modules that a start imports, in `vmrun/ready/`. The environment's commands, which pip has made,
become scripts that leave site-packages alone until it is needed (vmrun/cli/bundle.py).

A first start then finds there what a second one finds in the user's cache (vmrun/config/kept.py). Each entry says what
it was made of; what has changed since is made anew in the user's cache, and the directory may be removed at any time.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
READY = ROOT / "vmrun" / "ready"
KINDS = ("own", "code")
SECONDS = 60
ENDED = 4  # exit code of a machine that --timeout ended
LINE = ["-M", "pc", "-S", "-display", "none", "-monitor", "stdio"]
NO_SITE = "-S"
SHEBANG_MOST = 255  # bytes that the kernel reads of it
HERE = f"import sys\n\nsys.path[0] = {str(ROOT)!r}\n"
# Every module of vmrun's own: a start that needs one more than those below would write a bundle of its own.
BUNDLE_ALL = f"""{HERE}
import pkgutil
from vmrun.cli import bundle
bundle.install()
import accel, vmrun
for package in accel, vmrun:
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".", onerror=lambda name: None):
        if not module.name.endswith("__main__"):
            try:
                __import__(module.name)
            except ImportError:
                pass  # of a library that is not here
bundle.keep()
"""
ACCELERATORS = ("tcg", *(["kvm"] if os.access("/dev/kvm", os.R_OK | os.W_OK) else []))
MACHINE = "schema: vmrun/machine/1\nname: ready\nmachine: pc-i440fx-7.2\nmemory: 64MiB\n"


def shorten() -> None:
    """The commands of this tree's environment start without site-packages."""
    first = f"#!{sys.executable} {NO_SITE}\n"
    if not pathlib.Path(sys.prefix).is_relative_to(ROOT) or " " in sys.executable or len(first) > SHEBANG_MOST:
        return
    for source in (ROOT / "bin").iterdir():
        docstring, _, code = source.read_text("utf-8").removeprefix("#!python\n").partition("\n\n")
        command = pathlib.Path(sys.prefix) / "bin" / source.name
        command.write_text(f"{first}{docstring}\n\n{HERE}{code}", "utf-8")
        command.chmod(0o755)


def prepare(cache: pathlib.Path) -> None:
    """Starts of the usual kinds, with `cache` as the user's, with site-packages and without."""
    env = {**os.environ, "XDG_CACHE_HOME": str(cache), "XDG_RUNTIME_DIR": str(cache)}
    cache.chmod(0o700)

    def run(*words: str, said: str = "", code: int = 0) -> None:
        command = [sys.executable, *words]
        done = subprocess.run(command, env=env, cwd=cache, input=said, text=True, capture_output=True, timeout=SECONDS)
        if done.returncode != code:  # without firmware, say: what was read up to there is there
            print(f"not prepared: {' '.join(words[:8])}: {done.stderr.strip()[-200:]}", file=sys.stderr)

    vmrun, vmrun_qemu = str(ROOT / "bin" / "vmrun"), str(ROOT / "bin" / "vmrun-qemu")
    run(vmrun, "types", "--digests")
    run("-c", BUNDLE_ALL)
    run(NO_SITE, "-c", BUNDLE_ALL)
    for accel in ACCELERATORS:
        run(vmrun_qemu, *LINE, "-accel", accel, said="quit\n")
    (cache / "ready.yaml").write_text(MACHINE)
    run(vmrun, "up", "--timeout", "0.1", "ready.yaml", code=ENDED)


def main() -> int:
    shorten()
    shutil.rmtree(READY, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory() as name:
            prepare(pathlib.Path(name))
            for kind in KINDS:
                shutil.copytree(pathlib.Path(name) / "vmrun" / kind, READY / kind)
        for path in (READY, *READY.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)  # the cache is its user's alone, this is everybody's
    except (OSError, subprocess.TimeoutExpired) as error:
        shutil.rmtree(READY, ignore_errors=True)
        print(f"first starts will be slower: nothing was prepared for them: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
