"""What stands before a place in a text: whether a command may begin there, in which quotes, and after what word."""

from __future__ import annotations

import re

# what people write before a command that runs, with options and arguments of its own
_RUNS_WORDS = """
    sudo doas env exec nohup nice ionice time setsid taskset numactl chrt strace ltrace gdb python3 python screen
    tmux systemd-run timeout su runuser sh bash zsh dash ash ssh docker podman start call cmd wine eval command
    builtin spawn xvfb-run perf valgrind unshare ip nsenter chroot stdbuf unbuffer script watch xargs flatpak-spawn
    busybox prlimit setarch RUN CMD ENTRYPOINT Start-Process start-stop-daemon daemon cgexec firejail rlwrap dbus-
    run-session vmrun then do else elif if while until ! { nix-shell chpst setpriv catchsegv LC_ALL faketime proot
"""
RUNS = frozenset(_RUNS_WORDS.split())
# what is done about a program without running it
_ABOUT_WORDS = """
    apt apt-get aptitude yum dnf pacman brew zypper emerge apk pip choco scoop winget install remove purge which
    whereis type killall pkill pgrep pidof kill man info grep egrep fgrep rg awk sed ls ln cp mv rm chmod chown
    chgrp setcap test [ [[ dpkg rpm file ldd readlink realpath update-alternatives usermod adduser addgroup groupadd
    gpasswd modprobe lsmod rmmod insmod service systemctl virsh ./configure git hash mkdir touch stat du tar pull
    push source mknod useradd tail less
"""
ABOUT = frozenset(_ABOUT_WORDS.split())
SEEKS = frozenset(("grep", "egrep", "fgrep", "rg", "pgrep", "pkill", "killall"))  # what they seek may be quoted
_SAYS_WORDS = """
    echo printf print log info warn warning puts console.log write-host
"""
SAYS = frozenset(_SAYS_WORDS.split())
# before a text that something is put into: Python's f"…", Rust's format!("…
FILLED = re.compile(
    r"(?<!\w)(?:[rb]?f[rb]?|(?:e?print(?:ln)?|format|write(?:ln)?|info|warn|error|debug|trace)!\((?:\w+, )?)$", re.I
)
REMARK = re.compile(r"(?:rem\b|::|//|--(?=\s)|;|<!--|'(?=\s))", re.I)
PROMPT = re.compile(r"^.*?(?:[$#%❯➜»]|(?<=[\w\\\]~)])>)[ \t]+")


_FAR = 4096  # letters before a place that count


def takes(name: str) -> bool | None:
    """Whether the option of that name has a value; None when there is none."""
    from vmrun.config.importers.line import OPTIONS

    found = OPTIONS.get(name)
    return None if found is None else found.has_arg


class Around:
    """What stands before a place on its line: quote is the one that is open there; empty, whether a command may begin
    there; runs, about and says, whether a word before it runs, handles or prints what follows; remark 1 for a `#` that
    may be a prompt, 2 for a comment; rows, whether it is a process list's or a log's row, which has no quotes.
    """

    def __init__(self, text: str, start: int) -> None:
        self.start = start
        self.line = text.rfind("\n", 0, start) + 1
        while self.line > 1 and re.search(
            r"(?:\\|\^)[ \t]*$", text[text.rfind("\n", 0, self.line - 1) + 1 : self.line - 1]
        ):
            self.line = text.rfind("\n", 0, self.line - 1) + 1
        self.line = max(self.line, start - _FAR)
        before = text[self.line : start]
        piece, outer, self.quote, at = segment(before)
        self.opened = self.line + at
        self.before_quote = before[:at] if self.quote else ""
        self.format = FILLED.search(self.before_quote) is not None
        self.remark = remark_level(before, outer)
        self.prompted = bool(PROMPT.match(piece)) and not self.quote
        words = PROMPT.sub("", piece).split()
        self.empty_with_mark = bool(re.match(r"[ \t]*(?:[-*+•]|\d+[.)])[ \t]+", piece))
        plain = [word for word in words if not is_prefix(word)]
        first = plain[0].lstrip("@-+") if plain else ""
        self.runs = bool(plain) and (first in RUNS or first.rpartition("/")[2] in RUNS or first.startswith("Exec"))
        perf = plain.index("perf") + 1 if "perf" in plain else len(plain)  # `perf stat` handles no file
        handles = [word for word in plain[:perf] + plain[perf + 1 :] if word not in RUNS and word[:1] != "-"]
        done = handles[0].lstrip("@+") if handles else ""
        self.about = done in ABOUT or re.search(r"\bcommand -[vV] $", piece) is not None
        self.about = self.about and re.search(r"[A-Za-z]:[ \t]+$", before) is None
        outside = [word for word in PROMPT.sub("", outer).split() if not is_prefix(word)] if self.quote else []
        self.about = self.about or bool(outside) and outside[0].rpartition("/")[2] in SEEKS
        heads = (PROMPT.sub("", outer).split() or [""])[0].lower().lstrip("@-+"), first.lower()
        self.says = bool(SAYS & {head.partition("(")[0] for head in heads})
        tail = piece[-1:]
        self.empty = (
            not plain or tail == "=" and bool(re.fullmatch(r"\S*[A-Za-z_]\w*\s*:?=", piece.strip().rpartition(" ")[2]))
        )
        self.option = len(words) > 0 and (
            words[-1][:1] == "-" and takes(words[-1].lstrip("-")) is True or tail in ("=", ",", ":") and "-" in piece
        )
        rest = text[start : (text.find("\n", start) + 1 or len(text) + 1) - 1]
        row = re.search(r"\b\d{1,2}:\d\d\b|^\s*\S+\s+\d+\s|^\s*\d+\s|\[\d+\]:", before) is not None
        self.rows = (row or not before.strip()) and not re.search(r"['\"\\]", re.sub(r"\{\"[^ ]*", "", rest))
        self.empty = self.empty or bool(row and not self.about and not self.says)


def segment(before: str) -> tuple[str, str, str, int]:
    """(what belongs to the command that may begin here, all outside the open quote, that quote, where it opens)."""
    quote, opened, start, at = "", 0, 0, 0
    outer_start = 0
    while at < len(before):
        char = before[at]
        if char == "\\" and quote != "'":
            at += 1
        elif quote:
            if char == quote:
                quote = ""
            elif char in ";|&(" and quote != "'" or char in ";|&" and quote == "'":
                start = at + 1
        elif char in "'\"`":
            inside = (
                at
                and before[at - 1].isalnum()
                and (before[at + 1 : at + 2].isalnum() or char == "'" and before[at + 1 : at + 2] == " ")
            )
            if before.startswith(char * 3, at):
                start, at = at + 3, at + 2
            elif not (char == "'" and inside) and not (
                char == "`" and at + 1 == len(before.rstrip()) and before.rstrip() != before
            ):
                quote, opened = char, at
                outer_start = start
        elif char in ";|&(" or char == "{" and before[at + 1 : at + 2] in (" ", "\t"):
            start = at + 1
        at += 1
    if quote:
        return before[max(start, opened + 1) :], before[outer_start:opened], quote, opened
    return before[start:], before[start:], "", 0


def remark_level(before: str, outer: str) -> int:
    text = before.strip()
    if text == "#":
        return 1
    if text[:1] == "#" or REMARK.match(text):
        return 2 if not re.match(r"#[ \t]*(?:sudo|exec)?$", text) else 1
    found = re.search(r"(?<=\s)#[ \t]", before)
    if found is not None and before[found.end() :].strip() and not re.search(r"[~\]\w/:]\s?$", before[: found.start()]):
        return 2
    return 0


def is_prefix(word: str) -> bool:
    """What may stand before a command and is none: marks, keys, assignments, times, numbers."""
    return bool(
        re.fullmatch(r"[-*+•@!{([|]+|\d+[.)]|[\"'\[{(]*[\w./-]+[\"']?:|[\"'[]+|\+{1,4}|\|", word)
        or re.match(r"[A-Za-z_]\w*\+?=", word)
        or re.fullmatch(r"[\d:.,/TZ+-]+|\[[\w\d:./ -]*\]?", word)
        or word in ("=", ":=", "=>", "then", "do", "else", "!", "{", "time")
    )


def inside(text: str, at: int, quote: str) -> tuple[str, int]:
    """(what stands up to the closing quote, as it is meant, where it ended)."""
    parts: list[str] = []
    start = at
    nested = False
    while at < len(text):
        char = text[at]
        if char == "\\" and quote == '"' and text[at + 1 : at + 2] in ('"', "\\"):
            # one level of a language's or a shell's escapes
            parts.append(text[at + 1])
            at += 2
            continue
        if (
            char == "\\"
            and text[at + 1 : at + 2] == "n"
            and quote == '"'
            and not re.match(r"[A-Za-z]:\\", text[at - 2 : at + 1])
        ):
            parts.append("\n")
            at += 2
            continue
        if char == quote:
            if quote == "'":
                if text.startswith("'\\''", at):
                    parts.append("'")
                    at += 4
                    continue
                if text[at + 1 : at + 2] == "'" and not nested:
                    parts.append("'")
                    at += 2
                    continue
                opens = at > start and text[at - 1] in " \t" and text[at + 1 : at + 2] not in (" ", "\t", "\n", "", ")")
                if opens or nested:  # Proxmox quotes what has quotes
                    nested = opens
                    parts.append(char)
                    at += 1
                    continue
            return "".join(parts), at + 1
        if char == "\n" and quote == "`":
            return "".join(parts), at
        parts.append(char)
        at += 1
    return text[start:].partition("\n")[0], start + len(text[start:].partition("\n")[0])


def bracket(text: str, at: int) -> int:
    """Where a shell array closes."""
    quote, most = "", min(len(text), at + (1 << 15))
    while at < most:
        char = text[at]
        if char == "\\" and quote != "'":
            at += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "#" and text[at - 1].isspace():
            end = text.find("\n", at)
            at = end if end >= 0 else len(text)
        elif char == ")":
            return at
        at += 1
    return most
