"""vmrun import: a machine file from a QEMU command line or a libvirt domain."""

from __future__ import annotations

import os
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.errors import Problem

_LONGEST = 1 << 20  # letters


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser("vmrun import", description="A machine file from somebody else's description.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="qemu|libvirt")
    qemu = kinds.add_parser("qemu", help="a QEMU command line", description="`vmrun import qemu -- ARGS`")
    source = qemu.add_mutually_exclusive_group()
    source.add_argument("--file", metavar="F", help="find it in a file: a script, a log, a page, or options alone")
    source.add_argument("--pid", type=int, metavar="N", help="read that of a running process")
    help = "with --file: what a variable of the text holds; may be given more than once"
    qemu.add_argument("--define", action="append", default=[], metavar="NAME=VALUE", help=help)
    help = "with --file: which of several commands, from 1; -1 is the last"
    qemu.add_argument("--command", type=int, default=0, metavar="N", help=help)
    qemu.add_argument("--defaults", action="store_true", help="with the devices that QEMU adds by itself")
    qemu.add_argument("args", nargs="*", metavar="ARG", help="the command line, after --")
    domain = kinds.add_parser("libvirt", help="a libvirt domain", description="A machine file of a domain's XML.")
    domain.add_argument("file", metavar="FILE.xml", help="the domain's XML, or a log, a page, a script that has it")
    domain.add_argument("--domain", metavar="NAME|N", help="which of several: its name, or its place from 1")
    for each in (qemu, domain):
        each.add_argument("-o", "--output", metavar="FILE", help="write there (-: to the terminal, the default)")
    at = argv.index("--") if "--" in argv else len(argv)
    args = parser.parse_args(argv[:at])
    for define in getattr(args, "define", ()):
        if not re.fullmatch(r"[A-Za-z_]\w*=.*", define, re.S):
            parser.error(f"--define {define}: NAME=VALUE is expected")
    if args.kind == "libvirt":
        from vmrun.config.importers.libvirt import import_domain

        document, warnings = import_domain(_domain(args), args.file)
        return _give(args, document, warnings, f"imported from {args.file}")
    if args.file or args.pid is not None:
        words = _words(args)
    else:
        words = [*args.args, *argv[at + 1 :]]
        if not words:
            parser.error("give a command line after --, or --file, or --pid")
        from vmrun.config.importers.texts import program_words

        words = program_words(words)
    return _import_qemu(args, words)


def _import_qemu(args: Any, words: list[str]) -> int:
    from vmrun.cli.out import write
    from vmrun.config.importers.line import parse_command_line
    from vmrun.config.importers.qemuopts import LineError

    try:
        parsed = parse_command_line(words, args.defaults)
    except LineError as error:
        near = error.problems[0].nearest
        write(error.said + (f" (did you mean '-{near}'?)" if near else "") + "\n", sys.stderr)
        if error.caret:
            write(error.caret + "\n", sys.stderr)
        return 1
    if args.pid is not None:
        from vmrun.config.importers.words import anchor

        try:
            anchor(parsed.document, os.readlink(f"/proc/{args.pid}/cwd"))
        except OSError:
            write(f"vmrun: the directory of process {args.pid} is not known; its relative paths stay\n", sys.stderr)
    for what in parsed.skipped:
        write(f"vmrun: left out: {what}, which QEMU adds by itself; `--defaults` keeps it\n", sys.stderr)
    for key, (option, instead) in _OF_A_RUN.items():
        if key in parsed.run:
            write(f"vmrun: left out: {option}, which is of one run and not of the machine; {instead}\n", sys.stderr)
    return _give(args, parsed.machine(), (*parsed.warnings, *parsed.unsaid()), "imported from a QEMU command line")


_OF_A_RUN = {
    "daemonize": ("-daemonize", "`vmrun up --detach`"),
    "preconfig": ("-preconfig", "vmrun-qemu has it"),
    "pidfile": ("-pidfile", "`vmrun ps --json` tells it"),
    "incoming": ("-incoming", "`vmrun up --restore FILE`"),
    "loadvm": ("-loadvm", "QMP's snapshot-load"),
    "sandbox": ("-sandbox", "vmrun-qemu has it"),
    "qtest": ("-qtest", "vmrun-qemu has it"),
    "D": ("-D", "vmrun-qemu has it"),
    "log": ("-d", "vmrun-qemu has it"),
    "mem-lock": ("-overcommit mem-lock", "vmrun-qemu has it"),
}


def _give(args: Any, document: dict[str, Any], warnings: Any, heading: str) -> int:
    from vmrun.cli.out import print_problems, write
    from vmrun.config.write import file_text
    from vmrun.errors import BackendError

    print_problems(warnings)
    text = file_text(document, heading)
    wrong = _faults(text)
    if args.output in (None, "", "-"):
        write(text)
        return _judged(wrong, "result")
    try:
        with open(args.output, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BackendError(f"'{args.output}' cannot be written: {error.strerror}", code="VR0921") from None
    return _judged(wrong, args.output)


def _faults(text: str) -> list[Problem]:
    """What keeps the result from being a machine at all; what is only not modelled yet does not."""
    from vmrun.config.api import TO_COME, validate
    from vmrun.errors import ERROR

    return [
        problem for problem in validate(text) if problem.severity == ERROR and not problem.code.startswith(TO_COME)
    ]


def _judged(wrong: list[Problem], name: str) -> int:
    """What was asked for is done, be it a machine or not."""
    from vmrun.cli.out import print_problems, write

    if wrong:
        write("vmrun: the result does not validate:\n", sys.stderr)
        for problem in wrong:
            if problem.place is not None and problem.place.file.startswith("<text>"):
                problem.place.file = name
        print_problems(wrong)
    return 0


def _words(args: Any) -> list[str]:
    """The words of --file or --pid."""
    from vmrun.config.importers.qemuopts import LineError
    from vmrun.config.importers.texts import program_words

    if args.file:
        return _found(args)
    if not os.path.exists(f"/proc/{args.pid}"):
        raise LineError(f"there is no process {args.pid}")
    data = _read(f"/proc/{args.pid}/cmdline")
    words = data.decode("utf-8", "surrogateescape").split("\0")[:-1]
    if not words:
        raise LineError(f"process {args.pid} has no arguments")
    found = program_words(words)
    return found if len(found) < len(words) else words[1:]


def _found(args: Any) -> list[str]:
    """The words of the command that stands in --file."""
    from vmrun.cli.out import write
    from vmrun.config.importers.cleaning import clean, decode
    from vmrun.config.importers.texts import Foreign, commands, program_words
    from vmrun.config.importers.words import OpenQuote, Tangled
    from vmrun.errors import ConfigError, Place, Problem

    def wrong(*faults: tuple[int, str]) -> ConfigError:
        places = [Place(name, line, 1 if line else 0) for line, _ in faults]
        return ConfigError(
            problems=[Problem("VR0120", text, place) for (_, text), place in zip(faults, places, strict=True)]
        )

    name = "standard input" if args.file == "-" else args.file
    data = _read(args.file)
    if b"\0" in data and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):  # as /proc has it
        return program_words([word.decode("utf-8", "surrogateescape") for word in data.rstrip(b"\0").split(b"\0")])
    text = clean(decode(data))
    if len(text) > _LONGEST:
        raise wrong((0, f"more than {_LONGEST >> 20} MiB of text"))
    defines = dict(define.split("=", 1) for define in args.define if "=" in define)
    try:
        found = commands(text, defines)
    except OpenQuote as error:
        raise wrong((error.line, str(error))) from None
    except Tangled as error:
        raise wrong((0, str(error))) from None
    except Foreign as error:
        program, line = error.args
        raise wrong((line, f"{program} is a QEMU for another processor; vmrun has PCs")) from None
    if not found:
        raise wrong((0, f"no QEMU command found in {name}"))
    if len(found) > 1 and not args.command:
        rows = [f"  {n}. line {each.line}: {each.shown()}" for n, each in enumerate(found, 1)]
        remedy = f"say which with --command 1 … --command {len(found)}"
        raise wrong((found[0].line, f"{len(found)} QEMU commands in {name}: {remedy}\n" + "\n".join(rows)))
    place = args.command - 1 if args.command > 0 else len(found) + args.command if args.command else 0
    if not 0 <= place < len(found):
        raise wrong((0, f"--command {args.command}: {name} has {len(found)} QEMU command{'s' * (len(found) > 1)}"))
    command = found[place]
    gaps = command.gaps()
    if gaps:
        raise wrong(*((gap.line or command.line, gap.message()) for gap in gaps))
    for note in command.notes:
        write(f"vmrun: {name}:{command.line}: {note}\n", sys.stderr)
    return command.argv()


def _domain(args: Any) -> bytes:
    """The XML of the domain that is meant."""
    from vmrun.config.importers.domains import domains
    from vmrun.errors import ConfigError, Place, Problem

    found = domains(_read(args.file))
    wanted = args.domain
    if wanted is None and len(found) == 1:
        return found[0].data
    for place, each in enumerate(found, 1):
        if wanted is not None and wanted in (each.name, str(place)):
            return each.data
    rows = "".join(f"\n  {n}. line {each.line}: {each.name or 'without a name'}" for n, each in enumerate(found, 1))
    if wanted is None:
        text = f"{len(found)} domains in {args.file}: say which with --domain NAME, or 1 … {len(found)}{rows}"
    else:
        text = f"--domain {wanted}: there is none of that name or place in {args.file}{rows}"
    raise ConfigError(problems=[Problem("VR0122", text, Place(args.file, found[0].line, 1))])


def _read(path: str) -> bytes:
    from vmrun.config.load import read_bytes

    return read_bytes("/dev/stdin" if path == "-" else path, path, pipes=True)
