"""The physical machine: what it is, how it is, and its power."""
