"""Watchdogs, pvpanic and PCI serial ports as a stock Linux drives them on soft."""

from __future__ import annotations

import pathlib
import stat
from typing import Any

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel

pytestmark = [pytest.mark.guest, pytest.mark.slow]
PATIENCE = 200.0


class Driven(LinuxGuest):
    """A Debian kernel with modules of its own loaded, then `script`. `told`: what the machine told."""

    def __init__(self, directory: pathlib.Path, modules: dict[str, str], script: str, **keys: Any) -> None:
        chosen = kernel(cloud=False)
        tree = pathlib.Path("/lib/modules") / pathlib.Path(chosen).name.removeprefix("vmlinuz-") / "kernel/drivers"
        extra = {}
        load = ""
        for n, (name, options) in enumerate(modules.items()):
            if not (tree / f"{name}.ko").exists():
                pytest.skip(f"no module {name} for {chosen}")
            extra[f"m{n}.ko"] = (stat.S_IFREG | 0o644, (tree / f"{name}.ko").read_bytes())
            load += f"busybox insmod /m{n}.ko {options} || {{ echo NO-MODULE {name}; poweroff -f; }}\n"
        initrd = initramfs(directory, load + script, extra)
        cmdline = keys.pop("cmdline", "quiet")
        super().__init__(directory, "soft", cmdline, machine="pc-i440fx-7.2", kernel=chosen, initrd=initrd, **keys)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.machine.listen(lambda name, **data: self.told.append((name, data)))

    def heard(self, name: str) -> list[dict[str, Any]]:
        return [data for event, data in self.told if event == name]


NEGLECT = """
echo WATCHED $(cat /sys/class/watchdog/watchdog0/identity)
exec 3>/dev/watchdog
echo x >&3
sleep 1
echo x >&3
echo NEGLECTED
sleep 600
"""


@pytest.mark.parametrize(
    ("driver", "module", "option"),
    [("i6300esb", "watchdog/i6300esb", "heartbeat=3"), ("ib700", "watchdog/ib700wdt", "timeout=4")],
)
def test_a_watchdog_that_linux_neglects_resets_the_machine(
    driver: str, module: str, option: str, tmp_path: pathlib.Path
) -> None:
    modules = {"watchdog/watchdog": "", module: option}
    with Driven(tmp_path, modules, NEGLECT, devices=[{"id": "dog", "driver": driver}]) as pc:
        pc.run_until(lambda: pc.heard("RESET"), PATIENCE)
        assert pc.heard("RESET"), pc.console()[-3000:]
        assert "NEGLECTED" in pc.console(), pc.console()[-3000:]
        assert pc.heard("WATCHDOG") == [{"action": "reset"}]
        assert pc.complaints() == []


def test_linux_sees_after_the_reset_that_it_was_the_watchdog(tmp_path: pathlib.Path) -> None:
    script = "echo BOOT $(cat /sys/class/watchdog/watchdog0/bootstatus)\n" + NEGLECT
    devices = [{"id": "dog", "driver": "i6300esb"}]
    with Driven(tmp_path, {"watchdog/watchdog": "", "watchdog/i6300esb": "heartbeat=3"}, script, devices=devices) as pc:
        assert pc.run_until(lambda: pc.console().count("BOOT ") == 2, PATIENCE), pc.console()[-3000:]
        assert "BOOT 0\n" in pc.console() and "BOOT 32\n" in pc.console()  # WDIOF_CARDRESET


CRASH = "echo c > /proc/sysrq-trigger\n"


@pytest.mark.parametrize(
    ("driver", "module"), [("pvpanic-pci", "misc/pvpanic/pvpanic-pci"), ("pvpanic", "misc/pvpanic/pvpanic-mmio")]
)
def test_linux_tells_that_it_panics(driver: str, module: str, tmp_path: pathlib.Path) -> None:
    devices = [{"id": "panic", "driver": driver}]
    with Driven(tmp_path, {"misc/pvpanic/pvpanic": "", module: ""}, CRASH, devices=devices) as pc:
        assert pc.run_to_end(PATIENCE) == "panic", pc.console()[-3000:]
        assert pc.heard("GUEST_PANICKED") == [{"action": "poweroff"}]
        assert "Kernel panic" in pc.console()


PORTS = """
for t in /sys/class/tty/ttyS*; do
  case $(busybox readlink -f $t/device) in *pci*) n="$n ${t##*/}";; esac
done
echo PORTS $n
for t in $n; do echo hello from $t > /dev/$t; done
sleep 1
"""


def test_linux_writes_to_ports_of_a_serial_card(tmp_path: pathlib.Path) -> None:
    card = {"id": "card", "driver": "pci-serial-2x", "chardev1": "one", "chardev2": "two"}
    chardevs = {name: {"type": "ringbuf", "size": 4096} for name in ("one", "two")}
    with Driven(tmp_path, {}, PORTS, devices=[card], chardevs=chardevs, cmdline="quiet 8250.nr_uarts=8") as pc:
        pc.run_to_end(PATIENCE)
        names = pc.console().partition("PORTS ")[2].split("\n")[0].split()
        assert len(names) == 2, pc.console()[-3000:]
        assert [pc.output(name).strip() for name in ("one", "two")] == [f"hello from {name}" for name in names]
        assert pc.complaints() == []


BUTTON = """
for name in /sys/class/input/event*/device/name; do
  [ "$(cat $name)" = "Power Button" ] && event=${name#/sys/class/input/}
done
echo WAITING ${event%%/*}
busybox dd if=/dev/input/${event%%/*} of=/tmp/event bs=24 count=1 && echo PRESSED
"""


def test_linux_powers_off_when_the_button_is_pressed(tmp_path: pathlib.Path) -> None:
    with Driven(tmp_path, {"acpi/button": "", "input/evdev": ""}, BUTTON) as pc:
        pc.run_until(lambda: "WAITING" in pc.console(), PATIENCE)
        pc.run_until(lambda: False, 2.0)
        pc.machine.powerdown()
        assert pc.run_to_end(60) == "shutdown", pc.console()[-3000:]
        assert "PRESSED" in pc.console() and "POWERDOWN" in [name for name, _ in pc.told]
        assert pc.complaints() == []


GENERATION = """
echo DRIVER $(ls -d /sys/bus/acpi/drivers/vmgenid/*:00)
echo READY
sleep 600
"""


def test_linux_hears_of_a_new_generation_and_leaves_its_note(tmp_path: pathlib.Path) -> None:
    from vmrun.machine import memorydump

    devices = [{"id": "generation", "driver": "vmgenid"}, {"id": "note", "driver": "vmcoreinfo"}]
    # with RDRAND: nothing is reseeded that was not seeded
    keys: dict[str, Any] = {"cpus": {"model": "IvyBridge"}, "cmdline": "loglevel=6"}
    with Driven(tmp_path, {"firmware/qemu_fw_cfg": ""}, GENERATION, devices=devices, **keys) as pc:
        pc.run_until(lambda: "READY" in pc.console(), PATIENCE)
        assert "DRIVER /sys/bus/acpi/drivers/vmgenid/QEMUVGID:00" in pc.console()
        assert b"OSRELEASE=6." in memorydump.notes(pc.machine, [])
        with pc.machine.board.lock:
            device: Any = pc.machine.devices["generation"]
            device.generation = "00112233-4455-6677-8899-aabbccddeeff"
            device.load(device.save())
        assert pc.run_until(lambda: "reseeded due to virtual machine fork" in pc.console(), PATIENCE)


# --- management controllers ------------------------------------------------------------------------------

WHO = """
sleep 1
echo IPMI $(cat /sys/class/ipmi/ipmi0/device/bmc/firmware_revision) $(ls /dev/ipmi0)
exec 3>/dev/watchdog && echo x >&3 && echo WATCHED
sleep 600
"""
IPMI = ("char/ipmi/ipmi_msghandler", "char/ipmi/ipmi_devintf", "char/ipmi/ipmi_si", "char/ipmi/ipmi_watchdog")


@pytest.mark.parametrize("driver", ["isa-ipmi-kcs", "isa-ipmi-bt", "pci-ipmi-kcs"])
def test_linux_finds_the_management_controller_and_its_watchdog_resets(driver: str, tmp_path: pathlib.Path) -> None:
    modules = dict.fromkeys(IPMI, "")
    modules["char/ipmi/ipmi_watchdog"] = "timeout=3 action=reset"
    devices = [
        {"id": "bmc", "driver": "ipmi-bmc-sim", "fwrev1": 7, "fwrev2": 3},
        {"id": "ipmi", "driver": driver, "bmc": "bmc"},
    ]
    with Driven(tmp_path, modules, WHO, devices=devices) as pc:
        assert pc.run_until(lambda: pc.heard("RESET"), PATIENCE), pc.console()[-4000:]
        assert "IPMI 7.3 /dev/ipmi0" in pc.console(), pc.console()[-4000:]
        assert "WATCHED" in pc.console()


# --- records of a crash ----------------------------------------------------------------------------------

REMEMBER = """
mount -t pstore pstore /tmp
for found in /tmp/dmesg-erst-*; do
    [ -e $found ] && { echo KEPT $(grep -c sysrq $found); busybox rm $found; ls /tmp; poweroff -f; }
done
echo FORGOTTEN
echo c > /proc/sysrq-trigger
"""


def test_linux_finds_after_the_reset_what_it_said_as_it_crashed(tmp_path: pathlib.Path) -> None:
    store = tmp_path / "records"
    memory = {"type": "memory-backend-file", "mem-path": str(store), "size": "64KiB", "share": True}
    devices = [{"id": "erst", "driver": "acpi-erst", "memdev": "records"}]
    with Driven(tmp_path, {}, REMEMBER, devices=devices, objects={"records": memory}) as pc:
        pc.run_until(lambda: "KEPT" in pc.console(), PATIENCE)  # it powers off right behind
        assert "KEPT" in pc.console(), pc.console()[-3000:]
        assert pc.console().count("FORGOTTEN") == 1
        assert int(pc.console().split("KEPT ")[1].split()[0]) > 0  # lines that tell of it
    assert store.read_bytes().startswith(b"ERSTSTOR")
