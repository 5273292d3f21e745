"""The virtual server: a QEMU process that stands for a bare machine, with nested virtualization.

spec, render, outer   pure: what a server is, its QEMU command line, whose fault a crash was
tools                 where QEMU and firmware come from (the toolbox)
disks                 state disks, EFI system partitions
home                  the directory of each server, who is running, what is stale
qmp, serial           the two wires into it
server                up, down, wait, reset, cut the power
command               `python -m thimble.lab up|down|list|console|log`
"""
