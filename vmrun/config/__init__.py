"""From machine files to a resolved machine. Knows no device's code: only tables (schema) and types.

    load → Node → check → MachineSpec → resolve → ResolvedMachine

What the rest of vmrun calls:

    resolve.resolve_file(path, sets) → ResolvedMachine        every problem in one ConfigError
    resolve.check_file(path, sets) → (machine or None, problems)
    cache.resolve_cached(path, sets)                          the same, without YAML when nothing has changed
    files.check_files(machine) → problems                     images and directories on this host
    write.yaml_text(machine.to_dict())                        the machine as a file that resolves to itself
    machinetypes.load_type(name), type_names()                machine types, flattened
    catalogue.load_catalogue()                                drivers and backends with their properties

Nothing is imported here, so that each caller pays for what it uses.
"""
