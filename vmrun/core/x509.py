"""What a certificate says of who has it, as text: names that rules are written for."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# X.500's words and what they are in a name
SHORT = {
    "commonName": "CN", "countryName": "C", "stateOrProvinceName": "ST", "localityName": "L", "organizationName": "O",
    "organizationalUnitName": "OU", "domainComponent": "DC", "userId": "UID", "streetAddress": "STREET",
    "emailAddress": "EMAIL",
}  # fmt: skip


def subject(certificate: Any) -> str:
    """The name of a peer, of what ssl's getpeercert() says, as GnuTLS writes it; empty without a certificate."""
    parts = []
    for several in (certificate or {}).get("subject", ()):
        parts.append("+".join(f"{SHORT.get(key, key)}={_escaped(value)}" for key, value in several))
    return ",".join(parts)


def _escaped(text: str) -> str:
    found = "".join(f"\\{each}" if each in ',+"\\<>;' else each for each in text)
    if found[:1] in ("#", " "):
        found = "\\" + found
    return found[:-1] + "\\ " if found.endswith(" ") and len(text) > 1 else found
