"""Where a QEMU command line begins and ends in what people have it in: logs, scripts, libvirt's .args files, /proc."""

from __future__ import annotations

import os
import re

from vmrun.config import modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PROGRAM = re.compile(r"(?:vmrun-)?qemu(?:-kvm|-system-\w+)?|kvm|qemu-dm")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
# Programs that start another, and may have options of their own.
_NAMES = "sudo env exec nohup nice ionice time setsid taskset numactl chrt strace gdb python3 python screen systemd-run"
_WRAPPERS = frozenset(_NAMES.split())
_END = frozenset(("&", "&&", "|", "||", ";", ";;", ")", "<", ">", ">>", "<<", ">&", "<&", "&>"))


def shell_words(text: str) -> list[str]:
    """The words of the first QEMU command in a text, as a shell would split them; a text without QEMU's name is all
    options. ValueError for a quote that does not close.
    """
    text = re.sub(r"\\\r?\n[ \t]*", " ", text)
    text = re.sub(r"\r?\n[ \t]*(?=--?[A-Za-z])", " ", text)  # no command begins with a dash: a line that was folded
    lines = text.splitlines()
    for at, line in enumerate(lines):
        found = line.lstrip()[:1] != "#" and _start(line.split())
        if found is not False and found >= 0:
            return _statement("\n".join(lines[at:]))
    return program_words(_split(text))


def _statement(text: str) -> list[str]:
    """The words up to the end of the command: a line's end outside quotes, or an operator."""
    lines = text.splitlines()
    for count in range(1, len(lines) + 1):
        try:
            return _whole(program_words(_split("\n".join(lines[:count]))))
        except ValueError:
            if count == len(lines):
                raise
    return []


def _whole(words: list[str]) -> list[str]:
    """What ps shows has no quotes: `manufacturer=Red Hat,product=RHEV` becomes one word again."""
    found: list[str] = []
    for word in words:
        loose = len(found) > 1 and word[0:1] != "-" and found[-1][0:1] != "-" and found[-2][0:1] == "-"
        if loose and re.match(r"[^/=]*,[\w-]+=", word):
            found[-1] += " " + word
        else:
            found.append(word)
    return found


def _split(text: str) -> list[str]:
    import shlex

    # the descriptor of 2> is no word of the command
    text = re.sub(r"(?<=\s)(\d)(?=[<>])", "\x01\\1", text)
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if word in _END and words:
            if words[-1].startswith("\x01"):
                words.pop()
            break
        words.append(word)
    return [word.replace("\x01", "") for word in words]


def _start(words: list[str]) -> int:
    """The place of the program's name, or -1."""
    wrapped = False
    for at, word in enumerate(words):
        name = os.path.basename(word.strip("'\"`(")).rstrip("'\"")
        if _PROGRAM.fullmatch(name):
            return at
        if name in _WRAPPERS:
            wrapped = True
        elif not (wrapped or _ASSIGNMENT.match(word)):
            return -1
    return -1


def program_words(words: list[str]) -> list[str]:
    """The arguments: without what stands before the program's name, and the name."""
    start = _start(words)
    if start >= 0:
        return words[start + 1 :]
    while words and _ASSIGNMENT.match(words[0]):
        words = words[1:]
    return words


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
