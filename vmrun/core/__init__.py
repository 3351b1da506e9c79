"""What every object of a machine is: typed properties, the tree, lifecycle, state."""
