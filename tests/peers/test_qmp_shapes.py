"""Some two hundred commands of QMP, asked of QEMU 7.2 and of vmrun-qemu on the same command line: answers of equal
shapes (keys and types), errors of equal classes and words, but for what is explained here.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from tests.peers.qmp_session import ROOT, Talk, differences

pytestmark = pytest.mark.peer

THROTTLES = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")
LINE = [
    *("-machine", "pc-i440fx-7.2", "-m", "64", "-S", "-nodefaults", "-display", "none", "-name", "twin"),
    *("-uuid", "12345678-1234-1234-1234-123456789abc", "-vga", "std", "-qmp", "stdio"),
    *("-drive", "if=none,id=d0,file=a.qcow2,format=qcow2", "-device", "ide-hd,drive=d0,id=hd0"),
    *("-drive", "if=none,id=cd0,media=cdrom", "-device", "ide-cd,drive=cd0,id=cd"),
    *("-chardev", "null,id=n0", "-device", "isa-serial,chardev=n0,id=s0"),
    *("-chardev", "ringbuf,id=r0,size=1024", "-device", "isa-debugcon,chardev=r0,id=dbg,iobase=0x402"),
    *("-device", "virtio-rng-pci,id=rng0"),
    *("-monitor", "vc"),
]
SESSION: list[tuple[str, dict[str, Any]]] = [
    ("query-status", {}),
    ("query-version", {}),
    ("query-name", {}),
    ("query-uuid", {}),
    ("query-kvm", {}),
    ("query-target", {}),
    ("query-machines", {}),
    ("query-current-machine", {}),
    ("query-cpus-fast", {}),
    ("query-hotpluggable-cpus", {}),
    ("query-cpu-definitions", {}),
    ("query-cpu-model-expansion", {"type": "static", "model": {"name": "qemu64"}}),
    ("query-cpu-model-expansion", {"type": "full", "model": {"name": "qemu64"}}),
    ("query-cpu-model-expansion", {"type": "full", "model": {"name": "qemu64", "props": {"avx": False}}}),
    ("query-cpu-model-expansion", {"type": "full", "model": {"name": "foo"}}),
    ("query-cpu-model-expansion", {"type": "full"}),
    ("query-cpu-model-comparison", {"modela": {"name": "qemu64"}, "modelb": {"name": "qemu32"}}),
    ("query-cpu-model-baseline", {"modela": {"name": "qemu64"}, "modelb": {"name": "qemu32"}}),
    ("query-command-line-options", {}),
    ("query-command-line-options", {"option": "drive"}),
    ("query-command-line-options", {"option": "foo"}),
    ("query-qmp-schema", {}),
    ("query-commands", {}),
    ("query-pci", {}),
    ("query-block", {}),
    ("query-named-block-nodes", {}),
    ("query-named-block-nodes", {"flat": True}),
    ("query-blockstats", {}),
    ("query-blockstats", {"query-nodes": True}),
    ("query-block-jobs", {}),
    ("query-block-exports", {}),
    ("query-jobs", {}),
    ("query-chardev", {}),
    ("query-chardev-backends", {}),
    ("query-mice", {}),
    ("query-vnc", {}),
    ("query-vnc-servers", {}),
    ("query-spice", {}),
    ("query-balloon", {}),
    ("query-rx-filter", {}),
    ("query-iothreads", {}),
    ("query-memory-devices", {}),
    ("query-memory-size-summary", {}),
    ("query-memdev", {}),
    ("query-tpm", {}),
    ("query-tpm-models", {}),
    ("query-tpm-types", {}),
    ("query-dump", {}),
    ("query-dump-guest-memory-capability", {}),
    ("query-migrate", {}),
    ("query-migrate-capabilities", {}),
    ("query-migrate-parameters", {}),
    ("query-acpi-ospm-status", {}),
    ("query-fdsets", {}),
    ("query-events", {}),
    ("query-stats", {"target": "vm"}),
    ("query-stats", {"target": "vcpu"}),
    ("query-stats-schemas", {}),
    ("query-pr-managers", {}),
    ("query-replay", {}),
    ("query-colo-status", {}),
    ("query-xen-replication-status", {}),
    ("query-vm-generation-id", {}),
    ("query-gic-capabilities", {}),
    ("query-sev", {}),
    ("query-sev-capabilities", {}),
    ("query-sgx", {}),
    ("query-sgx-capabilities", {}),
    ("query-display-options", {}),
    ("query-dirty-rate", {}),
    ("query-vcpu-dirty-limit", {}),
    ("query-rocker", {"name": "foo"}),
    ("query-yank", {}),
    ("query-audiodevs", {}),
    ("query-virtio", {}),
    ("x-query-virtio", {}),
    ("x-query-virtio-status", {"path": "/machine/peripheral/rng0/virtio-backend"}),
    ("query-action", {}),
    ("qom-list", {"path": "/"}),
    ("qom-list", {"path": "/machine"}),
    ("qom-list", {"path": "/objects"}),
    ("qom-list", {"path": "/machine/unattached"}),
    ("qom-list", {"path": "/foo"}),
    ("qom-get", {"path": "/machine", "property": "type"}),
    ("qom-get", {"path": "/machine/peripheral/hd0", "property": "type"}),
    ("qom-get", {"path": "/machine/peripheral/hd0", "property": "drive"}),
    ("qom-get", {"path": "/machine/peripheral/hd0", "property": "hotplugged"}),
    ("qom-get", {"path": "/machine/peripheral/hd0", "property": "serial"}),
    ("qom-get", {"path": "hd0", "property": "realized"}),
    ("qom-get", {"path": "hd0", "property": "foo"}),
    ("qom-get", {"path": "/machine/unattached/device[0]", "property": "realized"}),
    ("qom-set", {"path": "hd0", "property": "serial", "value": "x"}),
    ("qom-set", {"path": "hd0", "property": "foo", "value": "x"}),
    ("qom-list-types", {}),
    ("qom-list-types", {"implements": "machine"}),
    ("qom-list-types", {"implements": "device", "abstract": True}),
    ("qom-list-properties", {"typename": "ide-hd"}),
    ("qom-list-properties", {"typename": "memory-backend-ram"}),
    ("qom-list-properties", {"typename": "iothread"}),
    ("qom-list-properties", {"typename": "pc-i440fx-7.2-machine"}),
    ("qom-list-properties", {"typename": "foo"}),
    ("device-list-properties", {"typename": "virtio-rng-pci"}),
    ("device-list-properties", {"typename": "ide-hd"}),
    ("device-list-properties", {"typename": "foo"}),
    ("device-list-properties", {"typename": "memory-backend-file"}),
    ("object-add", {"qom-type": "iothread", "id": "io1"}),
    ("object-add", {"qom-type": "iothread", "id": "io1"}),
    ("object-add", {"qom-type": "foo", "id": "io2"}),
    ("query-iothreads", {}),
    ("qom-get", {"path": "/objects/io1", "property": "poll-max-ns"}),
    ("object-del", {"id": "io1"}),
    ("object-del", {"id": "io1"}),
    ("object-add", {"qom-type": "secret", "id": "sec0", "data": "abc"}),
    ("object-add", {"qom-type": "memory-backend-ram", "id": "m1", "size": 1048576}),
    ("query-memdev", {}),
    ("object-del", {"id": "m1"}),
    ("chardev-add", {"id": "c1", "backend": {"type": "null", "data": {}}}),
    ("chardev-add", {"id": "c1", "backend": {"type": "null", "data": {}}}),
    ("chardev-add", {"id": "c2", "backend": {"type": "pty", "data": {}}}),
    ("chardev-add", {"id": "c3", "backend": {"type": "file", "data": {"out": "c3.out"}}}),
    ("chardev-add", {"id": "c4", "backend": {"type": "foo", "data": {}}}),
    ("chardev-add", {"id": "c5", "backend": {"type": "socket", "data": {
        "addr": {"type": "unix", "data": {"path": "c5.sock"}}, "server": True, "wait": False}}}),
    ("chardev-add", {"id": "c6", "backend": {"type": "file", "data": {"out": "/no/such/place"}}}),
    ("chardev-send-break", {"id": "n0"}),
    ("chardev-send-break", {"id": "foo"}),
    ("chardev-change", {"id": "n0", "backend": {"type": "file", "data": {"out": "n0.out"}}}),
    ("chardev-remove", {"id": "c1"}),
    ("chardev-remove", {"id": "c1"}),
    ("chardev-remove", {"id": "r0"}),
    ("query-chardev", {}),
    ("ringbuf-write", {"device": "r0", "data": "hello"}),
    ("ringbuf-read", {"device": "r0", "size": 10}),
    ("ringbuf-read", {"device": "foo", "size": 10}),
    ("add-fd", {}),
    ("getfd", {"fdname": "x"}),
    ("closefd", {"fdname": "x"}),
    ("remove-fd", {"fdset-id": 1}),
    ("memsave", {"val": 0, "size": 16, "filename": "mem.bin"}),
    ("memsave", {"val": 0, "size": 16, "filename": "mem.bin", "cpu-index": 7}),
    ("pmemsave", {"val": 0, "size": 16, "filename": "pmem.bin"}),
    ("pmemsave", {"val": 0, "size": 16, "filename": "/no/such/place"}),
    ("dump-guest-memory", {"paging": False, "protocol": "file:dump.elf"}),
    ("dump-guest-memory", {"paging": False, "protocol": "foo"}),
    ("query-dump", {}),
    ("human-monitor-command", {"command-line": "info status"}),
    ("human-monitor-command", {"command-line": "foo"}),
    ("human-monitor-command", {"command-line": "info version", "cpu-index": 9}),
    ("device_add", {"driver": "foo"}),
    ("device_add", {"driver": "virtio-rng-pci", "id": "rng1"}),
    ("device_add", {"driver": "virtio-rng-pci", "id": "rng1"}),
    ("device_add", {"driver": "virtio-rng-pci", "id": "rng2", "foo": 1}),
    ("device_add", {"driver": "ide-hd", "id": "hd9"}),
    ("device_del", {"id": "foo"}),
    ("device_del", {"id": "s0"}),
    ("device_add", {}),
    ("set-action", {"reboot": "shutdown"}),
    ("set-action", {"reboot": "reset"}),
    ("set-action", {"reboot": "foo"}),
    ("watchdog-set-action", {"action": "none"}),
    ("inject-nmi", {}),
    ("system_wakeup", {}),
    ("send-key", {"keys": [{"type": "qcode", "data": "a"}]}),
    ("send-key", {"keys": [{"type": "qcode", "data": "foo"}]}),
    ("input-send-event", {"events": [{"type": "key", "data": {"down": True, "key": {"type": "qcode", "data": "a"}}}]}),
    ("input-send-event", {"device": "none", "events": []}),
    ("input-send-event", {"device": "rng0", "head": 1, "events": []}),
    ("screendump", {"filename": "s.ppm"}),
    ("screendump", {"filename": "/no/such/place"}),
    ("screendump", {"filename": "s.ppm", "head": 0}),
    ("screendump", {"filename": "s.ppm", "device": "rng0"}),
    ("screendump", {"filename": "s.ppm", "device": "rng0", "head": 3}),
    ("eject", {"device": "d0"}),
    ("eject", {"id": "cd"}),
    ("blockdev-change-medium", {"id": "cd", "filename": "b.raw", "format": "raw"}),
    ("query-block", {}),
    ("blockdev-open-tray", {"id": "cd"}),
    ("blockdev-close-tray", {"id": "cd"}),
    ("block_resize", {"device": "d0", "size": 33554432}),
    ("block_resize", {"device": "foo", "size": 33554432}),
    ("block_set_io_throttle", {"device": "foo", **dict.fromkeys(THROTTLES, 0)}),
    ("balloon", {"value": 1}),
    ("set_password", {"protocol": "vnc", "password": "x"}),
    ("expire_password", {"protocol": "vnc", "time": "now"}),
    ("set_link", {"name": "foo", "up": True}),
    ("netdev_del", {"id": "foo"}),
    ("netdev_add", {"type": "foo", "id": "n"}),
    ("migrate-set-capabilities", {"capabilities": [{"capability": "events", "state": True}]}),
    ("migrate-set-capabilities", {"capabilities": [{"capability": "foo", "state": True}]}),
    ("migrate-set-parameters", {"max-bandwidth": 1000000}),
    ("migrate_cancel", {}),
    ("migrate", {"uri": "foo"}),
    ("migrate-incoming", {"uri": "defer"}),
    ("migrate-pause", {}),
    ("migrate-recover", {"uri": "foo"}),
    ("x-exit-preconfig", {}),
    ("qmp_capabilities", {}),
    ("foo", {}),
    ("query-status", {"foo": 1}),
    ("qom-get", {"path": 1, "property": "x"}),
    ("qom-get", {"path": "/machine"}),
    ("object-add", {"id": "x"}),
    ("nbd-server-stop", {}),
    ("trace-event-get-state", {"name": "foo"}),
    ("job-dismiss", {"id": "foo"}),
    ("block-job-cancel", {"device": "foo"}),
    ("blockdev-del", {"node-name": "foo"}),
    ("blockdev-add", {"driver": "null-co", "node-name": "nn0", "size": 65536}),
    ("blockdev-del", {"node-name": "nn0"}),
    ("client_migrate_info", {"protocol": "foo", "hostname": "x"}),
    ("add_client", {"protocol": "foo", "fdname": "x"}),
    ("stop", {}),
    ("cont", {}),
    ("query-status", {}),
    ("system_reset", {}),
    ("stop", {}),
    ("query-status", {}),
]

NOT_THERE = "vmrun has no such feature, and says CommandNotFound"
# command → why the answers differ
EXPLAINED: dict[str, str] = {
    "query-cpu-model-expansion": "QEMU tells of every property of a CPU object, vmrun of the features it models",
    "query-command-line-options": "texts of help are QEMU's own",
    "query-qmp-schema": "no member or value has features (deprecated, unstable) of its own",
    "qom-list-properties": "machines' properties have no descriptions",
    **dict.fromkeys(
        (
            *("query-pr-managers", "query-replay", "query-colo-status", "query-sev"),
            *("query-sgx",),
            *("query-xen-replication-status", "query-sev-capabilities", "query-sgx-capabilities"),
            *("query-vcpu-dirty-limit", "query-rocker", "query-yank", "x-query-virtio-status"),
            "trace-event-get-state",
        ),
        NOT_THERE,
    ),
}
# to come with what they are about
COMING: dict[str, str] = {}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, dict[str, Any], Any, Any]]:
    """(command, arguments, QEMU's answer, vmrun's) of the whole session."""
    top = tmp_path_factory.mktemp("twins")
    sides = []
    for name, program in (("qemu", [QEMU or ""]), ("vmrun", [sys.executable, str(ROOT / "bin" / "vmrun-qemu")])):
        directory = pathlib.Path(top / name)
        directory.mkdir()
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", directory / "a.qcow2", "16M"], check=True)
        with open(directory / "b.raw", "wb") as file:
            file.truncate(4 << 20)
        sides.append(Talk([*program, *LINE, "-accel", "tcg"], directory))
    theirs, ours = sides
    try:
        return [(name, args, theirs.ask(name, **args), ours.ask(name, **args)) for name, args in SESSION]
    finally:
        theirs.close()
        ours.close()


@needs_qemu
def test_answers_have_qemu_s_shapes(answers: list[tuple[str, dict[str, Any], Any, Any]]) -> None:
    wrong = {}
    for name, args, theirs, ours in answers:
        found = differences(theirs, ours)
        if found and name not in EXPLAINED | COMING:
            wrong[f"{name} {args}"] = found
    assert wrong == {}


@needs_qemu
def test_every_explanation_is_still_needed(answers: list[tuple[str, dict[str, Any], Any, Any]]) -> None:
    differ = {name for name, _, theirs, ours in answers if differences(theirs, ours)}
    assert set(EXPLAINED) - differ == set()


@needs_qemu
def test_a_dump_begins_as_qemu_s(answers: list[tuple[str, dict[str, Any], Any, Any]]) -> None:
    told = [ours["return"] for name, _, _, ours in answers if name == "query-dump"]
    assert [row["status"] for row in told] == ["none", "completed"]
    assert told[1]["completed"] == told[1]["total"] > 63 << 20
