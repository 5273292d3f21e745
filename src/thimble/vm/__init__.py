"""Virtual machines. `spec rules lifecycle layout render change seed` decide; `process driver service` act."""
