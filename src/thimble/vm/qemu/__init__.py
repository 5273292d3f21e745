"""QEMU: its command line, its descriptors, its process and its monitor. It decides nothing about a VM."""
