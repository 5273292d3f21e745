"""QEMU: what it is given, its process and its monitor. Decides nothing about a VM.

engine ─► launch_fds, render, process ─► descriptors, rundir, programs      one QEMU, up and down
       ─► qmp, hotplug, stream, saved_file                                  what a running one is told
context                                                                     what all VMs share
"""
