"""Thimble: a standalone hypervisor that boots from one small file."""

__version__ = "0.1.0"
