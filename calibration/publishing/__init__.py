"""Publishes proven checkpoints as ladder.toml, keeps former releases, and rolls back to one."""
