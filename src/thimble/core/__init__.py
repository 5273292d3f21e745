"""The vocabulary everybody shares: problems, units, ids, steps. Pure: no I/O, no clock, no randomness."""
