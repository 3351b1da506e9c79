"""blockdev-add takes whatever option a node's driver has in the one table of them."""

from __future__ import annotations

import pytest

from vmrun.backends.block.nodeoptions import FORMATS, PROTOCOLS
from vmrun.monitor import table
from vmrun.monitor.commands import block

# of command lines only: the file's name, and the flat ways to say a server
TEXTS = {"nbd": {"filename", "path", "host", "port"}}


@pytest.mark.parametrize("driver", sorted({**FORMATS, **PROTOCOLS}))
def test_an_option_of_a_driver_is_a_member_of_its_struct(driver: str) -> None:
    assert block is not None  # which fills the tables
    options = {**FORMATS, **PROTOCOLS}[driver]
    modelled = {key for key, kind in options.items() if kind != "none" and not str(kind).startswith("no ")}
    branch = table.unions["BlockdevOptions"][1][driver]
    members = {name.removesuffix("?") for name in table.structs[branch]}
    assert modelled - members - TEXTS.get(driver, set()) <= {"encrypt"}  # which no node takes
