"""The host's side: files, terminals, sockets. Devices see only protocols."""
