"""Bundles of calls on their way to Redis: how much fits into one, and what is unknown after a lost connection."""
