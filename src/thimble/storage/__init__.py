"""Datastores, volumes and images.

`rules`, `plan`, `formats` and `contents` decide and recognise, without touching anything; `datastores`,
`volumes` and `images` act; `service` is the seam for VMs, `verbs` the one for the API.

    <datastore>/thimble-datastore.json        what this is, so that it can be carried to another host
    <datastore>/vms/<vm id>/…                 a VM: its record beside its disks (written by vm)
    <datastore>/volumes/<name>.<format>       volumes of their own
    <datastore>/images/<name>, <name>.json    uploaded files and what is known of them
    <anything>/.<name>.new                    unfinished; removed when the datastore is taken into use
"""
