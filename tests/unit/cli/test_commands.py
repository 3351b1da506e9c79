"""The commands: what they print, on which stream, and their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vmrun.cli.main import COMMANDS
from vmrun.config.machinetypes import type_names

from .conftest import HEAD, Run

GOOD = HEAD + "serial: pty\n"
BAD = HEAD + "memroy: 1GiB\ndevices:\n  - {driver: isa-debugcon, iobase: 0x70}\n"


def test_version_goes_to_stdout(vmrun: Run) -> None:
    from vmrun import __version__

    assert vmrun("--version") == (0, f"vmrun {__version__}\n", "")


def test_help_lists_every_command(vmrun: Run) -> None:
    code, out, _ = vmrun("--help")
    assert code == 0
    assert all(f"\n  {name} " in out for name in COMMANDS)


def test_no_command_is_a_usage_error(vmrun: Run) -> None:
    assert vmrun()[0] == 2


def test_unknown_command_names_the_nearest(vmrun: Run) -> None:
    code, out, err = vmrun("valdate")
    assert (code, out) == (2, "")
    assert "did you mean 'validate'?" in err


@pytest.mark.parametrize("name", ["init", "validate", "resolve", "types", "devices", "schema", "explain"])
def test_every_command_helps(vmrun: Run, name: str) -> None:
    code, out, _ = vmrun(name, "--help")
    assert code == 0
    assert out.startswith(f"usage: vmrun {name}")


def test_wrong_option_is_a_usage_error(vmrun: Run) -> None:
    assert vmrun("validate", "--nonsense", "x.yaml")[0] == 2


def test_validate_of_a_good_file(vmrun: Run) -> None:
    Path("m.yaml").write_text(GOOD)
    assert vmrun("validate", "m.yaml") == (0, "m.yaml: fine\n", "")


def test_validate_of_a_bad_file_tells_all(vmrun: Run) -> None:
    Path("m.yaml").write_text(BAD)
    code, out, err = vmrun("validate", "m.yaml")
    assert (code, err) == (1, "")
    assert out.startswith("m.yaml:3:1: error VR0201: unknown key 'memroy'\n")
    assert "\nm.yaml:5:36: error VR0512: " in out
    assert out.endswith("\nm.yaml: 2 errors\n")


def test_validate_of_warnings_is_fine(vmrun: Run) -> None:
    Path("m.yaml").write_text(HEAD + "chardevs: {c: {type: pty}}\n")
    code, out, err = vmrun("validate", "m.yaml")
    assert (code, err) == (0, "")
    assert out.startswith("m.yaml:3:12: warning VR0611: ") and out.endswith("\nm.yaml: 1 warning\n")


def test_validate_looks_at_files_unless_told_not_to(vmrun: Run) -> None:
    Path("m.yaml").write_text(HEAD + "disks: [a.img]\n")
    assert vmrun("validate", "m.yaml")[0] == 3  # the host's fault
    assert vmrun("validate", "--no-files", "m.yaml")[0] == 0


def test_validate_of_several_files_is_no_if_one_is(vmrun: Run) -> None:
    Path("a.yaml").write_text(GOOD)
    Path("b.yaml").write_text(BAD)
    code, out, _ = vmrun("validate", "a.yaml", "b.yaml")
    assert code == 1
    assert out.startswith("a.yaml: fine\nb.yaml:3:1: error ") and out.endswith("\nb.yaml: 2 errors\n")


def test_validate_of_a_missing_file(vmrun: Run) -> None:
    code, out, _ = vmrun("validate", "m.yaml")
    assert code == 1
    assert out.startswith("error VR0101: there is no file 'm.yaml'\n")


def test_validate_of_a_type_of_ones_own(vmrun: Run) -> None:
    Path("mine.yaml").write_text("schema: vmrun/machine-type/1\nname: mine\nextends: rhel6.3.0\n")
    assert vmrun("validate", "mine.yaml") == (0, "mine.yaml: fine\n", "")


def test_validate_of_a_bad_type_of_ones_own(vmrun: Run) -> None:
    text = "schema: vmrun/machine-type/1\nname: mine\nextends: rhel6.3.0\n"
    text += "devices: [{id: x, driver: isa-seril}]\n"
    Path("mine.yaml").write_text(text)
    code, out, _ = vmrun("validate", "mine.yaml")
    assert code == 1
    assert out.startswith("mine.yaml:4:27: error VR0401: there is no driver 'isa-seril'")


def test_resolve_of_a_type_says_what_it_is(vmrun: Run) -> None:
    Path("mine.yaml").write_text("schema: vmrun/machine-type/1\nname: mine\nextends: rhel6.3.0\n")
    code, _, err = vmrun("resolve", "mine.yaml")
    assert code == 1
    assert "VR0206" in err


def test_validate_as_json(vmrun: Run) -> None:
    Path("m.yaml").write_text(BAD)
    code, out, err = vmrun("validate", "--format", "json", "m.yaml")
    (entry,) = json.loads(out)
    assert (code, err, entry["file"]) == (1, "", "m.yaml")
    first = entry["problems"][0]
    assert {key: first[key] for key in ("code", "severity", "file", "line", "column", "path", "nearest")} == {
        "code": "VR0201", "severity": "error", "file": "m.yaml", "line": 3, "column": 1, "path": "memroy",
        "nearest": "memory",
    }  # fmt: skip


def test_validate_as_github_commands(vmrun: Run) -> None:
    Path("m.yaml").write_text(HEAD + "memroy: 1\n")
    _, out, _ = vmrun("validate", "--format", "github", "m.yaml")
    assert out == (
        "::error file=m.yaml,line=3,col=1,title=VR0201::unknown key 'memroy'%0A    at memroy"
        "%0A    did you mean 'memory'?\n"
    )


def test_github_commands_escape_file_names(vmrun: Run) -> None:
    Path("a,b%c.yaml").write_text(HEAD + "memroy: 1\n")
    _, out, _ = vmrun("validate", "--format", "github", "a,b%c.yaml")
    assert out.startswith("::error file=a%2Cb%25c.yaml,line=3,")


def test_resolve_writes_a_file_that_resolves_to_itself(vmrun: Run) -> None:
    Path("m.yaml").write_text("name: m\n" + GOOD)
    code, once, err = vmrun("resolve", "m.yaml")
    assert (code, err) == (0, "")
    Path("again.yaml").write_text(once)
    twice = vmrun("resolve", "again.yaml")[1]
    assert once.splitlines()[1:] == twice.splitlines()[1:]  # but for the heading, which names the file


def test_resolve_as_json_is_a_machine_file_too(vmrun: Run) -> None:
    Path("m.yaml").write_text("name: m\n" + GOOD)
    out = vmrun("resolve", "--format", "json", "m.yaml")[1]
    Path("again.json").write_text(out)
    assert vmrun("resolve", "--format", "json", "again.json") == (0, out, "")


def test_resolve_with_set(vmrun: Run) -> None:
    Path("m.yaml").write_text(GOOD)
    assert "\nmemory: 2GiB\n" in vmrun("resolve", "m.yaml", "--set", "memory=2GiB")[1]


def test_resolve_of_a_bad_file_prints_problems_only(vmrun: Run) -> None:
    Path("m.yaml").write_text(BAD)
    code, out, err = vmrun("resolve", "m.yaml")
    assert (code, out) == (1, "")
    assert err.count("error VR") == 2


def test_types_lists_every_type(vmrun: Run) -> None:
    out = vmrun("types")[1]
    assert [line.split()[0] for line in out.splitlines()] == type_names()


def test_types_diff_says_no_when_something_differs(vmrun: Run) -> None:
    code, out, _ = vmrun("types", "--diff", "rhel6.5.0", "rhel6.6.0")
    assert code == 1
    assert "compat.USB.msos-desc" in out
    assert vmrun("types", "--diff", "rhel6.5.0", "rhel6.5.0") == (0, "", "")


def test_types_gaps_names_frozen_values_nothing_looks_at(vmrun: Run) -> None:
    out = vmrun("types", "--gaps", "rhel6.3.0")[1]
    assert "qxl.revision" in out
    assert "kvmvapic" in out
    assert "PIIX4_PM.disable_s3" not in out


def test_devices_lists_what_is_modelled(vmrun: Run) -> None:
    names = [line.split()[0] for line in vmrun("devices")[1].splitlines()]
    assert "isa-serial" in names
    assert "usb-ehci" not in names


def test_devices_all_has_what_is_to_come(vmrun: Run) -> None:
    out = vmrun("devices", "--all")[1]
    assert [line for line in out.splitlines() if line.startswith("usb-ehci ")][0].endswith(
        "(not modelled yet)"
    )


def test_devices_of_one_driver_lists_its_properties(vmrun: Run) -> None:
    code, out, _ = vmrun("devices", "isa-serial")
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()[2:5]] == [
        ["baudbase", "uint32", "115200"],
        ["chardev", "chardev", "-"],
        ["index", "uint32", "-"],
    ]


def test_devices_of_an_unknown_driver(vmrun: Run) -> None:
    code, out, err = vmrun("devices", "isa-serail")
    assert (code, out) == (1, "")
    assert "did you mean 'isa-serial'?" in err


@pytest.mark.parametrize("name", ["machine", "machine-type"])
def test_schema_prints_the_schema(vmrun: Run, name: str) -> None:
    assert json.loads(vmrun("schema", name)[1])["$id"] == f"{name}.schema.json"


@pytest.mark.parametrize("code", ["VR0513", "vr0513", "513"])
def test_explain_takes_a_code_in_any_spelling(vmrun: Run, code: str) -> None:
    assert vmrun("explain", code)[1].startswith("VR0513: an interrupt claimed twice\n\n")


def test_explain_of_an_unknown_code(vmrun: Run) -> None:
    assert vmrun("explain", "VR9999")[0] == 1


@pytest.mark.parametrize("machine_type", type_names())
def test_init_writes_a_file_that_validates(vmrun: Run, machine_type: str) -> None:
    assert vmrun("init", machine_type)[0] == 0
    assert vmrun("validate", "machine.yaml") == (0, "machine.yaml: fine\n", "")


def test_everything_that_init_comments_out_is_right_too(vmrun: Run) -> None:
    out = vmrun("init", "rhel6.3.0", "-o", "-")[1]
    lines = [
        line[2:] if line.startswith("# ") and ":" in line.split()[1] else line for line in out.splitlines()
    ]
    lines = [line for line in lines if not line.startswith(("disks", "serial:", "yaml-language"))]
    text = "\n".join(line.removeprefix("# ") if line.startswith("#   ") else line for line in lines)
    Path("m.yaml").write_text(text)
    code, _, err = vmrun("validate", "--no-files", "m.yaml")
    assert (code, err) == (0, "")


def test_init_puts_the_schema_that_the_file_names_beside_it(vmrun: Run) -> None:
    """It is found wherever the two are copied to, and knows the types that lie there."""
    Path("sub").mkdir()
    Path("sub/mine.yaml").write_text("schema: vmrun/machine-type/1\nname: mine\nextends: rhel6.3.0\n")
    assert vmrun("init", "rhel6.3.0", "-o", "sub/m.yaml")[0] == 0
    assert Path("sub/m.yaml").read_text().startswith("# yaml-language-server: $schema=machine.schema.json\n")
    schema = json.loads(Path("sub/machine.schema.json").read_text())
    assert "mine" in schema["properties"]["machine"]["enum"]


def test_init_does_not_write_over_a_file(vmrun: Run) -> None:
    Path("machine.yaml").write_text("mine")
    code, _, err = vmrun("init", "rhel6.3.0")
    assert code == 1
    assert "VR0110" in err
    assert Path("machine.yaml").read_text() == "mine"
    assert vmrun("init", "rhel6.3.0", "--force")[0] == 0


def test_init_where_nothing_can_be_written(vmrun: Run) -> None:
    code, _, err = vmrun("init", "rhel6.3.0", "-o", "nowhere/m.yaml")
    assert code == 3
    assert "VR0921" in err


def test_fault_of_vmruns_own_shows_no_traceback(vmrun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmrun.cli.explain.run", lambda argv: 1 // 0)
    code, _, err = vmrun("explain")
    assert code == 3
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err


def test_installation_without_its_catalogue_says_so(vmrun: Run) -> None:
    import vmrun.config.data as data

    Path(data.data_dir("schema"), "devices.json").unlink()
    code, _, err = vmrun("devices")
    assert code == 3
    assert "VR0901" in err


def test_reader_that_leaves_early_is_no_fault() -> None:
    command = f"'{sys.executable}' -m vmrun explain | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.stderr == ""


def test_output_that_cannot_show_a_character_is_written_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vmrun", "explain", "VR0704"],
        capture_output=True,
        cwd=Path(__file__).parents[3],
        env={"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0
    assert b"sockets \\xd7 cores" in done.stdout


# --- one way for all commands -------------------------------------------------------------------------------------

TEXT = "schema: vmrun/machine/1\nmachine: rhel6.3.0\nserial: stdio\n"


@pytest.mark.parametrize(
    "command",
    [
        ["validate", "m.yaml"], ["resolve", "m.yaml"], ["tree", "m.yaml"], ["tree", "--view", "irq", "m.yaml"],
        ["diff", "m.yaml", "rhel6.4.0"], ["types"], ["types", "--diff", "rhel6.3.0", "rhel6.4.0"], ["types", "--gaps"],
        ["types", "--gaps", "rhel6.3.0"], ["types", "--check"], ["devices"], ["devices", "VGA"], ["explain"],
        ["explain", "VR0512"], ["doctor"], ["ps"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_data_is_had_as_json_in_one_way(vmrun: Run, command: list[str]) -> None:
    Path("m.yaml").write_text(TEXT)
    long, short = vmrun(*command, "--format", "json"), vmrun(*command, "--json")
    assert type(json.loads(long[1])) is type(json.loads(short[1]))


@pytest.mark.parametrize(
    "text", [TEXT, json.dumps({"schema": "vmrun/machine/1", "machine": "rhel6.3.0", "serial": "stdio"}),
             'schema = "vmrun/machine/1"\nmachine = "rhel6.3.0"\nserial = "stdio"\n'], ids=["yaml", "json", "toml"],
)  # fmt: skip
@pytest.mark.parametrize(
    "command", [["validate"], ["resolve"], ["tree"], ["lock"], ["export", "qemu"], ["diff", "rhel6.3.0"]], ids=" ".join
)
def test_a_dash_is_standard_input(tmp_path: Path, command: list[str], text: str) -> None:
    here = Path(__file__).parents[3]
    (tmp_path / "machine.yaml").write_text(TEXT)
    env = {**os.environ, "PYTHONPATH": str(here)}

    def run(name: str, input: str) -> tuple[int, str]:
        words = [*command, name] if command[0] != "diff" else ["diff", name, "rhel6.3.0"]
        more = ["--output", "-"] if command[0] == "lock" else []
        done = subprocess.run(
            [sys.executable, "-m", "vmrun", *words, *more], cwd=tmp_path, env=env, input=input, text=True,
            capture_output=True, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout.replace("<stdin>", "machine.yaml")

    assert run("-", text)[0] == run("machine.yaml", "")[0]
    if command[0] in ("resolve", "tree", "lock", "diff"):
        assert run("-", text)[1].splitlines()[1:] == run("machine.yaml", "")[1].splitlines()[1:]


@pytest.mark.parametrize("path", ["devices.serial0.irq", "devices[0].irq", "devices.0.irq"])
def test_the_example_of_set_works(vmrun: Run, path: str) -> None:
    """The one that `vmrun explain VR0109` gives, on a short form; and the form in which errors name places."""
    text = TEXT if "serial0" in path else TEXT.replace("serial: stdio", "devices: [{driver: isa-serial, id: serial0}]")
    Path("m.yaml").write_text(text)
    code, out, err = vmrun("resolve", "--json", "--set", f"{path}=5", "m.yaml")
    assert (code, err) == (0, "")
    (device,) = [device for device in json.loads(out)["devices"] if device["id"] == "serial0"]
    assert (device["driver"], device["irq"]) == ("isa-serial", 5)


def test_codes_are_explained_in_order(vmrun: Run) -> None:
    codes = [row["code"] for row in json.loads(vmrun("explain", "--json")[1])]
    assert codes == sorted(codes)


@pytest.mark.parametrize("code", ["VR0301", "VR0900", "VR0910", "VR0920"])
def test_the_codes_that_users_meet_first_have_more_than_a_sentence(vmrun: Run, code: str) -> None:
    assert len(vmrun("explain", code)[1]) > 250


@pytest.mark.parametrize("kind", ["qemu", "libvirt"])
def test_export_of_a_type_says_what_it_is(vmrun: Run, kind: str) -> None:
    Path("mine.yaml").write_text("schema: vmrun/machine-type/1\nname: mine\nextends: rhel6.3.0\n")
    code, _, err = vmrun("export", kind, "mine.yaml")
    assert (code, err.partition(":")[0]) == (1, "mine.yaml") and "VR0206" in err


@pytest.mark.parametrize("words", [["-M", "foo"], ["-smp", "1000000"]], ids=" ".join)
def test_import_says_when_the_result_is_no_machine(vmrun: Run, words: list[str]) -> None:
    code, out, err = vmrun("import", "qemu", "--", "-nodefaults", *words)
    assert code == 0 and out.startswith("# imported")
    assert "the result does not validate:\nresult:" in err


def test_an_accelerator_named_twice_is_tried_once() -> None:
    from vmrun.cli.up_options import parse

    options = parse(["--accel", "kvm,kvm,soft", "m.yaml"])
    assert options is not None and not isinstance(options, int)
    assert options.accel == ["kvm", "soft"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("chardevs: {c: {type: socket, port: 4444, server: true}}\nmonitors: {m: {chardev: c}}", "VR1008"),
        ("chardevs: {c: {type: socket, port: 4444, host: 0.0.0.0, server: true, telnet: true}}\nserial: c", "VR1009"),
    ],
)
def test_what_the_network_reaches_is_advised_against(vmrun: Run, text: str, code: str) -> None:
    Path("m.yaml").write_text(f"{HEAD}{text}\n")
    assert f"warning {code}: " in vmrun("validate", "m.yaml")[1]
    assert vmrun("validate", "--strict", "m.yaml")[0] == 1


def test_import_to_a_dash_is_to_the_terminal(vmrun: Run) -> None:
    code, out, _ = vmrun("import", "qemu", "-o", "-", "--", "qemu-system-x86_64", "-M", "pc", "-m", "64")
    assert code == 0 and "schema: vmrun/machine/1" in out and not os.listdir()


def test_the_image_tool_tells_the_syntax_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts look there for what a qemu-img knows."""
    from vmrun.cli.img import COMMANDS, main

    assert main(["--help"], "vmrun-img") == 0
    told = capsys.readouterr().out
    first = [line.split()[0] for line in told.splitlines() if line.strip()]
    assert [word for word in first if word in COMMANDS] == [*COMMANDS]
    for words in ("--target-is-zero", "[-U]", "Supported formats: ", " qcow2 ", " vmdk "):
        assert words in told
