"""What `info …` shows of drives, objects, memory and migration, in QEMU's form."""

from __future__ import annotations

from vmrun.monitor.hmp_args import Given
from vmrun.monitor.hmp_block import block_jobs, snapshots
from vmrun.monitor.hmp_line import Line, ask, by_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _onoff(value: bool) -> str:
    return "on" if value else "off"


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _block(machine: Any, words: Given, cpu: int) -> str:
    told = []
    if "n" not in words.flags:
        for row in ask(machine, "query-block"):
            if not words or row["device"] in words:
                told.append((_drive(row), row.get("inserted")))
    if "n" in words.flags or (words and not told):  # a name that is no drive's may be a node's
        for node in ask(machine, "query-named-block-nodes"):
            if not words or node["node-name"] in words:
                told.append((_drive({"device": "", "removable": False, "inserted": node}), node))
    return "\n".join(text + (_images(node) if "v" in words.flags and node else "") for text, node in told)


def _images(node: dict[str, Any]) -> str:
    from vmrun.machine.blocks import image_texts

    return f"\nImages:\n{image_texts(node['image'])}"


def _drive(row: dict[str, Any]) -> str:
    inserted = row.get("inserted")
    title = row["device"] or (inserted or {}).get("node-name") or row.get("qdev", "")
    if inserted is None:
        text = f"{title}: [not inserted]\n"
    else:
        if row["device"]:
            title += f" ({inserted['node-name']})"
        flags = f"{inserted['drv']}{', read-only' if inserted['ro'] else ''}"
        text = f"{title}: {inserted['file']} ({flags})\n"
    if "qdev" in row:
        text += f"    Attached to:      {row['qdev']}\n"
    if row["removable"]:
        tray = "open" if row.get("tray_open") else "closed"
        text += f"    Removable device: {'' if row['locked'] else 'not '}locked, tray {tray}\n"
    if row.get("io-status", "ok") != "ok":
        text += f"    I/O status:       {row['io-status']}\n"
    if inserted is not None:
        cache = inserted["cache"]
        words = ["writeback" if cache["writeback"] else "writethrough"]
        words += [name for name, on in (("direct", cache["direct"]), ("ignore flushes", cache["no-flush"])) if on]
        text += f"    Cache mode:       {', '.join(words)}\n"
        if inserted.get("backing_file"):
            depth = inserted["backing_file_depth"]
            text += f"    Backing file:     {inserted['backing_file']} (chain depth: {depth})\n"
        if inserted["detect_zeroes"] != "off":
            text += f"    Detect zeroes:    {inserted['detect_zeroes']}\n"
        if "group" in inserted:
            told = " ".join(f"{name}={inserted.get(name, 0)}" for name in _LIMITS)
            text += f"    I/O throttling:   {told} group={inserted['group']}\n"
    return text


_LIMITS = (
    *(f"bps{kind}{end}" for end in ("", "_max") for kind in ("", "_rd", "_wr")),
    *(f"iops{kind}{end}" for end in ("", "_max") for kind in ("", "_rd", "_wr")),
    "iops_size",
)


def _blockstats(machine: Any, words: Given, cpu: int) -> str:
    names = (
        "rd_bytes", "wr_bytes", "rd_operations", "wr_operations", "flush_operations", "wr_total_time_ns",
        "rd_total_time_ns", "flush_total_time_ns", "rd_merged", "wr_merged",
    )  # fmt: skip
    out = ""
    for row in ask(machine, "query-blockstats"):
        told = " ".join(f"{name}={row['stats'][name]}" for name in names)
        title, idle = row.get("device") or row.get("node-name", ""), row["stats"].get("idle_time_ns", 0)
        out += f"{title}: {told} idle_time_ns={idle}\n"
    return out


def _iothreads(machine: Any, words: Given, cpu: int) -> str:
    out = ""
    for row in ask(machine, "query-iothreads"):
        out += f"{row['id']}:\n  thread_id={row['thread-id']}\n"
        names = ("poll-max-ns", "poll-grow", "poll-shrink", "aio-max-batch")
        out += "".join(f"  {name}={row[name]}\n" for name in names)
    return out


def _memdev(machine: Any, words: Given, cpu: int) -> str:
    out = ""
    for row in ask(machine, "query-memdev"):
        out += f"memory backend: {row['id']}\n  size:  {row['size']}\n"
        out += "".join(f"  {name}: {_truth(row[name])}\n" for name in ("merge", "dump", "prealloc", "share", "reserve"))
        out += f"  policy: {row['policy']}\n  host nodes: {','.join(map(str, row['host-nodes']))}\n"
    return out + "\n"


def _memory_size(machine: Any, words: Given, cpu: int) -> str:
    found = ask(machine, "query-memory-size-summary")
    return f"base memory: {found['base-memory']}\nplugged memory: {found['plugged-memory']}\n"


def _memory_devices(machine: Any, words: Given, cpu: int) -> str:
    out = ""
    for row in ask(machine, "query-memory-devices"):
        data = row["data"]
        out += f"Memory device [{row['type']}]: \"{data.get('id', '')}\"\n"
        out += f"  addr: 0x{data.get('addr', 0):x}\n  slot: {data.get('slot', 0)}\n  node: {data.get('node', 0)}\n"
        out += f"  size: {data.get('size', 0)}\n  memdev: {data.get('memdev', '')}\n"
        out += f"  hotplugged: {_truth(data.get('hotplugged', False))}\n"
        out += f"  hotpluggable: {_truth(data.get('hotpluggable', True))}\n"
    return out


def _migrate(machine: Any, words: Given, cpu: int) -> str:
    found = ask(machine, "query-migrate")
    if "status" not in found:
        return "No migration\n"
    out = f"Migration status: {found['status']}\n"
    if found.get("error-desc"):
        out += f"  {found['error-desc']}\n"
    if "ram" in found:
        ram = found["ram"]
        out += f"total time: {found['total-time']} ms\n"
        for name in ("transferred", "remaining", "total"):
            out += f"{name} ram: {ram[name] >> 10} kbytes\n"
    return out


def _capabilities(machine: Any, words: Given, cpu: int) -> str:
    rows = ask(machine, "query-migrate-capabilities")
    return "".join(f"{row['capability']}: {_onoff(row['state'])}\n" for row in rows)


_UNITS = {
    **dict.fromkeys(("announce-initial", "announce-max", "announce-step", "downtime-limit"), " ms"),
    **{"x-checkpoint-delay": " ms", "max-bandwidth": " bytes/second", "xbzrle-cache-size": " bytes"},
}
_PARAMETERS = (
    "announce-initial", "announce-max", "announce-rounds", "announce-step", "compress-level", "compress-threads",
    "compress-wait-thread", "decompress-threads", "throttle-trigger-threshold", "cpu-throttle-initial",
    "cpu-throttle-increment", "cpu-throttle-tailslow", "max-cpu-throttle", "tls-creds", "tls-hostname",
    "max-bandwidth", "downtime-limit", "x-checkpoint-delay", "block-incremental", "multifd-channels",
    "multifd-compression", "xbzrle-cache-size", "max-postcopy-bandwidth", "tls-authz",
)  # fmt: skip


def _parameters(machine: Any, words: Given, cpu: int) -> str:
    found = ask(machine, "query-migrate-parameters")
    out = ""
    for name in _PARAMETERS:
        value = found[name]
        if isinstance(value, bool):
            value = _onoff(value)
        elif name.startswith("tls-"):
            value = f"'{value}'"
        out += f"{name}: {value}{_UNITS.get(name, '')}\n"
    return out


def _balloon(machine: Any, words: Given, cpu: int) -> str:
    return f"balloon: actual={ask(machine, 'query-balloon')['actual'] >> 20}\n"


def _hotpluggable(machine: Any, words: Given, cpu: int) -> str:
    out = "Hotpluggable CPUs:\n"
    for row in ask(machine, "query-hotpluggable-cpus"):
        out += f"  type: \"{row['type']}\"\n  vcpus_count: \"{row['vcpus-count']}\"\n"
        if "qom-path" in row:
            out += f"  qom_path: \"{row['qom-path']}\"\n"
        out += "  CPUInstance Properties:\n"
        for name in ("node-id", "socket-id", "die-id", "cluster-id", "core-id", "thread-id"):
            if name in row["props"]:
                out += f"    {name}: \"{row['props'][name]}\"\n"
    return out


def _generation(machine: Any, words: Given, cpu: int) -> str:
    return f"{ask(machine, 'query-vm-generation-id')['guid']}\n"


def _tpm(machine: Any, words: Given, cpu: int) -> str:
    rows = ask(machine, "query-tpm")
    out = "TPM device:\n" if rows else ""
    for n, row in enumerate(rows):
        out += f" tpm{n}: model={row['model']}\n"
        out += f"  \\ {row['id']}: type={row['options']['type']},chardev={row['options']['data']['chardev']}\n"
    return out


def _dump(machine: Any, words: Given, cpu: int) -> str:
    found = ask(machine, "query-dump")
    out = f"Status: {found['status']}\n"
    if found["status"] == "active":
        out += f"Finished: {100.0 * found['completed'] / max(1, found['total']):.2f} %\n"
    return out


def _dirty_rate(machine: Any, words: Given, cpu: int) -> str:
    found = ask(machine, "query-dirty-rate")
    rate = f"{found['dirty-rate']} (MB/s)" if "dirty-rate" in found else "(not ready)"
    return (
        f"Status: {found['status']}\nStart Time: {found['start-time']} (ms)\n"
        f"Sample Pages: {found['sample-pages']} (per GB)\nPeriod: {found['calc-time']} (sec)\n"
        f"Mode: {found['mode']}\nDirty rate: {rate}\n"
    )


VIEWS = by_name(
    Line("dirty_rate", "", "show dirty rate information", _dirty_rate),
    Line("balloon", "", "show balloon information", _balloon),
    Line("block-jobs", "", "show progress of ongoing block device operations", block_jobs),
    Line("snapshots", "", "show the currently saved VM snapshots", snapshots),
    Line("block", "[-n] [-v] [device]", "show info of drives (-n: of nodes with names; -v: what the images are)",
         _block, "-n -v block?"),
    Line("blockstats", "", "show block device statistics", _blockstats),
    Line("dump", "", "Display the latest dump status", _dump),
    Line("hotpluggable-cpus", "", "Show information about hotpluggable CPUs", _hotpluggable),
    Line("iothreads", "", "show iothreads", _iothreads),
    Line("memdev", "", "show memory backends", _memdev),
    Line("memory-devices", "", "show memory devices", _memory_devices),
    Line("memory_size_summary", "", "show the amount of initially allocated and present hotpluggable memory",
         _memory_size),
    Line("migrate", "", "show migration status", _migrate),
    Line("migrate_capabilities", "", "show current migration capabilities", _capabilities),
    Line("migrate_parameters", "", "show current migration parameters", _parameters),
    Line("tpm", "", "show the TPM device", _tpm),
    Line("vm-generation-id", "", "Show Virtual Machine Generation ID", _generation),
)
