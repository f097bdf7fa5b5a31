"""Jobs over HTTP: submit, read, follow, cancel, and dead letters."""
