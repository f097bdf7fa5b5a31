"""Which tier a request needs at least: one file per policy."""
