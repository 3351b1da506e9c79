"""What a bus is: addresses, resources and wires, and nothing about any one device."""
