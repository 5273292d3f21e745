"""What a VM is to be, decided purely: spec → rules → assign → layout;
change and lifecycle say what follows from a request."""
