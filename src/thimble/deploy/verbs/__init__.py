"""The verbs `deploy.*`, one file each: what is decided from what was found, then how it is done."""
