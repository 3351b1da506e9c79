"""The examples go out to QEMU and libvirt and come in again as the same machines; domains import."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import pytest

from vmrun.config.importers.libvirt import import_domain
from vmrun.config.importers.line import parse_command_line
from vmrun.config.resolve import sketch_file

EXAMPLES = pathlib.Path(__file__).parents[3] / "examples"
# a machine without a firmware has no equal there, as export says
MACHINES = [
    path
    for path in sorted(EXAMPLES.glob("*.[ty]*ml"))
    if b"vmrun/machine/1" in path.read_bytes() and b"\nfirmware: none" not in path.read_bytes()
]

DOMAIN = b"""
<domain type='kvm'>
  <name>test</name><uuid>23287fe4-ae17-e8dc-543b-6a8199050b4c</uuid>
  <memory>1048576</memory><vcpu>2</vcpu>
  <os><type arch='x86_64' machine='rhel6.3.0'>hvm</type><boot dev='hd'/></os>
  <sysinfo type='smbios'><system><entry name='serial'>1, 2</entry></system><chassis><entry name='asset'>7</entry>
  </chassis><oemStrings><entry>x</entry><entry>y</entry></oemStrings></sysinfo><on_reboot>destroy</on_reboot>
  <clock offset='localtime'><timer name='rtc' tickpolicy='catchup'/></clock>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/><source file='/images/a,b.img'/><target dev='hda' bus='ide'/>
    </disk>
    <disk type='file' device='cdrom'>
      <target dev='hdc' bus='ide'/><readonly/><address type='drive' controller='0' bus='1' unit='0'/>
    </disk>
    <interface type='user'><mac address='00:16:36:53:46:75'/><model type='virtio'/></interface>
    <serial type='pty'><target port='0'/></serial>
    <console type='pty'><target port='0'/></console>
    <graphics type='vnc' port='5907' listen='0.0.0.0'/>
    <video><model type='cirrus'/></video>
    <hostdev mode='subsystem'/>
    <panic model='isa'><address type='isa' iobase='0x505'/></panic>
    <memballoon model='virtio'><address type='pci' slot='0x05' function='0x0'/></memballoon>
  </devices>
</domain>
"""


def vmrun(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "vmrun", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["qemu", "libvirt"])
def test_removed_devices_go_out_and_in(kind: str, tmp_path: pathlib.Path) -> None:
    file, out, back = tmp_path / "box.yaml", tmp_path / "out", tmp_path / "back.yaml"
    file.write_text("schema: vmrun/machine/1\nname: box\nmachine: pc-i440fx-2.0\nremove: [hpet, vmport]\n")
    out.write_text(vmrun("export", kind, str(file)))
    vmrun("import", kind, *(["--file"] if kind == "qemu" else []), str(out), "-o", str(back))
    assert sketch_file(str(back)).data == sketch_file(str(file)).data


def test_a_domain_without_hpet_and_vmport() -> None:
    domain = DOMAIN.replace(b"rhel6.3.0", b"pc-i440fx-2.0").replace(
        b"<clock offset='localtime'>",
        b"<features><acpi/><vmport state='off'/></features><clock offset='localtime'><timer name='hpet' present='no'/>",
    )
    document, problems = import_domain(domain, "test.xml")
    assert document["remove"] == ["hpet", "vmport"]
    assert not any("hpet" in problem.text() or "vmport" in problem.text() for problem in problems)


@pytest.mark.parametrize("path", MACHINES, ids=[path.name for path in MACHINES])
@pytest.mark.parametrize("kind", ["qemu", "libvirt"])
def test_an_example_goes_out_and_in_as_the_same_machine(path: pathlib.Path, kind: str, tmp_path: pathlib.Path) -> None:
    out, back = tmp_path / "out", tmp_path / f"{path.stem}.yaml"
    out.write_text(vmrun("export", kind, str(path)))
    vmrun("import", kind, *(["--file"] if kind == "qemu" else []), str(out), "-o", str(back))
    shutil.copy(EXAMPLES / "old-pc.yaml", tmp_path)  # a type of its own that one of the examples is of
    before, after = sketch_file(str(path)).to_dict(), sketch_file(str(back)).to_dict()
    for key in before:
        if key != "name":
            assert after[key] == before[key], key


def test_an_exported_drive_names_its_format_and_a_serial_number_is_warned_of(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("schema: vmrun/machine/1\nmachine: pc-i440fx-2.0\ndisks: [{file: d.img, serial: s}, d.qcow2]\n")
    command = [sys.executable, "-m", "vmrun", "export", "qemu", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "d.img,serial=s,format=raw" in done.stdout
    assert "d.qcow2,format=qcow2" in done.stdout
    assert "drive 'drive-ide0-0-0' has a serial number" in done.stderr


def test_a_domain_becomes_the_machine_it_describes() -> None:
    document, lost = import_domain(DOMAIN, "test.xml")
    assert document["drives"] == {
        "drive-ide0-0-0": {"file": "/images/a,b.img", "format": "qcow2", "cache": "none"},
        "drive-ide0-1-0": {"media": "cdrom", "readonly": True},
    }
    assert document["on"] == {"reboot": "shutdown"}
    assert document["memory"] == "1GiB"
    assert document["cpus"] == {"count": 2, "sockets": 2, "cores": 1, "threads": 1}
    assert document["rtc"] == {"base": "localtime", "driftfix": "slew"}
    assert document["vnc"] == {"listen": "0.0.0.0:7"}
    assert [device["driver"] for device in document["devices"]] == [
        "piix3-usb-uhci", "ide-drive", "ide-drive", "virtio-net-pci", "isa-serial", "cirrus-vga", "virtio-balloon-pci",
        "pvpanic",
    ]  # fmt: skip
    assert document["devices"][-2] == {
        "id": "balloon0", "driver": "virtio-balloon-pci", "bus": "pci.0", "addr": "05.0",
    }  # fmt: skip
    assert [(problem.message, problem.place.line) for problem in lost if problem.place] == [
        ("<sysinfo> is not shown to the guest without <smbios mode='sysinfo'/> in <os>", 6),
        ("<hostdev type=''> has no equal in a machine file", 21),
    ]


def test_a_domains_table_of_its_system() -> None:
    domain = DOMAIN.replace(b"<boot dev='hd'/>", b"<smbios mode='sysinfo'/>")
    assert import_domain(domain, "test.xml")[0]["smbios"] == {
        "type1": {"serial": "1, 2"},
        "type3": {"manufacturer": "", "asset": "7"},
        "type11": {"values": ["x", "y"]},
    }


def test_the_command_line_of_a_running_process_is_read() -> None:
    running = subprocess.Popen(
        ["qemu-kvm", "-c", "print(flush=True); input()", "-M", "x"],
        executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert running.stdout is not None
    try:
        running.stdout.readline()
        done = subprocess.run(
            [sys.executable, "-m", "vmrun", "import", "qemu", "--pid", str(running.pid)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    finally:
        running.communicate(b"\n", timeout=20)
    assert done.stderr.startswith("qemu-system-x86_64: -c: invalid option")


@pytest.mark.parametrize(
    ("words", "told"),
    [(["-daemonize"], "-daemonize"), (["-loadvm", "s"], "-loadvm"), (["-D", "l"], "-D")],
)
def test_what_is_of_one_run_is_named(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    from vmrun.cli.main import main

    assert main(["import", "qemu", "--", "-nodefaults", *words]) == 0
    assert f"left out: {told}, which is of one run and not of the machine" in capsys.readouterr().err


def test_what_is_done_at_the_end_is_imported() -> None:
    words = ["-nodefaults", "-no-reboot", "-no-shutdown", "-action", "panic=pause", "-watchdog-action", "none"]
    document = parse_command_line(words, defaults=False).machine()
    assert document["on"] == {"reboot": "shutdown", "poweroff": "pause", "crash": "pause", "watchdog": "none"}


def test_time_by_instructions_is_icount() -> None:
    from vmrun.config.importers.line import parse_options, read_options

    def clock(text: str) -> tuple[object, int]:
        parsed = parse_options(read_options(["-M", "pc", "-icount", text]), defaults=False)
        return parsed.document.get("clock"), len(parsed.lost)

    counted = {"mode": "instructions"}
    assert [clock(text) for text in ("0", "shift=0,sleep=on,align=off")] == [(counted, 0), (counted, 0)]
    quick = {**counted, "shift": 7, "sleep": False}
    assert [clock(text) for text in ("shift=7", "7,sleep=off")] == [({**counted, "shift": 7}, 0), (quick, 0)]
    assert [clock(text) for text in ("auto", "shift=auto")] == [(None, 0), (None, 0)]  # time follows the host's
    assert [clock(text)[1] for text in ("shift=0,align=on", "auto,sleep=off", "0,rr=record,rrfile=x")] == [1, 1, 2]
