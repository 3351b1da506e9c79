"""Options about one run: what the process does, who may look, what is done at events; and those that no guest sees."""

from __future__ import annotations

from vmrun.config.importers.qemuopts import Option, boolean, only, settings
from vmrun.config.importers.state import Line, Opt


def paused(line: Line, option: Option) -> None:
    line.file["paused"] = line.run["paused"] = True


def no_equal(line: Line, option: Option) -> None:
    line.no_equal(option, host=option.name in ("seed", "tdf", "win2k-hack"))


def proxmox(line: Line, option: Option) -> None:
    line.warn(option, "this is Proxmox's own word, which QEMU does not have; no guest sees it")


def host_only(line: Line, option: Option) -> None:
    line.no_equal(option, host=True)


LOG_ITEMS = {"cpu_reset": "show CPU state before CPU resets"}
# what QEMU's translator and devices write down besides
_QEMUS_LOG = frozenset((
    "all", "out_asm", "in_asm", "op", "op_opt", "op_ind", "int", "exec", "cpu", "fpu", "mmu", "pcall", "unimp",
    "guest_errors", "page", "nochain", "plugin", "strace", "tid", "vpu",
))  # fmt: skip


def log(line: Line, option: Option) -> None:
    """-d: what is written down of a run. none asks for nothing."""
    for item in str(option.value).split(","):
        if item in LOG_ITEMS:
            line.run.setdefault("log", []).append(item)
        elif item in _QEMUS_LOG or item.startswith("trace:"):
            line.warn(option, f"'{item}' is of QEMU's own log: nothing is written of it here", item)
        elif item != "none":
            raise option.wrong(f"'{item}' is no log item; there is {', '.join(LOG_ITEMS)}", item)


def trace(line: Line, option: Option) -> None:
    """-trace, -dfilter: no guest can tell, and who asks is told."""
    what = "trace events" if option.name == "trace" else "log of instructions"
    line.warn(option, f"vmrun has none of QEMU's {what}: nothing is written")


def process(line: Line, option: Option) -> None:
    """What the process does; no machine file says it."""
    key = option.name
    line.run[key] = True if option.value is None else option.value


def run_with(line: Line, option: Option) -> None:
    """What later QEMUs have in one option."""
    given = settings(option)
    only(option, given, ("async-teardown", "chroot", "exit-with-parent", "user"))
    for key, value in given.items():
        if key == "chroot":
            line.run["chroot"] = value
        elif key == "user":
            line.run["runas"] = value
        elif boolean(option, key, value):
            if key == "async-teardown":
                line.no_equal(option, key, host=True)
            else:
                line.run[key] = True


ACTIONS = {
    "reboot": ("reset", "shutdown"),
    "shutdown": ("poweroff", "pause"),
    "panic": ("pause", "shutdown", "exit-failure", "none"),
    "watchdog": ("reset", "shutdown", "poweroff", "inject-nmi", "pause", "debug", "none"),
}


def action(line: Line, option: Option) -> None:
    given = settings(option)
    only(option, given, ACTIONS)
    for key, value in given.items():
        if value not in ACTIONS[key]:
            raise option.wrong(f"Parameter '{key}' does not accept value '{value}'", value)
        line.run.setdefault("action", {})[key] = value


def watchdog_action(line: Line, option: Option) -> None:
    if option.value not in ACTIONS["watchdog"]:
        raise option.wrong(f"Parameter 'watchdog' does not accept value '{option.value}'", str(option.value))
    line.run.setdefault("action", {})["watchdog"] = option.value


_CHECKED = {
    "overcommit": ("mem-lock", "cpu-pm"),
    "msg": ("timestamp", "guest-name"),
    "sandbox": ("enable", "obsolete", "elevateprivileges", "spawn", "resourcecontrol"),
}


def checked(line: Line, option: Option) -> None:
    """mem-lock and the sandbox are done; the rest is without effect, but not anything will do."""
    given = settings(option, "enable" if option.name == "sandbox" else "")
    only(option, given, _CHECKED[option.name])
    if option.name == "sandbox":
        _sandbox(line, option, given)
        return
    if boolean(option, "mem-lock", given.pop("mem-lock", "off")):
        line.run["mem-lock"] = True
    for key in given.keys() & {"cpu-pm", "timestamp", "guest-name"}:
        if boolean(option, key, given[key]):
            if option.name == "msg":
                line.run.setdefault("msg", []).append(key)
            else:
                line.no_equal(option, key)


def _sandbox(line: Line, option: Option, given: dict[str, str]) -> None:
    on = boolean(option, "enable", given.pop("enable", "off"))
    for key, value in given.items():
        if value not in (("allow", "deny", "children") if key == "elevateprivileges" else ("allow", "deny")):
            raise option.wrong(f"invalid argument for {key}", value)
    if on:
        line.run["sandbox"] = given


def finish(line: Line) -> None:
    """Nothing is left to do."""


OPTIONS = (
    Opt("id", True, proxmox, "Proxmox's number of the machine"),
    Opt("dtb", True, no_equal, "device tree"),
    Opt("S", False, paused, "do not start: paused"),
    Opt("no-reboot", False, process, "end when the guest resets"),
    Opt("no-shutdown", False, process, "stay when the guest powers off"),
    Opt("action", True, action, "what to do at events"),
    Opt("watchdog-action", True, watchdog_action, "what a watchdog does"),
    Opt("daemonize", False, process, "run in the background"),
    Opt("pidfile", True, process, "write the process id"),
    Opt("nodefaults", False, process, "no default devices"),
    Opt("no-user-config", False, None, "vmrun reads no configuration of its own"),
    Opt("nodefconfig", False, None, "vmrun reads no configuration of its own"),
    Opt("sandbox", True, checked, "host policy"),
    Opt("run-with", True, run_with, "as what the process runs"),
    Opt("runas", True, process, "user to run as, once all is open"),
    Opt("chroot", True, process, "root directory, once all is open"),
    Opt("incoming", True, process, "take the state first: file:PATH, tcp:HOST:PORT, unix:PATH, exec:COMMAND, or defer"),
    Opt("loadvm", True, process, "start from a snapshot inside the images"),
    Opt("overcommit", True, checked, "host policy"),
    Opt("realtime", True, host_only, "host policy"),
    Opt("redhat-disable-KSM", False, host_only, "host policy"),
    Opt("enable-fips", False, host_only, "host policy"),
    Opt("only-migratable", False, host_only, "host policy"),
    Opt("msg", True, checked, "form of messages"),
    Opt("D", True, process, "the file of the log; standard error without"),
    Opt("d", True, log, "what to log: cpu_reset; of QEMU's other items nothing is written"),
    Opt("trace", True, trace, "events of QEMU's own code, of which vmrun has none"),
    Opt("seed", True, no_equal, "seed of QEMU's random numbers"),
    Opt("clock", True, host_only, "host timer"),
    Opt("qtest-log", True, process, "log of the qtest protocol"),
    Opt("dfilter", True, trace, "addresses of QEMU's log"),
    Opt("singlestep", False, host_only, "host policy"),
    Opt("enable-sync-profile", False, host_only, "host policy"),
    Opt("perfmap", False, host_only, "host policy"),
    Opt("compat", True, no_equal, "policy for deprecated parts of the interface"),
    Opt("plugin", True, no_equal, "a plug-in of QEMU's"),
    Opt("preconfig", False, process, "wait for commands before there is a machine"),
    Opt("dump-vmstate", True, no_equal, "write QEMU's own description of devices"),
    Opt("fake-machine", False, no_equal, "a machine without memory"),
    Opt("xen-attach", False, no_equal, "Xen"),
    Opt("xen-domid", True, no_equal, "Xen"),
    Opt("xen-domid-restrict", False, no_equal, "Xen"),
    Opt("writeconfig", True, no_equal, "write QEMU's configuration"),
    Opt("version", False, process, "say the version"),
    Opt("h", False, process, "say the options"),
    Opt("help", False, process, "say the options"),
)
