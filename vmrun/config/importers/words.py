"""The words of one command, as a shell splits them: quotes, escapes, comments, line ends, redirections, and what the
text around it assigned to variables. What cannot be filled in is a Gap of its word, never a part of the value.
"""

from __future__ import annotations

import os
import re

from vmrun.config import modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

WORK = 2_000_000  # steps, a letter or so each
NAME = re.compile(r"[A-Za-z_]\w*")
_BLANK = " \t"
_PLACEHOLDER = re.compile(
    r"\{[A-Za-z_][\w.]*(?:\[[^]{}]*\]|\([^{}\"']*\))*(?:![rsa])?(?::[^{}\"']*)?\}|\{\d*\}|%[sd](?!\w)"
)
_TEMPLATE = re.compile(r"\$?\{\{[^{}]*\}\}|<[A-Za-z][\w /.-]*>|@[A-Z_]+@|\{%[^%]*%\}")
_OTHER = "fill it in"


class Gap:
    """A part of a word whose value the text does not say. name: what --define calls it, '' when it cannot."""

    __slots__ = ("kind", "line", "name", "text")

    def __init__(self, text: str, kind: str, name: str = "", line: int = 0) -> None:
        self.text, self.kind, self.name, self.line = text, kind, name, line

    def message(self) -> str:
        remedy = f"{_OTHER}, or --define {self.name}=…" if self.name else _OTHER
        return f"{self.text} is {self.kind}: {remedy}"


class Word:
    """A word of a command. gaps: what is missing in it; whole: it is nothing but one gap."""

    __slots__ = ("gaps", "nothing", "quoted", "text", "whole")

    def __init__(self, text: str = "", gaps: list[Gap] | None = None, quoted: bool = False) -> None:
        self.text, self.quoted, self.whole, self.nothing = text, quoted, False, False
        self.gaps: list[Gap] = gaps if gaps is not None else []


class OpenQuote(ValueError):
    """A quote that nothing closes, in that line."""

    def __init__(self, quote: str, line: int) -> None:
        super().__init__(f"a quote ({quote}) that does not close")
        self.line = line


class Tangled(ValueError):
    """More to fill in and look at than any text of a person has."""


# name → its value: text, or the words of an array
Values = dict[str, "str | list[Word]"]


class Shell:
    """One text and how it is written. values: what variables hold where the command stands."""

    def __init__(self, text: str, values: Values, takes: Callable[[str], bool | None]) -> None:
        self.text, self.values, self.takes = text, values, takes
        self.windows = self.make = self.python = self.systemd = self.tcl = False
        self.notes: list[str] = []
        self.left = [WORK]  # shared by all that reads one text

    def spend(self, steps: int) -> None:
        self.left[0] -= steps
        if self.left[0] < 0:
            raise Tangled("too tangled to read: cut it down to the command")

    def line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    def words(self, at: int) -> tuple[list[Word], int]:
        """The words of the command that goes on at `at`, and where it ends. OpenQuote for a quote left open."""
        return Reader(self, at).read()

    def inner(self, text: str, line: int) -> list[Word]:
        """The words of a text that stood inside quotes."""
        shell = Shell("\n" * (line - 1) + text, self.values, self.takes)
        shell.windows, shell.make, shell.python = self.windows, self.make, self.python
        shell.systemd, shell.tcl, shell.left = self.systemd, self.tcl, self.left
        found, _ = shell.words(line - 1)
        self.notes += shell.notes
        return found


class Reader:
    def __init__(self, shell: Shell, at: int) -> None:
        self.shell, self.text, self.at = shell, shell.text, at
        self.found: list[Word] = []
        self.word: Word | None = None
        self.depth = 0

    def read(self) -> tuple[list[Word], int]:
        text = self.text
        while self.at < len(text):
            self.shell.spend(1)
            char = text[self.at]
            if char in "\\^`" and self._goes_on():
                continue
            if char == "\n":
                if not self._folded():
                    break
            elif char in _BLANK:
                self._end()
                self.at += 1
            elif char == "#" and self.word is None and self._is_remark(text[self.at + 1 : self.at + 2]):
                self._comment()
            elif text.startswith(('"""', "'''"), self.at) and self.word is None:
                break
            elif char in "'\"":
                self._quoted(char)
            elif char in ";|&()":
                if self._operator(char):
                    break
            elif char in "<>" and not self._angle():
                self._redirection()
            elif char == "}" and self.word is None and text[self.at + 1 : self.at + 2] in ("", " ", "\n", ";"):
                break
            elif char not in "<>":
                self._plain(char)
        self._end()
        return self.found, self.at

    # --- words ----------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        if self.word is not None:
            word = self.word
            if word.text.endswith("}") and "{" not in word.text and not word.quoted:
                word.text = word.text.rstrip("}")  # what a text around it closes
            if word.text == "" and word.gaps and not word.quoted:
                word.whole = len(word.gaps) == 1
            if word.text in ("...", "…", "[...]", "[…]") and not word.quoted:
                self.shell.notes.append(f"'{word.text}' stands for something that was left out")
            elif word.text[:1] == "-" and word.text.endswith(("...", "…")) and not word.quoted:
                self.shell.notes.append(f"'{word.text}' is cut off; left out")
            elif word.text or word.gaps or word.quoted and not word.nothing:
                self.found.append(word)
            self.word = None

    def _put(self, text: str) -> None:
        if self.word is None:
            self.word = Word()
        self.word.text += text

    def _gap(self, text: str, kind: str, name: str = "") -> None:
        self._put("")
        assert self.word is not None
        self.word.gaps.append(Gap(text, kind, name, self.shell.line(self.at)))

    # --- what stands between words ----------------------------------------------------------------------------------

    def _goes_on(self) -> bool:
        """A backslash, caret or backtick at a line's end."""
        match = re.compile(r"(?:\\{1,2}|[\^`])[ \t]*(?:#[^\n]*)?\n").match(self.text, self.at)
        if match is None or self.text[self.at] == "`" and self.word is not None:
            if self.text[self.at] in "\\^" and not self.text[self.at + 1 :].strip():
                self.at = len(self.text)
                return True
            return False
        tight = self.text[match.end() : match.end() + 1] not in (" ", "\t", "\n", "-")
        if not tight or self.text[self.at] != "\\" or match[0] != "\\\n":
            self._end()
        self.at = match.end()
        self._prompt()
        if re.compile(r"[ \t]*#").match(self.text, self.at):
            line_end = self.text.find("\n", self.at)
            self.at = line_end if line_end >= 0 else len(self.text)
        return True

    def _prompt(self) -> None:
        """The `>` of a shell that waits for more, which a redirection on a line of its own is not."""
        match = re.compile(r"([ \t]*)>>?[ \t]+(?=(--?[A-Za-z])?)").match(self.text, self.at)
        if match is not None and (match[2] or not match[1] or self._waits()):
            self.at = match.end()

    def _waits(self) -> bool:
        """Whether the last word is an option whose value is still to come."""
        last = self.found[-1].text if self.found else ""
        waits = last[:1] == "-" and self.shell.takes(last.lstrip("-")) is True
        return waits and not (len(self.found) > 1 and self._is_value(len(self.found) - 1))

    def _folded(self) -> bool:
        """Whether the next line belongs to this command: it begins with an option, or with what one still wants."""
        if self.word is not None and self.word.text.endswith(",") and not self.word.gaps:
            cut = re.compile(r"\n[ \t]*(?=[\w.-]+=\S)").match(self.text, self.at)  # a page's line ends within a value
            if cut is not None:
                self.at = cut.end()
                return True
        self._end()
        match = re.compile(r"\n(?:[ \t]*#[^\n]*\n)*[ \t]*(?:>[ \t]+)?(--?[A-Za-z][\w-]*)?").match(self.text, self.at)
        assert match is not None
        if match[1] and self.shell.takes(match[1].lstrip("-")) is not None:
            self.at = match.start(1)
            return True
        if self._waits():
            rest = re.compile(r"\n[ \t]*(?=[^\s#-])").match(self.text, self.at)
            if rest is not None:
                self.at = rest.end()
                return True
        return False

    def _is_value(self, index: int) -> bool:
        before = self.found[index - 1].text
        return before[:1] == "-" and self.shell.takes(before.lstrip("-")) is True

    def _comment(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = end if end >= 0 else len(self.text)

    def _operator(self, char: str) -> bool:
        """True at the command's end."""
        if char == "&" and self.text[self.at + 1 : self.at + 2] == ">":
            self._redirection()
            return False
        if char == "(" and self.word is not None:
            self.depth += 1
            self._put(char)
        elif char == ")" and self.depth and self.word is not None:
            self.depth -= 1
            self._put(char)
        else:
            return True
        self.at += 1
        return False

    def _is_remark(self, after: str) -> bool:
        """Whether a # begins one: not Ruby's #{x}, nor a word of cmd.exe's."""
        return after != "{" and not (self.shell.windows and after > " ")

    def _angle(self) -> bool:
        """A placeholder such as <image>."""
        match = _TEMPLATE.match(self.text, self.at)
        if match is None or "\n" in match[0]:
            return False
        self._gap(match[0], "a placeholder")
        self.at = match.end()
        return True

    def _redirection(self) -> None:
        if self.word is not None and self.word.text.isdecimal() and not self.word.quoted:
            self.word = None  # the descriptor of 2> is no word of the command
        self._end()
        match = re.compile(r"&?[<>]+[|&]?-?[ \t]*").match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        if match[0].rstrip().endswith("-") or self.text[self.at : self.at + 1] in ("", "\n"):
            return
        if self.text[self.at] in "()":  # a process's output
            return
        rest = Reader(self.shell, self.at)
        rest._one()
        self.at = rest.at

    def _one(self) -> None:
        """One word, which nobody wants."""
        while self.at < len(self.text) and self.text[self.at] not in " \t\n;|&()<>":
            char = self.text[self.at]
            self._quoted(char) if char in "'\"" else self._plain(char)

    # --- inside a word ------------------------------------------------------------------------------------------------

    def _plain(self, char: str) -> None:
        text, shell = self.text, self.shell
        if self.word is None and char == "{" and re.compile(r"\{\s*[\"']").match(text, self.at):
            self._json()
            return
        if self.word is None and char == "{" and shell.tcl and (end := _closing(text, self.at)) >= 0:
            self._put(text[self.at + 1 : end])
            assert self.word is not None
            self.word.quoted = True
            self.at = end + 1
            return
        if self._substituted(quoted=False):
            return
        after = text[self.at + 1 : self.at + 2]
        # a path of Windows: before a letter within a word nobody has an escape
        path = shell.windows and after not in ('"', "'") or after.isalnum() and text[self.at - 1 : self.at].isalnum()
        if char == "\\" and not path:
            self._put(after)
            assert self.word is not None
            self.word.quoted = True
            self.at += 2
        elif char == "^" and shell.windows:
            self._put(after)
            self.at += 2
        elif (
            char == "~"
            and text[self.at + 1 : self.at + 2] in ("/", "", " ", "\n", ",")
            and (self.word is None or re.fullmatch(r"[a-z.-]+=", self.word.text))
        ):
            self._put(os.path.expanduser("~"))
            self.at += 1
        else:
            self._put(char)
            self.at += 1

    def _json(self) -> None:
        """What ps shows of an object has lost the quotes around it, not those inside."""
        depth, quote, at = 0, "", self.at
        while at < len(self.text):
            char = self.text[at]
            if quote:
                at += char == "\\"
                quote = "" if char == quote else quote
            elif char in "\"'":
                quote = char
            else:
                depth += (char in "{[") - (char in "}]")
                if not depth:
                    break
            at += 1
        self._put(self.text[self.at : at + 1])
        assert self.word is not None
        self.word.quoted = True
        self.at = at + 1

    def _quoted(self, quote: str) -> None:
        text, start = self.text, self.at
        self._put("")
        assert self.word is not None
        self.word.quoted = True
        if quote == "'":
            end = text.find("'", start + 1)
            if end < 0:
                self._left_open(start)
                return
            if self.shell.make or self.shell.python or self.shell.systemd:  # these fill in first
                self.at = start + 1
                while self.at < end:
                    if not self._substituted(quoted=True):
                        self._put(text[self.at])
                        self.at += 1
                self.at = end + 1
                return
            self._put(text[start + 1 : end])
            self.at = end + 1
            return
        self.at += 1
        while self.at < len(text) and text[self.at] != '"':
            char = text[self.at]
            if char == "\\" and text[self.at + 1 : self.at + 2] in ('"', "\\", "$", "`", "\n"):
                following = text[self.at + 1]
                literal = self.shell.windows and following != '"'
                self._put(char + following if literal else "" if following == "\n" else following)
                self.at += 2
            elif not self._substituted(quoted=True):
                self._put(char)
                self.at += 1
        if self.at >= len(text):
            self.at = start
            self._left_open(start)
            return
        self.at += 1

    def _left_open(self, start: int) -> None:
        """A quote that ends the line closes what was opened lines before; any other is a fault."""
        end = self.text.find("\n", start)
        rest = self.text[start + 1 : end if end >= 0 else None]
        if rest.strip(" \t,;)]}") or not self.found:
            raise OpenQuote(self.text[start], self.shell.line(start))
        if self.word is not None and not self.word.text:
            self.word = None
        self._end()
        self.text = self.text[:start]
        self.at = start

    # --- what is filled in --------------------------------------------------------------------------------------------

    def _substituted(self, quoted: bool) -> bool:
        """Fill in what begins here; False when nothing does."""
        text, char = self.text, self.text[self.at]
        if char == "$":
            return self._dollar(quoted)
        if char == "`":
            end = text.find("`", self.at + 1)
            if end < 0:
                return False
            if not text[self.at + 1 : end].lstrip().startswith("#"):  # a comment in an odd place
                self._gap(text[self.at : end + 1], "a command substitution")
            self.at = end + 1
            return True
        if char == "@" and not quoted and self.word is None:
            splat = NAME.match(text, self.at + 1)  # PowerShell's: the list is the arguments
            known = splat is not None and isinstance(self.shell.values.get(splat[0]), list)
            if splat is not None and (known or self.shell.windows and text[splat.end() : splat.end() + 1] in " \n"):
                self.at = splat.end()
                self._variable(f"@{splat[0]}", splat[0], quoted, "a variable")
                return True
        if char in "{@" or char == "%" and self.shell.python:
            match = _TEMPLATE.match(text, self.at) if char != "%" else None
            if match is not None:
                inner = match[0].strip("{}@ ")
                self._variable(match[0], inner if NAME.fullmatch(inner) else "", quoted, "a placeholder")
                self.at = match.end()
                return True
            match = _PLACEHOLDER.match(text, self.at) if self.shell.python else None
            if match is not None:
                name = NAME.match(match[0], 1)
                simple = name is not None and re.match(r"[}!:]", match[0][name.end() :]) is not None
                self._variable(match[0], name[0] if name and simple else "", quoted, "a placeholder")
                self.at = match.end()
                return True
        if char in "%!" and self.shell.windows:
            match = re.compile(rf"{char}([A-Za-z_~]\w*){char}|%~?[a-z]*\d").match(text, self.at)
            if match is not None and match[0].lower() == "%~dp0":
                self.shell.notes.append(f"{match[0]} is the script's own directory; taken as nothing")
                self._put("")
                self.at = match.end()
                return True
            if match is not None:
                self._variable(match[0], match[1] or "", quoted, "a variable")
                self.at = match.end()
                return True
        if char == "#":
            match = re.compile(r"#\{([^{}]*)\}").match(text, self.at)  # Ruby's
            if match is not None:
                self._variable(match[0], match[1] if NAME.fullmatch(match[1]) else "", quoted, "a placeholder")
                self.at = match.end()
                return True
        if char == "%" and self.shell.systemd:
            match = re.compile(r"%([%A-Za-z])").match(text, self.at)
            if match is not None:
                self._put("%") if match[1] == "%" else self._gap(match[0], "a systemd specifier")
                self.at = match.end()
                return True
        return False

    def _dollar(self, quoted: bool) -> bool:
        text, at = self.text, self.at
        two = text[at : at + 2]
        if two == "$'" and not quoted:
            literal = re.compile(r"\$'((?:[^'\\]|\\.)*)'", re.S).match(text, at)
            if literal is not None:
                self._put(_escapes(literal[1]))
                assert self.word is not None
                self.word.quoted = True
                self.at = literal.end()
                return True
        if two == '$"' and not quoted:
            self.at += 1
            self._quoted('"')
            return True
        if two == "$$":
            if self.shell.make or re.compile(r"\$\$[A-Za-z_({]").match(text, at):
                self.at += 1  # make's way to write a dollar, and that of compose files
                return self._dollar(quoted) if re.compile(r"\$[\w({]").match(text, self.at) else False
            self._gap(two, "the shell's process id")
            self.at += 2
            return True
        template = _TEMPLATE.match(text, at)
        if template is not None:
            self._gap(template[0], "a placeholder")
            self.at = template.end()
            return True
        if two in ("$(", "${"):
            self.shell.spend(512)
            end = _closing(text, at + 1)
            if end < 0:
                return False
            self._braces(text[at : end + 1], quoted)
            self.at = end + 1
            return True
        match = re.compile(r"\$(?:env:)?(argv\[[-?\w]+\]|[A-Za-z_]\w*)|\$([0-9@*#?!<^-])").match(text, at)
        if match is None:
            return False
        self._variable(match[0], match[1] or match[2], quoted)
        self.at = match.end()
        return True

    def _braces(self, text: str, quoted: bool) -> None:
        """${…}, $(…) or $((…))."""
        body = text[2:-1]
        if text.startswith("$(("):
            self._arithmetic(text)
            return
        if text[1] == "(" and not (self.shell.make and not re.match(r"(?:shell|wildcard|call)\b", body)):
            self._gap(text, "a command substitution")
            return
        name = self._computed(body) if self.shell.make else ""
        if name and (text[1] == "(" or name in self.shell.values):  # of make; ${A-b} may be the shell's
            self._variable(text, name, quoted)
            return
        found = re.fullmatch(r"(?:env:)?([A-Za-z_]\w*|[0-9@*])(\[[@*]\])?(?:(:?[-=+?])(.*))?", body, re.S)
        if found is None:
            first = NAME.match(body)
            kind = "a make function" if self.shell.make else "a shell variable"
            self._gap(text, kind, first[0] if first and not self.shell.make else "")
            return
        name, _, operator, other = found.groups()
        known = self.shell.values.get(name)
        if operator and operator[-1] == "+":
            if known:
                self._fill(other, quoted)
            else:
                self._put("")
        elif operator and operator[-1] in "-=" and (known is None or (not known and ":" in operator)):
            self._fill(other, quoted)
        else:
            self._variable(text, name, quoted)

    def _computed(self, body: str) -> str:
        """The name in make's $(args-$(ARCH)); empty when it is none, or not known."""
        for _ in range(8):
            inner = re.search(r"\$[({]([\w.-]+)[)}]", body)
            value = self.shell.values.get(inner[1]) if inner else None
            if inner is None or not isinstance(value, str):
                break
            body = body[: inner.start()] + value.strip() + body[inner.end() :]
        return body if re.fullmatch(r"[A-Za-z_][\w.-]*", body) else ""

    def _arithmetic(self, text: str) -> None:
        body = re.sub(
            r"\$?\{?([A-Za-z_]\w*)\}?", lambda match: str(self.shell.values.get(match[1], match[0])), text[3:-2]
        )
        amount = _calculated(body)
        self._gap(text, "an arithmetic expansion") if amount is None else self._put(str(amount))

    def _variable(self, text: str, name: str, quoted: bool, kind: str = "") -> None:
        value = self.shell.values.get(name) if name else None
        if value is None and name and "." in text and kind:
            name = ""
        if value is None:
            if name in ("@", "*", "argv") and not self.shell.make:
                self.shell.notes.append(f"{text} is what the script is given; taken as nothing")
                self._nothing()
                return
            if not kind:
                kind = "a make variable" if self.shell.make else "a shell variable"
                kind = "an argument of the script" if name.isdecimal() or name.startswith("argv[") else kind
            self._gap(text, kind, name if NAME.fullmatch(name) else "")
        elif isinstance(value, str):
            self._fill(value, quoted)
        elif not value:
            self._nothing()
        else:
            joined = quoted and (name == "*" or "[*]" in text)
            for place, word in enumerate(value):
                if place and joined:
                    self._put(" ")
                elif place:
                    self._end()
                self._put(word.text)
                assert self.word is not None
                self.word.gaps += word.gaps
                self.word.quoted = self.word.quoted or word.quoted

    def _nothing(self) -> None:
        """A list of no words is no word, not even between quotes."""
        self._put("")
        assert self.word is not None
        self.word.nothing = True

    def _fill(self, text: str, quoted: bool) -> None:
        """A value: as it is between quotes, else split into words."""
        if quoted:
            inner = Shell(text.replace('"', '\\"') + '"', self.shell.values, self.shell.takes)
            reader = Reader(inner, 0)
            inner.text = reader.text = '"' + inner.text
            self._nest(reader)
            reader._quoted('"')
            if reader.word is not None:
                self._put(reader.word.text)
                assert self.word is not None
                self.word.gaps += reader.word.gaps
            return
        inner = Shell(text, self.shell.values, lambda name: None)
        reader = Reader(inner, 0)
        self._nest(reader)
        words, _ = reader.read()
        self.shell.notes += inner.notes
        for place, word in enumerate(words):
            if place or text[:1].isspace():
                self._end()
            self._put(word.text)
            assert self.word is not None
            self.word.gaps += word.gaps
            self.word.quoted = self.word.quoted or word.quoted
        if words and text[-1:].isspace():
            self._end()

    def _nest(self, reader: Reader) -> None:
        inner = reader.shell
        inner.make, inner.python, inner.windows = self.shell.make, self.shell.python, self.shell.windows
        inner.tcl = self.shell.tcl
        inner.values, inner.left = dict(self.shell.values), self.shell.left
        inner.spend(len(inner.text) + 100)
        depth = int(str(inner.values.pop("\0depth", "0"))) + 1
        inner.values["\0depth"] = str(depth)
        if depth > 20:
            inner.values.clear()


def _closing(text: str, at: int) -> int:
    """Where the bracket at `at` closes, or -1."""
    depth, pair = 0, {"(": ")", "{": "}"}[text[at]]
    for place in range(at, min(len(text), at + 1024)):
        depth += (text[place] == text[at]) - (text[place] == pair)
        if not depth:
            return place
    return -1


def _escapes(text: str) -> str:
    names = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda match: names.get(match[1], match[1]), text, flags=re.S)


def _calculated(text: str) -> int | None:
    """Whole numbers with + - * / and brackets."""
    import ast

    if not re.fullmatch(r"[\d\s+*/()-]{1,60}", text):
        return None

    def value(node: ast.AST) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div | ast.FloorDiv):
            left, right = value(node.left), value(node.right)
            if isinstance(node.op, ast.Add):
                return left + right
            if isinstance(node.op, ast.Sub):
                return left - right
            return left * right if isinstance(node.op, ast.Mult) else left // right
        raise ValueError

    try:
        return value(ast.parse(text.strip(), mode="eval").body)
    except (ValueError, SyntaxError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def anchor(document: dict[str, Any], directory: str) -> None:
    """Make relative paths those of `directory`: a process knows where it stands, a machine file stands elsewhere."""
    for section, key in (("drives", "file"), ("chardevs", "path")):
        for spec in document.get(section, {}).values():
            if spec.get(key) and not re.match(r"\w+:", spec[key]):
                spec[key] = os.path.normpath(os.path.join(directory, spec[key]))
    if "kernel" in document:
        document["kernel"] = os.path.normpath(os.path.join(directory, document["kernel"]))
    if "initrd" in document:
        initrd = document["initrd"]
        document["initrd"] = modules.moved(initrd, lambda path: os.path.normpath(os.path.join(directory, path)))
    firmware = document.get("firmware", {})
    if "/" in str(firmware.get("bios", "")):
        firmware["bios"] = os.path.normpath(os.path.join(directory, firmware["bios"]))
    if "dirs" in firmware:
        firmware["dirs"] = [os.path.normpath(os.path.join(directory, path)) for path in firmware["dirs"]]
