"""Waiting for a descriptor of any number."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import time

from vmrun.core.ready import ready

HIGH = 1100  # select(2) knows none above 1023


def test_high_descriptors_are_waited_for() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * HIGH)), hard))
    ours, theirs = socket.socketpair()
    high = fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD_CLOEXEC, HIGH)
    try:
        began = time.monotonic()
        assert not ready(high, 0.05) and time.monotonic() - began >= 0.05
        assert ready(high, 0, writing=True)
        theirs.send(b"x")
        assert ready(high) and ready(high, 10)
        os.read(high, 1)
        theirs.close()
        assert ready(high, 10)  # nobody there any more: reading tells
    finally:
        os.close(high)
        ours.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
