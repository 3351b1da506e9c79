"""A character back end that cannot be had."""

from __future__ import annotations

from vmrun.errors import BackendError, Problem


def refused(
    name: str, said: str = "", remedy: str = "", *, act: str = "", where: str = "", why: str = "", code: str = ""
) -> BackendError:
    """`said` in words; or what was tried ("open", "listen on", "connect to"), where, and why it failed: those are the
    problem's facts too, for vmrun.config.qemuwords.
    """
    said = said or f"cannot {act} {where}: {why}"
    facts = {"chardev": name, "said": said, "act": act, "where": where, "why": why}
    problem = Problem(code or BackendError.default_code, f"chardev '{name}': {said}", remedy=remedy, facts=facts)
    return BackendError(problems=[problem])
