"""A small QMP client, for the commands that talk to machines that run."""

from __future__ import annotations

import json
import socket

from vmrun.errors import MonitorError, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TIMEOUT = 10.0


class QmpClient:
    """`with QmpClient(path) as qmp: qmp.execute("query-status")`. MonitorError: nobody answers, or with an error."""

    def __init__(self, path: str, timeout: float = TIMEOUT) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        self._pending = b""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(path)
        except OSError as error:
            self.socket.close()
            raise MonitorError(f"nobody answers on {path}: {error.strerror or error}") from None
        try:
            self.greeting = self.receive()
            self.execute("qmp_capabilities")
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> QmpClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def receive(self) -> dict[str, Any]:
        """The next message."""
        while b"\n" not in self._pending:
            try:
                data = self.socket.recv(65536)
            except OSError as error:
                why = "no answer in time" if isinstance(error, TimeoutError) else error.strerror
                raise MonitorError(f"{self.path}: {why}") from None
            if not data:
                raise MonitorError(f"{self.path}: the machine closed the connection")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        try:
            message: dict[str, Any] = json.loads(line)
        except ValueError:
            raise MonitorError(f"{self.path}: what answers does not speak QMP") from None
        return message

    def execute(self, command: str, **arguments: Any) -> Any:
        """What the command returns; events that come meanwhile are in `events`."""
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self.receive()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise refusal(message["error"])
            self.events.append(message)

    def wait_for(self, *names: str) -> dict[str, Any] | None:
        """The first such event; None when the machine ended without it. `timeout` of the socket applies."""
        for event in self.events:
            if event.get("event") in names:
                return event
        while True:
            try:
                message = self.receive()
            except MonitorError as error:
                if "closed" in str(error):
                    return None
                raise
            if message.get("event") in names:
                return message
