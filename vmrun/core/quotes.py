"""QEMU's JSON takes strings in single quotes too.

Ref: QEMU docs/interop/qmp-spec.txt, "JSON" as its parser reads it.
"""

from __future__ import annotations

import re


def requoted(text: str) -> str:
    """The same with such strings as JSON has them."""

    def swap(match: re.Match[str]) -> str:
        word = match.group()
        if word[0] == '"':
            return word
        return '"' + re.sub(r"\\'|\"", lambda m: "'" if m.group() == "\\'" else '\\"', word[1:-1]) + '"'

    return re.sub(r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'", swap, text, flags=re.S)
