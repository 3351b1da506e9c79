"""yaml-language-server, which editors ask: each example is green through its modeline, bad keys and values are red."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SERVER = ROOT / "build/yaml-server/node_modules/yaml-language-server/bin/yaml-language-server"
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(
        shutil.which("node") is None or not SERVER.exists(),
        reason="tools/fetch-yaml-server.sh found no yaml-language-server",
    ),
]
HEAD = "# yaml-language-server: $schema=machine.schema.json\nschema: vmrun/machine/1\nmachine: rhel6.3.0\n"


class Editor:
    """A client of the language server: `faults(text)` are what it would underline in a file beside the examples."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["node", str(SERVER), "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.number = 0
        self.ask("initialize", {"processId": None, "rootUri": EXAMPLES.as_uri(), "capabilities": {}})
        self.tell("initialized", {})
        settings = {"yaml": {"validate": True, "schemaStore": {"enable": False}, "schemas": {}}}
        self.tell("workspace/didChangeConfiguration", {"settings": settings})

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def tell(self, method: str, params: dict[str, Any]) -> None:
        self.send({"method": method, "params": params})

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        size = 0
        while line := self.process.stdout.readline().strip():
            if line.lower().startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        message: dict[str, Any] = json.loads(self.process.stdout.read(size))
        if "id" in message and "method" in message:  # the server asks for something
            asked = message["params"].get("items", [None]) if message.get("params") else [None]
            self.send({"id": message["id"], "result": [None] * len(asked)})
        return message

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        self.number += 1
        self.send({"id": self.number, "method": method, "params": params})
        while True:
            message = self.read()
            if message.get("id") == self.number and "method" not in message:
                return message.get("result")

    def faults(self, text: str) -> list[str]:
        self.number += 1
        uri = (EXAMPLES / f"unsaved-{self.number}.yaml").as_uri()  # closing a file clears its faults, a while later
        document = {"uri": uri, "languageId": "yaml", "version": self.number, "text": text}
        self.tell("textDocument/didOpen", {"textDocument": document})
        try:
            while True:
                message = self.read()
                if message.get("method") == "textDocument/publishDiagnostics" and message["params"]["uri"] == uri:
                    return [_shown(row) for row in message["params"]["diagnostics"]]
        finally:
            self.tell("textDocument/didClose", {"textDocument": {"uri": uri}})


def _shown(row: dict[str, Any]) -> str:
    return f"line {row['range']['start']['line'] + 1}: {row['message']}"


@pytest.fixture(scope="module")
def editor() -> Iterator[Editor]:
    editor = Editor()
    yield editor
    editor.process.kill()
    editor.process.wait()
    for pipe in (editor.process.stdin, editor.process.stdout):
        assert pipe is not None
        pipe.close()


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.yaml")))
def test_every_example_is_green(editor: Editor, name: str) -> None:
    assert editor.faults((EXAMPLES / name).read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "memroy: 1GiB",
        "display: stdd",
        "memory: many",
        "machine: rhel6.9.0",
        "machine: nonsense",
        "cpus: {cuont: 2}",
        "devices: [{driver: isa-seril}]",
        "devices: [{driver: isa-serial, iobaze: 1}]",
        "devices: [{driver: isa-serial, irq: 16}]",
        "devices: [{driver: isa-serial, irq: four}]",
        "devices: [{driver: mc146818rtc, lost_tick_policy: catch}]",
        "devices: [{driver: usb-tablet, prot: 1}]",
        "drives: {d: {fiel: a.img}}",
        "drives: {d: {file: a.img, format: row}}",
        "drives: {d: {file: a.img, readonly: maybe}}",
        "chardevs: {c: {type: soket}}",
        "chardevs: {c: {type: socket, prot: 1}}",
        "chardevs: {c: {type: socket, port: 70000}}",
        "netdevs: {n: {type: usr}}",
        "monitors: {m: {chardev: c, mode: machine}}",
        "rtc: {base: now}",
        "boot: {ordr: c}",
        "disks: [{file: a.img, fromat: raw}]",
    ],
)
def test_bad_keys_and_bad_values_are_red(editor: Editor, line: str) -> None:
    text = HEAD.replace("machine: rhel6.3.0\n", "") if line.startswith("machine:") else HEAD
    assert editor.faults(f"{text}{line}\n") != []


@pytest.mark.parametrize(
    "line",
    [
        "display: std",
        "devices: [{driver: isa-serial, iobase: 0x3f8, chardev: c}]",
        "devices: [{id: pm, disable_s3: 1}]",
        "drives: {d: {file: a.img, format: raw, cache: none, readonly: true}}",
        "chardevs: {c: {type: socket, path: s, server: true, wait: false}}",
        "disks: [a.img, {file: b.img, bootindex: 1}]",
    ],
)
def test_good_lines_are_green(editor: Editor, line: str) -> None:
    assert editor.faults(f"{HEAD}{line}\n") == []


def test_every_property_of_every_driver_is_offered(editor: Editor) -> None:
    text = f"{HEAD}devices:\n  - driver: isa-serial\n    \n"
    uri = (EXAMPLES / "offer.yaml").as_uri()
    document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
    editor.tell("textDocument/didOpen", {"textDocument": document})
    place = {"textDocument": {"uri": uri}, "position": {"line": 5, "character": 4}}
    found = editor.ask("textDocument/completion", place)
    offered = {row["label"] for row in (found["items"] if isinstance(found, dict) else found)}
    assert {"iobase", "irq", "chardev", "bus", "id"} <= offered
