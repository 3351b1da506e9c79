"""Names of CPU models. The models themselves are data in machines/cpus/FAMILY; only their names matter to
config.
"""

from __future__ import annotations

import os

from vmrun.config.data import data_dir

# What every accelerator offers besides the models with files.
_BUILT_IN = ("host", "max", "default")


def model_names(family: str) -> list[str]:
    """Known CPU models of a family ('rhel6', 'qemu'), sorted; empty when the installation has no list of
    them.
    """
    directory = os.path.join(data_dir("machines"), "cpus", family)
    try:
        files = os.listdir(directory)
    except OSError:
        return []
    names = [name.rpartition(".")[0] for name in files if name.endswith((".yaml", ".json"))]
    return sorted({*names, *_BUILT_IN}) if names else []
