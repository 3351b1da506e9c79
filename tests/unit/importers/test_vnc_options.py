"""-vnc, -display vnc=, -k and <graphics type='vnc'> as `vnc:` and `keyboard:`, and back."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from vmrun.config.importers.line import parse_options, read_options


def document(*words: str) -> dict[str, object]:
    return parse_options(read_options(["-nodefaults", *words]), True).document


def test_every_server_of_a_line_is_kept() -> None:
    found = document(
        "-vnc", ":1,sasl=on,ipv4=off,lossy=on,key-delay-ms=5", "-vnc", "unix:/x,id=b,display=v,head=0,connections=3",
        "-display", "vnc=:3,password=on,websocket",
    )  # fmt: skip
    assert found["vnc"] == [
        {"listen": ":1", "sasl": True, "ipv4": False, "lossy": True, "key-delay-ms": 5},
        {"listen": "unix:/x", "id": "b", "display": "v", "head": 0, "connections": 3},
        {"listen": ":3", "password": True, "websocket": True},
    ]


def test_one_server_is_no_list_and_none_is_none() -> None:
    assert document("-vnc", ":1,websocket=off")["vnc"] == {"listen": ":1"}
    assert "vnc" not in document("-vnc", "none")


def test_the_keyboard_of_a_line_comes_along() -> None:
    assert document("-k", "de")["keyboard"] == "de"


def test_libvirts_buttons_and_websocket_come_along(tmp_path: pathlib.Path) -> None:
    domain = tmp_path / "x.xml"
    domain.write_text(
        "<domain type='qemu'><name>x</name><memory unit='MiB'>64</memory>"
        "<os><type machine='pc-i440fx-7.2'>hvm</type></os>"
        "<devices><graphics type='vnc' port='5907' listen='127.0.0.1' websocket='5777' powerControl='yes'/></devices>"
        "</domain>"
    )
    out = subprocess.run(
        [sys.executable, "-m", "vmrun", "import", "libvirt", str(domain)], capture_output=True, text=True, timeout=60
    ).stdout
    assert 'vnc: {listen: "127.0.0.1:7", websocket: "5777", power-control: true}' in out


@pytest.mark.parametrize("words", ["to=x", "password=maybe", "head=-", "connections=many"])
def test_values_that_are_none_are_refused(words: str) -> None:
    from vmrun.errors import ConfigError

    with pytest.raises(ConfigError):
        document("-vnc", f":1,{words}")
