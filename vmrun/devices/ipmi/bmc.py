"""ipmi-bmc-sim: a management controller that is simulated, with sensors, event log, inventory and watchdog.

A system talks to it through an interface that names it (`isa-ipmi-kcs` and its kin). Like a real one it has power of
its own: a reset of the machine is none of it. Ref: IPMI v2.0 rev. 1.1: 20 and 22 (the controller, messages),
27 (watchdog), 28 (chassis), 29 (events), and those of the other files. Commands, and what is odd about
some, are QEMU's.
Not modelled: power cycles, SMI, users, LAN; messages to other controllers, but for one that asks this one who it is.
"""

from __future__ import annotations

import os
import uuid

from vmrun.core.object import Device
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import KEEP, U8, Bytes, Number, Part, Parts, Table
from vmrun.devices.ipmi import sensors
from vmrun.devices.ipmi.records import (
    INVALID_DATA,
    NOT_PRESENT,
    OUT_OF_SPACE,
    EventLog,
    FruAreas,
    Refused,
    SensorRecords,
    dword,
    erase,
    word,
)
from vmrun.devices.ipmi.watchdog import MESSAGE, NMI, POWER_DOWN, RESET, SENSOR, Watchdog
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.core.platform import Platform

    Command = Callable[["IpmiBmcSim", bytes], bytes]

CHASSIS, SENSOR_EVENT, APP, STORAGE = 0x00, 0x04, 0x06, 0x0A  # network functions of requests
INVALID_COMMAND, INVALID_FOR_LUN, WRONG_LENGTH, NOT_SUPPORTED = 0xC1, 0xC2, 0xC7, 0xD5
NO_DATA, NOT_ACKNOWLEDGED = 0x80, 0x83
LONGEST = 300  # bytes of a request or an answer
# message flags, and the global enables of the interrupts for them
MESSAGE_QUEUED, EVENT_BUFFERED, WARNED = 0x01, 0x02, 0x08
MESSAGE_INTERRUPT, EVENT_INTERRUPT, EVENT_BUFFER, EVENT_LOG = 0x01, 0x02, 0x04, 0x08
EVENT_REVISION, EVENT_SIZE = 4, 16
MOST_MESSAGES = 16
OWN_ADDRESS = 0x40  # to which a message on the bus is for this controller
POWER_OFF, POWER_ON, CYCLE, HARD_RESET, DIAGNOSE, SOFT_OFF = range(6)
# type 2, of the watchdog: its events 0 to 3 and 8
WATCHDOG_RECORD = bytes.fromhex("000051022320000023016300236f0f01000000000000000000000000000000c8") + b"Watchdog"

COMMANDS: dict[tuple[int, int], tuple[int, Command]] = {}


def command(function: int, number: int, least: int = 0) -> Callable[[Command], Command]:
    """Of at least `least` bytes of data. A handler gives the data of its answer, or raises Refused."""

    def add(handler: Command) -> Command:
        COMMANDS[function, number] = least, handler
        return handler

    return add


@register("ipmi-bmc-sim", description="IPMI: a management controller, simulated")
class IpmiBmcSim(Device):
    hotpluggable = False

    slave_addr = Prop("uint8", 0x20, "address on the management bus")
    device_id = Prop("uint8", 0x20, "device id")
    device_rev = Prop("uint8", 0, "device revision")
    fwrev1 = Prop("uint8", 0, "firmware revision, before the point")
    fwrev2 = Prop("uint8", 0, "and behind it")
    ipmi_version = Prop("uint8", 2, "version", visible=False, idle="as in QEMU, the controller says 2.0 in any case")
    mfg_id = Prop("uint32", 0, "manufacturer")
    product_id = Prop("uint16", 0, "product")
    guid = Prop("str", doc="UUID of the controller, or auto for a new one; none: it does not say one")
    sdrfile = Prop("str", doc="sensor records, one after another; else there is one, of the watchdog", visible=False)
    fruareasize = Prop("uint16", 1024, "bytes of an inventory area", min=2)
    frudatafile = Prop("str", doc="inventory areas; else there is one, empty", visible=False)

    enables: int
    flags: int
    power_state: bytes
    event: bytes
    queue: bytes

    state = Table(
        "ipmi-bmc-sim",
        1,
        U8("enables", KEEP),
        Number("flags", 0, 0xFF, KEEP),
        Bytes("power_state", 2, KEEP),
        Bytes("event", EVENT_SIZE, KEEP),
        Bytes("queue", reset=KEEP, most=MOST_MESSAGES * 64),
        Bytes("inventory", lambda bmc: len(bmc.fru.data), KEEP),
        Part("log", KEEP),
        Part("records", KEEP),
        Part("watchdog", KEEP),
        Parts("sensors"),
    )

    def realize(self, platform: Platform) -> None:
        self.platform = platform
        self.uuid = self._uuid()
        self.interface: Any = None
        self.enables, self.flags = EVENT_LOG, 0
        self.power_state, self.event, self.queue = bytes(2), bytes(EVENT_SIZE), b""
        self.log = EventLog(lambda: int(platform.host.time()) // 1_000_000_000)
        self.records = SensorRecords(self.log.time)
        self._describe(_file(self.sdrfile) if self.sdrfile else WATCHDOG_RECORD)
        self.sensors = sensors.described(self.records.each())
        self.fru = FruAreas(self.fruareasize, _file(self.frudatafile) if self.frudatafile else b"")
        self.watchdog = Watchdog(platform, self._warn, self._act, self._watchdog_event)

    def _uuid(self) -> uuid.UUID | None:
        if not self.guid:
            return None
        try:
            return uuid.uuid4() if self.guid == "auto" else uuid.UUID(self.guid)
        except ValueError:
            raise BuildError(f"{self.path}.guid: '{self.guid}' is no UUID") from None

    def unrealize(self) -> None:
        self.watchdog.stop()
        super().unrealize()

    def reset(self) -> None:
        """It goes on."""

    @property
    def inventory(self) -> bytes:
        return bytes(self.fru.data)

    @inventory.setter
    def inventory(self, data: bytes) -> None:
        self.fru.data[:] = data

    def settle(self) -> None:
        self._settle_attention()

    def take(self, interface: Any) -> None:
        """The interface through which it is talked to: attention(is_set, interrupts)."""
        if self.interface is not None:
            raise BuildError(f"{self.id or self.path} has an interface already", remedy="give each one of its own")
        self.interface = interface

    def let_go(self) -> None:
        self.interface = None

    def _describe(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            end = at + 5 + data[at + 4] if at + 5 <= len(data) else len(data) + 1
            if end > len(data) or self.records.add(data[at:end]) is None:
                raise BuildError(f"{self.path}: invalid sensor records: one at byte {at} is not whole or does not fit")
            at = end

    # --- requests -----------------------------------------------------------------------------------------

    def ask(self, request: bytes) -> bytes:
        """The answer: network function, command, completion code, data."""
        function, number = request[0] if request else 0, request[1] if len(request) > 1 else 0
        head = bytes([function | 4, number])
        if len(request) < 2:
            return head + bytes([WRONG_LENGTH])
        if function & 3:
            return head + bytes([INVALID_FOR_LUN])
        least, handler = COMMANDS.get((function >> 2, number), (0, None))
        if handler is None:
            return head + bytes([INVALID_COMMAND])
        if len(request) - 2 < least:
            return head + bytes([WRONG_LENGTH])
        try:
            return head + b"\0" + handler(self, request[2:])
        except Refused as refused:
            return head + bytes([refused.code])

    @property
    def interrupts_on(self) -> bool:
        return bool(self.enables & (MESSAGE_INTERRUPT | EVENT_INTERRUPT))

    # --- what it does by itself -----------------------------------------------------------------------------

    def _settle_attention(self) -> None:
        if self.interface is not None:
            wanted = self.flags & MESSAGE_QUEUED and self.enables & MESSAGE_INTERRUPT
            wanted |= self.flags & EVENT_BUFFERED and self.enables & EVENT_INTERRUPT
            self.interface.attention(bool(self.flags & (MESSAGE_QUEUED | EVENT_BUFFERED | WARNED)), bool(wanted))

    def _tell(self, number: int, deasserted: bool, data: bytes) -> None:
        """An event of a sensor: into the buffer, if that is on, and then into the log, if that is on too."""
        sensor = self.sensors[number]
        if not sensor.status & sensors.EVENTS_ON or not self.enables & EVENT_BUFFER:
            return
        told = (self.slave_addr, 0, EVENT_REVISION, sensor.type, number, sensor.event_type | deasserted << 7, *data)
        event = bytes([0, 0, 2, 0, 0, 0, 0, *told])
        if self.enables & EVENT_LOG:
            number = self.log.add(event) or 0
            event = self.log.stamped(event, number)
        if self.flags & EVENT_BUFFERED:
            return
        self.event = event
        self.flags |= EVENT_BUFFERED
        self._settle_attention()

    def _watchdog_event(self, offset: int, data: bytes) -> None:
        sensor = self.sensors[SENSOR]
        if sensor.present:
            sensor.asserted |= 1 << offset
            if sensor.assert_enable >> offset & 1:
                self._tell(SENSOR, False, data)

    def _warn(self, interrupt: int) -> None:
        self.flags |= WARNED
        if interrupt == NMI:
            self.platform.inject_nmi()
        elif interrupt == MESSAGE:
            self._settle_attention()

    def _act(self, action: int) -> None:
        from accel.api import Action

        if action == RESET:
            self.platform.request(Action.RESET)
        elif action == POWER_DOWN:
            self.platform.request(Action.SHUTDOWN)

    # --- chassis ------------------------------------------------------------------------------------------

    @command(CHASSIS, 0x00)
    def capabilities(self, data: bytes) -> bytes:
        """Where inventory, sensor records, event log and system management are: here."""
        return bytes([0, *[self.slave_addr] * 4])

    @command(CHASSIS, 0x01)
    def status(self, data: bytes) -> bytes:
        return bytes([0x61, 0, 0, 0])  # on; what it does when power comes back is not known

    @command(CHASSIS, 0x02, 1)
    def control(self, data: bytes) -> bytes:
        from accel.api import Action

        wanted = data[0] & 0xF
        if wanted in (POWER_ON, CYCLE, DIAGNOSE):
            raise Refused(NOT_SUPPORTED)
        actions = {POWER_OFF: Action.SHUTDOWN, HARD_RESET: Action.RESET, SOFT_OFF: Action.POWERDOWN}
        if wanted not in actions:
            raise Refused(INVALID_DATA)
        self.platform.request(actions[wanted])
        return b""

    @command(CHASSIS, 0x09)
    def restart_cause(self, data: bytes) -> bytes:
        return bytes(2)  # not known

    # --- sensors and events -------------------------------------------------------------------------------

    @command(SENSOR_EVENT, 0x02, 8)
    def platform_event(self, data: bytes) -> bytes:
        """An event that the system has to tell."""
        if self.log.add(bytes([0, 0, 2, 0, 0, 0, 0, data[0], 0, *data[1:8]])) is None:
            raise Refused(OUT_OF_SPACE)
        return b""

    def _sensor(self, number: int) -> sensors.Sensor:
        if number >= sensors.MOST or not self.sensors[number].present:
            raise Refused(NOT_PRESENT)
        return self.sensors[number]

    @command(SENSOR_EVENT, 0x28, 2)
    def set_event_enable(self, data: bytes) -> bytes:
        self._sensor(data[0]).set_enables(data[1:])
        return b""

    @command(SENSOR_EVENT, 0x29, 1)
    def get_event_enable(self, data: bytes) -> bytes:
        return self._sensor(data[0]).enables()

    @command(SENSOR_EVENT, 0x2A, 2)
    def rearm(self, data: bytes) -> bytes:
        self._sensor(data[0])  # what was told stays so, as in QEMU
        return b""

    @command(SENSOR_EVENT, 0x2B, 1)
    def event_status(self, data: bytes) -> bytes:
        return self._sensor(data[0]).events()

    @command(SENSOR_EVENT, 0x2D, 1)
    def reading(self, data: bytes) -> bytes:
        return self._sensor(data[0]).read()

    @command(SENSOR_EVENT, 0x2E, 3)
    def set_type(self, data: bytes) -> bytes:
        sensor = self._sensor(data[0])
        sensor.type, sensor.event_type = data[1], data[2] & 0x7F
        return b""

    @command(SENSOR_EVENT, 0x2F, 1)
    def get_type(self, data: bytes) -> bytes:
        sensor = self._sensor(data[0])
        return bytes([sensor.type, sensor.event_type])

    @command(SENSOR_EVENT, 0x30, 3)
    def set_reading(self, data: bytes) -> bytes:
        number = data[0]
        self._sensor(number).set_reading(data[1:], lambda deasserted, event: self._tell(number, deasserted, event))
        return b""

    # --- the controller ------------------------------------------------------------------------------------

    @command(APP, 0x01)
    def get_device_id(self, data: bytes) -> bytes:
        """With sensors, sensor records and an event log."""
        head = [self.device_id, self.device_rev & 0xF, self.fwrev1 & 0x7F, self.fwrev2, 2, 0x07]
        return bytes(head) + dword(self.mfg_id)[:3] + word(self.product_id)

    @command(APP, 0x02)
    def cold_reset(self, data: bytes) -> bytes:
        return self.set_enables(bytes([EVENT_LOG]))

    @command(APP, 0x03)
    def warm_reset(self, data: bytes) -> bytes:
        return b""

    @command(APP, 0x06, 2)
    def set_power_state(self, data: bytes) -> bytes:
        self.power_state = data[:2]
        return b""

    @command(APP, 0x07)
    def get_power_state(self, data: bytes) -> bytes:
        return self.power_state

    @command(APP, 0x08)
    def get_guid(self, data: bytes) -> bytes:
        if self.uuid is None:
            raise Refused(INVALID_COMMAND)
        return self.uuid.bytes

    @command(APP, 0x22)
    def reset_watchdog(self, data: bytes) -> bytes:
        return self.watchdog.start()

    @command(APP, 0x24, 6)
    def set_watchdog(self, data: bytes) -> bytes:
        return self.watchdog.set(data)

    @command(APP, 0x25)
    def get_watchdog(self, data: bytes) -> bytes:
        return self.watchdog.get()

    @command(APP, 0x2E, 1)
    def set_enables(self, data: bytes) -> bytes:
        self.enables = data[0]
        self._settle_attention()
        return b""

    @command(APP, 0x2F)
    def get_enables(self, data: bytes) -> bytes:
        return bytes([self.enables])

    @command(APP, 0x30, 1)
    def clear_flags(self, data: bytes) -> bytes:
        self.flags &= ~data[0]
        self._settle_attention()
        return b""

    @command(APP, 0x31)
    def get_flags(self, data: bytes) -> bytes:
        return bytes([self.flags])

    @command(APP, 0x33)
    def get_message(self, data: bytes) -> bytes:
        """Each in the queue has its length before it."""
        if not self.queue:
            raise Refused(NO_DATA)
        size = self.queue[0]
        message, self.queue = self.queue[1 : 1 + size], self.queue[1 + size :]
        if not self.queue:
            self.flags &= ~MESSAGE_QUEUED
            self._settle_attention()
        return b"\0" + message  # from channel 0

    @command(APP, 0x34, 1)
    def send_message(self, data: bytes) -> bytes:
        """To a controller on the bus. There is one, which tells who it is."""
        if data[0]:
            raise Refused(INVALID_DATA)
        if len(data) < 8:
            raise Refused(WRONG_LENGTH)
        message = data[1:]
        if message[0] != OWN_ADDRESS:
            raise Refused(NOT_ACKNOWLEDGED)
        if sum(message[:3]) & 0xFF or sum(message[3:]) & 0xFF or message[1] & 3 != 2:
            return b""
        function = message[1] >> 2
        head = bytes([(function | 1) << 2 | message[1] & 3])
        answer = head + bytes([-sum(head) & 0xFF]) + bytes([message[0], message[4], message[5]])
        if (function, message[5]) == (APP, 0x01):
            answer += b"\0" + self.get_device_id(b"")
        else:
            answer += bytes([INVALID_COMMAND])
        answer += bytes([-sum(answer[2:]) & 0xFF])
        if len(self.queue) + 1 + len(answer) <= MOST_MESSAGES * 64:
            self.queue += bytes([len(answer)]) + answer
            self.flags |= MESSAGE_QUEUED
            self._settle_attention()
        return b""

    @command(APP, 0x35)
    def read_event(self, data: bytes) -> bytes:
        if not self.flags & EVENT_BUFFERED:
            raise Refused(NO_DATA)
        self.flags &= ~EVENT_BUFFERED
        self._settle_attention()
        return self.event

    # --- storage --------------------------------------------------------------------------------------------

    @command(STORAGE, 0x10, 1)
    def fru_info(self, data: bytes) -> bytes:
        return self.fru.info(data[0])

    @command(STORAGE, 0x11, 3)
    def read_fru(self, data: bytes) -> bytes:
        if len(data) < 4:
            raise Refused(INVALID_DATA)
        return self.fru.read(data[0], int.from_bytes(data[1:3], "little"), data[3])

    @command(STORAGE, 0x12, 3)
    def write_fru(self, data: bytes) -> bytes:
        return self.fru.write(data[0], int.from_bytes(data[1:3], "little"), data[3:])

    @command(STORAGE, 0x20)
    def sdr_info(self, data: bytes) -> bytes:
        return self.records.info()

    @command(STORAGE, 0x22)
    def reserve_sdr(self, data: bytes) -> bytes:
        return word(self.records.reservation)

    @command(STORAGE, 0x23, 6)
    def get_sdr(self, data: bytes) -> bytes:
        return self.records.get(data, LONGEST - 3)

    @command(STORAGE, 0x24)
    def add_sdr(self, data: bytes) -> bytes:
        number = self.records.add(data)
        if number is None:
            raise Refused(INVALID_DATA)
        return word(number)

    @command(STORAGE, 0x27, 6)
    def clear_sdr(self, data: bytes) -> bytes:
        return erase(data, self.records.reservation, self.records.clear)

    @command(STORAGE, 0x40)
    def log_info(self, data: bytes) -> bytes:
        return self.log.info()

    @command(STORAGE, 0x42)
    def reserve_log(self, data: bytes) -> bytes:
        return word(self.log.reservation)

    @command(STORAGE, 0x43, 6)
    def get_log_entry(self, data: bytes) -> bytes:
        return self.log.get(data)

    @command(STORAGE, 0x44, 16)
    def add_log_entry(self, data: bytes) -> bytes:
        number = self.log.add(data[:16])
        if number is None:
            raise Refused(OUT_OF_SPACE)
        return word(number)

    @command(STORAGE, 0x47, 6)
    def clear_log(self, data: bytes) -> bytes:
        return erase(data, self.log.reservation, self.log.clear)

    @command(STORAGE, 0x48)
    def get_time(self, data: bytes) -> bytes:
        return self.log.time()

    @command(STORAGE, 0x49, 4)
    def set_time(self, data: bytes) -> bytes:
        self.log.set_time(data[:4])
        return b""


def _file(path: str) -> bytes:
    """A small file of the host's, whole. BuildError."""
    try:
        if os.path.getsize(path) > 1 << 20:
            raise BuildError(f"{path} is larger than 1 MiB")
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BuildError(f"could not open '{path}': {error.strerror}") from None
