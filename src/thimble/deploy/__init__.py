"""Where the host is started from: installing it, updating it so that it can be undone, rolling back.

    plan slots                pure: what would be done, in which order, and why not
    look esp health           what is there: disks, the boot partition's files, whether this boot is good
    image source trust        the new image: had from somewhere, read, checked, its signature believed
    install update devices    do it
    proof                     whether a new slot stays
    context installing service   the verbs

Invariant: at every instant there is one thing to start that was good before, or the medium we run from.
"""
