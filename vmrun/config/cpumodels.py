"""Names of CPU models. The models themselves are data in machines/cpus; only their names matter to config."""

from __future__ import annotations

import os

from vmrun.config.data import data_dir

# What every accelerator offers besides the models with files.
_BUILT_IN = ("host", "max", "default")


def model_names() -> list[str]:
    """Known CPU models, sorted; empty when the installation has no list of them."""
    directory = os.path.join(data_dir("machines"), "cpus")
    try:
        names = [
            name.rpartition(".")[0] for name in os.listdir(directory) if name.endswith((".yaml", ".json"))
        ]
    except OSError:
        return []
    return sorted({*names, *_BUILT_IN}) if names else []
