"""The SMBus host controller of the PIIX4.

Ref: Intel 82371AB PIIX4 (290562) 7.2.5: SMBHSTSTS 0, SMBHSTCNT 2, SMBHSTCMD 3, SMBHSTADD 4, SMBHSTDAT0 5,
SMBHSTDAT1 6, SMBBLKDAT 7. Not modelled: the slave interface (registers 1 and 8 up), SMBALERT#, interrupts (the PC
leaves them unwired): a transfer is over when the write that started it returns.
"""

from __future__ import annotations

from vmrun.core.state import U8, Bytes, Stateful, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.bus.i2c import I2cBus

HOST_BUSY, INTR, DEV_ERR = 0x01, 0x02, 0x04
START = 0x40
QUICK, BYTE, BYTE_DATA, WORD_DATA, BLOCK = 0, 1, 2, 3, 5


class SmbusHost(Stateful):
    state = Table(
        "smbus-host",
        1,
        *map(U8, ("status", "control", "command", "address", "data0", "data1")),
        Bytes("block", 32),
        U8("index", most=31),
    )

    def __init__(self, bus: I2cBus) -> None:
        self.bus = bus
        self.status = self.control = self.command = self.address = self.data0 = self.data1 = 0
        self.block = bytearray(32)
        self.index = 0

    def read(self, offset: int, size: int) -> int:
        if offset == 0:
            return self.status
        if offset == 2:
            self.index = 0  # reading the control register rewinds the block buffer
            return self.control & 0x1F
        if offset in (3, 4, 5, 6):
            return (self.command, self.address, self.data0, self.data1)[offset - 3]
        if offset == 7:
            value = self.block[self.index]
            self.index = (self.index + 1) % 32
            return value
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        value &= 0xFF
        if offset == 0:
            self.status &= ~value
        elif offset == 2:
            self.control = value & 0x1F
            if value & START:
                self._transfer()
        elif offset == 3:
            self.command = value
        elif offset == 4:
            self.address = value
        elif offset == 5:
            self.data0 = value
        elif offset == 6:
            self.data1 = value
        elif offset == 7:
            self.block[self.index] = value
            self.index = (self.index + 1) % 32

    def _transfer(self) -> None:
        target = self.bus.targets.get(self.address >> 1)
        reading = bool(self.address & 1)
        protocol = self.control >> 2 & 7
        if target is None or protocol not in (QUICK, BYTE, BYTE_DATA, WORD_DATA, BLOCK):
            self.status |= DEV_ERR
            return
        if protocol == BYTE:
            if reading:
                self.data0 = target.receive_byte()
            else:
                target.send_byte(self.command)
        elif protocol in (BYTE_DATA, WORD_DATA):
            count = protocol - 1
            if reading:
                data = target.read_data(self.command, count)
                self.data0 = data[0]
                self.data1 = data[1] if count == 2 else self.data1
            else:
                target.write_data(self.command, bytes((self.data0, self.data1))[:count])
        elif protocol == BLOCK:
            if reading:
                count = min(target.read_data(self.command, 1)[0], 32)
                self.block[:count] = target.read_data((self.command + 1) & 0xFF, count)
                self.data0 = count
            else:
                target.write_data(self.command, bytes(self.block[: min(self.data0, 32)]))
        self.status |= INTR
