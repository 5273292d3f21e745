"""The image builder: Debian packages → root tree → one bootable file.

    packages ─► trees ─► layout ─► early.cpio, root.squashfs ─► initrd ─► thimble.efi
    (apt)      (cache)   (pure)    (mkfs.erofs, zstd)                  (ukify)

Pure files decide (`sources`, `locking`, `elf`, `modules`, `layout`, `cpio`, `sbom`), effectful files act
(`apt`, `packages`, `toolbox`, `python`, `pack`, `build`). Only the standard library is used, so that the
builder runs before anything has been installed. It never mounts, never enters a chroot, never runs a
maintainer script, and writes only below the cache and the output directory.
"""
