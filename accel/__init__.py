"""The C-level half of vmrun: guest memory, dispatch, interrupts, clocks and the accelerators.

Nothing in here imports anything of the package vmrun; tests/style holds that line.
"""
