"""PID 1 of Thimble: standard library only, imports nothing of the rest of the project.

It owns the machine from the start of /init to reboot(2): mounts, drivers, state partition, clock,
management network, consoles, supervision of the agent and of the small daemons, orderly shutdown.
It must never wait for a console, never block the boot on a disk or a network, never erase anything,
and never let the death of a child become the death of the host.

    stage1.py    /init: basic mounts, root image on /usr (ctypes and os only)
    stage2.py    event sources, and the phases in order
    phases.py    the list of phases: name, function, needs     sequence.py  which may run now (pure)
    pid1.py      everything PID 1 holds                         events.py    signals, the agent's messages
    loop.py      the event loop: descriptors, timers, signals   children.py  children of PID 1
    agent.py     the agent as a forked child                    power.py     shutdown and reboot
    net/         management network: NIC choice, bridge, addresses, commit-confirm, host name, DNS, NTP
    disks/       what is on the disks; finding, checking and mounting the state partition; the host document
    console/     console output, and the console UI started there
    devices/     drivers, hotplug, power buttons, hardware watchdog
    devices/driver_table.py  for the image builder: modules.{dep,alias,softdep} → the driver table

What the image must hold for PID 1 is written in `stage1.py` (early part) and `devices/driver_table.py`.
"""
