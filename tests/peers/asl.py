"""AML through iasl: tables apart, disassembled, and their source read as a name space and as methods."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

IASL = shutil.which("iasl")
needs_iasl = pytest.mark.skipif(IASL is None, reason="iasl is not installed")


def split(data: bytes) -> dict[str, bytes]:
    """Tables by signature from the file of tables, as far as it goes."""
    found, offset = {}, 0
    while offset + 8 <= len(data) and data[offset]:
        (size,) = struct.unpack_from("<I", data, offset + 4)
        found[data[offset : offset + 4].decode()] = data[offset : offset + size]
        offset += size
    return found


def with_checksum(table: bytes) -> bytes:
    total = bytearray(table)
    total[9] = 0
    total[9] = -sum(total) & 0xFF
    return bytes(total)


def disassemble(table: bytes, directory: Path, name: str) -> str:
    path = directory / f"{name}.aml"
    path.write_bytes(with_checksum(table))
    done = subprocess.run([IASL or "iasl", "-d", path], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout
    return (directory / f"{name}.dsl").read_text()


def recompile(directory: Path, name: str) -> list[str]:
    """What iasl says of the source that `disassemble` left, line by line."""
    command = [IASL or "iasl", "-p", directory / f"{name}.again", directory / f"{name}.dsl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return (done.stdout + done.stderr).splitlines()


class Source:
    """names: path → declaration of every device, processor, field list and method, and the whole value of every name.
    methods: path → code.
    """

    def __init__(self, text: str) -> None:
        self.names: dict[str, str] = {}
        self.methods: dict[str, str] = {}
        self._lines = [re.sub(r"/\*.*?\*/|//.*", "", line).strip() for line in text.splitlines()]
        self._at = next(n for n, line in enumerate(self._lines) if line.startswith("DefinitionBlock")) + 1
        self._stack: list[str] = []
        self._read()

    def _read(self) -> None:
        pending = "?"
        while self._at < len(self._lines):
            line = self._lines[self._at]
            opened = re.match(r"(Scope|Device|Processor|Method|Field) \(([^,)]+)(.*)\)", line)
            self._at += 1
            if line == "{":
                self._stack.append(pending)
                pending = "?"
            elif line.startswith("}"):
                self._stack.pop()
            elif opened:
                kind, what, rest = opened.groups()
                if kind in ("Device", "Processor", "Method"):
                    self.names[self._place(what)] = f"{kind}{rest}"
                if kind == "Method":
                    self.methods[self._place(what)] = self._block()
                elif kind == "Field":
                    self.names[f"{self._place(what)} fields {rest}"] = self._block()
                else:
                    pending = what
            elif line.startswith(("Name (", "OperationRegion (", "Mutex (")):
                what = line.split("(")[1].split(",")[0].rstrip(")")
                self.names[self._place(what)] = self._value(line)

    def _block(self) -> str:
        """The lines between this brace and the one that closes it."""
        depth, found = 0, []
        while True:
            line = self._lines[self._at]
            self._at += 1
            depth += line.count("{") - line.count("}")
            if depth == 0:
                return " ".join(found[1:])
            found.append(line)

    def _value(self, line: str) -> str:
        value = line
        while value.count("(") + value.count("{") > value.count(")") + value.count("}"):
            value += " " + self._lines[self._at]
            self._at += 1
        return re.sub(r"\s+", " ", value)

    def _place(self, what: str) -> str:
        path = ""
        for step in [*[step for step in self._stack if step not in ("", "?")], what]:
            path = step.lstrip("\\") if step.startswith("\\") else f"{path}.{step}".lstrip(".")
        return path
