"""PID 1 of Thimble: standard library only, imports nothing of the rest of the project.

It owns the machine from the kernel's first breath to reboot(2): mounts, drivers, state partition, clock,
management network, consoles, supervision of the agent and of the small daemons, orderly shutdown.
It must never wait for a console, never block the boot on a disk or a network, never erase anything,
and never let the death of a child become the death of the host.

    stage1.py    /init: basic mounts, root image on /usr (ctypes and os only)
    stage2.py    the literal list of phases and what each does        phases.py  who may run when (pure)
    loop.py      the one event loop: descriptors, timers, signals     children.py  children of PID 1
    cmdline.py ipparam.py modalias.py uevent.py rtnl.py superblock.py backoff.py lease.py   pure
    linux.py     the system calls Python lacks
    drivers.py consoles.py console_sessions.py statedisk.py uplink.py agent.py power.py ...  effectful
    driver_table.py  for the image builder: modules.{dep,alias,softdep} → the driver table `modalias.py` reads

What the image must hold for PID 1 is written in `stage1.py` (early part) and `driver_table.py`.
"""
