"""What an image is, as text in QEMU's form."""

from __future__ import annotations

from vmrun.backends.block.sizes import people

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def human(found: dict[str, Any]) -> str:
    """An ImageInfo, as `vmrun img info` and `info block -v` show it."""
    lines = [
        f"image: {found['filename']}",
        f"file format: {found['format']}",
        f"virtual size: {people(found['virtual-size'])} ({found['virtual-size']} bytes)",
        f"disk size: {people(found['actual-size']) if 'actual-size' in found else 'unavailable'}",
    ]
    if found.get("dirty-flag"):
        lines.append("cleanly shut down: no")
    if "cluster-size" in found:
        lines.insert(4, f"cluster_size: {found['cluster-size']}")
    if found.get("dirty-flag"):
        lines.remove("cleanly shut down: no")
        lines.insert(4, "cleanly shut down: no")
    if "backing-filename" in found:
        name, full = found["backing-filename"], found["full-backing-filename"]
        lines.append(f"backing file: {name}" + (f" (actual path: {full})" if name != full else ""))
        if "backing-filename-format" in found:
            lines.append(f"backing file format: {found['backing-filename-format']}")
    text = "\n".join(lines) + "\n"
    if "snapshots" in found:
        text += snapshot_table(found["snapshots"])
    return text + specific(found)


def specific(found: dict[str, Any]) -> str:
    """What only this format has."""
    if "format-specific" not in found:
        return ""
    rows = (_specific_line(key, value, 1) for key, value in found["format-specific"]["data"].items())
    return "Format specific information:\n" + "".join(rows)


def _specific_line(key: str, value: Any, depth: int) -> str:
    pad = "    " * depth
    key = key.replace("-", " ")
    if isinstance(value, list):
        text = f"{pad}{key}:\n"
        for n, item in enumerate(value):
            text += f"{pad}    [{n}]:\n"
            for inner, at in item.items():
                if isinstance(at, list):
                    text += f"{pad}        {inner}:\n" + "".join(
                        f"{pad}            [{m}]: {word}\n" for m, word in enumerate(at)
                    )
                else:
                    word = str(at).lower() if isinstance(at, bool) else str(at)
                    text += f"{pad}        {inner.replace('-', ' ')}: {word}\n"
        return text
    word = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{pad}{key}: {word}\n"


def padded(text: str, width: int) -> str:
    """So wide by its bytes, as C pads: not by its letters."""
    return text + " " * (width - len(text.encode(errors="surrogateescape")))


def snapshot_table(snapshots: list[dict[str, Any]]) -> str:
    """SnapshotInfos, one a line."""
    import time

    text = "Snapshot list:\n"
    text += f"{'ID':<9} {'TAG':<16} {'VM SIZE':>8}{'DATE':>20}{'VM CLOCK':>13}{'ICOUNT':>11}\n"
    for one in snapshots:
        date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["date-sec"]))
        seconds, rest = one["vm-clock-sec"], one["vm-clock-nsec"] // 1_000_000
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:03d}"
        icount = str(one["icount"]) if "icount" in one else ""
        size, name = people(one["vm-state-size"]), padded(one["name"], 16)
        text += f"{one['id']:<9} {name} {size:>8}{date:>20}{clock:>13}{icount:>11}\n"
    return text
