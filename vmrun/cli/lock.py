"""vmrun lock: write down all that a guest sees of a machine, for `vmrun up --locked` and `vmrun diff`."""

from __future__ import annotations


def run(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser("vmrun lock", description="Write the lock file of a machine.")
    parser.add_argument("file", metavar="FILE", help="machine file (.yaml, .toml, .json)")
    parser.add_argument("--output", metavar="PATH", help="where to write it (- for the terminal; default: FILE.lock)")
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the lock there holds")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change a value first")
    args = parser.parse_args(argv)

    from vmrun.cli.out import write
    from vmrun.config.resolve import resolve_file
    from vmrun.errors import BackendError, ConfigError
    from vmrun.machine import lock
    from vmrun.machine.examine import looking

    machine = resolve_file(args.file, args.set)
    path = args.output or ("-" if args.file == "-" else lock.lock_path(args.file))
    if args.check:
        with looking(machine):
            lock.check(machine.data, path)
        write(f"{path}: holds\n")
        return 0
    if path != "-" and not lock.may_replace(path):
        raise ConfigError(
            f"'{path}' exists and is no lock of vmrun's", code="VR0110", remedy="--output names another file"
        )
    with looking(machine):
        made = lock.make(machine.data)
    if path == "-":
        write(lock.text(made))
        return 0
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(lock.text(made))
    except OSError as error:
        raise BackendError(f"cannot write '{path}': {error.strerror}", code="VR0921") from None
    write(f"{path}: {made['digest'][:16]}\n")
    return 0
