"""The kinds of user objects (vmrun.core.userobject) and where each is: modules are imported when one is made."""

from __future__ import annotations

from vmrun.core.values import is_identifier
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.userobject import UserObject

# qom-type → (module, class)
KINDS = {
    "authz-list": ("vmrun.backends.objects.authz", "List"),
    "authz-list-file": ("vmrun.backends.objects.authz", "ListFile"),
    "authz-simple": ("vmrun.backends.objects.authz", "Simple"),
    "iothread": ("vmrun.backends.objects.iothread", "IoThreadObject"),
    "main-loop": ("vmrun.backends.objects.iothread", "MainLoop"),
    "memory-backend-file": ("vmrun.backends.objects.memory", "FileMemory"),
    "memory-backend-memfd": ("vmrun.backends.objects.memory", "MemfdMemory"),
    "memory-backend-ram": ("vmrun.backends.objects.memory", "RamMemory"),
    "filter-buffer": ("vmrun.backends.objects.netfilter", "FilterBuffer"),
    "filter-dump": ("vmrun.backends.objects.netfilter", "FilterDump"),
    "filter-mirror": ("vmrun.backends.objects.netfilter", "FilterMirror"),
    "filter-redirector": ("vmrun.backends.objects.netfilter", "FilterRedirector"),
    "rng-builtin": ("vmrun.backends.objects.rng", "RngBuiltin"),
    "rng-random": ("vmrun.backends.objects.rng", "RngRandom"),
    "throttle-group": ("vmrun.backends.objects.throttle", "ThrottleGroup"),
    "tls-creds-anon": ("vmrun.backends.objects.tls", "AnonymousCreds"),
    "tls-creds-x509": ("vmrun.backends.objects.tls", "X509Creds"),
    "tpm-emulator": ("vmrun.backends.objects.tpm", "TpmEmulator"),
    "secret": ("vmrun.backends.objects.secret", "Secret"),
}
# the abstract types above them, in QOM's words
PARENTS = {
    "authz-list": "authz",
    "authz-list-file": "authz",
    "authz-simple": "authz",
    "filter-buffer": "netfilter",
    "filter-dump": "netfilter",
    "filter-mirror": "netfilter",
    "filter-redirector": "netfilter",
    "memory-backend-file": "memory-backend",
    "memory-backend-memfd": "memory-backend",
    "memory-backend-ram": "memory-backend",
    "rng-builtin": "rng-backend",
    "rng-random": "rng-backend",
    "secret": "secret_common",
    "tls-creds-anon": "tls-creds",
    "tls-creds-x509": "tls-creds",
    "tpm-emulator": "tpm-backend",
}


def kind_class(kind: str) -> type[UserObject]:
    """KeyError for a kind that is not there."""
    module, name = KINDS[kind]
    found: type[UserObject] = getattr(__import__(module, fromlist=[name]), name)
    return found


def make(values: dict[str, Any], typed: bool = False) -> UserObject:
    """From `qom-type`, `id` and properties, not completed yet. typed: of JSON. BuildError in QEMU's words."""
    from vmrun.core.userobject import fill

    given = dict(values)
    kind, id = given.pop("qom-type", None), given.pop("id", None)
    if not kind:
        raise BuildError("Parameter 'qom-type' is missing")
    if kind not in KINDS:
        raise BuildError(f"Parameter 'qom-type' does not accept value '{kind}'")
    if id is None:
        raise BuildError("Parameter 'id' is missing")
    if not is_identifier(str(id)):
        raise BuildError("Parameter 'id' expects an identifier")
    made = kind_class(kind)(str(id))
    fill(made, given, typed)
    return made
