"""QMP: one client's conversation. Transport knows nothing of it: bytes in, bytes out.

Ref: QEMU's interop/qmp-spec. Errors have QEMU's classes and words, so that clients that look at them go on to work.
"""

from __future__ import annotations

import json
import re

from vmrun.errors import VmrunError
from vmrun.monitor import table
from vmrun.monitor.commands import control  # noqa: F401  # what every client begins with
from vmrun.monitor.commands.introspect import version
from vmrun.monitor.errors import QmpError, of_fault
from vmrun.monitor.jsonstream import JsonError, JsonStream
from vmrun.monitor.preconfig import check_command
from vmrun.monitor.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.machine.machine import Machine

_encode = json.JSONEncoder(check_circular=False).encode
_pretty = json.JSONEncoder(indent=4).encode
# what is empty at the end of a line: the line's indentation, the name before it, the brackets
_EMPTY = re.compile(r'^( *)(?:("(?:[^"\\]|\\.)*"): )?(\{\}|\[\])(?=,?$)', re.MULTILINE)
MOST_WAITING = 8  # commands behind a long one
_KNOWN = {"execute", "exec-oob", "arguments", "id"}
_OF_DATA = ("ringbuf-write",)  # commands whose texts are no names of the host's


def _in_lines(message: object) -> str:
    """What is empty has its brackets in two lines, too."""

    def spread(found: re.Match[str]) -> str:
        indent, name, empty = found.groups()
        return f"{indent}{name + ': ' if name else ''}{empty[0]}\n{indent}{empty[1]}"

    return _EMPTY.sub(spread, _pretty(message))


def _check_texts(value: Any) -> None:
    """QmpError for one that no file, socket or program can be named by."""
    if isinstance(value, str):
        if "\0" in value:
            raise QmpError("a NUL character is not allowed in text")
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_texts(inner)


class QmpSession:
    """`feed` what the client sent; `send(bytes)` is called with what it shall get, the greeting first."""

    def __init__(
        self,
        machine: Machine,
        send: Callable[[bytes], object],
        pretty: bool = False,
        client: Any = None,
        greeted: bool = False,
    ) -> None:
        self.machine, self._send, self._client = machine, send, client
        self.fds: dict[str, int] = {}  # getfd's, by name
        self._encode = _in_lines if pretty else _encode
        self.negotiated = self.oob = False
        self._stream = JsonStream()
        self._waiting: list[object] = []
        self.working = False  # with a long command: the next one waits for its answer
        self.on_idle: Callable[[], object] = lambda: None
        self.full: Callable[[], bool] = lambda: False  # whether the client has much to read first
        greeting = {"version": version(), "capabilities": ["oob"]}
        if not greeted:
            self.send({"QMP": greeting})

    def send(self, message: dict[str, Any]) -> None:
        self._send(self._encode(message).encode() + b"\r\n")

    def received(self) -> int:
        """The descriptor that came with what was sent last, which is the caller's from now on; -1 for none."""
        waiting: list[int] = getattr(self._client, "received", None) or []
        return waiting.pop(0) if waiting else -1

    def close(self) -> None:
        """The client has gone."""
        import os

        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()

    def event(self, line: bytes) -> None:
        """An event for everybody, encoded already; not before the negotiation."""
        if self.negotiated and self._encode is _encode:
            self._send(line)
        elif self.negotiated:
            self.send(json.loads(line))

    @property
    def busy(self) -> bool:
        """Nothing more is read from the client. With out-of-band commands a few may wait behind a long one."""
        return self.working and (not self.oob or len(self._waiting) >= MOST_WAITING)

    def feed(self, data: bytes) -> None:
        for value in self._stream.feed(data):
            if self.oob and isinstance(value, dict) and "exec-oob" in value:
                self._answer(value)  # whatever waits, and what came in one piece with it
            else:
                self._waiting.append(value)
                self._go_on()

    def resume(self) -> None:
        """The client has read."""
        self._go_on()

    def _go_on(self) -> None:
        """One command after the other: what comes after a long one waits for its answer, and all for a client that does
        not read: short commands may have long answers.
        """
        while self._waiting and not self.working and not self.full():
            value = self._waiting.pop(0)
            if isinstance(value, JsonError):
                self.send({"error": QmpError(str(value)).plain()})
            else:
                self._answer(value)

    def _answer(self, request: object) -> None:
        reply: dict[str, Any] = {}
        if isinstance(request, dict) and "id" in request:
            reply["id"] = request["id"]
        try:
            result = self._execute(request)
            if isinstance(result, Work):
                self.working = True
                result.start(lambda value, error: self._finish(reply, value, error))
                return
            reply["return"] = result
        except VmrunError as error:
            reply["error"] = of_fault(error).plain()
        except Exception as error:  # a fault of ours must not end the guest
            reply["error"] = of_fault(error).plain()
            self.machine.loop.on_error("a monitor command", error)
        self.send(reply)

    def _finish(self, reply: dict[str, Any], value: Any, error: QmpError | None) -> None:
        """The answer of a long command has come."""
        if error is None:
            reply["return"] = {} if value is None else value
        else:
            reply["error"] = error.plain()
        self.working = False
        self.send(reply)
        self._go_on()
        if not self.busy:
            self.on_idle()

    def _execute(self, request: object) -> Any:
        if not isinstance(request, dict):
            raise QmpError("QMP input must be a JSON object")
        if not request.keys() <= _KNOWN or "exec-oob" in request and not self.oob:
            name = next((name for name in request if name not in _KNOWN), "exec-oob")
            raise QmpError(f"QMP input member '{name}' is unexpected")
        for member in ("execute", "exec-oob"):
            if member in request and not isinstance(request[member], str):
                raise QmpError(f"QMP input member '{member}' must be a string")
        if "execute" in request and "exec-oob" in request:
            raise QmpError("QMP input member 'exec-oob' clashes with 'execute'")
        given = request.get("arguments", {})
        if not isinstance(given, dict):
            raise QmpError("QMP input member 'arguments' must be an object")
        name = request.get("execute", request.get("exec-oob"))
        if name is None:
            raise QmpError("QMP input lacks member 'execute'")
        if not self.negotiated and name != "qmp_capabilities":
            raise QmpError("Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound")
        command = table.find(name)
        if command is None:
            raise QmpError(f"The command {name} has not been found", "CommandNotFound")
        if "exec-oob" in request and not command.oob:
            raise QmpError(f"The command {name} does not support OOB")
        if name not in _OF_DATA:
            _check_texts(given)
        if not self.machine.whole:
            check_command(self.machine, name)
        result = command.handler(self, **command.arguments(given))
        return {} if result is None else result
