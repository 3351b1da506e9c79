"""The watchdog of a management controller: a timer that the system starts again and again, or else.

Ref: IPMI v2.0 rev. 1.1, 27.
"""

from __future__ import annotations

from accel.clock import PyTimer

from vmrun.core.state import U8, U16, Deadline, Flag, Stateful, Table
from vmrun.devices.ipmi.records import INVALID_DATA, Refused, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmrun.core.platform import Platform

TENTH, SECOND = 100_000_000, 1_000_000_000  # ns
GO_ON = 0x40  # in the byte of the use: setting does not stop it
NO_ACTION, RESET, POWER_DOWN, POWER_CYCLE = range(4)
NO_INTERRUPT, SMI, NMI, MESSAGE = range(4)
LAST_USE = 5
SENSOR, PRETIMEOUT = 0, 8  # its sensor's number; the offset of the event before the end, the others are the actions
NOT_SET = 0x80  # completion code


class Watchdog(Stateful):
    """`warn(interrupt)` and `act(action)` carry out what is due; `tell(offset, event data)` is the sensor's event."""

    state = Table(
        "ipmi-watchdog",
        1,
        Flag("is_set"),
        Flag("running"),
        Flag("warned"),
        U8("use"),
        U8("action", most=0x77),
        U8("pretimeout"),
        U8("expired"),
        U16("timeout"),
        Deadline("timer"),
    )
    is_set: bool
    running: bool
    warned: bool
    use: int
    action: int
    pretimeout: int
    expired: int
    timeout: int

    def __init__(
        self,
        platform: Platform,
        warn: Callable[[int], None],
        act: Callable[[int], None],
        tell: Callable[[int, bytes], None],
    ) -> None:
        self.clock = platform.virtual
        self.timer = PyTimer(platform.timers, self._due)
        self.warn, self.act, self.tell = warn, act, tell
        self.reset()

    def set(self, data: bytes) -> bytes:
        """Use, action and interrupt, seconds before the end, which expiry flags to clear, tenths of seconds."""
        use, action = data[0] & 7, data[1] & 7
        # without power cycles and system management interrupts, which this machine cannot do
        interrupt = data[1] >> 4 & 7
        if not 0 < use <= LAST_USE or action > POWER_DOWN or interrupt not in (NO_INTERRUPT, NMI, MESSAGE):
            raise Refused(INVALID_DATA)
        self.is_set = True
        self.use, self.action, self.pretimeout = data[0] & 0xC7, data[1] & 0x77, data[2]
        self.expired &= ~data[3]
        self.timeout = int.from_bytes(data[4:6], "little")
        if self.running and self.use & GO_ON:
            self.start()
        else:
            self.stop()
        return b""

    def start(self) -> bytes:
        if not self.is_set:
            raise Refused(NOT_SET)
        if self.action & 7 == NO_ACTION:
            # nothing will come of it, as QEMU has it
            self.stop()
            return b""
        self.warned, self.running = False, True
        left = self.timeout * TENTH - (self.pretimeout * SECOND if self.action >> 4 else 0)
        self.timer.schedule(self.clock.time() + max(left, 0))
        return b""

    def stop(self) -> None:
        self.running = False
        self.timer.stop()

    def get(self) -> bytes:
        left = 0
        if self.running:
            left = max(self.timer.deadline - self.clock.time() + TENTH // 2, 0) // TENTH
        rest = bytes([self.use, self.action, self.pretimeout, self.expired])
        return rest + word(self.timeout) + word(min(left, 0xFFFF))

    def _due(self) -> None:
        """The device lock is held."""
        interrupt = self.action >> 4
        if interrupt and not self.warned:
            self.warned = True
            self.timer.schedule(self.clock.time() + self.pretimeout * SECOND)
            self.warn(interrupt)
            self.tell(PRETIMEOUT, bytes([0xC0 | PRETIMEOUT, interrupt << 4 | 0xF, 0xFF]))
            return
        self.running = False
        self.expired |= 1 << (self.use & 7)
        action = self.action & 7
        self.tell(action, bytes([0xC0 | action, self.use & 0xF, 0xFF]))
        self.act(action)
