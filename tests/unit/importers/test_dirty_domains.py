"""A domain is found in what people have it in: a terminal's log, a page, a mail, a script, a program's string."""

from __future__ import annotations

import html
import json
import pathlib
from typing import Any

import pytest

from vmrun.cli.main import main
from vmrun.config.importers.domains import domains
from vmrun.config.importers.libvirt import import_domain

XML = """<domain type='kvm' id='7'>
  <name>lab</name>
  <memory unit='MiB'>96</memory>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os>
  <devices>
    <graphics type='vnc' port='5903' autoport='yes'/>
    <weird/>
  </devices>
</domain>
"""
QUOTED = XML.replace("'", '"')


def read(data: bytes) -> tuple[dict[str, Any], list[int]]:
    (found,) = domains(data)
    document, problems = import_domain(found.data, "x.xml")
    return document, [problem.place.line for problem in problems if problem.place is not None]


DIRTY = {
    "alone": (XML, 7),
    "with a declaration": (f"<?xml version='1.0' encoding='UTF-8'?>\n{XML}", 8),
    "a terminal's log": (f"$ virsh dumpxml lab\n{XML}\n$ ", 8),
    "a fence of a page": (f"# Lab\n\n```xml\n{XML}```\nDone.\n", 10),
    "the signs of a page": (f"<pre>\n{html.escape(XML)}</pre>", 8),
    "virsh's warning before it": (f"<!--\nWARNING: CHANGES\n-->\n\n{XML}", 11),
    "a mail that quotes": ("".join(f"> {row}\n" for row in XML.splitlines()), 7),
    "a mail as it went over the wire": (XML.replace("=", "=3D"), 7),
    "what libvirt keeps of a running one": (f"<domstatus state='running' pid='9'>\n{XML}</domstatus>\n", 8),
    "a snapshot's": (f"<domainsnapshot>\n<name>s</name>\n{XML}</domainsnapshot>\n", 9),
    "a script's here-document": (f"cat > x.xml <<EOF\n{XML}EOF\nvirsh define x.xml\n", 8),
    "a string of a program's": (f"DOMAIN = '''\n{XML}'''\n", 8),
    "JSON": (json.dumps({"xml": QUOTED}), 1),
    "an editor's quotes": (XML.replace("='", "=‘").replace("' ", "’ ").replace("'>", "’>").replace("'/", "’/"), 7),
    "a terminal's colours": (f"\x1b[32m{XML}\x1b[0m", 7),
    "line ends of Windows": (XML.replace("\n", "\r\n"), 7),
}


@pytest.mark.parametrize("title", DIRTY)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_it_is_found_and_its_lines_are_those_of_the_file(title: str, encoding: str) -> None:
    text, line = DIRTY[title]
    document, lines = read(text.encode(encoding))
    assert (document["name"], document["memory"]) == ("lab", "96MiB")
    assert lines == [line]


def test_a_port_that_libvirt_chose_is_chosen_anew() -> None:
    document, _ = read(XML.encode())
    assert document["vnc"] == {"listen": "127.0.0.1:0", "to": 99}
    document, _ = read(XML.replace("yes", "no").encode())
    assert document["vnc"] == {"listen": "127.0.0.1:3"}


def test_of_several_one_is_chosen(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "all.xml"
    path.write_text(XML + XML.replace("lab", "other").replace("96", "97"))
    assert main(["import", "libvirt", str(path)]) == 1
    assert "2 domains in" in (told := capsys.readouterr().err)
    assert "line 1: lab" in told and "line 10: other" in told
    for said, memory in (("other", "97MiB"), ("1", "96MiB")):
        assert main(["import", "libvirt", str(path), "--domain", said]) == 0
        assert f'memory: "{memory}"' in capsys.readouterr().out
    assert main(["import", "libvirt", str(path), "--domain", "third"]) == 1
    assert "there is none of that name" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "<network><name>x</name></network>", "no XML", XML[:200], "<domain"])
def test_what_is_none_is_told(text: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.xml"
    path.write_text(text)
    assert main(["import", "libvirt", str(path)]) == 1
    assert "VR0122" in capsys.readouterr().err


def test_comments_before_what_is_no_domain_are_read_once() -> None:
    """Many of them took 2ⁿ times as long as one."""
    comments = b"<!-- a - b -- c -->\n" * 100
    (found,) = domains(comments + b"<network/>")
    assert found.data == comments + b"<network/>"
    (found,) = domains(b"<domain></domain>" + comments + b"and more")
    assert found.data == b"<domain></domain>"
