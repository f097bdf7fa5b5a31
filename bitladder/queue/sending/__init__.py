"""Bundles of calls on their way to Redis, how much fits into one, and what a lost connection makes unknown."""
