"""mypy over everything, compiled modules included: their stubs are made of their source, in a tree of its own.

build/typed/ is accel/ and vmrun/ by links, with a .pyi beside each compiled module. Types come from the source: C
numbers are int, extension types are themselves (and None where it says `or None`), what a function without a `return`
gives is None, other results are as annotated, or Any. A stub that somebody wrote by hand stays.

    python tools/stubs.py [mypy's options]
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
TREE = ROOT / "build" / "typed"
PACKAGES = ("accel", "vmrun")
NUMBERS = {
    "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "int", "long", "size_t", "Py_ssize_t", "off_t", "char",
}  # fmt: skip
TYPES = {
    "bint": "bool", "double": "float", "float": "float", "str": "str", "bytes": "bytes", "bytearray": "bytearray",
    "bool": "bool", "list": "list[Any]", "dict": "dict[Any, Any]", "tuple": "tuple[Any, ...]", "set": "set[Any]",
    "object": "Any",
}  # fmt: skip
NAME = re.compile(r"[A-Za-z_]\w*")
CLASS = re.compile(r"^(?:cdef |cpdef )?class (\w+)(?:\(([^)]*)\))?:")
FUNCTION = re.compile(
    r"^( *)(?:def|cpdef(?: [\w.*]+)?) (\w+)\((.*)\)(?: *-> *([^:]*?))?(?: except.*| noexcept.*)?:(.*)$"
)
ATTRIBUTE = re.compile(r"^ +cdef (readonly|public) (.+)$")
ASSIGNED = re.compile(r"^( *)([A-Za-z]\w*(?:, *[A-Za-z]\w*)*) *= *(.+)$")
RESULTS = {
    "__len__": "int", "__repr__": "str", "__str__": "str", "__bytes__": "bytes", "__bool__": "bool", "__exit__": "None",
    "__contains__": "bool", "__hash__": "int", "__eq__": "bool", "__lt__": "bool", "fileno": "int",
}  # fmt: skip


def lines_of(path: pathlib.Path) -> list[str]:
    """Without comments and texts of several lines, each statement that is in brackets on one line."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    text = re.sub(r'("""|\'\'\')(?:.|\n)*?\1', '""', text)
    found, open_brackets = [], 0
    for raw in text.split("\n"):
        line = re.sub(r"(?:^|\s)#.*$", "", raw).rstrip()
        if open_brackets > 0:
            found[-1] += " " + line.strip()
        else:
            found.append(line)
        plain = re.sub(r"(['\"])(?:\\.|(?!\1).)*\1", "", line)
        open_brackets = max(0, open_brackets + sum(map(plain.count, "([{")) - sum(map(plain.count, ")]}")))
    return found


def split(text: str) -> list[str]:
    """At the commas that are in no brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += c
    return [part.strip() for part in parts if part.strip()]


class Module:
    def __init__(self, source: pathlib.Path) -> None:
        self.source = source
        self.name = source.relative_to(ROOT).as_posix().removesuffix(".pyx").replace("/", ".")
        self.code = lines_of(source)
        self.declared = lines_of(source.with_suffix(".pxd"))
        self.classes: set[str] = set()
        self.known: dict[str, str] = {}  # class → module it comes from
        for line in [*self.declared, *self.code]:
            if match := CLASS.match(line):
                self.classes.add(match[1])
            elif match := re.match(r"^from ([\w.]+) (?:cimport|import) \(?(.*?)\)?$", line):
                for item in split(match[2]):
                    original, _, alias = item.partition(" as ")
                    self.known[alias or original] = match[1]
        self.used: set[str] = set()

    # --- types ----------------------------------------------------------------------------------------------

    def type_of(self, text: str) -> str:
        """Of a C declaration without its name."""
        words = [word for word in text.split() if word not in ("const", "unsigned", "signed", "public", "readonly")]
        if "*" in text or "[" in text:
            return ""
        word = words[-1] if words else "int"
        if word in NUMBERS:
            return "int"
        if word in TYPES:
            return TYPES[word]
        if word in self.classes:
            return word
        if self.known.get(word, "").startswith(("accel", "vmrun")) and word[0].isupper():
            self.used.add(word)
            return word
        return "Any"

    def annotation(self, text: str) -> str:
        """Of a result, as the source has it; what it names has to be known."""
        for word in NAME.findall(text):
            if word in self.known and self.known[word].startswith(("accel", "vmrun")):
                self.used.add(word)
            elif word not in self.classes and word not in ("None", "Any", "int", "bool", *TYPES):
                return "Any"
        return text.strip()

    def parameter(self, text: str) -> str | None:
        declared, _, default = text.partition("=")
        optional = " or None" in declared
        declared = declared.replace(" or None", "").replace(" not None", "").strip()
        if declared in ("self", "cls", "*", "/"):
            return declared
        if declared.startswith("*"):
            return f"{declared.split(':')[0]}: Any"
        if re.match(r"[\w ]+\[[:, 1]*\]", declared):
            name, kind = NAME.findall(declared)[-1], "Any"  # a view of memory: whatever has a buffer
        elif ":" in declared:  # annotated as Python is
            name, kind = declared.split(":", 1)[0].strip(), "Any"
        else:
            name = NAME.findall(declared)[-1]
            kind = self.type_of(declared[: declared.rindex(name)]) if declared != name else "Any"
        if kind == "":
            return None
        if (default.strip() == "None" or optional) and kind != "Any":
            kind += " | None"
        return f"{name}: {kind} = ..." if default else f"{name}: {kind}"

    def function(self, at: int, match: re.Match[str]) -> tuple[str, str] | None:
        """(name, its line of the stub) of the function at line `at`."""
        indent, name, parameters, rest = match[1], match[2], match[3], match[5].strip()
        made = [self.parameter(part) for part in split(parameters)]
        if None in made or (name.startswith("_") and not name.startswith("__")):
            return None
        if name in ("__cinit__", "__init__"):
            result = "None"
        elif name == "__enter__":
            result = "Self"
        elif match[4]:
            result = self.annotation(match[4])
        else:
            result = RESULTS.get(name) or ("Any" if self.returns(at, len(indent), rest) else "None")
        return name, f"def {name}({', '.join(part for part in made if part)}) -> {result}: ..."

    def returns(self, at: int, indent: int, rest: str) -> bool:
        body = [rest]
        for line in self.code[at + 1 :]:
            if line.strip() and len(line) - len(line.lstrip()) <= indent:
                break
            body.append(line.strip())
        return any(re.match(r"(?:return\s+(?!None$)\S|.*\byield\b)", line) for line in body)

    # --- the stub -------------------------------------------------------------------------------------------

    def attributes(self, lines: list[str], at: int) -> list[str]:
        """`name: type` of the readonly and public fields of the class that begins at `at`."""
        found = []
        for line in lines[at + 1 :]:
            if line and not line.startswith(" "):
                break
            if match := ATTRIBUTE.match(line):
                first, *more = split(match[2])
                name = NAME.findall(first)[-1]
                kind = self.type_of(first[: first.rindex(name)])
                if kind:
                    found += [f"{item}: {kind}" for item in (name, *more)]
        return found

    def body(self, at: int) -> list[str]:
        """Methods and constants of the class at line `at` of the code."""
        found: dict[str, list[str]] = {}
        decorators: list[str] = []
        for n in range(at + 1, len(self.code)):
            line = self.code[n]
            if line and not line.startswith(" "):
                break
            if line.startswith("    @"):
                decorators.append(line.strip())
            elif (match := FUNCTION.match(line)) and len(match[1]) == 4:
                made = self.function(n, match)
                if made is not None and made[0] not in ("__dealloc__", "__getbuffer__", "__releasebuffer__"):
                    name, text = made
                    name = "__cinit__" if name == "__init__" else name
                    text = text.replace("def __cinit__", "def __init__")
                    setter = any(d.endswith(".setter") for d in decorators)
                    found[f"{name}.setter" if setter else name] = [*decorators, text]
                decorators = []
            elif line.startswith("    ") and not line.startswith("     "):
                if (match := ASSIGNED.match(line)) and not line.strip().startswith("cdef"):
                    found.update((name, [f"{name}: {self.value_type(match[3])}"]) for name in split(match[2]))
                decorators = [] if line.strip() else decorators
        if any("__getbuffer__" in line for line in self.code[at : at + 80]):
            found["__buffer__"] = ["def __buffer__(self, flags: int, /) -> memoryview: ..."]
        return [line for lines in found.values() for line in lines]

    def value_type(self, text: str) -> str:
        if re.fullmatch(r"-?(?:0x[\dA-Fa-f_]+|\d[\d_]*)|[A-Z][A-Z\d_]+|[\d\sA-Z_|<()x*+-]+", text):
            return "int"
        return "str" if text.startswith(('"', "'")) and text.endswith(text[0]) else "Any"

    def stub(self) -> str:
        out: list[str] = []
        inside_enum = ""
        for line in [*self.declared, *self.code]:
            if line.startswith("cpdef enum"):
                inside_enum = "cpdef"
            elif line and not line.startswith(" "):
                inside_enum = ""
            elif inside_enum and (match := re.match(r"^    (\w+)(?: *=.*)?,?$", line)):
                out.append(f"{match[1]}: int")
        declared = {match[1]: n for n, line in enumerate(self.declared) if (match := CLASS.match(line))}
        seen = set()
        for n, line in enumerate(self.code):
            if match := CLASS.match(line):
                name, base = match[1], (match[2] or "").strip()
                if name.startswith("_"):
                    continue
                seen.add(name)
                if base and base in self.known:
                    self.used.add(base)
                fields = self.attributes(self.declared, declared[name]) if name in declared else []
                fields += self.attributes(self.code, n)
                members = [*fields, *self.body(n)]
                out.append("")
                out.append(f"class {name}({base}):" if base else f"class {name}:")
                out += [f"    {member}" for member in members] or ["    ..."]
            elif (match := FUNCTION.match(line)) and match[1] == "":
                made = self.function(n, match)
                if made is not None:
                    out += ["", made[1]]
            elif (match := ASSIGNED.match(line)) and match[1] == "" and not match[2].startswith("_"):
                out += [f"{name}: {self.value_type(match[3])}" for name in split(match[2])]
        if self.name == "accel.api":
            out += ["", "def _report(where: str, exc: BaseException) -> None: ..."]
        text = "\n".join(out).strip() + "\n"
        head = []
        words = set(NAME.findall(text))
        typing = sorted({"Any", "Self"} & words)
        if typing:
            head.append(f"from typing import {', '.join(typing)}")
        origins: dict[str, list[str]] = {}
        for name in sorted((self.used & words) - self.classes):
            origins.setdefault(self.known[name], []).append(name)
        head += [f"from {origin} import {', '.join(names)}" for origin, names in sorted(origins.items())]
        return "\n".join(head) + "\n\n" + text


def sources() -> list[pathlib.Path]:
    """Every compiled module, but for those made of templates: Python sees nothing of them."""
    found = [*(ROOT / "accel").rglob("*.pyx"), *(ROOT / "vmrun").rglob("*.pyx")]
    return sorted(source for source in found if not source.with_suffix(".pyx.in").exists())


def lay_out(tree: pathlib.Path = TREE) -> None:
    """Links to what there is, stubs of what is compiled; what is not there any more goes."""
    wanted: dict[pathlib.Path, str | None] = {}
    for top in PACKAGES:
        for path in (ROOT / top).rglob("*.py*"):
            if path.suffix in (".py", ".pyi"):
                wanted[tree / path.relative_to(ROOT)] = None
    for source in sources():
        if not source.with_suffix(".pyi").exists():
            wanted[tree / source.relative_to(ROOT).with_suffix(".pyi")] = Module(source).stub()
    for path in [path for top in PACKAGES for path in (tree / top).rglob("*.py*")]:
        if path not in wanted or path.is_symlink() is not (wanted[path] is None):
            path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            if not path.is_symlink():
                path.symlink_to(ROOT / path.relative_to(tree))
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def check(options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """mypy's answer for the tree."""
    lay_out()
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), *options]
    return subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    done = check(sys.argv[1:])
    sys.stdout.write(done.stdout + done.stderr)
    sys.exit(done.returncode)
