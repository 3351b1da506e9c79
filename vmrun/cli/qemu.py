"""vmrun-qemu: QEMU's command line in, a machine of vmrun's out, and outwardly what qemu-system-x86_64 does.

Messages are one line on standard error, after the program's name; what cannot be done ends with exit code 1 before
anything was started. SIGTERM, SIGINT, SIGHUP and QMP's `quit` end with 0.
"""

from __future__ import annotations

import os
import sys

from vmrun.cli.qemu_options import QemuError, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.cli.qemu_line import CommandLine

PROGRAM = "vmrun-qemu"


def console() -> None:
    """The command's end is the process's, without the interpreter's tidying up."""
    code = main(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    os._exit(code)


def main(argv: list[str]) -> int:
    from vmrun.errors import VmrunError

    program = os.path.basename(sys.argv[0]) or PROGRAM
    try:
        return _main(argv, program)
    except QemuError as error:
        sys.stderr.write(f"{program}: {error}\n")
        return error.code
    except VmrunError as error:
        for problem in error.problems:
            sys.stderr.write(f"{program}: {problem.message}\n")
    except KeyboardInterrupt:
        return 0
    except Exception as error:
        if os.environ.get("VMRUN_TRACEBACK"):
            raise
        sys.stderr.write(f"{program}: a fault of vmrun's own: {type(error).__name__}: {error}\n")
    return 1


def _main(argv: list[str], program: str) -> int:
    for word in argv:
        if word in ("-version", "--version", "-h", "-help", "--help"):
            from vmrun.cli.qemu_lists import usage, version

            sys.stdout.write(version() if word.endswith("version") else usage(program))
            return 0
    options = read(argv)
    from vmrun.cli.qemu_lists import lists

    text = lists(options)
    if text is not None:
        sys.stdout.write(text)
        return 0
    from vmrun.cli.qemu_line import CommandLine

    line = CommandLine(options)
    return _Run(line, program).run()


class _Run:
    """From the command line to the exit code."""

    def __init__(self, line: CommandLine, program: str) -> None:
        self.line, self.program = line, program
        self.ready = -1  # where a daemon tells its parent that it is up
        self.early: dict[str, int] = {}
        self.log: Any = None

    def run(self) -> int:
        from vmrun.monitor.server import Monitors

        line = self.line
        sys.setswitchinterval(1e-4)
        if line.daemonize:
            code = self._daemonize()
            if code is not None:
                return code
        lock = self._pidfile()
        self._connect()
        config = self._config()
        machine = self._build(config)
        monitors = Monitors(machine)
        try:
            self._signals(machine)
            machine.reset_ends, machine.shutdown_pauses = line.no_reboot, line.no_shutdown
            self._open(machine, monitors)
            self._detach()
            outcome = machine.run()
        finally:
            monitors.close()
            machine.close()
            if lock is not None:
                self._remove_pidfile()
        return self._conclude(outcome)

    # --- before there is a machine ------------------------------------------------------------------------------

    def _daemonize(self) -> int | None:
        """In the parent the exit code, once the child is up or has failed; None in the child."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writer)
            up = os.read(reader, 1)
            if not up:
                os.waitpid(pid, 0)
            return 0 if up else 1
        os.close(reader)
        os.setsid()
        self.ready = writer
        return None

    def _detach(self) -> None:
        """The daemon is up: leave the terminal, tell the parent."""
        if self.ready < 0:
            return
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        os.write(self.ready, b"!")
        os.close(self.ready)

    def _pidfile(self) -> int | None:
        path = self.line.pidfile
        if not path:
            return None
        import fcntl

        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise QemuError(f"cannot create PID file: Could not create '{path}': {error.strerror}") from None
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise QemuError(f"cannot create PID file: Cannot lock pid file '{path}'") from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        return fd

    def _remove_pidfile(self) -> None:
        try:
            os.unlink(self.line.pidfile)
        except OSError:
            pass

    def _connect(self) -> None:
        """Whoever started us may wait for these: connected before anything that takes time."""
        from vmrun.monitor.transport import connect

        for _, id in self.line.monitors:
            spec = self.line.chardevs.get(id, {})
            if spec.get("type") != "socket" or spec.get("server") or id in self.early:
                continue
            try:
                self.early[id] = int(spec["fd"]) if "fd" in spec else connect(spec)
            except OSError as error:
                where = spec.get("path") or f"{spec.get('host')}:{spec.get('port')}"
                text = self.line.char_texts.get(id, "")
                raise QemuError(f"{text}: Failed to connect to '{where}': {error.strerror}") from None

    def _config(self) -> dict[str, Any]:
        """The resolved machine. QemuError for the first thing that is wrong, with its option."""
        import json
        import re
        import tempfile

        from vmrun.config.resolve import resolve_file
        from vmrun.errors import VmrunError

        line = self.line
        if line.file["machine"] == "none":
            return {"machine": "none", "name": line.file["name"]}
        with tempfile.TemporaryDirectory(prefix="vmrun-qemu-") as directory:
            path = os.path.join(directory, "machine.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(line.file, file)
            try:
                resolved = resolve_file(path)
            except VmrunError as error:
                problem = error.problems[0]
                if problem.path in ("machine", ""):
                    raise QemuError("unsupported machine type\nUse -machine help to list supported machines") from None
                if problem.path.startswith("cpus.model"):
                    raise QemuError(f"unable to find CPU model '{line.file['cpus']['model']}'") from None
                place = re.match(r"devices\[(\d+)\]", problem.path)
                text = f"{line.texts[int(place[1])]}: " if place else ""
                raise QemuError(text + problem.message) from None
        for problem in resolved.warnings:
            sys.stderr.write(f"{self.program}: warning: {problem.message}\n")
        return dict(resolved.data)

    def _build(self, config: dict[str, Any]) -> Any:
        shared = [id for id, spec in self.line.chardevs.items() if spec["type"] == "stdio"]
        mux = self._mux if len(shared) > 1 or (shared and self._devices_use(shared)) else None
        if config["machine"] == "none":
            from vmrun.machine.empty import build_empty

            self.machine = build_empty(config["name"], self.line.chardevs, mux)
            if self.line.paused:
                self.machine.config["paused"] = True
        else:
            from vmrun.machine.builder import build

            # those of the monitors too, which the resolver does not know
            config["chardevs"] = {**self.line.chardevs, **config["chardevs"]}
            self.machine = build(config, mux=mux)
        return self.machine

    def _devices_use(self, chardevs: list[str]) -> bool:
        return any(device.get("chardev") in chardevs for device in self.line.devices)

    def _mux(self, loop: Any, lock: Any) -> Any:
        from vmrun.backends.chardev.terminal import Mux

        def command(letter: str) -> None:
            if letter == "x":
                self.machine.finish("quit", "host-ui")

        return Mux("terminal", loop, lock, command)

    # --- with a machine -----------------------------------------------------------------------------------------

    def _signals(self, machine: Any) -> None:
        import _signal as signal  # type: ignore[import-not-found]  # `signal` itself brings enum in: 3 ms

        def end(number: int) -> None:
            if number != signal.SIGINT:
                sys.stderr.write(f"{self.program}: terminating on signal {number}\n")
            machine.finish("quit", "host-signal")

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            machine.loop.add_signal(number, lambda n=number: end(n))

    def _open(self, machine: Any, monitors: Any) -> None:
        """All monitors; then wait for the clients that shall be waited for."""
        from vmrun.errors import BackendError

        waiting = []
        if any(kind == "qtest" for kind, _ in self.line.monitors):
            monitors.qtest_log = self._log_to()
        for kind, id in self.line.monitors:
            spec = self.line.chardevs[id]
            if id in self.early:
                monitors.adopt(self.early[id], spec, kind)
                continue
            try:
                listener = monitors.open(id, kind, spec)
            except BackendError as error:
                why = error.problems[0].message.rpartition(": ")[2]
                where = spec.get("path") or f"{spec.get('host') or ''}:{spec.get('port')}"
                text = self.line.char_texts.get(id, "")
                raise QemuError(f"{text}: Failed to bind socket to {where}: {why}") from None
            if listener is not None:
                where = spec.get("path") or f"{spec.get('host')}:{spec.get('port')}"
                sys.stderr.write(f"{self.program}: info: QEMU waiting for connection on: {where},server=on\n")
                waiting.append(listener)
        for chardev in machine.board.chardevs.values():
            wait = getattr(chardev, "wait", None)
            if wait is not None:
                wait()
        for listener in waiting:
            while not listener.clients and machine.outcome is None:
                machine.loop.run_once(1.0)

    def _log_to(self) -> Any:
        """Where -qtest-log says; standard error when it says nothing."""
        if self.line.qtest_log == "none":
            return None
        if not self.line.qtest_log:
            return sys.stderr.write
        try:
            file = open(self.line.qtest_log, "w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise QemuError(f"-qtest-log {self.line.qtest_log}: {error.strerror}") from None
        return file.write

    def _conclude(self, outcome: Any) -> int:
        if outcome.reason == "exit":
            return int(outcome.code or 0)
        if outcome.reason == "failed":
            from vmrun.cli.report import print_report

            for report in outcome.reports:
                print_report(report)
            return 1
        return 0
