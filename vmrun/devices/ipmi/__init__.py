"""IPMI: a simulated management controller (`bmc`), and the interfaces through which a system talks to it."""
