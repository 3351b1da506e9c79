"""Problems as SARIF, against what SARIF 2.1.0 (OASIS) asks of the parts that vmrun writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from vmrun.cli.main import main
from vmrun.config.sarif import sarif
from vmrun.errors import Place, Problem

TEXT = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string", "minLength": 1}},
    "additionalProperties": False,
}
LOCATION = {
    "type": "object",
    "required": ["physicalLocation"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "integer", "minimum": 0},
        "message": TEXT,
        "physicalLocation": {
            "type": "object",
            "required": ["artifactLocation"],
            "additionalProperties": False,
            "properties": {
                "artifactLocation": {
                    "type": "object",
                    "required": ["uri"],
                    "additionalProperties": False,
                    "properties": {"uri": {"type": "string", "pattern": r"^[A-Za-z0-9/._~%!$&'()*+,;=:@-]+$"}},
                },
                "region": {
                    "type": "object",
                    "required": ["startLine"],
                    "additionalProperties": False,
                    "properties": {
                        "startLine": {"type": "integer", "minimum": 1},
                        "startColumn": {"type": "integer", "minimum": 1},
                    },
                },
            },
        },
    },
}
RULE = {
    "type": "object",
    "required": ["id"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string", "pattern": r"^VR\d{4}$"},
        "shortDescription": TEXT,
        "fullDescription": TEXT,
        "help": TEXT,
    },
}
RESULT = {
    "type": "object",
    "required": ["message"],
    "additionalProperties": False,
    "properties": {
        "ruleId": {"type": "string"},
        "ruleIndex": {"type": "integer", "minimum": 0},
        "level": {"enum": ["none", "note", "warning", "error"]},
        "message": TEXT,
        "locations": {"type": "array", "items": LOCATION},
        "relatedLocations": {"type": "array", "items": LOCATION},
    },
}
SCHEMA = {
    "type": "object",
    "required": ["version", "runs"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"type": "string"},
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "additionalProperties": False,
                "properties": {
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                    "results": {"type": "array", "items": RESULT},
                    "tool": {
                        "type": "object",
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "type": "object",
                                "required": ["name"],
                                "additionalProperties": False,
                                "properties": {
                                    "name": {"const": "vmrun"},
                                    "version": {"type": "string"},
                                    "rules": {"type": "array", "items": RULE, "uniqueItems": True},
                                },
                            }
                        },
                    },
                },
            },
        },
    },
}


def checked(log: Any) -> Any:
    found = Draft202012Validator(SCHEMA).iter_errors(log)
    assert [f"{list(fault.absolute_path)}: {fault.message}" for fault in found] == []
    return log["runs"][0]


def test_every_broken_file_gives_a_valid_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).parent / "broken")
    names = sorted(path.name for path in Path().iterdir() if path.suffix != ".txt")
    assert main(["validate", "--no-files", "--format", "sarif", *names]) == 1
    run = checked(json.loads(capsys.readouterr().out))
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == sorted(set(rules))
    assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in run["results"])
    assert len(run["results"]) > 80


def test_both_culprits_and_the_remedy_are_in_a_result() -> None:
    problem = Problem(
        "VR0509",
        "two devices are at one slot",
        Place("a b.yaml", 4, 7),
        also=[(Place("a b.yaml", 3, 7), "the other is here")],
        nearest="05.0",
        remedy="move one",
    )
    (result,) = checked(sarif([("a b.yaml", [problem])], "1"))["results"]
    assert result["message"]["text"] == "two devices are at one slot. Did you mean '05.0'? Move one."
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "a%20b.yaml"}, "region": {"startLine": 4, "startColumn": 7}}
    (other,) = result["relatedLocations"]
    assert (other["physicalLocation"]["region"]["startLine"], other["message"]["text"]) == (3, "the other is here")


def test_problem_without_a_place_is_at_its_file() -> None:
    (result,) = checked(sarif([("m.yaml", [Problem("VR0101", "there is no file")])], "1"))["results"]
    assert result["locations"] == [{"physicalLocation": {"artifactLocation": {"uri": "m.yaml"}}}]


def test_fine_files_give_a_log_without_results() -> None:
    assert checked(sarif([("m.yaml", [])], "1"))["results"] == []
