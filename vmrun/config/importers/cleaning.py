"""Undoes what copying did to a text: the marks of editors, pages, mails and terminals. Lines stay where they are."""

from __future__ import annotations

import re

from vmrun.config.importers import functions

# what a mail or a page has before each line of what it quotes, or a frame around it
_MARK = re.compile(r"(?m)^[ \t]*(?:(?:>[ \t]?)+|[|│┃║][ \t]?)|[ \t]+[│┃║][ \t]*$")
_QUOTED = re.compile(r"(?m)(?:^>[^\n]*(?:\n(?=>)|$)){2,}|(?:^[ \t]*[|│┃║][^\n]*(?:\n(?=[ \t]*[|│┃║])|$)){2,}")
# a script in one string, its line ends written as \n: echo '#!/bin/sh\nqemu-system-…'
_SCRIPT = re.compile(
    r"(?m)^[^\n]*\\{1,2}n(?:exec |sudo )*(?:/[\w./-]*/)?(?:qemu-system-|qemu-kvm |kvm )[^\n]*(?:(?<=\\)\n[^\n]*)*"
)


def _unquoted(match: re.Match[str]) -> str:
    """Without the marks, unless they are a pipeline's: that goes on from the line before."""
    before = match.string[: match.start()].rstrip("\n")
    piped = match[0].lstrip()[:1] == "|" and before.rstrip(" \t").endswith("\\")
    return match[0] if piped else _MARK.sub("", match[0])


def _of_wire(part: str, least: int) -> str:
    """A paragraph of a mail as it went over the wire (RFC 2045, quoted-printable), where no = stands for itself."""
    if part.count("=3D") < least or re.search(r"=(?![0-9A-F]{2}|[ \t]*$)", part, re.M):
        return part
    joined = re.sub(r"=[ \t]*\n", "", part)
    signs = r"(?:=[0-9A-F]{2})+"
    return re.sub(signs, lambda match: bytes.fromhex(match[0].replace("=", "")).decode("utf-8", "replace"), joined)


def _unnumbered(text: str) -> str:
    """Without the numbers of lines that an editor, a page, `cat -n` or `history` has: at least three in a row."""
    rows, start = text.split("\n"), 0
    numbers = [re.match(r"[ \t]*(\d{1,6})(?:[ \t]*[|│:](?![:\d])[ \t]?|\t|[ \t]{1,2}|$)", row) for row in rows]
    while start < len(rows):
        end, first = start, numbers[start]
        while end < len(rows) and first and (here := numbers[end]) and int(here[1]) == int(first[1]) + end - start:
            end += 1
        if end - start >= 3:
            for at in range(start, end):
                found = numbers[at]
                rows[at] = rows[at][found.end() :] if found else rows[at]
        start = max(end, start + 1)
    return "\n".join(rows)


def unmarked(text: str) -> str:
    """Without the marks of terminals, systems and mails, which no kind of text has itself."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07\n]*\x07)", "", text)
    text = re.sub("[\u200b\u200c\u200d\u2060\ufeff\u00ad]", "", text)
    text = re.sub("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\f\v]", " ", text)
    text = re.sub("[\u2028\u2029\x85]", "\n", text)
    if "=3D" in text:
        least = 1 if re.search(r"(?im)^content-transfer-encoding:[ \t]*quoted-printable", text) else 2
        text = "\n\n".join(_of_wire(part, least) for part in text.split("\n\n"))
    text = re.sub(r"(?<=\S)(?:\^@|\x00)(?=\S|$)", " ", text)  # between the words of /proc/…/cmdline
    text = _unnumbered(text)
    text = _QUOTED.sub(_unquoted, text)
    # a mail's long line, cut before a comma; the rest of its row stays below
    return re.sub(r"(?<=[\w)\]])[ \t]*\n[ \t]*(,[a-z][\w.-]*=[^\s\"'`]+)[ \t]*", r"\1\n", text)


def _made(match: re.Match[str]) -> str:
    """What a page's diff makes."""
    rows = ["" if row[:1] == "-" else row[row[:1] == "+" :] for row in match[2].split("\n")]
    return f"{match[1]}```\n{chr(10).join(rows)}{match[1]}```"


def clean(text: str) -> str:
    """Without what an editor, a page, a terminal or a system's line ends added; lines stay where they are."""
    text = unmarked(text)
    text = re.sub("[“”„‟″«»＂]", '"', text)
    text = re.sub("(?<![^\\W_])[‘’‚‛′]|[‘’‚‛′](?![^\\W_])", "'", text)
    text = re.sub(r"(?m)\bby `(.*)'\.?$", r"$ \1", text)  # gdb, of a core
    text = re.sub("[\u2010\u2011\u2212\u2012\ufe58\ufe63\uff0d]", "-", text)
    text = re.sub("[–—―](?=[A-Za-z0-9-])", "-", text)
    text = re.sub(r"(qemu-system-)([\"'])[ \t]*\+[ \t]*([\w.]+)[ \t]*\+[ \t]*\2", r"\1{\3}", text)
    text = _SCRIPT.sub(lambda match: re.sub(r"(?:\\{1,2}n)+", "; ", re.sub(r"(?<=\s)\\{2,}n", "", match[0])), text)
    text = re.sub(r"''(?=\$\{)", "", text)  # Nix, of a $ that is the shell's
    text = re.sub(r"(?ms)^([ \t]*)```diff\n(.*?)^\1```", _made, text)
    if re.search(r"(?m)^@@ .*@@", text):  # a patch: what it makes
        text = "\n".join("" if row[:1] == "-" else row[1:] for row in text.split("\n"))
    if re.search(r"</?(?:pre|code|p|br|div|span|li|td|tt|kbd|nowiki|syntaxhighlight|source|blockquote)\b", text, re.I):
        text = re.sub(r"<br\s*/?>\n?|</p>|</div>|</li>|</pre>", "\n", text, flags=re.I)
        tags = (
            r"</?(?:pre|code|p|div|span|li|ul|ol|td|tr|th|table|tt|kbd|nowiki|syntaxhighlight|source|blockquote|b|i|em|"
            r"strong|a|h\d)\b"
        )
        text = re.sub(tags + r"(?:\s[^<>]*)?>", "", text, flags=re.I)
    if "[Desktop Entry]" in text:
        text = re.sub(r"(?m)^(Exec=.*?)(?:[ \t]+%[fFuUick])+[ \t]*$", r"\1", text)
    for _ in range(2):
        if re.search(r"&(?:quot|amp|lt|gt|nbsp|apos|#39|#x27|#34|#x22);", text, re.I):
            from html import unescape

            text = re.sub(r"&(?:#?\w{2,6});", lambda match: unescape(match[0]), text).replace("\u00a0", " ")
    text = re.sub(r"<exec\b[^<>]*>.*?</exec>|<executable>.*?</arguments>", _of_ant, text, flags=re.S)
    text = re.sub(r"<array>((?:\s*<string>[^<>]*</string>)+)\s*</array>", _of_plist, text)
    text = re.sub(r"\{\{(?:cmd|bc|ic|hc|root|rootcmd|code|kbd)\|(?:1=)?([^{}]*)\}\}", r" \1 ", text, flags=re.I)
    return functions.with_aliases(_here(text))


def _of_ant(match: re.Match[str]) -> str:
    """The command of an Ant <exec> or a Maven <executable> as a shell would have it; other tags of the name stay."""
    import shlex

    text = match[0]
    program = re.search(r"""\bexecutable=["']([^"']+)["']|<executable>\s*([^<>\s]+)""", text)
    if program is None:
        return text
    words = [program[1] or program[2]]
    given = r"""<arg\s+(value|line|file|path)=(["'])(.*?)\2|<argument>\s*([^<>]*?)\s*</argument>"""
    for found in re.finditer(given, text):
        words.append(found[3] if found[1] == "line" else shlex.quote(found[3] or found[4] or ""))
    return " ".join(words) + "\n" * max(1, text.count("\n"))


def _of_plist(match: re.Match[str]) -> str:
    """launchd's ProgramArguments as a shell would have them."""
    import shlex

    words = re.findall(r"<string>\s*([^<>]*?)\s*</string>", match[1])
    return shlex.join(words) + "\n" * match[0].count("\n")


def _here(text: str) -> str:
    """Here-documents whose end is not quoted lose the backslashes that the shell takes out of them."""

    def plain(match: re.Match[str]) -> str:
        return match[1] + re.sub(r"\\([$`\\])", r"\1", match[3]) + match[4]

    document = r"(<<-?[ \t]*([A-Za-z_]\w*)[^\n]*\n)(.*?)(\n[ \t]*\2[ \t]*(?=\n|$))"
    return re.sub(document, plain, text, flags=re.S)


def decode(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "surrogateescape")
