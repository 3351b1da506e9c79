"""gdb's remote protocol: a debugger of the guest, on a socket or any other chardev.

Ref: GDB manual, appendix E (remote protocol). A processor is a thread, numbered from 1. The machine stands still while
gdb has not told it to go on; what its monitors do meanwhile is told to gdb.

A client may send anything: a packet is at most PACKET bytes, what it makes is bounded, and what makes no sense is
answered by an error.
"""

from __future__ import annotations

from accel.errors import AccelFailure
from vmrun.machine.debugger import ACCESS, EXECUTE, WRITE, Debugger, Stop
from vmrun.monitor.gdbregisters import Target
from vmrun.monitor.registers import RUNNABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PACKET = 0x4000  # bytes, as told to gdb
MEMORY = PACKET // 2 - 8  # bytes of one read
MOST_TEXT = 1 << 16  # characters of a monitor's answer
BREAK = 0x03
HARDWARE = {"1": EXECUTE, "2": WRITE, "3": ACCESS, "4": ACCESS}  # watching reads alone is not in DR7: all accesses
SIGINT, SIGTRAP = 2, 5
LONG_MODE = 1 << 29  # CPUID 80000001h, EDX
POINTS = {WRITE: "watch", ACCESS: "awatch"}


class Refused(Exception):
    """The number after E."""


class GdbSession:
    def __init__(self, machine: Any, send: Callable[[bytes], object], client: Any = None) -> None:
        self.machine, self._send, self.client = machine, send, client
        self.input = bytearray()
        self.acknowledge = True
        self.last = b""  # the packet sent last, for `-`
        self.waiting = False  # gdb waits for the next stop
        self.general, self.going = 0, -1  # processors of Hg and Hc; -1 all
        self.threads: list[int] = []
        self.physical = False
        self.over = False
        self.debugger: Debugger | None = None
        if machine.debugger is not None or not machine.accelerator.vcpus:
            self._end()  # one at a time; nothing to debug
            return
        self.debugger = Debugger(machine, self._on_stop, self._on_end)
        self.target = Target(self._wide())
        self.stop = Stop(0, "asked")
        machine.pause()
        machine.listen(self._on_event)

    def _wide(self) -> bool:
        leaves = self.machine.cpuid.get(0, [])
        return any(leaf["function"] == 0x80000001 and leaf["edx"] & LONG_MODE for leaf in leaves)

    def _end(self) -> None:
        self.over = True
        if self.client is not None and hasattr(self.client, "finish"):
            self.client.finish()

    def close(self) -> None:
        """gdb is gone: as after detach."""
        if self.debugger is not None:
            self.debugger.close()
            self.debugger = None
            self.machine.listeners.remove(self._on_event)
            if not self.over:
                self.machine.resume()
        self.over = True

    # --- packets --------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        if self.over:
            return
        self.input += data
        while self.input and not self.over and self._take():
            pass
        if len(self.input) > 2 * PACKET + 8:
            self.input.clear()

    def _take(self) -> bool:
        """One packet, or what stands between packets; False when more has to come."""
        first = self.input[0]
        if first != ord("$"):
            del self.input[0]
            if first == BREAK and self.debugger is not None:
                self.debugger.interrupt()
            elif first == ord("-") and self.acknowledge and self.last:
                self._send(self.last)
            return True
        end = self.input.find(b"#")
        if end < 0 or len(self.input) < end + 3:
            return False
        body, check = bytes(self.input[1:end]), bytes(self.input[end + 1 : end + 3])
        del self.input[: end + 3]
        if self.acknowledge:
            fine = check.lower() == b"%02x" % (sum(body) & 0xFF)
            self._send(b"+" if fine else b"-")
            if not fine:
                return True
        if len(body) > PACKET:
            self.reply("E22")
            return True
        self._answer(_unescaped(body))
        return True

    def reply(self, text: str | bytes) -> None:
        body = _escaped(text.encode("latin-1", "replace") if isinstance(text, str) else text)
        self.last = b"$" + body + b"#%02x" % (sum(body) & 0xFF)
        self._send(self.last)

    def _answer(self, body: bytes) -> None:
        text = body.decode("latin-1")
        try:
            handler = next((HANDLERS[name] for name in _NAMES if _is(text, name)), None)
            answer = "" if handler is None else handler(self, text, body)
        except Refused as why:
            answer = f"E{int(str(why)):02x}"
        except (ValueError, IndexError, KeyError, OverflowError):
            answer = "E16"
        except (AccelFailure, NotImplementedError):
            answer = "E05"
        if answer is not None and not self.over:
            self.reply(answer)

    # --- stops ----------------------------------------------------------------------------------------------

    def _on_stop(self, stop: Stop) -> None:
        self.stop = stop
        self.general = stop.index
        self._tell()

    def _on_event(self, name: str, /, **data: Any) -> None:
        """The machine stopped for another reason."""
        if name == "STOP" and self.waiting and self.machine.state != "debug" and self.machine.outcome is None:
            self.stop = Stop(self.general, "asked")
            self._tell()

    def _on_end(self, code: int) -> None:
        if self.waiting:
            self.waiting = False
            self.reply(f"W{code & 0xFF:02x}")

    def _tell(self) -> None:
        if self.waiting:
            self.waiting = False
            self.reply(self._stop_text())

    def _stop_text(self) -> str:
        stop = self.stop
        signal = SIGINT if stop.why == "asked" else SIGTRAP
        more = ""
        if stop.why == "software":
            more = "swbreak:;"
        elif stop.point is not None:
            kind, address, _ = stop.point
            more = f"{POINTS[kind]}:{address:x};" if kind in POINTS else "hwbreak:;"
        return f"T{signal:02x}thread:{stop.index + 1:02x};{more}"

    def _resume(self, step: list[int], run: list[int] | None) -> None:
        assert self.debugger is not None
        self.waiting = True
        if not self.debugger.resume(step, run):
            self._tell()

    # --- commands ---------------------------------------------------------------------------------------------

    def _thread(self, text: str) -> int:
        """The processor of a thread id; -1 for all, 0 for any."""
        text = text.rpartition(".")[2]
        number = int(text, 16)
        if number == -1:
            return -1
        if number and number - 1 not in self._debugger.processors:
            raise Refused(22)
        return max(number - 1, 0)

    @property
    def _debugger(self) -> Debugger:
        assert self.debugger is not None
        return self.debugger

    def why(self, text: str, body: bytes) -> str:
        return self._stop_text()

    def all_registers(self, text: str, body: bytes) -> str:
        state = self._debugger.state(self.general)
        return b"".join(register.get(state) for register in self.target.registers).hex()

    def set_registers(self, text: str, body: bytes) -> str:
        data, state, parts, at = bytes.fromhex(text[1:]), self._debugger.state(self.general), set(), 0
        for register in self.target.registers:
            value = data[at : at + register.size]
            at += register.size
            if len(value) == register.size and value != register.get(state):
                parts.add(register.put(state, value))
        self._load(state, parts)
        return "OK"

    def _load(self, state: dict[str, Any], parts: set[str]) -> None:
        """The parts that changed, others as they are."""
        self._debugger.change(self.general, {part: state[part] for part in state if part in parts})

    def one_register(self, text: str, body: bytes) -> str:
        number = int(text[1:], 16)
        if number >= len(self.target.registers):
            raise Refused(22)
        return self.target.registers[number].get(self._debugger.state(self.general)).hex()

    def set_register(self, text: str, body: bytes) -> str:
        number, _, value = text[1:].partition("=")
        register, data = self.target.registers[int(number, 16)], bytes.fromhex(value)
        if len(data) != register.size:
            raise Refused(22)
        state = self._debugger.state(self.general)
        self._load(state, {register.put(state, data)})
        return "OK"

    def read_memory(self, text: str, body: bytes) -> str:
        address, size = (int(part, 16) for part in text[1:].split(","))
        data = self._debugger.read(self.general, address, min(size, MEMORY), self.physical)
        if not data and size:
            raise Refused(14)
        return data.hex()

    def write_memory(self, text: str, body: bytes) -> str:
        head, _, data = text[1:].partition(":")
        return self._write(head, bytes.fromhex(data))

    def write_binary(self, text: str, body: bytes) -> str:
        head, _, data = body[1:].partition(b":")
        return self._write(head.decode("latin-1"), data)

    def _write(self, head: str, data: bytes) -> str:
        address, size = (int(part, 16) for part in head.split(","))
        if size != len(data) or address >> 64:
            raise Refused(22)
        if data and not self._debugger.write(self.general, address, data, self.physical):
            raise Refused(14)
        return "OK"

    def go_on(self, text: str, body: bytes) -> None:
        """c, C, s, S, with an address to go on at."""
        rest = text[1:]
        if text[0] in "CS":
            rest = rest.partition(";")[2]
        if rest:
            state = self._debugger.state(self.general)
            state["regs"]["rip"] = int(rest, 16) & 0xFFFFFFFFFFFFFFFF
            self._load(state, {"regs"})
        self._resume([self.general] if text[0] in "sS" else [], None)

    def actions(self, text: str, body: bytes) -> str | None:
        """vCont: for each processor the first action that names it."""
        if text == "vCont?":
            return "vCont;c;C;s;S"
        chosen: dict[int, str] = {}
        for part in text.split(";")[1:]:
            action, _, thread = part.partition(":")
            if action[:1] not in ("c", "C", "s", "S"):
                raise Refused(22)
            whom = self._thread(thread) if thread else -1
            for index in self._debugger.processors if whom == -1 else (whom,):
                chosen.setdefault(index, action[0].lower())
        step = [index for index, action in chosen.items() if action == "s"]
        self._resume(step, [index for index, action in chosen.items() if action == "c"])
        return None

    def choose(self, text: str, body: bytes) -> str:
        index = self._thread(text[2:])
        if text[1] == "g":
            self.general = max(index, 0)
        elif text[1] != "c":
            raise Refused(22)
        return "OK"

    def is_alive(self, text: str, body: bytes) -> str:
        self._thread(text[1:])
        return "OK"

    def point(self, text: str, body: bytes) -> str:
        """Z and z: kind, address, size; conditions and commands are gdb's to keep."""
        kind, address, size = text[1:].split(";")[0].split(",")
        place, length = int(address, 16) & 0xFFFFFFFFFFFFFFFF, int(size, 16)
        set_it, debugger = text[0] == "Z", self._debugger
        if kind == "0":
            done = debugger.insert(self.general, place) if set_it else debugger.remove(self.general, place)
        elif kind in HARDWARE:
            change = debugger.insert_hardware if set_it else debugger.remove_hardware
            done = change(HARDWARE[kind], place, 1 if kind == "1" else length)
        else:
            return ""
        if not done:
            raise Refused(14 if kind == "0" else 28)
        return "OK"

    def detach(self, text: str, body: bytes) -> None:
        self.reply("OK")
        self.close()
        self._end()

    def kill(self, text: str, body: bytes) -> None:
        if text.startswith("vKill"):
            self.reply("OK")
        self.over = True
        machine = self.machine
        machine.loop.call_soon(lambda: machine.finish("quit", "host-signal"))

    def features(self, text: str, body: bytes) -> str:
        return (
            f"PacketSize={PACKET:x};qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+;"
            "ConditionalBreakpoints-"
        )

    def description(self, text: str, body: bytes) -> str | bytes:
        name, _, window = text.removeprefix("qXfer:features:read:").rpartition(":")
        if name != "target.xml":
            raise Refused(0)
        start, size = (int(part, 16) for part in window.split(","))
        data = self.target.description()
        part = data[start : start + min(size, PACKET - 8)]
        return (b"m" if start + len(part) < len(data) else b"l") + part

    def no_acknowledge(self, text: str, body: bytes) -> None:
        self.reply("OK")
        self.acknowledge = False

    def current(self, text: str, body: bytes) -> str:
        return f"QC{self.general + 1:x}"

    def first_threads(self, text: str, body: bytes) -> str:
        self.threads = [index + 1 for index in self._debugger.processors]
        return self.more_threads(text, body)

    def more_threads(self, text: str, body: bytes) -> str:
        part, self.threads = self.threads[:200], self.threads[200:]
        return "m" + ",".join(f"{number:x}" for number in part) if part else "l"

    def thread_text(self, text: str, body: bytes) -> str:
        index = self._thread(text.split(",")[1])
        halted = self._debugger.state(index).get("mp_state", RUNNABLE) != RUNNABLE  # or never started
        return f"CPU#{index} [{'halted ' if halted else 'running'}]".encode().hex()

    def command(self, text: str, body: bytes) -> None:
        """`monitor …`: a line for the line monitor."""
        from vmrun.monitor import hmp
        from vmrun.monitor.work import Work

        answer = hmp.run(self.machine, bytes.fromhex(text.partition(",")[2]).decode(errors="replace"), self.general)
        if isinstance(answer, Work):
            answer.start(lambda shown, error: self._show(shown))
        else:
            self._show(answer)

    def _show(self, answer: str) -> None:
        found = answer[:MOST_TEXT].replace("\r\n", "\n").encode()
        for at in range(0, len(found), MEMORY):
            self.reply("O" + found[at : at + MEMORY].hex())
        self.reply("OK")

    def steps(self, text: str, body: bytes) -> str:
        """QEMU's own: what a step holds back. Interrupts and timers always."""
        if text == "qqemu.sstepbits":
            return "ENABLE=1,NOIRQ=2,NOTIMER=4"
        if text == "qqemu.sstep":
            return "0x7"
        if int(text.partition("=")[2], 16) != 7:
            raise Refused(22)
        return "OK"

    def address_mode(self, text: str, body: bytes) -> str:
        """QEMU's own: addresses of `m` and `M` are physical."""
        if text == "qqemu.PhyMemMode":
            return str(int(self.physical))
        self.physical = text.endswith(":1")
        return "OK"


HANDLERS: dict[str, Callable[[GdbSession, str, bytes], str | bytes | None]] = {
    "?": GdbSession.why,
    "g": GdbSession.all_registers,
    "G": GdbSession.set_registers,
    "p": GdbSession.one_register,
    "P": GdbSession.set_register,
    "m": GdbSession.read_memory,
    "M": GdbSession.write_memory,
    "X": GdbSession.write_binary,
    "c": GdbSession.go_on,
    "C": GdbSession.go_on,
    "s": GdbSession.go_on,
    "S": GdbSession.go_on,
    "vCont": GdbSession.actions,
    "H": GdbSession.choose,
    "T": GdbSession.is_alive,
    "Z": GdbSession.point,
    "z": GdbSession.point,
    "D": GdbSession.detach,
    "k": GdbSession.kill,
    "vKill": GdbSession.kill,
    "qSupported": GdbSession.features,
    "qXfer:features:read:": GdbSession.description,
    "QStartNoAckMode": GdbSession.no_acknowledge,
    "qC": GdbSession.current,
    "qfThreadInfo": GdbSession.first_threads,
    "qsThreadInfo": GdbSession.more_threads,
    "qThreadExtraInfo,": GdbSession.thread_text,
    "qAttached": lambda session, text, body: "1",
    "qRcmd,": GdbSession.command,
    "qqemu.sstepbits": GdbSession.steps,
    "qqemu.sstep": GdbSession.steps,
    "Qqemu.sstep=": GdbSession.steps,
    "qqemu.PhyMemMode": GdbSession.address_mode,
    "Qqemu.PhyMemMode": GdbSession.address_mode,
}
def _is(text: str, name: str) -> bool:
    """Whether a packet is that one: a name of one letter, or that ends in a mark, has what it likes behind it."""
    if len(name) == 1 or name[-1] in ",:=":
        return text.startswith(name)
    return text.startswith(name) and text[len(name) : len(name) + 1] in ("", ":", ";", "?")


_NAMES = sorted(HANDLERS, key=len, reverse=True)


def _unescaped(body: bytes) -> bytes:
    if b"}" not in body:
        return body
    out, at = bytearray(), 0
    while at < len(body):
        byte = body[at]
        if byte == ord("}") and at + 1 < len(body):
            at += 1
            byte = body[at] ^ 0x20
        out.append(byte)
        at += 1
    return bytes(out)


def _escaped(body: bytes) -> bytes:
    out = bytearray()
    for byte in body:
        if byte in b"#$}*":
            out += bytes((ord("}"), byte ^ 0x20))
        else:
            out.append(byte)
    return bytes(out)
