"""Non-volatile modules in the tables: the SSDT whose methods ask the ports at 0xa18, and the NFIT.

A question goes through one page of memory: NCAL writes it there, gives the chip the page's address, and returns what
stands there then. Names and ids are QEMU's. Ref: QEMU docs/specs/acpi_nvdimm; ACPI specification 6.4, 6.5.9 (_FIT),
6.5.10 (label storage), 9.20; NVDIMM DSM interface 1.3, of Intel.
"""

from __future__ import annotations

from vmrun.firmware import aml, parts
from vmrun.firmware.aml import (
    ARG0,
    ARG1,
    ARG2,
    ARG3,
    ARG4,
    LOCAL0,
    LOCAL1,
    LOCAL2,
    LOCAL3,
    LOCAL4,
    LOCAL6,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.sections import MachineData
    from vmrun.firmware.aml import Term

PAGE = parts.NVDIMM_PAGE
PORT = 0xA18
OEM_TABLE_ID = b"NVDIMM\0\0"
ROOT_UUID = "2f10e7a4-9e91-11e4-89d3-123b93f75cba"
TABLE_UUID = "648b9cf2-cda1-4312-8ad9-49c4af32bd62"
MODULE_UUID = "4309ac30-0d11-11e4-9191-0800200c9a66"
TABLE_HANDLE = 0x10000
READ_TABLE, LABEL_SIZE, READ_LABEL, WRITE_LABEL = 1, 4, 5, 6
TABLE_CHANGED = 0x100
CAME = 0x80  # value of Notify


def table(structures: bytes) -> bytes:
    """The NFIT's body, of the chip's structures."""
    return bytes(4) + structures


def ssdt(machine: MachineData) -> tuple[bytes, int] | None:
    """The body, and where in it the firmware writes the page's address; None without such modules."""
    if not parts.has_nvdimms(machine):
        return None
    root = aml.device(
        "NVDR",
        aml.name("_HID", aml.text("ACPI0012")),
        _ask(),
        _specific(0),
        aml.name("RSTA", 0),
        _read_table(),
        _whole_table(),
        *(_module(number) for number in range(parts.memory_slots(machine))),
    )
    # a name whose value is always a dword: the firmware writes to it
    address = b"\x08" + aml.path("MEMA") + b"\x0c" + bytes(4)
    body = aml.scope("\\_SB", root) + address
    return body, len(body) - 4


def event() -> bytes:
    """In \\_GPE of the DSDT: the guest looks at the modules again."""
    return aml.method("_E04", 0, aml.notify("\\_SB.NVDR", CAME))


def _ask() -> bytes:
    """NCAL(uuid, revision, function, arguments, handle): the answer, without its length."""
    uuid = (
        aml.store(aml.uuid(MODULE_UUID), LOCAL0),
        aml.when(aml.equal(ARG4, 0), aml.store(aml.uuid(ROOT_UUID), LOCAL0)),
        aml.when(aml.equal(ARG4, TABLE_HANDLE), aml.store(aml.uuid(TABLE_UUID), LOCAL0)),
    )
    unknown = aml.either(aml.equal(LOCAL6, 0), aml.invert(aml.equal(ARG0, LOCAL0)))
    one_argument = aml.both(aml.equal(aml.type_of(ARG3), aml.PACKAGE), aml.equal(aml.size_of(ARG3), 1))
    return aml.method(
        "NCAL",
        5,
        aml.store("MEMA", LOCAL6),
        aml.region("NPIO", aml.SYSTEM_IO, PORT, 4),
        aml.region("NRAM", aml.SYSTEM_MEMORY, LOCAL6, PAGE),
        aml.field("NPIO", aml.DWORD_ACCESS, ("NTFI", 32)),
        aml.field("NRAM", aml.DWORD_ACCESS, ("HDLE", 32), ("REVS", 32), ("FUNC", 32), ("FARG", 8 * (PAGE - 12))),
        aml.field("NRAM", aml.DWORD_ACCESS, ("RLEN", 32), ("ODAT", 8 * (PAGE - 4))),
        *uuid,
        aml.when(
            unknown,
            aml.when(aml.equal(ARG2, 0), aml.give(aml.buffer(b"\0"))),  # no functions
            aml.give(aml.buffer(b"\1")),  # not supported
        ),
        aml.store(ARG4, "HDLE"),
        aml.store(ARG1, "REVS"),
        aml.store(ARG2, "FUNC"),
        aml.when(one_argument, aml.store(aml.value_at(ARG3, 0), LOCAL1), aml.store(LOCAL1, "FARG")),
        aml.store(LOCAL6, "NTFI"),
        aml.shift_left(aml.subtract("RLEN", 4), 3, LOCAL1),
        aml.bit_field("OBUF", "ODAT", 0, LOCAL1),
        aml.to_buffer("OBUF", LOCAL2),  # of a few bits the field is a number
        aml.give(LOCAL2),
        serialized=True,
    )


def _specific(handle: int) -> bytes:
    return aml.method("_DSM", 4, aml.give(aml.call("NCAL", ARG0, ARG1, ARG2, ARG3, handle)))


def _read_table() -> bytes:
    """RFIT(offset): a piece of the NFIT from there, its status in RSTA; nothing behind its end, or when it changed."""
    question: tuple[Term, ...] = (aml.uuid(TABLE_UUID), 1, READ_TABLE, LOCAL2, TABLE_HANDLE)
    nothing = aml.give(aml.buffer(b""))
    return aml.method(
        "RFIT",
        1,
        aml.store(aml.package(count=1), LOCAL2),
        aml.store(ARG0, aml.element(LOCAL2, 0)),
        aml.store(aml.call("NCAL", *question), LOCAL0),
        aml.dword_field("STAU", LOCAL0, 0),
        aml.store("STAU", "RSTA"),
        aml.when(aml.invert(aml.equal("RSTA", 0)), nothing),
        aml.subtract(aml.size_of(LOCAL0), 4, LOCAL1),
        aml.when(aml.equal(LOCAL1, 0), nothing),
        aml.bit_field("BUFF", LOCAL0, 32, aml.shift_left(LOCAL1, 3)),
        aml.to_buffer("BUFF", LOCAL3),
        aml.give(LOCAL3),
        serialized=True,
    )


def _whole_table() -> bytes:
    """_FIT: piece after piece, from the start again when a module came meanwhile."""
    begin = (aml.store(aml.buffer(b""), LOCAL2), aml.store(0, LOCAL3))
    piece = (
        aml.store(aml.call("RFIT", LOCAL3), LOCAL0),
        aml.store(aml.size_of(LOCAL0), LOCAL1),
        aml.when(aml.equal("RSTA", TABLE_CHANGED), *begin),
        aml.otherwise(
            aml.when(aml.equal(LOCAL1, 0), aml.give(LOCAL2)),
            aml.add(LOCAL3, LOCAL1, LOCAL3),
            aml.concatenate(LOCAL2, LOCAL0, LOCAL2),
        ),
    )
    return aml.method("_FIT", 0, *begin, aml.loop(1, *piece), serialized=True)


def _module(number: int) -> bytes:
    """What the slot's module is asked: its label area's size, and pieces of that."""
    handle = number + 1

    def asked(function: int, arguments: Term) -> bytes:
        return aml.call("NCAL", aml.uuid(MODULE_UUID), 1, function, arguments, handle)

    def piece(*more: bytes) -> tuple[bytes, ...]:
        """INPT: offset and length, ARG0 and ARG1; in a package, LOCAL4."""
        return (
            aml.name("INPT", aml.buffer(bytes(8))),
            aml.dword_field("OFST", "INPT", 0),
            aml.dword_field("TLEN", "INPT", 4),
            aml.store(ARG0, "OFST"),
            aml.store(ARG1, "TLEN"),
            aml.store("INPT", LOCAL1),
            *more,
            aml.store(aml.package(count=1), LOCAL4),
            aml.store(LOCAL1, aml.element(LOCAL4, 0)),
        )

    def result(of: bytes, *values: Term) -> tuple[bytes, ...]:
        """A package of these, LOCAL2."""
        filled = (aml.store(value, aml.element(LOCAL2, n)) for n, value in enumerate(values))
        return (aml.store(aml.package(count=len(values)), LOCAL2), *filled, aml.give(of))

    return aml.device(
        f"NV{number:02X}",
        aml.name("_ADR", handle),
        aml.method(
            "_LSI",
            0,
            aml.store(asked(LABEL_SIZE, 0), LOCAL0),
            *(aml.dword_field(field, LOCAL0, 4 * n) for n, field in enumerate(("STTS", "SLSA", "MAXT"))),
            *result(LOCAL2, "STTS", "SLSA", "MAXT"),
            serialized=True,
        ),
        aml.method(
            "_LSR",
            2,
            *piece(),
            aml.store(asked(READ_LABEL, LOCAL4), LOCAL0),
            aml.dword_field("STTS", LOCAL0, 0),
            aml.bit_field("LDAT", LOCAL0, 32, aml.shift_left(ARG1, 3)),
            aml.to_buffer("LDAT", LOCAL3),
            *result(LOCAL2, "STTS", LOCAL3),
            serialized=True,
        ),
        aml.method(
            "_LSW",
            3,
            *piece(aml.concatenate(LOCAL1, ARG2, LOCAL1)),
            aml.store(asked(WRITE_LABEL, LOCAL4), LOCAL0),
            aml.dword_field("STTS", LOCAL0, 0),
            aml.give("STTS"),
            serialized=True,
        ),
        _specific(handle),
    )
