"""Time on the soft processor: an idle guest costs next to nothing, ticks keep the host's time.

For longer: `python -m tests.guest.test_time_soft 60`.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import pytest

from tests.guest.boots import load
from tests.guest.linux import initramfs, kernel
from tests.guest.machines import Guest, write_machine

pytestmark = [pytest.mark.guest, pytest.mark.slow]
ROOT = pathlib.Path(__file__).parents[2]
MOST_IDLE = 0.1         # of a core; 0.002 on an idle host
# Channel 0 of the 8254 at 1193182 / 1193 Hz = 1000.15 Hz, mode 2; the handler counts, and tells each 500 by a byte 'T'
# on the debug console. The host's clock is the judge.
TICKS = bytes.fromhex(
    "fa 31c0 8ed8 8ed0 bc007c"              # cli; ds = ss = 0; sp = 7c00h
    "c7062000 477c c7062200 0000"           # vector 8: 0:7c47h
    "b034 e643 b0a9 e640 b004 e640"         # mode 2, 1193
    "b0fe e621 b0ff e6a1"                   # IRQ 0 alone
    "c70600700000"                          # [7000h] = 0
    "fb f4 ebfd"                            # sti; hlt for ever
)
HANDLER = bytes.fromhex(
    "50 ff060070 813e0070f401 720e"         # push ax; inc [7000h]; below 500?
    "c70600700000 52 ba0204 b054 ee 5a"     # [7000h] = 0; 'T' to port 402h
    "b020 e620 58 cf"                       # end of interrupt; iret
)
HERTZ = 1193182 / 1193


def cpu_time(pid: int) -> float:
    """Seconds that the threads of a process have run."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def idle_share(directory: pathlib.Path, seconds: float, cpus: int) -> float:
    """Of a core that a Linux guest costs which sleeps."""
    script = "echo SLEEPS; sleep 100000"
    file = write_machine(
        directory, machine="pc-i440fx-2.0", accel=["soft"], memory="256MiB", cpus={"count": cpus}, serial="stdio",
        kernel=kernel(), initrd=initramfs(directory, script), cmdline="console=ttyS0 quiet",
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "vmrun", "up", str(file)]
    child = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        for line in child.stdout:
            if b"SLEEPS" in line:
                break
        else:
            raise AssertionError("the guest did not come up")
        before = 0.0
        for _ in range(2):          # what follows a boot is over in the first round
            before = cpu_time(child.pid)
            time.sleep(seconds)
        return (cpu_time(child.pid) - before) / seconds
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def drift(directory: pathlib.Path, seconds: float, held: float = 0.0) -> tuple[int, float]:
    """(ticks counted, seconds that the guest lags behind the host by then) of a guest that counts 1000 ticks a second.

    Half-way the processor has to wait for the device lock for `held` seconds. A moment is seen up to 0.1 s late, or
    more on a busy host: of five the one seen earliest counts.
    """
    at = TICKS.ljust(0x47, b"\x90") + HANDLER
    (directory / "disk.img").write_bytes(at.ljust(510, b"\0") + b"\x55\xaa" + bytes((1 << 20) - 512))
    wanted = int(seconds * 2) + 1
    moments: list[tuple[int, float]] = []
    with Guest(directory, "soft", machine="pc-i440fx-2.0", memory="16MiB", disks=["disk.img"]) as guest:
        def look() -> bool:
            count = guest.output().partition("Booting from 0000:7c00\n")[2].count("T")
            if count and (not moments or moments[-1][0] != count):
                moments.append((count, time.monotonic()))
                if held and count == wanted // 2:
                    with guest.machine.board.lock:
                        time.sleep(held)
            return count >= wanted

        assert guest.run_until(look, 60 + 4 * seconds)
    lags = [moment - count * 500 / HERTZ for count, moment in moments]
    return (moments[-1][0] - moments[0][0]) * 500, min(lags[-5:]) - min(lags[:5])


@pytest.mark.parametrize("cpus", [1, 4])
def test_an_idle_linux_costs_next_to_nothing(cpus: int, tmp_path: pathlib.Path) -> None:
    assert idle_share(tmp_path, 3.0, cpus) < MOST_IDLE


@pytest.mark.parametrize("busy", [0, 2])
def test_a_thousand_ticks_a_second_arrive_and_keep_the_hosts_time(busy: int, tmp_path: pathlib.Path) -> None:
    with load(busy):
        ticks, lag = drift(tmp_path, 10)
    assert ticks >= 9500
    assert abs(lag) < 0.3


def test_a_processor_that_had_to_wait_catches_up_without_losing_a_tick(tmp_path: pathlib.Path) -> None:
    ticks, lag = drift(tmp_path, 6, held=1.5)
    assert ticks >= 5500
    assert abs(lag) < 0.3


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as directory:
        ticks, lag = drift(pathlib.Path(directory), seconds)
        print(f"{ticks} ticks; after them the guest is {1000 * lag:.0f} ms behind the host")
        for cpus in (1, 4):
            share = idle_share(pathlib.Path(directory), 10.0, cpus)
            print(f"idle Linux, {cpus} processors: {100 * share:.2f} % of a core")


if __name__ == "__main__":
    main()
