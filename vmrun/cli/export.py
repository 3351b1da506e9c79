"""vmrun export: a machine as a QEMU command line or as a libvirt domain."""

from __future__ import annotations


def run(argv: list[str]) -> int:
    import argparse
    import os

    parser = argparse.ArgumentParser("vmrun export", description="A machine in another program's words.")
    parser.add_argument("kind", choices=("qemu", "libvirt"))
    parser.add_argument("file", metavar="MACHINE", help="machine file")
    args = parser.parse_args(argv)

    from vmrun.cli.out import print_problems, write
    from vmrun.config.check import check_schema
    from vmrun.config.importers.export import command_line, long_form
    from vmrun.config.importers.qemuopts import PROGRAM
    from vmrun.config.load import load_file
    from vmrun.config.resolve import refuse_type
    from vmrun.errors import WARNING, ConfigError, Problem

    problems: list[Problem] = []
    loaded = load_file(args.file, problems)
    refuse_type(loaded, args.file)
    root = check_schema(loaded, "machine", problems)
    if problems:
        raise ConfigError(problems=problems)
    directory = os.path.dirname(os.path.abspath(args.file))
    document, _ = long_form(root, directory)
    words, lost = command_line(document, directory)
    for id, drive in document.get("drives", {}).items():
        if "serial" in drive and not document["machine"].startswith("rhel6"):
            text = f"drive '{id}' has a serial number, which QEMU takes at the device since version 3.0"
            remedy = "give `serial` to the device instead of the drive"
            lost.append(Problem("VR0121", text, path=f"drives.{id}.serial", remedy=remedy, severity=WARNING))
    print_problems(lost)
    if args.kind == "libvirt":
        from vmrun.config.importers.libvirt import export_domain

        write(export_domain(document, words))
    else:
        import shlex

        write(f"{PROGRAM} {shlex.join(words)}\n")
    return 0
