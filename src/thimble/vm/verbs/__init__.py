"""What is asked of VMs over the API; each class has the verbs of one kind and gets the table of all VMs.

read          list, get, log, console
power         start, stop, kill, reset, pause, resume, save
create        create
reconfigure   change, delete
wanted        what a VM that is asked for, new or changed, would be, and what stands against it
"""
