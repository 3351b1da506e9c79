"""What a screen shows: the standard VGA, its registers, modes and memory, and pictures of it."""
