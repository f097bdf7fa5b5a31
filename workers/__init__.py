"""A worker: one tier's queues in, one engine, one outcome per job out. Knows no HTTP server."""
