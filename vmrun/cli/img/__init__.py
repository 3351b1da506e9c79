"""`vmrun img COMMAND …` and `vmrun-img COMMAND …`: qemu-img's command line, and what it prints.

Messages are qemu-img's where it has them; exit codes too: 0, 1 for failures, and those of `check` and `compare`.
`serve` is not one of qemu-img's: it exports an image as a network block device.
"""

from __future__ import annotations

import sys

from vmrun.cli.img.options import HINTS, HelpAsked, ImgError, tell_faults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# name → (module, function)
COMMANDS = {
    "amend": "change",
    "bench": "change",
    "bitmap": "bitmap",
    "check": "look",
    "commit": "change",
    "compare": "look",
    "convert": "convert",
    "create": "change",
    "dd": "convert",
    "info": "look",
    "io": "io",
    "map": "look",
    "measure": "look",
    "rebase": "change",
    "resize": "change",
    "serve": "serve",
    "snapshot": "change",
}
PROGRAM = "vmrun-img"
LIKE = "7.2.0"  # the qemu-img whose command line and words these are: scripts ask for it


def command() -> int:
    """The command vmrun-img."""
    import os

    try:
        code = main(sys.argv[1:], os.path.basename(sys.argv[0]) or PROGRAM)
    except BrokenPipeError:
        return 141  # nobody reads what is printed; a program that the signal ends has this status in a shell
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    return code


def run(argv: list[str]) -> int:
    """`vmrun img ARGV…`."""
    return main(argv, PROGRAM)


def _version(program: str) -> str:
    """The first line of the help, too, where scripts look for it."""
    from vmrun import __version__

    return f"{program} version {LIKE} (vmrun {__version__})\n"


def main(argv: list[str], program: str) -> int:
    try:
        argv = _standard(argv, program)
        if argv[:1] in (["--help"], ["-h"]):
            from vmrun.cli.img.usage import usage

            sys.stdout.write(_version(program) + usage(program))
            return 0
        if argv[:1] in (["--version"], ["-V"]):
            sys.stdout.write(_version(program))
            return 0
        if not argv:
            raise ImgError("Not enough arguments", usage=True)
        if argv[0].startswith("-"):
            raise ImgError(f"unrecognized option '{argv[0]}'", usage=True)
        if argv[0] not in COMMANDS:
            raise ImgError(f"Command not found: {argv[0]}", usage=True)
        module = __import__(f"vmrun.cli.img.{COMMANDS[argv[0]]}", fromlist=[argv[0]])
        command: Callable[[list[str]], int] = getattr(module, argv[0])
        try:
            return command(argv[1:])
        finally:
            tell_faults()
    except HelpAsked:
        from vmrun.cli.img.usage import usage

        sys.stdout.write(_version(program) + usage(program))
        return 0
    except ImgError as error:
        return _failed(program, str(error), error.code, error.usage)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        return _other(program, error)


def _standard(argv: list[str], program: str) -> list[str]:
    """What stands before the command: events to trace, of which there are none."""
    while argv and (argv[0].startswith("-T") or argv[0].split("=")[0] == "--trace"):
        word, *argv = argv
        pattern = word[2:] if word.startswith("-T") else word.partition("=")[2]
        if not pattern and "=" not in word:
            if not argv:
                raise ImgError(f"missing argument for option '{word}'", usage=True)
            pattern, *argv = argv
        name = pattern.removeprefix("enable=")
        if "=" not in name:
            sys.stderr.write(f"{program}: warning: trace event '{name}' does not exist\n")
    return argv


def _failed(program: str, text: str, code: int, usage: bool = False) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"{program}: {text}\n")
    if usage:
        sys.stderr.write(f"Try '{program} --help' for more information\n")
    return code


def _other(program: str, error: Exception) -> int:
    """What the block layer or the host says."""
    import os

    from vmrun.backends.block.errors import ImageError

    if isinstance(error, ImageError):
        return _failed(program, error.text + (f"\n{error.remedy}" if error.remedy.startswith(HINTS) else ""), 1)
    if isinstance(error, OSError):
        return _failed(program, error.strerror or str(error), 1)
    if isinstance(error, MemoryError):
        return _failed(program, "Cannot allocate memory", 1)
    if os.environ.get("VMRUN_TRACEBACK"):
        raise error
    return _failed(program, f"a fault of vmrun's own: {type(error).__name__}: {error}", 1)
