"""A disk on an NBD server, from this side of the connection."""

from __future__ import annotations

import socket
import threading
import time

from vmrun.backends.block.nbd import NbdNode

REQUEST = 28  # bytes


def test_all_that_wait_for_a_lost_connection_are_told() -> None:
    """One alone was: the others waited for ever, and with them who closed the disk."""
    ours, theirs = socket.socketpair()
    node = NbdNode([ours], 1 << 20, 0, False, "nbd")
    failed: list[OSError] = []

    def read() -> None:
        try:
            node.read(0, 512)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=read, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert len(theirs.recv(REQUEST, socket.MSG_WAITALL)) == REQUEST
    time.sleep(0.05)  # the others wait for their turn
    theirs.close()
    for thread in threads:
        thread.join(20)
    assert len(failed) == len(threads) and not any(thread.is_alive() for thread in threads)
    node.close()
