"""rng-random and rng-builtin: where random numbers come from. Those of the host's kernel, either way."""

from __future__ import annotations

from vmrun.core.props import Prop
from vmrun.core.userobject import UserObject
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

KERNEL = ("/dev/urandom", "/dev/random", "/dev/hwrng")


class RngBuiltin(UserObject):
    driver = "rng-builtin"


class RngRandom(UserObject):
    driver = "rng-random"

    filename = Prop("str", "/dev/urandom", "one of the kernel's sources")

    def complete(self, platform: Platform) -> None:
        if self.filename not in KERNEL:
            raise BuildError(f"rng-random reads {', '.join(KERNEL)} alone, not '{self.filename}'")
