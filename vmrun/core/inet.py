"""Internet addresses by what a machine file says of them."""

from __future__ import annotations

import _socket  # `socket` itself brings in enum and selectors: 5 ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def families(spec: dict[str, Any]) -> tuple[int, ...]:
    """Which addresses a name may stand for: `ipv4` and `ipv6`, both where nothing is said, as QEMU has it."""
    four, six = spec.get("ipv4"), spec.get("ipv6")
    if four is None and six is None or four and six:
        return (_socket.AF_INET, _socket.AF_INET6)
    if four or four is None and not six:
        return (_socket.AF_INET,)
    return (_socket.AF_INET6,) if six or six is None else ()


def host_name(text: str) -> Any:
    """A host's name for getaddrinfo and create_connection, which tell by OSError what is wrong with one in bytes; of
    one in letters they would make an international name first, and raise UnicodeError for a label above 63. (Any:
    typeshed has create_connection take letters alone.)
    """
    return text.encode(errors="surrogateescape")
