"""libvirt's own command line of a domain: a libvirtd of the test's own, without systemd and without rights."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import time

CONFIG = 'stdio_handler = "file"\ncgroup_controllers = [ ]\nnamespaces = [ ]\nsecurity_driver = "none"\n'
NOBODY = 65534


class Libvirt:
    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.environment = {**os.environ, "HOME": str(directory)}
        for name in ("config", "runtime", "cache", "data"):
            path = directory / name
            path.mkdir()
            key = "XDG_RUNTIME_DIR" if name == "runtime" else f"XDG_{name.upper()}_HOME"
            self.environment[key] = str(path)
        (directory / "config" / "libvirt").mkdir()
        (directory / "config" / "libvirt" / "qemu.conf").write_text(CONFIG)
        self.prefix: list[str] = []
        if os.getuid() == 0:  # as root it would be the system's libvirtd
            for path in (directory, *directory.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
            self.prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--inh-caps", "+net_admin"]
            self.prefix += ["--ambient-caps", "+net_admin"]
            group = os.stat("/dev/kvm").st_gid if os.path.exists("/dev/kvm") else NOBODY
            self.prefix += [f"--groups={group}"]
        program = shutil.which("libvirtd") or "/usr/sbin/libvirtd"
        self.log = (directory / "log").open("wb")
        self.process = subprocess.Popen(
            [*self.prefix, program, "-t", "120"], env=self.environment, stdout=self.log, stderr=self.log, cwd="/"
        )
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            if self._virsh("uri").returncode == 0:
                return
            time.sleep(0.1)
        self.close()
        raise RuntimeError((directory / "log").read_text())

    def _virsh(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [*self.prefix, "virsh", "-q", "-c", "qemu:///session", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, cwd="/")

    def command_line(self, domain: str) -> str:
        """Raises ValueError with what libvirt says against the domain."""
        path = self.directory / "domain.xml"
        path.write_text(domain)
        path.chmod(0o644)
        done = self._virsh("domxml-to-native", "qemu-argv", str(path))
        if done.returncode:
            raise ValueError(done.stderr.strip())
        return done.stdout

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
