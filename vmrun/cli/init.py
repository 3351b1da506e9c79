"""vmrun init: a commented machine file to start from."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.machinetypes import TypeSpec


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        "vmrun init", description="Write a commented machine file to start from."
    )
    parser.add_argument("type", metavar="TYPE", help="machine type (`vmrun types` lists them)")
    parser.add_argument(
        "-o", "--output", default="machine.yaml", metavar="FILE", help="file to write; - for stdout"
    )
    parser.add_argument("-f", "--force", action="store_true", help="write over a file that exists")
    args = parser.parse_args(argv)

    from vmrun.cli.out import write
    from vmrun.config.machinetypes import load_type

    text = starter(load_type(args.type))
    if args.output == "-":
        write(text)
        return 0
    _write(args.output, text, args.force)
    _write_schema(args.output)
    write(f"{args.output} written; `vmrun validate {args.output}`, then `vmrun up {args.output}`\n")
    return 0


SCHEMA = "machine.schema.json"


def _write_schema(path: str) -> None:
    """What the file's first line names lies beside it, so that it is found wherever both are copied to."""
    import json
    import os

    from vmrun.config.editors import editor_schema

    directory = os.path.dirname(path) or "."
    text = json.dumps(editor_schema("machine", directory), separators=(",", ":"), ensure_ascii=False) + "\n"
    _write(os.path.join(directory, SCHEMA), text, True)


def starter(spec: TypeSpec) -> str:
    """The text of a starter file for a type: what runs at once, and the rest in comments."""
    from vmrun.config.catalogue import load_catalogue

    catalogue = load_catalogue()
    displays = spec.displays()
    default = str(spec.default("display"))
    modelled = [name for name, driver in displays.items() if catalogue.modelled(driver) is not None]
    display = default if default in modelled else (modelled or ["none"])[0]
    note = "" if display == default else f"   # the type's default is {default}, which is not modelled yet"
    accel = spec.default("accel") or ["kvm", "soft"]
    return _TEXT.format(
        schema=SCHEMA,
        type=spec.name,
        description=spec.text("description"),
        accel=", ".join(accel),
        memory="512MiB",
        cpu=spec.default("cpu"),
        display=display,
        display_note=note,
        displays=", ".join(["default", "none", *displays]),
        disk=spec.default("disk"),
        order=spec.default("boot-order"),
    )


_TEXT = """\
# yaml-language-server: $schema={schema}
# A machine of type {type}: {description}.
# `vmrun validate` checks this file, `vmrun resolve` shows what becomes of it, `vmrun up` starts it.
schema: vmrun/machine/1
machine: {type}

accel: [{accel}]                 # tried in order
memory: {memory}
cpus: {{count: 1}}                    # sockets, cores, threads, maxcpus; model: {cpu} by default

display: {display}{display_note}
                                    # one of: {displays}
serial: stdio                       # COM1 on this terminal; or pty, file:PATH, unix:PATH,server,nowait
# debugcon: {{chardev: "file:firmware.log", iobase: 0x402}}      # what the firmware says while it starts

# disks: [disk.img]                 # raw images: ide.0 unit 0, ide.0 unit 1, ide.1 unit 0, ide.1 unit 1
# boot: {{order: {order}, menu: false}}  # a, b floppy; c disk; d CD-ROM; n network

# kernel: bzImage                   # start Linux directly
# initrd: initrd.img
# cmdline: console=ttyS0

# rtc: {{base: utc, clock: host, driftfix: none}}

# The long form of the above, for everything else: `vmrun devices` lists drivers and their properties.
# drives:
#   disk0: {{file: disk.img, format: raw, cache: writeback}}
# chardevs:
#   com2: {{type: pty}}
# devices:
#   - {{id: hd0, driver: {disk}, bus: ide.0, unit: 0, drive: disk0, bootindex: 1}}
#   - {{id: serial1, driver: isa-serial, chardev: com2}}
"""


def _write(path: str, text: str, force: bool) -> None:
    from vmrun.errors import BackendError, ConfigError

    try:
        with open(path, "w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(
            f"'{path}' exists", code="VR0110", remedy="--force writes over it, -o names another"
        ) from None
    except OSError as error:
        raise BackendError(f"cannot write '{path}': {error.strerror}", code="VR0921") from None
