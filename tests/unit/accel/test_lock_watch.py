"""The device lock, watched: what its holders did, and how long processors waited for them. In a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

PROGRAM = """
import ctypes, json, threading, time
from accel import errands

def named(name, then):
    def main():
        ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
        then()
    thread = threading.Thread(target=main)
    thread.start()
    return thread

def take():
    with lock:
        pass

lock = errands.ErrandLock()
with lock:
    errands.watch(1_000_000)            # in the middle of a hold
take()
with lock:
    with lock:
        waiting = named(b"CPU 7/KVM", take)
        memory = bytearray(256 * 4096)
        memory[::4096] = bytes(range(256))          # pages that nobody has touched before
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
waiting.join()
with lock:
    other = named(b"worker", take)
    time.sleep(0.05)
other.join()
named(b"CPU 8/KVM", take).join()
print(json.dumps(errands.watched()))
"""


def test_holds_and_waits_are_told_apart() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["takes"], found["waits"]) == (2, 1)  # processors' alone
    assert 10e6 < found["longest-net"] <= found["longest"]
    assert sum(found["buckets"]) == 2 and found["buckets"][0] == 1
    rows = [row for who, row in found["holders"].items() if who.startswith("<string>:")]  # and the line
    assert [row[0] for row in rows] == [1, 1]
    assert max(row[1] for row in rows) > 15e6 and max(row[2] for row in rows) > 20e6
    ((wait, net, holds),) = found["long-waits"]
    assert (wait, net) == (found["longest"], found["longest-net"])
    assert len(holds) == 1 and holds[0][0].startswith("<string>:") and holds[0][1] > 15e6 and holds[0][4] > 0
