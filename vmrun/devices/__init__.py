"""The emulated devices, by what the guest sees: a file for a chip, one for its glue (ports, pins, back end).

`schema/devices.json` is made of them: `python -m vmrun.devices.catalogue`.
"""
