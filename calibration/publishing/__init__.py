"""Publishes proven checkpoints as ladder.toml, keeps former ladders, and goes back to one."""
