"""Every key of QEMU 7.2's options is used, noted or refused: none is dropped without a word.

The keys are those of its query-command-line-options, its machine's and accelerators' help; a key is tried with values
that are not its default.
"""

from __future__ import annotations

import json

import pytest

from vmrun.config.importers.line import parse_options, read_options
from vmrun.config.importers.qemuopts import LineError

LIMITS = [
    f"throttling.{unit}-{what}{end}"
    for unit in ("bps", "iops")
    for what in ("total", "read", "write")
    for end in ("", "-max", "-max-length")
]
DRIVE = """
copy-on-read werror rerror read-only media index unit bus stats-account-failed stats-account-invalid detect-zeroes
throttling.iops-size cache.writeback aio snapshot force-share discard auto-read-only cache.no-flush
cache.direct driver node-name
"""
CHARDEV = """
abstract tight clipboard mouse logappend logfile append chardev size debug name signal mux rows cols height width
websocket tls-authz tls-creds tn3270 telnet reconnect nodelay delay ipv4 ipv6 to localport localaddr fd
"""
VNC = """
power-control audiodev non-adaptive lossy sasl-authz tls-authz sasl key-delay-ms lock-key-sync reverse
password-secret password ipv6 ipv4 to connections head display share tls-creds websocket
"""
MACHINE = """
acpi append confidential-guest-support default-bus-bypass-iommu dt-compatible dtb dump-guest-core dumpdtb fd-bootchk
firmware graphics hpet i8042 igd-passthru initrd kernel max-fw-size max-ram-below-4g mem-merge memory-backend
memory-encryption oem-id oem-table-id pcspk-audiodev pflash0 pflash1 phandle-start pic pit sata
smbios-entry-point-type smbus smm suppress-vmdesc usb vmport x-oem-id kernel_irqchip kvm_shadow_mem loadparm iommu
"""
ACCEL = """
kernel-irqchip kvm-shadow-mem dirty-ring-size notify-vmexit notify-window xen-version igd-passthru tb-size split-wx
thread one-insn-per-tb device
"""


def words(text: str) -> list[str]:
    return text.split()


# option → (value, its further keys)
OPTIONS: dict[str, list[tuple[str, list[str]]]] = {
    "-drive": [("file=x.img,format=raw,if=ide", [*words(DRIVE), *LIMITS]), ("file=x.img,iops=1", ["throttling.group"])],
    "-chardev": [
        (f"{kind},id=c", words(CHARDEV))
        for kind in (
            "socket,path=/s,server=on", "socket,host=h,port=1,server=on", "file,path=f", "stdio", "pty",
            "udp,host=h,port=1", "ringbuf", "vc", "pipe,path=p", "serial,path=/dev/ttyS0", "null", "msmouse",
        )
    ],
    "-vnc": [(":1", words(VNC)), ("unix:/tmp/x", words(VNC))],
    "-machine": [("pc", words(MACHINE))],
    "-accel": [("kvm", words(ACCEL)), ("tcg", words(ACCEL))],
    "-boot": [("order=c", ["strict", "reboot-timeout", "splash-time", "splash", "menu", "once"])],
    "-smp": [("2", ["maxcpus", "threads", "cores", "clusters", "dies", "sockets"])],
    "-m": [("64", ["maxmem", "slots"])],
    "-rtc": [("base=utc", ["driftfix", "clock"])],
    "-msg": [("timestamp=on", ["guest-name"])],
    "-name": [("n", ["process"])],
    "-overcommit": [("cpu-pm=off", ["mem-lock"]), ("mem-lock=off", ["cpu-pm"])],
    "-sandbox": [("on", ["resourcecontrol", "spawn", "elevateprivileges", "obsolete"])],
    "-action": [("panic=none", ["watchdog", "reboot", "shutdown"])],
    "-option-rom": [("romfile=x", ["bootindex"])],
    "-fw_cfg": [("name=opt/x,string=y", ["gen_id", "file"])],
    "-add-fd": [("fd=3,set=2", ["opaque"])],
    "-audio": [("none", ["model"])],
    "-net": [("nic", ["macaddr", "model", "addr", "vectors", "netdev"]), ("user", ["net", "hostfwd", "foo"])],
    "-nic": [("user", ["mac", "model", "net", "hostfwd", "foo"])],
}  # fmt: skip
VALUES = (
    "on", "off", "1", "2", "x", "cdrom", "unmap", "ignore", "native", "1M", "slew", "vm", "multi", "split", "pause",
    "shutdown", "deny", "allow", "ignore", "force-shared", "es1370", "e1000", "10.1.0.0/24", "tcp::1-:2",
    "52:54:00:12:34:99", "5",
)  # fmt: skip
CASES = [(name, value, key) for name, rows in OPTIONS.items() for value, keys in rows for key in keys]

Answer = tuple[str, str, frozenset[str]]


def read(name: str, value: str) -> Answer | None:
    """What comes of an option beside a machine: the file, what the process does, what is noted; None: refused."""
    argv = [name, value] if name == "-machine" else ["-M", "pc", name, value]
    argv += ["-net", "nic"] if name == "-net" and value.startswith("user") else []
    try:
        found = parse_options(read_options(argv), False)
    except LineError:
        return None
    noted = frozenset(problem.message.partition(": ")[2] for problem in found.warnings)
    run = json.dumps(found.run, sort_keys=True, default=str).replace(value, "")
    return json.dumps(found.machine(), sort_keys=True, default=str), run, noted


@pytest.mark.parametrize(("name", "value", "key"), CASES)
def test_a_key_does_something(name: str, value: str, key: str) -> None:
    without = read(name, value)
    assert any(read(name, f"{value},{key}={each}") != without for each in VALUES)


def test_options_that_concern_the_host_say_so() -> None:
    for argv in (
        ["-full-screen"], ["-alt-grab"], ["-rotate", "90"], ["-audiodev", "pa,id=a"], ["-tb-size", "64"], ["-perfmap"],
        ["-async-teardown"], ["-clock", "hpet"], ["-no-kvm-pit"],
    ):  # fmt: skip
        found = parse_options(read_options(["-M", "pc", *argv]), False)
        assert ["no effect here" in problem.message for problem in found.warnings] == [True], argv
    silent = parse_options(read_options(["-M", "pc", "-audiodev", "none,id=a"]), False)
    assert silent.warnings == ()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("driver", "told"), [("none", 0), ("pa", 2)])
def test_a_viewer_hears_nothing_of_a_driver_that_plays_nothing(first: bool, driver: str, told: int) -> None:
    sound, screen = ["-audiodev", f"{driver},id=a"], ["-vnc", ":1,audiodev=a"]
    argv = ["-M", "pc", *(sound + screen if first else screen + sound)]
    assert len(parse_options(read_options(argv), False).warnings) == told


def test_a_card_of_the_sound_option_is_no_sound_of_the_host() -> None:
    found = parse_options(read_options(["-M", "pc", "-audio", "none,model=es1370"]), False)
    assert [device["driver"] for device in found.machine()["devices"]] == ["ES1370"]


def test_memory_of_files_is_kept() -> None:
    argv = ["-M", "pc,mem-merge=off", "-mem-path", "/dev/hugepages", "-mem-prealloc"]
    backing = {"merge": False, "mem-path": "/dev/hugepages", "prealloc": True}
    assert parse_options(read_options(argv), False).machine()["memory-backing"] == backing
