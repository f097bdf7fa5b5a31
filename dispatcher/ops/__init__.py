"""Health, metrics and queues over HTTP."""
