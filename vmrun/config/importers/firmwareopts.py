"""Options about firmware and what it is given: images, boot order, SMBIOS and ACPI tables, fw_cfg files, a kernel."""

from __future__ import annotations

from vmrun.config.importers.qemuopts import Option, boolean, number, only, settings, split
from vmrun.config.importers.state import Line, Opt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LONGEST_FILE_NAME = 55  # bytes, of a file of fw_cfg's


def boot(line: Line, option: Option) -> None:
    given = settings(option, "order")
    only(option, given, ("order", "once", "menu", "strict", "reboot-timeout", "splash", "splash-time"))
    table = line.file.setdefault("boot", {})
    for key, value in given.items():
        if key in ("menu", "strict"):
            table[key] = boolean(option, key, value)
        elif key in ("reboot-timeout", "splash-time"):
            table[key] = number(option, key, value)
            if not -1 <= table[key] <= 0xFFFF or key == "splash-time" and table[key] < 0:
                raise option.wrong(f"{key} is invalid, it should be a value between 0 and 65535", key)
        elif key in ("order", "once"):
            for letter in value:
                if letter not in "abcdefghijklmnop":
                    raise option.wrong(f"Invalid boot device '{letter}'", value)
            if len(set(value)) != len(value):
                raise option.wrong(f"Boot device '{value}' was given twice", value)
            table[key] = value
        else:
            line.no_equal(option, key)


def smbios(line: Line, option: Option) -> None:
    given = settings(option)
    if "file" in given:
        only(option, given, ("file",))
        line.file.setdefault("smbios", {}).setdefault("files", []).append(given["file"])
        return
    kind = f"type{given.pop('type', '')}"
    known = _smbios_fields().get(kind)
    if kind[4:].isdecimal() and int(kind[4:]) not in (0, 1, 2, 3, 4, 8, 11, 17, 41):
        raise option.wrong(f"Don't know how to build fields for SMBIOS type {kind[4:]}", kind[4:])
    if known is None:
        line.no_equal(option)
        return
    table = line.file.setdefault("smbios", {}).setdefault(kind, {})
    if kind == "type11":
        only(option, given, ("value",))
        texts = [part.removeprefix("value=") for part in split(option.value or "") if part.startswith("value=")]
        table.setdefault("values", []).extend(texts)
        return
    if kind in _SMBIOS_LISTS:
        known = known[_SMBIOS_LISTS[kind]]["items"]["properties"]
        row: dict[str, Any] = {}
        table.setdefault(_SMBIOS_LISTS[kind], []).append(row)
        table = row
    only(option, given, known)
    readers = {"boolean": boolean, "integer": number}
    for key, value in given.items():
        read = readers.get(known[key].get("type"))
        if value not in known[key].get("enum", (value,)):
            raise option.wrong(f"invalid parameter value: {value}", value)
        table[key] = read(option, key, value) if read is not None else str(value)


_SMBIOS_LISTS = {"type8": "ports", "type41": "devices"}  # of each there are several


def _smbios_fields() -> dict[str, dict[str, Any]]:
    """type0, type1 … → the fields of that structure as a machine file has them, which have QEMU's names."""
    from vmrun.config.check import load_schema

    schema = load_schema("machine")
    rows = schema["properties"]["smbios"]["properties"]
    kinds = {kind: row["$ref"].rpartition("/")[2] for kind, row in rows.items() if "$ref" in row}
    return {kind: schema["$defs"][name]["properties"] for kind, name in kinds.items()}


def acpi_table(line: Line, option: Option) -> None:
    given = settings(option)
    only(option, given, ("file", "data", *(name for name in ACPI_FIELDS)))
    if ("file" in given) == ("data" in given):
        raise option.wrong("'-acpitable' requires one of 'data' or 'file'")
    row: dict[str, Any] = {}
    for key, value in given.items():
        if key in ("file", "data"):
            row[key] = str(value).split(":")
        else:
            most = ACPI_FIELDS[key]
            row[key] = number(option, key, value) if most is None else str(value)[:most]
    line.file.setdefault("firmware", {}).setdefault("acpi-tables", []).append(row)


# what -acpitable says of a header: how many characters, or None of a number
ACPI_FIELDS = {
    **{"sig": 4, "rev": None, "oem_id": 6, "oem_table_id": 8, "oem_rev": None},
    **{"asl_compiler_id": 4, "asl_compiler_rev": None},
}


def bios(line: Line, option: Option) -> None:
    line.file.setdefault("firmware", {})["bios"] = option.value


def data_dir(line: Line, option: Option) -> None:
    line.file.setdefault("firmware", {}).setdefault("dirs", []).append(option.value)


def option_rom(line: Line, option: Option) -> None:
    given = settings(option, "romfile")
    only(option, given, ("romfile", "bootindex"))
    if not given.get("romfile"):
        raise option.wrong("Option ROM file is not specified")
    rom: dict[str, Any] = {"file": given["romfile"]}
    if "bootindex" in given:
        rom["bootindex"] = number(option, "bootindex", given["bootindex"])
    line.file.setdefault("firmware", {}).setdefault("roms", []).append(rom)


def fw_cfg(line: Line, option: Option) -> None:
    given = settings(option, "name")
    only(option, given, ("name", "file", "string", "gen_id"))
    name = str(given.get("name") or "")
    if "gen_id" in given:
        raise option.wrong("vmrun has no object that makes fw_cfg data", "gen_id")
    if not name or ("file" in given) == ("string" in given):
        raise option.wrong("name, plus exactly one of file, string and gen_id, are needed")
    if len(name) > LONGEST_FILE_NAME:
        raise option.wrong(f"name too long (max. {LONGEST_FILE_NAME} char)")
    if not name.startswith("opt/"):
        line.warn(option, 'externally provided fw_cfg item names should be prefixed with "opt/"')
    files = line.file.setdefault("firmware", {}).setdefault("files", {})
    if name in files:
        raise option.wrong(f"duplicate fw_cfg file name: {name}", name)
    files[name] = {key: given[key] for key in ("file", "string") if key in given}


def kernel(line: Line, option: Option) -> None:
    line.file[{"append": "cmdline"}.get(option.name, option.name)] = option.value


def no_floppy_check(line: Line, option: Option) -> None:
    line.file.setdefault("boot", {})["floppy-check"] = False


def finish(line: Line) -> None:
    for key in ("initrd", "append"):
        if line.has(key) and not line.has("kernel"):
            raise line.given[key][-1].wrong(f"-{key} only allowed with -kernel option")


OPTIONS = (
    Opt("boot", True, boot, "boot order and menu: boot"),
    Opt("smbios", True, smbios, "SMBIOS fields: smbios"),
    Opt("acpitable", True, acpi_table, "an ACPI table of your own: firmware.acpi-tables"),
    Opt("no-fd-bootchk", False, no_floppy_check, "boot floppies without a signature: boot.floppy-check"),
    Opt("bios", True, bios, "firmware image: firmware.bios"),
    Opt("L", True, data_dir, "directory of firmware: firmware.dirs"),
    Opt("option-rom", True, option_rom, "an option ROM of your own: firmware.roms"),
    Opt("fw_cfg", True, fw_cfg, "a fw_cfg file of your own: firmware.files"),
    Opt("kernel", True, kernel, "kernel"),
    Opt("initrd", True, kernel, "initrd"),
    Opt("append", True, kernel, "kernel's command line: cmdline"),
)
