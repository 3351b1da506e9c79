"""vmrun ps: the machines of this user that run."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(argv: list[str]) -> int:
    import argparse

    from vmrun.cli.out import add_format

    parser = argparse.ArgumentParser("vmrun ps", description="List the machines that this user runs.")
    add_format(parser, "text", "json")
    args = parser.parse_args(argv)

    from vmrun.cli.out import print_json, table
    from vmrun.monitor.runtime import running

    rows = [_row(one) for one in running()]
    if args.format == "json":
        print_json(rows)
    else:
        table(
            ("name", "pid", "status", "machine", "monitor"),
            [(row["name"], str(row["pid"]), row["status"], row["machine"], row["monitor"]) for row in rows],
        )
    return 0


def _row(one: Any) -> dict[str, Any]:
    from vmrun.errors import MonitorError
    from vmrun.monitor.client import QmpClient

    row = {"name": one.name, "pid": one.pid, "status": "does not answer", "machine": "", "monitor": one.path}
    try:
        with QmpClient(one.path, timeout=2.0) as qmp:
            row["status"] = qmp.execute("query-status")["status"]
            row["name"] = qmp.execute("query-name").get("name", one.name)
            row["machine"] = qmp.execute("qom-get", path="/machine", property="type").removesuffix("-machine")
        row["networks"] = _networks(one)
    except MonitorError:
        pass
    return row


def _networks(one: Any) -> list[dict[str, Any]]:
    """Its back ends; with the ports that lead to the guest."""
    from vmrun.errors import MonitorError
    from vmrun.monitor.client import QmpClient

    try:
        with QmpClient(one.path, timeout=2.0) as qmp:
            return [
                {key: row[key] for key in ("id", "type", "card", "link", "hostfwd") if key in row}
                for row in qmp.execute("x-query-network")
            ]
    except MonitorError:
        return []
