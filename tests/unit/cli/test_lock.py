"""lock, diff, up --locked: what a guest sees is written down, held to, and told in its terms."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from accel.accelerator import find
from vmrun.cli.main import main

HEAD = "schema: vmrun/machine/1\nname: box\nmachine: rhel6.3.0\nmemory: 64MiB\ndisplay: std\n"
NICS = """devices:
  - {id: net0, driver: e1000, mac: "52:54:00:00:00:01", addr: 03.0}
  - {id: net1, driver: e1000, mac: "52:54:00:00:00:02", addr: 04.0}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, text: str) -> str:
    Path(path).write_text(text)
    return path


def diff(a: str, b: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    capsys.readouterr()
    code = main(["diff", "--json", a, b])
    changes: list[dict[str, str]] = json.loads(capsys.readouterr().out)["changes"]
    assert code == (1 if changes else 0)
    return changes


def test_a_lock_holds_in_another_directory_and_home(here: Path) -> None:
    Path("one").mkdir()
    Path("two").mkdir()
    for place in ("one", "two"):
        body = ["disks: [disk.img]\n", "serial: 'null'\n", "smbios: {type1: {serial: ä}}\n"]
        write(f"{place}/box.yaml", HEAD + "".join(body if place == "one" else reversed(body)))
        Path(f"{place}/disk.img").write_bytes(bytes(1 << 20))
    made = []
    for place in ("one", "two"):
        other = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "USER": "somebody", "PYTHONHASHSEED": "7", "VMRUN_FIRMWARE": "/no"}
        env = {"PATH": "/usr/bin:/bin", "HOME": str(here / place), **(other if place == "two" else {"TZ": "UTC"})}
        asked = [sys.executable, "-m", "vmrun", "lock", "box.yaml"]
        done = subprocess.run(asked, cwd=here / place, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        made.append(Path(f"{place}/box.lock").read_text())
    assert made[0] == made[1]
    assert str(here) not in made[0]
    shutil.copy("one/box.lock", "two/box.lock")
    assert main(["lock", "--check", "two/box.yaml"]) == 0


def test_a_machine_is_equal_to_its_lock(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("box.yaml", HEAD)
    assert main(["lock", "box.yaml"]) == 0
    assert diff("box.yaml", "box.lock", capsys) == []


def test_swapped_cards_are_told_with_their_linux_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write("a.yaml", HEAD + NICS)
    b = write("b.yaml", HEAD + NICS.replace("03.0", "05.0"))
    texts = [change["text"] for change in diff(a, b, capsys)]
    assert "network card 'net0': kernel order under Linux eth0 → eth1" in texts
    assert "network card 'net0': udev name under Linux ens3 → ens5" in texts
    assert "network card 'net1': kernel order under Linux eth1 → eth0" in texts
    assert any(text == "PCI device at pci.0 03.0 (e1000) is gone" for text in texts)


def test_cards_that_change_places_are_told_although_the_slots_stay_taken(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write("a.yaml", HEAD + NICS)
    b = write("b.yaml", HEAD + NICS.replace("03.0", "09.0").replace("04.0", "03.0").replace("09.0", "04.0"))
    found = {change["text"]: change["severity"] for change in diff(a, b, capsys)}
    assert found["device 'net0' moves: addr 03.0 → 04.0"] == "breaks resume"
    assert found["network card 'net0': kernel order under Linux eth0 → eth1"] == "re-detected"
    assert found["network card 'net1': udev name under Linux ens4 → ens3"] == "re-detected"
    assert not any("PCI device" in text for text in found)


def test_order_in_the_file_changes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = NICS.splitlines()[1:]
    a = write("a.yaml", HEAD + NICS)
    b = write("b.yaml", HEAD + f"devices:\n{second}\n{first}\n")
    assert diff(a, b, capsys) == []


def test_another_mac_is_detected_anew_only(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write("a.yaml", HEAD + NICS)
    b = write("b.yaml", HEAD + NICS.replace("00:02", "00:03"))
    changes = diff(a, b, capsys)
    assert {change["severity"] for change in changes} == {"re-detected"}
    assert any("another MAC address" in change["text"] for change in changes)


def test_a_new_device_breaks_resume(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write("a.yaml", HEAD)
    b = write("b.yaml", HEAD + "devices: [{id: panic, driver: pvpanic}]\n")
    found = {change["text"]: change["severity"] for change in diff(a, b, capsys)}
    assert found["device 'panic' (pvpanic) appears"] == "breaks resume"
    assert found["I/O ports 0505-0505 (pvpanic, i/o) appears"] == "breaks resume"


HOST_ONLY = {
    "cache": ("disks: [{file: d.img, cache: none}]\n", "disks: [{file: d.img, cache: writeback}]\n"),
    "path": ("disks: [d.img]\n", "disks: [e.img]\n"),
    "chardev": ("serial: pty\n", "serial: 'null'\n"),
    "accelerators": ("accel: [kvm, soft]\n", "accel: [soft, kvm]\n"),
    "clock": ("rtc: {clock: host}\n", "rtc: {clock: vm}\n"),
    "start": ("paused: true\n", "paused: false\n"),
    "id": ("devices: [{id: a, driver: pvpanic}]\n", "devices: [{id: b, driver: pvpanic}]\n"),
}


@pytest.mark.parametrize("what", HOST_ONLY)
def test_what_concerns_the_host_alone_is_shown_as_invisible(
    here: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    for image in ("d.img", "e.img"):
        Path(image).write_bytes(bytes(1 << 20))
    a, b = (write(f"{n}.yaml", HEAD + body) for n, body in enumerate(HOST_ONLY[what]))
    capsys.readouterr()
    assert main(["diff", "--json", a, b]) == 0
    changes = json.loads(capsys.readouterr().out)["changes"]
    assert {change["severity"] for change in changes} == {"invisible"}
    assert main(["diff", a, b]) == 0
    assert capsys.readouterr().out.endswith("a guest sees no difference\n")
    assert main(["lock", a, "--output", "l.lock"]) == 0
    assert main(["lock", b, "--output", "l.lock", "--check"]) == 0


def test_two_types_are_compared_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    changes = diff("rhel6.3.0", "pc-i440fx-2.0", capsys)
    found = {change["text"]: change["severity"] for change in changes}
    assert found["device 'hpet' (hpet) appears"] == "breaks resume"
    assert found["the machine as a whole: hw-version 0.12.1 → 2.0.0"] == "re-detected"
    assert found["the machine as a whole: type rhel6.3.0 → pc-i440fx-2.0"] == "invisible"
    assert diff("rhel6.3.0", "rhel6.3.0", capsys) == []


def test_a_type_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "rhel6.3.0", "rhel6.3.9"]) == 1
    assert "there is no machine type 'rhel6.3.9'" in capsys.readouterr().err


def test_a_cpu_feature_is_told_by_its_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write("a.yaml", HEAD)
    b = write("b.yaml", HEAD + "cpus: {features: {ssse3: true, sse2: false}}\n")
    assert [change["text"] for change in diff(a, b, capsys)] == [
        "the processor gains ssse3 and loses sse2 (CPUID leaf 00000001.0)"
    ]


def test_what_the_type_leaves_to_the_host_is_written_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write("a.yaml", HEAD)
    b = write("b.yaml", HEAD + "cpus: {features: {vendor: GenuineIntel, phys-bits: 40}}\n")
    main(["lock", a])
    leaves = json.loads(Path("a.lock").read_text())["sections"]["cpuid"]
    assert leaves["00000000.0"].endswith(" host host host")
    assert leaves["80000008.0"].startswith("host ")
    assert leaves["40000001.0"].startswith("host ")
    texts = [change["text"] for change in diff(a, b, capsys)]
    assert any("ebx host → 756e6547" in text for text in texts)
    assert main(["lock", b]) == 0
    leaves = json.loads(Path("b.lock").read_text())["sections"]["cpuid"]
    assert "host" not in leaves["00000000.0"] + leaves["80000008.0"]


def test_a_disk_of_another_size_breaks_resume(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write("a.yaml", HEAD + "disks: [a.img]\n")
    b = write("b.yaml", HEAD + "disks: [b.img]\n")
    Path("a.img").write_bytes(bytes(4 << 20))
    Path("b.img").write_bytes(bytes(8 << 20))
    found = {change["text"]: change["severity"] for change in diff(a, b, capsys)}
    assert found["disks: ide0-0-0 bytes 4194304 → 8388608"] == "breaks resume"


def test_an_image_that_is_missing_is_told_and_compared_as_a_gigabyte(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write("a.yaml", HEAD + "disks: [a.img]\n")
    assert main(["diff", a, a]) == 0
    assert "a.yaml:6:9: warning VR0620: " in capsys.readouterr().err


def test_a_property_that_is_new_to_vmrun_does_not_break_old_locks(here: Path) -> None:
    write("box.yaml", HEAD)
    main(["lock", "box.yaml"])
    lock = json.loads(Path("box.lock").read_text())
    del lock["sections"]["devices"]["video0"]["props"]["xres"]
    from vmrun.config.digest import digest

    lock["digests"]["devices"] = digest(lock["sections"]["devices"])
    lock["digest"] = digest(lock["digests"])
    Path("box.lock").write_text(json.dumps(lock))
    assert main(["lock", "--check", "box.yaml"]) == 0


def test_another_firmware_image_is_caught(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vmrun.firmware.images import locate

    bios = locate("bios.bin")
    assert bios is not None
    Path("fw").mkdir()
    data = bytearray(Path(bios).read_bytes())
    write("box.yaml", HEAD)
    from vmrun.firmware import images

    monkeypatch.setenv(images.VARIABLE, str(here / "fw"))
    Path("fw/bios.bin").write_bytes(data)
    assert main(["lock", "box.yaml"]) == 0
    data[0x100] ^= 1
    Path("fw/bios.bin").write_bytes(data)
    capsys.readouterr()
    assert main(["up", "--locked", "box.yaml"]) == 1
    said = capsys.readouterr().err
    assert "error VR0962: not as locked: bios is another image:" in said
    assert "(re-detected)" in said


def test_a_lock_of_another_machine_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("box.yaml", HEAD)
    main(["lock", "box.yaml"])
    write("other.yaml", HEAD.replace("box", "other"))
    Path("box.lock").rename("other.lock")
    capsys.readouterr()
    assert main(["up", "--locked", "other.yaml"]) == 1
    assert "'other.lock' belongs to box (rhel6.3.0), not to other (rhel6.3.0)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[]", '{"schema": "vmrun/lock/9"}', "[" * 5000]
)
def test_a_file_that_is_no_lock(here: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    write("box.yaml", HEAD)
    write("box.lock", text)
    assert main(["up", "--locked", "box.yaml"]) == 1
    assert "VR0960" in capsys.readouterr().err


def test_a_lock_changed_by_hand_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("box.yaml", HEAD)
    main(["lock", "box.yaml"])
    text = Path("box.lock").read_text()
    write("box.lock", text.replace(f'"memory": {64 << 20}', f'"memory": {65 << 20}'))
    assert main(["lock", "--check", "box.yaml"]) == 1
    assert "VR0965" in capsys.readouterr().err


def test_no_lock(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("box.yaml", HEAD)
    assert main(["up", "--locked", "box.yaml"]) == 1
    assert "there is no lock file 'box.lock'" in capsys.readouterr().err


def test_the_hosts_own_cpu_cannot_be_locked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("box.yaml", HEAD + "cpus: {model: host}\n")
    assert main(["lock", "box.yaml"]) == 3
    assert "VR0963" in capsys.readouterr().err


def test_features_that_are_missing_are_named() -> None:
    from vmrun.errors import BuildError
    from vmrun.machine.lock import check_features

    check_features([], "kvm")
    with pytest.raises(BuildError, match="kvm on this host lacks CPU features of the locked model: avx, sse4.2"):
        check_features(["avx", "sse4.2"], "kvm")


def test_an_accelerator_that_changes_the_memory_map_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("box.yaml", HEAD.replace("rhel6.3.0", "pc-i440fx-2.6") + "accel: [kvm, soft]\n")
    main(["lock", "box.yaml"])
    assert main(["up", "--locked", "--accel", "qtest", "--quiet", "--timeout", "0.01", "box.yaml"]) == 3
    assert "error VR0966: qtest does not keep the pages of memory that KVM needs" in capsys.readouterr().err
    write("box.yaml", HEAD.replace("rhel6.3.0", "pc-i440fx-2.6") + "accel: [qtest]\n")
    main(["lock", "box.yaml"])
    assert main(["up", "--locked", "--quiet", "--timeout", "0.01", "box.yaml"]) == 4


@pytest.mark.skipif(not find("soft").probe()[0], reason="needs the soft accelerator")
@pytest.mark.parametrize("machine", ["rhel6.3.0", "pc-i440fx-2.6", "pc-i440fx-7.2"])
def test_a_machine_for_kvm_and_soft_is_as_locked_on_soft(
    here: Path, capsys: pytest.CaptureFixture[str], machine: str
) -> None:
    write("box.yaml", HEAD.replace("rhel6.3.0", machine) + "accel: [kvm, soft]\n")
    main(["lock", "box.yaml"])
    code = main(["up", "--locked", "--accel", "soft", "--quiet", "--timeout", "0.1", "box.yaml"])
    assert code == 4, capsys.readouterr().err


def test_a_machine_that_is_as_locked_starts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("box.yaml", HEAD)
    main(["lock", "box.yaml"])
    assert main(["up", "--locked", "--accel", "qtest", "--quiet", "--timeout", "0.01", "box.yaml"]) == 4
    assert "stopped after" in capsys.readouterr().err


@pytest.fixture
def changed_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """vmrun's machine types in a directory of their own, the RHEL 6.4 one (which 6.3 extends) changed."""
    import vmrun.config.data as data
    import vmrun.config.machinetypes as machinetypes

    directory = tmp_path / "machines"
    shutil.copytree(data.data_dir("machines"), directory)
    monkeypatch.setitem(data._found, "machines", str(directory))
    monkeypatch.setattr(machinetypes, "_layers", {})
    file = directory / "rhel6.4.0.yaml"
    file.write_text(file.read_text() + "limits: {cpus: 7}\n")
    monkeypatch.chdir(tmp_path)
    return directory


@pytest.mark.parametrize("argv", [["validate", "m.yaml"], ["lock", "m.yaml"]])
def test_a_type_that_changed_after_its_release_is_refused(
    changed_types: Path, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    write("m.yaml", HEAD)
    assert main(argv) == 1
    said = "".join(capsys.readouterr())
    assert "error VR0304: machine type 'rhel6.3.0' is not as it was released: a file of it (rhel6.3.0.yaml" in said


def test_a_type_of_ones_own_on_a_changed_type_is_refused(
    changed_types: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("mine.yaml", "schema: vmrun/machine-type/1\nname: mine\nextends: rhel6.3.0\n")
    write("m.yaml", HEAD.replace("rhel6.3.0", "mine"))
    assert main(["validate", "m.yaml"]) == 1
    assert "VR0304" in capsys.readouterr().out


def test_types_that_the_change_does_not_touch_are_fine(
    changed_types: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("m.yaml", HEAD.replace("rhel6.3.0", "rhel6.6.0"))
    assert main(["validate", "m.yaml"]) == 0


def test_a_file_that_is_no_lock_is_not_written_over(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("box.yaml", HEAD)
    write("box.lock", "something of somebody else's\n")
    assert main(["lock", "box.yaml"]) == 1
    assert "error VR0110: 'box.lock' exists and is no lock of vmrun's" in capsys.readouterr().err
    assert Path("box.lock").read_text() == "something of somebody else's\n"


@pytest.mark.parametrize("path", ["nowhere/box.lock", "/dev/full", "."])
def test_a_lock_that_cannot_be_written(here: Path, capsys: pytest.CaptureFixture[str], path: str) -> None:
    write("box.yaml", HEAD)
    assert main(["lock", "box.yaml", "--output", path]) == 3
    assert f"error VR0921: cannot write '{path}': " in capsys.readouterr().err


def test_a_lock_is_made_anew(here: Path) -> None:
    write("box.yaml", HEAD)
    assert main(["lock", "box.yaml"]) == 0
    write("box.yaml", HEAD.replace("64MiB", "32MiB"))
    assert main(["lock", "--check", "box.yaml"]) == 1
    assert main(["lock", "box.yaml"]) == 0
    assert main(["lock", "--check", "box.yaml"]) == 0
