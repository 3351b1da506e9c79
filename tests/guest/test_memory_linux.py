"""Memory modules as a stock Linux on soft sees them come and go."""

from __future__ import annotations

import pathlib

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel

pytestmark = [pytest.mark.guest, pytest.mark.slow]
PATIENCE = 90.0
SCRIPT = """
while true; do
    echo BLOCKS $(ls -d /sys/devices/system/memory/memory*[0-9] | wc -l) $(grep MemTotal /proc/meminfo)
    sleep 0.5
done
"""


class Guest(LinuxGuest):
    def __init__(self, directory: pathlib.Path) -> None:
        super().__init__(
            directory,
            "soft",
            "quiet memhp_default_state=online_movable",
            machine="pc-i440fx-7.2",
            kernel=kernel(),
            initrd=initramfs(directory, SCRIPT),
            objects={"m": {"type": "memory-backend-ram", "size": "256MiB"}},
            **{"memory-slots": {"count": 2, "maxmem": "1GiB"}},
        )

    def blocks(self) -> int:
        """Memory blocks of 128 MiB, as the guest counted last; 0 before it has."""
        lines = [line.split() for line in self.console().splitlines() if line.startswith("BLOCKS ") and "kB" in line]
        return int(lines[-1][1]) if lines else 0


def test_a_module_comes_and_goes(tmp_path: pathlib.Path) -> None:
    with Guest(tmp_path) as pc:
        told: list[str] = []
        pc.machine.listen(lambda name, **data: told.append(name))
        assert pc.run_until(lambda: pc.blocks() == 2, PATIENCE), pc.console()[-2000:]
        module = pc.machine.plug({"driver": "pc-dimm", "id": "d0", "memdev": "m"})
        assert pc.run_until(lambda: pc.blocks() == 4, PATIENCE), pc.console()[-2000:]
        pc.machine.unplug(module)
        assert pc.run_until(lambda: "DEVICE_DELETED" in told, PATIENCE), pc.console()[-2000:]
        assert pc.run_until(lambda: pc.blocks() == 2, PATIENCE)
        assert pc.machine.board.user_object("m").users == []
