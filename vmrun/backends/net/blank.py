"""Stands for a network that nobody opened: for views and checks of a machine, which touch nothing of the host."""

from __future__ import annotations

from vmrun.backends.net.base import HostNet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class BlankNet(HostNet):
    queues = 1


def open(name: str, spec: dict[str, Any], host: Any) -> BlankNet:
    net = BlankNet()
    net.queues = len(str(spec["fds"]).split(":")) if spec.get("fds") else int(spec.get("queues") or 1)
    return net
