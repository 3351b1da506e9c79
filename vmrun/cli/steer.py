"""vmrun pause, resume and reset: one wish to a machine that runs."""

from __future__ import annotations

FINE = 0


def pause(argv: list[str]) -> int:
    return _tell("pause", "Hold a machine's processors and its time.", argv)


def resume(argv: list[str]) -> int:
    return _tell("resume", "Let a machine that is paused go on; wake one that sleeps.", argv)


def reset(argv: list[str]) -> int:
    return _tell("reset", "Press a machine's reset button.", argv)


def _tell(name: str, what: str, argv: list[str]) -> int:
    """`name` is the command's, and what a machine does by that name (vmrun.handle.Machine)."""
    import argparse

    parser = argparse.ArgumentParser(f"vmrun {name}", description=what)
    parser.add_argument("name", metavar="NAME", help="name of the machine, or its process number")
    args = parser.parse_args(argv)

    from vmrun.handle import Machine

    with Machine.attach(args.name) as machine:
        getattr(machine, name)()
    return FINE
