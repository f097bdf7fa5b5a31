"""Makes and measures the checkpoints of the tiers, offline. Knows no HTTP, no queue and no Redis."""
