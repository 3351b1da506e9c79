"""Cards without an id are e1000.0, virtio-net-pci.1 … in monitors, as with QEMU; their ids here find them, too."""

from __future__ import annotations

import vmrun

LINE = ["-nodefaults", "-display", "none", "-accel", "qtest", "-S"]


def test_cards_without_an_id_have_qemu_s_names() -> None:
    cards = [word for card in ("e1000", "virtio-net-pci", "virtio-net-pci,id=mine") for word in ("-device", card)]
    with vmrun.Machine.start(command_line=[*LINE, *cards]) as vm:
        told = vm.qmp("human-monitor-command", command_line="info network")
        names = [row.split(":")[0] for row in told.splitlines()]
        assert sorted(names) == ["e1000.0", "mine", "virtio-net-pci.0"]
        assert {row["name"] for row in vm.qmp("query-rx-filter")} == {"virtio-net-pci.0", "mine"}
        for name in ("virtio-net-pci.0", "virtio-net-pci-0"):
            (row,) = vm.qmp("query-rx-filter", name=name)
            assert row["name"] == "virtio-net-pci.0"
            vm.qmp("set_link", name=name, up=False)
