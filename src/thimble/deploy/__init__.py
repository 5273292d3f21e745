"""Where the host is started from: installing it, updating it so that it can be undone, rolling back.

    plan slots mirror disk_facts boot_files   pure: what would be done, in which order, and every blocker
    this_boot sysfs probe health              what is there: this boot, block devices, disks, what works
    mounts esp devices                        boot partitions: mounted, written, those of a mirror in step
    image image_source trust                  the new image: from somewhere, read, checked, its signature
    installer partitions state_array          what an installation does to disks
    restart kernel                            into the other slot
    trial                                     the trial boot: whether a new slot stays (commit-confirm)
    context verbs service                     put together; the verbs `deploy.*`

Invariant: at every instant there is one thing to start that was good before, or the medium we run from.
"""
