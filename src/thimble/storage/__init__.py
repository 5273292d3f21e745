"""Datastores, volumes and images.

    rules, refs, formats, contents, standalone   decide and recognise; pure
    homes                                        what is called how inside a datastore
    datastores, mounted, kinds/                  which datastores there are, and what each kind lies on
    volumes, catalog                             volumes as files, and their records
    images, upload                               images, kept and on their way in
    attachments                                  who holds a volume or an image, or has claimed it
    service                                      the seam for VMs; `*_verbs` are those for the API

Whatever may wait for a disk is done in a thread: a datastore's own (`mounted`), or that of one piece of work.
"""
