"""A program's list of strings as the words of a command: Python, JSON, JavaScript, Go, Rust, YAML."""

from __future__ import annotations

import re

from vmrun.config.importers.around import Around, takes
from vmrun.config.importers.words import NAME, Gap, Shell, Word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NAMED = re.compile(r"[A-Za-z_]\w*(?:\s*=(?![=>])|:(?=\s))\s*(?![\s\[({])")  # an argument of the call, by its name
# Rust's borrowed lists and Zig's anonymous ones among them
_OPENS = re.compile(r"(?:&(?:mut )?)?(?:vec!)?[\[({]|&?(?:\.|\[_\]\[\]const u8)\{")
_REMARKED = r"(?:\s|//[^\n]*\n|/\*[^*]*\*/)*"  # between the calls of a chain
_CHAINED = re.compile(rf"{_REMARKED}\.args?\(")
_OPTIONS = re.compile(r"\{\s*[A-Za-z_]\w*\s*:(?!:)")  # JavaScript's, of the call
_CAST = re.compile(r"\((?:const )?(?:char|void) *(?:const)?\*\) *")  # C's, before a NULL


def missing(text: str, kind: str, name: str, line: int) -> Word:
    word = Word("", [Gap(text, kind, name, line)])
    word.whole = True
    return word


# a call that puts values into a text: Rust's, Go's, Java's, Zig's, C++'s
FORMATS = re.compile(r"&?(?:\w+(?:::|\.))*(?:format!?|[Ss]printf|[fF]ormat|fmt)\(\s*(?=[\"`])")
_PLACES = re.compile(r"\{\{|\}\}|%%|\{(\w*)(?::[^{}]*)?\}|%[-+ #0]*\d*(?:\.\d+)?[a-zA-Z]")
_AS_TEXT = (
    r"(?:\.(?:into|to_string|to_owned|as_str|as_ref|clone|display|to_str|to_string_lossy|unwrap|c_str|toString|trim|"
    r"String|string)\(\))*"
)
_NAME_AS_TEXT = re.compile(rf"[&*$]*([A-Za-z_][\w.]*?){_AS_TEXT}")
# a call that makes a text, or a path, of one
_TEXT_OF = re.compile(
    r"&?(?:\w+(?:\.|::))*(?:str|[Ss]tring|from|new|[pP]ath|strdup)\(\s*(?=\"[^\"\n]*\"\s*\)|'[^'\n]*'\s*\))"
)
_PUT_IN = re.compile(r"\s*%\s*(\((?:[^()]|\([^()]*\))*\)|[\w.]+(?:\[[^\]\n]*\])?)|\.format\(([^()]*)\)")  # Python's
_LITERAL = re.compile(r"([rfbuRFBU]{0,2})(\"\"\"|'''|[\"'`])")


def _closed(text: str, at: int) -> int:
    """Behind the bracket that opens at `at`, strings and what is nested in it passed over."""
    depth, most = 0, min(len(text), at + (1 << 15))
    while at < most:
        char = text[at]
        if char in "\"'`":
            end = text.find(char, at + 1)
            at = end if end >= 0 else most
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    return most


def _filled(template: str, values: str, braces: bool) -> str:
    """The text with what it is given in its places: literals as they are, the rest by {name}. values: as they are
    written, Zig's .{…} among them. braces: whether {} are its places, or %s.
    """
    zig = values[:2] == ".{"
    values = values[2:].rstrip("} \n") if zig else values
    given = [part.strip() for part in re.split(r",(?![^(\[{]*[)\]}])", values) if part.strip()]
    waiting = iter([part for part in given if not re.match(r"\w+=[^=]", part)])

    def fill(place: re.Match[str]) -> str:
        if place[0] in ("{{", "}}", "%%"):
            return place[0][0] if (place[0] != "%%") is braces else place[0]
        if (place[0][0] == "{") is not braces:
            return place[0]
        name = (place[1] or "") if braces and not zig else ""
        if name.isdecimal():
            name = given[int(name)] if int(name) < len(given) else ""
        said = name or next(waiting, "")
        if said.isdecimal():
            return said
        if _LITERAL.match(said):
            return said.strip("\"'`")
        named = _NAME_AS_TEXT.fullmatch(said)
        return "{" + (named[1] if named else re.sub(r"[{}\"']", "", said)) + "}"

    return _PLACES.sub(fill, template)


class Listing:
    """The strings of a program's list, from inside its bracket to where that closes."""

    def __init__(self, shell: Shell, at: int, plain: bool = False, inside: bool = False) -> None:
        """`inside`: at is behind the bracket of a first .arg( already."""
        self.shell, self.text, self.at, self.plain = shell, shell.text, at, plain
        self.depth = int(inside)

    def read(self, one: bool = False, line: bool = False) -> tuple[list[Word], int]:
        words: list[Word] = []
        depth, text = self.depth, self.text
        joined = False
        while self.at < len(text):
            char = text[self.at]
            if line and not depth and (char == "\n" or re.compile(r"-[A-Za-z]").match(self.text, self.at)):
                break
            if char.isspace() or char == "," or char == "@" and text[self.at + 1 : self.at + 2] == "(":
                self.at += 1
            elif char == "#" or text.startswith("//", self.at):
                end = text.find("\n", self.at)
                self.at = end if end >= 0 else len(text)
            elif text.startswith("/*", self.at):
                end = text.find("*/", self.at)
                self.at = end + 2 if end >= 0 else len(text)
            elif char == "(" and (cast := _CAST.match(text, self.at)) is not None:
                self.at = cast.end()
            elif char == "{" and words and _OPTIONS.match(text, self.at):
                self.at = _closed(text, self.at)
            elif (opened := _OPENS.match(text, self.at)) is not None:
                depth += 1
                self.at = opened.end()
            elif char in "])}":
                self.at += 1
                depth -= 1
                chained = _CHAINED.match(text, self.at)
                if depth <= 0 and chained is not None:
                    depth = 1
                    self.at = chained.end()
                elif depth < 0 or not depth and char in ")]":
                    break
            elif char == "+" and words:
                joined = True
                self.at += 1
            elif text.startswith("<<", self.at):  # Qt's
                self.at += 2
            elif char == "." and depth <= 0 and re.compile(r"\.args?\(").match(text, self.at):
                self.at = text.index("(", self.at) + 1
                depth += 1
            elif char == ";" and depth <= 0:
                break
            elif not self.plain and (named := _NAMED.match(text, self.at)) is not None:
                self.at = named.end()
                self._element()
            else:
                word = self._element()
                if re.compile(r"\s*:(?![:=])").match(text, self.at) and word.quoted:
                    self.at = text.index(":", self.at) + 1  # a key of JSON
                    words += self._of_key()
                    continue
                if joined and words:
                    words[-1] = Word(words[-1].text + word.text, words[-1].gaps + word.gaps, True)
                elif word.text or word.gaps or word.quoted:
                    words.append(word)
                joined = False
                if one and not re.compile(r"\s*\+|\s*\\?\n?\s*[\"']").match(text, self.at):
                    break
                if one and re.compile(r"[ \t]*(?:\n|$)").match(text, self.at):
                    break
        return self._spread(words), self.at

    def _spread(self, words: list[Word]) -> list[Word]:
        """Lists by name become their words."""
        found: list[Word] = []
        for word in words:
            value = self.shell.values.get(word.gaps[0].name) if word.whole and word.gaps else None
            if isinstance(value, list):
                found += value
            else:
                found.append(word)
        return found

    def _of_key(self) -> list[Word]:
        """What a key of JSON gives, unless that is a list: arguments in one text, or nothing that an option needs."""
        at = re.compile(r"\s*").match(self.text, self.at).end()  # type: ignore[union-attr]
        if self.text[at : at + 1] in "[{":
            return []
        self.at = at
        word = self._element()
        whole = word.text[:1] == "-" and not word.gaps
        return self.shell.inner(word.text, self.shell.line(at)) if whole else []

    def _element(self) -> Word:
        text = self.text
        literal = _LITERAL.match(text, self.at)
        if literal is not None:
            return self._behind(self._string(literal))
        format = None if self.plain else FORMATS.match(text, self.at)
        if format is not None:
            return self._behind(self._formatted(format))
        wrapped = None if self.plain else _TEXT_OF.match(text, self.at)
        if wrapped is not None:
            self.at = wrapped.end()
            word = self._element()
            self.at = text.index(")", self.at) + 1
            return self._behind(word)
        if self.plain:
            match = re.compile(r"[^,\]\n]+").match(text, self.at)
            assert match is not None
            self.at = match.end()
            return Word(match[0].strip(), quoted=True)
        return self._expression()

    def _string(self, literal: re.Match[str]) -> Word:
        text, quote, at = self.text, literal[2], literal.end()
        parts: list[str] = []
        while at < len(text) and not text.startswith(quote, at):
            raw = "r" in literal[1].lower() or self.shell.windows and text[at + 1 : at + 2] not in "\"'\\"
            if text[at] == "\\" and not raw:
                parts.append({"n": "\n", "t": "\t", "\n": ""}.get(text[at + 1 : at + 2], text[at + 1 : at + 2]))
                at += 2
            else:
                parts.append(text[at])
                at += 1
        self.at = at + len(quote)
        body = "".join(parts)
        fills = "f" in literal[1].lower() or quote == "`"
        percent = _PUT_IN.match(text, self.at)
        if percent is not None:
            self.at, fills = percent.end(), True
            braces = percent[1] is None
            given = percent[2] if braces else percent[1].removeprefix("(").removesuffix(")")
            body = _filled(body, given, braces)
        fills = fills or "{}" in body and body != "{}"
        if not fills and not re.search(r"\$[\w({]|\{\{|#\{", body):
            return Word(body, quoted=True)
        inner = Shell('"' + re.sub(r'(["\\])', r"\\\1", body) + '"', self.shell.values, takes)
        inner.python = fills
        found, _ = inner.words(0)
        return found[0] if found else Word(quoted=True)

    def _behind(self, word: Word) -> Word:
        """A text, past the calls that only make another kind of text of it."""
        self.at = re.compile(_AS_TEXT).match(self.text, self.at).end()  # type: ignore[union-attr]
        return word

    def _formatted(self, call: re.Match[str]) -> Word:
        """format!("file={}", x) and its like: what is known filled in, the rest by its name."""
        end = _closed(self.text, self.text.index("(", call.start()))
        literal = _LITERAL.match(self.text, call.end())
        assert literal is not None
        close = self.text.find(literal[2], literal.end())
        template = self.text[literal.end() : close if 0 <= close < end else end - 1]
        rest = self.text[close + 1 : end - 1].strip().lstrip(",").strip()
        braces = "!" in call[0] or "fmt(" in call[0] or "::" in call[0]
        body = _filled(template, rest, braces).replace('\\"', '"')
        self.at = end
        inner = Shell('"' + re.sub(r'(["\\])', r"\\\1", body) + '"', self.shell.values, takes)
        inner.python = True
        found, _ = inner.words(0)
        return found[0] if found else Word(quoted=True)

    def value(self) -> str | list[Word]:
        """What a variable is that is given this."""
        word = self._element()
        return [word] if word.gaps else word.text

    def _expression(self) -> Word:
        """What is no literal: a number, a known name, else something to fill in."""
        text, start, depth = self.text, self.at, 0
        at = start
        while at < len(text):
            char = text[at]
            if char in "([{":
                depth += 1
            elif char in ")]}":
                if not depth:
                    break
                depth -= 1
            elif char in "\"'":
                end = text.find(char, at + 1)
                at = end if end >= 0 else len(text)
            elif char in ",\n;+" and not depth:
                break
            at += 1
        self.at = max(at, start + 1)
        said = text[start:at].strip()
        bare = said.lstrip("*$&").removesuffix("...")
        inner = re.fullmatch(r"(?:str|String|int|&?format!?|string)\(\s*(\w+)\s*\)", bare)
        bare = inner[1] if inner else bare
        if bare in ("NULL", "nullptr"):
            return Word()  # the end of C's arguments
        if re.fullmatch(r"\d+", bare):
            return Word(bare, quoted=True)
        name = bare if NAME.fullmatch(bare) else ""
        value = self.shell.values.get(name) if name else None
        if isinstance(value, str):
            return Word(value.strip("\"'"), quoted=True)
        return missing(said, "a variable" if name else "an expression", name, self.shell.line(start))


class Lists:
    """The lists of strings whose first is a program: where one goes on, and what is added to it later."""

    def __init__(
        self, shell: Shell, kept: dict[str, tuple[int, int]], assign: Callable[[int, int], None]
    ) -> None:
        """kept: variables that hold a command; one whose list is read here is no other command. assign: does the
        assignments between two places.
        """
        self.shell, self.text, self.values, self.kept = shell, shell.text, shell.values, kept
        self.assign = assign

    def after(self, match: re.Match[str], around: Around) -> tuple[list[Word], int] | None:
        """The words when the program is the first string of a list of them."""
        text, end = self.text, match.end()
        ruby = re.search(r"%[wWiI]([\[({<|])\s*$", text[around.line : around.start])
        if ruby is not None:
            close = text.find({"[": "]", "(": ")", "{": "}", "<": ">"}.get(ruby[1], ruby[1]), end)
            close = close if close >= 0 else len(text)
            return self.shell.inner(text[end:close], self.shell.line(end)), close
        if around.quote:
            if text[end : end + 1] != around.quote:
                return None
            end += 1
        comma = re.compile(r"\s*(?:#[^\n]*\n\s*|//[^\n]*\n\s*)*,").match(text, end)
        if comma is not None and (around.quote or re.search(r"\[[ \t]*$", text[around.line : around.start])):
            return self.grown(Listing(self.shell, comma.end(), plain=not around.quote).read(), around)
        typed = re.compile(r":?[ \t]*\[\]string\{" if not around.quote else r"[ \t]*\[(?=\s*[\"'])").match(text, end)
        if typed is not None:
            return Listing(self.shell, typed.end()).read()
        after = re.compile(rf"\s*\){_REMARKED}(?=\.args?\()").match(text, end)
        if after is not None and around.quote:
            return Listing(self.shell, after.end()).read()
        built = re.compile(r"\s*\}?\s*\)\s*;?[ \t]*(?://[^\n]*)?\n").match(text, end)
        opened = r"(\w+)\s*=\s*[\w:.]+\(\s*(?:&(?:\.|\[_\]\[\]const u8)\{\s*)?$"
        named = re.search(opened, text[around.line : around.start - 1]) if built else None
        named = named or re.search(r"(\w+)\.(?:add|push|append|push_back)\(\s*$", text[around.line : around.start - 1])
        if built is not None and named is not None and around.quote:
            return self._built(named[1], built.end())
        set_later = re.compile(r"[^\n]*(?:\n[^\n]*){0,4}?\b[aA]rguments[ \t]*=[ \t]*(?=[\[@$\"])").match(text, end)
        if set_later is not None and around.quote and text[end : end + 1] in (")", "\"", ","):
            return self._set(set_later.end())
        closed = re.compile(r"\s*\]").match(text, end)
        if closed is not None and around.quote:
            words, at = self.grown(([], closed.end()), around)
            return (words, at) if words else self.args(closed.end())
        block = re.compile(r"([ \t]*)-[ \t]+['\"]?$").match(text[around.line : around.start])
        if block is not None and re.compile(r"[ \t]*\n").match(text, end):
            words, at = self._block(end, block[1])
            added, at = self.args(at) or ([], at)
            return words + added, at
        if (
            re.search(r"(?:command|entrypoint):[ \t]*['\"]?$", text[around.line : around.start])
            and text[end : end + 1] in "\n"
        ):
            return self.args(end)
        return None

    def grown(self, got: tuple[list[Word], int], around: Around) -> tuple[list[Word], int]:
        """With what is added to the list later: `+ more`, `cmd += […]`, `cmd.extend(…)`, a YAML's args."""
        words, end = got
        name = re.search(
            r"([A-Za-z_]\w*)(?::[^=\n]+)?[ \t]*:?=[ \t]*[\[({][^\n]*$", self.text[around.line : around.start]
        )
        if name is None:
            opened = re.search(r"([A-Za-z_]\w*)(?::[^=\n]+)?[ \t]*:?=[ \t]*[\[({]\s*[\"']?$", self.text[: around.start])
            name = opened
        while True:
            more = re.compile(r"\s*\+\s*(?:([A-Za-z_]\w*)|(\[))").match(self.text, end)
            if more is None:
                break
            if more[2]:
                added, end = Listing(self.shell, more.end()).read()
                words += added
                continue
            value = self.values.get(more[1])
            words += (
                value if isinstance(value, list) else [missing(more[1], "a variable", more[1], self.shell.line(end))]
            )
            end = more.end()
        if name is not None:
            start = end
            grows = re.compile(
                rf"(?m)(?<!// )(?<!//)(?<!# )\b{name[1]}"
                r"(?:[ \t]*\+=[ \t]*[\[(]|\.(?:extend|append|push|add|addAll)\([ \t]*\[?)"
            )
            for match in grows.finditer(self.text, start):
                added, end = Listing(self.shell, match.end()).read()
                words += added
            self.kept.pop(name[1], None)
        added, end = self.args(end) or ([], end)
        return words + added, end

    def _set(self, at: int) -> tuple[list[Word], int]:
        """What Swift's and C#'s processes are given as arguments: a list, or one text."""
        if self.text[at] == "[":
            return Listing(self.shell, at + 1).read()
        one = Listing(self.shell, re.compile(r"[@$]*").match(self.text, at).end())  # type: ignore[union-attr]
        word = one._element()
        return (self.shell.inner(word.text, self.shell.line(at)) if not word.gaps else [word]), one.at

    def _built(self, name: str, at: int) -> tuple[list[Word], int] | None:
        """The arguments of `let cmd = Command::new("…");` in the statements `cmd.arg(…)` that follow; Zig's addArg."""
        words: list[Word] = []
        end = at
        adds = re.compile(
            rf"(?m)^(?:(?!//)[^\n])*?\b{name}(?:{_REMARKED}\.(?:args?|add(?:\w*Args?|All)?|push|append|extend)\("
            r"|[ \t]*\+=[ \t]*\w*[\[(])"
        )
        while (more := adds.search(self.text, end)) is not None:
            self.assign(end, more.start())
            added, end = Listing(self.shell, more.end(), inside=True).read()
            words += added
        return (words, end) if words else None

    def args(self, end: int) -> tuple[list[Word], int] | None:
        match = re.compile(r"\s*\n\s*(?:args:|CMD)[ \t]*(\[|\n([ \t]*)(?=-[ \t]))").match(self.text, end)
        if match is None:
            return None
        if match[1] == "[":
            return Listing(self.shell, match.end(), plain=True).read()
        return self._block(match.start(2) - 1, match[2])

    def _block(self, end: int, indent: str) -> tuple[list[Word], int]:
        """The items of a YAML list, one a line."""
        words: list[Word] = []
        row = re.compile(rf"[ \t]*\n(?:[ \t]*(?:#[^\n]*)?\n)*{indent}-[ \t]+([^\n]*)")
        while (match := row.match(self.text, end)) is not None:
            item = re.sub(r"\s+#.*", "", match[1]).strip()
            quoted = item[:1] in "'\"" and item[-1:] == item[:1] and len(item) > 1
            inner = Shell(item, self.values, lambda name: None)
            inner.left = self.shell.left
            text = item[1:-1].replace("''" if item[0] == "'" else '\\"', item[0]) if quoted else item
            if "$" in text or "{{" in text:
                inner.text = '"' + text.replace('"', '\\"') + '"'
                words += inner.words(0)[0]
            elif quoted or not re.match(r"--?\w\S*[ \t]+\S", text):
                words.append(Word(text, quoted=True))
            else:
                words += inner.words(0)[0]
            end = match.end()
        return words, end
