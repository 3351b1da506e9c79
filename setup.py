"""Compiles every .pyx of accel/ and vmrun/. `VMRUN_EXT='accel/soft/*' python setup.py build_ext --inplace` limits the work."""

import fnmatch
import os
import pathlib

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = pathlib.Path(__file__).parent
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": True,
}


def extensions() -> list[Extension]:
    wanted = os.environ.get("VMRUN_EXT", "*")
    found = []
    for top in ("accel", "vmrun"):
        for source in sorted((ROOT / top).rglob("*.pyx")):
            path = source.relative_to(ROOT).as_posix()
            if not fnmatch.fnmatch(path, wanted):
                continue
            name = path.removesuffix(".pyx").replace("/", ".")
            # The SLP pass breaks store forwarding of the soft CPU's lazy flags; tail calls need no frame pointers.
            extra = ["-O2", "-g0", "-fno-strict-aliasing", "-fno-semantic-interposition", "-Wno-unused-function"]
            if path.startswith("accel/soft/"):
                extra += ["-fno-tree-slp-vectorize", "-fno-plt", "-fomit-frame-pointer", "-foptimize-sibling-calls"]
            found.append(Extension(name, [path], extra_compile_args=extra))
    return found


setup(
    ext_modules=cythonize(
        extensions(),
        compiler_directives=DIRECTIVES,
        nthreads=0,
        show_all_warnings=False,
    )
)
