"""vmrun-qemu: QEMU's command line in, a machine of vmrun's out, and outwardly what qemu-system-x86_64 does.

Messages are one line on standard error, after the program's name; what cannot be done ends with exit code 1 before
anything was started. SIGTERM, SIGINT, SIGHUP and QMP's `quit` end with 0.
"""

from __future__ import annotations

import gc
import os
import sys

from vmrun.cli.qemu_start import QemuError, Start, started
from vmrun.cli.runner import Runner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from vmrun.backends.chardev.socket import Given
    from vmrun.config.sections import MachineData
    from vmrun.errors import VmrunError
    from vmrun.monitor.early import Early

PROGRAM = "vmrun-qemu"
NOT_PLAIN = ("telnet", "websocket", "tls-creds", "logfile")  # a socket's bytes are more than a monitor's words
WINDOWS = ("gtk", "sdl")  # of -display, and -sdl
NOT_SHOWN = ("dbus", "spice-app")


def command() -> int:
    """The command vmrun-qemu."""
    gc.disable()  # until there is a machine: modules and what a line comes to are no garbage
    code = main(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    return code


def run(argv: list[str]) -> int:
    """`vmrun qemu ARGV…`: the same."""
    if argv in (["--help"], ["-h"]):
        sys.stdout.write("usage: vmrun qemu ARG…\n\nRun a QEMU command line; -help lists its options.\n")
        return 0
    return main(argv, PROGRAM)


def main(argv: list[str], program: str = "") -> int:
    from vmrun.errors import VmrunError

    program = program or os.path.basename(sys.argv[0]) or PROGRAM
    _Run.stamp, _Run.named = False, ""
    try:
        return _main(argv, program)
    except QemuError as error:
        _say(program, str(error))
        return error.code
    except VmrunError as error:
        _say(program, error.problems[0].message)
    except (KeyboardInterrupt, _Ended):
        return 0
    except OSError as error:  # the host's: no descriptors, no memory, no room
        if os.environ.get("VMRUN_TRACEBACK"):
            raise
        name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        _say(program, f"{name}{error.strerror or error}")
    except Exception as error:
        if os.environ.get("VMRUN_TRACEBACK"):
            raise
        _say(program, f"a fault of vmrun's own: {type(error).__name__}: {error}")
    return 1


def _main(argv: list[str], program: str) -> int:
    asked: list[str] = []

    def read() -> tuple[Start, Sequence[str], Sequence[str]]:
        from vmrun.cli import qemu_lists
        from vmrun.cli.qemu_machine import Wanted
        from vmrun.config.importers.line import parse_options, read_options

        options = read_options(argv)
        text = qemu_lists.told(options, program)
        if text is None:
            text = qemu_lists.lists(options)
        if text is not None:
            asked.append(text)
            raise _Asked
        return Wanted(parse_options(options, defaults=True)).start()

    try:
        start = started(argv, read)
    except _Asked:
        sys.stdout.write(asked[0])
        return 0
    _Run.stamp = "timestamp" in start.run.get("msg", ())
    _Run.named = str(start.run.get("name") or "") if "guest-name" in start.run.get("msg", ()) else ""
    for warning in start.warnings:
        _say(program, f"warning: {warning}")
    return _Run(start, program, argv).run()


def _say(program: str, text: str) -> None:
    """One message; after -msg it begins with the time (UTC) and the machine's name."""
    stamp = ""
    if _Run.stamp:
        import time

        seconds, rest = divmod(time.time_ns(), 1_000_000_000)
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest // 1000:06d}Z "
    name = f"{_Run.named} " if _Run.named else ""
    sys.stderr.write(f"{stamp}{name}{program}: {text}\n")


def _aloud(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:  # who read it is gone; the command's work is done
        pass


class _Asked(Exception):
    """The line only asks."""


class _Ended(BaseException):
    """A signal came before there was a machine."""


class _Run(Runner):
    """From the command line to the exit code."""

    announce = False
    stamp, named = False, ""  # what -msg puts before messages

    def __init__(self, start: Start, program: str, argv: Sequence[str] = ()) -> None:
        super().__init__()
        self.wanted, self.program, self.argv = start, program, argv
        self.option = start.run
        if "echr" in self.option:
            from vmrun.backends.chardev.mux import Shared

            self.escape = Shared.escape = self.option["echr"]
        self.early: dict[str, Given] = {}  # of monitors, by chardev
        self.greeter: Early | None = None
        self.pidfile = ""
        self.ended = 0  # by which signal, before there was a machine

    def run(self) -> int:
        if self.option.get("chroot"):
            raise QemuError(
                f"-chroot {self.option['chroot']}: vmrun reads modules of its own while it runs; give the process a "
                "root with bwrap, or systemd's RootDirectory="
            )
        self._take_descriptors()
        if self.option.get("exit-with-parent"):
            if self.option.get("daemonize"):
                raise QemuError("-run-with exit-with-parent=on: a process in the background has no parent to end with")
            self.end_with_parent()
        if self.option.get("daemonize"):
            for id, spec in self.wanted.chardevs.items():
                if spec["type"] == "stdio":
                    raise QemuError(f"{self._source(id)}: cannot use stdio with -daemonize")
            code = self.into_background()
            if code is not None:
                return code
        lock = self._pidfile()
        before = self._heard()
        try:
            self._end_by_signal()
            self._connect()
            return super().run()
        except BaseException:
            if not self.ended:
                raise
            _say(self.program, f"terminating on signal {self.ended}")  # Python hides _Ended behind errors of its own
            return 0
        finally:
            self._signal(None)
            if self.greeter is not None:
                self.greeter.end()
            for given in self.early.values():
                (given[0] if isinstance(given, tuple) else given).close()
            if lock is not None:
                self._remove_pidfile()
            for number, handler in before.items():
                import _signal as signal  # type: ignore[import-not-found]

                signal.signal(number, handler)

    def _heard(self) -> dict[int, Any]:
        """What hears of signals where we are only called: it has them back, and so have its children."""
        import vmrun.cli

        if vmrun.cli.owns_process:
            return {}
        import _signal as signal

        # None: somebody's who is not Python, which cannot be had back
        found = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        return {number: handler for number, handler in found.items() if handler is not None}

    def _end_by_signal(self) -> None:
        """Whoever sees a socket of ours may end us: cleanly, while there is no machine yet that hears of signals."""

        def end(number: int, frame: object) -> None:
            self.ended = number
            raise _Ended

        self._signal(end)

    def _signal(self, handler: Callable[[int, object], None] | int | None) -> None:
        """What hears of signals; None: nobody does, as we end."""
        import _signal as signal

        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if handler is None else handler)

    def _signals(self) -> None:
        super()._signals()
        if self.ended:  # some finalizer swallowed it
            raise _Ended

    def _take_descriptors(self) -> None:
        """-add-fd: those that the process was started with."""
        for number, fd, opaque in self.option.get("fdsets", ()):
            from vmrun.core.fdsets import add

            try:
                os.set_inheritable(fd, False)
            except OSError as error:
                raise QemuError(f"-add-fd set={number},fd={fd}: error duplicating fd: {error.strerror}") from None
            add(number, fd, opaque)

    # --- before there is a machine ------------------------------------------------------------------------------

    def ready(self) -> None:
        """The state that comes in is there; a daemon is up: away from the terminal and the directory."""
        uri = self.option.get("incoming")
        if uri and uri != "defer":
            from vmrun.monitor.commands.migrate import incoming
            from vmrun.monitor.errors import QmpError

            try:
                incoming(self.machine, uri)
            except QmpError as error:
                raise QemuError(f"-incoming {uri}: {error.problems[0].message}") from None
        if self.option.get("loadvm"):
            from vmrun.errors import BuildError
            from vmrun.machine.internal import load

            try:
                load(self.machine, str(self.option["loadvm"]))
            except BuildError as error:
                raise QemuError(error.problems[0].message) from None
        if self.option.get("runas"):
            _become(self.option["runas"])
        if self.option.get("daemonize"):
            os.chdir("/")
            self.leave_terminal()
        if self.option.get("sandbox") is not None:
            from vmrun.cli.sandbox import enter

            try:
                enter(self.option["sandbox"])
            except OSError as error:
                raise QemuError(f"-sandbox on: failed to install seccomp syscall filter: {error.strerror}") from None

    def _pidfile(self) -> int | None:
        path = self.option.get("pidfile")
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
        self.pidfile = os.path.abspath(path)
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        return fd

    def _remove_pidfile(self) -> None:
        try:
            os.unlink(self.pidfile)
        except OSError:
            pass

    def _connect(self) -> None:
        """Whoever started us may wait for these: connected before anything that takes time."""
        if not self.wanted.monitors:
            return
        from vmrun.monitor.early import Early

        self.greeter = Early()
        for kind, id, pretty in self.wanted.monitors:
            spec = self.wanted.chardevs.get(id, {})
            if spec.get("type") != "socket" or spec.get("mux") or id in self.early:
                continue
            greets = kind == "control" and not pretty and not any(spec.get(name) for name in NOT_PLAIN)
            if spec.get("server"):
                if greets:
                    try:
                        self.early[id] = self.greeter.listen(spec)
                    except OSError as error:
                        raise self._not_bound(id, spec, error.strerror) from None
                continue
            try:
                self.early[id] = self.greeter.connect(spec, greets)
            except OSError as error:
                if spec.get("reconnect"):
                    continue
                where = spec.get("path") or f"{spec.get('host')}:{spec.get('port')}"
                text = self._source(id)
                raise QemuError(f"{text}: Failed to connect to '{where}': {error.strerror}") from None
        self.greeter.begin()

    def _not_bound(self, id: str, spec: dict[str, Any], why: str | None) -> QemuError:
        where = spec.get("path") or f"{spec.get('host') or ''}:{spec.get('port')}"
        return QemuError(f"{self._source(id)}: Failed to bind socket to {where}: {why}")

    def _source(self, chardev: str) -> str:
        """The option that a chardev came from."""
        return self.wanted.sources.get(f"chardevs.{chardev}") or f"chardev {chardev}"

    def build(self) -> Any:
        from vmrun.errors import BackendError, BuildError

        if self.option.get("mem-lock"):
            _lock_memory()
        if self.option.get("process"):
            with open("/proc/self/comm", "w", encoding="utf-8", errors="replace") as comm:
                comm.write(self.option["process"])
        self._find_window()
        for other in ("incoming", "preconfig"):
            if self.option.get("loadvm") and self.option.get(other):
                raise QemuError(f"'{other}' and 'loadvm' options are mutually exclusive")
        try:
            if self.option.get("incoming"):
                from vmrun.machine.handover import waiting

                with waiting():
                    machine = self._build(self.wanted.config)
            else:
                machine = self._build(self.wanted.config)
        except (BackendError, BuildError) as error:
            raise self._named(error) from None
        machine.policy |= self.wanted.actions
        if "cpu_reset" in self.option.get("log", ()):
            self._log_resets(machine)
        if self.option.get("incoming"):
            machine.go("inmigrate")
        return machine

    def _log_resets(self, machine: Any) -> None:
        """-d cpu_reset: the processors as they are before each reset, to -D's file or standard error."""
        write = sys.stderr.write
        if self.option.get("D"):
            try:
                write = open(self.option["D"], "w", encoding="utf-8", buffering=1).write
            except OSError as error:
                raise QemuError(f"-D {self.option['D']}: {error.strerror}") from None

        def told() -> None:
            from vmrun.monitor.registers import registers_of

            for n in machine.board.processors:
                write(f"CPU Reset (CPU {n})\n{registers_of(machine, n)}")

        machine.before_reset.append(told)

    def _find_window(self) -> None:
        """-display gtk and sdl: a viewer in their place, or why there is none; the same of what cannot be shown."""
        kind = "curses" if self.option.get("curses") else str(self.option.get("display", "")).partition(",")[0]
        if kind in NOT_SHOWN:
            other = "see the screen with `-vnc 127.0.0.1:0`, or `vmrun view NAME` in a browser"
            raise QemuError(f"-display {kind}: vmrun does not have this yet; {other}")
        if kind == "curses" and not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise QemuError("-display curses: this is no terminal; start it in one, or use `-nographic`")
        if kind not in WINDOWS:
            return
        from vmrun.cli.window import find
        from vmrun.errors import BackendError

        try:
            self.window = find(os.environ)
        except BackendError as error:
            problem = error.problems[0]
            raise QemuError(f"-display {kind}: {problem.message}; {problem.remedy}") from None

    def _build(self, config: MachineData | None) -> Any:
        chardevs, users = self.wanted.chardevs, self.wanted.users
        before: Any = self.machine
        on_terminal = [id for id, spec in chardevs.items() if spec["type"] == "stdio"]
        shared = any(chardevs[id].get("mux") or id in users for id in on_terminal)
        mux = self.mux if shared or len(on_terminal) > 1 else None
        if self.option.get("curses") or str(self.option.get("display", "")).startswith("curses"):
            mux = self._screen
        blockdevs = list(self.option.get("blockdevs", ()))
        machine: Any
        if config is None:
            from vmrun.machine.empty import NOTHING, build_empty

            given = {"name": self.option.get("name", ""), "chardevs": chardevs, "memory": self.option.get("memory", 0)}
            given |= self.option.get("around", {})
            if self.option.get("preconfig") and before is None:
                from vmrun.machine.preconfig import prepare

                machine = prepare({**NOTHING, **given}, mux, self._objects(), blockdevs, self._numa_nodes)
            else:
                board = before.board if before is not None else None
                machine = build_empty(given, mux, self._objects(), blockdevs, self.option.get("accel", ()), board)
            machine.autostart = not self.option.get("paused")
        else:
            from vmrun.machine.builder import build

            # those of the monitors too, which the resolver does not know
            config["chardevs"] = {**chardevs, **config["chardevs"]}
            if self.option.get("memdevs"):
                config = {**config, "memory-backing": {"memdevs": self.option["memdevs"]}}
            if before is not None:
                for kind in ("netdevs", "drives"):
                    config[kind] = {**config[kind], **before.config[kind]}
                before.board.config = config
                machine = build(config, board=before.board)
            elif self.option.get("preconfig"):
                from vmrun.machine.preconfig import prepare

                machine = prepare(config, mux, self._objects(), blockdevs, self._numa_nodes)
            else:
                machine = build(config, mux=mux, objects=self._objects(), blockdevs=blockdevs)
        machine.drives_pass = machine.counts_addresses = True
        if not sys.stdout.isatty():
            machine.aloud = _aloud
        try:
            for id in list(machine.config["drives"]):  # QEMU opens all, whether anybody uses them or not
                if id not in machine.board.nodes.known:
                    machine.board.drive(id)
            for id in chardevs:  # QEMU opens all, whether anybody uses them or not
                if id in machine.board.listened or not machine.whole and chardevs[id].get("mux"):
                    continue  # a TPM's, which has its own connection; one whose first user is a device to come
                if id not in machine.board.chardevs and id not in [used for _, used, _ in self.wanted.monitors]:
                    machine.board.chardev(id)
        except BaseException:
            machine.close()
            raise
        return machine

    # --- -preconfig -----------------------------------------------------------------------------------------------

    def _numa_nodes(self, said: list[str]) -> list[dict[str, Any]]:
        from vmrun.config.importers import numaopts
        from vmrun.config.importers.line import gather, read_options

        line = gather(read_options([*self.argv, *said]), True)
        numaopts.placed(line)
        numaopts.check_attributes(line)
        return [{"cpus": line.nodes[id].get("cpus", ())} for id in sorted(line.nodes)]

    def complete(self, monitors: Any) -> Any:
        before: Any = self.machine
        if before.whole:
            return before
        self.leave_terminal()
        before.wait_for(before, "left")
        if before.outcome is not None:
            return before
        from vmrun.cli.qemu_machine import Wanted
        from vmrun.config.importers.line import parse_options, read_options

        options = read_options([*self.argv, *before.said])
        self.wanted = Wanted(parse_options(options, defaults=True)).start(complete=True)[0]
        self.option = self.wanted.run
        machine = self.build()
        before.hand_over(machine)
        before.accelerator.close()
        self.machine = machine
        self._viewers()
        return machine

    def _objects(self) -> list[dict[str, Any]]:
        return [values for _, values in self.option.get("objects", ())]

    def _named(self, error: VmrunError) -> QemuError:
        """What cannot be made, by the option that asks for it and in QEMU's words."""
        from vmrun.config.qemuwords import of_chardev

        problem = error.problems[0]
        name = problem.facts.get("chardev")
        if name:
            return QemuError(f"{self._source(str(name))}: {of_chardev(problem)}")
        source = self.wanted.sources.get(problem.path or "")
        text = str(problem.facts.get("qemu", problem.message))
        return QemuError(f"{source}: {text}" if source else text)

    def commands(self) -> dict[str, Any]:
        def end() -> None:
            sys.stderr.write(f"{self.program}: Terminated\r\n")
            self.machine.finish("quit", "host-ui")

        return {"x": ("end the machine and leave", end)}

    def _screen(self, loop: Any, lock: Any) -> Any:
        from vmrun.cli.up_screen import ScreenConsole

        return ScreenConsole(loop, lock, self)

    # --- with a machine -----------------------------------------------------------------------------------------

    def on_signal(self, number: int) -> None:
        import _signal as signal

        if number != signal.SIGINT:
            _say(self.program, f"terminating on signal {number}")
        self.machine.finish("quit", "host-signal")

    def open_monitors(self, monitors: Any) -> Any:
        from vmrun.errors import BackendError

        if any(kind == "qtest" for kind, _, _ in self.wanted.monitors):
            monitors.qtest_log = self._log_to()
        if self.greeter is not None:
            self.greeter.end()
        for kind, id, pretty in self.wanted.monitors:
            kind = "pretty" if pretty and kind == "control" else kind
            try:
                monitors.open(id, kind, self.early.pop(id, None))
            except BackendError as error:
                raise self._named(error) from None
        chardev: Any
        for id, chardev in self.machine.board.chardevs.items():
            if self.wanted.chardevs.get(id, {}).get("type") == "pty":
                sys.stdout.write(f"char device redirected to {chardev.address} (label {id})\n")
        sys.stdout.flush()

    def waiting_for(self, peer: Any) -> None:
        where = getattr(peer, "shown", "") or peer.address.removeprefix("unix:").removeprefix("tcp:")
        _say(self.program, f"info: QEMU waiting for connection on: {where},server=on")

    def _log_to(self) -> Any:
        """Where -qtest-log says; standard error when it says nothing."""
        if self.option.get("qtest-log") == "none":
            return None
        if not self.option.get("qtest-log"):
            return sys.stderr.write
        try:
            file = open(self.option["qtest-log"], "w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise QemuError(f"-qtest-log {self.option['qtest-log']}: {error.strerror}") from None
        return file.write

    def conclude(self, outcome: Any) -> int:
        if outcome.reason == "exit":
            return int(outcome.code or 0)
        if outcome.reason == "panic" and self.machine.policy["panic"] == "exit-failure":
            return 1
        if outcome.reason == "failed":
            from vmrun.cli.report import print_report

            for report in outcome.reports:
                print_report(report)
            return 1
        return 0


def _lock_memory() -> None:
    """-overcommit mem-lock=on: nothing of the process leaves the host's memory."""
    import ctypes

    present_and_future = 3
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(present_and_future):
        raise QemuError(f"locking memory failed: {os.strerror(ctypes.get_errno())}")


def _become(who: str) -> None:
    """-runas NAME, or UID:GID: that user with all groups of his, for good."""
    import pwd

    uid, colon, gid = who.partition(":")
    try:
        if colon and uid.isdecimal() and gid.isdecimal():
            name, numbers = "", (int(uid), int(gid))
        else:
            entry = pwd.getpwnam(who)
            name, numbers = entry.pw_name, (entry.pw_uid, entry.pw_gid)
    except KeyError:
        raise QemuError(f'-runas {who}: User "{who}" does not exist, and is not UID:GID') from None
    try:
        os.setgid(numbers[1])
        os.initgroups(name, numbers[1]) if name else os.setgroups([numbers[1]])
        os.setuid(numbers[0])
    except (OSError, OverflowError) as error:
        raise QemuError(f"-runas {who}: {getattr(error, 'strerror', None) or error}") from None
    for file in (__file__, os.__file__):  # of which more is read while a machine runs
        if not os.access(file, os.R_OK):
            raise QemuError(f"-runas {who}: this user may not read the modules in {os.path.dirname(file)}")
