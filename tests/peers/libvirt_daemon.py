"""A libvirtd of the test's own, which starts vmrun-qemu: no systemd, configuration and state in its own directories.

As root it is the system's kind of daemon, in a mount namespace where /etc/libvirt, /run and /var/*/libvirt are the
test's; as anybody else a session's.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import time

CONFIG = """stdio_handler = "file"
cgroup_controllers = [ ]
namespaces = [ ]
security_driver = "none"
"""
ROOTS_CONFIG = 'user = "root"\ngroup = "root"\ndynamic_ownership = 0\nremember_owner = 0\n'
DAEMON = 'auth_unix_rw = "none"\nauth_unix_ro = "none"\nlog_outputs = "3:stderr"\n'
PLACES = {
    "etc": "/etc/libvirt", "run": "/run", "lib": "/var/lib/libvirt", "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
}  # fmt: skip
ROOT = pathlib.Path(__file__).resolve().parents[2]


class Daemon:
    """`with Daemon(directory) as libvirt: libvirt.virsh("list")`."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.privileged = os.getuid() == 0
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("LIBVIRT")}
        program = shutil.which("libvirtd") or "/usr/sbin/libvirtd"
        self.log = (directory / "libvirtd.log").open("wb")
        start = self._system if self.privileged else self._session
        self.process = subprocess.Popen(
            start(program), env=self.environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd="/"
        )
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            if self._run("uri").returncode == 0:
                return
            time.sleep(0.1)
        self.close()
        raise RuntimeError((directory / "libvirtd.log").read_text())

    def _session(self, program: str) -> list[str]:
        self.environment["HOME"] = str(self.directory)
        for name in ("config", "runtime", "cache", "data"):
            path = self.directory / name
            path.mkdir()
            key = "XDG_RUNTIME_DIR" if name == "runtime" else f"XDG_{name.upper()}_HOME"
            self.environment[key] = str(path)
        (self.directory / "config" / "libvirt").mkdir()
        (self.directory / "config" / "libvirt" / "qemu.conf").write_text(CONFIG)
        (self.directory / "config" / "libvirt" / "libvirtd.conf").write_text(DAEMON)
        return [program, "-t", "600"]

    def _system(self, program: str) -> list[str]:
        for name in PLACES:
            (self.directory / name).mkdir()
        (self.directory / "etc" / "qemu.conf").write_text(CONFIG + ROOTS_CONFIG)
        (self.directory / "etc" / "libvirtd.conf").write_text(DAEMON)
        # the account that Debian's package makes, where its scripts did not run
        for name, lines in (
            ("passwd", "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin\n"),
            ("group", "libvirt-qemu:x:64055:\nkvm:x:64056:\n"),
        ):
            known = pathlib.Path("/etc", name).read_text()
            more = [line for line in lines.splitlines() if f"\n{line.partition(':')[0]}:" not in f"\n{known}"]
            (self.directory / name).write_text(known + "".join(f"{line}\n" for line in more))
        script = "set -e\nmount --make-rprivate /\n"
        for name, place in PLACES.items():
            script += f"mkdir -p {place}\nmount --bind {self.directory / name} {place}\n"
        for name in ("passwd", "group"):
            script += f"mount --bind {self.directory / name} /etc/{name}\n"
        return ["unshare", "--mount", "sh", "-c", f"{script}exec {program} -t 600"]

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        uri = "qemu:///system" if self.privileged else "qemu:///session"
        command = ["virsh", "-q", "-c", uri, *words]
        if self.privileged:
            command = ["nsenter", "-t", str(self.process.pid), "--mount", *command]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120, cwd="/",
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def virsh(self, *words: str) -> str:
        """What it prints. ValueError with what it says against it."""
        done = self._run(*words)
        if done.returncode:
            raise ValueError(f"virsh {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self.process.poll() is None:
            for name in self._run("list", "--name").stdout.split():
                self._run("destroy", name)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def emulator(directory: pathlib.Path) -> str:
    """vmrun-qemu as a program that libvirt takes: its own log of errors in the domain's, no user's settings."""
    path = directory / "vmrun-qemu"
    path.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} {ROOT}/bin/vmrun-qemu "$@"\n')
    path.chmod(0o755)
    return str(path)


def domain(
    name: str, program: str, *, os_lines: str = "", devices: str = "", memory: int = 256, vcpu: str = "<vcpu>1</vcpu>"
) -> str:
    """The XML of a small PC with a serial console, a screen and a balloon."""
    return f"""<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  {vcpu}
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>{os_lines}</os>
  <features><acpi/><apic/></features>
  <on_reboot>restart</on_reboot>
  <devices>
    <emulator>{program}</emulator>
    <controller type='usb' model='none'/>
    <serial type='pty'><target port='0'/></serial>
    <console type='pty'><target type='serial' port='0'/></console>
    <graphics type='vnc' port='-1' autoport='yes'/>
    <video><model type='vga'/></video>
    <memballoon model='virtio'><stats period='1'/></memballoon>
    {devices}
  </devices>
</domain>
"""


def disk(path: pathlib.Path, target: str, format: str = "raw") -> str:
    return (
        f"<disk type='file' device='disk'><driver name='qemu' type='{format}'/><source file='{path}'/>"
        f"<target dev='{target}' bus='virtio'/></disk>"
    )
