"""The QEMU commands in what people have them in: scripts, logs, prompts, recipes, units, lists of programs' sources.

commands() finds, in a text that cleaning.py has been over, where a command begins, by the program's name, and what kind
of text stands around it; words.py reads on from there. A name that only somebody mentions begins no command.
"""

from __future__ import annotations

import re

from vmrun.config.importers import functions
from vmrun.config.importers.around import RUNS, Around, bracket, inside, takes
from vmrun.config.importers.listing import FORMATS, Listing, Lists, missing
from vmrun.config.importers.words import Gap, OpenQuote, Reader, Shell, Values, Word

_PROGRAM = re.compile(
    r"(?:(?<![\w.%-])|(?<=[\t@=]-))(vmrun-qemu|qemu-system-\w+(?:-[\w.]*\w)?|"
    r"qemu-system-(?:\$\([^()\n]*\)|\$?\{[^{}\n]*\}|\$\w+|%\w+%)|qemu-kvm(?:-[\w.]*\w)?|kvm-spice|kvm|qemu-dm|qemu)(?:\.exe)?"
    r"(?=[\s'\"`,;)\]}<|&]|:[ \t]*\[\]string|\\+[\s\"'n]|$)",
    re.I,
)
_LOOSE = ("kvm", "qemu")  # names that are said more often than run
_FOREIGN = re.compile(r"qemu-system-(?!x86|i[3-6]86)", re.I)
_COMPUTED = re.compile(r"qemu-system-[$%{]+[({]?([A-Za-z_]\w*)?")  # for a processor that a variable says
_FILE = re.compile(r"[/$]|\.[A-Za-z]\w{0,7}$")
_ASSIGNED = re.compile(
    r"(?:^|(?<=[;&|(])|(?:(?<=\{)|(?<=\bthen)|(?<=\bdo)|(?<=\belse))(?=[ \t]))[ \t]*"
    r"(?:[-@+]?(?:Environment=[ \t]*|(?:export|local|readonly|declare|typeset|set|setx|env|ENV|ARG|const|"
    r"let|var|my|override|define|alias)(?:[ \t]+|(?=\"))(?:-\w+[ \t]+)*))?"
    r"[\"']?(?:\$(?:env:|global:|script:)?)?([A-Za-z_]\w*(?:[.-][\w.-]*\w(?=[ \t]*[:+?]?=))?)[\"']?"
    r"(?::[ \t]*[\w\[\], &'<>]+(?= =))?"
    r"([ \t]*(?:\+=|:=|::=|\?=|=(?![=~])))[ \t]*",
    re.M,
)
# fish and Tcl: `set -l img disk.img`
_SET = re.compile(r"^[ \t]*set[ \t]+(?:-[a-zA-Z]+[ \t]+)*([A-Za-z_]\w*)[ \t]+(?=[\"'\w~/.$-])", re.M)
_GIVEN = re.compile(r"^[ \t]*set[ \t]+--[ \t]+(?=\S)", re.M)
_DEFAULT = re.compile(r"\$\{([A-Za-z_]\w*)(:?)=([^{}$`]*)\}")
_VARIABLE = re.compile(
    r"[\"']?(?:\$\{?|\$\(|%)(?:env:)?([A-Za-z_]\w*)(?:\[[@*]\])?(?::[-=][^}]*)?[})%]?[\"']?(?=[\s\"'`;]|$)"
)
# a list of strings whose first is a variable: [QEMU, "-m", …]
_LISTED = re.compile(r"(?<=[\[(])\s*((?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*))\s*,(?=\s*[rfbuRFBU]?[\"'`]--?[A-Za-z])")
_PUSHED = re.compile(
    r"\b([A-Za-z_]\w*)(?:\.(?:extend|append|push|add|addAll|push_back|emplace_back)\(|[ \t]*<<[ \t]*(?=\"))"
)
_FILLS = re.compile(r"\s*(?:%[ \t]*[\w(]|\.format\()")  # what comes behind a text that something is put into
_SPACED = re.compile(r"(?:[A-Za-z]:)?[\\/](?:(?! -)[^\n])*")  # a path that may have blanks in it
_ARGUMENTS = re.compile(r"[\"']?\s+-arg(?:umentlist|s)\s+(?=\S)", re.I)  # of PowerShell's Start-Process
_FORMAT = re.compile(r"(?<!\w)(?:[rR]?[fF]|[fF][rR])(\"\"\"|''')(.*?)\1", re.S)
MOST, EVENTS = 200, 4000  # commands of a text; places of it that are looked at
_LISTS = frozenset(("version", "h", "help"))


class Foreign(Exception):
    """The only command is that of another processor's QEMU: its name, its line."""


class Command:
    """words after the program; line where it stands; notes what was taken as nothing; tier 0 for what runs, 1 for what
    may be a remark, 2 for what is only said.
    """

    __slots__ = ("line", "notes", "program", "start", "tier", "words")

    def __init__(self, program: str, words: list[Word], start: int, line: int, tier: int, notes: list[str]) -> None:
        self.program, self.words, self.start, self.line, self.tier = program, words, start, line, tier
        self.notes = list(dict.fromkeys(notes))

    def gaps(self) -> list[Gap]:
        found: dict[str, Gap] = {}
        for word in self.words:
            for gap in word.gaps:
                found.setdefault(gap.text, gap)
        return list(found.values())

    def shown(self) -> str:
        """The command as one line, cut."""
        import shlex

        words = [
            word.text if not word.gaps else word.text + "".join(gap.text for gap in word.gaps) for word in self.words
        ]
        text = "".join(
            char if char.isprintable() else "?" for char in " ".join([self.program, *map(shlex.quote, words)])
        )
        return text if len(text) <= 100 else text[:99] + "…"

    def argv(self) -> list[str]:
        return [word.text for word in self.words]


def commands(text: str, defines: dict[str, str] | None = None) -> list[Command]:
    """Every QEMU command that runs in a clean text, else every one that is said; none twice. OpenQuote."""
    reader = _Finder(text, defines or {})
    found = reader.find()
    least = min((command.tier for command in found), default=0)
    kept: dict[tuple[str, ...], Command] = {}
    for command in found:
        if command.tier == least:
            kept.setdefault((*command.argv(), *(gap.text for gap in command.gaps())), command)
    if not kept and reader.foreign:
        raise Foreign(*reader.foreign[0])
    return sorted(kept.values(), key=lambda command: command.start)


class _Finder:
    def __init__(self, text: str, defines: dict[str, str]) -> None:
        self.text, self.defines = text, defines
        self.values: Values = dict(defines)
        self.shell = Shell(text, self.values, takes)
        rules = re.search(r"(?m)^[\w.%/$(){} -]+:(?![=:/\\])[^\n]*\n(?:[ \t]*#[^\n]*\n)*\t", text)
        self.shell.make = bool(rules)
        windows = (
            r"\.exe\b|\^[ \t]*\n|\b[A-Za-z]:\\\w|[A-Za-z]:/\w.*\.exe|"
            r"(?i:^[ \t]*(?:@?(?:echo off|rem |set \w+=|setlocal\b)|echo\.$|goto :?\w+$|"
            r"if (?:not )?(?:exist |errorlevel |/i |\"%)))"
        )
        self.shell.windows = re.search(f"(?m){windows}", text) is not None and not text.startswith("#!")
        self.shell.systemd = re.search(r"(?m)^ExecStart(?:Pre)?=", text) is not None
        self.shell.tcl = re.search(r"(?m)^[ \t]*(?:eval[ \t]+)?(?:spawn|exec)[ \t]", text) is not None and (
            re.search(r"(?m)\A#!.*\b(?:expect|tclsh|wish)|^[ \t]*expect[ \t]+[\"{-]", text) is not None
        )
        self.script = text.startswith("#!")
        self.formats = [match.span(2) for match in _FORMAT.finditer(text)]  # Python's, over many lines
        self.foreign: list[tuple[str, int]] = []
        self.wrappers = functions.wrappers(text, _PROGRAM)
        self.events = self._events()
        self.held: list[Command] = []
        self.later: list[str] = []  # notes for every command
        self.open: OpenQuote | None = None  # the first
        self.kept: dict[str, tuple[int, int]] = {}  # a variable that holds a command → where it does
        self.lists = Lists(self.shell, self.kept, self._assign_between)

    # --- in the order of the text ------------------------------------------------------------------------------------

    def find(self) -> list[Command]:
        if self._bare():
            words, _ = self.shell.words(self._first())
            return [Command("", words, 0, self.shell.line(self._first()), 0, self.shell.notes)]
        found: list[Command] = []
        self._look(0, len(self.text), found)
        for name in list(self.kept):
            self._hold(name)
        found += self.held
        if not found and self.open is not None:
            raise self.open
        for command in found:
            command.notes += [note for note in self.later if note not in command.notes]
        return [command for command in found if not self._only_asks(command.words)]

    def _hold(self, name: str) -> None:
        try:
            held = self._held(name, self.kept.pop(name)[0])
        except OpenQuote as error:
            self._left_open(error)
            return
        if held is not None:
            self.held.append(held)

    def _left_open(self, error: OpenQuote) -> None:
        self.open = self.open or error
        self.later.append(f"line {error.line}: {error}; the command there is left out")

    def _look(self, low: int, high: int, found: list[Command], depth: int = 0) -> None:
        """Through a part of the text: all of it, or the body of a function that is called."""
        done = low
        for kind, match in self.events:
            at = match.start(1) if kind in ("called", "listed") else match.start()
            if not done <= at < high or len(found) >= MOST:
                continue
            if any(low < each.start <= at < each.end for each in self.wrappers):
                continue  # where it is called
            self.shell.spend(500 if kind == "program" else 2000 if kind in ("variable", "called") else 50)
            if kind == "called":
                function = next(each for each in self.wrappers if match in each.calls)
                words, done = self.shell.words(match.end())
                if depth < functions.DEEPEST:
                    with functions.given(self.values, words):
                        behind, self.assigned = self.assigned, function.start
                        self._look(function.start, function.end, found, depth + 1)
                        self.assigned = behind
            elif kind == "shift":
                left = self.values.get("@")
                if depth and isinstance(left, list):
                    functions.take(self.values, left[int(match[1] or 1) :])
            elif kind == "assigned":
                self._assign(match)
            elif kind == "pushed":
                before = self.values.get(match[1])
                streamed = match[0][-1] != "("
                if before is None and streamed and re.search(rf"\bQStringList {match[1]}\b", self.text):
                    before = []
                if isinstance(before, list) and "//" not in self.text[self.text.rfind("\n", 0, at) + 1 : at]:
                    self.values[match[1]] = before + Listing(self.shell, match.end(), inside=not streamed).read()[0]
            elif kind == "set":
                self._set(match)
            elif kind == "given":
                self.values["@"] = self.values["*"] = self.shell.words(match.end())[0]
            elif kind == "default":
                if self.values.get(match[1]) is None or match[2] and not self.values[match[1]]:
                    self.values[match[1]] = match[3]
            else:
                try:
                    command = self._started(kind, match)
                except OpenQuote as error:
                    self._left_open(error)
                    continue
                if command is not None:
                    found.append(command)
                    done = max(done, self.end)

    def _started(self, kind: str, match: re.Match[str]) -> Command | None:
        self.shell.notes = []
        if kind == "variable":
            return self._of_variable(match)
        if kind == "listed":
            return self._of_list(match)
        inside = any(low <= match.start() < high for low, high in self.kept.values())
        return None if inside else self._of_program(match)

    def _first(self) -> int:
        match = re.match(r"(?:[ \t]*(?:#[^\n]*)?\n)*[ \t]*", self.text)
        return match.end() if match else 0

    def _bare(self) -> bool:
        """Options alone."""
        match = re.compile(r"['\"]?--?([A-Za-z][\w-]*)(?=[\s'\"\\=]|$)").match(self.text, self._first())
        return match is not None and takes(match[1]) is not None and not _PROGRAM.search(self.text, 0, match.start())

    def _events(self) -> list[tuple[str, re.Match[str]]]:
        events = [(match.start(1), "assigned", match) for match in _ASSIGNED.finditer(self.text)]
        events += [(match.start(), "default", match) for match in _DEFAULT.finditer(self.text)]
        events += [(match.start(), "given", match) for match in _GIVEN.finditer(self.text)]
        if not self.shell.windows:
            events += [(match.start(1), "set", match) for match in _SET.finditer(self.text)]
        events += [(match.start(), "program", match) for match in _PROGRAM.finditer(self.text)]
        events += [(match.start(), "variable", match) for match in _VARIABLE.finditer(self.text)]
        events += [(match.start(1), "listed", match) for match in _LISTED.finditer(self.text)]
        events += [(match.start(1), "pushed", match) for match in _PUSHED.finditer(self.text)]
        if self.wrappers:
            events += [(call.start(1), "called", call) for each in self.wrappers for call in each.calls]
            events += [(match.start(), "shift", match) for match in functions.SHIFT.finditer(self.text)]
        events.sort(key=lambda event: (event[0], event[1] not in ("called", "listed")))  # which may have QEMU's name
        return [(kind, match) for _, kind, match in events[:EVENTS]]

    # --- variables ---------------------------------------------------------------------------------------------------

    def _assign_between(self, low: int, high: int) -> None:
        for kind, match in self.events:
            if kind == "assigned" and low <= match.start() < high:
                self._assign(match)

    def _assign(self, match: re.Match[str]) -> None:
        name, operator, at = match[1], match[2].strip(), match.end()
        grows = re.compile(rf"(?:\$?{name}[ \t]*(?:\+|\.)|append\({name},)[ \t]*").match(self.text, at)
        if grows is not None and name in {**self.values, **self.kept}:  # cmd = cmd + "…", Go's append
            operator, at = "+=", grows.end()
        value, end = self._value(at, self._to_the_end(match, operator))
        if grows is not None and grows[0][0] == "a":
            value, end = Listing(self.shell, at, inside=True).read()
        if name in self.defines:
            return
        program = _PROGRAM.search(self.text, at, end)
        if program is not None and _FOREIGN.match(program[0]):
            self.foreign.append((program[0], self.shell.line(at)))
            if name in self.kept:
                self._hold(name)
        elif program is not None:
            opening = self.text[at + self.text.startswith("(", at) * (not match[2][:1].isspace()) : program.start()]
            goes_on = re.compile(r"(?:[ \t]|[\\^`]{1,2}[ \t]*\n)+--?[A-Za-z]").match(self.text, end)
            if (goes_on or name.startswith("Exec")) and opening.rpartition("/")[0] == opening[:-1]:
                return  # a key, and the command itself
            lines = "\n" in opening.strip("\"'rbfuRBFU \t\n\\")  # a script, whose commands stand for themselves
            if not lines and not re.search(r"[()\[\]{}`]", opening) and not self._option_before(program.start(), at):
                if operator == "=" and name in self.kept:  # each is one
                    self._hold(name)
                self.kept.setdefault(name, (at, end))
        self.assigned = max(self.assigned, end)
        if operator == "+=" and value is None and name in {**self.values, **self.kept}:
            self.later.append(f"line {self.shell.line(at)}: what is added to {name} there is not known; left out")
            return
        if operator == "+=" and name in self.values:
            before = self.values[name]
            if isinstance(before, str) and isinstance(value, str):
                value = f"{before} {value}" if match[2][:1].isspace() or value[:1] == "-" else before + value
            elif isinstance(before, list) and isinstance(value, list):
                value = before + value
            elif isinstance(before, list) and isinstance(value, str):
                value = [*before, Word(value)]
        elif operator == "?=" and name in self.values:
            return
        if value is None or self.shell.windows and isinstance(value, str) and value[:2] == "%%":  # of a for
            self.values.pop(name, None)
        else:
            self.values[name] = value
        self._assign_more(end)

    def _set(self, match: re.Match[str]) -> None:
        name, end = match[1], self.text.find("\n", match.end())
        words = Shell(self.text[: end if end >= 0 else None], self.values, lambda name: None).words(match.end())[0]
        if name not in self.defines and not any(word.gaps for word in words):
            self.values[name] = words if len(words) > 1 else words[0].text if words else ""

    def _assign_more(self, at: int) -> None:
        """A=1 B=2: the next of one line."""
        while (match := re.compile(r"[ \t]+([A-Za-z_]\w*)=(?=[^\s=(])").match(self.text, at)) is not None:
            value, at = self._shell_value(match.end())
            if match[1] not in self.defines and value is not None:
                self.values[match[1]] = value
            if at <= match.end():
                return

    def _to_the_end(self, match: re.Match[str], operator: str) -> bool:
        """Whether a value is all the rest of its line, as make and most languages have it, and the shell has not."""
        spaced = match[2][:1].isspace() or operator in (":=", "::=", "?=")
        return bool(spaced) or self.shell.make and match[0][:1] not in (" ", "\t", ";", "&")

    def _option_before(self, at: int, start: int) -> bool:
        """`accel=kvm` in OPTS="-machine accel=kvm" is no program."""
        return (
            re.search(r"(?:^|\s|[\"'(])--?\w", self.text[start:at]) is not None
            or self.text[at - 1 : at] in "=,"
            and at > start
        )

    def _value(self, at: int, whole_line: bool) -> tuple[str | list[Word] | None, int]:
        """(what stands after an equals sign, where it ends); None for what is not known."""
        text = self.text
        if text.startswith("(", at) and not whole_line:
            end = bracket(text, at)
            return self._array(at + 1, end), end + 1
        if FORMATS.match(text, at):
            given = Listing(self.shell, at)
            return given.value(), given.at
        if (rust := re.compile(r"(?:&(?:mut )?)?vec!\[|&\[").match(text, at)) is not None:
            return Listing(self.shell, rust.end()).read()
        if text.startswith(("[", "@("), at):
            typed = re.compile(r"\[\]\w+\{").match(text, at)
            return Listing(self.shell, typed.end() if typed else at + (1 if text[at] == "[" else 2)).read()
        if re.compile(r"[rbfuRBFU]?(\"\"\"|''')").match(text, at):
            quote = re.compile(r"[rbfuRBFU]?(\"\"\"|''')").match(text, at)
            assert quote is not None
            end = text.find(quote[1], quote.end())
            known = end >= 0 and not _FILLS.match(text, end + 3)
            return (text[quote.end() : end] if known else None, end + 3) if end >= 0 else (None, at)
        literal = re.compile(r"[rbfuRBFU]?([\"'])").match(text, at) if whole_line else None
        if literal is not None:
            words, end = Listing(self.shell, at).read(one=True)
            return (words[0].text, end) if words and not words[0].gaps else (None, end)
        if whole_line:
            end = at
            while end < len(text) and text[end] != "\n":
                end += 2 if text[end] == "\\" else 1
            found = re.sub(r"\\\n[ \t]*", " ", text[at:end])
            found = re.sub(r"(?:^|\s)#.*", "", found).strip()
            return found, end
        line = text[text.rfind("\n", 0, at) + 1 : at]
        if self.shell.windows and re.match(r"\s*@?setx?\s", line, re.I):
            end = text.find("\n", at)
            end = end if end >= 0 else len(text)
            value = text[at:end].strip()  # set "A=…" is quoted as a whole, set A="…" its value
            return value.rstrip('"') if value.count('"') % 2 else value, end
        return self._shell_value(at)

    def _shell_value(self, at: int) -> tuple[str | None, int]:

        reader = Reader(self.shell, at)
        notes = self.shell.notes
        try:
            while reader.at < len(self.text) and self.text[reader.at] not in " \t\n;|&)" and reader.at - at < 1 << 17:
                char = self.text[reader.at]
                if char in "\\^`" and reader._goes_on():
                    continue
                if char in "<>(":
                    reader._put(char)
                    reader.at += 1
                    continue
                reader._quoted(char) if char in "'\"" else reader._plain(char)
        except OpenQuote:
            return None, at
        self.shell.notes = notes
        words = [*reader.found, *([reader.word] if reader.word is not None else [])]
        if any(word.gaps for word in words):
            return None, reader.at
        return re.sub(r"\\\n\s*", " ", " ".join(word.text for word in words)), reader.at

    def _array(self, start: int, end: int) -> list[Word]:
        """The words between a shell array's brackets, over all its lines."""
        words: list[Word] = []
        inner = Shell(self.text[:end], self.values, lambda name: None)
        inner.left = self.shell.left
        inner.spend(end - start)
        at = start
        while at < end:
            if inner.text[at] in " \t\n":
                at += 1
                continue
            found, after = inner.words(at)
            words += found
            at = max(after, at + 1)
        return words

    # --- commands ----------------------------------------------------------------------------------------------------

    end = assigned = 0

    def _of_variable(self, match: re.Match[str]) -> Command | None:
        name = match[1]
        value = self.values.get(name)
        first = value.split() if isinstance(value, str) else [word.text for word in value or []]
        around = Around(self.text, match.start())
        place = _program_at(first)
        given = _ARGUMENTS.match(self.text, match.end()) is not None  # Start-Process -FilePath $qemu -ArgumentList …
        if place < 0:
            unknown = value is None or isinstance(value, str) and value[:1] == "%"  # a variable of for
            named = re.search(r"qemu|kvm", name, re.I) is not None and unknown
            after = re.compile(r"[ \t]+(?:\\\n[ \t]*)?--?([A-Za-z][\w-]*)").match(self.text, match.end())
            if not (named and (given or after and takes(after[1]) is not None)):
                return None
        elif (
            around.about
            or (not around.empty and not around.runs and not given)
            or (
                len(first) == 1
                and around.quote
                and match.end() <= len(self.text)
                and self.text[match.end() - 1] == around.quote
            )
        ):
            return None
        if around.remark and self.script:
            return None
        if match.start() < self.assigned and self.text[match.start() - 1] not in "(`" and not given:
            return None
        value = "" if place < 0 else value
        before = self.shell.inner(value, self.shell.line(match.start())) if isinstance(value, str) else value or []
        words, self.end = self._read(match.end(), around)
        self.kept.pop(name, None)
        at = _program_at([word.text for word in before])
        rest = [*before, *words][(at if at >= 0 else place) + 1 :]
        return Command(
            name, _together(rest, around.rows), match.start(), self.shell.line(match.start()), 0, self.shell.notes
        )

    def _of_list(self, match: re.Match[str]) -> Command | None:
        value = self.values.get(match[2])
        named = value is None and re.search(r"qemu|kvm", match[2], re.I) is not None
        if not (named or isinstance(value, str) and _program_at([value.strip()]) == 0):
            return None
        around = Around(self.text, match.start(1))
        if around.remark and self.script:
            return None
        words, self.end = self.lists.grown(Listing(self.shell, match.end()).read(), around)
        if not words or words[0].text[:1] == "-" and takes(words[0].text.lstrip("-")) is None:
            return None
        self.kept.pop(match[2], None)
        return Command(match[2], words, match.start(1), self.shell.line(match.start(1)), 0, self.shell.notes)

    def _of_program(self, match: re.Match[str]) -> Command | None:
        text, name = self.text, match[1].lower()
        start = match.start()
        while start and text[start - 1] not in " \t\n'\"`=,;|&()<>[]{}":
            start -= 1
        if not re.search(r"^[-@+!:]*$|[/\\:]$", text[start : match.start()]):
            return None
        around = Around(self.text, start)
        if around.quote and _SPACED.fullmatch(text, around.opened + 1, match.start()):
            start = around.opened + 1
            around = Around(text, start)
        computed = _COMPUTED.match(match[0])
        if computed:
            processor = self.values.get(computed[1] or "")
            name = f"qemu-system-{processor.strip() if isinstance(processor, str) else 'x86_64'}"
        if _FOREIGN.match(name):
            after = text[match.end() : match.end() + 3].lstrip("'\" ,")
            if after[:1] == "-" and not around.about:
                self.foreign.append((match[0], self.shell.line(start)))
            return None
        if around.about or text[start : match.start()] in ("/dev/", "/sys/module/", "/etc/"):
            return None
        if around.remark and self.script:
            return None
        tier = 2 if around.says or around.remark > 1 else around.remark
        strong = around.empty or around.runs
        listing = self.lists.after(match, around)
        if listing is not None:
            words, self.end = listing
            if words and _program_at([words[0].text]) == 0:
                words = words[1:]  # execve has the name twice
            lead = words[0] if words else Word()
            spoken = words and lead.text[:1] != "-" and (not lead.gaps or _PROGRAM.search(lead.gaps[0].text))
            if spoken and (name in _LOOSE or not (lead.gaps or _FILE.search(lead.text))):
                return None  # a label
            if len(words) == 1 and not lead.gaps and re.match(r"--?[A-Za-z][\w-]*\s+\S", lead.text):
                words = self.shell.inner(lead.text, self.shell.line(start))  # C#: all arguments in one string
            return self._command(match, words, start, tier) if words else None
        words, self.end = self._read(match.end(), around)
        while words and words[0].text == "--":
            words = words[1:]
        first = words[0] if words else None
        if first is None:
            alone = not around.empty_with_mark and around.empty and not around.quote and name not in _LOOSE
            rest = text[max(0, around.line - 4096) : around.line] + text[self.end : self.end + 4096]
            only = not re.search(r"(?m)^[ \t]*[^\s#]", rest)
            if (
                not (alone and only)
                and not (around.prompted and name not in _LOOSE)
                and not (around.runs and not around.quote)
            ):
                return None
        elif first.text[:1] == "-" or first.gaps and not first.text:
            known = any(word.text[:1] == "-" and takes(word.text.lstrip("-")) is not None for word in words)
            if name in _LOOSE and (around.option or not known and not first.gaps):
                return None
        elif not (strong and _FILE.search(first.text)):
            return None
        if not strong and not around.rows:
            tier = max(tier, 2)
            words = _until_prose(words)
        return self._command(match, _together(words, around.rows), start, tier)

    def _command(self, match: re.Match[str], words: list[Word], start: int, tier: int) -> Command:
        return Command(match[0], words, start, self.shell.line(start), tier, self.shell.notes)

    def _read(self, at: int, around: Around) -> tuple[list[Word], int]:
        """The words from `at` on, inside the quotes that are open there."""
        python = self.shell.python
        self.shell.python = python or any(low <= at < high for low, high in self.formats)
        try:
            return self._read_there(at, around)
        finally:
            self.shell.python = python

    def _read_there(self, at: int, around: Around) -> tuple[list[Word], int]:
        text, quote = self.text, around.quote
        if _ARGUMENTS.match(text, at):
            return self._argument_list(at), self.end
        if not quote:
            return self.shell.words(at)
        body, end = inside(text, at, quote)
        if text[at : at + 1] == quote:  # the name alone is quoted
            return self.shell.words(at + 1)
        glued, end = self._glued(body, end, around)
        printf = re.search(r"%[sd]", glued) and text[end:].lstrip()[:1] == ","
        formats = printf or re.match(r"\s*(?:%|\.format)", text[end:])
        fields = re.search(r"(?<![$\\])\{[A-Za-z_]\w*\}", glued)  # of a text that somebody formats later
        self.shell.python = self.shell.python or around.format or bool(formats or fields)
        return self.shell.inner(glued, self.shell.line(at)), end

    def _glued(self, body: str, end: int, around: Around) -> tuple[str, int]:
        """With the string literals that follow, which a language joins: "a " "b", "a " + b."""
        text = self.text
        while True:
            match = re.compile(
                r"[ \t]*(\.\.?(?=\s)|\+|\\)?\s*(?:([rfbuRFBU]{0,2})([\"'])|(\$?[A-Za-z_][\w.]*\b(?:\([^()\n]*\))?))?"
            ).match(text, end)
            if match is None or not (match[3] or match[4] and match[1] in ("+", "..", ".")):
                return body, end
            if match[4]:
                name = match[4].lstrip("$").partition("(")[0]
                value = self.values.get(name)
                body += value if isinstance(value, str) else "{" + name + "}"
                around.format = around.format or not isinstance(value, str)
                end = match.end()
                continue
            before = body[-1:].isspace() or text[match.end() : match.end() + 1] in " -"
            if (
                match[1] is None
                and "\n" not in match[0]
                and not before
                or text.startswith(match[3] * 3, match.end() - 1)
            ):
                return body, end
            if (
                match[1] is None
                and "\n" in match[0]
                and not re.search(
                    r"[(\[{,=][ \t]*\\?\s*[rfbuRFBU]?$", text[max(0, around.opened - 200) : around.opened]
                )
            ):
                return body, end
            more, end = inside(text, match.end(), match[3])
            body += more
            around.format = around.format or "f" in match[2].lower()

    def _argument_list(self, at: int) -> list[Word]:
        place = _ARGUMENTS.match(self.text, at)
        assert place is not None
        named = re.compile(r"[$@]([A-Za-z_]\w*)").match(self.text, place.end())
        if named is not None:  # PowerShell's variable, a list or a text
            value, self.end = self.values.get(named[1]), named.end()
            if isinstance(value, list):
                return value
            if value is None:
                return [missing(named[0], "a variable", named[1], self.shell.line(at))]
            return self.shell.inner(value, self.shell.line(at))
        words, self.end = Listing(self.shell, place.end()).read(line=True)
        if any(word.gaps for word in words):
            return words
        return self.shell.inner(" ".join(word.text for word in words), self.shell.line(at))  # which are joined

    def _held(self, name: str, start: int) -> Command | None:
        """What a variable holds that nothing seems to run."""
        value = self.values.get(name)
        if value is None:
            words = self._raw(start)
        elif isinstance(value, str):
            words = self.shell.inner(value.strip(), self.shell.line(start))
        else:
            words = value
        place = _program_at([word.text for word in words])
        rest = words[place + 1 :]
        if place >= 0 and not rest:
            apart = [self.values.get(f"{name}{tail}") for tail in ("_args", "_ARGS", "ARGS", "_opts", "_OPTS")]
            said = next((each for each in apart if each), "")
            rest = self.shell.inner(said, self.shell.line(start)) if isinstance(said, str) else said
            packer = re.search(r"(?m)^[ \t]*qemuargs[ \t]*=[ \t]*\[", self.text)
            if not rest and packer is not None:
                rest = Listing(self.shell, packer.end(), inside=True).read()[0]
        if place < 0 or not rest or not (rest[0].text[:1] == "-" or rest[0].gaps or "." in rest[0].text):
            return None
        around = Around(self.text, start)
        if around.remark and self.script:
            return None
        return Command(
            name, _together(rest, False), start, self.shell.line(start), min(around.remark, 2), self.shell.notes
        )

    def _raw(self, start: int) -> list[Word]:
        """The words of a value with gaps in it."""
        end = self.text.find("\n", start)
        quote = self.text[start : start + 1]
        if quote in "\"'" and quote:
            body, _ = inside(self.text, start + 1, quote)
            if self.text.startswith(quote * 3, start):
                close = self.text.find(quote * 3, start + 3)
                body = self.text[start + 3 : close if close >= 0 else None]
                self.shell.python = self.shell.python or _FILLS.match(self.text, close + 3) is not None
            return self.shell.inner(body.strip(), self.shell.line(start))
        format = re.compile(r"[fF]([\"'])").match(self.text, start)
        if format is not None:
            body, _ = inside(self.text, format.end(), format[1])
            self.shell.python = True
            return self.shell.inner(body, self.shell.line(start))
        del end
        return self.shell.words(start)[0]

    def _only_asks(self, words: list[Word]) -> bool:
        """Whether QEMU would only print something."""
        texts = [word.text for word in words]
        asks = {"help", "?"}
        return any(
            text[:1] == "-" and (text.lstrip("-") in _LISTS or after in asks or after.endswith((",help", ",?")))
            for text, after in zip(texts, [*texts, ""][1:], strict=True)
        )


def _program_at(words: list[str]) -> int:
    """The place of the program's name among words that run it, or -1."""
    for at, word in enumerate(words):
        base = re.split(r"[\\/]", word.strip("'\""))[-1]
        match = _PROGRAM.fullmatch(base)
        if match is not None:
            return at
        if (
            word[:1] == "-"
            and at
            and words[at - 1] not in RUNS
            and not any(w.rpartition("/")[2] in RUNS for w in words[:at])
        ):
            return -1
    return -1


def _together(words: list[Word], rows: bool) -> list[Word]:
    """What a process list shows has no quotes: `manufacturer=Red Hat,product=RHEV` becomes one word again."""
    found: list[Word] = []
    for word in words:
        loose = len(found) > 1 and word.text[:1] != "-" and not word.quoted and found[-2].text[:1] == "-"
        if loose and found[-1].text[:1] != "-":
            option = found[-2].text.lstrip("-")
            known = takes(option) is True
            pairs = re.match(r"[^/=]*,[\w-]+=", word.text) is not None
            if known and (
                pairs or rows and (option in ("append", "name") or "," in found[-1].text and "," in word.text)
            ):
                found[-1] = Word(f"{found[-1].text} {word.text}", found[-1].gaps + word.gaps)
                continue
        found.append(word)
    return found


def _until_prose(words: list[Word]) -> list[Word]:
    """Up to a plain word that is no file's name."""
    for at, word in enumerate(words):
        value = at and words[at - 1].text[:1] == "-" and takes(words[at - 1].text.lstrip("-")) is True
        if (
            word.text[:1] != "-"
            and not value
            and not word.gaps
            and not word.quoted
            and not re.search(r"[./]\w", word.text)
        ):
            return words[:at]
    return words


def program_words(words: list[str]) -> list[str]:
    """The arguments of a command that a shell has split: without the program's name and what stands before it."""
    place = _program_at(words)
    if place >= 0:
        return words[place + 1 :]
    while words and re.match(r"[A-Za-z_]\w*=", words[0]):
        words = words[1:]
    return words
