"""A program's list of strings as the words of a command: Python, JSON, JavaScript, Go, Rust, YAML."""

from __future__ import annotations

import re

from vmrun.config.importers.around import Around, takes
from vmrun.config.importers.words import NAME, Gap, Shell, Word

_NAMED = re.compile(r"[A-Za-z_]\w*(?:\s*=(?![=>])|:(?=\s))\s*(?![\s\[({])")  # an argument of the call, by its name
_OPENS = re.compile(r"(?:&(?:mut )?)?(?:vec!)?[\[({]")  # Rust's borrowed lists among them
_CAST = re.compile(r"\((?:const )?(?:char|void) *(?:const)?\*\) *")  # C's, before a NULL


def missing(text: str, kind: str, name: str, line: int) -> Word:
    word = Word("", [Gap(text, kind, name, line)])
    word.whole = True
    return word


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
            elif (opened := _OPENS.match(text, self.at)) is not None:
                depth += 1
                self.at = opened.end()
            elif char in "])}":
                self.at += 1
                depth -= 1
                chained = re.compile(r"\s*\.args?\(").match(text, self.at)
                if depth <= 0 and chained is not None:
                    depth = 1
                    self.at = chained.end()
                elif depth < 0 or not depth and char in ")]":
                    break
            elif char == "+" and words:
                joined = True
                self.at += 1
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
        literal = re.compile(r"([rfbuRFBU]{0,2})(\"\"\"|'''|[\"'`])").match(text, self.at)
        if literal is not None:
            return self._string(literal)
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
        percent = re.compile(r"\s*%\s*(\((?:[^()]|\([^()]*\))*\)|[\w.\[\]]+)|\.format\([^()]*\)").match(text, self.at)
        if percent is not None:
            self.at, fills = percent.end(), True
        fills = fills or "{}" in body and body != "{}"
        if not fills and not re.search(r"\$[\w({]|\{\{|#\{", body):
            return Word(body, quoted=True)
        inner = Shell('"' + re.sub(r'(["\\])', r"\\\1", body) + '"', self.shell.values, takes)
        inner.python = fills
        found, _ = inner.words(0)
        return found[0] if found else Word(quoted=True)

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

    def __init__(self, shell: Shell, kept: dict[str, tuple[int, int]]) -> None:
        """kept: variables that hold a command; one whose list is read here is no other command."""
        self.shell, self.text, self.values, self.kept = shell, shell.text, shell.values, kept

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
        typed = re.compile(r":[ \t]*\[\]string\{" if not around.quote else r"[ \t]*\[(?=\s*[\"'])").match(text, end)
        if typed is not None:
            return Listing(self.shell, typed.end()).read()
        after = re.compile(r"\s*\)\s*(?=\.args?\()").match(text, end)
        if after is not None and around.quote:
            return Listing(self.shell, after.end()).read()
        built = re.compile(r"\s*\)\s*;?[ \t]*\n").match(text, end)
        named = re.search(r"(\w+)\s*=\s*[\w:.]+\(\s*$", text[around.line : around.start - 1]) if built else None
        if built is not None and named is not None and around.quote:
            return self._built(named[1], built.end())
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
                rf"(?m)\b{name[1]}(?:[ \t]*\+=[ \t]*[\[(]|\.(?:extend|append|push|add|addAll)\([ \t]*\[?)"
            )
            for match in grows.finditer(self.text, start):
                added, end = Listing(self.shell, match.end()).read()
                words += added
            self.kept.pop(name[1], None)
        added, end = self.args(end) or ([], end)
        return words + added, end

    def _built(self, name: str, at: int) -> tuple[list[Word], int] | None:
        """The arguments of `let cmd = Command::new("…");` in the statements `cmd.arg(…)` that follow."""
        words: list[Word] = []
        end = at
        while (more := re.compile(rf"\b{name}\s*\.args?\(").search(self.text, end)) is not None:
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
