"""Compiles every .pyx of accel/ and vmrun/ and installs machines/ and schema/ as the package's data.

`VMRUN_EXT='accel/soft/*' python setup.py build_ext --inplace` compiles only what the pattern names.
"""

import fnmatch
import hashlib
import os
import pathlib

from Cython import Tempita
from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = pathlib.Path(__file__).parent
DATA = {"vmrun._data.machines": "machines", "vmrun._data.schema": "schema"}
# Modules that need a library of the host's → (its name for the linker, a header of it).
LIBRARIES = {"vmrun/backends/net/slirp.pyx": ("slirp", "slirp/libslirp.h")}
# Compiled modules that are linked a second time, all in one `together.so`: directory → which. Starts load that one
# (vmrun/cli/bundle.py). No two of one directory may have the same last name.
TOGETHER = {
    "vmrun": ("accel/*", "vmrun/core/*", "vmrun/bus/*", "vmrun/devices/*", "vmrun/backends/protocols*"),
    "accel/soft": ("accel/soft/*",),
}
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "cdivision": True,
    "initializedcheck": False,
}


def expand_templates() -> None:
    """X.pyx of each X.pyx.in whose text has changed (Cython.Tempita)."""
    for template in sorted(ROOT.glob("accel/**/*.pyx.in")):
        target = template.with_suffix("")
        text = Tempita.sub(template.read_text(encoding="utf-8"))
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")


def is_left_out(path: str) -> bool:
    """Whether a module's library is missing here: it is not built then; `vmrun doctor` says what is missing."""
    header = LIBRARIES[path][1] if path in LIBRARIES else ""
    places = ("/usr/include", "/usr/local/include", *os.environ.get("CPATH", "").split(":"))
    return bool(header) and not any(os.path.exists(os.path.join(place or ".", header)) for place in places)


def extensions() -> list[Extension]:
    expand_templates()
    wanted = os.environ.get("VMRUN_EXT", "*")
    found = []
    for top in ("accel", "vmrun"):
        for source in sorted((ROOT / top).rglob("*.pyx")):
            path = source.relative_to(ROOT).as_posix()
            if not fnmatch.fnmatch(path, wanted):
                continue
            name = path.removesuffix(".pyx").replace("/", ".")
            extra = ["-O2", "-g0", "-fno-strict-aliasing", "-fno-semantic-interposition", "-Wno-unused-function"]
            if path.startswith("accel/soft/"):
                # The SLP pass breaks store forwarding of the lazy flags; handlers end in tail calls.
                extra += ["-fno-tree-slp-vectorize", "-fno-plt", "-fomit-frame-pointer"]
                extra += ["-foptimize-sibling-calls"]
                # Inline is what is declared inline, all of it; a handler's slow twin stays apart.
                extra += ["-fno-inline-functions-called-once", "-fno-inline-functions", "-fno-inline-small-functions"]
                extra += ["--param=max-inline-insns-single=200"]
                extra += ["--param=inline-min-speedup=1", "--param=inline-unit-growth=200"]
            if is_left_out(path):
                continue
            libraries = [LIBRARIES[path][0]] if path in LIBRARIES else []
            found.append(Extension(name, [path], extra_compile_args=extra, libraries=libraries))
    return found


class BuildTogether(build_ext):
    """Compiles the modules, then links those of TOGETHER once more."""

    def run(self) -> None:
        super().run()
        for place, patterns in TOGETHER.items() if self.extensions else ():
            self.link(place, patterns)

    def link(self, place: str, patterns: tuple[str, ...]) -> None:
        sources = [path for top in ("accel", "vmrun") for path in sorted((ROOT / top).rglob("*.pyx"))]
        paths = [path.relative_to(ROOT) for path in sources]
        paths = [path for path in paths if is_together(path.as_posix(), place, patterns)]
        objects = [pathlib.Path(self.build_temp, path.with_suffix(".o")) for path in paths]
        names = [path.as_posix().removesuffix(".pyx").replace("/", ".") for path in paths]
        own = [pathlib.Path(self.get_ext_fullpath(name)) for name in names]
        if not all(path.exists() for path in [*objects, *own]):
            return  # some are not built here
        target = ROOT if self.inplace else pathlib.Path(self.build_lib)
        target = target / place / "together.so"
        if not target.exists() or any(path.stat().st_mtime > target.stat().st_mtime for path in objects):
            self.compiler.link_shared_object([str(path) for path in objects], str(target))
        digests = [hashlib.blake2b(path.read_bytes(), digest_size=32).hexdigest() for path in own]
        lines = [f"{name} {digest}\n" for name, digest in zip(names, digests, strict=True)]
        target.with_suffix(".txt").write_text("".join(lines), encoding="utf-8")


def is_together(path: str, place: str, patterns: tuple[str, ...]) -> bool:
    soft = place.startswith("accel/soft") == path.startswith("accel/soft/")
    return soft and any(fnmatch.fnmatch(path, pattern) for pattern in patterns)


def data_files(directory: str) -> list[str]:
    root = ROOT / directory
    return [str(path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_file()]


packages = find_packages(include=["accel", "accel.*", "vmrun", "vmrun.*"])

setup(
    cmdclass={"build_ext": BuildTogether},
    packages=packages + list(DATA),
    package_dir={package: directory for package, directory in DATA.items()},
    package_data={package: data_files(directory) for package, directory in DATA.items()},
    ext_modules=cythonize(
        extensions(),
        compiler_directives=DIRECTIVES,
        show_all_warnings=False,
        nthreads=os.cpu_count() or 1,
    ),
)
