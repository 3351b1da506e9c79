"""vmrun tree as text, as a graph, as a picture: the same nodes in each, and a picture in which nothing overlaps."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from vmrun.cli.main import main
from vmrun.cli.tree import VIEWS
from vmrun.cli.tree_dot import dot
from vmrun.cli.tree_svg import ADVANCE, svg, wrapped
from vmrun.cli.tree_views import Node

SVG = "{http://www.w3.org/2000/svg}"
FILE = "schema: vmrun/machine/1\nname: box\nmachine: pc-i440fx-2.0\nmemory: 64MiB\ndisplay: std\nserial: 'null'\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("box.yaml").write_text(FILE)
    return "box.yaml"


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main(["tree", *argv]) == 0
    return capsys.readouterr().out


def labels(node: dict[str, object]) -> list[str]:
    children = node["children"]
    assert isinstance(children, list)
    return [str(node["label"]), *(label for child in children for label in labels(child))]


def picture(text: str) -> tuple[ElementTree.Element, list[str]]:
    root = ElementTree.fromstring(text)
    return root, [node.text or "" for node in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("view", VIEWS)
def test_every_node_of_a_view_is_in_its_picture(file: str, capsys: pytest.CaptureFixture[str], view: str) -> None:
    found = labels(json.loads(shown(capsys, "--view", view, "--json", file)))
    words = " ".join(picture(shown(capsys, "--view", view, "--format", "svg", file))[1]).split()
    assert len(found) > 5
    assert {word for label in found for word in label.replace("-", " ").split()} <= {
        part for word in words for part in (word, *word.split("-"))
    } | {last for label in found for last in re.findall(r"^[0-9a-f]+-([0-9a-f]+) ", label)}


@pytest.mark.parametrize("view", VIEWS)
def test_boxes_of_a_picture_lie_apart_and_inside_it(file: str, capsys: pytest.CaptureFixture[str], view: str) -> None:
    root, _ = picture(shown(capsys, "--view", view, "--format", "svg", file))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = [
        tuple(float(node.attrib[key]) for key in ("x", "y", "width", "height"))
        for node in root.iter(f"{SVG}rect")
        if "x" in node.attrib
    ]
    assert len(boxes) > 4
    for x, y, w, h in boxes:
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
    apart = 0.11  # coordinates have one decimal
    for index, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[index + 1 :]:
            assert x + w <= x2 + apart or x2 + w2 <= x + apart or y + h <= y2 + apart or y2 + h2 <= y + apart


@pytest.mark.parametrize("view", VIEWS)
def test_texts_of_a_picture_end_inside_it(file: str, capsys: pytest.CaptureFixture[str], view: str) -> None:
    root, _ = picture(shown(capsys, "--view", view, "--format", "svg", file))
    for node in root.iter(f"{SVG}text"):
        assert float(node.attrib["x"]) + len(node.text or "") * ADVANCE <= float(root.attrib["width"])


@pytest.mark.parametrize("view", VIEWS)
def test_graph_has_a_box_for_each_node_and_an_edge_to_each_but_the_first(
    file: str, capsys: pytest.CaptureFixture[str], view: str
) -> None:
    count = len(labels(json.loads(shown(capsys, "--view", view, "--json", file))))
    text = shown(capsys, "--view", view, "--format", "dot", file)
    assert len(re.findall(r"^  n\d+ \[label=", text, re.M)) == count
    assert len(set(re.findall(r"^  n\d+ -> (n\d+);", text, re.M))) == count - 1


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@pytest.mark.parametrize("view", VIEWS)
def test_graphviz_draws_the_graph(file: str, capsys: pytest.CaptureFixture[str], view: str) -> None:
    text = shown(capsys, "--view", view, "--format", "dot", file)
    done = subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_hostile_names_stay_text() -> None:
    node = Node('a"</text>&\x1b\\', "<b>\ud800", [Node("\\n"), Node('"]; x [')])
    _, texts = picture(svg(node))
    assert texts[:2] == ['a"</text>&?\\', "<b>?"]
    assert '[label="a\\"</text>&' in dot(node)
    assert 'label="\\\\n\\l"' in dot(node)
    assert 'label="\\"]; x [\\l"' in dot(node)


def test_range_in_a_map_is_as_far_from_the_next_as_its_addresses_say() -> None:
    ranges = [Node("0000-000f a", "i/o", span=(0, 16), kind="i/o"), Node("0020-002f b", span=(0x20, 16), kind="rom")]
    _, texts = picture(svg(Node("top", "", ranges)))
    assert texts == ["top", "0000", "a", "i/o", "0010", "unassigned, 16 bytes", "0020", "b", "002f", "rom", "i/o"]


def test_long_details_are_broken_and_cut() -> None:
    lines = wrapped(" ".join(["word"] * 100) + "x" * 200)
    assert len(lines) == 4
    assert max(map(len, lines)) <= 44
    assert lines[-1].endswith("…")
