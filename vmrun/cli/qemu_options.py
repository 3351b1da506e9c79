"""QEMU's options as words: which there are, which take a value, and what is inside a value."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class QemuError(Exception):
    """What is said after the program's name, on the way to exit code `code`."""

    code = 1


_WITH_VALUE = (
    "M machine accel m smp cpu rtc boot name uuid smbios global set device drive blockdev hda hdb hdc hdd cdrom "
    "fda fdb mtdblock sd pflash netdev net nic chardev serial parallel monitor qmp qmp-pretty mon spice vnc vga "
    "display k usbdevice soundhw audiodev audio balloon readconfig writeconfig kernel initrd append dtb bios L "
    "option-rom pidfile sandbox object overcommit msg qtest qtest-log icount watchdog watchdog-action action "
    "fw_cfg debugcon d D dfilter seed trace runas chroot gdb incoming virtfs fsdev iscsi tpmdev add-fd numa "
    "semihosting-config plugin mem-path machine-name realtime clock startdate drift-fix rtc-td-hack g acpitable "
    "device-help xen-domid perfmap compat tb-size old-param prom-env echr virtioconsole singlestep-file"
)
WITH_VALUE = frozenset(_WITH_VALUE.split())
_FLAGS = (
    "h help version S nodefaults no-user-config nographic enable-kvm no-kvm no-kvm-irqchip no-kvm-pit "
    "no-kvm-pit-reinjection no-reboot no-shutdown daemonize snapshot usb no-acpi no-hpet no-fd-bootchk "
    "mem-prealloc s singlestep enable-fips win2k-hack rtc-td-hack full-screen no-quit sdl curses preconfig "
    "only-migratable xen-attach localtime nodefconfig alt-grab ctrl-grab portrait enable-sync-profile"
)
FLAGS = frozenset(_FLAGS.split())


class Option:
    """One option as given: `name` without dashes, `value` (None for a flag), and both as they stood."""

    __slots__ = ("name", "text", "value")

    def __init__(self, name: str, value: str | None, text: str) -> None:
        self.name, self.value, self.text = name, value, text

    def wrong(self, message: str) -> QemuError:
        return QemuError(f"{self.text}: {message}")


def read(argv: Sequence[str]) -> list[Option]:
    """The options in order; a word without a dash is a disk image. QemuError for what is no option."""
    found, words = [], list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "-":
            found.append(Option("hda", word.replace(",", ",,"), word))
            continue
        name = word[2:] if word.startswith("--") else word[1:]
        if name in FLAGS:
            found.append(Option(name, None, word))
        elif name not in WITH_VALUE:
            raise QemuError(f"{word}: invalid option")
        elif not words:
            raise QemuError(f"{word}: requires an argument")
        else:
            value = words.pop(0)
            found.append(Option(name, value, f"{word} {value}"))
    return found


def pairs(text: str, implied: str = "") -> list[tuple[str, str]]:
    """'a,b=1,,2,noc' → [(implied, 'a'), ('b', '1,2'), ('c', 'off')]. A bare word after the first is a flag."""
    found: list[tuple[str, str]] = []
    parts = text.replace(",,", "\0").split(",")
    for place, part in enumerate(parts):
        part = part.replace("\0", ",")
        key, equals, value = part.partition("=")
        if equals:
            found.append((key, value))
        elif place == 0 and implied:
            found.append((implied, part))
        elif part.startswith("no") and len(part) > 2 and part not in ("nodelay", "node-name"):
            found.append((part[2:], "off"))
        elif part:
            found.append((part, "on"))
    return found


def settings(option: Option, implied: str = "") -> dict[str, str]:
    """The value's settings; JSON objects too, as -device and -blockdev take them. The last of a key wins."""
    text = option.value or ""
    if text.startswith("{"):
        import json

        try:
            data = json.loads(text)
        except ValueError as error:
            raise option.wrong(f"JSON parse error: {error}") from None
        return {key: _word(value) for key, value in data.items()}
    return dict(pairs(text, implied))


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def boolean(option: Option, key: str, word: str) -> bool:
    if word in ("on", "yes", "true", "y"):
        return True
    if word in ("off", "no", "false", "n"):
        return False
    raise option.wrong(f"Parameter '{key}' expects 'on' or 'off'")


def size(option: Option, key: str, word: str, unit: int = 1) -> int:
    """Bytes; without a suffix the number counts `unit`s."""
    number, suffix = word, ""
    if word and word[-1].upper() in "BKMGTPE" and not word.lower().startswith("0x"):
        number, suffix = word[:-1], word[-1].upper()
    try:
        value = float(number) if "." in number else int(number, 0)
        if value < 0 or value >= 1 << 64:
            raise ValueError
    except ValueError:
        raise option.wrong(
            f"Parameter '{key}' expects a non-negative number below 2^64\n"
            "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
            "and exabytes, respectively."
        ) from None
    return int(value * (1 << 10 * " KMGTPE".index(suffix) if suffix and suffix != "B" else 1 if suffix else unit))


def number(option: Option, key: str, word: str) -> int:
    try:
        return int(word, 0)
    except ValueError:
        raise option.wrong(f"Parameter '{key}' expects a number") from None
