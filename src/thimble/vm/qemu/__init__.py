"""QEMU: what it is given, its process and its monitor. Decides nothing about a VM.

engine ─► launch_fds, render, process ─► descriptors, rundir, programs      one QEMU, brought up and taken down
       ─► qmp, hotplug, stream, saved_file                                  what is told to a running one
context                                                                     what all VMs share
"""
