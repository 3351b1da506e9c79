"""What both interfaces of a TPM share: the program behind it, and memory where firmware and system talk of it."""

from __future__ import annotations

import struct

from accel.api import PyIoRegion

from vmrun.core.interfaces import TrustedModule
from vmrun.core.object import Device
from vmrun.core.props import Prop
from vmrun.errors import BuildError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

BASE = 0xFED40000
PRESENCE, PRESENCE_SIZE = 0xFED45000, 0x400
NOT_THERE = 0xFFFFFFFF


class Tpm(Device, TrustedModule):
    hotpluggable = False

    tpmdev = Prop("str", doc="the host's side: an object of type tpm-emulator", visible=False)
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
        if self.ppi:
            io = PyIoRegion("tpm-ppi", self._read_presence, self._write_presence, 1, 1)
            self.map(platform.system_memory, io, PRESENCE, PRESENCE_SIZE, name="tpm-ppi")
            config = struct.pack("<IBB", PRESENCE, backend.version, 1)
            platform.add_fw_cfg_file("etc/tpm/config", config)
        return backend

    def unrealize(self) -> None:
        super().unrealize()
        self.backend.users.remove(self.path)

    def save(self) -> dict[str, Any]:
        raise StateError(f"{self.path}: the state of a TPM is its program's: a machine with one cannot be saved")

    def module(self) -> dict[str, Any]:
        """A row of query-tpm."""
        data = {"chardev": self.backend.chardev}
        return {"id": self.tpmdev, "model": self.driver, "options": {"type": "emulator", "data": data}}

    # The system writes what it wants of the firmware here, and reads what became of it; it survives a reset.
    def _read_presence(self, offset: int, size: int) -> int:
        return self.presence[offset]

    def _write_presence(self, offset: int, size: int, value: int) -> None:
        self.presence[offset] = value & 0xFF
