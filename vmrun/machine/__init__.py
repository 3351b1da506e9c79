"""From the resolved machine to a running one: the builder, the wires, the run state."""
