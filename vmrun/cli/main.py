"""The `vmrun` command: finds the command's own file, runs it, and turns what it raises into messages and
exit codes.

Imports nothing that a command does not need: `vmrun --version` is a matter of milliseconds.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# name → (module with `run(argv) -> exit code`, or module:function; what it does)
COMMANDS = {
    "init": ("vmrun.cli.init", "write a machine file to start from"),
    "up": ("vmrun.cli.up", "start a machine"),
    "ps": ("vmrun.cli.ps", "list the machines that run"),
    "stop": ("vmrun.cli.stop", "shut a machine down that runs"),
    "kill": ("vmrun.cli.stop:kill", "end a machine at once"),
    "gc": ("vmrun.cli.gc", "clear away what machines left that have ended"),
    "save": ("vmrun.cli.save", "write a machine that runs to a file, to go on later"),
    "pause": ("vmrun.cli.steer:pause", "hold a machine"),
    "resume": ("vmrun.cli.steer:resume", "let a machine go on, or wake it"),
    "reset": ("vmrun.cli.steer:reset", "press a machine's reset button"),
    "logs": ("vmrun.cli.logs", "what a machine in the background has said"),
    "monitor": ("vmrun.cli.monitor", "talk to a machine that runs"),
    "attach": ("vmrun.cli.console:attach", "come back to the console of a machine in the background"),
    "console": ("vmrun.cli.console", "talk to a serial console of a machine that runs"),
    "screenshot": ("vmrun.cli.screenshot", "write a picture of a machine's screen"),
    "screen": ("vmrun.cli.screen", "show a machine's text screen"),
    "view": ("vmrun.cli.view", "show a machine's screen in the browser"),
    "wait": ("vmrun.cli.wait", "wait until a machine's screen shows something"),
    "type": ("vmrun.cli.type_cmd", "type text on a machine's keyboard"),
    "validate": ("vmrun.cli.validate", "say everything that is wrong with machine files"),
    "resolve": ("vmrun.cli.resolve", "show a machine with everything filled in"),
    "lock": ("vmrun.cli.lock", "write down all that a guest sees of a machine"),
    "diff": ("vmrun.cli.diff", "say what changes for a guest between two machines"),
    "tree": ("vmrun.cli.tree", "show a machine's objects, buses, memory, ports and interrupts"),
    "import": ("vmrun.cli.import_cmd", "a machine file from a QEMU command line or a libvirt domain"),
    "export": ("vmrun.cli.export", "a machine as a QEMU command line or a libvirt domain"),
    "qemu": ("vmrun.cli.qemu", "run a QEMU command line; vmrun-qemu does too"),
    "img": ("vmrun.cli.img", "make, look at, convert and export disk images; vmrun-img does too"),
    "types": ("vmrun.cli.types", "list the machine types, compare two"),
    "devices": ("vmrun.cli.devices", "list the drivers, or one driver's properties"),
    "schema": ("vmrun.cli.schema", "print a JSON Schema, for editors"),
    "explain": ("vmrun.cli.explain", "explain an error code"),
    "completion": ("vmrun.cli.completion", "completion for a shell, or manual pages"),
    "doctor": ("vmrun.cli.doctor", "say whether this host can run machines, and what to do if not"),
}

FINE, NO, USAGE, HOST = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name; default: the process's). Returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help", "-V", "--version"):
        return _run("", args)
    entry = COMMANDS.get(args[0])
    if entry is None:
        from vmrun.config.near import nearest

        near = nearest(args[0], COMMANDS)
        hint = f"; did you mean '{near}'?" if near else ""
        sys.stderr.write(f"vmrun: there is no command '{args[0]}'{hint}\n`vmrun help` lists the commands\n")
        return USAGE
    return _run(entry[0], args[1:])


def command() -> int:
    """The command of a terminal: main(), with standard streams that may be closed, or full."""
    closed = _open_closed_streams()
    code = main()
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # whoever read it has had enough
            code = code or _refused(error, "standard output")
    if code == FINE and any(stream.wanted for stream in closed):
        code = HOST
    try:
        sys.stderr.flush()
    except OSError:
        pass
    return code


class _Closed:
    """A standard stream that was closed when the program began: what is written to it is lost, and that is told."""

    encoding, wanted = "utf-8", False

    def __init__(self, name: str) -> None:
        self.name = name

    def write(self, text: str) -> int:
        if text and not self.wanted:
            self.wanted = True
            if self.name != "standard error":
                sys.stderr.write(f"vmrun: {self.name} is closed; what is written to it is lost\n")
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return 1 if self.name == "standard output" else 2


def _open_closed_streams() -> list[_Closed]:
    """Descriptors 0 to 2 are taken, so that no file of the machine becomes one of them and gets what is said there."""
    import os

    closed = []
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
            continue
        except OSError:
            while os.open(os.devnull, os.O_RDWR) < number:
                pass
        if number:
            closed.append(_Closed("standard output" if number == 1 else "standard error"))
            setattr(sys, name, closed[-1])
        else:
            sys.stdin = open(0, closefd=False)  # noqa: SIM115
    return closed


def _run(module: str, args: list[str]) -> int:
    from vmrun.errors import VmrunError

    try:
        if not module:
            return _introduce(args)
        place, _, function = module.partition(":")
        command = getattr(__import__(place, fromlist=["run"]), function or "run")
        return int(command(args))
    except VmrunError as error:
        from vmrun.cli.out import print_problems

        try:
            print_problems(error.problems)
        except OSError:
            pass  # standard error is full; the exit code tells
        return error.exit_code
    except SystemExit as leave:  # argparse: 0 after --help, 2 after a wrong option
        return leave.code if isinstance(leave.code, int) else USAGE
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # whoever read our output has had enough; keep the interpreter from complaining when it closes stdout
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FINE
    except OSError as error:
        return _refused(error)
    except ImportError as error:
        import errno

        if os_says(errno.EMFILE) in str(error):
            return _refused(OSError(errno.EMFILE, os_says(errno.EMFILE)))
        return _bug(error)
    except MemoryError:
        sys.stderr.write("vmrun: the host has no memory left for this\n    free some, or raise the limit (ulimit -v)\n")
        return HOST
    except Exception as error:
        return _bug(error)


def os_says(number: int) -> str:
    import os

    return os.strerror(number)


def _refused(error: OSError, what: str = "") -> int:
    """What the host does not do, in its own words: no room, too few descriptors, a file larger than it may be."""
    import errno
    import os

    from vmrun.cli import STDOUT

    if os.environ.get("VMRUN_TRACEBACK"):
        raise error
    remedy = {
        errno.EMFILE: "raise the number of open files (ulimit -n)",
        errno.ENFILE: "the host as a whole has too many open files",
        errno.EFBIG: "raise the size that a file may have (ulimit -f)",
        errno.ENOSPC: "make room there",
        errno.EDQUOT: "make room there",
        errno.ENOMEM: "free some memory, or raise the limit (ulimit -v)",
        errno.EAGAIN: "raise the number of processes and threads (ulimit -u)",
    }.get(error.errno or 0, "VMRUN_TRACEBACK=1 shows where it happened")
    name = what or (error.filename if error.filename == STDOUT else "")
    name = name or (f"'{os.fsdecode(error.filename)}'" if isinstance(error.filename, (str, bytes)) else "")
    where = f"{name}: " if name else ""
    try:
        sys.stderr.write(f"vmrun: {where}{error.strerror or error}\n    {remedy}\n")
    except OSError:
        pass
    return HOST


def _bug(error: Exception) -> int:
    import os

    if os.environ.get("VMRUN_TRACEBACK"):
        raise error
    sys.stderr.write(
        f"vmrun: a fault of vmrun's own: {type(error).__name__}: {error}\n"
        "    please report it, with what VMRUN_TRACEBACK=1 shows\n"
    )
    return HOST


def _introduce(args: list[str]) -> int:
    """--help and --version, which import nothing."""
    from vmrun.cli.out import write

    if args and args[0] in ("-V", "--version"):
        from vmrun import __version__

        write(f"vmrun {__version__}\n")
        return FINE
    write(_help())
    return FINE if args else USAGE


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return (
        "usage: vmrun COMMAND [OPTION…]\n\n"
        + "\n".join(lines)
        + "\n\n`vmrun COMMAND --help` tells more; `vmrun --version` the version\n"
    )
