"""Compiles every .pyx of accel/ and vmrun/ and installs machines/ and schema/ as the package's data.

`VMRUN_EXT='accel/soft/*' python setup.py build_ext --inplace` compiles only what the pattern names.
"""

import fnmatch
import os
import pathlib

from Cython import Tempita
from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

ROOT = pathlib.Path(__file__).parent
DATA = {"vmrun._data.machines": "machines", "vmrun._data.schema": "schema"}
# Modules that need a library of the host's → (its name for the linker, a header of it).
LIBRARIES = {"vmrun/backends/net/slirp.pyx": ("slirp", "slirp/libslirp.h")}
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


def data_files(directory: str) -> list[str]:
    root = ROOT / directory
    return [str(path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_file()]


packages = find_packages(include=["accel", "accel.*", "vmrun", "vmrun.*"])

setup(
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
