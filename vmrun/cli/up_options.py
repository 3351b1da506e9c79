"""The options of `vmrun up`, parsed by hand: argparse would cost a fifth of the time to the first guest instruction."""

from __future__ import annotations

import os
import sys

USAGE = """\
usage: vmrun up [options] FILE
       vmrun up [options] --restore SAVED

Start the machine that FILE describes. A console of type stdio is on this terminal: Ctrl-A x ends the machine,
Ctrl-A c changes to the next console, Ctrl-A h lists the rest. SIGINT presses the power button, a second one ends it; it
ends a machine that is paused at once.

  --accel LIST          accelerators to try instead of the file's, e.g. kvm,soft
  --directory DIR       where relative paths begin, if not where FILE is
  --set PATH=VALUE      change a value first, e.g. --set memory=1GiB (may be repeated)
  --locked              start only what the lock file beside FILE says (vmrun lock)
  --snapshot            leave the images as they are: what is written is gone with the machine
  --restore SAVED       go on with the machine that `vmrun save` wrote, as it was then
  --paused              do not run the processors yet
  --detach              in the background: come back when it runs; vmrun attach, logs, stop
  --screen              show the display's text screen here; the keyboard goes to the guest
  --with-parent         end with the process that started this one
  --gdb[=WHERE]         gdb can connect to port 1234 of this host, another port, HOST:PORT or unix:PATH
  --timeout SECONDS     end the machine after this time, with exit code 4
  --no-reboot           end instead of resetting
  --pass-exit-code      a guest that ends through isa-debug-exit decides the exit code
  --verbose             say more: why an accelerator was refused
  --quiet               no words of vmrun's own before the guest's

Exit codes: 0 fine, 2 usage, 3 the host or the build, 4 the guest failed or timed out, 5 KVM gave up on the guest.
"""


class Options:
    def __init__(self) -> None:
        self.file = ""
        self.accel: list[str] | None = None
        self.sets: list[str] = []
        self.timeout: float | None = None
        self.restore = self.directory = ""
        self.locked = self.snapshot = False
        self.paused = self.screen = self.no_reboot = self.pass_exit_code = self.quiet = self.verbose = False
        self.detach = self.with_parent = False


FLAGS = {
    "--locked": "locked",
    "--snapshot": "snapshot",
    "--paused": "paused",
    "--detach": "detach",
    "--screen": "screen",
    "--with-parent": "with_parent",
    "--no-reboot": "no_reboot",
    "--pass-exit-code": "pass_exit_code",
    "--quiet": "quiet",
    "--verbose": "verbose",
    "-v": "verbose",
}


def parse(argv: list[str]) -> Options | int | None:
    """Options; None after --help; an exit code after an error that was told."""
    options = Options()
    files: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word in ("-h", "--help"):
            sys.stdout.write(USAGE)
            return None
        if name == "--gdb":
            options.sets.append(f"gdb={value or 'true'}")
        elif word in FLAGS:
            setattr(options, FLAGS[word], True)
        elif name in ("--accel", "--directory", "--set", "--timeout", "--restore"):
            if not equals:
                if not rest:
                    return _wrong(f"{name} needs a value")
                value = rest.pop(0)
            problem = _take(options, name, value)
            if problem:
                return _wrong(problem)
        elif word == "--":
            files += rest
            break
        elif word.startswith("-") and word != "-":
            return _wrong(f"there is no option {word}")
        else:
            files.append(word)
    if options.detach and options.screen:
        return _wrong("--detach leaves this terminal, --screen needs it")
    if options.detach and options.with_parent:
        return _wrong("--detach leaves the process that started it, --with-parent ends with it")
    if options.restore:
        if files or options.sets or options.locked or options.directory:
            words = "no machine file, no --set, no --locked, no --directory"
            return _wrong(f"--restore takes the machine from its file: {words}")
        return options
    if len(files) != 1:
        return _wrong(
            "give one machine file" if not files else f"one machine file at a time, not {len(files)}"
        )
    options.file = files[0]
    return options


def _take(options: Options, name: str, value: str) -> str:
    if name == "--accel":
        options.accel = list(dict.fromkeys(part for part in value.split(",") if part))
        return "" if options.accel else "--accel needs a name"
    if name == "--set":
        options.sets.append(value)
        return ""
    if name == "--directory":
        options.directory = value
        return "" if os.path.isdir(value) else f"--directory: there is no directory '{value}'"
    if name == "--restore":
        options.restore = value
        return "" if value else "--restore needs a file"
    try:
        options.timeout = float(value)
    except ValueError:
        return f"--timeout takes seconds, not '{value}'"
    return "" if 0 < options.timeout < 1e9 else "--timeout takes a positive number of seconds"


def _wrong(message: str) -> int:
    sys.stderr.write(f"vmrun up: {message}\n`vmrun up --help` lists the options\n")
    return 2
