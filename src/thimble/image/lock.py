"""`thimble image lock`: pin the newest verified versions of every set."""

from __future__ import annotations

import time

from thimble.image import cache, locking, packages
from thimble.image.locking import Lock
from thimble.image.progress import Report


def refresh(report: Report) -> list[str]:
    """Write lock.json anew; what changed, a line a package."""
    lists = packages.wanted()
    apt = packages.private_apt(lists.suite)
    apt.update(report, older_than_s=0)
    sets = {}
    for name in lists.sets:
        report("lock", None, f"resolving `{name}`")
        sets[name] = packages.resolve(apt, lists, name)
    old = packages.read_lock() if packages.LOCK_FILE.exists() else Lock(suite=lists.suite, epoch=0, sets={})
    before = {pin for pins in old.sets.values() for pin in pins}
    after = {pin for pins in sets.values() for pin in pins}
    lines = locking.changes(before, after)
    if lines or sets != old.sets:
        epoch = int(time.time()) // 86400 * 86400 if lines else old.epoch
        cache.write(
            packages.LOCK_FILE, locking.write(Lock(suite=lists.suite, epoch=epoch, sets=sets)).encode()
        )
    return lines
