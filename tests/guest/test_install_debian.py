"""Debian installs itself over the wire: PXE by iPXE on an e1000, TFTP, a package repository on the host's loopback, an
IDE disk in qcow2; then it starts from that disk and answers on ssh through a forwarded port.

    python -m tests.guest.test_install_debian DIRECTORY     the same with its progress shown; keeps what it makes

It takes a good part of an hour. VMRUN_MIRROR is the repository that is served on (http://deb.debian.org/debian).
One without the installer's own packages (udebs) cannot serve its later steps: the installer then gets a kit before its
first one (install_kit.py), which installs from the same repository with debootstrap.
"""

from __future__ import annotations

import http.server
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.guest import install_kit
from tests.up import Up

IMAGES = pathlib.Path("/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64")
MIRROR = os.environ.get("VMRUN_MIRROR", "http://deb.debian.org/debian")
PATIENCE = 4 * 3600.0
PASSWORD = "vmrun"  # noqa: S105  # of a machine that lives for an hour, on a network of its own

# Nothing is asked: what is not said here has a default. Downloads come from the host, which is 10.0.2.2.
PRESEED = """\
d-i debian-installer/locale string en_US.UTF-8
d-i keyboard-configuration/xkb-keymap select us
d-i netcfg/choose_interface select auto
d-i netcfg/get_hostname string guest
d-i netcfg/get_domain string example
d-i mirror/country string manual
d-i mirror/http/hostname string 10.0.2.2:{port}
d-i mirror/http/directory string /debian
d-i mirror/http/proxy string
d-i mirror/suite string bookworm
d-i passwd/make-user boolean false
d-i passwd/root-password password {password}
d-i passwd/root-password-again password {password}
d-i clock-setup/utc boolean true
d-i clock-setup/ntp boolean false
d-i time/zone string UTC
d-i partman-auto/disk string /dev/sda
d-i partman-auto/method string regular
d-i partman-auto/choose_recipe select atomic
d-i partman-partitioning/confirm_write_new_label boolean true
d-i partman/choose_partition select finish
d-i partman/confirm boolean true
d-i partman/confirm_nooverwrite boolean true
d-i base-installer/install-recommends boolean false
d-i base-installer/kernel/image string linux-image-amd64
d-i base-installer/initramfs-tools/driver-policy select dep
d-i apt-setup/services-select multiselect
d-i apt-setup/enable-source-repositories boolean false
tasksel tasksel/first multiselect
d-i pkgsel/include string openssh-server
d-i pkgsel/upgrade select none
d-i pkgsel/update-policy select none
popularity-contest popularity-contest/participate boolean false
d-i grub-installer/only_debian boolean true
d-i grub-installer/with_other_os boolean false
d-i grub-installer/bootdev string /dev/sda
d-i debian-installer/add-kernel-opts string console=ttyS0
d-i preseed/late_command string cd /target; mkdir -m 700 -p root/.ssh; echo '{key}' > root/.ssh/authorized_keys
d-i finish-install/reboot_in_progress note
"""
KIT = """\
d-i preseed/early_command string wget -q -O - http://10.0.2.2:{port}/kit.tar | tar -x -f - -C / && sh /kit/install.sh
"""
RELEASE = re.compile(rb"6\.1\.0-[0-9]+-amd64")
SAID = re.compile(
    r"KIT: |I: (?:Configuring|Base|Installing|Extracting linux)"
    r"|[A-Z][\w ,/'\"().-]+\.\.\.\s*$|\[ +0\.0+\] Linux version"
)
BOOT = """\
#!ipxe
kernel linux auto=true priority=critical url=http://10.0.2.2:{port}/preseed.cfg console=ttyS0 DEBIAN_FRONTEND=text
initrd initrd.gz
boot
"""


class Repository(http.server.ThreadingHTTPServer):
    """The preseed file, and a Debian mirror that keeps what it was asked for."""

    daemon_threads = True

    def __init__(self, cache: pathlib.Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cache, self.preseed, self.kit, self.served = cache, b"", b"", 0
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        if self.path == "/preseed.cfg":
            data = self.server.preseed
        elif self.path == "/kit.tar":
            data = self.server.kit
        elif not self.path.startswith("/debian/") or ".." in self.path:
            self.send_error(404)
            return
        else:
            kept = self.server.cache / self.path.removeprefix("/debian/").replace("/", "%")
            if not kept.exists():
                try:
                    with urllib.request.urlopen(MIRROR + self.path.removeprefix("/debian"), timeout=60) as answer:
                        whole = answer.read()
                except urllib.error.HTTPError as error:
                    self.send_error(error.code)
                    return
                except OSError as error:
                    self.send_error(502, str(error))
                    return
                part = kept.with_name(f"{kept.name}.{threading.get_ident()}")
                part.write_bytes(whole)
                part.rename(kept)
            data = kept.read_bytes()
        self.server.served += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


def components(mirror: str) -> str:
    """Why the mirror cannot serve the installer, or ''. Some have packages only, not the installer's own (udebs)."""
    index = f"{mirror}/dists/bookworm/main/debian-installer/binary-amd64/Packages.xz"
    try:
        with urllib.request.urlopen(index, timeout=60) as answer:
            text = lzma.decompress(answer.read()).decode()
        first = next(row for row in text.splitlines() if row.startswith("Filename: ")).partition(" ")[2]
        urllib.request.urlopen(f"{mirror}/{first}", timeout=60).close()
    except (OSError, StopIteration) as error:
        return f"{mirror} does not have the installer's components: {error}"
    return ""


def install(directory: pathlib.Path, say: Any = lambda text: None) -> str:
    """All of it, in an empty directory; what `uname -a` and the disk's size say on the installed system."""
    began = time.monotonic()

    def step(text: str) -> None:
        say(f"{time.monotonic() - began:7.0f} s  {text}")

    for name in ("tftp", "cache"):
        (directory / name).mkdir(exist_ok=True)
    for name in ("linux", "initrd.gz"):
        shutil.copy(IMAGES / name, directory / "tftp" / name)
    key, serial = directory / "key", directory / "serial.log"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    repository = Repository(directory / "cache")
    port = repository.server_address[1]
    public = key.with_suffix(".pub").read_text().strip()
    repository.preseed = PRESEED.format(port=port, password=PASSWORD, key=public).encode()
    if components(MIRROR):
        release = RELEASE.search((IMAGES / "linux").read_bytes())
        assert release is not None
        repository.preseed += KIT.format(port=port).encode()
        mirror = f"http://10.0.2.2:{port}/debian"
        repository.kit = install_kit.make(directory, release[0].decode(), mirror, public, PASSWORD)
        step(f"the mirror has no udebs: a kit of {len(repository.kit) >> 20} MiB stands in for them")
    (directory / "tftp" / "boot.ipxe").write_text(BOOT.format(port=port))
    subprocess.run(
        [sys.executable, "-m", "vmrun", "img", "create", "-q", "-f", "qcow2", str(directory / "disk.qcow2"), "4G"],
        check=True,
    )
    tftp, ssh = str(directory / "tftp"), "tcp:127.0.0.1:0-:22"
    network = {"type": "user", "tftp": tftp, "bootfile": "boot.ipxe", "hostfwd": [ssh]}
    with Up(
        directory, machine="pc-i440fx-7.2", accel="soft", memory="1GiB", boot={"once": "n", "order": "c"},
        drives={"disk": {"file": str(directory / "disk.qcow2"), "format": "qcow2", "cache": "unsafe"}},
        netdevs={"wire": network}, chardevs={"console": {"type": "file", "path": str(serial)}},
        devices=[
            {"id": "disk0", "driver": "ide-hd", "bus": "ide.0", "unit": 0, "drive": "disk"},
            {"id": "card0", "driver": "e1000", "netdev": "wire"},
            {"id": "com1", "driver": "isa-serial", "chardev": "console"},
        ],
    ) as up:  # fmt: skip
        forwarded = forwarded_port(up)
        step(f"the machine runs; port {forwarded} leads to its ssh")
        seen = 0
        while time.monotonic() - began < PATIENCE:
            assert up.process.poll() is None, "the machine has ended"
            text = serial.read_bytes() if serial.exists() else b""
            for row in text[seen:].decode("latin-1").replace("\r", "\n").split("\n"):
                if row.startswith(("iPXE ", "Debian GNU/Linux")) or SAID.match(row):
                    step(row.strip()[:100])
            seen = len(text)
            if b"guest login:" in text:
                break
            time.sleep(5)
        assert b"guest login:" in text, text[-2000:]
        step(f"it starts from its disk; {repository.served} files came from the repository")
        done = subprocess.run(
            [
                "ssh", "-i", str(key), "-p", str(forwarded), "-o", "StrictHostKeyChecking=no", "-o",
                "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=60", "-o", "LogLevel=ERROR", "root@127.0.0.1",
                "uname -a; cat /etc/debian_version; df -h / | tail -1; systemctl poweroff",
            ],
            capture_output=True,
            text=True,
            timeout=600,
        )  # fmt: skip
        step(f"ssh: {done.stdout.strip()} {done.stderr.strip()}")
        assert "Linux guest" in done.stdout, done.stderr
        up.process.wait(600)
        step("it powered off")
    subprocess.run(["qemu-img", "check", str(directory / "disk.qcow2")], check=True, stdout=subprocess.DEVNULL)
    return done.stdout


def forwarded_port(up: Up) -> int:
    """The port of the host that the guest's ssh got."""
    text = str(up.qmp("human-monitor-command", **{"command-line": "info usernet"}))
    row = next(row for row in text.splitlines() if "HOST_FORWARD" in row)
    return int(row.split()[3])


@pytest.mark.long
@pytest.mark.skipif(not IMAGES.exists(), reason="debian-installer-12-netboot-amd64 is not installed")
def test_debian_installs_itself_over_the_wire(tmp_path: pathlib.Path) -> None:
    assert "Linux guest" in install(tmp_path)


if __name__ == "__main__":
    where = pathlib.Path(sys.argv[1])
    where.mkdir(parents=True, exist_ok=True)
    print(components(MIRROR) or f"{MIRROR} has all that the installer asks for", flush=True)
    install(where, lambda text: print(text, flush=True))
