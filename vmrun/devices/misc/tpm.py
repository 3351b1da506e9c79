"""What both interfaces of a TPM share: the program behind it, and memory where firmware and system talk of it."""

from __future__ import annotations

import struct

from accel.api import PyIoRegion

from vmrun.core.interfaces import TrustedModule
from vmrun.core.object import Device
from vmrun.core.props import Prop
from vmrun.core.state import KEEP, Bytes
from vmrun.errors import BuildError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

BASE = 0xFED40000
PRESENCE, PRESENCE_SIZE = 0xFED45000, 0x400
NOT_THERE = 0xFFFFFFFF
STATES = ("permanent", "volatile", "savestate")
LARGEST_STATE = 1 << 20
TPM_FIELDS = (
    Bytes("presence", PRESENCE_SIZE, KEEP),
    *(Bytes(name, reset=KEEP, most=LARGEST_STATE) for name in STATES),
)


class Tpm(Device, TrustedModule):
    hotpluggable = False

    tpmdev = Prop("object", doc="the host's side: a TPM in another program", visible=False, of=("tpm-backend",))
    ppi = Prop("bool", True, "memory for physical presence requests")

    def take(self, platform: Platform) -> Any:
        """The backend, which is this device's alone."""
        if not self.tpmdev:
            raise BuildError("'tpmdev' property is required")
        try:
            backend: Any = platform.user_object(self.tpmdev)
        except BuildError:
            backend = None
        if backend is None or not hasattr(backend, "startup"):
            raise BuildError(f"Property '{self.driver}.tpmdev' can't find value '{self.tpmdev}'")
        if backend.users:
            raise BuildError(f"Property '{self.driver}.tpmdev' can't take value '{self.tpmdev}', it's in use")
        backend.users.append(self.path)
        backend.model = self.driver
        self.backend, self.version = backend, int(backend.version)
        self.presence = bytearray(PRESENCE_SIZE)
        self.states: dict[str, bytes] = dict.fromkeys(STATES, b"")
        if self.ppi:
            io = PyIoRegion("tpm-ppi", self._read_presence, self._write_presence, 1, 1)
            self.map(platform.system_memory, io, PRESENCE, PRESENCE_SIZE, name="tpm-ppi")
            config = struct.pack("<IBB", PRESENCE, backend.version, 1)
            platform.add_fw_cfg_file("etc/tpm/config", config)
        return backend

    def unrealize(self) -> None:
        super().unrealize()
        self.backend.users.remove(self.path)

    # --- state: the interface's, and the TPM's own, which its program gives and takes ----------------------

    def under_way(self) -> bool:
        """A command has gone off whose response has not come."""
        raise NotImplementedError

    def before_save(self) -> None:
        if self.under_way():
            raise StateError(f"{self.path}: a TPM command is under way: save the machine a moment later")
        try:
            self.states = self.backend.states()
        except BuildError as error:
            raise StateError(f"{self.path}: {error.problems[0].message}") from None

    def apply(self, checked: dict[str, Any]) -> None:
        """The program takes its part first: when it does not, nothing has changed here."""
        try:
            self.backend.set_states({name: checked[name] for name in STATES})
        except BuildError as error:
            raise StateError(f"{self.path}: {error.problems[0].message}") from None
        super().apply(checked)

    permanent = property(lambda self: self.states["permanent"], lambda self, data: self.states.update(permanent=data))
    volatile = property(lambda self: self.states["volatile"], lambda self, data: self.states.update(volatile=data))
    savestate = property(lambda self: self.states["savestate"], lambda self, data: self.states.update(savestate=data))

    def module(self) -> dict[str, Any]:
        """A row of query-tpm."""
        data = {"chardev": self.backend.chardev}
        return {"id": self.tpmdev, "model": self.driver, "options": {"type": "emulator", "data": data}}

    # The system writes what it wants of the firmware here, and reads what became of it; it survives a reset.
    def _read_presence(self, offset: int, size: int) -> int:
        return self.presence[offset]

    def _write_presence(self, offset: int, size: int, value: int) -> None:
        self.presence[offset] = value & 0xFF
