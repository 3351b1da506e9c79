"""libvirtd 9 and virsh with vmrun-qemu as <emulator>: probing, life, disks that come and go, saved states, dumps."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.guest.linux import initramfs, kernel
from tests.guest.screens import modules
from tests.peers.libvirt_daemon import Daemon, disk, domain, emulator

pytestmark = [
    pytest.mark.libvirt,
    pytest.mark.skipif(shutil.which("virsh") is None, reason="virsh is not installed"),
]

MODULES = ("virtio_pci", "virtio_blk", "virtio_balloon", "virtio_net", "evdev", "button")
LOAD = "for m in {names}; do busybox insmod /$m || echo NO-MODULE $m; done\n"
POWER_BUTTON = """
for name in $(ls /sys/class/input); do
  case $name in event*) grep -q "Power Button" /sys/class/input/$name/device/name && key=$name;; esac
done
echo READY $key
dd if=/dev/input/$key of=/dev/null bs=24 count=1 2>/dev/null
"""


class Lab:
    """A domain of that name, and the disk that it has."""

    def __init__(self, libvirt: Daemon, directory: pathlib.Path) -> None:
        self.libvirt, self.directory = libvirt, directory
        self.program = emulator(directory)

    def make(self, name: str, **parts: str) -> None:
        path = self.directory / f"{name}.xml"
        path.write_text(domain(name, self.program, **parts))
        self.libvirt.virsh("define", str(path))

    def file(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def __call__(self, *words: str) -> str:
        return self.libvirt.virsh(*words)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("libvirt")
    directory.chmod(0o755)
    try:
        libvirt = Daemon(directory)
    except RuntimeError as error:
        if "unshare" in str(error) or "mount:" in str(error):
            pytest.skip("libvirtd cannot have a mount namespace here")
        raise
    with libvirt:
        yield Lab(libvirt, directory)


@pytest.fixture(scope="module")
def running(lab: Lab) -> Lab:
    """The domain `lab`, with a disk, started."""
    image = lab.directory / "disk.img"
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    lab.make("lab", devices=disk(image, "vda"))
    lab("start", "lab")
    return lab


def test_all_of_the_probing_passes(lab: Lab) -> None:
    found = lab("domcapabilities", "--virttype", "qemu", "--emulatorbin", lab.program)
    assert "<machine>pc-i440fx-7.2</machine>" in found
    assert "<model usable='yes' vendor='AMD'>EPYC</model>" in found or "EPYC" in found
    assert "<iothreads supported='yes'/>" in found


def test_what_the_host_can_is_a_model_that_it_has(lab: Lab) -> None:
    found = lab("domcapabilities", "--virttype", "qemu", "--emulatorbin", lab.program)
    mode = re.search(r"<mode name='host-model' supported='yes'>(.*?)</mode>", found, re.S)
    assert mode is not None
    assert "policy='disable' name='fpu'" not in mode[1]


def test_a_domain_runs_and_says_where_its_console_and_its_screen_are(running: Lab) -> None:
    assert running("domstate", "lab") == "running"
    assert running("ttyconsole", "lab").startswith("/dev/pts/")
    assert running("domdisplay", "lab").startswith("vnc://127.0.0.1:")


def test_a_screenshot_is_a_picture(running: Lab) -> None:
    path = running.directory / "shot"
    running("screenshot", "lab", str(path))
    assert path.read_bytes()[:3] == b"P6\n" or path.read_bytes()[1:4] == b"PNG"


def test_keys_and_the_nmi_button_are_pressed(running: Lab) -> None:
    running("send-key", "lab", "KEY_LEFTCTRL", "KEY_A")
    running("inject-nmi", "lab")


def test_it_is_suspended_and_goes_on(running: Lab) -> None:
    running("suspend", "lab")
    assert running("domstate", "lab") == "paused"
    running("resume", "lab")
    assert running("domstate", "lab") == "running"


def test_it_is_reset(running: Lab) -> None:
    running("reset", "lab")
    assert running("domstate", "lab") == "running"


def test_statistics_are_told(running: Lab) -> None:
    found = running("domstats", "lab")
    assert "state.state=1" in found and "block.0.name=vda" in found and "vcpu.current=1" in found
    assert "Capacity:       16777216" in running("domblkinfo", "lab", "vda")


def test_a_disk_has_another_size(running: Lab) -> None:
    running("blockresize", "lab", "vda", "32M")
    assert "Capacity:       33554432" in running("domblkinfo", "lab", "vda")


def test_a_network_card_comes_and_its_cable_is_pulled(running: Lab) -> None:
    mac = "52:54:00:11:22:33"
    xml = f"<interface type='user'><mac address='{mac}'/><model type='e1000'/></interface>"
    running("attach-device", "lab", running.file("nic.xml", xml), "--live")
    assert mac in running("domiflist", "lab")
    assert f"model=e1000,macaddr={mac}" in running("qemu-monitor-command", "lab", "--hmp", "info network")
    running("domif-setlink", "lab", mac, "down")


def test_monitor_commands_pass_through(running: Lab) -> None:
    answer = json.loads(running("qemu-monitor-command", "lab", '{"execute": "query-status"}'))
    assert answer["return"]["status"] == "running"
    assert running("qemu-monitor-command", "lab", "--hmp", "info status") == "VM status: running"


def test_memory_is_dumped_as_a_core(running: Lab) -> None:
    path = running.directory / "core"
    running("dump", "lab", str(path), "--memory-only", "--live")
    with open(path, "rb") as file:
        head = file.read(64)
    assert head[:6] == b"\x7fELF\x02\x01" and struct.unpack_from("<H", head, 16)[0] == 4
    assert running("domstate", "lab") == "running"
    path.unlink()


def test_a_saved_domain_goes_on_where_it_was(running: Lab) -> None:
    path = running.directory / "saved"
    running("suspend", "lab")
    before = running("qemu-monitor-command", "lab", "--hmp", "xp /16xw 0x400")
    running("save", "lab", str(path))
    assert running("domstate", "lab") == "shut off"
    running("restore", str(path), "--paused")
    assert running("qemu-monitor-command", "lab", "--hmp", "xp /16xw 0x400") == before
    running("resume", "lab")


def test_a_managed_save_is_what_start_goes_on_with(running: Lab) -> None:
    running("managedsave", "lab")
    assert running("domstate", "lab") == "shut off"
    running("start", "lab")
    assert running("domstate", "lab") == "running"


@pytest.fixture(scope="module")
def layered(lab: Lab) -> Iterator[Lab]:
    """The domain `layered`, with a disk in a qcow2 image, started."""
    image = lab.directory / "base.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "16M"], check=True)
    lab.make("layered", devices=disk(image, "vda", "qcow2"))
    lab("start", "layered")
    yield lab
    lab("destroy", "layered")
    lab("undefine", "layered", "--snapshots-metadata")


def image_of(lab: Lab, name: str) -> str:
    """The file that the domain's vda is in."""
    return pathlib.Path(lab("domblklist", name).split()[-1]).name


def test_a_snapshot_inside_the_image_is_gone_back_to(layered: Lab) -> None:
    layered("suspend", "layered")
    before = layered("qemu-monitor-command", "layered", "--hmp", "xp /16xw 0x400")
    layered("snapshot-create-as", "layered", "inside")
    layered("resume", "layered")
    layered("reset", "layered")
    assert "inside" in layered("qemu-monitor-command", "layered", "--hmp", "info snapshots")
    layered("snapshot-revert", "layered", "inside", "--paused")
    assert layered("qemu-monitor-command", "layered", "--hmp", "xp /16xw 0x400") == before
    layered("resume", "layered")
    layered("snapshot-delete", "layered", "inside")
    assert layered("snapshot-list", "layered") == ""
    assert "inside" not in layered("qemu-monitor-command", "layered", "--hmp", "info snapshots")


def test_a_snapshot_beside_the_image_is_committed_into_it(layered: Lab) -> None:
    layered("snapshot-create-as", "layered", "beside", "--disk-only", "--no-metadata")
    assert image_of(layered, "layered") == "base.beside"
    layered("blockcommit", "layered", "vda", "--active", "--pivot")
    assert image_of(layered, "layered") == "base.qcow2"


def test_what_lies_below_an_image_is_pulled_into_it(layered: Lab) -> None:
    layered("snapshot-create-as", "layered", "pulled", "--disk-only", "--no-metadata")
    assert "base.qcow2" in layered("qemu-monitor-command", "layered", "--hmp", "info block")
    layered("blockpull", "layered", "vda", "--wait")
    assert image_of(layered, "layered") == "base.pulled"
    assert "base.qcow2" not in layered("qemu-monitor-command", "layered", "--hmp", "info block")


def test_a_disk_is_held_to_limits(layered: Lab) -> None:
    layered("blkdeviotune", "layered", "vda", "--total-iops-sec", "500", "--live")
    found = layered("blkdeviotune", "layered", "vda")
    assert re.search(r"^total_iops_sec *: 500$", found, re.M), found


def test_a_full_copy_of_a_disk_is_made_while_it_is_used(layered: Lab) -> None:
    layered("backup-begin", "layered")
    until(lambda: "None" in layered("domjobinfo", "layered"))
    assert "Completed" in layered("domjobinfo", "layered", "--completed")


def test_what_changed_since_a_checkpoint_is_copied(layered: Lab) -> None:
    """To a file, and by whoever pulls it out of the running machine."""
    layered("checkpoint-create-as", "layered", "first")
    layered("qemu-monitor-command", "layered", "--hmp", 'qemu-io -d virtio-disk0/virtio-backend "write -P 7 1M 64k"')
    target = layered.directory / "increment"
    disks = f"<disk name='vda' type='file'><target file='{target}'/><driver type='qcow2'/></disk>"
    xml = f"<domainbackup><incremental>first</incremental><disks>{disks}</disks></domainbackup>"
    layered("backup-begin", "layered", layered.file("push.xml", xml))
    until(lambda: "None" in layered("domjobinfo", "layered"))
    told = subprocess.run(
        ["qemu-img", "map", "-U", "--output=json", "-f", "qcow2", target], capture_output=True, text=True, check=True
    )
    rows = [row for row in json.loads(told.stdout) if row["data"]]
    assert [(row["start"], row["length"]) for row in rows] == [(1 << 20, 64 << 10)]
    socket = layered.directory / "nbd"
    disks = f"<disk name='vda' type='file' exportname='vda'><scratch file='{layered.directory}/scratch'/></disk>"
    head = f"<incremental>first</incremental><server transport='unix' socket='{socket}'/>"
    xml = f"<domainbackup mode='pull'>{head}<disks>{disks}</disks></domainbackup>"
    layered("backup-begin", "layered", layered.file("pull.xml", xml))
    image = json.dumps({
        "driver": "nbd", "export": "vda", "server": {"type": "unix", "path": str(socket)},
        "x-dirty-bitmap": "qemu:dirty-bitmap:backup-vda",
    })  # fmt: skip
    words = ["qemu-img", "map", "--output=json", f"json:{image}"]
    told = subprocess.run(words, capture_output=True, text=True, check=True)
    rows = [row for row in json.loads(told.stdout) if not row["data"]]
    assert [(row["start"], row["length"]) for row in rows] == [(1 << 20, 64 << 10)]
    layered("domjobabort", "layered")
    layered("checkpoint-delete", "layered", "first")
    assert layered("checkpoint-list", "layered") == ""


def test_a_disk_that_fills_is_told_of(layered: Lab) -> None:
    layered("domblkthreshold", "layered", "vda", str(4 << 20))
    assert "block.0.threshold=4194304" in layered("domstats", "--block", "layered")
    write = 'qemu-io -d virtio-disk0/virtio-backend "write 4M 8M"'
    layered("qemu-monitor-command", "layered", "--hmp", write)
    until(lambda: "threshold" not in layered("domstats", "--block", "layered"))


def test_discs_and_a_floppy_go_in_and_out_of_empty_drives(lab: Lab) -> None:
    for name, size in (("a.iso", 1 << 20), ("b.iso", 2 << 20), ("a.fd", 1440 << 10)):
        (lab.directory / name).write_bytes(bytes(size))

    def drive(device: str, target: str, bus: str) -> str:
        return f"<disk type='file' device='{device}'><target dev='{target}' bus='{bus}'/></disk>"

    drives = drive("cdrom", "hdc", "ide") + drive("cdrom", "sda", "scsi") + drive("floppy", "fda", "fdc")
    lab.make("media", devices=f"<controller type='scsi' model='virtio-scsi'/>{drives}")
    lab("start", "media")
    try:
        for target in ("hdc", "sda"):
            lab("change-media", "media", target, f"{lab.directory}/a.iso", "--insert", "--live")
            lab("change-media", "media", target, f"{lab.directory}/b.iso", "--update", "--live")
            assert "Capacity:       2097152" in lab("domblkinfo", "media", target)
            lab("change-media", "media", target, "--eject", "--live")
        lab("change-media", "media", "fda", f"{lab.directory}/a.fd", "--insert", "--live")
        lab("change-media", "media", "sda", f"{lab.directory}/a.iso", "--insert", "--live")
        lab("managedsave", "media")
        lab("start", "media")
        assert "a.iso" in lab("domblklist", "media")
        assert "a.fd" in lab("qemu-monitor-command", "media", "--hmp", "info block")
        lab("change-media", "media", "fda", "--eject", "--live")
    finally:
        lab("destroy", "media")
        lab("undefine", "media")


def test_a_domain_is_destroyed_and_forgotten(lab: Lab) -> None:
    lab.make("gone")
    lab("start", "gone")
    lab("destroy", "gone")
    assert lab("domstate", "gone") == "shut off"
    lab("undefine", "gone")
    assert "gone" not in lab("list", "--all")


WAIT = """
wait_for() { while ! eval "$1"; do sleep 0.2; done; }
wait_for "[ -e /sys/block/vda ]"; echo CAME $(cat /sys/block/vda/size)
wait_for "[ ! -e /sys/block/vda ]"; echo LEFT
wait_for "[ -e /sys/class/net/eth0 ]"; echo CARD $(cat /sys/class/net/eth0/address)
wait_for "[ ! -e /sys/class/net/eth0 ]"; echo NO-CARD
wait_for "[ -e /sys/devices/system/cpu/cpu1 ]"; echo 1 >/sys/devices/system/cpu/cpu1/online; echo CPUS $(nproc)
"""
CARD = "<interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/></interface>"
KIB = 1024


@pytest.mark.slow
def test_linux_sees_what_comes_and_goes_gives_memory_and_shuts_down(lab: Lab, tmp_path: pathlib.Path) -> None:
    log = lab.directory / "linux.log"
    image = kernel()
    files = list(dict.fromkeys(path for name in MODULES for path in modules(image, name)))
    extra = {path.name: (stat.S_IFREG | 0o644, path.read_bytes()) for path in files}
    script = LOAD.format(names=" ".join(extra)) + WAIT + POWER_BUTTON
    initrd = initramfs(lab.directory, script, extra)
    boot = f"<kernel>{image}</kernel><initrd>{initrd}</initrd><cmdline>console=ttyS0 quiet</cmdline>"
    lab.make("linux", os_lines=boot, vcpu="<vcpu current='1'>2</vcpu>")
    text = lab("dumpxml", "linux").replace(
        "<serial type='pty'>", f"<serial type='pty'><log file='{log}' append='off'/>"
    )
    lab("define", lab.file("linux.xml", text))
    lab("start", "linux")

    def said(word: str) -> bool:
        return log.exists() and word in log.read_text(errors="replace")

    def memory(name: str) -> int:
        """KiB of dommemstat's line, 0 while there is none."""
        found = re.search(rf"^{name} (\d+)$", lab("dommemstat", "linux"), re.M)
        return int(found[1]) if found else 0

    until(lambda: said("GUEST-UP"), 300)
    second = lab.directory / "second.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", second, "8M"], check=True)
    xml = lab.file("second.xml", disk(second, "vda", "qcow2"))
    lab("attach-device", "linux", xml, "--live")
    until(lambda: said("CAME 16384"), 120)
    lab("detach-device", "linux", xml, "--live")
    until(lambda: said("LEFT"), 120)
    until(lambda: "second.qcow2" not in lab("domblklist", "linux"))
    card = lab.file("card.xml", CARD)
    lab("attach-device", "linux", card, "--live")
    until(lambda: said("CARD 52:54:00:11:22:33"), 120)
    lab("detach-device", "linux", card, "--live")
    until(lambda: said("NO-CARD"), 120)
    until(lambda: "52:54:00:11:22:33" not in lab("domiflist", "linux"))
    lab("setvcpus", "linux", "2", "--live")
    until(lambda: said("CPUS 2"), 120)
    until(lambda: memory("unused") > 0 and memory("last_update") > 0)  # the guest tells once a second
    free = memory("unused")
    lab("setmem", "linux", "160M", "--live")
    until(lambda: memory("actual") == 160 * KIB, 120)
    until(lambda: memory("unused") < free - 64 * KIB, 120)
    lab("setmem", "linux", "256M", "--live")
    until(lambda: memory("actual") == 256 * KIB, 120)
    until(lambda: said("READY event"), 60)
    lab("shutdown", "linux")
    until(lambda: lab("domstate", "linux") == "shut off", 120)
    lab("undefine", "linux")
