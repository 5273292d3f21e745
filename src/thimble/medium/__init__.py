"""What a boot medium looks like: partitions, slots, loader entries. Pure; shared by builder and updater.

    GPT  1 thimble-grub    GRUB's core, for BIOS (its first 440 bytes are in the MBR)
         2 thimble-boot    FAT: systemd-boot for UEFI, GRUB's menu for BIOS, the slots
         3 thimble-doc     FAT, label THIMBLE: the host document, for people to edit
         4 thimble-state   what the host remembers
         5 thimble-data    installed only: the rest, a datastore

A slot is one file, `/thimble/a.efi` or `b.efi`, a UKI. UEFI starts it as it is; GRUB reads kernel and initrd
out of the very same file, so there is one thing to write, to sign and to check.
"""
