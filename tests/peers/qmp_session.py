"""A session of QMP commands, held with QEMU and with vmrun-qemu on the same command line; what differs in shape.

A shape is a set of lines "path: type"; members that QEMU's schema calls optional, and lists that are empty on one
side, are left to the eye of the caller: what is in one side only is told with the side.
"""

from __future__ import annotations

import json
import os
import pathlib
import selectors
import subprocess
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Talk:
    """A program with `-qmp stdio`, in a directory of its own."""

    def __init__(self, command: list[str], directory: pathlib.Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=directory, env=env
        )
        assert self.process.stdout is not None
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        self.pending = b""
        self.text = ""  # what came beside the messages
        self.events: list[dict[str, Any]] = []
        self.greeting = self.message()
        self.ask("qmp_capabilities")

    def message(self, seconds: float = 60.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while True:
            line = self._line(end)
            try:
                found: dict[str, Any] = json.loads(line)
                return found
            except ValueError:  # QEMU's qemu-io prints beside the answers
                at = line.find(b'{"')
                self.text += line[: at if at > 0 else len(line)].decode() + "\n"
                if at > 0:
                    found = json.loads(line[at:])
                    return found

    def _line(self, end: float) -> bytes:
        assert self.process.stdout is not None and self.process.stderr is not None
        while b"\n" not in self.pending:
            if not self.selector.select(max(0.0, end - time.monotonic())):
                raise TimeoutError("no answer")
            more = os.read(self.process.stdout.fileno(), 1 << 20)
            if not more:
                raise RuntimeError(self.process.stderr.read().decode())
            self.pending += more
        line, _, self.pending = self.pending.partition(b"\n")
        return line

    def ask(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        """The whole answer; events that come before it are kept."""
        assert self.process.stdin is not None
        request = {"execute": name, **({"arguments": arguments} if arguments else {})}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        while True:
            message = self.message()
            if "event" not in message:
                return message
            self.events.append(message)

    def wait_for(self, name: str, seconds: float = 30.0) -> dict[str, Any]:
        """The next event of that name, of those that were not waited for yet."""
        for event in self.events:
            if event["event"] == name:
                self.events.remove(event)
                return event
        while True:
            event = self.message(seconds)
            if event.get("event") == name:
                return event
            self.events.append(event)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.selector.close()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


def shape(value: Any, path: str = "") -> set[str]:
    """The lines of a value: of a list those of all its items together."""
    if isinstance(value, dict):
        found = {f"{path}: object"}
        for key, item in value.items():
            found |= shape(item, f"{path}.{key}")
        return found
    if isinstance(value, list):
        found = {f"{path}: array"}
        for item in value:
            found |= shape(item, f"{path}[]")
        return found
    kind = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null"}[type(value)]
    return {f"{path}: {kind}"}


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """What one answer has and the other has not; of errors class and text are compared."""
    if "error" in theirs or "error" in ours:
        if theirs.get("error") == ours.get("error"):
            return []
        return [f"qemu {_short(theirs)}", f"vmrun {_short(ours)}"]
    one, other = shape(theirs["return"]), shape(ours["return"])
    return [f"qemu has {line}" for line in sorted(one - other)] + [f"vmrun has {line}" for line in sorted(other - one)]


def _short(answer: dict[str, Any]) -> str:
    return json.dumps(answer.get("error", "answers"))[:300]
