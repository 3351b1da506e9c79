"""The SMBus of a south bridge: targets by 7-bit address."""

from __future__ import annotations

from vmrun.core.state import KEEP, U8, Bytes, Stateful, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.object import Device


class SmbusTarget(Stateful):
    """256 registers, as an EEPROM or a sensor shows them."""

    state = Table("smbus-target", 1, Bytes("data", 256, KEEP), U8("offset", KEEP))

    def __init__(self, data: bytes = bytes(256)) -> None:
        self.data = bytearray(data)
        self.offset = 0

    def send_byte(self, value: int) -> None:
        self.offset = value

    def receive_byte(self) -> int:
        value = self.data[self.offset]
        self.offset = (self.offset + 1) & 0xFF
        return value

    def write_data(self, command: int, data: bytes) -> None:
        """An EEPROM with its write-protect pin high: the address is taken, the data is not."""
        self.offset = command

    def read_data(self, command: int, count: int) -> bytes:
        self.offset = command
        return bytes(self.receive_byte() for _ in range(count))


class I2cBus:
    kind = "I2C"

    def __init__(self, name: str) -> None:
        self.name = name
        self.targets: dict[int, SmbusTarget] = {}
        self.devices: list[Device] = []
