"""vmrun completion: completion for shells and manual pages, made of what the commands say of themselves."""

from __future__ import annotations

TYPE_CHECKING = False

FINE = 0
RUNNING = "vmrun ps 2>/dev/null | awk 'NR > 1 { print $1 }'"
# what follows a command's name, by what its usage calls it
FILES, MACHINES, NOTHING = "files", "machines", "nothing"


class Said:
    """A command as its --help tells of it."""

    __slots__ = ("about", "flags", "help", "name", "operand")

    def __init__(self, name: str, about: str, help: str) -> None:
        import re

        self.name, self.about, self.help = name, about, help
        self.flags = sorted(set(re.findall(r"^ +(?:-\w[ \w]*, )?(--[\w-]+)", help, re.M)) | {"--help"})
        usage = help.partition("\n\n")[0]
        named = re.search(r"\bNAME\b", usage) is not None
        self.operand = MACHINES if named else FILES if re.search(r"\b(FILE|MACHINE|A B)\b", usage) else NOTHING


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

    found = []
    for name, (_, about) in COMMANDS.items():
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            main([name, "--help"])
        found.append(Said(name, about, text.getvalue()))
    return found


def bash(rows: list[Said]) -> str:
    cases = "".join(
        f"        {row.name}) flags='{' '.join(row.flags)}'; operand={row.operand} ;;\n" for row in rows
    )
    return f"""\
# completion of vmrun for bash: source it, or put it into /usr/share/bash-completion/completions/vmrun
_vmrun() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} flags= operand=
    COMPREPLY=()
    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W "{' '.join(row.name for row in rows)}" -- "$word"))
        return
    fi
    case ${{COMP_WORDS[1]}} in
{cases}    esac
    case $word in
        -*) COMPREPLY=($(compgen -W "$flags" -- "$word")) ;;
        *)
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
        lines += [f"complete -c vmrun {seen} -l {flag[2:]}" for flag in row.flags]
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
