"""Offline: from traffic to checkpoints. Empty in this version; docs/log.md says what is known to work."""
