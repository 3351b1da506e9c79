"""Problems as SARIF 2.1.0, which code hosts and editors show beside the lines."""

from __future__ import annotations

from vmrun.config.codes import CODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.errors import Place, Problem

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(results: list[tuple[str, list[Problem]]], version: str) -> dict[str, Any]:
    """The log of one run over (file, its problems). version: vmrun's."""
    found = [(file, problem) for file, problems in results for problem in problems]
    codes = sorted({problem.code for _, problem in found})
    rules = [
        {
            "id": code,
            "shortDescription": {"text": CODES[code][0]},
            "fullDescription": {"text": CODES[code][1]},
            "help": {"text": f"vmrun explain {code}"},
        }
        for code in codes
    ]
    driver = {"name": "vmrun", "version": version, "rules": rules}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "unicodeCodePoints",
                "results": [_result(file, problem, codes) for file, problem in found],
            }
        ],
    }


def _result(file: str, problem: Problem, codes: list[str]) -> dict[str, Any]:
    near = f" Did you mean '{problem.nearest}'?" if problem.nearest else ""
    remedy = f" {problem.remedy[:1].upper()}{problem.remedy[1:]}." if problem.remedy else ""
    result: dict[str, Any] = {
        "ruleId": problem.code,
        "ruleIndex": codes.index(problem.code),
        "level": problem.severity,
        "message": {"text": f"{problem.message}.{near}{remedy}"},
        "locations": [_location(problem.place, file)],
    }
    if problem.also:
        result["relatedLocations"] = [
            {"id": number, **_location(place, file), "message": {"text": sentence}}
            for number, (place, sentence) in enumerate(problem.also, 1)
        ]
    return result


def _location(place: Place | None, file: str) -> dict[str, Any]:
    from urllib.parse import quote

    physical: dict[str, Any] = {"artifactLocation": {"uri": quote(place.file if place is not None else file)}}
    if place is not None and place.line:
        physical["region"] = {"startLine": place.line, "startColumn": place.col}
    return {"physicalLocation": physical}
