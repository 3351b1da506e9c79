"""CPUID of a declared processor: a pure function of the model, the machine's cpus section and the host.

    model = load_model("cpu64-rhel6", "rhel6")                     # data of machines/cpus
    for index, apic_id in enumerate(apic_ids(cpus)):
        result = make_cpuid(cpus, model, apic_id, accel.supported_cpuid())
        accel.create_vcpu(index, apic_id, result.entries)          # result.missing: names the host lacks

Precedence, later wins: the model, its version, the family's `set`, the type's frozen values (cpus["compat"]),
the user's features. Entries are dicts of function, index, flags, eax, ebx, ecx, edx, as KVM_SET_CPUID2 takes
them.

Ref: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E; Linux Documentation/virt/kvm/x86/cpuid.rst.
Not modelled: Hyper-V and Centaur leaves, leaf 40000010h (VMware's frequencies), SGX, Processor Trace, AMX.
"""

from __future__ import annotations

import os

from vmrun.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import Cpus, MachineData

    Leaves = dict[tuple[int, int], tuple[int, int, int, int]]

INDEXED = 1  # KVM_CPUID_FLAG_SIGNIFCANT_INDEX
REGISTERS = ("eax", "ebx", "ecx", "edx")
AMD_DUPLICATES = 0x0183F3FF  # bits of 1.EDX that AMD repeats in 80000001.EDX
INTEL, AMD = "GenuineIntel", "AuthenticAMD"

# Size and standard offset of the XSAVE components, and the feature that brings each.
XSAVE = {
    2: (256, 576, "avx"),
    3: (64, 960, "mpx"),
    4: (64, 1024, "mpx"),
    5: (64, 1088, "avx512f"),
    6: (512, 1152, "avx512f"),
    7: (1024, 1664, "avx512f"),
    9: (8, 2688, "pku"),
}

# Leaf 4 of a processor without caches of its own: L1 32 KiB each, L2 4 MiB, L3 16 MiB.
LEGACY_INTEL = (
    (0x121, 0x1C0003F, 0x3F, 1),
    (0x122, 0x1C0003F, 0x3F, 1),
    (0x143, 0x3C0003F, 0xFFF, 1),
    (0x163, 0x3C0003F, 0x3FFF, 6),
)
# EAX, EBX and ECX of leaf 4 → the byte of leaf 2 for such a cache.
DESCRIPTORS = {
    (0x121, 0x1C0003F, 0x3F): 0x2C,
    (0x122, 0x1C0003F, 0x3F): 0x30,
    (0x43, 0x1C0003F, 0x3FF): 0x80,
    (0x143, 0x3C0003F, 0xFFF): 0x7D,
    (0x163, 0x3C0003F, 0x1FFF): 0x4B,
    (0x163, 0x3C0003F, 0x3FFF): 0x4D,
}

# What the family's rules set, unless the type's `cpus` section says that its version did not.
LEFT_ALONE = {"svm": "mask-svm", "x2apic": "add-x2apic", "kvm-pv-eoi": "add-kvm-pv-eoi"}

# Words that are nothing without a feature.
DEPENDENT = {"8000000a.edx": "svm", "msr.10a": "arch-capabilities", "msr.cf": "core-capability"}

# Leaf 8000001d of a processor without caches of its own.
LEGACY_AMD = (
    (0x121, 0x40003F, 0x1FF, 1),
    (0x122, 0x40003F, 0x1FF, 1),
    (0x43, 0x3C0003F, 0x1FF, 0),
    (0x163, 0x3C0003F, 0x3FFF, 6),
)


class Cpuid:
    """entries for the accelerator, and missing: names of features that were asked for and the host lacks."""

    __slots__ = ("entries", "missing")

    def __init__(self, entries: list[dict[str, int]], missing: list[str]) -> None:
        self.entries = entries
        self.missing = missing


# --- data ----------------------------------------------------------------------------------------------


def _directory() -> str:
    from vmrun.config.data import data_dir

    return os.path.join(data_dir("machines"), "cpus")


_features: dict[str, Any] = {}


def features() -> dict[str, Any]:
    """{"bits": name → [(word, bit), …], "names": word → names by bit, "aliases": spelling → name}."""
    if not _features:
        from vmrun.config.kept import read_own

        table = read_own(os.path.join(_directory(), "features.json"))
        bits: dict[str, list[tuple[str, int]]] = {}
        for word, names in table["words"].items():
            for bit, name in enumerate(names):
                if name:
                    bits.setdefault(name, []).append((word, bit))
        _features.update(bits=bits, names=table["words"], aliases=table["aliases"])
    return _features


def model_names(family: str = "qemu") -> list[str]:
    """Models, their versions and aliases, with `host` and `max`."""
    from vmrun.config import cpumodels

    return [name for name in cpumodels.model_names(family) if name != "default"]


def load_model(name: str, family: str = "qemu") -> dict[str, Any]:
    """A model with its version's changes (`set`) and its family's rules. ConfigError for an unknown name."""
    from vmrun.config import cpumodels

    found = cpumodels.load_model(name, family, [])
    if found is None:
        raise ConfigError(f"there is no CPU model '{name}' in the family {family}", code="VR0705")
    return found


# --- topology ------------------------------------------------------------------------------------------


def _width(count: int) -> int:
    """Bits that number `count` things."""
    return (count - 1).bit_length()


def apic_ids(cpus: Cpus) -> list[int]:
    """The APIC id of each processor: fields of thread, core and socket, or simply the index."""
    count = int(cpus.get("maxcpus", cpus.get("count", 1)))
    if cpus.get("apic-ids", "topology") == "contiguous":
        return list(range(count))
    cores, threads = int(cpus.get("cores", 1)), int(cpus.get("threads", 1))
    thread_bits = _width(threads)
    package_shift = thread_bits + _width(cores)
    found = []
    for index in range(count):
        rest, thread = divmod(index, threads)
        socket, core = divmod(rest, cores)
        found.append(socket << package_shift | core << thread_bits | thread)
    return found


# Which limit a feature word raises, to which leaf, and whether types before `full-cpuid-auto-level` do so too.
RAISED = (
    ("level", "6.eax", 6, False),
    ("level", "7.0.ebx", 7, True),
    ("level", "7.0.ecx", 7, False),
    ("level", "7.0.edx", 7, False),
    ("level", "d.1.eax", 0xD, False),
    ("xlevel", "80000001.edx", 0x80000001, False),
    ("xlevel", "80000001.ecx", 0x80000001, False),
    ("xlevel", "80000007.edx", 0x80000007, False),
    ("xlevel", "80000008.ebx", 0x80000008, False),
    ("xlevel", "8000000a.edx", 0x8000000A, False),
    ("xlevel2", "c0000001.edx", 0xC0000001, False),
)


# --- the function --------------------------------------------------------------------------------------


def make_cpuid(
    cpus: Cpus,
    model: dict[str, Any],
    apic_id: int,
    host: list[dict[str, int]],
    *,
    kernel_apic: bool = True,
) -> Cpuid:
    """CPUID of one processor. `host`: the accelerator's supported_cpuid(); empty lets all through."""
    able: Leaves = {(e["function"], e["index"]): (e["eax"], e["ebx"], e["ecx"], e["edx"]) for e in host}
    return _Maker(cpus, model, apic_id, able, kernel_apic).make()


def missing_features(name: str, config: MachineData, accelerator: Any) -> list[str]:
    """What the accelerator lacks of a model as the machine's type has it."""
    from vmrun.config.machinetypes import frozen_features

    cpus: Cpus = {**config["cpus"], "features": {}, "compat": frozen_features(config["machine"], name)}
    host = accelerator.supported_cpuid()
    model = load_model(name, cpus["family"])
    return make_cpuid(cpus, model, 0, host, kernel_apic=accelerator.has_local_apic).missing


class _Maker:
    """One run of make_cpuid: settings and words first, then the leaves."""

    def __init__(
        self, cpus: Cpus, model: dict[str, Any], apic_id: int, host: Leaves, kernel_apic: bool
    ) -> None:
        self.cpus, self.model, self.apic_id, self.host = cpus, model, apic_id, host
        self.rules: dict[str, Any] = model["rules"]
        self.kernel_apic = kernel_apic
        self.cores, self.threads = int(cpus.get("cores", 1)), int(cpus.get("threads", 1))
        self.settings: dict[str, Any] = {}
        self.words: dict[str, int] = {}
        self.explicit: set[str] = set()
        self.leaves: list[dict[str, int]] = []

    def make(self) -> Cpuid:
        self.collect()
        missing = self.filter()
        self.basic()
        self.hypervisor()
        self.extended()
        self.centaur()
        return Cpuid(self.leaves, missing)

    # --- features -------------------------------------------------------------------------------------------

    def host_word(self, word: str) -> int:
        if word.startswith("msr."):
            return 0
        function, _, rest = word.partition(".")
        index, _, register = rest.rpartition(".")
        leaf = self.host.get((int(function, 16), int(index or "0", 16)))
        return leaf[REGISTERS.index(register)] if leaf is not None else 0

    def shown_of_host(self, word: str) -> int:
        """A word of `host`: bits that have a name. Not what a machine could not take along to another host, unless
        `migratable` is false.
        """
        names = features()["names"][word]
        kept = {"topoext"} | ({"invtsc"} if self.cpus.get("features", {}).get("migratable", True) else set())
        mask = sum(1 << bit for bit, name in enumerate(names) if name and name not in kept)
        return 0 if word == "40000001.edx" else self.host_word(word) & mask

    def collect(self) -> None:
        """Words and settings by precedence."""
        table = features()
        if self.model.get("host"):
            self.words = {word: self.shown_of_host(word) for word in table["names"]}
        else:
            self.words = {word: 0 for word in table["names"]} | self.model["words"]
        if self.rules.get("kvm-features") == "host":
            self.words["40000001.eax"] = self.host_word("40000001.eax")
        layers = [
            self.model["set"],
            self.rules["set"],
            self.cpus.get("compat", {}),
            self.cpus.get("features", {}),
        ]
        if self.model.get("host"):
            mine = (*table["bits"], "pmu")
            layers[1] = {name: value for name, value in layers[1].items() if name not in mine} | {"pmu": True}
        if self.model.get("bare"):
            layers[1] = {name: value for name, value in layers[1].items() if name not in table["bits"]}
        alone = {name for name, key in LEFT_ALONE.items() if self.cpus.get(key) is False}
        layers[1] = {name: value for name, value in layers[1].items() if name not in alone}
        for layer in layers:
            for name, value in layer.items():
                self.set(str(name), value, layer is layers[-1])
        if not self.model.get("bare"):
            self.words["1.ecx"] = self.words.get("1.ecx", 0) | 1 << 31  # hypervisor
        for word, name in DEPENDENT.items():
            if not self.has(name):
                self.words[word] = 0
        self.least = self.least_levels()
        self.level, self.xlevel, self.xlevel2 = (int(self.settings.get(name, n)) for name, n in self.least.items())
        if self.rules["duplicate-amd-bits"] and self.vendor() == AMD:
            kept = self.words["80000001.edx"] & ~AMD_DUPLICATES
            self.words["80000001.edx"] = kept | self.words["1.edx"] & AMD_DUPLICATES

    def set(self, name: str, value: Any, explicit: bool) -> None:
        table = features()
        plain = table["aliases"].get(name, name if name in table["bits"] else name.replace("_", "-"))
        bits = table["bits"].get(plain)
        if bits is None:
            self.settings[plain] = value
            return
        for word, bit in bits:
            if value in (True, "on"):
                self.words[word] = self.words.get(word, 0) | 1 << bit
                if explicit:
                    self.explicit.add(plain)
            else:
                self.words[word] = self.words.get(word, 0) & ~(1 << bit)

    def filter(self) -> list[str]:
        """Take out what the accelerator cannot show; the names of what was taken."""
        if not self.host:
            return []
        names, missing = features()["names"], []
        for word, wanted in self.words.items():
            if word.startswith("msr."):
                continue  # no leaf tells of these; KVM has its own value
            able = self.host_word(word)
            if word == "1.ecx":
                # KVM provides these whatever the processor has.
                able |= 1 << 31
                able |= (1 << 21 | 1 << 24) if self.kernel_apic else 0
                able &= ~0 if self.kernel_apic else ~(1 << 21 | 1 << 24)
            elif word == "1.edx":
                able |= 1 << 28
            elif word == "6.eax":
                able |= 1 << 2 if self.kernel_apic else 0
            elif word == "80000001.edx" and self.vendor() == AMD:
                able |= self.host_word("1.edx") & AMD_DUPLICATES
            elif word == "40000001.eax" and not self.kernel_apic:
                able &= ~(1 << 4 | 1 << 6 | 1 << 7 | 1 << 14)
            lost = wanted & ~able
            if lost:
                row = names.get(word, [])
                missing += [row[b] for b in range(32) if lost >> b & 1 and b < len(row) and row[b]]
                if not self.flag("x-force-features"):
                    self.words[word] = wanted & able
        return sorted(set(missing))

    def has(self, name: str) -> bool:
        return all(self.words.get(word, 0) >> bit & 1 for word, bit in features()["bits"][name])

    def flag(self, name: str, default: bool = False) -> bool:
        return self.settings.get(name, default) in (True, "on")

    def vendor(self) -> str:
        given = self.settings.get("vendor")
        if (
            given is None
            and (self.rules["vendor"] == "host" or self.model.get("host"))
            and (0, 0) in self.host
        ):
            _, ebx, ecx, edx = self.host[0, 0]
            return b"".join(n.to_bytes(4, "little") for n in (ebx, edx, ecx)).decode("latin-1")
        return str(given if given is not None else self.model.get("vendor", INTEL))

    # --- identity -------------------------------------------------------------------------------------------

    def signature(self) -> int:
        if self.model.get("host"):
            base = self.host.get((1, 0), (0, 0, 0, 0))[0]
            own = {"family": (base >> 8 & 15) + (base >> 20 & 255), "stepping": base & 15}
            own["model"] = base >> 4 & 15 | (base >> 12 & 0xF0)
        else:
            own = self.model["signature"]
        family, number, stepping = (
            int(self.settings.get(k, own[k])) for k in ("family", "model", "stepping")
        )
        high = max(0, family - 15)
        return high << 20 | number >> 4 << 16 | min(family, 15) << 8 | (number & 15) << 4 | stepping

    def least_levels(self) -> dict[str, int]:
        """The highest leaf of each range: the model's, raised to what its features need."""
        words = self.words
        if self.model.get("host"):
            starts = {"level": 0, "xlevel": 1 << 31, "xlevel2": 0xC0000000}
            own = {
                name: max((f for f, _ in self.host if start <= f < start + 0x10000), default=start)
                for name, start in starts.items()
            }
            if own["xlevel2"] == starts["xlevel2"]:
                own["xlevel2"] = 0
        else:
            own = {"level": int(self.model["level"]), "xlevel": int(self.model["xlevel"]), "xlevel2": 0}
        least = {name: int(self.settings.get(f"min-{name}", value)) for name, value in own.items()}
        whole = self.flag("full-cpuid-auto-level")
        for name, word, top, always in RAISED:
            if words.get(word) and (whole or always and self.rules["leaf-7"]):
                least[name] = max(least[name], top)
        if whole and self.has("svm"):
            least["xlevel"] = max(least["xlevel"], 0x8000000A)
        return least

    def add(self, function: int, eax: int, ebx: int, ecx: int, edx: int, index: int = -1) -> None:
        entry = {"function": function, "index": max(index, 0), "flags": INDEXED if index >= 0 else 0}
        registers = {"eax": eax, "ebx": ebx, "ecx": ecx, "edx": edx}
        # more cores than a field takes spill over its end, as in QEMU
        self.leaves.append(entry | {name: value & 0xFFFFFFFF for name, value in registers.items()})

    # --- leaves ---------------------------------------------------------------------------------------------

    def basic(self) -> None:
        level, words, vendor = self.level, self.words, self.vendor()
        a, b, c = (int.from_bytes(vendor.encode("latin-1")[n : n + 4], "little") for n in (0, 4, 8))
        self.add(0, level, a, c, b)
        siblings = self.cores * self.threads
        edx = words["1.edx"] | (1 << 28 if siblings > 1 else 0)
        ebx = (self.apic_id & 0xFF) << 24 | 8 << 8 | (siblings << 16 if siblings > 1 else 0)
        self.add(1, self.signature(), ebx, words["1.ecx"] & ~(1 << 27), edx)
        # AMD's processors have no leaves 2 and 4; QEMU showed them all the same until 6.0.
        caches = vendor == INTEL or not self.flag("x-vendor-cpuid-only")
        for function in range(2, min(level, 0xD) + 1):
            if function == 2:
                found = self.host[2, 0] if self.passed_through(2) else self.cache_descriptors()
                self.add(2, *(found if caches else (0, 0, 0, 0)))
            elif function == 4 and caches and self.passed_through(4):
                self.caches_of_host()
            elif function == 4:
                self.deterministic_caches(caches)
            elif function == 5:
                self.add(5, 0, 0, 3, 0)
            elif function == 6:
                self.add(6, words.get("6.eax", 0), 0, 0, 0)
            elif function == 7:
                more = words.get("7.1.eax", 0)
                low = (words.get("7.0.ebx", 0), words.get("7.0.ecx", 0), words.get("7.0.edx", 0))
                self.add(7, 1 if more else 0, *low, index=0)
                if more:
                    self.add(7, more, 0, 0, 0, index=1)
            elif function == 0xA:
                self.add(0xA, *(self.host.get((0xA, 0), (0, 0, 0, 0)) if self.flag("pmu") else (0, 0, 0, 0)))
            elif function == 0xB:
                self.topology()
            elif function == 0xD:
                self.xsave()
            else:
                self.add(function, 0, 0, 0, 0)

    def passed_through(self, function: int) -> bool:
        """Whether a leaf about caches is the host's own: for `host` on types up to 2.4."""
        return bool(self.model.get("host")) and self.flag("host-cache-info") and (function, 0) in self.host

    def deterministic_caches(self, shown: bool) -> None:
        if not shown:
            self.add(4, 0, 0, 0, 0, index=0)
            return
        cores, l3 = self.cores - 1 << 26, self.flag("l3-cache")
        package = (1 << _width(self.cores) + _width(self.threads)) - 1
        sharing = (0, 0, self.threads - 1 << 14, package << 14)
        for index, (eax, ebx, ecx, edx) in enumerate(self.cache_rows()[: 4 if l3 else 3]):
            self.add(4, eax | cores | sharing[index], ebx, ecx, edx, index=index)
        self.add(4, 0, 0, 0, 0, index=4 if l3 else 3)

    def caches_of_host(self) -> None:
        """The host's leaf 4, with no cache shared by more than there are and our cores in the package."""
        siblings = (1 << _width(self.cores * self.threads)) - 1
        for index in range(8):
            eax, ebx, ecx, edx = self.host.get((4, index), (0, 0, 0, 0))
            if eax & 31:
                if self.cores > 1:
                    eax = eax & ~0xFC000000 | (1 << _width(self.cores)) - 1 << 26
                if eax >> 14 & 0xFFF >= self.cores * self.threads:
                    eax = eax & ~0x3FFC000 | siblings << 14
            self.add(4, eax, ebx, ecx, edx, index=index)
            if not eax & 31:
                break

    def cache_rows(self) -> Any:
        """L1d, L1i, L2 and L3 as leaf 4 has them: the model's own, or those of all models before they had any."""
        native = self.model.get("caches") if not self.flag("legacy-cache") else None
        return native[2:6] if native else LEGACY_INTEL

    def cache_descriptors(self) -> tuple[int, int, int, int]:
        """Leaf 2: a byte for each cache, ff for one that has no byte."""
        l1d, l1i, l2, l3 = (DESCRIPTORS.get(tuple(row[:3]), 0xFF) for row in self.cache_rows())
        return 1, 0, l3 if self.flag("l3-cache") else 0, l1d << 16 | l1i << 8 | l2

    def topology(self) -> None:
        if not self.flag("cpuid-0xb"):
            self.add(0xB, 0, 0, 0, 0, index=0)
            return
        thread_bits = _width(self.threads)
        package_shift = thread_bits + _width(self.cores)
        self.add(0xB, thread_bits, self.threads, 0x100, self.apic_id, index=0)
        self.add(0xB, package_shift, self.cores * self.threads, 0x201, self.apic_id, index=1)
        self.add(0xB, 0, 0, 2, self.apic_id, index=2)

    def xsave(self) -> None:
        """Components by feature, where the processor keeps them; KVM fills in the size in use."""
        if not self.has("xsave"):
            self.add(0xD, 0, 0, 0, 0, index=0)
            return
        able = self.host.get((0xD, 0), (0xFFFFFFFF, 0, 0, 0))[0]
        present = {n: row for n, row in XSAVE.items() if able >> n & 1 and self.has(row[2])}
        mask, end, compact, subleaves = 3, 576, 576, []
        for n, (size, offset, _) in present.items():
            found = self.host.get((0xD, n))
            if found is not None:
                size, offset = found[0], found[1]
            mask |= 1 << n
            end, compact = max(end, offset + size), compact + size
            subleaves.append((n, size, offset))
        self.add(0xD, mask, end, end, 0, index=0)
        self.add(0xD, self.words.get("d.1.eax", 0), compact if self.rules["xsave-size"] else 0, 0, 0, index=1)
        for n, size, offset in subleaves:
            self.add(0xD, size, offset, 0, 0, index=n)

    def hypervisor(self) -> None:
        """KVM's own leaves."""
        a, b, c = (int.from_bytes(b"KVMKVMKVM\0\0\0"[n : n + 4], "little") for n in (0, 4, 8))
        self.add(0x40000000, int(self.rules["kvm-leaf"]), a, b, c)
        self.add(0x40000001, self.words.get("40000001.eax", 0), 0, 0, self.words.get("40000001.edx", 0))

    def extended(self) -> None:
        words, top, vendor = self.words, self.xlevel, self.vendor()
        if top < 0x80000000:
            return
        a, b, c = (int.from_bytes(vendor.encode("latin-1")[n : n + 4], "little") for n in (0, 4, 8))
        self.add(0x80000000, top, a, c, b)
        siblings = self.cores * self.threads
        multi = 2 if siblings > 1 and vendor != INTEL else 0
        ecx = words.get("80000001.ecx", 0) | multi
        self.add(0x80000001, self.signature(), 0, ecx, words.get("80000001.edx", 0))
        if self.model.get("host"):
            brand = b"".join(
                n.to_bytes(4, "little")
                for f in (2, 3, 4)
                for n in self.host.get((0x80000000 + f, 0), (0,) * 4)
            )
        else:
            brand = (
                str(self.settings.get("model-id", self.model.get("model-id", "")))
                .encode()[:48]
                .ljust(48, b"\0")
            )
        for n in range(3):
            part = [int.from_bytes(brand[16 * n + i : 16 * n + i + 4], "little") for i in (0, 4, 8, 12)]
            self.add(0x80000002 + n, *part)
        native = self.model.get("caches") if not self.flag("legacy-cache") else None
        for function in range(0x80000005, min(top, 0x8000001E) + 1):
            if function in (0x80000005, 0x80000006) and self.passed_through(function):
                self.add(function, *self.host[function, 0])
            elif function == 0x80000005:
                self.add(
                    function, *(native[0] if native else (0x01FF01FF, 0x01FF01FF, 0x40020140, 0x40020140))
                )
            elif function == 0x80000006:
                l3 = 0x00808140 if self.flag("l3-cache") else 0
                self.add(function, *(native[1] if native else (0, 0x42004200, 0x02008140, l3)))
            elif function == 0x80000007:
                self.add(function, 0, 0, 0, words.get("80000007.edx", 0))
            elif function == 0x80000008:
                self.add(function, self.address_sizes(), words.get("80000008.ebx", 0), self.core_count(), 0)
            elif function == 0x8000000A:
                svm = self.has("svm")
                self.add(function, *((1, 0x10, 0, words.get("8000000a.edx", 0)) if svm else (0, 0, 0, 0)))
            elif function == 0x8000001D and self.passed_through(function):
                for index in range(5):
                    self.add(function, *self.host.get((function, index), (0, 0, 0, 0)), index=index)
            elif function == 0x8000001D:
                self.amd_caches(native)
            elif function == 0x8000001E:
                self.amd_topology()
            else:
                self.add(function, 0, 0, 0, 0)

    def centaur(self) -> None:
        """VIA's own leaves, C0000000h on."""
        for function in range(0xC0000000, min(self.xlevel2, 0xC0000004) + 1):
            if function == 0xC0000000:
                self.add(function, self.xlevel2, 0, 0, 0)
            elif function == 0xC0000001:
                self.add(function, self.signature(), 0, 0, self.words.get("c0000001.edx", 0))
            else:
                self.add(function, 0, 0, 0, 0)

    def address_sizes(self) -> int:
        long_mode = self.has("lm")
        bits = self.settings.get("phys-bits", self.rules["phys-bits"])
        from_host = bits == "host" or self.model.get("host") or self.flag("host-phys-bits")
        if from_host and (0x80000008, 0) in self.host:
            return self.host[0x80000008, 0][0]
        bits = 40 if bits in ("host", 0) else int(bits)
        if long_mode:
            return 48 << 8 | bits
        return 36 if self.has("pse36") else 32

    def core_count(self) -> int:
        siblings = self.cores * self.threads
        if siblings == 1:
            return 0
        width = _width(self.cores) + _width(self.threads)
        return (width << 12 if self.rules["core-id-size"] else 0) | siblings - 1

    def amd_caches(self, native: Any) -> None:
        for index, row in enumerate(native[2:6] if native else LEGACY_AMD):
            sharing = self.cores * self.threads if index == 3 else self.threads
            eax, ebx, ecx, edx = row
            self.add(0x8000001D, eax | sharing - 1 << 14, ebx, ecx, edx, index=index)
        self.add(0x8000001D, 0, 0, 0, 0, index=4)

    def amd_topology(self) -> None:
        if not self.has("topoext"):
            self.add(0x8000001E, 0, 0, 0, 0)
            return
        thread_bits = _width(self.threads)
        core = self.apic_id >> thread_bits & (1 << _width(self.cores)) - 1
        package = self.apic_id >> thread_bits + _width(self.cores)
        self.add(0x8000001E, self.apic_id, (self.threads - 1) << 8 | core, package & 0xFF, 0)


def describe(
    cpus: Cpus, model: dict[str, Any], host: list[dict[str, int]], *, kernel_apic: bool = True
) -> dict[str, Any]:
    """What a processor comes to: feature → whether it has it, by QEMU's names, and what identifies it."""
    return _described(_collected(cpus, model, host, kernel_apic)[0])


def describe_whole(
    cpus: Cpus, model: dict[str, Any], host: list[dict[str, int]], *, kernel_apic: bool = True
) -> dict[str, Any]:
    """The same, with its settings and the names of the features that the host has not ("unavailable-features")."""
    maker, missing = _collected(cpus, model, host, kernel_apic)
    return {
        **_described(maker),
        **{name: maker.flag(name) for name in ("l3-cache", "cpuid-0xb", "host-cache-info")},
        "legacy-cache": maker.flag("legacy-cache") or not maker.model.get("caches"),
        **{name: maker.flag(name) for name in ("host-phys-bits", "x-force-features", "full-cpuid-auto-level")},
        "level": maker.level,
        "xlevel": maker.xlevel,
        "xlevel2": maker.xlevel2,
        "phys-bits": maker.address_sizes() & 0xFF,
        "unavailable-features": missing,
    }


def _collected(
    cpus: Cpus, model: dict[str, Any], host: list[dict[str, int]], kernel_apic: bool
) -> tuple[_Maker, list[str]]:
    able: Leaves = {(e["function"], e["index"]): (e["eax"], e["ebx"], e["ecx"], e["edx"]) for e in host}
    maker = _Maker(cpus, model, 0, able, kernel_apic)
    maker.collect()
    return maker, maker.filter()


def _described(maker: _Maker) -> dict[str, Any]:
    signature = maker.signature()
    family, number = signature >> 8 & 15, signature >> 4 & 15
    if family == 15:
        family += signature >> 20 & 255
    if family == 6 or family >= 15:
        number |= signature >> 12 & 0xF0
    return {
        **{name: maker.has(name) for name in features()["bits"]},
        "family": family,
        "model": number,
        "stepping": signature & 15,
        "vendor": maker.vendor(),
        "model-id": str(maker.settings.get("model-id", maker.model.get("model-id", ""))),
        **{f"min-{name}": value for name, value in maker.least.items()},
        "pmu": maker.flag("pmu"),
        "lmce": maker.flag("lmce"),
    }
