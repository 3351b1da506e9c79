"""The VNC server: the machine's screen and input for remote viewers, by the remote framebuffer protocol."""
