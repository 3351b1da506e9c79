"""The domains in what people have them in: `virsh dumpxml` in a log, a page, a mail, a script, a program's string.

A file that is a domain alone is left as it is, so that what is wrong in it is told of the file itself.
"""

from __future__ import annotations

import re

from vmrun.config.importers.cleaning import decode, unmarked

_OPENS = re.compile(r"<domain(?=[\s>])")
_COMMENTS = r"(?:<!--(?:[^-]|-(?!->))*-->\s*)*"  # with `.*?` there would be 2ⁿ ways to read n of them
_ALONE = re.compile(rf"\s*(?:<\?xml.*?\?>\s*)?{_COMMENTS}<domain(?=[\s>]).*</domain>\s*{_COMMENTS}", re.S)
_CURLY = re.compile("(=\\s*)(?:[“”„‟]([^“”„‟\"<>]*)[“”„‟]|[‘’‚‛]([^‘’‚‛'<>]*)[‘’‚‛])")  # what an editor made of quotes
_NAME = re.compile(r"<name>\s*([^<]*?)\s*</name>")


class Domain:
    """data: the XML, its lines where they stand in the file; name: the domain's own, '' when it has none."""

    __slots__ = ("data", "line", "name")

    def __init__(self, data: bytes, line: int, name: str) -> None:
        self.data, self.line, self.name = data, line, name


def domains(data: bytes) -> list[Domain]:
    """Every domain of a file; all of the file as one where there is none, for a parser to say what it is."""
    text = decode(data)
    whole = _ALONE.fullmatch(text) and len(_OPENS.findall(text)) == 1
    if whole and not _CURLY.search(text) and "=3D" not in text:
        declared = re.match(rb"\s*<\?xml[^>]*encoding", data) is not None
        kept = declared and data[:2] not in (b"\xff\xfe", b"\xfe\xff")
        return [Domain(data if kept else _undeclared(text), 1, _named(text))]
    text = _plain(text)
    found = []
    at = 0
    while (opened := _OPENS.search(text, at)) is not None:
        end = text.find("</domain>", opened.end())
        at = end + len("</domain>") if end >= 0 else len(text)
        line = text.count("\n", 0, opened.start())
        body = text[opened.start() : at]
        found.append(Domain(("\n" * line + body).encode("utf-8", "surrogateescape"), line + 1, _named(body)))
    return found or [Domain(data, 1, "")]


def _named(text: str) -> str:
    name = _NAME.search(text)
    return name[1] if name else ""


def _undeclared(text: str) -> bytes:
    """As UTF-8, without a declaration that says something else; lines stay."""
    text = re.sub(r"\A(\s*)<\?xml.*?\?>", lambda match: "\n" * match[0].count("\n"), text, flags=re.S)
    return text.encode("utf-8", "surrogateescape")


def _plain(text: str) -> str:
    """Without what pages, mails and programs made of the signs of XML; lines stay where they are."""
    if not _OPENS.search(text) and "lt;domain" in text:
        from html import unescape

        text = unescape(unescape(text) if "&amp;lt;" in text else text)
    text = unmarked(text)
    if re.search(r"<domain[^<>]*\\\"|>(?:\\n)+\s*<|<\\/domain>", text):  # a program's string
        text = text.replace('\\"', '"').replace("\\/", "/").replace("\\n", " ").replace("\\t", " ")
    return _CURLY.sub(lambda match: f'{match[1]}"{match[2]}"' if match[3] is None else f"{match[1]}'{match[3]}'", text)
