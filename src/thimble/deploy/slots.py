"""The two slots of a boot partition (A/B), and every change of them as a list of small ones. Pure.

    empty ─fill─► unfinished ─offer─► trial ─confirm─► good ─(another one is confirmed)─► good, not started
                      ▲                 └──refuse, or tries used up──► bad
                      └───────clear────────────┴──────────┘

Invariants. What starts now is never changed while it is the only thing that starts. A slot has an entry only
when its file is whole. Changes are made in order, each on the disk before the next; in every list the one
that decides what starts next is the last that matters, so that a cut before it leaves the old choice.
"""

from __future__ import annotations

import msgspec

from thimble.contract.deploy import Slot, SlotState
from thimble.deploy.boot_files import TRIAL, Delete, Esp, Manifest, Op, Put, PutImage, Trial, encoded
from thimble.medium import loader
from thimble.medium.loader import Choice, Entry

BIOS, UEFI = "bios", "uefi"


def states(esp: Esp, running: str) -> tuple[Slot, ...]:
    """Both slots as people see them."""
    return tuple(_state(esp, slot, running) for slot in loader.SLOTS)


def _state(esp: Esp, slot: str, running: str) -> Slot:
    found = _best(esp, slot)
    manifest = esp.manifests.get(slot, Manifest(build="", version=""))
    left = found[0].left if found else None
    if loader.slot_path(slot) not in esp.files:
        state = SlotState.EMPTY
    elif found is None:
        state = SlotState.UNFINISHED
    elif left is None:
        state = SlotState.GOOD
    else:
        state = SlotState.TRIAL if left or slot == running else SlotState.BAD
    return Slot(
        slot=slot,
        state=state,
        version=manifest.version,
        build=manifest.build,
        number=found[1] if found else 0,
        running=slot == running,
        tries_left=left,
    )


def _best(esp: Esp, slot: str) -> tuple[Entry, int] | None:
    """The slot's entry and number; of two (a confirmation was cut short) the confirmed one."""
    found = []
    for name, text in esp.entries.items():
        entry, number = loader.parse_entry(name), loader.entry_number(text)
        if entry is not None and entry.slot == slot and number:  # without a number: half-written
            found.append((entry, number))
    found.sort(key=lambda pair: (pair[0].left is None, pair[1]))
    return found[-1] if found else None


def on_trial(esp: Esp, running: str) -> bool:
    """Is what runs a trial boot by what is on the medium, whatever the loader passed on?"""
    found = _best(esp, running)
    return (
        esp.trial is not None
        and esp.trial.slot == running
        and found is not None
        and found[0].left is not None
    )


def next_number(esp: Esp) -> int:
    return 1 + max([loader.entry_number(text) for text in esp.entries.values()], default=0)


def leftovers(esp: Esp) -> tuple[Op, ...]:
    """Files of ours nothing refers to: of interrupted work, or found by a repair of the file system."""
    known = {TRIAL, *(f"thimble/{slot}.{end}" for slot in loader.SLOTS for end in ("efi", "cfg", "json"))}
    stray = [path for path in esp.files if path.startswith("thimble/") and path not in known]
    stray += [path for path in esp.files if "/" not in path and path.upper().startswith("FSCK")]
    empty = [
        f"{loader.ENTRIES}/{name}" for name, text in esp.entries.items() if not loader.entry_number(text)
    ]
    return tuple(Delete(path=path) for path in sorted(stray + empty))


def clear(esp: Esp, slot: str) -> tuple[Op, ...]:
    """Take the slot out of every choice, then away; the other one must be good."""
    ops: list[Op] = []
    stay = Choice(default=loader.other(slot))
    if esp.choice != stay:
        ops.append(Put(path=loader.ENVIRONMENT, data=loader.environment(stay)))
    ops += _entries(esp, slot)
    paths = (TRIAL, *(f"thimble/{slot}.{end}" for end in ("cfg", "json", "efi")))
    return (*ops, *(Delete(path=path) for path in paths if path in esp.files))


def _entries(esp: Esp, slot: str, *, but: str = "") -> list[Op]:
    return [
        Delete(path=f"{loader.ENTRIES}/{name}")
        for name in sorted(esp.entries)
        if (entry := loader.parse_entry(name)) is not None and entry.slot == slot and name != but
    ]


def fill(slot: str, manifest: Manifest, menu: str) -> tuple[Op, ...]:
    """Put an image into the cleared slot; nothing starts it yet. `menu`: GRUB's file for it."""
    return (
        PutImage(path=loader.slot_path(slot)),
        Put(path=f"thimble/{slot}.json", data=encoded(manifest)),
        Put(path=f"thimble/{slot}.cfg", data=menu.encode()),
    )


def offer(esp: Esp, trial: Trial, firmware: str, *, left: int = loader.TRIES) -> tuple[Op, ...]:
    """Let the loader try the slot, `left` times; the entry of the loader this machine uses comes last."""
    slot = trial.slot
    name = Entry(slot=slot, left=left).name
    text = loader.entry_text(slot, number=trial.number, version=trial.manifest.version)
    entry = Put(path=f"{loader.ENTRIES}/{name}", data=text.encode())
    choice = Choice(default=loader.other(slot), trial=slot, tries=left)
    environment = Put(path=loader.ENVIRONMENT, data=loader.environment(choice))
    stale = _entries(esp, slot)
    note = Put(path=TRIAL, data=encoded(trial))
    return (note, *stale, *((entry, environment) if firmware == BIOS else (environment, entry)))


def confirm(esp: Esp, slot: str, firmware: str) -> tuple[Op, ...]:
    """The slot is good and starts from now on; the trial is over."""
    found = _best(esp, slot)
    number, manifest = found[1] if found else next_number(esp), esp.manifests.get(slot)
    name = Entry(slot=slot).name
    text = loader.entry_text(slot, number=number, version=manifest.version if manifest else "?").encode()
    counted = _entries(esp, slot, but=name)
    entries: list[Op] = []
    if loader.entry_number(esp.entries.get(name, "")) != number:
        entries += [Delete(path=f"{loader.ENTRIES}/{name}")] if name in esp.entries else []
        entries.append(Put(path=f"{loader.ENTRIES}/{name}", data=text))
    choice = Choice(default=slot)
    environment: list[Op] = []
    if esp.choice != choice:
        environment.append(Put(path=loader.ENVIRONMENT, data=loader.environment(choice)))
    ordered = [*environment, *entries, *counted] if firmware == BIOS else [*entries, *counted, *environment]
    return (*ordered, *([Delete(path=TRIAL)] if TRIAL in esp.files else []))


def refuse(esp: Esp, slot: str, why: str) -> tuple[Op, ...]:
    """The slot is being tried and is not good: note why, then leave it no more tries."""
    ops: list[Op] = []
    if esp.trial is not None:
        noted = msgspec.structs.replace(esp.trial, why=why)
        ops.append(Put(path=TRIAL, data=encoded(noted)))
    ops.append(Put(path=loader.ENVIRONMENT, data=loader.environment(Choice(default=loader.other(slot)))))
    found = _best(esp, slot)
    if found is None or found[0].left is None:
        return (*ops, *_entries(esp, slot))
    name = Entry(slot=slot, left=0, done=loader.TRIES).name
    old = esp.entries.get(found[0].name, "")
    if name not in esp.entries:
        ops.append(Put(path=f"{loader.ENTRIES}/{name}", data=old.encode()))
    return (*ops, *_entries(esp, slot, but=name))


def settle(esp: Esp, running: str, firmware: str) -> tuple[Op, ...]:
    """In a boot that is no trial: what runs is good; what was tried and lost keeps an entry without tries."""
    loser = loader.other(running)
    ops: list[Op] = []
    if esp.trial is not None and esp.trial.slot == loser:
        ops += [op for op in refuse(esp, loser, "") if getattr(op, "path", "") != TRIAL]
    after = [op for op in confirm(esp, running, firmware) if op not in ops]
    return (*ops, *after)


def fresh(manifest: Manifest, menu: str, *, systemd_boot: bytes, slot: str = "a") -> tuple[Op, ...]:
    """All files of a new boot partition; the UEFI firmware finds something to start with the last one."""
    return (
        Put(path=loader.ENVIRONMENT, data=loader.environment(Choice(default=slot))),
        Put(path="grub/grub.cfg", data=loader.grub_menu().encode()),
        Put(path="loader/loader.conf", data=loader.loader_conf().encode()),
        *fill(slot, manifest, menu),
        Put(
            path=f"{loader.ENTRIES}/{Entry(slot=slot).name}",
            data=loader.entry_text(slot, number=1, version=manifest.version).encode(),
        ),
        Put(path="EFI/BOOT/BOOTX64.EFI", data=systemd_boot),
    )
