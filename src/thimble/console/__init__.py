"""Serial consoles: the last output kept, several viewers at once, bytes both ways."""
