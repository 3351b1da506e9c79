"""The run states of a machine as a table: what stands still in each, and which may follow which.

Ref: QEMU's interop/qmp, RunState; the names are those that `query-status` gives.
"""

from __future__ import annotations

# What goes on: processors and virtual time; virtual time alone (S3: timers and the clock's alarm can wake); nothing.
RUN, SLEEP, STILL = "run", "sleep", "still"

PRELAUNCH, RUNNING, PAUSED, SUSPENDED = "prelaunch", "running", "paused", "suspended"
SHUTDOWN, PANICKED, INTERNAL_ERROR, IO_ERROR = "shutdown", "guest-panicked", "internal-error", "io-error"
INMIGRATE, FINISH_MIGRATE, POSTMIGRATE = "inmigrate", "finish-migrate", "postmigrate"
SAVE, RESTORE, WATCHDOG, DEBUG = "save-vm", "restore-vm", "watchdog", "debug"

# the end of a run; a reset leads out of both
NEED_RESET = frozenset((SHUTDOWN, INTERNAL_ERROR))
# a stop of the machine's own accord or somebody's: `cont` leads out of them
STOPPED = (PAUSED, IO_ERROR, PANICKED, WATCHDOG, DEBUG)

# who asks, as numbers of RunControl.ask: QEMU's ShutdownCause, and what ends a sleep
CAUSES = (
    "guest", "host-qmp-quit", "host-qmp-system-reset", "host-signal", "host-ui", "host-error", "subsystem-reset",
    "other", "rtc", "pmtimer",
)  # fmt: skip

FOLLOWS: dict[str, frozenset[str]] = {
    PRELAUNCH: frozenset((RUNNING, INMIGRATE, FINISH_MIGRATE, RESTORE, SAVE)),
    RUNNING: frozenset((*STOPPED, *NEED_RESET, SUSPENDED, FINISH_MIGRATE, RESTORE, SAVE)),
    PAUSED: frozenset((RUNNING, SUSPENDED, PRELAUNCH, FINISH_MIGRATE, POSTMIGRATE, RESTORE, SAVE)),
    **{
        state: frozenset((RUNNING, SUSPENDED, PRELAUNCH, PAUSED, FINISH_MIGRATE, RESTORE, SAVE))
        for state in STOPPED[1:]
    },
    SUSPENDED: frozenset((RUNNING, *STOPPED, *NEED_RESET, PRELAUNCH, FINISH_MIGRATE, RESTORE, SAVE)),
    SHUTDOWN: frozenset((PRELAUNCH, PAUSED, FINISH_MIGRATE, RESTORE, SAVE)),
    INTERNAL_ERROR: frozenset((PRELAUNCH, PAUSED, FINISH_MIGRATE, RESTORE, SAVE)),
    # while a state comes in, and what it says of the machine when it is there
    INMIGRATE: frozenset((RUNNING, PRELAUNCH, SUSPENDED, FINISH_MIGRATE, POSTMIGRATE, *STOPPED, *NEED_RESET)),
    # while the state goes out: back to where it was when that fails
    FINISH_MIGRATE: frozenset((RUNNING, PRELAUNCH, SUSPENDED, POSTMIGRATE, *STOPPED, *NEED_RESET)),
    POSTMIGRATE: frozenset((RUNNING, PRELAUNCH, FINISH_MIGRATE)),
    SAVE: frozenset((RUNNING, PRELAUNCH, SUSPENDED, *STOPPED, *NEED_RESET)),
    RESTORE: frozenset((RUNNING, PRELAUNCH, SUSPENDED, POSTMIGRATE, *STOPPED, *NEED_RESET)),
}


def mode(state: str) -> str:
    """What goes on in a state."""
    return {RUNNING: RUN, SUSPENDED: SLEEP}.get(state, STILL)
