"""vmrun completion: completion for shells and manual pages, made of what the commands say of themselves."""

from __future__ import annotations

TYPE_CHECKING = False

FINE = 0
RUNNING = "vmrun ps 2>/dev/null | awk 'NR > 1 { print $1 }'"
# what follows a command's name, by what its usage calls it
FILES, MACHINES, NOTHING = "files", "machines", "nothing"


class Said:
    """A command as its --help tells of it. values: of each option that has a choice, the choice, or FILES; words: what
    may follow the command's name, where that is one of a list; more: the help of its commands of their own.
    """

    __slots__ = ("about", "flags", "help", "name", "operand", "values", "words")

    def __init__(self, name: str, about: str, help: str, more: str = "", words: tuple[str, ...] = ()) -> None:
        import re

        self.name, self.about, self.help = name, about, help
        told = f"{help}\n{more}"
        self.flags = sorted(set(re.findall(r"^ +(?:-\w[ \w]*, )?(--[\w-]+)", told, re.M)) | {"--help"})
        chosen = re.findall(r"^ +(?:-\w[ \w]*, )?(--[\w-]+) \{([\w,-]+)\}", told, re.M)
        self.values = {flag: choice.split(",") for flag, choice in chosen}
        paths = re.findall(r"(--[\w-]+) (?:FILE|PATH|DIR|SAVED|F)\b", told)
        self.values |= dict.fromkeys(paths, [FILES])
        usage = help.partition("\n\n")[0]
        own = re.search(r"^  \{([\w,-]+)\}", help, re.M) or re.search(r" ([\w-]+\|[\w|-]+) ", usage)
        self.words = [*words] or (re.split("[,|]", own[1]) if own else re.findall(r"^  (\w+)$", help, re.M))
        files = re.search(r"\b(FILE|MACHINE|A B)\b", re.sub(r"\[?-\w,? [A-Z]+\]?|--[\w-]+ [A-Z]+", "", usage))
        named = re.search(r"\bNAME\b", usage) is not None and not words
        self.operand = MACHINES if named else FILES if files or more or "COMMAND" in usage else NOTHING


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        "vmrun completion",
        description="Print completion for a shell, to be sourced by it; or write manual pages.",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish", "man"), help="man: pages into the directory --output")
    parser.add_argument("--output", default=".", metavar="DIR", help="where the manual pages go (default: here)")
    args = parser.parse_args(argv)

    from vmrun.cli.out import write

    if args.shell == "man":
        for name, text in pages(commands()).items():
            _store(args.output, name, text)
    else:
        write({"bash": bash, "zsh": zsh, "fish": fish}[args.shell](commands()))
    return FINE


def _store(directory: str, name: str, text: str) -> None:
    import os

    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
        file.write(text)


def commands() -> list[Said]:
    """All, in the order of `vmrun help`."""
    import contextlib
    import io

    from vmrun.cli.main import COMMANDS, main

    def told(*words: str) -> str:
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            main([*words, "--help"])
        return text.getvalue()

    lists = _lists()
    more = {"import": told("import", "qemu") + told("import", "libvirt")}
    return [
        Said(name, about, told(name), more.get(name, ""), lists.get(name, ())) for name, (_, about) in COMMANDS.items()
    ]


def _lists() -> dict[str, tuple[str, ...]]:
    """Of commands that take a name out of a list which their help does not give: those names."""
    from vmrun.cli.img import COMMANDS as IMAGE_COMMANDS
    from vmrun.config.catalogue import load_catalogue
    from vmrun.config.codes import CODES
    from vmrun.config.machinetypes import type_names

    return {
        "init": tuple(sorted(type_names())), "devices": tuple(sorted(load_catalogue().modelled_names())),
        "explain": tuple(sorted(CODES)), "img": tuple(IMAGE_COMMANDS),
    }  # fmt: skip


def bash(rows: list[Said]) -> str:
    cases = "".join(
        f"        {row.name}) flags='{' '.join(row.flags)}'; operand={row.operand}; words='{' '.join(row.words)}' ;;\n"
        for row in rows
    )
    values = "".join(
        f"        {row.name}\\ {flag}) values='{' '.join(choice)}' ;;\n"
        for row in rows
        for flag, choice in row.values.items()
    )
    return f"""\
# completion of vmrun for bash: source it, or put it into /usr/share/bash-completion/completions/vmrun
_vmrun() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} flags= operand= words= values=
    COMPREPLY=()
    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W "{' '.join(row.name for row in rows)}" -- "$word"))
        return
    fi
    case ${{COMP_WORDS[1]}} in
{cases}    esac
    case "${{COMP_WORDS[1]}} ${{COMP_WORDS[COMP_CWORD-1]}}" in
{values}    esac
    if [ "$values" = files ]; then
        COMPREPLY=($(compgen -f -- "$word"))
        return
    elif [ -n "$values" ]; then
        COMPREPLY=($(compgen -W "$values" -- "$word"))
        return
    fi
    case $word in
        -*) COMPREPLY=($(compgen -W "$flags" -- "$word")) ;;
        *)
            if [ -n "$words" ] && [ "$COMP_CWORD" = 2 -o "$operand" = nothing ]; then
                COMPREPLY=($(compgen -W "$words" -- "$word"))
                return
            fi
            case $operand in
                machines) COMPREPLY=($(compgen -W "$({RUNNING})" -- "$word")) ;;
                files) COMPREPLY=($(compgen -f -- "$word")) ;;
            esac ;;
    esac
}}
complete -o filenames -F _vmrun vmrun
"""


def zsh(rows: list[Said]) -> str:
    return f"# completion of vmrun for zsh: source it\nautoload -U +X bashcompinit && bashcompinit\n{bash(rows)}"


def fish(rows: list[Said]) -> str:
    lines = ["# completion of vmrun for fish: put it into ~/.config/fish/completions/vmrun.fish"]
    lines.append("complete -c vmrun -f")
    for row in rows:
        about = row.about.replace("'", "\\'")
        lines.append(f"complete -c vmrun -n __fish_use_subcommand -a {row.name} -d '{about}'")
        seen = f"-n '__fish_seen_subcommand_from {row.name}'"
        lines += [f"complete -c vmrun {seen} -l {flag[2:]}" for flag in row.flags if flag not in row.values]
        for flag, choice in row.values.items():
            value = "-rF" if choice == [FILES] else f"-xa '{' '.join(choice)}'"
            lines.append(f"complete -c vmrun {seen} -l {flag[2:]} {value}")
        if row.words:
            lines.append(f"complete -c vmrun {seen} -a '{' '.join(row.words)}'")
        if row.operand == FILES:
            lines.append(f"complete -c vmrun {seen} -F")
        elif row.operand == MACHINES:
            lines.append(f"complete -c vmrun {seen} -a \"({RUNNING.replace('$', chr(92) + '$')})\"")
    return "\n".join(lines) + "\n"


def pages(rows: list[Said]) -> dict[str, str]:
    """Manual pages by file name: vmrun.1 and one for each command."""
    listed = "".join(
        f".TP\n.B {_roff(row.name)}\n{_roff(row.about)}; see\n.BR vmrun-{_roff(row.name)} (1)\n" for row in rows
    )
    found = {"vmrun.1": _page("vmrun", "run declared virtual PCs", f".SH COMMANDS\n{listed}")}
    for row in rows:
        body = f".SH USAGE\n.nf\n{_roff(row.help.rstrip())}\n.fi\n.SH SEE ALSO\n.BR vmrun (1)\n"
        found[f"vmrun-{row.name}.1"] = _page(f"vmrun-{row.name}", row.about, body)
    return found


def _page(name: str, about: str, body: str) -> str:
    from vmrun import __version__

    return f'.TH {name.upper()} 1 "" "vmrun {__version__}" "vmrun"\n.SH NAME\n{_roff(name)} \\- {_roff(about)}\n{body}'


def _roff(text: str) -> str:
    """Text that troff takes as it is."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").split("\n")
    text = "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in lines)
    return "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in text)
