"""Who may import whom: cli → monitor, ui → machine → config, firmware, devices → bus → core → accel."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for top in ("accel", "vmrun")
    for suffix in ("*.py", "*.pyx", "*.pxd")
    for path in (ROOT / top).rglob(suffix)
)
# what each layer may see beside itself; accel, core, errors and the package itself are below everything
EVERYWHERE = ("accel", "vmrun.core", "vmrun.errors")
ALLOWED = {
    "accel": ("accel",),
    "vmrun.core": EVERYWHERE,
    "vmrun.errors": (),
    "vmrun.backends": EVERYWHERE,
    "vmrun.bus": EVERYWHERE,
    "vmrun.config": (
        *("vmrun.errors", "vmrun.core.iolimits", "vmrun.core.quotes", "vmrun.core.values"),
        *("vmrun.__version__", "vmrun"),
    ),
    "vmrun.firmware": (*EVERYWHERE, "vmrun.config.data", "vmrun.config.sections"),
    "vmrun.devices": (*EVERYWHERE, "vmrun.bus", "vmrun.backends.protocols"),
    "vmrun.ui": (*EVERYWHERE,),
    "vmrun.machine": (
        *EVERYWHERE,
        "vmrun.bus",
        "vmrun.backends",
        "vmrun.config",
        "vmrun.firmware",
        "vmrun",
    ),
    "vmrun.monitor": (*EVERYWHERE, "vmrun", "vmrun.config", "vmrun.machine", "vmrun.backends.chardev",
                      "vmrun.backends.objects", "vmrun.backends.block.people"),
    "vmrun.screen": (*EVERYWHERE,),
    "vmrun.asyncscreen": (*EVERYWHERE, "vmrun.handle", "vmrun.screen"),
    "vmrun.conversation": (*EVERYWHERE, "vmrun.monitor"),
    "vmrun.handle": (*EVERYWHERE, "vmrun.conversation", "vmrun.screen", "vmrun.asyncscreen"),
    "vmrun.testing": (*EVERYWHERE, "vmrun.config", "vmrun.machine", "vmrun.monitor"),
    "vmrun.cli": (
        "accel.accelerator",
        "vmrun",
        "vmrun.errors",
        "vmrun.core.fdsets",
        "vmrun.core.keys",
        "vmrun.core.object",
        "vmrun.core.unixsocket",
        "vmrun.backends.block",
        "vmrun.backends.objects",
        "vmrun.config",
        "vmrun.firmware",
        "vmrun.machine",
        "vmrun.monitor",
        "vmrun.screen",
        "vmrun.conversation",
        "vmrun.handle",
        "vmrun.ui",
    ),
    "vmrun.__main__": ("vmrun.cli",),
    "vmrun": ("vmrun", "vmrun.config.api", "vmrun.conversation", "vmrun.errors", "vmrun.handle"),
}


def layer_of(module: str) -> str:
    found = [name for name in ALLOWED if module == name or module.startswith(f"{name}.")]
    return max(found, key=len) if found else ""


def imports_of(path: str) -> set[str]:
    text = (ROOT / path).read_text(encoding="utf-8")
    if not path.endswith(".py"):
        return set().union(*re.findall(r"^\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+))", text, re.M)) - {""}
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            if node.module == "vmrun":  # `from vmrun import machine` is an import of vmrun.machine
                found |= {f"vmrun.{alias.name}" for alias in node.names if alias.name != "__version__"}
    return found


ON_TERMINAL = ("vmrun/cli/up", "vmrun/cli/qemu", "vmrun/cli/console", "vmrun/cli/runner")


@pytest.mark.parametrize("path", SOURCES)
def test_a_module_imports_only_what_its_layer_may_see(path: str) -> None:
    module = path.rsplit(".", 1)[0].replace("/", ".").removesuffix(".__init__")
    layer = layer_of(module)
    wrong = []
    for name in imports_of(path):
        if name.split(".")[0] not in ("accel", "vmrun") or layer_of(name) == layer:
            continue
        if not any(name == able or (able != "vmrun" and name.startswith(f"{able}.")) for able in ALLOWED[layer]):
            if path.startswith(ON_TERMINAL) and name.startswith("vmrun.backends.chardev."):
                continue  # the terminal that the command runs on
            wrong.append(name)
    assert wrong == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path.startswith("vmrun/devices/")])
def test_a_device_imports_no_other_devices_folder(path: str) -> None:
    folder = path.split("/")[2]
    others = {name for name in imports_of(path) if name.startswith("vmrun.devices.") and name.split(".")[2] != folder}
    assert others == set() or path == "vmrun/devices/catalogue.py"


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.endswith(".py") and not path.startswith("vmrun/cli/")]
)
def test_nothing_below_the_cli_prints_or_exits(path: str) -> None:
    if path in ("vmrun/devices/catalogue.py", "vmrun/__main__.py"):
        return  # run by hand
    if path == "vmrun/core/loop.py":
        return  # the last resort for a callback that raises while nobody has said who wants to know
    calls = {
        node.func.id
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"print", "exit", "quit"}


# --- circles ------------------------------------------------------------------------------------------------------

# One thing in several files: the others are what the first does seldom.
_QCOW2 = ("qcow2", "qcow2_snapshots", "qcow2_bitmaps")
PAIRS = (
    {f"vmrun.backends.block.{name}" for name in _QCOW2},
    {"accel.soft.task", "accel.soft.transfer"},
)


def needs_of(path: str, modules: dict[str, str]) -> set[str]:
    """Our modules that a file needs at any time: lazily too, but not for the sake of types."""
    text = (ROOT / path).read_text(encoding="utf-8")
    wanted: list[tuple[str, list[str]]] = []
    if not path.endswith(".py"):
        for module, names in re.findall(r"^\s*from\s+([\w.]+)\s+c?import\s+([\w, ]+)", text, re.M):
            wanted.append((module, [name.split()[0] for name in names.split(",") if name.strip()]))
    else:
        tree = ast.parse(text)
        blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
        typing = {id(node) for block in blocks for node in ast.walk(block)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing:
                wanted.append((node.module, [alias.name for alias in node.names]))
            elif isinstance(node, ast.Import) and id(node) not in typing:
                wanted += [(alias.name, []) for alias in node.names]
    found = set()
    for module, names in wanted:
        parts = {f"{module}.{name}" for name in names}
        found |= parts & modules.keys()
        if not parts or parts - modules.keys():  # a name of the module itself
            found.add(module)
    return found & modules.keys()


def circles(needs: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules that need each other."""
    reach = {name: set(others) for name, others in needs.items()}
    changed = True
    while changed:
        changed = False
        for others in reach.values():
            more = set().union(*(reach[other] for other in others)) - others if others else set()
            if more:
                others |= more
                changed = True
    rings = {frozenset({name} | {o for o in reach[name] if name in reach[o]}) for name in reach if name in reach[name]}
    return [set(ring) for ring in rings if len(ring) > 1]


def test_modules_do_not_need_each_other_in_a_circle() -> None:
    modules = {}
    for path in SOURCES:
        if not path.endswith(".pxd"):
            name = path.rpartition(".")[0].replace("/", ".").removesuffix(".__init__")
            modules[name] = path
    needs = {name: needs_of(path, modules) - {name} for name, path in modules.items()}
    assert len(needs) > 300
    assert [sorted(ring) for ring in circles(needs) if ring not in PAIRS] == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]
