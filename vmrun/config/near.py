"""The known name nearest to a misspelt one."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# What people call these things elsewhere; of no use where the name on the right is not known.
WORDS = {
    "append": "cmdline",
    "bios": "firmware",
    "cores": "cpus",
    "kernel-args": "cmdline",
    "kernel-cmdline": "cmdline",
    "graphics": "display",
    "hda": "disks",
    "image": "disks",
    "kvm": "accel",
    "network": "nics",
    "networks": "nics",
    "processors": "cpus",
    "ram": "memory",
    "smp": "cpus",
    "vcpus": "cpus",
    "vga": "display",
    "video": "display",
}
_LONGEST = 64  # names are short; anything longer is not a misspelling and must not cost time


def nearest(name: str, known: Iterable[str]) -> str:
    """The name in known that differs least from name, or '' when none is close.

    Case, '-' and '_' count as the same; of equally near names the alphabetically first is taken. What name is called
    elsewhere (WORDS) comes first; when none is near, one that name begins with ("address" for addr) comes last.
    """
    if len(name) > _LONGEST:
        return ""
    wanted = _fold(name)
    letters = frozenset(wanted)
    best, best_cost = "", max(1, len(wanted) // 3) + 1
    known = sorted(known)
    if WORDS.get(wanted) in known:
        return WORDS[wanted]
    for candidate in known:
        folded = _fold(candidate)
        begins = folded.startswith(wanted) and len(wanted) >= 3
        if not begins and (
            abs(len(folded) - len(wanted)) >= best_cost or len(letters.difference(folded)) >= best_cost
        ):
            continue
        cost = 1 if begins and folded != wanted else _distance(wanted, folded, best_cost)
        if cost < best_cost:
            best, best_cost = candidate, cost
    if best:
        return best
    begun = [candidate for candidate in known if len(candidate) >= 4 and wanted.startswith(_fold(candidate))]
    return max(begun, key=len, default="")


def _fold(name: str) -> str:
    return name.lower().replace("_", "-")


def _distance(a: str, b: str, enough: int) -> int:
    """Edit distance where two neighbouring letters exchanged count as one edit; at least enough when it is
    not less.
    """
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before2, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before2[j - 2] + 1)
            row.append(cost)
        if min(row) >= enough and min(before) >= enough:
            return enough
    return row[-1]
