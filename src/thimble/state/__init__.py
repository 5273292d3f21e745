"""What must last (store), what changed (events), what is being done (tasks)."""
