"""`vmrun up` as a process of its own, for tests that look at a whole machine from outside."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from vmrun.monitor.client import QmpClient


class Up:
    """`with Up(tmp_path, machine="pc-i440fx-2.0", …) as up: up.qmp("query-status")`."""

    def __init__(self, directory: pathlib.Path, *options: str, **keys: Any) -> None:
        self.directory, self.socket = directory, directory / "qmp"
        path = directory / "up.json"
        chardevs = {**keys.pop("chardevs", {}), "qmp": {"type": "socket", "path": str(self.socket), "server": True}}
        monitors = {"qmp": {"chardev": "qmp", "mode": "control"}}
        document = {"schema": "vmrun/machine/1", "name": "up", **keys, "chardevs": chardevs, "monitors": monitors}
        path.write_text(json.dumps(document))
        command = [sys.executable, "-m", "vmrun", "up", *options, str(path)]
        env = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.until(self.socket.exists)

    def __enter__(self) -> Up:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        try:
            self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()

    def until(self, seen: Any, patience: float = 60.0) -> None:
        """Wait until `seen()` is true."""
        deadline = time.monotonic() + patience
        while not seen():
            if self.process.poll() is not None:
                output = self.process.stdout.read() if self.process.stdout else ""
                raise AssertionError(f"vmrun up ended with {self.process.returncode}: {output}")
            if time.monotonic() > deadline:
                raise AssertionError("waited in vain")
            time.sleep(0.05)

    def qmp(self, command: str, **arguments: Any) -> Any:
        with QmpClient(str(self.socket)) as client:
            return client.execute(command, **arguments)

    def screen(self) -> str:
        return "\n".join(row.rstrip() for row in self.qmp("x-query-screen")["rows"])

    def wait_screen(self, text: str) -> None:
        self.until(lambda: text in self.screen())
